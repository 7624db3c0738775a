// A world, the operations of two or three threads and their schedule, all from the input; judged by reference/schedule.
// What the machine cannot tell from a bug of the engine is left out: pages that sleep until resolved, endless retries.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "fuzz/save_trace.h"
#include "reference/schedule/runner.h"

// For mutator.cc.
namespace fuzz {
const reference::trace::Schema& TargetRows() { return reference::schedule::Rows(); }
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reference::schedule;
  static_assert(GUESTMEM_MAX_LEN > (kMostWorld + kMaxOps) * kRecordBytes, "max_len in fuzz/CMakeLists.txt: choices follow");
  static Runner runner;
  const Trace trace = WithoutHangs(FromBytes({data, size}));
  fuzz::SaveTrace(trace);
  static const bool judged = std::getenv("GUESTMEM_UNJUDGED") == nullptr;  // ci/mutants.sh --ablation
  if (const std::optional<Verdict> verdict = runner.Run(trace); verdict && judged) {
    std::fprintf(stderr, "%s\nThe schedule broke a rule. Replay this input with\n  ci/repro.sh concurrent_fuzzer FILE\n",
                 runner.Report(trace, *verdict).c_str());
    std::abort();
  }
  return 0;
}
