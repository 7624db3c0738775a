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

SparseMapping::SparseMapping(std::byte* reserved, uint64_t reserved_size, std::byte* base, uint64_t size)
    : reserved_(reserved), reserved_size_(reserved_size), base_(base), size_(size), locks_(kName, size / kPageSize, base) {}

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

// Makes `call`, a host call that changes all of these pages and says whether it did, unless one of them is locked.
template <typename Call>
Status SparseMapping::ChangePages(uint64_t offset, uint64_t length, const char* name, Call call) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  return locks_.IfUnlocked({offset / kPageSize, length / kPageSize}, [&] {
    GUESTMEM_SCHEDULE_POINT(kRemap, base_ + offset);
    return call(base_ + offset) ? Status() : HostFailure(name, {offset, length});
  });
}

Status SparseMapping::Remap(uint64_t offset, uint64_t length, int protection, int flags) {
  return ChangePages(offset, length, "mmap", [&](std::byte* start) {
    // Without a reservation of memory nothing can fail once mmap has taken the old mapping away.
    return (flags & MAP_NORESERVE) != 0 ? host::Map(start, length, protection, flags | MAP_FIXED, -1, 0) != nullptr
                                        : host::Replace(start, length, protection, flags, -1, 0);
  });
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
  return ChangePages(offset, length, "mmap of a file", [&](std::byte* start) {
    return host::Replace(start, length, protection, MAP_SHARED, fd, static_cast<off_t>(file_offset));
  });
}

Status SparseMapping::Protect(uint64_t offset, uint64_t length, Protection protection) {
  constexpr int kBits[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
  return ChangePages(offset, length, "mprotect", [&](std::byte* start) {
    return host::Protect(start, length, kBits[static_cast<size_t>(protection)]) == 0;
  });
}

Status SparseMapping::Decommit(uint64_t offset, uint64_t length) {
  return ChangePages(offset, length, "madvise",
                     [&](std::byte* start) { return host::Advise(start, length, MADV_DONTNEED) == 0; });
}

Status SparseMapping::WaitUnlocked(uint64_t offset, uint64_t length, std::chrono::steady_clock::time_point deadline) {
  Status status = Check(offset, length);
  return status.ok() ? locks_.WaitUnlocked({offset / kPageSize, length / kPageSize}, deadline) : status;
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
  const auto missing = [&] {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                             "mbind: there is no memory on node " + std::to_string(node));
  };
  if (node >= host::kMaxNodes) {
    return missing();
  }
  // It moves memory: a device that was given the physical pages of a locked one goes on using them.
  return locks_.IfUnlocked({offset / kPageSize, length / kPageSize}, [&] {
    if (host::BindToNode(base_ + offset, length, node) == 0) {
      return Status();
    }
    if (errno == ENOSYS) {
      return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                               "mbind: this kernel has no NUMA support");
    }
    return errno == EINVAL ? missing() : HostFailure("mbind", {offset, length});
  });
}

}  // namespace guestmem
