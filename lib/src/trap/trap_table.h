// The recovery tables of all linked objects, as the fault handler sees them.

#ifndef GUESTMEM_SRC_TRAP_TRAP_TABLE_H_
#define GUESTMEM_SRC_TRAP_TRAP_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace guestmem::trap {

// A TrapEntry with its offsets made absolute.
struct Recovery {
  uint64_t start;
  uint64_t end;
  uint64_t landing;
  uint32_t flags;
  uint32_t code;  // the first bytes of the instruction
};

// One object's recoveries, sorted by start.
struct RecoveryTable {
  const Recovery* begin;
  const Recovery* end;
  // Its object has run its destructors. It may be gone, and other code in its place; or the process ends, and threads still
  // run in it: then the instruction's bytes are those that were registered.
  std::atomic<bool> closed{false};
  std::atomic<RecoveryTable*> next;
};

// Head of the list of tables. Pushed to and unlinked under a mutex (trap_outside.cc), read by handlers without one.
extern std::atomic<RecoveryTable*> g_tables;

// Handlers now reading tables. A table is freed only after this was seen zero once it is unlinked.
// Fence A: a handler increments (seq_cst), then loads the list; who removes unlinks (seq_cst), then loads the count.
extern std::atomic<uint32_t> g_table_readers;

extern std::atomic<uint64_t> g_recovered_faults;

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_TRAP_TABLE_H_
