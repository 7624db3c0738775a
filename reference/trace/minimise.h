// Makes a failing trace small: fewer records, shorter lists, numbers nearer to their plainest, as long as it fails alike.

#ifndef GUESTMEM_REFERENCE_TRACE_MINIMISE_H_
#define GUESTMEM_REFERENCE_TRACE_MINIMISE_H_

#include <functional>
#include <optional>

#include "reference/trace/schema.h"

namespace reference::trace {

// The canonical bytes of what fails as the trace to minimise does, `candidate` or one that differs in sections that are searched;
// nothing where all is well, where it fails otherwise, or when it has been asked often enough.
using Fails = std::function<std::optional<Bytes>(const Bytes& candidate)>;

// Precondition: `trace` is canonical and fails, every time.
Bytes Minimise(const Schema& schema, Bytes trace, const Fails& fails);

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_MINIMISE_H_
