// AccessBitmap: the access bits of a backing, with the waiting that nobody may forget built in.
//
//   class Ram : public guestmem::GuestMemoryAccess {
//     std::optional<guestmem::BitmapInfo> access_bitmap() const override { return bits_->info(); }
//     guestmem::Status LockGpns(...) override { return bits_->Lock(gpns); }     // if its memory can be locked
//     ...
//     std::shared_ptr<guestmem::AccessBitmap> bits_;
//   };
//
//   guestmem::Status s = bits->Revoke({first, count}, guestmem::kAllAccess);
//   if (s.ok()) unmap(first, count);        // no transfer of the engine touches these pages any more
//
// Revoke clears the bits, then waits until every access that they allowed has ended. It does not wait for running
// fallbacks (they are the backing's own), and it refuses to touch a page that is locked.
//
// When not: a backing whose bits already live elsewhere (shared with a kernel, say): give BitmapInfo to those, and call
// Rcu::Synchronize (rcu.h) after clearing.
//
// Pages are the backing's: page p is its bytes [p * 4096, (p + 1) * 4096). Units: pages.
// Threads: every method from any thread; but Revoke and WaitUnlocked never inside a read-side section (fatal), and never on
// a thread that resolves page faults which a section may be sleeping on. Signal context: no. A fork child must not use the
// bitmaps that other threads were changing when it was made.

#ifndef GUESTMEM_ACCESS_BITMAP_H_
#define GUESTMEM_ACCESS_BITMAP_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "guestmem/backing.h"
#include "guestmem/detail/debug_name.h"
#include "guestmem/detail/schedule_sync.h"
#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem {

// A set of access types, as a bit mask.
using AccessMask = uint8_t;
inline constexpr AccessMask kReadAccess = 1;
inline constexpr AccessMask kWriteAccess = 2;
inline constexpr AccessMask kExecuteAccess = 4;
inline constexpr AccessMask kAllAccess = kReadAccess | kWriteAccess | kExecuteAccess;

struct PageRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

class AccessBitmap {
 public:
  // Bits for `pages` pages, all set or all clear. `name` appears in errors.
  // Errors: kInvalidArgument (2^51 pages or more), kResourceExhausted.
  static Result<std::shared_ptr<AccessBitmap>> Create(std::string name, uint64_t pages, bool allowed);

  ~AccessBitmap();
  AccessBitmap(const AccessBitmap&) = delete;
  AccessBitmap& operator=(const AccessBitmap&) = delete;

  // For the backing's access_bitmap(). Valid for this object's life.
  BitmapInfo info() const;
  uint64_t pages() const { return pages_; }
  bool IsAllowed(uint64_t page, AccessType access) const;

  // Allows `access` on the pages. Takes effect at once; locked pages may be granted more.
  // Errors: kInvalidArgument (beyond the last page); then nothing changed.
  Status Grant(PageRange pages, AccessMask access);

  // Forbids `access` on the pages, and waits until nothing that was allowed before still runs.
  // Errors: kInvalidArgument, kLocked (a page is locked; ErrorInfo::gpn is the lowest); then nothing changed.
  Status Revoke(PageRange pages, AccessMask access);

  // Keeps the pages from being revoked, one count a listing; for the backing's LockGpns and UnlockGpns.
  // Errors: kInvalidArgument (beyond the last page; or unlocking what is not locked); then nothing changed.
  Status Lock(std::span<const uint64_t> gpns);
  Status Unlock(std::span<const uint64_t> gpns);

  // Waits until none of the pages is locked, for unplug. It may be locked again before the caller acts: revoke then
  // says so. A deadline that has passed asks without waiting. Errors: kLocked at the deadline, kInvalidArgument.
  Status WaitUnlocked(PageRange pages, std::chrono::steady_clock::time_point deadline);

 private:
  using Word = detail::SharedWord<uint64_t>;

  AccessBitmap(std::string name, uint64_t pages, std::byte* memory, uint64_t size);
  uint64_t words() const { return (pages_ + 63) / 64; }
  Word* bitmap(int access) const { return bits_ + static_cast<uint64_t>(access) * words(); }
  bool Contains(PageRange pages) const;
  Status Misuse(Operation operation) const;
  Status IsLocked(PageRange pages, uint64_t gpn) const;
  void Change(PageRange pages, AccessMask access, bool set);
  // Guarded by mutex_.
  std::optional<uint64_t> LowestLocked(PageRange pages) const;

  const detail::DebugName name_;
  const uint64_t pages_;
  std::byte* const memory_;  // of the bits and the counts
  const uint64_t memory_size_;
  Word* const bits_;         // read, write, execute; changed by atomic read-modify-write, mutex_ or not
  // Lock order: mutex_ is never held while waiting for readers, nor while a backing is called.
  detail::Mutex mutex_;
  detail::Condition unlocked_;
  uint32_t* const counts_;   // locks a page; guarded by mutex_
};

}  // namespace guestmem

#endif  // GUESTMEM_ACCESS_BITMAP_H_
