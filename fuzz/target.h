// What every lockstep target does with an input: bytes → trace → profile → engine and model in lockstep → report.

#ifndef GUESTMEM_FUZZ_TARGET_H_
#define GUESTMEM_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/minimise.h"
#include "reference/lockstep/trace.h"

namespace fuzz {

// Keeps a target on its subject by editing the decoded trace; all of them read the same bytes.
using Profile = void (*)(reference::Trace& trace);

// GUESTMEM_SAVE_TRACE, if set, names a file that gets each trace as text before it runs, so that whatever ends the process leaves
// it there (ci/repro.sh). False: it isn't set.
inline bool SaveTrace(const reference::Trace& trace) {
  static const char* const path = std::getenv("GUESTMEM_SAVE_TRACE");
  if (path != nullptr) {
    std::ofstream(path) << reference::ToText(trace);
  }
  return path != nullptr;
}

[[noreturn]] inline void ReportAndAbort(const char* target, reference::Lockstep& lockstep, const reference::Trace& trace,
                                        const reference::Divergence& divergence) {
  std::fprintf(stderr, "%s\n", reference::Report(trace, divergence).c_str());
  if (!SaveTrace(trace)) {
    const reference::Minimised minimal = reference::Minimise(lockstep, trace, divergence);
    std::fprintf(stderr, "minimal trace that diverges alike:\n\n%s\n", reference::Report(minimal.trace, minimal.divergence).c_str());
  }
  std::fprintf(stderr, "The engine and the model disagree (%s). From the saved input to a test:\n  ci/repro.sh %s FILE\n", target, target);
  std::abort();
}

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
    ReportAndAbort(target, lockstep, trace, *verdict);
  }
  return 0;
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TARGET_H_
