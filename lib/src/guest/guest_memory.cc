// Making GuestMemory: creation, views, and what needs no access.

#include "guestmem/guest_memory.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "guestmem/heap_memory.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

using detail::Memory;
using detail::Region;
using Name = std::shared_ptr<const std::string>;

constexpr uint64_t kMaxSize = uint64_t{1} << 63;

Status CreateError(const Name& name, std::string message) {
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidArgument;
  info.operation = Operation::kCreate;
  return detail::MakeError(name, std::move(info), std::move(message));
}

template <typename... Values>
std::string Format(const char* format, Values... values) {
  char text[200];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

// Asks the backing what the fast path needs, and holds it to its promises.
Status MakeRegion(const Name& name, GuestMemoryAccess& backing, Region& region) {
  region.backing = &backing;
  region.base = backing.mapping();
  region.size = backing.max_address();
  region.mapped_size = region.base == nullptr ? 0 : region.size;
  region.iova = backing.base_iova();
  if (region.size >= kMaxSize) {
    return CreateError(name, Format("the backing's size 0x%" PRIx64 " is not below 2^63", region.size));
  }
  if (reinterpret_cast<uintptr_t>(region.base) % kPageSize != 0) {
    return CreateError(name, "the backing's mapping is not page-aligned");
  }
  if (const std::optional<BitmapInfo> bitmap = backing.access_bitmap()) {
    if (bitmap->bit_offset > 7) {
      return CreateError(name, Format("the backing's bit_offset %d is over 7", int{bitmap->bit_offset}));
    }
    region.has_bitmap = true;
    region.bit_bytes = bitmap->bit_offset * kPageSize;
    region.bitmaps[static_cast<size_t>(AccessType::kRead)] = bitmap->read;
    region.bitmaps[static_cast<size_t>(AccessType::kWrite)] = bitmap->write;
    region.bitmaps[static_cast<size_t>(AccessType::kExecute)] = bitmap->execute;
  }
  return {};
}

Status PrepareFaultHandler(const CreateOptions& options) {
  return options.install_fault_handler ? InstallFaultHandler() : Status();
}

}  // namespace

GuestMemory::GuestMemory(std::shared_ptr<const Memory> memory)
    : memory_(std::move(memory)),
      regions_(memory_->regions.data()),
      index_mask_(memory_->regions.size() - 1),
      region_mask_(memory_->region_mask()),
      region_bits_(memory_->region_bits) {}

GuestMemory::GuestMemory() : GuestMemory([] {
  static const std::shared_ptr<const Memory> empty = [] {
    auto memory = std::make_shared<Memory>();
    memory->name = std::make_shared<const std::string>("empty");
    memory->regions.resize(1);
    return memory;
  }();
  return empty;
}()) {}

GuestMemory GuestMemory::Empty() { return GuestMemory(); }

Result<GuestMemory> GuestMemory::Create(std::string name, std::shared_ptr<GuestMemoryAccess> backing,
                                        CreateOptions options) {
  auto memory = std::make_shared<Memory>();
  memory->name = std::make_shared<const std::string>(std::move(name));
  if (backing == nullptr) {
    return CreateError(memory->name, "the backing is null");
  }
  Status status = PrepareFaultHandler(options);
  if (status.ok()) {
    status = MakeRegion(memory->name, *backing, memory->regions.emplace_back());
  }
  if (!status.ok()) {
    return status;
  }
  memory->owned.push_back(std::move(backing));
  return GuestMemory(std::move(memory));
}

Result<GuestMemory> GuestMemory::CreateMultiRegion(std::string name, uint64_t region_size,
                                                   std::vector<std::shared_ptr<GuestMemoryAccess>> backings,
                                                   CreateOptions options) {
  auto memory = std::make_shared<Memory>();
  memory->name = std::make_shared<const std::string>(std::move(name));
  if (!std::has_single_bit(region_size)) {
    return CreateError(memory->name, Format("region size 0x%" PRIx64 " is not a power of two", region_size));
  }
  if (region_size < kPageSize) {
    return CreateError(memory->name, Format("region size 0x%" PRIx64 " is smaller than a page", region_size));
  }
  const uint64_t count = std::bit_ceil(std::max<uint64_t>(backings.size(), 1));
  const uint64_t max_count = kMaxSize / region_size;
  if (count > max_count) {
    return CreateError(memory->name, Format("too many regions (%" PRIu64 ") for region size 0x%" PRIx64 "; at most %" PRIu64,
                                            count, region_size, max_count));
  }
  Status status = PrepareFaultHandler(options);
  memory->region_bits = static_cast<unsigned>(std::countr_zero(region_size));
  memory->regions.resize(count);
  for (size_t i = 0; i < backings.size() && status.ok(); ++i) {
    if (backings[i] == nullptr) {
      continue;
    }
    status = MakeRegion(memory->name, *backings[i], memory->regions[i]);
    if (status.ok() && memory->regions[i].size > region_size) {
      status = CreateError(memory->name, Format("the size 0x%" PRIx64 " of backing %zu is over the region size 0x%" PRIx64,
                                                memory->regions[i].size, i, region_size));
    }
    memory->owned.push_back(backings[i]);
  }
  if (!status.ok()) {
    return status;
  }
  return GuestMemory(std::move(memory));
}

Result<GuestMemory> GuestMemory::Allocate(uint64_t size) {
  auto heap = AlignedHeapMemory::Create(size);
  if (!heap.ok()) {
    return heap.status();
  }
  return Create("heap", *std::move(heap));
}

Result<GuestMemory> GuestMemory::Subrange(uint64_t offset, uint64_t length, bool /*allow_preemptive_locking*/) const {
  uint64_t in_region = 0;
  const Region* region = Locate(offset, length, in_region);
  uint64_t previous_in_region = 0;
  if ((region == nullptr || region->backing == nullptr) && length == 0 && offset != 0) {
    // Not inside a backing: perhaps at the end of one.
    region = Locate(offset - 1, 1, previous_in_region);
    in_region = previous_in_region + 1;
  }
  if (region == nullptr || region->backing == nullptr) {
    ErrorInfo info;
    info.kind = ErrorKind::kOutOfRange;
    info.operation = Operation::kSubrange;
    info.range = {offset, length};
    info.fault_address = offset;
    return detail::MakeError(memory_->name, std::move(info));
  }
  auto view = std::make_shared<Memory>();
  view->name = memory_->name;
  // Safe because ownership is all that `owned` is for: nothing is reached through it.
  view->owned.push_back(std::const_pointer_cast<Memory>(memory_));
  Region& part = view->regions.emplace_back(*region);
  part.base = region->base == nullptr ? nullptr : region->base + in_region;
  part.size = length;
  part.mapped_size = region->base == nullptr ? 0 : length;
  part.backing_offset += in_region;
  part.bit_bytes += in_region;
  if (part.iova) {
    *part.iova += in_region;
  }
  return GuestMemory(std::move(view));
}

std::optional<HostMapping> GuestMemory::FullMapping() const {
  if (index_mask_ != 0 || regions_[0].base == nullptr || regions_[0].has_bitmap) {
    return std::nullopt;
  }
  return HostMapping{regions_[0].base, regions_[0].size};
}

std::optional<uint64_t> GuestMemory::Iova(uint64_t gpa) const {
  uint64_t offset;
  const Region* const region = Locate(gpa, 1, offset);
  if (region == nullptr || !region->iova) {
    return std::nullopt;
  }
  return *region->iova + offset;
}

}  // namespace guestmem
