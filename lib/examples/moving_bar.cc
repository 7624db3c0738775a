// A machine whose guest moves a device's memory while it runs: RAM, a ROM that takes no stores, a BAR; and what has a copy of the
// layout (KVM, vhost, an IOMMU) told of every change before and after it.
//
// Prints:
//   + ram 0x0+0x100000
//   + rom 0xfffc0000+0x40000 read-only
//   + bar 0xe0000000+0x2000
//   device: bar holds 42
//   - bar 0xe0000000
//   + bar 0xe8000000+0x2000
//   at the old place: guest memory 'vm': read error: failed to access 0xe0000000-0xe0000004: the range is not inside memory
//   at the new place: 42
//   the ROM: guest memory 'vm': write error: failed to access 0xfffc0000-0xfffc0004: the slot is read-only
//   pinned: guest memory 'vm': remove error: failed to access 0x0-0x100000: there is a lock on page 0x5
//   - rom 0xfffc0000
//   - bar 0xe8000000
//   - ram 0x0

#include <array>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <string>

#include <guestmem/address_space.h>
#include <guestmem/shared_memory.h>

namespace {

using guestmem::SlotChange;
using guestmem::SlotInfo;
using guestmem::Status;

// Stands for KVM: where it says +, KVM_SET_USER_MEMORY_REGION with slot.host and slot.size; where it says -, the same with size 0.
class Kernel : public guestmem::AddressSpaceListener {
 public:
  void Removing(const SlotInfo& slot) override {
    std::printf("- %s 0x%" PRIx64 "\n", std::string(slot.name).c_str(), slot.gpa);
  }
  Status Added(const SlotInfo& slot) override {
    std::printf("+ %s 0x%" PRIx64 "+0x%" PRIx64 "%s\n", std::string(slot.name).c_str(), slot.gpa, slot.size,
                slot.read_only ? " read-only" : "");
    return {};  // a failure would call the whole change off
  }
};

void Print(const char* what, const Status& status) { std::printf("%s: %s\n", what, status.ToString().c_str()); }

}  // namespace

int main() {
  constexpr uint64_t kOldBar = 0xe0000000, kNewBar = 0xe8000000, kRom = 0xfffc0000;
  const auto ram = guestmem::SharedMemory::Create(1 << 20).value();
  const auto rom = guestmem::SharedMemory::Create(256 << 10).value();
  const auto bar = guestmem::SharedMemory::Create(8192).value();

  const auto space = guestmem::AddressSpace::Create("vm").value();
  Kernel kernel;
  const auto registration = space->Register(kernel).value();
  Status status = space->Change({SlotChange::Add({.gpa = 0, .size = 1 << 20, .backing = ram, .name = "ram"}),
                                 SlotChange::Add({.gpa = kRom, .size = 256 << 10, .backing = rom, .read_only = true, .name = "rom"})});
  if (!status.ok()) return 1;
  status = space->Add({.gpa = kOldBar, .size = 8192, .backing = bar, .name = "bar"});
  if (!status.ok()) return 1;

  // Every device has a copy of this, and never hears of the changes.
  const guestmem::GuestMemory memory = space->memory();
  if (!memory.WritePlain<uint32_t>(kOldBar, 42).ok()) return 1;
  std::printf("device: bar holds %u\n", memory.ReadPlain<uint32_t>(kOldBar).value());

  // The guest writes to the BAR register. No access sees both places, or neither.
  status = space->Change({SlotChange::Remove(kOldBar), SlotChange::Add({.gpa = kNewBar, .size = 8192, .backing = bar, .name = "bar"})});
  if (!status.ok()) return 1;
  Print("at the old place", memory.ReadPlain<uint32_t>(kOldBar).status());
  std::printf("at the new place: %u\n", memory.ReadPlain<uint32_t>(kNewBar).value());
  Print("the ROM", memory.WritePlain<uint32_t>(kRom, 0));

  // DMA in flight: what is locked cannot be taken away.
  const auto locked = memory.LockGpns(guestmem::AccessType::kWrite, /*kernel_access=*/true, std::array<uint64_t, 1>{5});
  if (!locked.ok()) return 1;
  Print("pinned", space->Remove(0));
  return 0;
}
