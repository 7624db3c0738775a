// What the VMM interfaces of lib/include/guestmem promise (memory_mapper.h, rom_mapper.h, doorbell.h, event.h,
// in_process_guest.h), restated for a guest of a few pages: placements in a list, pages as pointers to bytes, accesses byte
// by byte. Knows nothing of lib/.

#ifndef GUESTMEM_REFERENCE_VMM_MODEL_H_
#define GUESTMEM_REFERENCE_VMM_MODEL_H_

#include <array>
#include <map>
#include <memory>

#include "reference/vmm/machine.h"
#include "reference/vmm/model_space.h"

namespace reference::vmm {

class Model final : public Machine {
 public:
  void Start(const World& world) override;
  Outcome Run(const Op& op, bool& host_call_failed) override;
  std::span<const uint8_t> Page(uint64_t page) override;
  bool IsWritable(uint64_t page) override;
  bool IsSignalled(uint64_t event) override { return events_[event] != nullptr && *events_[event]; }
  std::span<const uint8_t> SpaceBytes(uint64_t backing) override {
    return space_ ? std::span<const uint8_t>(space_->Bytes(backing)) : std::span<const uint8_t>();
  }
  std::string End() override { return ""; }

 private:
  static constexpr char kGuest[] = "vm";  // the debug name of its memory

  using Bytes = std::vector<uint8_t>;

  struct FilePage {
    uint64_t file = 0;
    uint64_t page = 0;
    bool writable = false;
  };
  struct Region {
    std::string name;
    uint64_t length;
    std::map<uint64_t, FilePage> pages = {};  // by its page; what is not there is not mapped
    std::optional<uint64_t> gpa = {};  // where the guest sees it
    bool writable = false;
  };
  struct Rom {
    std::string name;
    uint64_t length;
    Bytes bytes;  // up to the end of its last page
  };
  // What takes a range of the guest: exactly one of the three.
  struct Placement {
    uint64_t gpa;
    uint64_t length;
    std::string name;
    std::shared_ptr<Bytes> ram = {};
    std::shared_ptr<Region> region = {};
    std::shared_ptr<Rom> rom = {};
    uint64_t rom_offset = 0;
  };
  struct Bell {
    uint64_t gpa;
    std::optional<uint64_t> value;
    std::optional<uint64_t> length;
    std::shared_ptr<bool> event;
  };
  struct View {
    uint8_t* bytes = nullptr;  // null: not there
    bool writable = false;
  };

  void AddRam(const Op& op);
  void NewRegion(const Op& op);
  void RegionMap(const Op& op);
  void RegionUnmap(const Op& op);
  void MapToGuest(const Op& op);
  void UnmapFromGuest(Region& region);
  void NewRom(const Op& op);
  void MapRom(const Op& op);
  void DropPart(uint64_t slot);
  void Register(const Op& op);
  void Event(const Op& op);
  void Read(const Op& op);
  void Write(const Op& op);
  void CompareExchange(const Op& op);
  void Probe(const Op& op);
  void Lock(const Op& op);

  // Each says why not, and is then true.
  bool Fails(const char* kind, const std::string& name, uint64_t start, uint64_t length, std::string note = "");
  bool HostFails(const std::string& name, uint64_t start, uint64_t length);
  bool MisfitsRegion(const Region& region, uint64_t offset, uint64_t length);
  bool Misplaced(uint64_t gpa, uint64_t length, const std::string& name);
  bool LockedIn(uint64_t gpa, uint64_t length);
  bool OutOfRange(const char* operation, uint64_t gpa, uint64_t length);
  void FailAccess(const char* operation, uint64_t gpa, uint64_t length, uint64_t fault, uint64_t transferred, bool stores);

  void Take(const Placement& placement) { placements_.push_back(placement); }
  void Leave(uint64_t gpa);
  void Paint();
  bool HasBell(uint64_t page) const;
  bool Ring(const std::vector<uint8_t>& bytes, uint64_t gpa);
  // The first byte of [gpa, gpa + length) that cannot be read or, `stores`, written; gpa + length: none.
  uint64_t FirstFault(uint64_t gpa, uint64_t length, bool stores) const;
  uint8_t& At(uint64_t gpa) { return views_[gpa / kPageBytes].bytes[gpa % kPageBytes]; }

  uint64_t size_ = 0;
  std::array<Bytes, kFiles> files_;
  std::vector<Placement> placements_;
  std::array<View, kMaxPages> views_;  // what the placements come to
  struct Halves {
    std::shared_ptr<Region> guest, region;
  };
  std::array<Halves, kSlots> regions_;
  std::array<std::shared_ptr<Rom>, kSlots> roms_;
  std::array<std::optional<uint64_t>, kSlots> parts_;  // by their placement's address
  std::array<std::optional<Bell>, kSlots> bells_;
  std::array<std::shared_ptr<bool>, kSlots> events_;
  std::array<std::vector<uint64_t>, kSlots> locks_;

  World world_;
  std::optional<SpaceModel> space_;

  Outcome outcome_;
  bool host_call_failed_ = false;
};

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_MODEL_H_
