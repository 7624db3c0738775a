// What the host does to a world between accesses: mappings, bits, and accesses by the primitives underneath (SPEC 7, 9, 11).

#ifndef GUESTMEM_REFERENCE_MODEL_HOST_SIDE_H_
#define GUESTMEM_REFERENCE_MODEL_HOST_SIDE_H_

#include <cstdint>
#include <functional>
#include <span>

#include "reference/model/kernel.h"
#include "reference/model/locks.h"

namespace reference::model {

// A call of a SparseMapping.
struct MappingCall {
  uint64_t backing;
  Range bytes;
  std::function<void(uint64_t page)> change;  // what it does to each page
  bool valid = true;          // as to what else it is told
  bool moves = true;          // pages, which locks forbid
  bool host_refuses = false;  // what it is told
};

// Of pages [page, page + count) of an AccessBitmap; nothing happens where the backing has none.
enum class BitsCall : uint8_t { kRevoke, kGrant, kWaitUnlocked };

inline Status CarryMapping(Kernel& kernel, const MappingCall& call) {
  const auto [start, length] = call.bytes;
  const bool whole_pages = start % kPageSize == 0 && length % kPageSize == 0;
  if (!whole_pages || start > kMaxPages * kPageSize || length > kMaxPages * kPageSize - start) return Error{ErrorKind::kInvalidArgument};
  if (length == 0) return kOk;
  if (!call.valid) return Error{ErrorKind::kInvalidArgument};
  const Kernel::Memory& memory = kernel.memories[call.backing];
  for (uint64_t page = start / kPageSize; page < (start + length) / kPageSize; ++page)
    if (memory.setup.sparse && call.moves && memory.locks[page] != 0) return Error{.kind = ErrorKind::kLocked, .gpn = page};
  if (!kernel.HostCall()) return Error{kernel.HostFailure()};
  if (call.host_refuses) return Error{ErrorKind::kInvalidArgument};
  for (uint64_t page = start / kPageSize; page < (start + length) / kPageSize; ++page) call.change(page);
  return kOk;
}

inline Status Carry(Kernel& kernel, const MappingCall& call) {
  Status status = CarryMapping(kernel, call);
  const bool locked = status && status->kind == ErrorKind::kLocked;
  return Told(status, locked ? Operation::kRevoke : Operation::kCreate, call.bytes, kSparseName);
}

inline Status Carry(Kernel& kernel, BitsCall call, uint64_t backing, std::span<const Access> accesses, uint64_t page, uint64_t count) {
  const Kernel::Memory& memory = kernel.memories[backing];
  if (!memory.setup.managed) return kOk;
  const uint64_t end = page + count;
  if (end > memory.setup.pages) return Told(Error{ErrorKind::kInvalidArgument}, Operation::kRevoke, std::nullopt, kBitmapName);
  for (uint64_t p = page; p < end && call != BitsCall::kGrant; ++p) {
    if (memory.locks[p] == 0) continue;
    return Told(Error{.kind = ErrorKind::kLocked, .gpn = p}, Operation::kRevoke, Range{page * kPageSize, count * kPageSize}, kBitmapName);
  }
  for (uint64_t p = page; p < end && call != BitsCall::kWaitUnlocked; ++p)
    for (const Access access : accesses) kernel.SetBit(backing, p, access, call == BitsCall::kGrant);
  return kOk;
}

// Lock and Unlock.
inline Status HoldBits(Kernel& kernel, uint64_t backing, std::span<const uint64_t> gpns) {
  Kernel::Memory& memory = kernel.memories[backing];
  if (!memory.setup.managed || Hold(memory, gpns)) return kOk;
  return Told(Error{ErrorKind::kInvalidArgument}, Operation::kLock, std::nullopt, kBitmapName);
}

inline Status ReleaseBits(Kernel& kernel, uint64_t backing, std::span<const uint64_t> gpns) {
  Kernel::Memory& memory = kernel.memories[backing];
  if (!memory.setup.managed || Release(memory, gpns)) return kOk;
  return Told(Error{ErrorKind::kInvalidArgument}, Operation::kLock, std::nullopt, kBitmapName);
}

// TryCopy and the like, on the mapping alone.
inline Status Try(Kernel& kernel, const Request& request, uint64_t backing) {
  const std::optional<uint64_t> fault = kernel.MoveUpToFault(request, {backing, request.gpa, request.gpa, request.length});
  if (!fault) return kOk;
  const Operation side = request.access == Access::kWrite ? Operation::kWrite : Operation::kRead;
  return Told(Error{ErrorKind::kNotMapped, fault, *fault - request.gpa}, side, Range{request.gpa, request.length}, nullptr);
}

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_HOST_SIDE_H_
