// Range checks that hold on mispredicted paths, too. For the library's own headers.
//
// Both functions answer as the comparison would, and set what they checked to 0 where the answer is no, also where the processor
// mispredicts the caller's branch on the answer and runs ahead (speculative bounds bypass, CVE-2017-5753; the method is that of
// Linux's array_index_nospec). With -DGUESTMEM_MASK_SPECULATION=0 they only compare.

#ifndef GUESTMEM_DETAIL_BOUNDS_H_
#define GUESTMEM_DETAIL_BOUNDS_H_

#include <cstdint>

#if !defined(GUESTMEM_MASK_SPECULATION)
#define GUESTMEM_MASK_SPECULATION 1
#endif

namespace guestmem::detail {

// Whether `index` is below `limit`. If not, `index` becomes 0.
[[gnu::always_inline]] inline bool Below(uint64_t limit, uint64_t& index) noexcept;

// Whether [offset, offset + length) ends below `limit`: one more than the size of the memory that it must lie in (so that a range
// without bytes may lie at its end), or 0 for no memory. If not, `offset` becomes 0.
[[gnu::always_inline]] inline bool EndsBelow(uint64_t limit, uint64_t& offset, uint64_t length) noexcept;

}  // namespace guestmem::detail

#if !GUESTMEM_MASK_SPECULATION
namespace guestmem::detail {

bool Below(uint64_t limit, uint64_t& index) noexcept { return index < limit; }

bool EndsBelow(uint64_t limit, uint64_t& offset, uint64_t length) noexcept { return length < limit && offset < limit - length; }

}  // namespace guestmem::detail
#elif defined(__x86_64__)
#include "guestmem/detail/x86_64/bounds.h"
#else
#error "guestmem: no range check for this architecture that limits speculation: add one, or build with -DGUESTMEM_MASK_SPECULATION=0"
#endif

#endif  // GUESTMEM_DETAIL_BOUNDS_H_
