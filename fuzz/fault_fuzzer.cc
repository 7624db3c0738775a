// Everything, as it comes: memory with holes, pages missing, read-only or behind a truncated file, pages that handlers and host steps bring
// and take away, fallbacks that carry on or fail, host calls that fail.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(fault_fuzzer, LockstepSort, group::kAll, group::kAccess | group::kRangeAccess | group::kStreamAccess)
