// Paged ranges and lists of them: made, cut, split, iterated, and read, written and filled through every handle; and what changes what a
// page allows.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(paged_range_fuzzer, LockstepSort, group::kRanges | group::kRangeAccess | group::kViews | group::kBits, group::kRangeAccess)
