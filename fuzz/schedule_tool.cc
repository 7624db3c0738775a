// The schedule tool: shows and runs concurrent traces, searches their schedules, measures how many it runs a second.

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/in_child.h"
#include "fuzz/trace_files.h"
#include "reference/schedule/minimise.h"
#include "reference/schedule/runner.h"
#include "reference/schedule/scenarios.h"

namespace {

using namespace reference::schedule;
using fuzz::Write;
using Clock = std::chrono::steady_clock;

constexpr int kRight = 0, kWrong = 1, kBadInput = 2;

constexpr char kHelp[] =
    "usage: schedule COMMAND [FILE...] [OPTION...]\n"
    "\n"
    "  show FILE...     print each concurrent trace as text\n"
    "  run FILE...      run each by its own choices; print the interleaving and the verdict of those that fail\n"
    "  encode FILE...   write each as a fuzzer input to the file or, for several, the directory after -o\n"
    "  minimise FILE    write the smallest trace found that fails like FILE to the file after -o, as text\n"
    "  test FILE        write it as a C++ test (GoogleTest, linked with guestmem_schedule) to the file after -o\n"
    "  search [FILE...] run every schedule with up to --preemptions (2) preemptions of each FILE, or of the built-in\n"
    "                   scenarios; then random schedules of random traces for --seconds (10). Stops at the first failure,\n"
    "                   prints it, and writes it to the file after -o\n"
    "  scenarios DIR    write the built-in scenarios to DIR as fuzzer inputs\n"
    "  bench            print how many schedules of a two-thread, six-op trace run in a second, for --seconds (3)\n"
    "\n"
    "  --seed N         of random traces and schedules (1)\n"
    "\n"
    "FILE is a trace in either spelling: text (first line 'guestmem schedule 1') or bytes.\n"
    "Exit status: 0 all right, 1 a schedule failed, 2 an unusable argument or file.\n";

struct Arguments {
  std::string command, out;
  std::vector<std::string> files;
  uint64_t seconds = 0, seed = 1, preemptions = 2;
  bool seconds_given = false;
};

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::optional<Trace> Load(const std::string& file) { return fuzz::Load(file, FromBytes, FromText); }

int Fail(Runner& runner, const std::string& what, const Search& search, uint64_t schedules, Clock::time_point start,
         const std::string& out) {
  std::printf("%s\n%s: wrong after %llu schedules, %.2f s\n", runner.Report(search.failing, *search.verdict).c_str(), what.c_str(),
              static_cast<unsigned long long>(schedules), SecondsSince(start));
  if (!out.empty() && Write(out, ToBytes(search.failing))) {
    std::printf("written to %s\n", out.c_str());
  }
  return kWrong;
}

int SearchCommand(Runner& runner, const Arguments& arguments) {
  constexpr uint64_t kMost = 1'000'000;
  const Clock::time_point start = Clock::now();
  std::vector<std::pair<std::string, Trace>> traces;
  for (const std::string& file : arguments.files) {
    if (auto trace = Load(file)) {
      traces.emplace_back(file, *std::move(trace));
    } else {
      return kBadInput;
    }
  }
  if (arguments.files.empty()) {
    traces = Scenarios();
  }
  uint64_t schedules = 0;
  for (const auto& [name, trace] : traces) {
    const Search search = SearchAll(runner, trace, static_cast<int>(arguments.preemptions), kMost);
    schedules += search.schedules;
    if (search.verdict) {
      return Fail(runner, name, search, schedules, start, arguments.out);
    }
    std::printf("%-44s %8llu schedules%s\n", name.c_str(), static_cast<unsigned long long>(search.schedules),
                search.complete ? "" : ", and there are more");
  }
  std::mt19937_64 random(arguments.seed);
  const Clock::time_point random_start = Clock::now();
  const double seconds = arguments.seconds_given ? static_cast<double>(arguments.seconds) : 10;
  while (SecondsSince(random_start) < seconds) {
    const Search search = SearchRandomly(runner, RandomTrace(random), random(), 20);
    schedules += search.schedules;
    if (search.verdict) {
      return Fail(runner, "a random trace", search, schedules, start, arguments.out);
    }
  }
  std::printf("nothing wrong in %llu schedules, %.1f s\n", static_cast<unsigned long long>(schedules), SecondsSince(start));
  return kRight;
}

// A schedule is one run from reset to judgement.
int Bench(Runner& runner, const Arguments& arguments) {
  const Trace trace = TraceOf(BenchmarkScenario());
  const double seconds = arguments.seconds_given ? static_cast<double>(arguments.seconds) : 3;
  std::printf("%s", ToText(trace).c_str());
  for (const bool walk : {true, false}) {
    uint64_t runs = 0;
    const Clock::time_point start = Clock::now();
    while (SecondsSince(start) < seconds) {
      if (walk) {
        runs += SearchRandomly(runner, trace, arguments.seed + runs, 1000).schedules;
      } else {
        runs += SearchAll(runner, trace, 2, 1000).schedules;
      }
    }
    std::printf("%-24s %10.0f schedules/s\n", walk ? "random walk and PCT" : "two preemptions",
                static_cast<double>(runs) / SecondsSince(start));
  }
  return kRight;
}

int EachFile(Runner& runner, const Arguments& arguments) {
  int status = arguments.files.empty() ? kBadInput : kRight;
  for (const std::string& file : arguments.files) {
    const auto trace = Load(file);
    if (!trace) {
      return kBadInput;
    }
    if (arguments.command == "show") {
      std::printf("%s", ToText(*trace).c_str());
    } else if (arguments.command == "encode") {
      const std::string name = file.substr(file.find_last_of('/') + 1);
      if (!Write(arguments.files.size() == 1 ? arguments.out : arguments.out + "/" + name, ToBytes(*trace))) {
        return kBadInput;
      }
    } else if (const auto verdict = runner.Run(*trace)) {
      std::printf("%s: %s", file.c_str(), runner.Report(*trace, *verdict).c_str());
      status = kWrong;
    }
  }
  return status;
}

// What a trace does, seen from outside: it may crash or hang.
std::optional<Failing> FindInChild(const Trace& trace, int preemptions) {
  const fuzz::ChildEnd end = fuzz::InChild([&](const fuzz::Speaker& say) {
    Runner runner;
    std::optional<Failing> failing = FindFailing(runner, trace, -1);
    say(failing ? "!" : ".");  // a crash in what follows is not the trace's own
    if (!failing && preemptions >= 0) {
      failing = FindFailing(runner, trace, preemptions);
    }
    if (failing) {
      say(static_cast<char>('0' + static_cast<int>(failing->verdict.end)) + ToText(failing->trace) + '\0' + failing->verdict.text);
    }
  });
  if (end.signal != 0) {
    return end.text.empty() ? std::optional(Failing{trace, {End::kFinished, end.hung ? "hangs" : end.reason()}}) : std::nullopt;
  }
  const size_t zero = end.text.find('\0');
  if (zero == end.text.npos) {
    return std::nullopt;
  }
  return Failing{std::get<Trace>(FromText(end.text.substr(2, zero - 2))), {static_cast<End>(end.text[1] - '0'), end.text.substr(zero + 1)}};
}

bool WriteText(const std::string& file, const std::string& text) { return Write(file, {text.begin(), text.end()}); }

int MinimiseCommand(const Arguments& arguments) {
  const auto trace = Load(arguments.files[0]);
  if (!trace) {
    return kBadInput;
  }
  const auto failing = FindInChild(WithoutHangs(*trace), 2);
  if (!failing) {
    std::printf("%s: nothing wrong\n", arguments.files[0].c_str());
    return kRight;
  }
  const Failing minimal = Minimise(FindInChild, *failing);
  std::printf("%s\nverdict: %s\n", ToText(minimal.trace).c_str(), minimal.verdict.text.c_str());
  return WriteText(arguments.out, ToText(minimal.trace)) ? kWrong : kBadInput;
}

int TestCommand(const Arguments& arguments) {
  const auto trace = Load(arguments.files[0]);
  const std::string name = std::filesystem::path(arguments.files[0]).stem().string();
  return trace && WriteText(arguments.out, ToTestSource(*trace, name)) ? kRight : kBadInput;
}

bool Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto number = [&](uint64_t& value) {
      const std::string_view text = i + 1 < argc ? argv[++i] : "";
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      return error == std::errc() && end == text.data() + text.size() && !text.empty();
    };
    bool good = true;
    if (word == "--seconds") {
      good = arguments.seconds_given = number(arguments.seconds);
    } else if (word == "--seed") {
      good = number(arguments.seed);
    } else if (word == "--preemptions") {
      good = number(arguments.preemptions) && arguments.preemptions <= 10;
    } else if (word == "-o" && i + 1 < argc) {
      arguments.out = argv[++i];
    } else if (word.starts_with("-")) {
      good = false;
    } else if (arguments.command.empty()) {
      arguments.command = word;
    } else {
      arguments.files.emplace_back(word);
    }
    if (!good) {
      std::fprintf(stderr, "schedule: '%s' is no option, or wants a number\n", std::string(word).c_str());
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (argc > 1 && std::string_view(argv[1]) == "--help") {
    std::printf("%s", kHelp);
    return kRight;
  }
  if (!Parse(argc, argv, arguments)) {
    return kBadInput;
  }
  const bool minimises = arguments.command == "minimise";
  if (minimises || arguments.command == "test") {
    if (arguments.files.size() != 1 || arguments.out.empty()) {
      std::fprintf(stderr, "%s", kHelp);
      return kBadInput;
    }
    return minimises ? MinimiseCommand(arguments) : TestCommand(arguments);
  }
  Runner runner;
  if (arguments.command == "search") {
    return SearchCommand(runner, arguments);
  }
  if (arguments.command == "bench") {
    return Bench(runner, arguments);
  }
  if (arguments.command == "scenarios" && arguments.files.size() == 1) {
    for (const auto& [name, trace] : Scenarios()) {
      if (!Write(arguments.files[0] + "/" + name, ToBytes(trace))) {
        return kBadInput;
      }
    }
    return kRight;
  }
  const bool known = arguments.command == "show" || arguments.command == "run" || arguments.command == "encode";
  if (!known || arguments.files.empty() || (arguments.command == "encode" && arguments.out.empty())) {
    std::fprintf(stderr, "%s", kHelp);
    return kBadInput;
  }
  return EachFile(runner, arguments);
}
