// Views: nested, unaligned, empty, at the ends of regions, lockable or not, given by the engine or by the backing itself; and
// every access through them, whose errors must be in the view's coordinates.

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

using reference::StepKind;

// Steps go through a view, and every fourth one makes one.
void ThroughViews(reference::Trace& trace) {
  for (size_t i = 0; i < trace.ops.size(); ++i) {
    reference::Op& op = trace.ops[i];
    if (i % 4 == 0) {
      op.kind = op.kind < StepKind::kUnlock ? StepKind::kSubrange : StepKind::kLockableSubrange;
    }
    if (op.target == 0 && i % 3 != 0) {
      op.target = op.slot;
    }
    op = reference::Normal(op);
  }
}

}  // namespace

GUESTMEM_TARGET(view_fuzzer, ThroughViews);
