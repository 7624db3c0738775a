// Readers and writers over host bytes, paged ranges and lists of them, under nested limits; the ranges they are opened over,
// and what makes their accesses fail.

#include "fuzz/sort_lockstep.h"
#include "fuzz/target.h"

using namespace reference;

GUESTMEM_TARGET(stream_fuzzer, LockstepSort, group::kStreams | group::kStreamAccess | group::kRanges | group::kBits, group::kStreamAccess)
