// Makes a failing concurrent trace small: fewer ops, threads and pages, plainer numbers, and a schedule with few preemptions, as
// long as some schedule of it fails in the same way.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_MINIMISE_H_
#define GUESTMEM_REFERENCE_SCHEDULE_MINIMISE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "reference/schedule/runner.h"

namespace reference::schedule {

struct Failing {
  Trace trace;  // with the choices that fail
  Verdict verdict;
};

// Says what is wrong with a trace: run by its own choices; if that is right and `preemptions` is not negative, by any schedule with
// at most that many. May run the trace in another process, in case it crashes.
using Finder = std::function<std::optional<Failing>(const Trace& trace, int preemptions)>;
// A finder in this process.
std::optional<Failing> FindFailing(Runner& runner, const Trace& trace, int preemptions);

// Precondition: `find` finds something wrong with `failing.trace`, every time.
Failing Minimise(const Finder& find, const Failing& failing);

// A GoogleTest that replays the trace and expects nothing to be wrong. `name`: any text.
std::string ToTestSource(const Trace& trace, std::string_view name);

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_MINIMISE_H_
