#include "guestmem/stream.h"

#include <cinttypes>
#include <cstring>
#include <memory>

#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

// The name in errors that no GuestMemory reports.
const detail::DebugName& StreamName() {
  static const detail::DebugName name("stream");
  return name;
}

}  // namespace

[[gnu::cold]] Status PastStreamEnd(Operation operation, uint64_t want, uint64_t have) {
  return detail::MakeError(&StreamName(), ErrorKind::kOutOfRange, operation,
                           detail::Text("%" PRIu64 " bytes wanted, %" PRIu64 " left", want, have));
}

bool detail::MayAllocate() { return host::MayAllocate(); }

Status detail::NoStreamMemory() {
  return MakeError(&StreamName(), ErrorKind::kResourceExhausted, Operation::kRead);
}

Status SpanReader::Read(std::span<std::byte> destination) {
  if (destination.size() > rest_.size()) {
    return PastStreamEnd(Operation::kRead, destination.size(), rest_.size());
  }
  if (!destination.empty()) {
    std::memmove(destination.data(), rest_.data(), destination.size());
  }
  rest_ = rest_.subspan(destination.size());
  return {};
}

Status SpanReader::Skip(uint64_t length) {
  if (length > rest_.size()) {
    return PastStreamEnd(Operation::kRead, length, rest_.size());
  }
  rest_ = rest_.subspan(length);
  return {};
}

Status SpanWriter::Write(std::span<const std::byte> source) {
  if (source.size() > rest_.size()) {
    return PastStreamEnd(Operation::kWrite, source.size(), rest_.size());
  }
  if (!source.empty()) {
    std::memmove(rest_.data(), source.data(), source.size());
  }
  rest_ = rest_.subspan(source.size());
  return {};
}

Status SpanWriter::Fill(std::byte value, uint64_t length) {
  if (length > rest_.size()) {
    return PastStreamEnd(Operation::kFill, length, rest_.size());
  }
  if (length != 0) {
    std::memset(rest_.data(), std::to_integer<int>(value), length);
  }
  rest_ = rest_.subspan(length);
  return {};
}

namespace {

// Lets `access` have the first `length` bytes of `rest`, and drops them from it if that succeeds.
template <typename Range, typename Access>
Status Advance(Range& rest, Operation operation, uint64_t length, Access access) {
  const auto parts = rest.Split(length);
  if (!parts) {
    return PastStreamEnd(operation, length, rest.length());
  }
  Status status = access(parts->first);
  if (status.ok()) [[likely]] {
    rest = parts->second;
  }
  return status;
}

}  // namespace

template <typename Range>
Status BasicPagedReader<Range>::Read(std::span<std::byte> destination) {
  return Advance(rest_, Operation::kRead, destination.size(),
                 [&](const Range& part) { return memory_.ReadRange(part, destination); });
}

template <typename Range>
Status BasicPagedReader<Range>::Skip(uint64_t length) {
  return Advance(rest_, Operation::kRead, length, [](const Range&) { return Status(); });
}

template <typename Range>
Status BasicPagedWriter<Range>::Write(std::span<const std::byte> source) {
  return Advance(rest_, Operation::kWrite, source.size(),
                 [&](const Range& part) { return memory_.WriteRange(part, source); });
}

template <typename Range>
Status BasicPagedWriter<Range>::Fill(std::byte value, uint64_t length) {
  return Advance(rest_, Operation::kFill, length, [&](const Range& part) { return memory_.FillRange(part, value); });
}

template class BasicPagedReader<PagedRange>;
template class BasicPagedReader<PagedRanges>;
template class BasicPagedWriter<PagedRange>;
template class BasicPagedWriter<PagedRanges>;

Status LimitedReader::Read(std::span<std::byte> destination) {
  return Pass(Operation::kRead, destination.size(), [&](MemoryReader& stream) { return stream.Read(destination); });
}

Status LimitedReader::Skip(uint64_t length) {
  return Pass(Operation::kRead, length, [&](MemoryReader& stream) { return stream.Skip(length); });
}

Status LimitedWriter::Write(std::span<const std::byte> source) {
  return Pass(Operation::kWrite, source.size(), [&](MemoryWriter& stream) { return stream.Write(source); });
}

Status LimitedWriter::Fill(std::byte value, uint64_t length) {
  return Pass(Operation::kFill, length, [&](MemoryWriter& stream) { return stream.Fill(value, length); });
}

}  // namespace guestmem
