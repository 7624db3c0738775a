// AccessBitmap: the access bits of a backing. Taking a bit away waits for the accesses that it allowed: no caller can forget.
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
#include <string_view>

#include "guestmem/backing.h"
#include "guestmem/detail/page_locks.h"
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

class AccessBitmap {
 public:
  // Bits for `pages` pages, all set or all clear. `name` appears in errors.
  // Errors: kInvalidArgument (2^51 pages or more), kResourceExhausted.
  static Result<std::shared_ptr<AccessBitmap>> Create(std::string_view name, uint64_t pages, bool allowed);
  static Result<std::shared_ptr<AccessBitmap>> Create(std::string_view, uint64_t, detail::NotBool auto) = delete;

  ~AccessBitmap();
  AccessBitmap(const AccessBitmap&) = delete;
  AccessBitmap& operator=(const AccessBitmap&) = delete;

  // For the backing's access_bitmap(). Valid for this object's life.
  BitmapInfo info() const;
  uint64_t pages() const { return locks_.pages(); }
  bool IsAllowed(uint64_t page, AccessType access) const;

  // Allows `access` on the pages. Takes effect at once; locked pages may be granted more.
  // Errors: kInvalidArgument (beyond the last page); then nothing changed.
  Status Grant(PageRange pages, AccessMask access);

  // Forbids `access` on the pages, and waits until nothing that was allowed before still runs.
  // Errors: kInvalidArgument, kLocked (a page is locked; ErrorInfo::gpn is the lowest); then nothing changed.
  Status Revoke(PageRange pages, AccessMask access);

  // Keeps the pages from being revoked, one count a listing; for the backing's LockGpns and UnlockGpns. The list must not change
  // during the call (GuestMemory hands over a copy of its own). Errors: kInvalidArgument (beyond the last page; or unlocking what
  // is not locked), kResourceExhausted (locking: memory, or a page locked 2^32 - 1 times); then nothing changed.
  Status Lock(std::span<const uint64_t> gpns) { return locks_.Lock(gpns); }
  Status Unlock(std::span<const uint64_t> gpns) { return locks_.Unlock(gpns); }

  // Waits until none of the pages is locked, for unplug. It may be locked again before the caller acts: revoke then
  // says so. A deadline that has passed asks without waiting. Errors: kLocked at the deadline, kInvalidArgument.
  Status WaitUnlocked(PageRange pages, std::chrono::steady_clock::time_point deadline) {
    return locks_.WaitUnlocked(pages, deadline);
  }

 private:
  using Word = detail::SharedWord<uint64_t>;

  AccessBitmap(std::string_view name, uint64_t pages, void* memory, uint64_t size);
  uint64_t words() const { return (pages() + 63) / 64; }
  Word* bitmap(int access) const { return bits_ + static_cast<uint64_t>(access) * words(); }
  void Change(PageRange pages, AccessMask access, bool set);

  Word* const bits_;  // read, write, execute; changed by atomic read-modify-write
  const uint64_t bits_size_;
  detail::PageLocks locks_;  // bits are cleared under its mutex; it is never held while waiting for readers
};

}  // namespace guestmem

#endif  // GUESTMEM_ACCESS_BITMAP_H_
