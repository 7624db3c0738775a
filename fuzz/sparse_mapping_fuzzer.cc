// The mapping under the memory: allocate, zero pages, file pages, protect, decommit and unmap in any order, between accesses
// that see what has become of each page and of the file.

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

using reference::StepKind;

// Mapped backings without bitmaps, which would hide the pages; every second op changes a mapping.
void MappingsChange(reference::Trace& trace) {
  for (reference::Backing& backing : trace.world.backings) {
    backing.mapped = true;
    backing.has_bitmap = false;
    backing.sparse |= backing.has_iova;  // and its locks are honoured
  }
  trace.world = reference::Normal(trace.world);
  constexpr StepKind kChanges[] = {StepKind::kMapFile, StepKind::kDecommit, StepKind::kMapFile, StepKind::kAllocate,
                                   StepKind::kMapZero, StepKind::kProtect,  StepKind::kUnmap,
                                   StepKind::kUnmapBytes, StepKind::kMapFileBytes, StepKind::kAdviseHugePages, StepKind::kBindToNode};
  for (size_t i = 0; i < trace.ops.size(); i += 2) {
    // Takes over the numbers of the access that it replaces; decoding has cleared the fields that the access did not use.
    const reference::Op& op = trace.ops[i];
    reference::Op change;
    change.kind = kChanges[static_cast<size_t>(op.kind) % std::size(kChanges)];
    change.backing = op.target;
    change.page = op.at.index;
    change.count = op.size + 1;
    change.choice = static_cast<uint8_t>(op.at.delta);
    change.form = op.length % 2;
    change.offset = op.offset != 0 ? op.offset : op.choice;
    change.length = op.length;
    trace.ops[i] = reference::Normal(change);
  }
}

}  // namespace

GUESTMEM_TARGET(sparse_mapping_fuzzer, MappingsChange);
