// The rows of operations and worlds (trace_rows.cc: what a new operation needs to be written, read, made small, mutated and drawn),
// the limits of their numbers, and what one number says about another.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_ROWS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <span>
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

// What operations are about, a bit each: what the profile of a fuzz target is made of (trace::Profile).
namespace group {
inline constexpr uint32_t kAccess = 1 << 0;     // reads, writes, fills, compare-exchanges
inline constexpr uint32_t kProbes = 1 << 1;     // and questions about the mapping
inline constexpr uint32_t kViews = 1 << 2;
inline constexpr uint32_t kBits = 1 << 3;       // of access bitmaps
inline constexpr uint32_t kMappings = 1 << 4;   // changes of the mapping under the memory
inline constexpr uint32_t kRanges = 1 << 5;     // paged ranges and lists of them: made, cut, looked at,
inline constexpr uint32_t kRangeAccess = 1 << 6; // and accessed
inline constexpr uint32_t kStreams = 1 << 7;    // opened and limited,
inline constexpr uint32_t kStreamAccess = 1 << 8; // and read and written
inline constexpr uint32_t kLocks = 1 << 9;
inline constexpr uint32_t kMaking = 1 << 10;    // memory that steps make, and what is behind it
inline constexpr uint32_t kTrap = 1 << 11;      // what all accesses stand on
inline constexpr uint32_t kShortage = 1 << 12;  // of memory to describe errors with
inline constexpr uint32_t kAll = ~uint32_t{0};
}  // namespace group

// The worlds that a profile keeps to.
enum class Worlds : uint8_t {
  kAny,
  kAllThere,        // each page is RAM, and no handler takes one away: no page faults
  kFailing,         // every backing is fickle, and every script has answers
  kSeveralRegions,  // two at least
  kBareMappings,    // each backing has a mapping, and no bitmap hides it
};
std::span<const trace::Only> WorldsOf(Worlds worlds);

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
