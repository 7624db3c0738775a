// SharedBacking<T>: a backing that is another one, owned together with others: every method goes to it.
//
// The base of decorators: derive from it, override what should differ, leave the rest.
//
//   class Counting : public guestmem::SharedBacking<guestmem::SparseMapping> {
//    public:
//     using SharedBacking::SharedBacking;
//     guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override {
//       ++faults_;
//       return SharedBacking::PageFault(fault);
//     }
//   };
//
// When not: to hand a backing to GuestMemory, which takes a std::shared_ptr as it is.
// Threads and signal context: the inner backing's own rules. A test compares the virtual tables, so that a method added to
// GuestMemoryAccess cannot be forgotten here.

#ifndef GUESTMEM_SHARED_BACKING_H_
#define GUESTMEM_SHARED_BACKING_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "guestmem/backing.h"
#include "guestmem/guest_memory.h"

namespace guestmem {

template <std::derived_from<GuestMemoryAccess> T = GuestMemoryAccess>
class SharedBacking : public GuestMemoryAccess {
 public:
  static constexpr bool kLinear = LinearGuestMemory<T>;

  // Precondition: not null.
  explicit SharedBacking(std::shared_ptr<T> inner) : inner_(std::move(inner)) {}

  const std::shared_ptr<T>& inner() const& { return inner_; }
  std::shared_ptr<T> inner() const&& { return inner_; }

  std::byte* mapping() const override { return base().mapping(); }
  uint64_t max_address() const override { return base().max_address(); }
  std::optional<BitmapInfo> access_bitmap() const override { return base().access_bitmap(); }
  PageFaultAction PageFault(const PageFaultInfo& fault) override { return base().PageFault(fault); }
  Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    return base().ReadFallback(address, destination);
  }
  Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
    return base().WriteFallback(address, source);
  }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return base().FillFallback(address, value, length);
  }
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                       std::span<const std::byte> desired) override {
    return base().CompareExchangeFallback(address, current, desired);
  }
  bool supports_locking() const override { return base().supports_locking(); }
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override { return base().LockGpns(access, gpns); }
  void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override { base().UnlockGpns(access, gpns); }
  Status ExposeVa(uint64_t address, uint64_t length) override { return base().ExposeVa(address, length); }
  Result<std::optional<GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking) override {
    return base().Subrange(offset, length, allow_preemptive_locking);
  }
  std::optional<uint64_t> base_iova() const override { return base().base_iova(); }
  Result<std::vector<SharedFile>> sharing() const override { return base().sharing(); }

 private:
  // Through the interface: a T may have made its overrides private.
  GuestMemoryAccess& base() const { return *inner_; }

  const std::shared_ptr<T> inner_;
};

}  // namespace guestmem

#endif  // GUESTMEM_SHARED_BACKING_H_
