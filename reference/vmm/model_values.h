// What both models of this room say of numbers.

#ifndef GUESTMEM_REFERENCE_VMM_MODEL_VALUES_H_
#define GUESTMEM_REFERENCE_VMM_MODEL_VALUES_H_

#include <cstdint>

namespace reference::vmm {

inline constexpr uint64_t kFirstInvalidGpn = (uint64_t{1} << 52) - 1;

inline bool IsPowerOfTwoUpTo8(uint64_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

// Byte i of a value as a little-endian guest has it in memory.
inline uint8_t ByteOf(uint64_t value, uint64_t i) {
  for (; i > 0; --i) {
    value /= 256;
  }
  return static_cast<uint8_t>(value % 256);
}

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_MODEL_VALUES_H_
