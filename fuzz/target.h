// What every lockstep target does with an input: bytes → trace → profile → engine and model in lockstep → report.

#ifndef GUESTMEM_FUZZ_TARGET_H_
#define GUESTMEM_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"

namespace fuzz {

// Keeps a target on its subject by editing the decoded trace; all of them read the same bytes.
using Profile = void (*)(reference::Trace& trace);

inline int RunInLockstep(const char* target, Profile profile, const uint8_t* data, size_t size) {
  static const std::unique_ptr<reference::Subject> engine = reference::MakeEngineSubject();
  static reference::Lockstep lockstep(*engine);
  reference::Trace trace = reference::FromBytes({data, size});
  profile(trace);
  if (const reference::Verdict verdict = lockstep.Run(trace)) {
    std::fprintf(stderr, "%s\nThe engine and the model disagree. Replay this input with\n  ci/repro.sh %s FILE\n",
                 reference::Report(trace, *verdict).c_str(), target);
    std::abort();
  }
  return 0;
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TARGET_H_
