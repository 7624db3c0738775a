#include "guestmem/backing.h"

namespace guestmem {

GuestMemoryAccess::~GuestMemoryAccess() = default;

std::optional<BitmapInfo> GuestMemoryAccess::access_bitmap() const { return std::nullopt; }

PageFaultAction GuestMemoryAccess::PageFault(const PageFaultInfo& fault) {
  return PageFaultAction::Fail(fault.bitmap_failure ? AccessDenied() : NotMapped());
}

Status GuestMemoryAccess::ReadFallback(uint64_t, std::span<std::byte>) { return NoFallback(); }
Status GuestMemoryAccess::WriteFallback(uint64_t, std::span<const std::byte>) { return NoFallback(); }
Status GuestMemoryAccess::FillFallback(uint64_t, std::byte, uint64_t) { return NoFallback(); }
Result<bool> GuestMemoryAccess::CompareExchangeFallback(uint64_t, std::span<std::byte>, std::span<const std::byte>) {
  return NoFallback();
}

bool GuestMemoryAccess::supports_locking() const { return mapping() != nullptr; }
Status GuestMemoryAccess::LockGpns(AccessType, std::span<const uint64_t>) { return {}; }
void GuestMemoryAccess::UnlockGpns(AccessType, std::span<const uint64_t>) {}
Status GuestMemoryAccess::ExposeVa(uint64_t, uint64_t) { return {}; }

std::optional<uint64_t> GuestMemoryAccess::base_iova() const { return std::nullopt; }
Result<std::vector<SharedFile>> GuestMemoryAccess::sharing() const { return std::vector<SharedFile>(); }

// GuestMemoryAccess::Subrange is in guest/view.cc: its result is of a layer that this one doesn't know.

}  // namespace guestmem
