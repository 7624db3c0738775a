// One backing as GuestMemory sees it, with what the fast path needs cached. For the library's own headers.

#ifndef GUESTMEM_DETAIL_REGION_H_
#define GUESTMEM_DETAIL_REGION_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "guestmem/detail/bounds.h"
#include "guestmem/types.h"

namespace guestmem {
class GuestMemoryAccess;
}

namespace guestmem::detail {

// What the fast path reads of a backing, or of the part of one that a view shows. Offsets count from the part's start.
// Immutable.
struct Window {
  std::byte* base = nullptr;                  // host address of offset 0; null: no mapping
  uint64_t start = 0;                         // the memory's address of offset 0
  uint64_t mapped_limit = 0;                  // `limit` if there is a mapping, else 0
  const uint8_t* bitmaps[kAccessTypes] = {};  // the backing's, by AccessType; null: all is allowed, no section is needed
  uint64_t bit_bytes = 0;                     // backing_offset + bit_offset pages: (bit_bytes + offset) / 4096 is a bit

  const uint8_t* Bitmap(AccessType access) const noexcept { return bitmaps[static_cast<size_t>(access)]; }

  // Whether `bitmap`, not null and one of these, has the bit of the backing's page that `offset` lies on.
  bool Allows(const uint8_t* bitmap, uint64_t offset) const noexcept {
    const uint64_t bit = (bit_bytes + offset) / kPageSize;
    return (__atomic_load_n(bitmap + bit / 8, __ATOMIC_RELAXED) >> (bit % 8) & 1) != 0;
  }

  // Whether all of [offset, offset + length), in the region, lies on one page of the backing. Of a range without bytes: whether
  // that is inside a page and not at its start, so that there is a page.
  bool OnOnePage(uint64_t offset, uint64_t length) const noexcept {
    const uint64_t first = bit_bytes + offset;
    uint64_t last;
    (void)__builtin_sub_overflow(first + length, 1, &last);  // wraps where there is no byte
    return (first ^ last) < kPageSize;
  }

  // Whether accesses of this type run in sections.
  bool Guards(AccessType access) const noexcept { return Bitmap(access) != nullptr; }

  // The offset of the first byte in [offset, offset + length) whose page's bit is clear in `bitmap`; offset + length if none
  // is or `bitmap` is null. Precondition: length != 0 and the range is inside the region.
  uint64_t FirstRefused(const uint8_t* bitmap, uint64_t offset, uint64_t length) const noexcept;
};

// All of it.
struct alignas(64) Region : Window {
  uint64_t limit = 0;           // for EndsBelow: size + 1; 0: an empty slot
  uint64_t size = 0;
  uint64_t backing_offset = 0;  // the backing's address of offset 0
  bool has_bitmap = false;
  bool lockable = false;        // mapped, and the backing supports locking
  bool read_only = false;       // a slot of an address space that takes no stores
  GuestMemoryAccess* backing = nullptr;
  std::optional<uint64_t> iova;  // of offset 0

  void Resize(uint64_t bytes) noexcept {
    size = bytes;
    limit = bytes + 1;
    mapped_limit = base == nullptr ? 0 : limit;
  }

  // The part [offset, offset + length) of this, which is inside it, as a region of its own that starts at `at`.
  Region Part(uint64_t offset, uint64_t length, uint64_t at) const noexcept {
    Region part = *this;
    part.base = base == nullptr ? nullptr : base + offset;
    part.start = at;
    part.Resize(length);
    part.backing_offset += offset;
    part.bit_bytes += offset;
    if (part.iova) {
      *part.iova += offset;
    }
    return part;
  }
};

// Bytes that one read-side section covers at most, so that a large transfer does not hold up a waiting writer.
inline constexpr uint64_t kSectionBytes = uint64_t{1} << 20;

// Whether [host, host + length) and [guest, guest + length) share a byte. Precondition: length != 0.
inline bool Overlaps(const void* host, const void* guest, uint64_t length) noexcept {
  const auto a = reinterpret_cast<uintptr_t>(host);
  const auto b = reinterpret_cast<uintptr_t>(guest);
  return (a < b ? b - a : a - b) < length;
}

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_REGION_H_
