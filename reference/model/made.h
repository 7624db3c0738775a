// Memory that steps make (SPEC 9 and 10).

#ifndef GUESTMEM_REFERENCE_MODEL_MADE_H_
#define GUESTMEM_REFERENCE_MODEL_MADE_H_

#include <bit>
#include <cstdint>
#include <optional>

#include "reference/model/kernel.h"

namespace reference::model {

constexpr uint64_t k2To63 = uint64_t{1} << 63;
constexpr uint64_t kLargestMapping = (uint64_t{1} << 47) - kPageSize;
constexpr uint64_t kLargestReserved = uint64_t{1} << 46;  // more is not to be had, whatever the host says
constexpr uint64_t kTooManyPages = uint64_t{1} << 51;

inline Status Failed(ErrorKind kind, std::optional<Range> range, const char* name) { return Told(Error{kind}, Operation::kCreate, range, name); }

// Whether it can be had, and the host calls that it takes.
inline Status Obtain(Kernel& kernel, Made made, uint64_t bytes, bool bitmap) {
  const auto call = [&](const char* name) { return kernel.HostCall() ? kOk : Failed(kernel.HostFailure(), Range{0, bytes}, name); };
  const auto allocate = [&](std::optional<Range> range, const char* name) {
    return kernel.HostCall() ? kOk : Failed(ErrorKind::kResourceExhausted, range, name);
  };
  switch (made) {
    case Made::kEmpty: break;
    case Made::kHeap:
      if (bytes > k2To63 - kPageSize) return Failed(ErrorKind::kInvalidArgument, Range{0, bytes}, kHeapName);
      return bytes == 0 ? kOk : allocate(Range{0, bytes}, kHeapName);
    case Made::kShared:
    case Made::kSparse: {
      const char* const name = made == Made::kShared ? kSharedName : kSparseName;
      if (bytes == 0 || bytes > kLargestMapping) return Failed(ErrorKind::kInvalidArgument, Range{0, bytes}, name);
      for (uint64_t calls = made == Made::kShared ? kSharedCalls : 1; calls > 0; --calls)
        if (Status status = call(name)) return status;
      if (bytes > kLargestReserved) return Failed(ErrorKind::kResourceExhausted, Range{0, bytes}, name);
      return bitmap ? allocate(std::nullopt, kBitmapName) : kOk;
    }
    case Made::kBitmap:
      if (bytes >= kTooManyPages) return Failed(ErrorKind::kInvalidArgument, std::nullopt, kBitmapName);
      return allocate(std::nullopt, kBitmapName);
    case Made::kBare:
      if (bytes >= k2To63) return Failed(ErrorKind::kInvalidArgument, std::nullopt, kMadeName);
  }
  return kOk;
}

inline Status CreateOver(const Kernel& kernel, std::optional<uint64_t> region_size, uint64_t backing, Promise broken, Handle& handle) {
  const uint64_t regions = region_size ? std::bit_ceil(kernel.backings) : 1;
  Handle made = {{}, regions == 1, kMadeName};
  bool ok = !region_size || (std::has_single_bit(*region_size) && *region_size >= kPageSize && regions <= k2To63 / *region_size);
  for (uint64_t b = 0; b < kernel.backings; ++b) {
    if (!region_size && b != backing) continue;
    const Backing& setup = kernel.memories[b].setup;
    const bool breaks = b == backing && (!setup.sparse || broken == Promise::kNull);
    const Promise here = breaks ? broken : Promise::kNone;
    if (!setup.present || here == Promise::kNull) {
      ok = ok && region_size;
      continue;
    }
    const bool kept = here != Promise::kSize && !(here == Promise::kMapping && setup.mapped) && !(here == Promise::kBitOffset && setup.has_bitmap);
    ok = ok && kept && setup.max_address() <= region_size.value_or(k2To63);
    made.parts.push_back({b, 0, ok && region_size ? b * *region_size : 0, setup.max_address()});
  }
  if (!ok) return Failed(ErrorKind::kInvalidArgument, std::nullopt, kMadeName);
  handle = made;
  return kOk;
}

// Memory of so many bytes, or that many bits; `refused_page`: behind an AccessBitmap that refuses this page. `handle`: what it makes.
inline Status Make(Kernel& kernel, Made made, uint64_t bytes, std::optional<uint64_t> refused_page, Handle& handle) {
  if (Status status = Obtain(kernel, made, bytes, refused_page.has_value())) return status;
  if (made == Made::kBitmap) return kOk;
  if (made == Made::kEmpty) {
    handle = {{}, true, kEmptyName};
    return kOk;
  }
  Kernel::Memory memory;
  memory.scripted = false;
  memory.made = made;
  memory.setup.mapped = bytes > 0 && made != Made::kBare;
  memory.setup.has_bitmap = refused_page.has_value();
  memory.refused_page = refused_page;
  memory.state.fill(made == Made::kSparse ? PageState::kHole : PageState::kRam);
  for (auto& bits : memory.allowed) bits.fill(true);
  kernel.memories.push_back(memory);
  const uint64_t pages = bytes / kPageSize + (bytes % kPageSize != 0 ? 1 : 0);
  const uint64_t size = made == Made::kBare ? bytes : pages * kPageSize;
  handle = {{{kernel.memories.size() - 1, 0, 0, size}}, true, made == Made::kHeap ? kHeapName : kMadeName, made == Made::kHeap};
  return kOk;
}

// Memory over backings of the world, of which `backing` breaks a promise.
inline Status Create(const Kernel& kernel, uint64_t backing, Promise broken, Handle& handle) {
  return CreateOver(kernel, std::nullopt, backing, broken, handle);
}

inline Status CreateMultiRegion(const Kernel& kernel, uint64_t region_size, uint64_t backing, Promise broken, Handle& handle) {
  return CreateOver(kernel, region_size, backing, broken, handle);
}

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_MADE_H_
