// Memory that comes and goes: heap, shared memory, reserved ranges behind an access bitmap, memory made once more over backings
// that break a promise; the files behind it, the buffer inside it; host calls that fail with any errno.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(memory_fuzzer, LockstepSort, group::kMaking | group::kAccess | group::kProbes | group::kViews | group::kBits | group::kLocks,
                group::kMaking | group::kAccess)
