// A backing that fails or lies: errors from every callback, with and without an address and a count; views of the wrong size;
// handlers that ask for one more try; stable methods that say something else once the memory is made.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(backing_fuzzer, LockstepSort, group::kAccess | group::kProbes | group::kViews | group::kBits | group::kRanges | group::kRangeAccess | group::kLocks,
                group::kAccess, WorldsOf(Worlds::kFailing))
