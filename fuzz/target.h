// What every target does with an input: bytes -> trace of its profile -> run beside its judge -> report. A target is its name, which is
// its file's, its sort of traces (sort_*.h) and its profile.

#ifndef GUESTMEM_FUZZ_TARGET_H_
#define GUESTMEM_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "fuzz/profiles.h"
#include "reference/trace/schema.h"

namespace fuzz {

// What the inputs of this program's target are; for the mutator.
struct InputShape {
  const reference::trace::Schema& rows;
  reference::trace::Profile profile = {};
};
const InputShape& TheShape();

// GUESTMEM_SAVE_TRACE, if set, names a file that gets each trace as text before it runs, so that whatever ends the process leaves
// it there (ci/repro.sh, ci/lib/one_verdict_test.py). GUESTMEM_UNJUDGED, if set, leaves the judge out (ci/mutants.sh --ablation): then only
// sanitizers and crashes tell.
template <class Sort>
int RunInput(const char* target, const uint8_t* data, size_t size) {
  static const char* const saved = std::getenv("GUESTMEM_SAVE_TRACE");
  static const bool judged = std::getenv("GUESTMEM_UNJUDGED") == nullptr;
  const auto trace = reference::trace::FromBytes<typename Sort::Trace>(Sort::Rows(), {data, size}, TheShape().profile);
  if (saved != nullptr) std::ofstream(saved) << ToText(trace);
  if (!judged) {
    Sort::RunUnjudged(trace);
    return 0;
  }
  if (const auto verdict = Sort::Run(trace)) {
    std::fprintf(stderr, "%s\n%s (%s). From the saved input to a minimal trace and a test:\n  ci/repro.sh %s FILE\n",
                 Sort::ReportOf(trace, *verdict).c_str(), Sort::kComplaint, target, target);
    std::abort();
  }
  return 0;
}

}  // namespace fuzz

#ifdef GUESTMEM_PROFILES_ONLY
#define GUESTMEM_TARGET(name, sort, ...) \
  static const bool name##_is_known = (fuzz::Profiles()[#name] = reference::trace::Profile{__VA_ARGS__}, true);
#else
#define GUESTMEM_TARGET(name, sort, ...)                                                                                              \
  static_assert(GUESTMEM_MAX_LEN == fuzz::sort::kMostBytes, "max_len in fuzz/CMakeLists.txt: a fuzzer must make the longest trace"); \
  const fuzz::InputShape& fuzz::TheShape() {                                                \
    static const InputShape shape = {sort::Rows(), reference::trace::Profile{__VA_ARGS__}}; \
    return shape;                                                                          \
  }                                                                                        \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { return fuzz::RunInput<fuzz::sort>(#name, data, size); }
#endif

#endif  // GUESTMEM_FUZZ_TARGET_H_
