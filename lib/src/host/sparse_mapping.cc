#include "guestmem/sparse_mapping.h"

#include <errno.h>

#include <limits>
#include <string>

#include "guestmem/detail/schedule.h"
#include "host/host_calls.h"
#include "host/host_error.h"
#include "host/reservation.h"

namespace guestmem {
namespace {

constexpr char kName[] = "sparse mapping";

Status HostFailure(const char* call, AddressRange range) { return host::HostFailure(kName, call, errno, range); }

}  // namespace

Result<std::shared_ptr<SparseMapping>> SparseMapping::Create(uint64_t size) {
  if (size == 0 || size > host::kMaxMapping) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {0, size}, "the size must be 1 to 2^47 - 4096 bytes");
  }
  const uint64_t rounded = (size + kPageSize - 1) / kPageSize * kPageSize;
  const host::Reservation made = host::Reserve(rounded);
  if (made.start == nullptr) {
    return HostFailure("mmap", {0, size});
  }
  return std::shared_ptr<SparseMapping>(new SparseMapping(made.start, made.length, made.base, rounded));
}

SparseMapping::~SparseMapping() { host::Unmap(reserved_, reserved_size_); }

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
  // Without a reservation of memory nothing can fail once mmap has taken the old mapping away.
  const bool done = (flags & MAP_NORESERVE) != 0
                        ? host::Map(base_ + offset, length, protection, flags | MAP_FIXED, -1, 0) != nullptr
                        : host::Replace(base_ + offset, length, protection, flags, -1, 0);
  if (!done) {
    return HostFailure("mmap", {offset, length});
  }
  return {};
}

Status SparseMapping::Allocate(uint64_t offset, uint64_t length) {
  return Remap(offset, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

Status SparseMapping::MapZero(uint64_t offset, uint64_t length) { return Remap(offset, length, PROT_READ, host::kReservedFlags); }

Status SparseMapping::Unmap(uint64_t offset, uint64_t length) { return Remap(offset, length, PROT_NONE, host::kReservedFlags); }

Status SparseMapping::MapFile(uint64_t offset, uint64_t length, int fd, uint64_t file_offset, bool writable) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  constexpr auto kMaxFile = static_cast<uint64_t>(std::numeric_limits<off_t>::max());
  if (file_offset % kPageSize != 0 || file_offset > kMaxFile || length > kMaxFile - file_offset) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                             "the file offset must be a multiple of 4096, and the end below 2^63");
  }
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  GUESTMEM_SCHEDULE_POINT(kRemap, base_ + offset);
  if (!host::Replace(base_ + offset, length, protection, MAP_SHARED, fd, static_cast<off_t>(file_offset))) {
    return HostFailure("mmap of a file", {offset, length});
  }
  return {};
}

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

Status SparseMapping::Decommit(uint64_t offset, uint64_t length) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  GUESTMEM_SCHEDULE_POINT(kRemap, base_ + offset);
  if (host::Advise(base_ + offset, length, MADV_DONTNEED) != 0) {
    return HostFailure("madvise", {offset, length});
  }
  return {};
}

Status SparseMapping::AdviseHugePages(uint64_t offset, uint64_t length, HugePages advice) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  if (host::Advise(base_ + offset, length, advice == HugePages::kAdvised ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0) {
    return {};
  }
  if (errno == EINVAL) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                             "madvise: this kernel has no transparent huge pages");
  }
  return HostFailure("madvise", {offset, length});
}

Status SparseMapping::BindToNode(uint64_t offset, uint64_t length, unsigned node) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  const bool exists = node < host::kMaxNodes;
  if (exists && host::BindToNode(base_ + offset, length, node) == 0) {
    return {};
  }
  if (!exists || errno == EINVAL) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                             "mbind: there is no memory on node " + std::to_string(node));
  }
  if (errno == ENOSYS) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length}, "mbind: this kernel has no NUMA support");
  }
  return HostFailure("mbind", {offset, length});
}

}  // namespace guestmem
