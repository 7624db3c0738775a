// AddressSpace: a guest-physical layout that changes while devices and CPUs access it. Slots of any page-aligned place and size,
// each a part of a backing; a GuestMemory that follows every change; listeners for KVM slots, vhost tables and DMA maps.
//
//   auto space = guestmem::AddressSpace::Create("vm").value();
//   guestmem::Status s = space->Add({.gpa = 0, .size = uint64_t{3} << 30, .backing = ram, .name = "low ram"});
//   s = space->Add({.gpa = uint64_t{4} << 30, .size = uint64_t{1} << 30, .backing = ram, .backing_offset = uint64_t{3} << 30});
//   guestmem::GuestMemory memory = space->memory();                        // copy it to every device
//   s = space->Change({guestmem::SlotChange::Remove(0xe0000000),            // the guest moves a BAR: one step, nobody sees half of it
//                      guestmem::SlotChange::Add({.gpa = 0xe8000000, .size = bar_size, .backing = bar})});
//
// Accesses. What guest_memory.h says holds for memory(), each slot being a backing of its own, so that a bulk access runs from one
// slot into a neighbouring one. Each read-side section of an access (it covers up to 1 MiB, over several slots) uses the layout as
// it is when the section begins, whole. A later section of the same access looks the rest up again: where that is gone, the access
// fails with kOutOfRange at its first byte, and `transferred` is what had moved before. Once a change has returned, no transfer touches
// what was removed. A read-only slot refuses stores, compare-exchanges, write probes and write locks with kAccessDenied; no
// handler is asked. FullMapping() and InnerBuffer() of memory() give nothing; Iova(), sharing() and supports_locking() describe
// the layout as it is now.
//
// Handlers and fallbacks. An access holds on to the slot whose backing it asks: that backing is asked and outlives the call, even if
// the slot is removed meanwhile. A change does not wait for such calls, so a handler may remove the slot that it is asked about.
// The backing is destroyed with the last reference, on whichever thread drops it, and with no lock held.
//
// Views (Subrange) belong to their slot: when that is removed, or moved, every access through the view is kOutOfRange, whatever
// stands at its place later. A view keeps the backing alive, not the slot. The backing's own Subrange is not asked.
//
// Locks pin the slots of their pages: removing one is kLocked, and nothing has changed. Only the slots that are listed must be
// lockable. A lock of a slot that a change is about to take waits until that has happened or failed. Runs and spans never cross slots.
//
// Cost: an access looks its slot up in a table, about a nanosecond whatever the number of slots; it takes no lock and writes to no
// shared cache line. A change costs time for each slot of the layout, and waits for the accesses that are in a section.
//
// When not: a layout that is fixed when the machine is made is cheaper with GuestMemory::CreateMultiRegion. MMIO dispatch is not in
// here: give a slot a backing without mapping, whose fallbacks are the registers.
//
// Threads: every method from any thread; changes are carried out one after the other. A thread that resolves page faults for
// others (userfaultfd) must not change the layout: a change waits for sections that may be waiting for it. Signal context: no.
// Units: bytes.

#ifndef GUESTMEM_ADDRESS_SPACE_H_
#define GUESTMEM_ADDRESS_SPACE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "guestmem/backing.h"
#include "guestmem/guest_memory.h"
#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem {

// A slot to be. [gpa, gpa + size) of the guest is [backing_offset, backing_offset + size) of the backing, which may stand in several.
struct NewSlot {
  uint64_t gpa = 0;
  uint64_t size = 0;
  std::shared_ptr<GuestMemoryAccess> backing = {};
  uint64_t backing_offset = 0;
  bool read_only = false;
  std::string_view name = {};  // appears in errors and in SlotInfo; copied
};

// A slot of the layout, or a part of one.
struct SlotInfo {
  uint64_t gpa = 0;
  uint64_t size = 0;
  std::byte* host = nullptr;  // its host address; null: the backing has no mapping
  // The file behind it and where in the file it begins; -1 where there is none, or more than one part of one. As the backing said
  // (sharing()) when the slot was added.
  int fd = -1;
  uint64_t file_offset = 0;
  bool read_only = false;
  std::string_view name = {};  // valid while the slot is there
};

// One step of a change.
class SlotChange {
 public:
  static SlotChange Add(NewSlot slot) { return {false, std::move(slot)}; }
  // Of the slot that starts at `gpa`.
  static SlotChange Remove(uint64_t gpa) { return {true, {.gpa = gpa}}; }

 private:
  friend class AddressSpace;
  SlotChange(bool removes, NewSlot slot) : removes_(removes), slot_(std::move(slot)) {}

  bool removes_;
  NewSlot slot_;  // its gpa alone, if it is to be removed
};

// Told of every change: before anything is removed, before what is added can be accessed, and when all of it is done. Implement
// it for what has a copy of the layout: KVM, vhost, IOMMUs.
//
// The order of a change: Removing of all slots that go, in the order of the list; Added of all that come, likewise; then the new layout
// is there for accesses, and the old one in no access's hands; then Committed. Of several listeners the one registered first
// is told first, of Removing last. A slot removed and added again in one change is told of twice.
//
// Called by the thread that makes the change, outside sections and with no lock held that an access takes: a listener may
// access the memory. It must not throw (the process ends), change or register with the address space that calls it (kInvalidArgument,
// also in a handler that its accesses come to), wait for a thread that changes, or lock pages of a slot that goes.
class AddressSpaceListener {
 public:
  virtual ~AddressSpaceListener();

  // The slot is about to go: take it out of any table of your own. Accesses still reach it.
  virtual void Removing(const SlotInfo& slot);
  // The slot is about to be there. A failure calls the whole change off: whoever was told of an added slot gets Removing, and then
  // Added for each slot that had been said to go, which must not fail (the process ends). What the change returns has this
  // status as its cause.
  virtual Status Added(const SlotInfo& slot);
  // The change is done; not called for one that failed. Also called when registering has told of the slots there are.
  virtual void Committed();
};

class AddressSpace {
 public:
  // Without slots. `name` appears in the errors of accesses. Errors: kResourceExhausted; what InstallFaultHandler says.
  static Result<std::unique_ptr<AddressSpace>> Create(std::string_view name, CreateOptions options = {});
  // Listeners that are still registered get Removing for every slot. Handles, views and locks keep the last layout. Precondition:
  // no thread is in a call of this object, and no listener is the caller.
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  // Changes of one step. Errors: kInvalidArgument (gpa, size or backing_offset is not a multiple of 4096; size 0; an end
  // beyond 2^63 or beyond the backing's; no backing, or one that breaks a promise of backing.h; a slot is there, which the text names;
  // no slot begins there); kLocked, naming the lowest locked page of what was to go; kResourceExhausted; what a listener or the
  // backing's sharing() said. ErrorInfo::range is the slot that was in the way of it all. After an error nothing has changed.
  // Calling it in a read-side section of the caller's own is fatal.
  Status Add(NewSlot slot);
  Status Remove(uint64_t gpa);
  // All steps as one, or none of them: removals first, whatever their place in the list. An empty list does nothing. Errors: those above.
  Status Change(std::span<const SlotChange> changes);
  Status Change(std::initializer_list<SlotChange> changes) { return Change(std::span(changes.begin(), changes.size())); }

  // Follows every change. Keeps the layout alive, not this object.
  GuestMemory memory() const { return memory_; }

  // Unregisters the listener when it is dropped, telling it Removing for every slot. Not from a listener (fatal). May outlive the
  // address space.
  class Registration {
   public:
    Registration() = default;
    Registration(Registration&& other) noexcept : space_(std::move(other.space_)), listener_(other.listener_) {}
    Registration& operator=(Registration&& other) noexcept {
      Registration taken(std::move(other));  // what this was ends here, not with `other`
      std::swap(space_, taken.space_);
      std::swap(listener_, taken.listener_);
      return *this;
    }
    ~Registration();

   private:
    friend class AddressSpace;
    std::shared_ptr<detail::Space> space_;  // null: nothing is registered
    AddressSpaceListener* listener_ = nullptr;
  };
  // Tells the listener Added for every slot, in ascending order, then Committed. Changes wait meanwhile. Errors: what its Added
  // says (it has got Removing for what it had taken then); kInvalidArgument (registered already; called by a listener);
  // kResourceExhausted. The listener must live until it is unregistered.
  Result<Registration> Register(AddressSpaceListener& listener);

  // The parts of [start, start + length) that have host memory behind them, in ascending order, one a slot: for the slots of a
  // kernel and for dumps. Errors: kResourceExhausted. As of now: host addresses are good as long as the slots stay.
  Result<std::vector<SlotInfo>> Populated(AddressRange range) const;

 private:
  AddressSpace(std::shared_ptr<detail::Space> space, GuestMemory memory) : space_(std::move(space)), memory_(std::move(memory)) {}
  Status Apply(Operation operation, std::span<const SlotChange> changes);

  const std::shared_ptr<detail::Space> space_;
  const GuestMemory memory_;
};

}  // namespace guestmem

#endif  // GUESTMEM_ADDRESS_SPACE_H_
