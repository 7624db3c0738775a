// Paged ranges and lists of them: made, cut, split, iterated, and read, written and filled through every handle. Other
// reads and writes stay, as do the steps that change what a page allows.

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

using reference::StepKind;

// Streams have their own target, and so have single accesses (access_fuzzer).
StepKind OnTopic(StepKind kind) {
  if (kind >= StepKind::kReaderOpen && kind <= StepKind::kWriterPlain) {
    const auto ranges = static_cast<int>(StepKind::kReaderOpen) - static_cast<int>(StepKind::kRangeSet);
    return static_cast<StepKind>(static_cast<int>(StepKind::kRangeSet) + static_cast<int>(kind) % ranges);
  }
  switch (kind) {
    case StepKind::kReadPlain: return StepKind::kRangeSet;
    case StepKind::kWritePlain: return StepKind::kRangeAppend;
    case StepKind::kCompareExchange: return StepKind::kRangeRead;
    case StepKind::kFullMapping: return StepKind::kRangeWrite;
    default: return kind;
  }
}

void OnlyRanges(reference::Trace& trace) {
  for (reference::Op& op : trace.ops) {
    op.kind = OnTopic(op.kind);
    op = reference::Normal(op);
  }
}

}  // namespace

GUESTMEM_TARGET(paged_range_fuzzer, OnlyRanges);
