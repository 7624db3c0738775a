// The trace tool, for traces of every sort: shows, runs, encodes, minimises, counts, searches schedules, writes tests. Built twice, as
// `trace` and as `trace_scheduled`, which `trace` becomes where the traces are concurrent ones.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "fuzz/time_limit.h"
#include "fuzz/trace_files.h"
#include "fuzz/trace_sorts.h"
#include "reference/trace/record.h"

ABSL_FLAG(std::string, o, "", "encode, minimise, test: the file to write, or for several traces a directory; search: where a failing trace goes");
ABSL_FLAG(std::string, sort, "", "lockstep, vmm or schedule: what bytes are whose path does not say it (lockstep); a text's first line says it");
ABSL_FLAG(std::string, target, "", "the fuzz target whose input FILE is, where no folder of its path says so: bytes are decoded as it does");
ABSL_FLAG(uint32_t, limit, fuzz::kDefaultSeconds, "show, run, encode, test, stats: the seconds that one trace may take; 0: no limit");
ABSL_FLAG(double, seconds, 10, "search: how long to try random schedules of random traces; bench: how long to measure each");
ABSL_FLAG(uint64_t, seed, 1, "search, bench: of random traces and schedules");
ABSL_FLAG(uint64_t, preemptions, 2, "search: of each trace's schedules, those with up to so many");

namespace {

using fuzz::Bytes;
using fuzz::Loaded;
using fuzz::Sort;
using reference::trace::Section;
using Path = std::filesystem::path;

constexpr int kRight = 0, kWrong = 1, kBadInput = 2;

constexpr char kHelp[] =
    "trace COMMAND [FILE...] [FLAG...]\n"
    "\n"
    "  show FILE...        print each trace as text\n"
    "  run FILE...         run each; where the engine and its judge differ, print where they first do\n"
    "  encode FILE... -o   write each as a fuzzer input\n"
    "  minimise FILE... -o write the smallest trace found that diverges, crashes or hangs like FILE, as text\n"
    "  test FILE... -o     write each as a C++ test (GoogleTest, public headers; without -o: print it)\n"
    "  stats FILE|DIR...   run each; print by operation how often it came, succeeded, moved bytes, was refused and failed with which\n"
    "                      error, and how long the operations are\n"
    "\n"
    "  search [FILE...]    run every schedule of each concurrent trace, or of the built-in scenarios, with up to --preemptions; then\n"
    "                      random ones for --seconds. Stops at the first that is wrong\n"
    "  bench               print how many schedules of a two-thread, six-op trace run in a second\n"
    "  scenarios -o DIR    write the built-in scenarios as fuzzer inputs\n"
    "\n"
    "FILE is a trace in either spelling: text (see corpus/seeds) or bytes (a fuzzer's input or crash file).\n"
    "Exit status: 0 all right, 1 something is wrong with a trace, 2 an unusable argument or file, 3 the machine has no more memory or files.";

int Complain(std::string_view what) {
  absl::FPrintF(stderr, "trace: %s\n", std::string(what));
  return kBadInput;
}

// Goes on as the program that has the other sorts.
[[noreturn]] void BecomeTheOther(char** argv) {
  const Path own = std::filesystem::read_symlink("/proc/self/exe");
  const std::string other = own.filename() == "trace" ? (own.parent_path() / "trace_scheduled").string() : "";
  if (!other.empty()) execv(other.c_str(), argv);
  std::_Exit(Complain(other.empty() ? absl::StrCat("no sort '", absl::GetFlag(FLAGS_sort), "'; see --help") : absl::StrCat(other, " is not there: build it")));
}

int WriteText(const std::string& out, const std::string& text, int status) {
  return fuzz::Write(out, {text.begin(), text.end()}) ? status : kBadInput;
}

int Run(const Loaded& loaded) {
  const std::string wrong = loaded.sort->run(loaded.trace);
  if (wrong.empty()) {
    absl::PrintF("%s: right\n", loaded.file);
    return kRight;
  }
  absl::PrintF("%s: wrong\n%s\n", loaded.file, wrong);
  return kWrong;
}

int Minimise(const Loaded& loaded, const std::string& out) {
  const std::optional<fuzz::Minimal> minimal = loaded.sort->minimise(loaded.trace);
  if (!minimal) {
    absl::PrintF("%s: right\n", loaded.file);
    return kRight;
  }
  absl::PrintF("%s\n", minimal->report);
  return WriteText(out, loaded.sort->to_text(minimal->trace), kWrong);
}

int Test(const Loaded& loaded, const std::string& out) {
  const std::string source = loaded.sort->test(loaded.trace, loaded.stem());
  if (!out.empty()) return WriteText(out, source, kRight);
  absl::PrintF("%s", source);
  return kRight;
}

// What an operation's length is, by its rows; none: it has none.
std::optional<uint64_t> LengthOf(const Section& section, const void* op) {
  std::optional<uint64_t> length;
  ForFields(section, KindOf(section, op), [&](const reference::trace::Field& field) {
    if (field.key == "length" || (field.key == "size" && !length)) length = field.values[field.number.get(op)];
  });
  return length;
}

// Shares of operations, by kind; the last row: of all.
class Statistics {
 public:
  void Count(const Section& section, const void* op, const fuzz::Ended& ended) {
    for (Row* const row : {&rows_[std::string(KindOf(section, op).name)], &all_}) {
      ++row->count;
      row->ok += ended.error.empty();
      row->moved += ended.moved;
      row->refused += ended.refused;
      row->useful += ended.moved || ended.refused;
      if (!ended.error.empty()) ++row->errors[ended.error];
    }
    if (const std::optional<uint64_t> length = LengthOf(section, op)) {
      ++with_length_;
      ++lengths_[*length == 0 ? 0 : *length <= 8 ? 1 : *length < 4096 ? 2 : *length < (1 << 16) ? 3 : 4];
    }
  }

  void Print(size_t traces) const {
    absl::PrintF("%u operations in %u traces\n%-20s %8s %6s %6s %6s %7s  errors\n", all_.count, traces, "operation", "count", "share", "ok", "moves",
                 "refused");
    for (const auto& [name, row] : rows_) Print(name, row);
    Print("all", all_);
    constexpr const char* kClasses[] = {"0", "1 to 8", "9 to 4095", "4096 to 65535", "more"};
    absl::PrintF("lengths of %u operations:", with_length_);
    for (size_t i = 0; i < std::size(kClasses); ++i) absl::PrintF("%s %s: %s", i == 0 ? "" : ",", kClasses[i], Share(lengths_[i], with_length_));
    absl::PrintF("\nmove bytes or are refused: %s, of length 0: %s\n", Share(all_.useful, all_.count), Share(lengths_[0], with_length_));
  }

 private:
  struct Row {
    uint64_t count = 0, ok = 0, moved = 0, refused = 0, useful = 0;
    std::map<std::string, uint64_t> errors = {};
  };

  static std::string Share(uint64_t some, uint64_t all) {
    return absl::StrFormat("%.1f%%", all == 0 ? 0 : 100 * static_cast<double>(some) / static_cast<double>(all));
  }
  void Print(const std::string& name, const Row& row) const {
    const auto error = [&](std::string* out, const auto& each) { absl::StrAppend(out, each.first, " ", Share(each.second, row.count)); };
    absl::PrintF("%-20s %8u %6s %6s %6s %7s  %s\n", name, row.count, Share(row.count, all_.count), Share(row.ok, row.count),
                 Share(row.moved, row.count), Share(row.refused, row.count), absl::StrJoin(row.errors, ", ", error));
  }

  std::map<std::string, Row> rows_;
  Row all_;
  uint64_t with_length_ = 0, lengths_[5] = {};
};

int Stats(const std::vector<Loaded>& traces) {
  Statistics statistics;
  const fuzz::TimeLimit limit("trace", absl::GetFlag(FLAGS_limit), kWrong);
  for (const Loaded& each : traces) {
    limit.Start(each.file.c_str());
    each.sort->outcomes(each.trace, [&](const void* op, const fuzz::Ended& ended) { statistics.Count(each.sort->rows().ops(), op, ended); });
  }
  statistics.Print(traces.size());
  return kRight;
}

// Of a directory: every file below it.
std::vector<std::string> FilesOf(const char* path) {
  std::vector<std::string> files;
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return {path};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path, error)) {
    if (!entry.is_directory(error)) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

int ForEach(const std::string& command, const std::vector<Loaded>& traces, const std::string& out) {
  const bool several = traces.size() > 1;
  std::error_code error;
  if (several && !out.empty()) std::filesystem::create_directories(out, error);
  const bool into = std::filesystem::is_directory(out, error);
  if (several && !out.empty() && !into) return Complain(absl::StrCat(out, " is not a directory"));
  int worst = kRight;
  const fuzz::TimeLimit limit("trace", command == "minimise" ? 0 : absl::GetFlag(FLAGS_limit), kWrong);  // minimising ends its runs itself
  for (const Loaded& each : traces) {
    limit.Start(each.file.c_str());
    const auto to = [&](const char* ending) { return into ? absl::StrCat(out, "/", each.stem(), ending) : out; };
    if (command == "show") absl::PrintF("%s%s", several ? absl::StrCat("# ", each.file, "\n") : "", each.sort->to_text(each.trace));
    if (command == "run") worst = std::max(worst, Run(each));
    if (command == "encode" && !fuzz::Write(to(""), each.trace)) return kBadInput;
    if (command == "minimise") worst = std::max(worst, Minimise(each, to(".trace")));
    if (command == "test") worst = std::max(worst, Test(each, to("_test.cc")));
  }
  return worst;
}

int Main(int argc, char** argv) {
  const std::vector<char*> given(argv, argv + argc + 1);  // for the other program; parsing moves them about
  absl::SetProgramUsageMessage(kHelp);
  absl::FlagsUsageConfig config;
  config.contains_help_flags = [](absl::string_view file) { return absl::StrContains(file, "trace_tool"); };
  absl::SetFlagsUsageConfig(config);
  const std::vector<char*> words = absl::ParseCommandLine(argc, argv);
  if (words.size() < 2) return Complain("no command; see --help");
  const std::string command = words[1], out = absl::GetFlag(FLAGS_o), sort = absl::GetFlag(FLAGS_sort);
  const bool writes = command == "encode" || command == "minimise";
  const bool each = writes || command == "show" || command == "run" || command == "test" || command == "stats";
  if (each && words.size() < 3) return Complain(absl::StrCat(command, " wants files; see --help"));
  if (writes && out.empty()) return Complain(absl::StrCat(command, " wants -o; see --help"));
  char** const other = const_cast<char**>(given.data());
  const bool known = std::any_of(fuzz::Sorts().begin(), fuzz::Sorts().end(), [&](const Sort& s) { return sort.empty() || sort == s.name; });
  if (!known) BecomeTheOther(other);
  std::vector<Loaded> traces;
  for (size_t i = 2; i < words.size(); ++i) {
    for (const std::string& file : command == "stats" ? FilesOf(words[i]) : std::vector<std::string>{words[i]}) {
      std::optional<Loaded> loaded = fuzz::Load(file, sort, absl::GetFlag(FLAGS_target));
      if (!loaded) return kBadInput;
      if (loaded->sort == nullptr) BecomeTheOther(other);
      traces.push_back(*std::move(loaded));
    }
  }
  if (each && traces.empty()) return Complain("no files in the given directories");
  if (command == "stats") return Stats(traces);
  if (each) return ForEach(command, traces, out);
  if (command != "search" && command != "bench" && command != "scenarios") return Complain(absl::StrCat("no command '", command, "'; see --help"));
  std::vector<std::pair<std::string, Bytes>> named;
  for (const Loaded& trace : traces) named.emplace_back(trace.file, trace.trace);
  const std::optional<int> status =
      fuzz::RunOwnCommand(command, named, {absl::GetFlag(FLAGS_seconds), absl::GetFlag(FLAGS_seed), absl::GetFlag(FLAGS_preemptions), out});
  if (!status) BecomeTheOther(other);
  return *status;
}

}  // namespace

int main(int argc, char** argv) {
  if (fcntl(STDOUT_FILENO, F_GETFD) == -1) return Complain("standard output is closed");  // a file of a trace would take its place
  const int status = Main(argc, argv);
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  return Complain(absl::StrCat("standard output cannot be written: ", std::strerror(errno)));
}
