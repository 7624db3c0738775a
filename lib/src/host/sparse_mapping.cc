#include "guestmem/sparse_mapping.h"

#include <errno.h>

#include <cstring>
#include <string>

#include "guestmem/detail/schedule.h"
#include "host/host_calls.h"
#include "host/host_error.h"

namespace guestmem {
namespace {

constexpr char kName[] = "sparse mapping";
constexpr int kReserved = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

Status HostFailure(const char* call, AddressRange range) {
  return host::CreateError(kName, ErrorKind::kResourceExhausted, range, std::string(call) + ": " + std::strerror(errno));
}

}  // namespace

Result<std::shared_ptr<SparseMapping>> SparseMapping::Create(uint64_t size) {
  constexpr uint64_t kAddressSpace = uint64_t{1} << 47;  // user half of a 4-level address space
  if (size == 0 || size > kAddressSpace - kPageSize) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {0, size}, "the size must be 1 to 2^47 - 4096 bytes");
  }
  const uint64_t rounded = (size + kPageSize - 1) / kPageSize * kPageSize;
  void* const base = host::Map(nullptr, rounded, PROT_NONE, kReserved, -1, 0);
  if (base == nullptr) {
    return HostFailure("mmap", {0, size});
  }
  return std::shared_ptr<SparseMapping>(new SparseMapping(static_cast<std::byte*>(base), rounded));
}

SparseMapping::~SparseMapping() { host::Unmap(base_, size_); }

Status SparseMapping::Check(uint64_t offset, uint64_t length) const {
  if (offset % kPageSize != 0 || length % kPageSize != 0) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length}, "not a whole number of pages");
  }
  if (offset > size_ || length > size_ - offset) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length}, "outside the mapping");
  }
  return {};
}

Status SparseMapping::Remap(uint64_t offset, uint64_t length, int protection, int flags) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  GUESTMEM_SCHEDULE_POINT(kRemap, base_ + offset);
  if (host::Map(base_ + offset, length, protection, flags | MAP_FIXED, -1, 0) == nullptr) {
    return HostFailure("mmap", {offset, length});
  }
  return {};
}

Status SparseMapping::Allocate(uint64_t offset, uint64_t length) {
  return Remap(offset, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

Status SparseMapping::MapZero(uint64_t offset, uint64_t length) { return Remap(offset, length, PROT_READ, kReserved); }

Status SparseMapping::Unmap(uint64_t offset, uint64_t length) { return Remap(offset, length, PROT_NONE, kReserved); }

Status SparseMapping::Protect(uint64_t offset, uint64_t length, Protection protection) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  constexpr int kBits[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
  GUESTMEM_SCHEDULE_POINT(kRemap, base_ + offset);
  if (host::Protect(base_ + offset, length, kBits[static_cast<size_t>(protection)]) != 0) {
    return HostFailure("mprotect", {offset, length});
  }
  return {};
}

}  // namespace guestmem
