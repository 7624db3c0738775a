#include "reference/schedule/runner.h"

#include <algorithm>
#include <cstdio>

namespace reference::schedule {
namespace {

constexpr const char* kPointNames[] = {
    "section entry", "section exit", "load",     "store",   "compare-exchange", "touch", "transfer",
    "before handler", "after handler", "bits",   "cleared", "remap",            "lock",  "unlock",
    "synchronize",   "synchronized", "layout"};

}  // namespace

std::optional<Verdict> Runner::Run(const Trace& trace, Choices& choices) {
  const End end = machine_.Run(trace, choices);
  if (end == End::kDeadlock) {
    return Verdict{end, "deadlock: every thread waits for another"};
  }
  if (end == End::kStarvation) {
    return Verdict{end, "starvation: not done after " + std::to_string(kMaxSteps) + " steps"};
  }
  if (auto wrong = Judge(trace, machine_.history())) {
    return Verdict{end, *std::move(wrong)};
  }
  return std::nullopt;
}

std::optional<Verdict> Runner::Run(const Trace& trace) {
  Replay replay(trace.choices);
  return Run(trace, replay);
}

Trace Runner::Taken(const Trace& trace) const {
  Trace taken = trace;
  taken.choices = scheduler_.taken();
  // Beyond the end of the list, the current thread goes on: trailing zeros can be dropped.
  while (!taken.choices.empty() && taken.choices.back() == 0) {
    taken.choices.pop_back();
  }
  taken.choices.resize(std::min(taken.choices.size(), kMaxChoices));
  return taken;
}

std::string Runner::Report(const Trace& trace, const Verdict& verdict) {
  scheduler_.log = true;
  const std::optional<Verdict> again = Run(trace);
  scheduler_.log = false;
  std::string out = ToText(trace) + "\ninterleaving:\n";
  constexpr size_t kShown = 200;
  const auto& steps = scheduler_.steps();
  for (size_t i = 0; i < std::min(steps.size(), kShown); ++i) {
    const LoggedStep& step = steps[i];
    out += "  " + std::string(static_cast<size_t>(step.thread) * 24, ' ') + std::to_string(step.thread) + " " +
           (step.waits ? "waits" : kPointNames[static_cast<size_t>(step.point)]);
    const int64_t offset = step.address == nullptr ? -1 : machine_.OffsetOf(step.address);
    if (offset >= 0) {
      char text[24];
      std::snprintf(text, sizeof text, " 0x%llx", static_cast<unsigned long long>(offset));
      out += text;
    }
    out += "\n";
  }
  if (steps.size() > kShown) {
    out += "  ... and " + std::to_string(steps.size() - kShown) + " more steps\n";
  }
  out += "\nverdict: " + verdict.text + "\n";
  if (again != verdict) {
    out += "but another run of it says: " + (again ? again->text : std::string("nothing wrong")) + "\n";
  }
  return out;
}

Search SearchAll(Runner& runner, const Trace& trace, int preemptions, uint64_t most) {
  Search search;
  Exhaustive all(preemptions);
  do {
    search.verdict = runner.Run(trace, all);
    ++search.schedules;
    if (search.verdict) {
      search.failing = runner.Taken(trace);
      return search;
    }
    search.complete = !all.Next();
  } while (!search.complete && search.schedules < most);
  return search;
}

Search SearchRandomly(Runner& runner, const Trace& trace, uint64_t seed, uint64_t count) {
  Search search;
  uint64_t points = 64;  // until a run has shown it
  while (!search.verdict && search.schedules < count) {
    const uint64_t number = seed + search.schedules;
    if (search.schedules % 2 == 0) {
      RandomWalk walk(number);
      search.verdict = runner.Run(trace, walk);
    } else {
      Pct pct(number, static_cast<int>(2 + search.schedules / 2 % 3), points);
      search.verdict = runner.Run(trace, pct);
    }
    points = runner.steps();
    ++search.schedules;
  }
  if (search.verdict) {
    search.failing = runner.Taken(trace);
  }
  return search;
}

}  // namespace reference::schedule
