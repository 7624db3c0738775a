// Views: nested, unaligned, empty, at the ends of regions, lockable or not, given by the engine or by the backing itself; and
// every access through them, whose errors must be in the view's coordinates.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(view_fuzzer, LockstepSort, group::kViews | group::kAccess | group::kProbes | group::kLocks, group::kViews | group::kAccess)
