// What the model's files share: bytes of numbers, host buffers, and how a caller is told what failed.

#ifndef GUESTMEM_REFERENCE_MODEL_OUTCOME_H_
#define GUESTMEM_REFERENCE_MODEL_OUTCOME_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>

#include "reference/model/vocabulary.h"

namespace reference {

// As if new; what has capacity keeps it.
void Clear(Outcome& outcome);

namespace model {

inline constexpr uint64_t kMaxUint64 = std::numeric_limits<uint64_t>::max();
inline constexpr uint64_t kFirstInvalidGpn = kMaxUint64 / kPageSize;

uint8_t ByteOf(uint64_t value, uint64_t i);
uint64_t LittleEndian(std::span<const uint8_t> bytes);
uint64_t LowBytes(uint64_t value, uint64_t size);

// What a caller is told of a call that failed (SPEC 8).
struct Error {
  ErrorKind kind;
  std::optional<uint64_t> fault_address = {};
  uint64_t transferred = 0;
  int code = 0;                            // of kBackend: the callback's own
  std::optional<uint64_t> gpn = {};        // of the kinds about one
  Operation operation = Operation::kNone;  // which call it was, on which bytes
  std::optional<Range> range = {};
  const char* name = nullptr;              // and of which memory; null: the error has no text
  std::string cause = {};                  // in words, where those are promised
};
using Status = std::optional<Error>;  // none: OK
inline constexpr std::nullopt_t kOk = std::nullopt;

// The status of a call `operation` on memory of that name.
Status Told(Status status, Operation operation, std::optional<Range> range, const char* name);

void Show(const Error& error, Outcome& outcome);
// The outcome's host buffer: `length` bytes, with guards round them.
std::span<uint8_t> HostBuffer(Outcome& outcome, uint64_t length);

}  // namespace model
}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MODEL_OUTCOME_H_
