#include "guestmem/sparse_mapping.h"

#include <errno.h>
#include <inttypes.h>

#include <limits>
#include <memory>

#include "guestmem/detail/schedule.h"
#include "host/host_calls.h"
#include "host/host_error.h"
#include "host/mapped_parts.h"
#include "host/reservation.h"

namespace guestmem {
namespace {

using Part = host::MappedParts::Part;

constexpr char kName[] = "sparse mapping";

[[gnu::cold]] Status HostFailure(const char* call, AddressRange range) { return host::HostFailure(kName, call, errno, range); }

[[gnu::cold]] Status NotWholePages(uint64_t page, AddressRange range) {
  return host::CreateError(kName, ErrorKind::kInvalidArgument, range,
                           detail::Text("not a whole number of the file's pages of %" PRIu64 " bytes, here and in the file", page));
}

}  // namespace

Result<std::shared_ptr<SparseMapping>> SparseMapping::Create(uint64_t size) {
  if (size == 0 || size > host::kMaxMapping) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {0, size}, "the size must be 1 to 2^47 - 4096 bytes");
  }
  const uint64_t rounded = (size + kPageSize - 1) / kPageSize * kPageSize;
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<SparseMapping>> {
    const host::Reservation made = host::Reserve(rounded);
    if (made.start == nullptr) {
      return HostFailure("mmap", {0, size});
    }
    host::Rollback undo([&] { host::Unmap(made.start, made.length); });
    std::unique_ptr<SparseMapping> mapping(new SparseMapping(made.start, made.length, made.base, rounded));
    undo.Keep();
    return std::shared_ptr<SparseMapping>(std::move(mapping));
  });
}

SparseMapping::SparseMapping(std::byte* reserved, uint64_t reserved_size, std::byte* base, uint64_t size)
    : reserved_(reserved),
      reserved_size_(reserved_size),
      base_(base),
      size_(size),
      locks_(kName, size / kPageSize, base),
      parts_(std::make_unique<host::MappedParts>(size, Part{PROT_NONE, kPageSize})) {}

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

Status SparseMapping::CheckWholePages(uint64_t offset, uint64_t length) const {
  const uint64_t page = parts_->PageCutBy(offset, offset + length);
  return page == 0 ? Status() : NotWholePages(page, {offset, length});
}

// Lets `call` change these pages, unless one of them is locked; false: it has not, and errno says why. `changed(part)` is what
// becomes of each part then.
template <typename Call, typename Changed>
Status SparseMapping::Change(uint64_t offset, uint64_t length, const char* name, Call call, Changed changed) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  return locks_.IfUnlocked({offset / kPageSize, length / kPageSize}, [&] {
    GUESTMEM_SCHEDULE_POINT(kRemap, base_ + offset);
    const uint64_t end = offset + length;
    Status result = CheckWholePages(offset, length);
    if (!result.ok()) {
      return result;
    }
    if (!parts_->Cut(offset, end)) {
      result = host::CreateError(kName, ErrorKind::kResourceExhausted, {offset, length});
    } else if (call(base_ + offset)) {
      parts_->ForEach(offset, end, [&](uint64_t, uint64_t, Part& part) { changed(part); });
    } else {
      result = HostFailure(name, {offset, length});
    }
    parts_->Join(offset, end);
    return result;
  });
}

// The same for what maps something else there: all of it, or nothing.
template <typename Call>
Status SparseMapping::Remap(uint64_t offset, uint64_t length, const char* name, int protection, uint64_t page_size, Call call) {
  return Change(offset, length, name, call, [&](Part& part) { part = {protection, page_size}; });
}

Status SparseMapping::Allocate(uint64_t offset, uint64_t length, Commit commit) {
  constexpr int kAccess = PROT_READ | PROT_WRITE;
  const int flags = commit == Commit::kReserve ? MAP_PRIVATE | MAP_ANONYMOUS : host::kReservedFlags;
  return Remap(offset, length, "mmap", kAccess, kPageSize,
               [&](std::byte* start) { return host::ReplaceByMemory(start, length, kAccess, flags); });
}

Status SparseMapping::MapZero(uint64_t offset, uint64_t length) {
  return Remap(offset, length, "mmap", PROT_READ, kPageSize,
               [&](std::byte* start) { return host::ReplaceByMemory(start, length, PROT_READ, host::kReservedFlags); });
}

Status SparseMapping::Unmap(uint64_t offset, uint64_t length) {
  return Remap(offset, length, "mmap", PROT_NONE, kPageSize,
               [&](std::byte* start) { return host::ReplaceByMemory(start, length, PROT_NONE, host::kReservedFlags); });
}

Status SparseMapping::MapFile(uint64_t offset, uint64_t length, int fd, uint64_t file_offset, bool writable, FileMapping mapping) {
  Status status = Check(offset, length);
  if (!status.ok() || length == 0) {
    return status;
  }
  constexpr auto kMaxFile = static_cast<uint64_t>(std::numeric_limits<off_t>::max());
  if (file_offset % kPageSize != 0 || file_offset > kMaxFile || length > kMaxFile - file_offset) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                             "the file offset must be a multiple of 4096, and the end below 2^63");
  }
  const uint64_t page = host::FilePageSize(fd);
  if ((reinterpret_cast<uintptr_t>(base_ + offset) | length | file_offset) % page != 0) {
    return NotWholePages(page, {offset, length});
  }
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  // Huge pages that are not reserved may not be there at the first store.
  const int flags = mapping == FileMapping::kShared ? MAP_SHARED : page == kPageSize ? MAP_PRIVATE | MAP_NORESERVE : MAP_PRIVATE;
  return Remap(offset, length, "mmap of a file", protection, page, [&](std::byte* start) {
    return host::Replace(start, length, protection, flags, fd, static_cast<off_t>(file_offset));
  });
}

Status SparseMapping::Protect(uint64_t offset, uint64_t length, Protection protection) {
  constexpr int kBits[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
  const int wanted = kBits[static_cast<size_t>(protection)];
  const auto call = [&](std::byte* start) {
    if (host::Protect(start, length, wanted) == 0) {
      return true;
    }
    // The kernel changes one of its mappings after the other and may refuse a later one: those before it get back what they had.
    const int reason = errno;
    parts_->ForEach(offset, offset + length, [&](uint64_t first, uint64_t end, const Part& part) {
      mprotect(base_ + first, end - first, part.protection);
    });
    errno = reason;
    return false;
  };
  return Change(offset, length, "mprotect", call, [&](Part& part) { part.protection = wanted; });
}

Status SparseMapping::Decommit(uint64_t offset, uint64_t length) {
  return Change(
      offset, length, "madvise", [&](std::byte* start) { return host::Discard(start, length) == 0; }, [](Part&) {});
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
  status = locks_.IfUnlocked({}, [&] { return CheckWholePages(offset, length); });  // advice is given to locked pages, too
  if (!status.ok()) {
    return status;
  }
  if (host::Advise(base_ + offset, length, advice == HugePages::kAdvised ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0) {
    return {};
  }
  if (errno == EINVAL) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                             "madvise: this kernel has no transparent huge pages, or not for what is mapped there");
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
                             detail::Text("mbind: there is no memory on node %u", node));
  };
  if (node >= host::kMaxNodes) {
    return missing();
  }
  // It moves memory: a device that was given the physical pages of a locked one goes on using them.
  return locks_.IfUnlocked({offset / kPageSize, length / kPageSize}, [&] {
    Status whole = CheckWholePages(offset, length);
    if (!whole.ok() || host::BindToNode(base_ + offset, length, node) == 0) {
      return whole;
    }
    if (errno == ENOSYS) {
      return host::CreateError(kName, ErrorKind::kInvalidArgument, {offset, length},
                               "mbind: this kernel has no NUMA support");
    }
    return errno == EINVAL ? missing() : HostFailure("mbind", {offset, length});
  });
}

}  // namespace guestmem
