// Address spaces: slots that come and go, one by one or several as one, listeners that refuse, views, locks, and accesses whose handlers
// change the layout meanwhile, in lockstep with the model of reference/vmm.

#include "fuzz/sort_vmm.h"
#include "fuzz/target.h"

using namespace reference::vmm;

GUESTMEM_TARGET(space_fuzzer, VmmSort, group::kSpace | group::kAccess)
