// Small traces, each about one promise of SPEC 3 to 7, whose every schedule with a few preemptions is run by the tests.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_SCENARIOS_H_
#define GUESTMEM_REFERENCE_SCHEDULE_SCENARIOS_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/schedule/trace.h"

namespace reference::schedule {

struct Scenario {
  std::string_view name;
  std::string_view text;  // the lines after the header
};

Trace TraceOf(const Scenario& scenario);
// Each with its name; then each where membarrier is refused.
std::vector<std::pair<std::string, Trace>> Scenarios();

// A two-thread trace of six operations: the one whose schedules a second ci/schedule_throughput.sh prints.
const Scenario& BenchmarkScenario();

// Without missing pages and endless retries: every deadlock and starvation is then the engine's fault.
Trace RandomTrace(uint64_t seed);

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_SCENARIOS_H_
