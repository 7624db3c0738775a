// Locks: pages and ranges locked, copied through and unlocked, over backings that refuse half-way, bits and pages that change
// under a held lock, views whose pages can't be locked, memory that runs out, access bitmaps that won't revoke what is locked.

#include <iterator>

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

using reference::StepKind;

// Every access becomes a step about locks; pages of the world are listed more often than strange ones.
void AboutLocks(reference::Trace& trace) {
  for (reference::Backing& backing : trace.world.backings) {
    backing.managed = backing.has_bitmap && backing.bit_offset % 2 == 0;
    backing.sparse |= backing.sharing == reference::Sharing::kWhole;
  }
  trace.world = reference::Normal(trace.world);
  constexpr StepKind kLocks[] = {StepKind::kLockGpns, StepKind::kLockRange, StepKind::kLockedCopy, StepKind::kUnlock};
  for (reference::Op& op : trace.ops) {
    if (op.kind < StepKind::kProbeGpns) {
      op.kind = kLocks[static_cast<size_t>(op.kind) % std::size(kLocks)];
    }
    for (uint8_t& gpn : op.gpns) {
      gpn = gpn % 4 == 3 ? gpn : gpn % 4;
    }
    op = reference::Normal(op);
  }
}

}  // namespace

GUESTMEM_TARGET(lock_fuzzer, AboutLocks);
