#include "guestmem/backing.h"

namespace guestmem {

GuestMemoryAccess::~GuestMemoryAccess() = default;

std::optional<BitmapInfo> GuestMemoryAccess::access_bitmap() const { return std::nullopt; }

PageFaultAction GuestMemoryAccess::PageFault(const PageFaultInfo& fault) {
  return PageFaultAction::Fail(fault.bitmap_failure ? AccessDenied() : NotMapped());
}

Status GuestMemoryAccess::ReadFallback(uint64_t, std::span<std::byte>) { return NoFallback(); }
Status GuestMemoryAccess::WriteFallback(uint64_t, std::span<const std::byte>) { return NoFallback(); }
Status GuestMemoryAccess::FillFallback(uint64_t, uint8_t, uint64_t) { return NoFallback(); }
Result<bool> GuestMemoryAccess::CompareExchangeFallback(uint64_t, std::span<std::byte>, std::span<const std::byte>) {
  return NoFallback();
}

std::optional<uint64_t> GuestMemoryAccess::base_iova() const { return std::nullopt; }

}  // namespace guestmem
