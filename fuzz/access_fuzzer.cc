// Accesses to memory that is all there: bitmaps at any bit offset, region and page edges, plain, bulk and
// compare-exchange, probes, views, handlers and fallbacks that bitmaps lead to. No page faults, so no system calls: the fast one.

#include "fuzz/target.h"

namespace {

using reference::StepKind;

void OnlyRam(reference::Trace& trace) {
  for (reference::Backing& backing : trace.world.backings) {
    for (reference::PageSetup& page : backing.page) {
      page.state = reference::PageState::kRam;
    }
  }
  for (reference::HandlerAnswer& answer : trace.world.handler) {
    if (answer == reference::HandlerAnswer::kVanishRetry) {
      answer = reference::HandlerAnswer::kRefuseRetry;
    }
  }
  std::erase_if(trace.ops, [](const reference::Op& op) {
    return op.kind == StepKind::kAllocate || op.kind == StepKind::kMapZero || op.kind == StepKind::kProtect ||
           op.kind == StepKind::kUnmap || op.kind == StepKind::kMapFile || op.kind == StepKind::kDecommit ||
           op.kind == StepKind::kUnmapBytes || op.kind == StepKind::kMapFileBytes;
  });
}

}  // namespace

GUESTMEM_TARGET(access_fuzzer, OnlyRam);
