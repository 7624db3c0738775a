// The VMM interfaces: RAM, regions over files, ROMs, doorbells, events, locks and accesses of an in-process guest, with host
// calls that fail, in lockstep with the model of reference/vmm. Its inputs are traces of another kind than the other targets'.

#include "fuzz/sort_vmm.h"
#include "fuzz/target.h"

using namespace reference::vmm;

GUESTMEM_TARGET(vmm_fuzzer, VmmSort, group::kGuest | group::kAccess)
