#include "reference/schedule/minimise.h"

#include <algorithm>
#include <cctype>
#include <sstream>

#include "reference/trace/minimise.h"

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

bool SameButForChoices(Trace a, const Trace& b) {
  a.choices = b.choices;
  return a == b;
}

// The fewest preemptions that do, then the fewest choices that are not to go on.
void FewerSwitches(const Finder& find, const std::string& sort, Failing& best) {
  const auto attempt = [&](const Trace& candidate, int preemptions) {
    std::optional<Failing> failing = find(candidate, preemptions);
    const bool alike = failing && Sort(failing->verdict) == sort;
    if (alike) {
      best = *std::move(failing);
    }
    return alike;
  };
  Trace candidate = best.trace;
  candidate.choices.clear();
  for (int preemptions = 0; preemptions < kMostPreemptions && !attempt(candidate, preemptions); ++preemptions) {
  }
  for (size_t i = 0; i < best.trace.choices.size(); ++i) {
    if (best.trace.choices[i] != 0) {
      candidate = best.trace;
      candidate.choices[i] = 0;
      attempt(candidate, -1);
    }
  }
}

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

Failing Minimise(const Finder& find, const Failing& failing) {
  const std::string sort = Sort(failing.verdict);
  Failing best = failing;
  trace::Minimise(Rows(), ToBytes(failing.trace), [&](const trace::Bytes& bytes) -> std::optional<trace::Bytes> {
    const Trace candidate = FromBytes(bytes);
    if (SameButForChoices(candidate, best.trace)) {
      return std::nullopt;
    }
    std::optional<Failing> smaller = find(candidate, kMostPreemptions);
    if (!smaller || Sort(smaller->verdict) != sort) {
      return std::nullopt;
    }
    best = *std::move(smaller);
    return ToBytes(best.trace);
  });
  FewerSwitches(find, sort, best);
  return best;
}

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
