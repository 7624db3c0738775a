#include "guestmem/detail/page_locks.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem::detail {
PageLocks::PageLocks(std::string_view name, uint64_t pages, const std::byte* mapping)
    : name_(name), pages_(pages), mapping_(mapping) {}

PageLocks::~PageLocks() {
  if (directory_ == nullptr) {
    return;
  }
  for (uint64_t i = 0; groups_ != 0; ++i) {
    groups_ -= directory_[i] != nullptr ? 1 : 0;
    host::Free(directory_[i]);
  }
  host::Unmap(directory_, DirectoryBytes());
}

uint64_t PageLocks::DirectoryBytes() const { return (pages_ + kGroupPages - 1) / kGroupPages * sizeof(Group*); }

Status PageLocks::Misuse(Operation operation) const {
  return MakeError(&name_, ErrorKind::kInvalidArgument, operation, "a page beyond the last, or unlocking one that is not locked");
}

// The group of a page that is there; made if it has to be. Null: out of memory.
PageLocks::Group* PageLocks::GroupOf(uint64_t page) {
  if (directory_ == nullptr) {
    // Only what is used of it takes memory.
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    directory_ = static_cast<Group**>(
        host::Map(nullptr, DirectoryBytes(), PROT_READ | PROT_WRITE, kFlags, -1, 0, HostCall::kCountLocks));
    if (directory_ == nullptr) {
      return nullptr;
    }
  }
  Group*& group = directory_[page / kGroupPages];
  if (group == nullptr) {
    // Safe because zeroed memory is a group (above).
    group = static_cast<Group*>(host::AllocateZeroed(alignof(Group), sizeof(Group), HostCall::kCountLocks));
    groups_ += group != nullptr ? 1 : 0;
  }
  return group;
}

void PageLocks::FreeUnused(std::span<const uint64_t> gpns) {
  if (directory_ == nullptr) {
    return;
  }
  for (const uint64_t gpn : gpns) {
    Group*& group = directory_[gpn / kGroupPages];
    if (group != nullptr && group->locked == 0) {
      host::Free(std::exchange(group, nullptr));
      --groups_;
    }
  }
}

// An error has counted nothing.
Status PageLocks::CountUp(std::span<const uint64_t> gpns) {
  for (size_t i = 0; i < gpns.size(); ++i) {
    const uint64_t gpn = gpns[i];
    Status status;
    if (gpn >= pages_) {
      status = Misuse(Operation::kLock);
    } else if (Group* const group = GroupOf(gpn); group == nullptr) {
      status = MakeError(nullptr, ErrorKind::kResourceExhausted, Operation::kNone);
    } else if (uint32_t& count = group->counts[gpn % kGroupPages]; count == std::numeric_limits<uint32_t>::max()) {
      status = MakeError(nullptr, ErrorKind::kResourceExhausted, Operation::kNone);
    } else {
      group->locked += count++ == 0 ? 1 : 0;
    }
    if (!status.ok()) [[unlikely]] {
      (void)CountDown(gpns.first(i));
      FreeUnused(gpns.first(i));
      return status;
    }
  }
  return {};
}

// An error has counted nothing. Groups stay: what has to be counted up again needs no memory.
Status PageLocks::CountDown(std::span<const uint64_t> gpns) {
  for (size_t i = 0; i < gpns.size(); ++i) {
    const uint64_t gpn = gpns[i];
    Group* const group = gpn < pages_ && directory_ != nullptr ? directory_[gpn / kGroupPages] : nullptr;
    if (group == nullptr || group->counts[gpn % kGroupPages] == 0) [[unlikely]] {
      (void)CountUp(gpns.first(i));
      return Misuse(Operation::kLock);
    }
    group->locked -= --group->counts[gpn % kGroupPages] == 0 ? 1 : 0;
  }
  return {};
}

Status PageLocks::Lock(std::span<const uint64_t> gpns) {
  const std::lock_guard lock(mutex_);
  const bool first = directory_ == nullptr;
  Status status = CountUp(gpns);
  if (!status.ok() && first && directory_ != nullptr) {
    host::Unmap(std::exchange(directory_, nullptr), DirectoryBytes());
  }
  return status;
}

Status PageLocks::Unlock(std::span<const uint64_t> gpns) {
  Status status;
  {
    const std::lock_guard lock(mutex_);
    status = CountDown(gpns);
    if (status.ok()) {
      FreeUnused(gpns);
    }
  }
  unlocked_.notify_all();
  return status;
}

std::optional<uint64_t> PageLocks::LowestLocked(PageRange pages) const {
  const uint64_t end = pages.first + pages.count;
  for (uint64_t page = pages.first; groups_ != 0 && page < end;) {
    const uint64_t next = std::min(end, (page / kGroupPages + 1) * kGroupPages);
    const Group* const group = directory_[page / kGroupPages];
    for (; group != nullptr && page < next; ++page) {
      if (group->counts[page % kGroupPages] != 0 && (mapping_ == nullptr || host::CanRead(mapping_ + page * kPageSize))) {
        return page;
      }
    }
    page = next;
  }
  return std::nullopt;
}

Status PageLocks::LockedError(PageRange pages, uint64_t gpn) const {
  ErrorInfo info;
  info.kind = ErrorKind::kLocked;
  info.operation = Operation::kRevoke;
  info.range = {pages.first * kPageSize, pages.count * kPageSize};
  info.gpn = gpn;
  return MakeError(&name_, std::move(info));
}

Status PageLocks::CheckUnlocked(PageRange pages) const {
  if (!Contains(pages)) {
    return Misuse(Operation::kRevoke);
  }
  const std::optional<uint64_t> locked = LowestLocked(pages);
  return locked ? LockedError(pages, *locked) : Status();
}

Status PageLocks::WaitUnlocked(PageRange pages, Deadline deadline) {
  if (!Contains(pages)) {
    return Misuse(Operation::kRevoke);
  }
  std::unique_lock lock(mutex_);
  std::optional<uint64_t> locked;
  const bool free = unlocked_.wait_until(lock, deadline, [&] {
    locked = LowestLocked(pages);
    return !locked;
  });
  return free ? Status() : LockedError(pages, *locked);
}

}  // namespace guestmem::detail
