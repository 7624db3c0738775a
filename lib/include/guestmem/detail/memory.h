// What GuestMemory handles share. For the library's own headers.

#ifndef GUESTMEM_DETAIL_MEMORY_H_
#define GUESTMEM_DETAIL_MEMORY_H_

#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "guestmem/detail/debug_name.h"
#include "guestmem/detail/region.h"
#include "guestmem/types.h"

namespace guestmem::detail {

struct Slot;
struct Space;

// Regions of one power-of-two size, side by side from address 0. Immutable.
// One region is not limited by that size: it has all of [0, 2^63).
//
// The memory of an address space has one region, which is empty, so that every access leaves the inline path: what it is made of
// changes, and is looked up in each read-side section (lib/src/guest/layout.h).
struct Memory {
  DebugName name;
  Region only;                                // of a memory that has one
  std::vector<Region> several;                // of a memory that has more
  std::span<const Region> regions{&only, 1};  // a power of two of them
  unsigned region_bits = 63;    // of one region: all addresses are its own
  // What keeps the backings alive: the backings themselves, or (a view) the memory that is no view and that it shows a part of.
  std::vector<std::shared_ptr<void>> owned;
  bool is_view = false;
  bool is_heap = false;  // owned[0] is an AlignedHeapMemory that only GuestMemory handles reach
  // Of an address space, or (a view) of one of its slots; owned[0] keeps it.
  Space* space = nullptr;
  std::shared_ptr<const Slot> slot;  // a view's
  Region part;                       // a view's: what it shows of the slot, while that is there
};

// Part of an access that lies in one region.
struct Piece {
  const Region* region;
  uint64_t offset;  // in the region
  uint64_t length;
};

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_MEMORY_H_
