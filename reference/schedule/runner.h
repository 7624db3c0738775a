// Runs concurrent traces by their own choices, by random ones, or by all there are, and reports what went wrong.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_RUNNER_H_
#define GUESTMEM_REFERENCE_SCHEDULE_RUNNER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "reference/schedule/choices.h"
#include "reference/schedule/machine.h"
#include "reference/schedule/scheduler.h"
#include "reference/schedule/trace.h"

namespace reference::schedule {

struct Verdict {
  End end = End::kFinished;  // kDeadlock or kStarvation; kFinished: a judge's verdict
  std::string text;
  bool operator==(const Verdict&) const = default;
};

// At most one in a process, because the hooks of the schedule points are global.
class Runner {
 public:
  Runner() : machine_(scheduler_) {}

  // nullopt: every judge agrees.
  std::optional<Verdict> Run(const Trace& trace, Choices& choices);
  std::optional<Verdict> Run(const Trace& trace);  // by the trace's own choices

  // The trace with the choices that the last run took: it replays that run.
  Trace Taken(const Trace& trace) const;
  const History& history() const { return machine_.history(); }
  uint64_t steps() const { return scheduler_.step_count(); }

  // The trace, its interleaving step by step, and the verdict. Runs it once more.
  std::string Report(const Trace& trace, const Verdict& verdict);

 private:
  Scheduler scheduler_;
  Machine machine_;
};

// What a search found: how many schedules it ran, and the first that a judge objected to.
struct Search {
  uint64_t schedules = 0;
  bool complete = false;  // there are no more within its bounds
  std::optional<Verdict> verdict;
  Trace failing;          // if verdict: with its choices
};

// Every schedule with at most `preemptions` preemptions, until one fails or `most` were run.
Search SearchAll(Runner& runner, const Trace& trace, int preemptions, uint64_t most);
// `count` schedules by random walk and by PCT of depth 2 to 4, in turn.
Search SearchRandomly(Runner& runner, const Trace& trace, uint64_t seed, uint64_t count);

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_RUNNER_H_
