// Memory with holes: pages missing, read-only or behind a truncated file, pages that handlers and host steps bring and
// take away, fallbacks that carry on or fail, host calls that fail.

#include "fuzz/target.h"

namespace {

// Whole worlds, as they come.
void Everything(reference::Trace&) {}

}  // namespace

GUESTMEM_TARGET(fault_fuzzer, Everything);
