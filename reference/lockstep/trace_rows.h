// The rows of operations and worlds (trace_rows.cc: what a new operation needs to be written, read, made small, mutated and drawn),
// the limits of their numbers, and what one number says about another.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_ROWS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "reference/lockstep/trace.h"

namespace reference {

inline constexpr uint8_t kForeignFaults = 8;
inline constexpr uint8_t kMisalignments = 16;  // one vector register's worth of host buffer alignments
inline constexpr uint8_t kMaxAddressIndex = 15;   // the last page of the largest world
inline constexpr uint8_t kMaxFailingHostCall = 15;
inline constexpr size_t kMaxHandlerAnswers = 8;   // two for each page of an access that touches them all
inline constexpr size_t kMaxFallbackAnswers = 8;
inline constexpr size_t kMaxLockAnswers = 8;      // two runs and their pages, with some to spare
inline constexpr size_t kMaxSubrangeAnswers = 6;  // two for each view that can be held

inline constexpr int kPageStates = 4;
inline constexpr int kAccesses = 3;
inline constexpr uint8_t kRegionPages[] = {0, 1, 2, 4};

const trace::Kind& RowOf(StepKind kind);
// By the field's key in a text.
bool HasField(StepKind kind, std::string_view key);
bool HasSize(StepKind kind);

inline bool HasIndex(Anchor anchor) { return anchor == Anchor::kPage || anchor == Anchor::kMiddle || anchor == Anchor::kEnd; }
// The bits of `value` and `desired` that the op looks at.
uint64_t ValueMask(const Op& op);

// What rows alone can't say: numbers that others make meaningless are at their defaults.
void NormalOp(Op& op);
void NormalBacking(Backing& backing, uint8_t region_pages);

// The one spelling of everything that means the same: numbers brought into range, what has no effect at its default.
Op Normal(Op op);
World Normal(World world);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_ROWS_H_
