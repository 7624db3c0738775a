// Access bits of many pages at once.

#include <bit>
#include <cstring>

#include "guestmem/detail/region.h"

namespace guestmem::detail {
namespace {

// Safe because bitmaps are bytes that others change by atomic read-modify-write: a relaxed load of a whole aligned
// word reads each of its bytes atomically.
using Word __attribute__((may_alias)) = uint64_t;

uint64_t Load(const Word* word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }

// The index of the first clear bit in [first, end); end if all are set. Reads no byte outside those bits'.
uint64_t FirstClear(const uint8_t* bitmap, uint64_t first, uint64_t end) {
  uint64_t bit = first;
  while (bit < end) {
    const uint8_t* const byte = bitmap + bit / 8;
    const bool whole_word = bit % 8 == 0 && end - bit >= 64 && reinterpret_cast<uintptr_t>(byte) % sizeof(Word) == 0;
    if (whole_word) {
      const auto* word = reinterpret_cast<const Word*>(byte);
      const Word* const first = word;
      const Word* const last = word + (end - bit) / 64;
      // Each word is loaded once: others may change it meanwhile.
      uint64_t bits = ~uint64_t{0};
      while (word != last && (bits = Load(word)) == ~uint64_t{0}) {
        ++word;
      }
      bit += static_cast<uint64_t>(word - first) * 64;
      if (word != last) {
        return bit + static_cast<uint64_t>(std::countr_one(bits));
      }
    } else {
      // The rest of this byte; bits below `bit` count as set, those from `end` on are cut off by the loop.
      const unsigned below = (1U << (bit % 8)) - 1;
      const auto value = static_cast<uint8_t>(__atomic_load_n(byte, __ATOMIC_RELAXED) | below);
      const uint64_t clear = bit / 8 * 8 + static_cast<uint64_t>(std::countr_one(value));
      if (value != 0xff) {
        return clear < end ? clear : end;
      }
      bit = clear;
    }
  }
  return end;
}

}  // namespace

uint64_t Window::FirstRefused(const uint8_t* bitmap, uint64_t offset, uint64_t length) const noexcept {
  if (bitmap == nullptr) {
    return offset + length;
  }
  const uint64_t start = bit_bytes + offset;
  const uint64_t first = start / kPageSize;
  const uint64_t end = (start + length - 1) / kPageSize + 1;
  const uint64_t clear = FirstClear(bitmap, first, end);
  if (clear == end) {
    return offset + length;
  }
  return clear == first ? offset : clear * kPageSize - bit_bytes;
}

}  // namespace guestmem::detail
