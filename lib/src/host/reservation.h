// A range of address space for a backing, aligned so that huge pages fit.

#ifndef GUESTMEM_SRC_HOST_RESERVATION_H_
#define GUESTMEM_SRC_HOST_RESERVATION_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "guestmem/types.h"
#include "host/host_calls.h"

namespace guestmem::host {

inline constexpr int kReservedFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
inline constexpr uint64_t kMaxMapping = (uint64_t{1} << 47) - kPageSize;  // user half of a 4-level address space

struct Reservation {
  std::byte* start = nullptr;  // null: could not be had; errno says why
  uint64_t length = 0;         // what to unmap from start
  std::byte* base = nullptr;   // the aligned part
};

// Reserves `size` bytes (a page multiple, at most kMaxMapping), inaccessible, at a multiple of the largest huge page that fits at all
// and of `page_size`, a power of two.
inline Reservation Reserve(uint64_t size, uint64_t page_size = kPageSize) {
  constexpr uint64_t k2Mebibytes = uint64_t{1} << 21;
  constexpr uint64_t k1Gibibyte = uint64_t{1} << 30;
  const uint64_t largest = size >= k1Gibibyte ? k1Gibibyte : size >= k2Mebibytes ? k2Mebibytes : kPageSize;
  const uint64_t alignment = std::max(largest, page_size);
  // mmap aligns to pages; the rest is ours to find. What is over on both sides costs address space only.
  const uint64_t length = size + alignment - kPageSize;
  auto* const start = static_cast<std::byte*>(Map(nullptr, length, PROT_NONE, kReservedFlags, -1, 0));
  const uint64_t over = reinterpret_cast<uintptr_t>(start) % alignment;
  return {start, length, start + (over == 0 ? 0 : alignment - over)};
}

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_RESERVATION_H_
