// MemoryReader and MemoryWriter (SPEC 12): a buffer of guest memory or host bytes, a position, and limits.

#ifndef GUESTMEM_REFERENCE_MODEL_STREAMS_H_
#define GUESTMEM_REFERENCE_MODEL_STREAMS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "reference/model/kernel.h"
#include "reference/model/ranges.h"

namespace reference::model {

struct Stream {
  bool on_host = true;
  Handle memory = {};               // guest memory, of which `rest` is left,
  Buffer rest = {};
  std::vector<uint8_t> bytes = {};  // or host bytes, left from `position` on
  uint64_t position = 0;
  std::vector<uint64_t> limits = {};  // each inside the one before
};

// What is left under the first so many limits; all of them.
inline uint64_t Remaining(const Stream& stream, size_t limits) {
  uint64_t remaining = stream.on_host ? stream.bytes.size() - stream.position : LengthOf(stream.rest);
  for (size_t i = 0; i < limits; ++i) remaining = std::min(remaining, stream.limits[i]);
  return remaining;
}

inline uint64_t Remaining(const Stream& stream) { return Remaining(stream, stream.limits.size()); }

// An error that the stream finds by itself.
inline Status StreamError(ErrorKind kind, Transfer transfer, std::string cause) {
  Error error = {kind};
  error.cause = ": " + cause;
  return Told(error, OperationOf(transfer), std::nullopt, kStreamName);
}

inline Status CheckRemaining(const Stream& stream, Transfer transfer, uint64_t want) {
  const uint64_t have = Remaining(stream);
  if (want <= have) return kOk;
  return StreamError(ErrorKind::kOutOfRange, transfer, std::to_string(want) + " bytes wanted, " + std::to_string(have) + " left");
}

inline void Advance(Stream& stream, uint64_t count) {
  if (stream.on_host) stream.position += count;
  stream.rest = Cut(stream.rest, count, kMaxUint64);
  for (uint64_t& limit : stream.limits) limit -= count;
}

// Carries `request` out on the next bytes (but where is the stream's to say), or leaves the position where it was.
inline Status CarryNext(Kernel& kernel, Stream& stream, const Request& request) {
  if (Status status = CheckRemaining(stream, request.transfer, request.length)) return status;
  for (uint64_t i = 0; i < request.length && stream.on_host; ++i) {
    uint8_t& byte = stream.bytes[stream.position + i];
    if (request.transfer == Transfer::kRead) request.host[i] = byte;
    if (request.transfer == Transfer::kWrite) byte = request.host[i];
    if (request.transfer == Transfer::kFill) byte = ByteOf(request.value, 0);
  }
  if (!stream.on_host)
    if (Status status = CarryBuffer(kernel, stream.memory, request, Cut(stream.rest, 0, request.length))) return status;
  Advance(stream, request.length);
  return kOk;
}

inline Status Skip(Stream& stream, uint64_t count) {
  Status status = CheckRemaining(stream, Transfer::kRead, count);
  if (!status) Advance(stream, count);
  return status;
}

// `count` objects of `size` bytes each, in memory that is allocated for them.
inline Status ReadArray(Kernel& kernel, Stream& stream, uint64_t size, uint64_t count, std::vector<uint8_t>& objects) {
  const uint64_t length = count <= kMaxUint64 / size ? count * size : kMaxUint64;
  if (Status status = CheckRemaining(stream, Transfer::kRead, length)) return status;
  if (length > 0 && !kernel.HostCall()) return StreamError(ErrorKind::kResourceExhausted, Transfer::kRead, "out of memory");
  std::vector<uint8_t> bytes(length);
  Status status = CarryNext(kernel, stream, {Transfer::kRead, Access::kRead, 0, length, bytes});
  if (!status) objects = bytes;
  return status;
}

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_STREAMS_H_
