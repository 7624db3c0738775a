// Makes a diverging trace small: fewer ops, plainer values, an emptier world, as long as it diverges in the same field.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_MINIMISE_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_MINIMISE_H_

#include <cstdint>
#include <functional>

#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"

namespace reference {

struct Minimised {
  Trace trace;
  Divergence divergence;  // of the smaller trace
  uint64_t runs = 0;      // of traces, to get there
};

// What is wrong with a trace; it may run it in another process, where it may crash.
using Judge = std::function<Verdict(const Trace& trace)>;

// Precondition: `trace` diverges, and does so every time. `most_runs` bounds the effort.
Minimised Minimise(const Judge& judge, const Trace& trace, const Divergence& divergence, uint64_t most_runs = 20'000);
Minimised Minimise(Lockstep& lockstep, const Trace& trace, const Divergence& divergence, uint64_t most_runs = 20'000);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_MINIMISE_H_
