// Makes a diverging trace small (reference/trace/minimise.h), as long as it diverges in the same field.

#ifndef GUESTMEM_REFERENCE_VMM_MINIMISE_H_
#define GUESTMEM_REFERENCE_VMM_MINIMISE_H_

#include <functional>

#include "reference/vmm/lockstep.h"

namespace reference::vmm {

struct Minimised {
  Trace trace;
  Divergence divergence;  // of the smaller trace
};

// What is wrong with a trace; it may run it in another process, where it may crash.
using Judge = std::function<Verdict(const Trace& trace)>;

// Precondition: `trace` diverges, and does so every time.
Minimised Minimise(const Judge& judge, const Trace& trace, const Divergence& divergence);

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_MINIMISE_H_
