// An address space as a trace has it: its backings, its listeners, and a list of what they were told. Tests that are made of traces
// carry this text, too.

#ifndef GUESTMEM_REFERENCE_VMM_SPACE_CAST_H_
#define GUESTMEM_REFERENCE_VMM_SPACE_CAST_H_

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/address_space.h"
#include "guestmem/fault.h"
#include "guestmem/shared_memory.h"
#include "reference/vmm/space_world.h"

namespace reference::vmm {

// ---- SpaceCast
class SpaceCast {
 public:
  class Listener;

  explicit SpaceCast(uint64_t lazy) {
    for (uint64_t number = 0; number < kSpaceBackings; ++number) {
      const uint64_t size = kSpaceBackingPages[number] * guestmem::kPageSize, there = number == kLazy ? guestmem::kPageSize : size;
      if (number == kRam) {
        auto ram = guestmem::SharedMemory::Create(size).value();
        bytes_[number] = ram->mapping();
        backings[number] = std::move(ram);
      } else {
        auto ram = std::make_shared<Ram>(*this, number, lazy);
        bytes_[number] = ram->bytes();
        backings[number] = std::move(ram);
      }
      for (uint64_t i = 0; i < there; ++i) {
        bytes_[number][i] = static_cast<std::byte>(SpaceByte(number, i));
      }
      Require(there == size || mprotect(bytes_[number] + there, size - there, PROT_NONE) == 0);
    }
    space = guestmem::AddressSpace::Create("space").value();
    memory = space->memory();
  }
  SpaceCast(const SpaceCast&) = delete;
  SpaceCast& operator=(const SpaceCast&) = delete;
  ~SpaceCast() {
    for (auto& registration : registrations) {
      registration.reset();
    }
  }

  // Whether the slot that kReplaces puts is there.
  bool Replaced() const {
    const auto parts = space->Populated({kLazyGpa, guestmem::kPageSize});
    return parts.ok() && !parts->empty() && parts->front().name == "put";
  }

  // What callbacks noted since it was last asked.
  std::vector<std::string> Told() { return std::exchange(told_, {}); }
  // All bytes of a backing; those that are not there as zeroes.
  std::vector<uint8_t> Bytes(uint64_t number) const {
    std::vector<uint8_t> bytes(kSpaceBackingPages[number] * guestmem::kPageSize);
    for (uint64_t at = 0; at < bytes.size(); at += guestmem::kPageSize) {
      (void)guestmem::TryCopy(guestmem::GuestSide::kSource, &bytes[at], bytes_[number] + at, guestmem::kPageSize);
    }
    return bytes;
  }
  // Of listener `number`, made anew unless it is registered.
  guestmem::Status Register(uint64_t number, std::optional<uint64_t> refuses);
  // Notes the parts.
  guestmem::Status NotePopulated(guestmem::AddressRange range) {
    const auto parts = space->Populated(range);
    for (const guestmem::SlotInfo& part : parts.value_or(std::vector<guestmem::SlotInfo>())) {
      told_.push_back(Text(part));
    }
    return parts.status();
  }

  std::array<std::shared_ptr<guestmem::GuestMemoryAccess>, kSpaceBackings> backings;
  std::unique_ptr<guestmem::AddressSpace> space;
  guestmem::GuestMemory memory;
  std::optional<guestmem::GuestMemory> view;
  std::array<std::unique_ptr<guestmem::AddressSpaceListener>, 3> listeners;
  std::array<std::optional<guestmem::AddressSpace::Registration>, 3> registrations;

 private:
  static void Require(bool done) {
    if (!done) std::abort();
  }
  std::string Text(const guestmem::SlotInfo& slot) const {
    std::optional<uint64_t> host;
    for (uint64_t number = 0; number < kSpaceBackings; ++number) {
      const uint64_t size = kSpaceBackingPages[number] * guestmem::kPageSize;
      if (slot.host != nullptr && slot.host >= bytes_[number] && slot.host < bytes_[number] + size) {
        host = slot.host - bytes_[number];
      }
    }
    return SlotText(std::string(slot.name), slot.gpa, slot.size, slot.read_only, host,
                    slot.fd >= 0 ? std::optional(slot.file_offset) : std::nullopt);
  }

  // Pages that no host call of the library's is made for.
  class Ram final : public guestmem::GuestMemoryAccess {
   public:
    Ram(SpaceCast& cast, uint64_t number, uint64_t lazy) : cast_(cast), number_(number), lazy_(lazy) {
      void* const made = mmap(nullptr, max_address(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      Require(made != MAP_FAILED);
      bytes_ = static_cast<std::byte*>(made);
    }
    ~Ram() override { munmap(bytes_, max_address()); }
    std::byte* bytes() const { return bytes_; }

    std::byte* mapping() const override { return number_ == kRegisters ? nullptr : bytes_; }
    uint64_t max_address() const override { return kSpaceBackingPages[number_] * guestmem::kPageSize; }
    std::optional<guestmem::BitmapInfo> access_bitmap() const override {
      static constexpr uint8_t kAll[] = {0xff, 0xff}, kAllButPage1[] = {0xef, 0xff};
      return number_ == kGuarded ? std::optional(guestmem::BitmapInfo{kAll, kAllButPage1, kAll, 3}) : std::nullopt;
    }
    guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override {
      if (number_ != kLazy) return GuestMemoryAccess::PageFault(fault);
      constexpr const char* kAccesses[] = {"read", "write", "execute"};
      cast_.told_.push_back("fault " + std::string(kAccesses[static_cast<size_t>(fault.access)]) + " " + SpaceHex(fault.address) +
                            "+" + SpaceHex(fault.length));
      bool changed = true;
      if (lazy_ == kRemoves || lazy_ == kRemovesAndFallsBack || lazy_ == kReplaces) {
        std::vector<guestmem::SlotChange> steps = {guestmem::SlotChange::Remove(kLazyGpa)};
        if (lazy_ == kReplaces) {
          const auto& ram = cast_.backings[kRam];
          steps.push_back(guestmem::SlotChange::Add({kLazyGpa, 3 * guestmem::kPageSize, ram, 0, false, "put"}));
        }
        changed = cast_.space != nullptr && !(lazy_ == kReplaces && cast_.Replaced()) && cast_.space->Change(steps).ok();
      }
      if (lazy_ == kPopulates) {
        std::byte* const page = bytes_ + fault.address / guestmem::kPageSize * guestmem::kPageSize;
        Require(mprotect(page, guestmem::kPageSize, PROT_READ | PROT_WRITE) == 0);
      }
      if (lazy_ == kFallsBack || lazy_ == kRemovesAndFallsBack) return guestmem::PageFaultAction::Fallback();
      if (lazy_ != kFails && changed) return guestmem::PageFaultAction::Retry();
      return guestmem::PageFaultAction::Fail(guestmem::BackendError(guestmem::StatusCode::kAborted, "lazy"));
    }
    guestmem::Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
      cast_.told_.push_back("read_fallback " + SpaceHex(address) + "+" + SpaceHex(destination.size()));
      for (size_t i = 0; i < destination.size(); ++i) {
        destination[i] = number_ == kRegisters ? bytes_[address + i] : std::byte{0x5a};
      }
      return {};
    }
    guestmem::Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
      cast_.told_.push_back("write_fallback " + SpaceHex(address) + "+" + SpaceHex(source.size()));
      if (number_ == kRegisters) std::copy(source.begin(), source.end(), bytes_ + address);
      return {};
    }

   private:
    SpaceCast& cast_;
    const uint64_t number_;
    const uint64_t lazy_;
    std::byte* bytes_;
  };

  std::array<std::byte*, kSpaceBackings> bytes_;
  std::vector<std::string> told_;
};

class SpaceCast::Listener final : public guestmem::AddressSpaceListener {
 public:
  Listener(SpaceCast& cast, uint64_t number, std::optional<uint64_t> refuses)
      : cast_(cast), name_("L" + std::to_string(number)), refuses_(refuses) {}
  void Removing(const guestmem::SlotInfo& slot) override {
    cast_.told_.push_back(name_ + " - " + std::string(slot.name) + " " + SpaceHex(slot.gpa));
  }
  guestmem::Status Added(const guestmem::SlotInfo& slot) override {
    const bool refused = refuses_ == slot.gpa;
    cast_.told_.push_back(name_ + (refused ? " refuses " + std::string(slot.name) : " + " + cast_.Text(slot)));
    return refused ? guestmem::BackendError(guestmem::StatusCode::kUnavailable, "refused") : guestmem::Status();
  }
  void Committed() override { cast_.told_.push_back(name_ + " commit"); }

 private:
  SpaceCast& cast_;
  const std::string name_;
  const std::optional<uint64_t> refuses_;
};

inline guestmem::Status SpaceCast::Register(uint64_t number, std::optional<uint64_t> refuses) {
  if (!registrations[number]) {
    listeners[number] = std::make_unique<Listener>(*this, number, refuses);
  }
  auto registration = space->Register(*listeners[number]);
  if (registration.ok()) {
    registrations[number] = *std::move(registration);
  }
  return registration.status();
}

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_SPACE_CAST_H_
