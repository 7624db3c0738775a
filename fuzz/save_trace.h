// GUESTMEM_SAVE_TRACE, if set, names a file that gets each trace as text before it runs, so that whatever ends the process leaves
// it there (ci/repro.sh, ci/lib/one_verdict_test.py).

#ifndef GUESTMEM_FUZZ_SAVE_TRACE_H_
#define GUESTMEM_FUZZ_SAVE_TRACE_H_

#include <cstdlib>
#include <fstream>

namespace fuzz {

template <typename Trace>
void SaveTrace(const Trace& trace) {
  static const char* const path = std::getenv("GUESTMEM_SAVE_TRACE");
  if (path != nullptr) {
    std::ofstream(path) << ToText(trace);
  }
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_SAVE_TRACE_H_
