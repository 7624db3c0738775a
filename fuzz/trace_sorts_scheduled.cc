// Concurrent traces, on the engine with schedule points; and the search through their schedules.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "fuzz/in_child.h"
#include "fuzz/sort_schedule.h"
#include "fuzz/trace_files.h"
#include "fuzz/trace_sorts.h"
#include "reference/schedule/minimise.h"
#include "reference/schedule/runner.h"
#include "reference/schedule/scenarios.h"

namespace fuzz {
namespace {

using namespace reference::schedule;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::optional<Failing> FindInChild(const Trace& trace, int preemptions) {
  const ChildEnd end = InChild([&](const Speaker& say) {
    Runner& runner = ScheduleSort::TheRunner();
    std::optional<Failing> failing = FindFailing(runner, trace, -1);
    say(failing ? "!" : ".");  // a crash in what follows is not the trace's own
    if (!failing && preemptions >= 0) failing = FindFailing(runner, trace, preemptions);
    if (failing) {
      say(static_cast<char>('0' + static_cast<int>(failing->verdict.end)) + ToText(failing->trace) + '\0' + failing->verdict.text);
    }
  });
  if (end.signal != 0) {
    return end.text.empty() ? std::optional(Failing{trace, {End::kFinished, end.hung ? "hangs" : end.reason()}}) : std::nullopt;
  }
  const size_t zero = end.text.find('\0');
  if (zero == end.text.npos) return std::nullopt;
  return Failing{std::get<Trace>(FromText(end.text.substr(2, zero - 2))), {static_cast<End>(end.text[1] - '0'), end.text.substr(zero + 1)}};
}

std::optional<Minimal> MinimiseBytes(const Bytes& bytes) {
  const auto failing = FindInChild(FromBytes(bytes), 2);
  if (!failing) return std::nullopt;
  const Failing minimal = Minimise(FindInChild, *failing);
  return Minimal{ToBytes(minimal.trace), ToText(minimal.trace) + "\nverdict: " + minimal.verdict.text + "\n"};
}

std::string Test(const Bytes& bytes, std::string_view name) { return ToTestSource(FromBytes(bytes), name); }

// By its own choices.
void OutcomesOf(const Bytes& bytes, const Each& each) {
  const Trace trace = FromBytes(bytes);
  (void)ScheduleSort::Run(trace);
  const History& history = ScheduleSort::TheRunner().history();
  for (size_t i = 0; i < trace.ops.size(); ++i) {
    const bool moved = std::ranges::any_of(history.accesses, [&](const Access& access) { return access.op == i && access.length != 0; });
    const bool refused = std::ranges::any_of(history.findings, [&](const BitEvent& found) { return found.op == i && !found.value; });
    each(&trace.ops[i], {refused ? "refused" : "", moved, refused});
  }
}

Sort Make() {
  Sort sort = SortOf<ScheduleSort>();
  sort.minimise = MinimiseBytes;
  sort.test = Test;
  sort.outcomes = OutcomesOf;
  return sort;
}

class Searching {
 public:
  explicit Searching(const Options& options) : options_(options) {}

  int Run(const std::vector<std::pair<std::string, Bytes>>& given) {
    constexpr uint64_t kMost = 1'000'000;
    std::vector<std::pair<std::string, Trace>> traces;
    for (const auto& [name, bytes] : given) traces.emplace_back(name, FromBytes(bytes));
    if (given.empty()) traces = Scenarios();
    for (const auto& [name, trace] : traces) {
      const Search search = SearchAll(runner_, trace, static_cast<int>(options_.preemptions), kMost);
      if (IsWrong(name, search)) return 1;
      std::printf("%-44s %8llu schedules%s\n", name.c_str(), static_cast<unsigned long long>(search.schedules),
                  search.complete ? "" : ", and there are more");
    }
    std::mt19937_64 random(options_.seed);
    for (const Clock::time_point start = Clock::now(); SecondsSince(start) < options_.seconds;) {
      const Trace trace = RandomTrace(random());
      if (IsWrong("a random trace", SearchRandomly(runner_, trace, random(), 20))) return 1;
    }
    std::printf("nothing wrong in %llu schedules, %.1f s\n", static_cast<unsigned long long>(schedules_), SecondsSince(start_));
    return 0;
  }

 private:
  bool IsWrong(const std::string& name, const Search& search) {
    schedules_ += search.schedules;
    if (!search.verdict) return false;
    std::printf("%s\n%s: wrong after %llu schedules, %.2f s\n", runner_.Report(search.failing, *search.verdict).c_str(), name.c_str(),
                static_cast<unsigned long long>(schedules_), SecondsSince(start_));
    const std::string text = ToText(search.failing);  // bytes would lose what a target leaves out
    if (!options_.out.empty() && Write(options_.out, {text.begin(), text.end()})) std::printf("written to %s\n", options_.out.c_str());
    return true;
  }

  const Options& options_;
  Runner& runner_ = ScheduleSort::TheRunner();
  uint64_t schedules_ = 0;
  const Clock::time_point start_ = Clock::now();
};

// A schedule is one run from reset to judgement.
int Bench(const Options& options) {
  Runner& runner = ScheduleSort::TheRunner();
  const Trace trace = TraceOf(BenchmarkScenario());
  std::printf("%s", ToText(trace).c_str());
  for (const bool walk : {true, false}) {
    uint64_t runs = 0;
    const Clock::time_point start = Clock::now();
    while (SecondsSince(start) < options.seconds) {
      runs += (walk ? SearchRandomly(runner, trace, options.seed + runs, 1000) : SearchAll(runner, trace, 2, 1000)).schedules;
    }
    std::printf("%-24s %10.0f schedules/s\n", walk ? "random walk and PCT" : "two preemptions", static_cast<double>(runs) / SecondsSince(start));
  }
  return 0;
}

int WriteScenarios(const Options& options) {
  const auto all = Scenarios();
  const bool written = std::all_of(all.begin(), all.end(), [&](const auto& each) { return Write(options.out + "/" + each.first, ToBytes(each.second)); });
  return written ? 0 : 2;
}

}  // namespace

std::span<const Sort> Sorts() {
  static const Sort sort = Make();
  return {&sort, 1};
}

std::optional<int> RunOwnCommand(std::string_view command, const std::vector<std::pair<std::string, Bytes>>& traces, const Options& options) {
  if (command == "search") return Searching(options).Run(traces);
  if (command == "bench") return Bench(options);
  if (command == "scenarios") return WriteScenarios(options);
  return std::nullopt;
}

}  // namespace fuzz
