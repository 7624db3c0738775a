#include "reference/schedule/minimise.h"

#include <algorithm>
#include <cctype>
#include <sstream>

#include "reference/minimising.h"

namespace reference::schedule {
namespace {

constexpr uint64_t kMostSchedules = 3000;  // searched for one candidate
constexpr int kMostPreemptions = 2;

// A verdict's first line without numbers and operations: what sort of failure it is.
std::string Sort(const Verdict& verdict) {
  std::istringstream words(verdict.text.substr(0, verdict.text.find('\n')));
  std::string out, word;
  int nested = 0;
  while (words >> word) {
    nested += static_cast<int>(std::count(word.begin(), word.end(), '('));
    const bool number = std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::isdigit(c) != 0 || c == '='; });
    if (nested == 0 && !number) {
      out += word + " ";
    }
    nested -= static_cast<int>(std::count(word.begin(), word.end(), ')'));
  }
  return out;
}

class Minimiser {
 public:
  Minimiser(const Finder& find, const Failing& failing) : find_(find), sort_(Sort(failing.verdict)), best_(failing) {}

  Failing Run() {
    for (bool smaller = true; smaller;) {
      smaller = DropOps();
      smaller |= SimplifyWorld();
      smaller |= SimplifyOps();
    }
    FewerSwitches();
    return std::move(best_);
  }

 private:
  bool Try(Trace candidate, int preemptions = kMostPreemptions) {
    candidate = FromBytes(ToBytes(candidate));  // into the range of its world
    if (candidate == best_.trace) {
      return false;
    }
    std::optional<Failing> failing = find_(candidate, preemptions);
    if (!failing || Sort(failing->verdict) != sort_) {
      return false;
    }
    best_ = *std::move(failing);
    return true;
  }

  bool TryChange(const std::function<void(Trace&)>& change) {
    Trace candidate = best_.trace;
    change(candidate);
    Trace without_choices = candidate;
    without_choices.choices = best_.trace.choices;
    return without_choices != best_.trace && Try(std::move(candidate));
  }

  bool DropOps() {
    return DropRuns(best_.trace.ops, [&](size_t begin, size_t end) { return TryChange([&](Trace& t) { Erase(t.ops, begin, end); }); });
  }

  bool SimplifyWorld() {
    bool smaller = false;
    smaller |= TryChange([](Trace& t) {
      t.threads = 2;
      for (Op& op : t.ops) {
        op.thread %= 2;
      }
    });
    smaller |= TryChange([](Trace& t) { t.membarrier = true; });
    smaller |= TryChange([](Trace& t) { t.pages.resize(std::max<size_t>(t.pages.size() - 1, 1)); });
    for (size_t i = 0; i < best_.trace.pages.size(); ++i) {
      smaller |= TryChange([i](Trace& t) { t.pages[i] = {}; });
      smaller |= TryChange([i](Trace& t) { t.pages[i].missing = false; });
      smaller |= TryChange([i](Trace& t) { t.pages[i].hole = false; });
    }
    smaller |= DropRuns(best_.trace.answers,
                        [&](size_t begin, size_t end) { return TryChange([&](Trace& t) { Erase(t.answers, begin, end); }); });
    return smaller;
  }

  bool SimplifyOps() {
    static constexpr uint8_t Op::*kNumbers[] = {&Op::thread, &Op::page, &Op::count, &Op::cell,   &Op::size,
                                                &Op::part,   &Op::form, &Op::length, &Op::access};
    bool smaller = false;
    for (size_t i = 0; i < best_.trace.ops.size(); ++i) {
      for (uint8_t Op::*const number : kNumbers) {
        smaller |= TryChange([&](Trace& t) { t.ops[i].*number = Op().*number; });
      }
    }
    return smaller;
  }

  // The fewest preemptions that do, then the fewest choices that are not to go on.
  void FewerSwitches() {
    for (int preemptions = 0; preemptions < kMostPreemptions; ++preemptions) {
      Trace candidate = best_.trace;
      candidate.choices.clear();
      if (Try(std::move(candidate), preemptions)) {
        break;
      }
    }
    for (size_t i = 0; i < best_.trace.choices.size(); ++i) {
      if (best_.trace.choices[i] != 0) {
        Trace candidate = best_.trace;
        candidate.choices[i] = 0;
        Try(std::move(candidate), -1);
      }
    }
  }

  const Finder& find_;
  const std::string sort_;
  Failing best_;
};

}  // namespace

std::optional<Failing> FindFailing(Runner& runner, const Trace& trace, int preemptions) {
  if (const auto verdict = runner.Run(trace)) {
    return Failing{runner.Taken(trace), *verdict};
  }
  if (preemptions < 0) {
    return std::nullopt;
  }
  Search search = SearchAll(runner, trace, preemptions, kMostSchedules);
  return search.verdict ? std::optional(Failing{std::move(search.failing), *std::move(search.verdict)}) : std::nullopt;
}

Failing Minimise(const Finder& find, const Failing& failing) { return Minimiser(find, failing).Run(); }

std::string ToTestSource(const Trace& trace, std::string_view name) {
  std::string test;
  for (const char c : name) {
    test += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return "// Made by `schedule test`. Real threads cannot be told when to switch, so this one replays its schedule on the engine with\n"
         "// schedule points (guestmem_scheduled) and has reference/schedule judge what happened.\n\n"
         "#include <gtest/gtest.h>\n\n#include <optional>\n#include <variant>\n\n#include \"reference/schedule/runner.h\"\n\n"
         "namespace reference::schedule {\nnamespace {\n\n"
         "TEST(Regression, " + test + ") {\n"
         "  const auto parsed = FromText(R\"(" + ToText(trace) + ")\");\n"
         "  ASSERT_TRUE(std::holds_alternative<Trace>(parsed)) << std::get<TextError>(parsed).reason;\n"
         "  const Trace& trace = std::get<Trace>(parsed);\n"
         "  Runner runner;\n"
         "  const std::optional<Verdict> verdict = runner.Run(trace);\n"
         "  EXPECT_FALSE(verdict.has_value()) << runner.Report(trace, *verdict);\n"
         "}\n\n}  // namespace\n}  // namespace reference::schedule\n";
}

}  // namespace reference::schedule
