// Accesses to memory that is all there: bitmaps at any bit offset, region and page edges, plain, bulk and
// compare-exchange, probes, views, handlers and fallbacks that bitmaps lead to. No page faults, so no system calls: the fast one.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(access_fuzzer, LockstepSort, group::kAccess | group::kProbes | group::kViews | group::kBits,
                group::kAccess, WorldsOf(Worlds::kAllThere))
