// What every lockstep target does with an input: bytes → trace → profile → engine and model in lockstep → report.

#ifndef GUESTMEM_FUZZ_TARGET_H_
#define GUESTMEM_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "fuzz/profiles.h"
#include "fuzz/save_trace.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"

namespace fuzz {

#ifndef GUESTMEM_PROFILES_ONLY
// For mutator.cc. A program has one target.
const reference::trace::Schema& TargetRows() { return reference::Rows(); }
#endif

static_assert(GUESTMEM_MAX_LEN == (reference::kMostWorld + reference::kMaxOps) * reference::kRecordBytes,
              "max_len in fuzz/CMakeLists.txt: a fuzzer must be able to make the longest trace, and nothing reads more");

// GUESTMEM_UNJUDGED, if set, leaves the model out (ci/mutants.sh --ablation): then only sanitizers and crashes tell.
inline bool Judged() {
  static const bool judged = std::getenv("GUESTMEM_UNJUDGED") == nullptr;
  return judged;
}

inline void RunUnjudged(reference::Subject& engine, const reference::Trace& trace) {
  engine.Start(trace.world);
  uint64_t seen = 0;
  for (const reference::Op& op : trace.ops) {
    reference::Outcome outcome;
    engine.Run(reference::Resolve(trace.world, op, seen), outcome);
    seen = outcome.number.value_or(seen);
  }
}

inline int RunInLockstep(const char* target, Profile profile, const uint8_t* data, size_t size) {
  static const std::unique_ptr<reference::Subject> engine = reference::MakeEngineSubject();
  static reference::Lockstep lockstep(*engine);
  reference::Trace trace = reference::FromBytes({data, size});
  profile(trace);
  SaveTrace(trace);
  if (!Judged()) {
    RunUnjudged(*engine, trace);
    return 0;
  }
  if (const reference::Verdict verdict = lockstep.Run(trace)) {
    std::fprintf(stderr, "%s\nThe engine and the model disagree (%s). From the saved input to a minimal trace and a test:\n  ci/repro.sh %s FILE\n",
                 reference::Report(trace, *verdict).c_str(), target, target);
    std::abort();
  }
  return 0;
}

}  // namespace fuzz

// The target: its name, which is its file's, and its profile.
#ifdef GUESTMEM_PROFILES_ONLY
#define GUESTMEM_TARGET(name, profile) static const bool name##_is_known = (fuzz::Profiles()[#name] = (profile), true)
#else
#define GUESTMEM_TARGET(name, profile)                                            \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    return fuzz::RunInLockstep(#name, profile, data, size);                       \
  }                                                                               \
  static_assert(true)
#endif

#endif  // GUESTMEM_FUZZ_TARGET_H_
