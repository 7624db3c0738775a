// Making GuestMemory: creation, views, and what needs no access.

#include "guestmem/guest_memory.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <utility>

#include "guest/layout.h"
#include "guest/piece.h"
#include "guestmem/heap_memory.h"
#include "trap/trap_outside.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

using detail::Memory;
using detail::DebugName;
using detail::Region;
using detail::Text;

constexpr uint64_t kMaxSize = uint64_t{1} << 63;

Status CreateError(std::string_view name, std::string_view message) {
  return detail::MakeNamedError(name, {.kind = ErrorKind::kInvalidArgument, .operation = Operation::kCreate}, message);
}

// A whole backing as a region, or the error of creation.
Status MakeRegion(std::string_view name, GuestMemoryAccess& backing, Region& region) {
  const Text broken = detail::BrokenPromise(backing, region);
  return std::string_view(broken).empty() ? Status() : CreateError(name, broken);
}

}  // namespace

Text detail::BrokenPromise(GuestMemoryAccess& backing, Region& region) {
  region.backing = &backing;
  region.base = backing.mapping();
  const uint64_t size = backing.max_address();
  region.iova = backing.base_iova();
  region.lockable = region.base != nullptr && backing.supports_locking();
  if (size >= kMaxSize) {
    return Text("the backing's size 0x%" PRIx64 " is not below 2^63", size);
  }
  region.Resize(size);
  if (reinterpret_cast<uintptr_t>(region.base) % kPageSize != 0) {
    return Text("the backing's mapping is not page-aligned");
  }
  if (const std::optional<BitmapInfo> bitmap = backing.access_bitmap()) {
    if (bitmap->bit_offset > 7) {
      return Text("the backing's bit_offset %d is over 7", int{bitmap->bit_offset});
    }
    region.has_bitmap = true;
    region.bit_bytes = bitmap->bit_offset * kPageSize;
    region.bitmaps[static_cast<size_t>(AccessType::kRead)] = bitmap->read;
    region.bitmaps[static_cast<size_t>(AccessType::kWrite)] = bitmap->write;
    region.bitmaps[static_cast<size_t>(AccessType::kExecute)] = bitmap->execute;
  }
  return Text("%s", "");
}

Status detail::PrepareFaultHandler(const CreateOptions& options) {
  return options.install_fault_handler ? trap::InstallFaultHandlerOnce() : Status();
}

GuestMemory::GuestMemory(std::shared_ptr<const Memory> memory)
    : memory_(std::move(memory)),
      regions_(memory_->regions.data()),
      index_mask_(memory_->regions.size() - 1),
      first_(memory_->regions[0]),
      region_bits_(memory_->region_bits) {}

GuestMemory::GuestMemory() : GuestMemory([] {
  // In storage of its own, so that there is always memory for it, and never destroyed: another object's destructor may still
  // want it when the process ends. So nobody owns it.
  static const Memory* const empty = [] {
    alignas(Memory) static std::byte storage[sizeof(Memory)];
    auto* const memory = new (storage) Memory;
    memory->name = DebugName("empty");
    return memory;
  }();
  return std::shared_ptr<const Memory>(std::shared_ptr<const Memory>(), empty);
}()) {}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept : GuestMemory() { Swap(other); }

GuestMemory& GuestMemory::operator=(GuestMemory&& other) noexcept {
  GuestMemory taken(std::move(other));
  Swap(taken);
  return *this;
}

void GuestMemory::Swap(GuestMemory& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(regions_, other.regions_);
  std::swap(index_mask_, other.index_mask_);
  std::swap(first_, other.first_);
  std::swap(region_bits_, other.region_bits_);
}

GuestMemory GuestMemory::Empty() { return GuestMemory(); }

Result<GuestMemory> GuestMemory::Create(std::string_view name, std::shared_ptr<GuestMemoryAccess> backing,
                                        CreateOptions options) {
  if (backing == nullptr) {
    return CreateError(name, "the backing is null");
  }
  return detail::OrOutOfMemory([&]() -> Result<GuestMemory> {
    auto memory = std::make_shared<Memory>();
    memory->name = DebugName(name);
    Status status = detail::PrepareFaultHandler(options);
    if (status.ok()) {
      status = MakeRegion(name, *backing, memory->only);
    }
    if (!status.ok()) {
      return status;
    }
    memory->owned.push_back(std::move(backing));
    return GuestMemory(std::move(memory));
  });
}

namespace {

Status CheckRegions(std::string_view name, uint64_t region_size, uint64_t backings) {
  if (!std::has_single_bit(region_size)) {
    return CreateError(name, Text("region size 0x%" PRIx64 " is not a power of two", region_size));
  }
  if (region_size < kPageSize) {
    return CreateError(name, Text("region size 0x%" PRIx64 " is smaller than a page", region_size));
  }
  const uint64_t max_count = kMaxSize / region_size;
  if (std::bit_ceil(std::max<uint64_t>(backings, 1)) > max_count) {
    return CreateError(name, Text("too many regions (%" PRIu64 ") for region size 0x%" PRIx64 "; at most %" PRIu64, backings,
                                  region_size, max_count));
  }
  return {};
}

}  // namespace

Result<GuestMemory> GuestMemory::CreateMultiRegion(std::string_view name, uint64_t region_size,
                                                   const std::vector<std::shared_ptr<GuestMemoryAccess>>& backings,
                                                   CreateOptions options) {
  if (Status status = CheckRegions(name, region_size, backings.size()); !status.ok()) {
    return status;
  }
  return detail::OrOutOfMemory([&]() -> Result<GuestMemory> {
    auto memory = std::make_shared<Memory>();
    memory->name = DebugName(name);
    Status status = detail::PrepareFaultHandler(options);
    memory->region_bits = static_cast<unsigned>(std::countr_zero(region_size));
    memory->several.resize(std::bit_ceil(std::max<uint64_t>(backings.size(), 1)));
    memory->regions = memory->several;
    for (size_t i = 0; i < backings.size() && status.ok(); ++i) {
      if (backings[i] == nullptr) {
        continue;
      }
      Region& region = memory->several[i];
      region.start = i * region_size;
      status = MakeRegion(name, *backings[i], region);
      if (status.ok() && region.size > region_size) {
        status = CreateError(name, Text("the size 0x%" PRIx64 " of backing %zu is over the region size 0x%" PRIx64,
                                                region.size, i, region_size));
      }
      memory->owned.push_back(backings[i]);
    }
    if (!status.ok()) {
      return status;
    }
    return GuestMemory(std::move(memory));
  });
}

Result<GuestMemory> GuestMemory::Allocate(uint64_t size) {
  auto heap = AlignedHeapMemory::Create(size);
  if (!heap.ok()) {
    return heap.status();
  }
  Result<GuestMemory> memory = Create("heap", *std::move(heap));
  if (memory.ok()) {
    // Safe because nobody else has the handle yet.
    std::const_pointer_cast<Memory>(memory->memory_)->is_heap = true;
  }
  return memory;
}

std::optional<std::span<std::atomic<uint8_t>>> GuestMemory::InnerBuffer() const& {
  if (!memory_->is_heap) {
    return std::nullopt;
  }
  // Safe because an atomic byte has a byte's representation, and guest bytes have no type of their own.
  return std::span(reinterpret_cast<std::atomic<uint8_t>*>(regions_[0].base), regions_[0].size);
}

bool GuestMemory::IsUnsharedHeap() const {
  // Only this handle, which the caller has to itself, can make the count grow again; the heap's own count is the memory's
  // share and nothing else. The fence makes visible what those did that have let go.
  const bool unshared = memory_->is_heap && memory_.use_count() == 1 && memory_->owned[0].use_count() == 1;
  std::atomic_thread_fence(std::memory_order_acquire);
  return unshared;
}

std::optional<std::span<std::byte>> GuestMemory::InnerBufferMutable() & {
  if (!IsUnsharedHeap()) {
    return std::nullopt;
  }
  return std::span(regions_[0].base, regions_[0].size);
}

std::shared_ptr<AlignedHeapMemory> GuestMemory::TakeInnerBuffer() && {
  if (!IsUnsharedHeap()) {
    return nullptr;
  }
  // Safe because is_heap says what owned[0] is.
  auto heap = std::static_pointer_cast<AlignedHeapMemory>(memory_->owned[0]);
  *this = GuestMemory();
  return heap;
}

std::optional<HostMapping> GuestMemory::FullMapping() const& {
  if (index_mask_ != 0 || regions_[0].base == nullptr || regions_[0].has_bitmap) {
    return std::nullopt;
  }
  return HostMapping{regions_[0].base, regions_[0].size};
}

std::optional<uint64_t> GuestMemory::Iova(uint64_t gpa) const {
  const auto iova = [](const Region& region, uint64_t offset) {
    return detail::EndsBelow(region.limit, offset, 1) && region.iova ? std::optional(*region.iova + offset) : std::nullopt;
  };
  if (memory_->space != nullptr) {
    const detail::ReadSection section;
    const Region& region = *detail::LiveRegion(*memory_, memory_->space->Now(), gpa);
    return iova(region, detail::OffsetIn(region, gpa));
  }
  const Region& region = RegionOf(gpa);
  return iova(region, gpa - region.start);
}

}  // namespace guestmem
