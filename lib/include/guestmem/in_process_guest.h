// InProcessGuest: a whole guest's memory in one process, with RAM, device regions, ROMs and doorbells. What a hypervisor's
// memory slots do, done with mmap; for user-mode devices, emulators, and tests of code that uses the interfaces.
//
//   auto guest = guestmem::InProcessGuest::Create("vm", uint64_t{1} << 32).value();
//   (void)guest->AddRam(0, 512 << 20);
//   auto memory = guestmem::GuestMemory::Create("vm", guest).value();
//   auto rom = guest->NewRom(image, "bios").value();
//   auto low = rom->MapRom(0xe0000, 0, 0x20000).value();
//   auto bell = guest->RegisterDoorbell(0xfee0'0000, {.length = guestmem::DoorbellLength::k4}, event).value();
//
// RAM, regions and ROMs may not overlap each other (kInvalidArgument, naming the lowest that is there). A doorbell may lie
// anywhere, in RAM too. A page with a doorbell has its write bit off: a write that touches one takes the slow path and goes
// to the memory beneath unless it rings; reads, and all other pages, pay nothing. On that path a write of 1, 2, 4 or 8 bytes is
// stored whole or not at all, others keep the exact prefix of a fault. A write probe of such a page and a compare-exchange
// ask the memory beneath and never ring. A write of more than 1 MiB into whose middle a doorbell is being registered may
// ring it.
//
// Locked pages (GuestMemory::LockGpns) stay as they are: what would take their memory away or replace it, and registering a
// doorbell there, is refused (kLocked, naming the lowest such page). A page with a doorbell cannot be locked for writing.
// What is dropped while it cannot be taken out (a page is locked, or the host has no memory) stays in the guest for good.
//
// When not: memory that a hypervisor maps (it has its own slots, and does not look at this object's bits).
//
// Threads: all methods from any thread; registering a doorbell waits for running accesses, so it is not for a thread that
// resolves page faults they may be sleeping on. Objects made by it keep it alive. Taking memory away does not wait for
// accesses that run: they fail at the first missing page, or are done. Signal context: no. Units: bytes; all ranges are
// page multiples, but a doorbell's address is any.

#ifndef GUESTMEM_IN_PROCESS_GUEST_H_
#define GUESTMEM_IN_PROCESS_GUEST_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "guestmem/access_bitmap.h"
#include "guestmem/backing.h"
#include "guestmem/detail/debug_name.h"
#include "guestmem/detail/schedule_sync.h"
#include "guestmem/doorbell.h"
#include "guestmem/memory_mapper.h"
#include "guestmem/rom_mapper.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/status.h"

namespace guestmem {

class InProcessGuest final : public GuestMemoryAccess,
                             public MemoryMapper,
                             public DoorbellRegistration,
                             public std::enable_shared_from_this<InProcessGuest> {
 public:
  // An empty guest with addresses [0, size), rounded up to pages. `name` appears in errors.
  // Errors: kInvalidArgument (0, or 2^47 and more), kResourceExhausted.
  static Result<std::shared_ptr<InProcessGuest>> Create(std::string_view name, uint64_t size);

  // Zeroed memory at [gpa, gpa + length), for the guest's life. Errors: kInvalidArgument (unaligned; not in the guest;
  // something else is there), kResourceExhausted. After a failure nothing has changed.
  Status AddRam(uint64_t gpa, uint64_t length);

  // Keeps a copy of `image`, nowhere in the guest yet. Errors: kInvalidArgument (empty), kResourceExhausted.
  Result<std::shared_ptr<RomMapper>> NewRom(std::span<const std::byte> image, std::string_view name);

  Result<NewMemoryRegion> NewRegion(uint64_t length, std::string_view name) override;
  Result<std::unique_ptr<Doorbell>> RegisterDoorbell(uint64_t gpa, const DoorbellMatch& match, const Event& event) override;

  // GuestMemoryAccess
  std::byte* mapping() const override { return ram_->mapping(); }
  uint64_t max_address() const override { return ram_->max_address(); }
  std::optional<BitmapInfo> access_bitmap() const override;
  PageFaultAction PageFault(const PageFaultInfo& fault) override;
  Status WriteFallback(uint64_t address, std::span<const std::byte> source) override;
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override;
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                       std::span<const std::byte> desired) override;
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override;
  void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override;

 private:
  class Region;
  class RegionInGuest;
  class Rom;
  class RomInGuest;
  class RegisteredDoorbell;
  struct Claimed {
    uint64_t length;
    detail::DebugName name;
  };
  using Bells = std::multimap<uint64_t, const RegisteredDoorbell*>;  // by address

  InProcessGuest(detail::DebugName name, std::shared_ptr<SparseMapping> ram, std::shared_ptr<AccessBitmap> bits);

  static Status Error(const detail::DebugName& name, ErrorKind kind, uint64_t start, uint64_t length, std::string_view message);
  // A failure of ram_, in the words of whoever asked.
  static Status Relabel(const Status& status, const detail::DebugName& name, uint64_t start, uint64_t length);
  // Takes [gpa, gpa + length) for `name`, if it is page-aligned, in the guest and free. Needs layout_.
  Status Claim(uint64_t gpa, uint64_t length, const detail::DebugName& name);
  // kLocked if a page of the range is locked. Needs layout_, so that none is locked before the caller has acted.
  Status CheckUnlocked(uint64_t gpa, uint64_t length) const;
  // Takes the claim [gpa, gpa + length) out of the guest, if nothing there is locked. Needs layout_.
  Status Release(uint64_t gpa, uint64_t length);
  bool HasBell(uint64_t page) const;  // needs bells_lock_
  bool Ring(uint64_t address, uint64_t length, uint64_t value) const;

  const detail::DebugName name_;
  const std::shared_ptr<SparseMapping> ram_;
  const std::shared_ptr<AccessBitmap> bits_;  // the write bits are off where a bell is; and the locks

  detail::Mutex layout_;                // guards claims_, what ram_ maps, the regions' insides; pages are locked under it
  std::map<uint64_t, Claimed> claims_;  // by address; never overlap
  // Guards bells_. Never held with layout_, nor while waiting for readers: a write that they wait for may want to ring.
  mutable detail::Mutex bells_lock_;
  Bells bells_;
};

}  // namespace guestmem

#endif  // GUESTMEM_IN_PROCESS_GUEST_H_
