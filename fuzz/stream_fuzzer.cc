// Readers and writers over host bytes, paged ranges and lists of them, under nested limits; the ranges they are opened over,
// and what makes their accesses fail.

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

using reference::StepKind;

// Accesses and probes without a range become steps of streams.
void OnlyStreams(reference::Trace& trace) {
  constexpr auto kFirst = static_cast<int>(StepKind::kReaderOpen);
  constexpr auto kCount = static_cast<int>(StepKind::kWriterPlain) - kFirst + 1;
  for (reference::Op& op : trace.ops) {
    const bool off_topic = op.kind < StepKind::kSubrange || (op.kind >= StepKind::kRangeIterate && op.kind <= StepKind::kRangeFill);
    if (off_topic) {
      op.kind = static_cast<StepKind>(kFirst + static_cast<int>(op.kind) % kCount);
    }
    op = reference::Normal(op);
  }
}

}  // namespace

GUESTMEM_TARGET(stream_fuzzer, OnlyStreams);
