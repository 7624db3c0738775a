// One lock of pages (SPEC 7): all or nothing, lock first, probe then.

#ifndef GUESTMEM_SRC_GUEST_LOCK_STATE_H_
#define GUESTMEM_SRC_GUEST_LOCK_STATE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "guest/layout.h"
#include "guest/piece.h"
#include "guestmem/detail/memory.h"
#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem::detail {

// What a lock shall be of: bytes [offset, offset + length) of the listed pages laid end to end, each used at least by a byte.
struct LockRequest {
  AccessType access;
  bool kernel_access;
  bool merge;  // neighbouring pages make one span
  uint64_t offset;
  uint64_t length;
  std::span<const uint64_t> gpns;

  // Where the used part of the i-th page begins among all used bytes; of one page too many: their number.
  uint64_t Position(size_t i) const {
    return i == 0 ? 0 : i == gpns.size() ? length : i * kPageSize - offset;
  }
  uint64_t LengthOf(size_t i) const { return Position(i + 1) - Position(i); }
  // The GPA of its first byte.
  uint64_t StartOf(size_t i) const { return gpns[i] * kPageSize + (i == 0 ? offset : 0); }
};

// One lock: what was asked for, how much of it is locked just now, and where it is. With its arrays in one allocation, whose
// size the guest may have chosen: it is made before anything is called, and its failure is an error. A page costs what has to
// be known of it, no more: a lock may be of all memory.
struct LockState {
  // The part that a lock uses of one listed page.
  struct Entry {
    const Region* region;
    uint64_t offset;  // in the region
    uint64_t length;

    uint64_t address() const { return region->backing_offset + offset; }  // the backing's
    uint64_t gpa() const { return region->start + offset; }
  };

  std::shared_ptr<const Memory> memory;
  LockRequest request;               // its list is `pages`
  size_t count;                      // entries
  size_t locked = 0;                // entries [0, locked) are locked; a run's end
  size_t span_count = 0;
  bool all_inside = true;           // the memory has one region, and each GPN listed is of a whole page of it
  uint64_t* pages = nullptr;        // by entry: the GPN as listed; once all are found to lie in memory, the backing's
  const Region** regions = nullptr;  // by entry; null: the memory has one
  // In an address space.
  uint64_t* listed = nullptr;            // by entry: the GPN as listed, to be looked up anew
  std::shared_ptr<const Layout> layout;  // that the entries were found in; only while the lock is being acquired
  bool pinned = false;                   // counted in the slots, and in the list of held locks, whose links Space::locks guards
  LockState* next = nullptr;
  LockState** link = nullptr;  // what points to this
  size_t* first_entries = nullptr;  // by span; null: each entry is one
  iovec* iovecs = nullptr;          // by span; null: no kernel access

  // Null: out of memory.
  static LockState* New(std::shared_ptr<const Memory> memory, const LockRequest& request);
  void Delete();

  const Region& RegionOf(size_t i) const { return regions == nullptr ? memory->regions[0] : *regions[i]; }
  // The slot of an entry, in an address space.
  const Slot& SlotOf(size_t i) const {
    return memory->slot != nullptr ? *memory->slot : static_cast<const Slot&>(RegionOf(i));  // safe: all it has found are slots
  }
  GuestMemoryAccess& BackingOf(size_t i) const { return *RegionOf(i).backing; }
  Entry At(size_t i) const {
    const Region& region = RegionOf(i);
    return {&region, pages[i] * kPageSize - region.backing_offset + (i == 0 ? request.offset : 0), request.LengthOf(i)};
  }
  size_t FirstOfRun(size_t end) const;
  size_t EndOfRun(size_t first) const;
  size_t FirstEntry(size_t span) const {
    return span == span_count ? count : first_entries == nullptr ? span : first_entries[span];
  }

  // The error of an entry that does not lie in memory.
  Status Outside(size_t i) const;
  Status Acquire();
  void Unlock();
  void MakeSpans();

 private:
  bool InOneRun(size_t i, size_t j) const;
  // In an address space: finds all entries in the layout of now and counts them in their slots, or says why not. Waits for slots
  // that are about to go.
  Status Pin();
  Status PinIn(bool& closing);
  void PinFound();
  void Unpin();
  // Whether the entries may have been removed. In a section.
  bool HasMoved() const { return layout != nullptr && !pinned && &memory->space->Now() != layout.get(); }

  enum class Progress { kDone, kFailed, kRefused };
  Progress LockAndProbe(Status& status, Stop& stop, size_t& refused);
  Stop Probe(const Entry& entry) const;
  size_t ProbeFrom(size_t i) const;
  bool FindRefused(size_t from, Stop& stop, size_t& refused) const;
  Status Error(ErrorKind kind, uint64_t fault_address) const;
  Status Error(Status cause, uint64_t fault_address, bool write_refused) const;
  Status CallbackError(size_t first, size_t end, Status cause) const;
};

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_GUEST_LOCK_STATE_H_
