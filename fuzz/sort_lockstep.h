// Traces of single operations, the engine and the model in lockstep: what the targets and the trace tool do with one.

#ifndef GUESTMEM_FUZZ_SORT_LOCKSTEP_H_
#define GUESTMEM_FUZZ_SORT_LOCKSTEP_H_

#include <memory>
#include <string>

#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"
#include "reference/lockstep/trace_rows.h"

namespace fuzz {

struct LockstepSort {
  using Trace = reference::Trace;
  static constexpr const char* kName = "lockstep";
  static constexpr const char* kOnlyTarget = "";
  static constexpr const char* kComplaint = "The engine and the model disagree";
  static constexpr size_t kMostBytes = (1 + reference::kMostWorld + reference::kMaxOps) * reference::kRecordBytes;  // one of kSwarm
  static const reference::trace::Schema& Rows() { return reference::Rows(); }
  static reference::Subject& Engine() {
    static const std::unique_ptr<reference::Subject> engine = reference::MakeEngineSubject();
    return *engine;
  }
  static reference::Verdict Run(const Trace& trace) {
    static reference::Lockstep lockstep(Engine());
    return lockstep.Run(trace);
  }
  static void RunUnjudged(const Trace& trace) {
    Engine().Start(trace.world);
    uint64_t seen = 0;
    for (const reference::Op& op : trace.ops) {
      reference::Outcome outcome;
      Engine().Run(reference::Resolve(trace.world, op, seen), outcome);
      seen = outcome.number.value_or(seen);
    }
  }
  static std::string ReportOf(const Trace& trace, const reference::Divergence& divergence) { return reference::Report(trace, divergence); }
};

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_SORT_LOCKSTEP_H_
