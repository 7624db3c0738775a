// A backing whose answers a test chooses and which writes down what it was asked.

#ifndef GUESTMEM_LIB_TEST_SCRIPTED_BACKING_H_
#define GUESTMEM_LIB_TEST_SCRIPTED_BACKING_H_

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "guestmem/backing.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

namespace guestmem::test {

// Sparse memory, of which some first pages are populated. Everything else is a field to set before GuestMemory::Create
// (what it caches) or at any time (the callbacks).
class ScriptedBacking : public GuestMemoryAccess {
 public:
  // `pages` of 4096 bytes, the first `populated` of them there.
  explicit ScriptedBacking(uint64_t pages, uint64_t populated)
      : ram(pages == 0 ? nullptr : SparseMapping::Create(pages * kPageSize).value()), size(pages * kPageSize) {
    if (populated != 0) {
      (void)ram->Allocate(0, populated * kPageSize);
    }
  }

  // All pages allowed; then Clear() single ones.
  void GiveBitmap(uint8_t bit_offset = 0) {
    bitmap = BitmapInfo{};
    bitmap->bit_offset = bit_offset;
    for (std::vector<uint8_t>& one : bits) {
      one.assign(size / kPageSize / 8 + 3, 0xff);
    }
    bitmap->read = bits[0].data();
    bitmap->write = bits[1].data();
    bitmap->execute = bits[2].data();
  }
  void Clear(AccessType access, uint64_t page) { *Byte(access, page) &= static_cast<uint8_t>(~Mask(page)); }
  void Set(AccessType access, uint64_t page) { *Byte(access, page) |= Mask(page); }

  std::byte* At(uint64_t address) const { return ram->mapping() + address; }
  uint8_t Byte(uint64_t address) const { return static_cast<uint8_t>(*At(address)); }

  std::byte* mapping() const override { return mapped ? ram->mapping() : nullptr; }
  uint64_t max_address() const override { return size; }
  std::optional<BitmapInfo> access_bitmap() const override { return bitmap; }
  std::optional<uint64_t> base_iova() const override { return iova; }

  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    faults.push_back(fault);
    return handler ? handler(fault) : GuestMemoryAccess::PageFault(fault);
  }
  Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    fallbacks.push_back({address, destination.size()});
    return on_read ? on_read(address, destination) : GuestMemoryAccess::ReadFallback(address, destination);
  }
  Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
    fallbacks.push_back({address, source.size()});
    return on_write ? on_write(address, source) : GuestMemoryAccess::WriteFallback(address, source);
  }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    fallbacks.push_back({address, length});
    return on_fill ? on_fill(address, value, length) : GuestMemoryAccess::FillFallback(address, value, length);
  }
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                       std::span<const std::byte> desired) override {
    fallbacks.push_back({address, current.size()});
    return on_compare_exchange ? on_compare_exchange(address, current, desired)
                               : GuestMemoryAccess::CompareExchangeFallback(address, current, desired);
  }

  std::shared_ptr<SparseMapping> ram;
  bool mapped = true;
  uint64_t size;
  std::optional<BitmapInfo> bitmap;
  std::array<std::vector<uint8_t>, kAccessTypes> bits;
  std::optional<uint64_t> iova;

  std::function<PageFaultAction(const PageFaultInfo&)> handler;
  std::function<Status(uint64_t, std::span<std::byte>)> on_read;
  std::function<Status(uint64_t, std::span<const std::byte>)> on_write;
  std::function<Status(uint64_t, std::byte, uint64_t)> on_fill;
  std::function<Result<bool>(uint64_t, std::span<std::byte>, std::span<const std::byte>)> on_compare_exchange;

  std::vector<PageFaultInfo> faults;
  std::vector<AddressRange> fallbacks;

 private:
  uint8_t Mask(uint64_t page) const { return static_cast<uint8_t>(1U << ((bitmap->bit_offset + page) % 8)); }
  uint8_t* Byte(AccessType access, uint64_t page) {
    return &bits[static_cast<size_t>(access)][(bitmap->bit_offset + page) / 8];
  }
};

// Memory named "ram" over it.
inline GuestMemory Over(std::shared_ptr<ScriptedBacking> backing) {
  return GuestMemory::Create("ram", std::move(backing)).value();
}

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_SCRIPTED_BACKING_H_
