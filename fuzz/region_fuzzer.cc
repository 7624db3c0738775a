// Several regions: empty slots, backings shorter than their region or filling it to the last byte, a count that is rounded up,
// accesses and locks that run from one into the next, each region with its own bitmap, handler and way to fail.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(region_fuzzer, LockstepSort, group::kAccess | group::kProbes | group::kViews | group::kBits | group::kRanges | group::kRangeAccess | group::kLocks,
                group::kAccess, WorldsOf(Worlds::kSeveralRegions))
