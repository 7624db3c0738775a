// Masked range checks for x86-64; included by guestmem/detail/bounds.h, which says what they do.

#ifndef GUESTMEM_DETAIL_X86_64_BOUNDS_H_
#define GUESTMEM_DETAIL_X86_64_BOUNDS_H_

#include <cstdint>

#include "guestmem/detail/bounds.h"

namespace guestmem::detail {

bool Below(uint64_t limit, uint64_t& index) noexcept {
  bool above;
  // asm so that no compiler proves the cmov useless.
  asm("cmp %[limit], %[index]\n\tcmovae %[zero], %[index]"
      : [index] "+&r"(index), "=@ccae"(above)
      : [zero] "r"(uint64_t{0}), [limit] "r"(limit));
  return !above;
}

bool EndsBelow(uint64_t limit, uint64_t& offset, uint64_t length) noexcept {
  // `offset` must be below limit - length, or below 0 if that is negative. No branch before it is known.
  asm("sub %[length], %[limit]\n\tcmovb %[zero], %[limit]"
      : [limit] "+&r"(limit)
      : [zero] "r"(uint64_t{0}), [length] "re"(length)
      : "cc");
  return Below(limit, offset);
}

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_X86_64_BOUNDS_H_
