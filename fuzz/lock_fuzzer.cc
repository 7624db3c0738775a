// Locks: pages and ranges locked, copied through and unlocked, over backings that refuse half-way, bits and pages that change
// under a held lock, views whose pages can't be locked, memory that runs out, access bitmaps that won't revoke what is locked.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(lock_fuzzer, LockstepSort, group::kLocks | group::kAccess | group::kViews | group::kBits | group::kMappings,
                group::kLocks | group::kAccess)
