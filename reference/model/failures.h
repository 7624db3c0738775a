// How the model writes a failure down.

#ifndef GUESTMEM_REFERENCE_MODEL_FAILURES_H_
#define GUESTMEM_REFERENCE_MODEL_FAILURES_H_

#include <cstdint>
#include <limits>
#include <optional>

#include "reference/model/vocabulary.h"

namespace reference {

inline constexpr uint64_t kMaxUint64 = std::numeric_limits<uint64_t>::max();
inline constexpr uint64_t kFirstInvalidGpn = kMaxUint64 / kPageSize;

// What went wrong and where; always false. The backend's code matters for kBackend only.
bool Fail(Outcome& outcome, ErrorKind kind, std::optional<uint64_t> fault_address, uint64_t transferred = 0, int backend_code = 0);
// The message, once operation and range are there too.
void Describe(Outcome& outcome, const char* name);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MODEL_FAILURES_H_
