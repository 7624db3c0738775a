// Concurrent traces, judged by reference/schedule: what the target and the trace tool do with one.

#ifndef GUESTMEM_FUZZ_SORT_SCHEDULE_H_
#define GUESTMEM_FUZZ_SORT_SCHEDULE_H_

#include <optional>
#include <string>

#include "reference/schedule/runner.h"
#include "reference/schedule/trace.h"

namespace fuzz {

struct ScheduleSort {
  using Trace = reference::schedule::Trace;
  static constexpr const char* kName = "schedule";
  static constexpr const char* kOnlyTarget = "concurrent_fuzzer";
  static constexpr const char* kComplaint = "The schedule broke a rule";
  static constexpr size_t kMostBytes = 600;  // the world, the operations, and as many choices again as most runs have
  static_assert(kMostBytes > (reference::schedule::kMostWorld + reference::schedule::kMaxOps) * reference::schedule::kRecordBytes);
  static const reference::trace::Schema& Rows() { return reference::schedule::Rows(); }
  static reference::schedule::Runner& TheRunner() {
    static reference::schedule::Runner runner;
    return runner;
  }
  static std::optional<reference::schedule::Verdict> Run(const Trace& trace) { return TheRunner().Run(trace); }
  static void RunUnjudged(const Trace& trace) { (void)Run(trace); }
  static std::string ReportOf(const Trace& trace, const reference::schedule::Verdict& verdict) { return TheRunner().Report(trace, verdict); }
};

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_SORT_SCHEDULE_H_
