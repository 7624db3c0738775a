// The mapping under the memory: allocate, zero pages, file pages, protect, decommit and unmap in any order, between accesses
// that see what has become of each page and of the file.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(sparse_mapping_fuzzer, LockstepSort, group::kMappings | group::kAccess | group::kLocks | group::kTrap,
                group::kMappings | group::kAccess, WorldsOf(Worlds::kBareMappings))
