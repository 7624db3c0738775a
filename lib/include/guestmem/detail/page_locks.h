// How often each page of a backing is locked. For the library's own headers: AccessBitmap and the shipped backings that take
// pages away each have one.
//
// A lock and a change of the same pages exclude each other: a change looks at the counts and is carried out under the mutex that
// Lock counts under. A caller that locks probes the pages after Lock has returned, so it sees what a change did before.
//
// Nothing is allocated before the first lock: 8 bytes of address space for 128 pages then, and 4 bytes for each page of a group of 128
// in which one is locked. Threads: every method from any thread. Lock order: the mutex is the innermost.

#ifndef GUESTMEM_DETAIL_PAGE_LOCKS_H_
#define GUESTMEM_DETAIL_PAGE_LOCKS_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>

#include "guestmem/detail/debug_name.h"
#include "guestmem/detail/schedule_sync.h"
#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem::detail {

class PageLocks {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // Of pages [0, pages). `name` appears in errors. `mapping`: a locked page that cannot be read there counts as not locked,
  // because no lock has found it in order: one that has counted it is about to fail, and populating it must stay possible. Null:
  // locked is locked.
  PageLocks(std::string_view name, uint64_t pages, const std::byte* mapping = nullptr);
  ~PageLocks();
  PageLocks(const PageLocks&) = delete;
  PageLocks& operator=(const PageLocks&) = delete;

  uint64_t pages() const { return pages_; }

  // One lock more for each entry. `gpns` must not change meanwhile. Errors: kInvalidArgument (beyond the last page),
  // kResourceExhausted (memory; a page locked 2^32 - 1 times); then nothing has changed.
  Status Lock(std::span<const uint64_t> gpns);
  // One less. Errors: kInvalidArgument (a page that is not locked as often as it is listed); then nothing has changed.
  Status Unlock(std::span<const uint64_t> gpns);

  // What `change` says, if no page of the range is locked; none is locked before it has returned. Else kLocked, naming the lowest.
  // Errors: also kInvalidArgument (beyond the last page). `change` must not block on anything that locks or unlocks pages.
  template <typename Change>
  Status IfUnlocked(PageRange pages, Change change) {
    const std::lock_guard lock(mutex_);
    Status status = CheckUnlocked(pages);
    return status.ok() ? change() : status;
  }

  // Waits until no page of the range is locked. Errors: kLocked at the deadline, kInvalidArgument.
  Status WaitUnlocked(PageRange pages, Deadline deadline);

  // For callers that have more to say about these pages: an error about something that was asked for, and whether they are there.
  Status Misuse(Operation operation) const;
  bool Contains(PageRange pages) const { return pages.first <= pages_ && pages.count <= pages_ - pages.first; }

 private:
  friend class PageLocksPeer;  // page_locks_test.cc

  static constexpr uint64_t kGroupPages = 128;
  // Zeroed memory is a group without locks.
  struct Group {
    uint64_t locked;  // pages whose count is not 0
    std::array<uint32_t, kGroupPages> counts;
  };

  Status LockedError(PageRange pages, uint64_t gpn) const;
  // All of these are guarded by mutex_.
  Status CheckUnlocked(PageRange pages) const;
  std::optional<uint64_t> LowestLocked(PageRange pages) const;
  Status CountUp(std::span<const uint64_t> gpns);
  Status CountDown(std::span<const uint64_t> gpns);
  void FreeUnused(std::span<const uint64_t> gpns);
  Group* GroupOf(uint64_t page);
  uint64_t DirectoryBytes() const;

  const DebugName name_;
  const uint64_t pages_;
  const std::byte* const mapping_;
  Mutex mutex_;
  Condition unlocked_;
  // Guarded by mutex_. By page / kGroupPages; a null group has no locks. The directory itself is null until the first lock.
  Group** directory_ = nullptr;
  uint64_t groups_ = 0;  // that are not null
};

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_PAGE_LOCKS_H_
