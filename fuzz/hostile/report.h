// From a verdict to a finding: minimised in child processes, told as a story, written as text and as a test.

#ifndef GUESTMEM_FUZZ_HOSTILE_REPORT_H_
#define GUESTMEM_FUZZ_HOSTILE_REPORT_H_

#include <functional>
#include <string>

#include "machine.h"

namespace guestmem::hostile::detail {

// Runs `work` in a child process. What it leaves in the machine's Shared is the result; where the child died, or did not end in
// time, the verdict says so. `quiet`: what it prints is dropped.
constexpr unsigned kChildSeconds = 5;
void InChild(Machine& machine, bool quiet, const std::function<void()>& work, unsigned seconds = kChildSeconds);

// Replaces the plan in shared() by a smaller one with the same verdict, within about five seconds.
void Minimise(Machine& machine);

// At most 12 lines about the last run, which showed shared().verdict. `replay` is the command that does it again.
std::string Story(Machine& machine, const std::string& replay);

std::string TestText(Machine& machine);

// Zeroed memory that children share.
Shared& NewShared();

}  // namespace guestmem::hostile::detail

#endif  // GUESTMEM_FUZZ_HOSTILE_REPORT_H_
