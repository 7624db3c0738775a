// A world, the operations of two or three threads and their schedule, all from the input; judged by reference/schedule.
// What the machine cannot tell from a bug of the engine is left out: pages that sleep until resolved, endless retries.

#include "fuzz/sort_schedule.h"
#include "fuzz/target.h"

GUESTMEM_TARGET(concurrent_fuzzer, ScheduleSort, reference::schedule::WithoutHangs())
