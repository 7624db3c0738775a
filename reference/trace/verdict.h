// Where a trace's run first differs from what its model expects, and what people read of that. For the sorts that run op by op.

#ifndef GUESTMEM_REFERENCE_TRACE_VERDICT_H_
#define GUESTMEM_REFERENCE_TRACE_VERDICT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "reference/trace/minimise.h"
#include "reference/trace/schema.h"

namespace reference::trace {

struct Divergence {
  size_t step = 0;     // index of the op; their number for the comparison at the end
  std::string field;   // what differs
  std::string expected, actual;  // as text; bytes as a hex window around the first difference
};
// nullopt: they agree.
using Verdict = std::optional<Divergence>;

Divergence BytesDiffer(std::string field, std::span<const uint8_t> expected, std::span<const uint8_t> actual);

// A page of text: the trace, its diverging op, expected against actual.
std::string Report(const Schema& schema, const void* trace, const Divergence& divergence);

// Whether they are about the same: "memory of backing 0 page 2" is about memory, "page 3" about pages.
bool SameField(const Divergence& a, const Divergence& b);

template <class Trace>
struct Minimised {
  Trace trace;
  Divergence divergence;  // of the smaller trace
  uint64_t runs = 0;      // of traces, to get there
};

// Makes a diverging trace small: fewer ops, plainer values, an emptier world, as long as it diverges in the same field.
// Precondition: `trace` diverges, and does so every time. `judge` may run a trace in another process, where it may crash.
// `most_runs` bounds the effort.
template <class Trace>
Minimised<Trace> MinimiseDiverging(const Schema& schema, const std::type_identity_t<std::function<Verdict(const Trace&)>>& judge,
                                   const Trace& trace, const Divergence& divergence, uint64_t most_runs = 20'000) {
  Minimised<Trace> best = {trace, divergence};
  Minimise(schema, Encode(schema, &trace), [&](const Bytes& bytes) -> std::optional<Bytes> {
    Trace candidate = FromBytes<Trace>(schema, bytes);
    if (candidate == best.trace || best.runs >= most_runs) return std::nullopt;
    ++best.runs;
    Verdict verdict = judge(candidate);
    if (!verdict || !SameField(*verdict, divergence)) return std::nullopt;
    best.trace = std::move(candidate);
    best.divergence = *std::move(verdict);
    return Encode(schema, &best.trace);
  });
  return best;
}

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_VERDICT_H_
