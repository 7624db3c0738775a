// What the model's files share: bytes of numbers, and how an outcome says what failed.

#ifndef GUESTMEM_REFERENCE_MODEL_OUTCOME_H_
#define GUESTMEM_REFERENCE_MODEL_OUTCOME_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "reference/model/vocabulary.h"

namespace reference {

inline constexpr uint64_t kMaxUint64 = std::numeric_limits<uint64_t>::max();
inline constexpr uint64_t kFirstInvalidGpn = kMaxUint64 / kPageSize;

uint8_t ByteOf(uint64_t value, uint64_t i);
uint64_t LittleEndian(std::span<const uint8_t> bytes);
uint64_t LowBytes(uint64_t value, uint64_t size);

// As if new; what has capacity keeps it.
void Clear(Outcome& outcome);
// False, for the caller to return.
bool Fail(Outcome& outcome, ErrorKind kind, std::optional<uint64_t> fault_address, uint64_t transferred = 0, int backend_code = 0);
// Adds the text, once everything else is known; `name` is the memory's.
void Describe(Outcome& outcome, const char* name);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MODEL_OUTCOME_H_
