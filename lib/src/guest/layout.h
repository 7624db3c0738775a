// The layout of an address space: what is looked up in each section of an access, and what pins it.
//
// Fence B and fence C of read_section.h hold for Space::now as for access bits: a changer stores the new layout, waits for a grace
// period, and frees the old one then.

#ifndef GUESTMEM_SRC_GUEST_LAYOUT_H_
#define GUESTMEM_SRC_GUEST_LAYOUT_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "guestmem/address_space.h"
#include "guestmem/detail/debug_name.h"
#include "guestmem/detail/memory.h"
#include "guestmem/detail/region.h"
#include "guestmem/detail/schedule.h"
#include "guestmem/detail/schedule_sync.h"
#include "types/error_rep.h"

namespace guestmem::detail {

struct LockState;

// A part of a backing at its place. Immutable but for what the locks' mutex guards.
struct Slot : Region, std::enable_shared_from_this<Slot> {
  std::shared_ptr<GuestMemoryAccess> owner;
  DebugName name;
  SlotInfo info;  // its name is a view of `name`

  // Guarded by Space::locks.
  mutable uint64_t locks = 0;    // entries of locks, held or about to be
  mutable bool closing = false;  // a change is about to take it: new locks wait
};

using Slots = std::vector<std::shared_ptr<const Slot>>;

// Slots in ascending order, and a table of them by address. Immutable.
class Layout {
 public:
  // Throws std::bad_alloc. `generation` tells it from every other layout of the same space; not 0.
  Layout(Slots slots, uint64_t generation);

  // The slot that holds `gpa`, if one does. If none does, a region that does not: its bounds are to be checked.
  [[gnu::always_inline]] const Region* Find(uint64_t gpa) const noexcept {
    const Table* table = &root_;
    for (;;) {
      const uintptr_t entry = table->entries[gpa >> table->shift & table->mask];
      if ((entry & kIsTable) == 0) [[likely]] {
        return reinterpret_cast<const Region*>(entry);
      }
      table = reinterpret_cast<const Table*>(entry - kIsTable);
    }
  }

  const Slots& slots() const { return slots_; }
  uint64_t generation() const { return generation_; }

 private:
  // Each entry is for the addresses that have the same bits from `shift` on, as far as `mask` looks at them: the address of the one
  // slot, or of the empty region, or (bit 0 set) of a table that tells several slots apart. Bits that all slots of a table have
  // in common are not looked at: what differs in them is not in the slot that it comes to.
  struct Table {
    unsigned shift = 0;
    uint64_t mask = 0;
    std::unique_ptr<uintptr_t[]> entries;
  };
  static constexpr uintptr_t kIsTable = 1;
  struct Part;

  Table Build(const Part& part);
  uintptr_t EntryOf(const Part& part);

  Table root_;
  uint64_t generation_;
  Slots slots_;
  std::deque<Table> tables_;  // where they are, they stay
};

// What an address space is, and what its memory keeps.
struct Space {
  // One at a time. Lock order: before `locks`; held while listeners are called.
  Mutex changes;
  // Guarded by `changes`.
  std::vector<AddressSpaceListener*> listeners;
  uint64_t generation = 1;  // the newest layout's

  DebugName name;  // immutable

  // What sections use. Stored with `locks` held, by who holds `changes`, which waits for a grace period before `layout`'s
  // predecessor may go.
  std::atomic<const Layout*> now{nullptr};

  // What no access takes. Innermost.
  Mutex locks;
  Condition reopened;
  // Guarded by `locks`.
  std::shared_ptr<const Layout> layout;  // *now
  LockState* held = nullptr;             // all locks that are counted in slots

  // In a section.
  const Layout& Now() const noexcept {
    GUESTMEM_SCHEDULE_POINT(kLayout);
    return *now.load(std::memory_order_acquire);  // fence B
  }
  std::shared_ptr<const Layout> Current() {
    const std::lock_guard lock(locks);
    return layout;
  }
};

// The region of an address space's memory that can hold `gpa`, as Layout::Find; of a view, what it shows, while its slot is there.
[[gnu::always_inline]] inline const Region* LiveRegion(const Memory& memory, const Layout& layout, uint64_t gpa) noexcept {
  if (memory.slot == nullptr) [[likely]] {
    return layout.Find(gpa);
  }
  return layout.Find(memory.slot->start) == memory.slot.get() ? &memory.part : &memory.only;
}

// What keeps a region that was found in a section, once that has ended.
inline std::shared_ptr<const Slot> SlotOf(const Memory& memory, const Region* region) noexcept {
  // Safe because all regions in a layout, but the empty one, are slots; and a view has its slot.
  return memory.slot != nullptr ? memory.slot : static_cast<const Slot*>(region)->shared_from_this();
}

// Asks the backing what the fast path needs, and holds it to its promises: what it breaks, or nothing.
Text BrokenPromise(GuestMemoryAccess& backing, Region& region);
Status PrepareFaultHandler(const CreateOptions& options);
// Appends the files behind a region, in the coordinates of its memory. Asks the backing; throws std::bad_alloc.
Status AppendFiles(const Region& region, std::vector<SharedFile>& files);

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_GUEST_LAYOUT_H_
