// Memory that comes and goes: heap, shared memory, reserved ranges behind an access bitmap, memory made once more over backings
// that break a promise; the files behind it, the buffer inside it; host calls that fail with any errno.

#include <iterator>

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

using reference::StepKind;

// Every third op makes memory or looks behind it; accesses go to what was made.
void MadeMemory(reference::Trace& trace) {
  constexpr StepKind kMade[] = {StepKind::kMake,    StepKind::kMake,        StepKind::kMake,   StepKind::kCreate,
                                StepKind::kSharing, StepKind::kInnerBuffer, StepKind::kRevoke, StepKind::kHold};
  for (size_t i = 0; i < trace.ops.size(); ++i) {
    reference::Op& op = trace.ops[i];
    if (i % 3 == 0 && op.kind < StepKind::kMake) {
      // Takes over the numbers of the access that it replaces; decoding has cleared the fields that the access did not use.
      op.kind = kMade[static_cast<size_t>(op.kind) % std::size(kMade)];
      op.bytes = op.length;
      op.backing = op.target;
      op.count = op.size;
      op.page = op.at.index % reference::kMaxPages;
    } else if (i % 3 == 1 && op.target == 0) {
      op.target = op.slot;
    }
    op = reference::Normal(op);
  }
}

}  // namespace

GUESTMEM_TARGET(memory_fuzzer, MadeMemory);
