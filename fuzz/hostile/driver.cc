// The fuzz target of a device: libFuzzer's, AFL++'s and the replay main's entry points, and the commands of the program.
//
// usage: PROGRAM [libFuzzer's options and folders]    fuzzes; the first finding ends it, with its story and a .finding file
//        PROGRAM --replay FILE...      runs inputs and .finding texts, each in a child; exit status 1 if any shows a verdict
//        PROGRAM --explain FILE        minimises one, writes its .finding, tells its story; exit status 1 if it shows a verdict
//        PROGRAM --test FILE           a finding as a GoogleTest, on standard output
//        PROGRAM --random N [SEED]     runs N random inputs of as many requests as Options allows, says how fast that was
//        PROGRAM --twice N [SEED]      runs N random inputs, and again from the last to the first: same records of accesses?
//
// Environment: GUESTMEM_HOSTILE_OUT, the folder for .finding files (default: the current one).

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "report.h"

namespace guestmem::hostile {
namespace detail {
namespace {

constexpr size_t kMaxInput = kMaxRecords * kRecordBytes;

std::string g_program = "PROGRAM";

std::string Command(const std::string& argument) { return g_program + " " + argument; }

std::string FindingPath(Machine& machine) {
  const char* const folder = std::getenv("GUESTMEM_HOSTILE_OUT");
  std::string name = g_program.substr(g_program.find_last_of('/') + 1) + "-" + Name(machine.shared().verdict) + ".finding";
  std::replace(name.begin(), name.end(), ' ', '-');
  return (folder != nullptr ? std::string(folder) + "/" : "") + name;
}

// From the verdict in shared() on. Says all that is to be said.
void Report(Machine& machine) {
  const Inside inside;
  const std::array<char, 256> why = machine.shared().why;
  Minimise(machine);
  const bool crash = machine.shared().verdict == VerdictKind::kCrash;
  const VerdictKind verdict = machine.shared().verdict;
  InChild(machine, !crash, [&] { machine.RunPlan(); });  // once more, for its events; a sanitizer's report comes through
  if (machine.shared().verdict != verdict) {
    machine.shared().verdict = verdict;
    machine.shared().why = why;
  }
  const std::string path = FindingPath(machine);
  std::ofstream(path) << ToText(machine.shared().plan, machine.example_names(), std::string(Name(verdict)) + ": " + machine.shared().why.data());
  std::fprintf(stderr, "\n%s", Story(machine, Command("--explain " + path)).c_str());
}

[[noreturn]] void ReportAndAbort(Machine& machine) {
  Report(machine);
  std::fflush(nullptr);
  g_watch.machine = nullptr;
  std::abort();  // the engine saves the input
}

Machine& TheMachine() {
  static Machine* const machine = [] {
    auto* const made = new Machine(DescribeDevice, NewShared());
    InstallFaultReport();
    made->OnStop([made] { ReportAndAbort(*made); });
    return made;
  }();
  return *machine;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

// An input or a finding's text, in a child. Leaves the verdict.
void RunFile(Machine& machine, const std::string& path, bool quiet) {
  const std::string bytes = ReadFile(path);
  if (bytes.starts_with("guestmem hostile")) {
    const std::string wrong = FromText(bytes, machine.example_names(), machine.size(), machine.shared().plan);
    if (!wrong.empty()) {
      std::fprintf(stderr, "%s: %s\n", path.c_str(), wrong.c_str());
      std::exit(2);
    }
    InChild(machine, quiet, [&] { machine.RunPlan(); });
  } else {
    InChild(machine, quiet, [&] { machine.RunInput({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}); });
  }
}

int ReplayFiles(Machine& machine, const std::vector<std::string>& paths) {
  int status = 0;
  for (const std::string& path : paths) {
    RunFile(machine, path, true);
    std::printf("%s: %s\n", path.c_str(), Name(machine.shared().verdict));
    status |= machine.shared().verdict != VerdictKind::kNone ? 1 : 0;
  }
  return status;
}

int ExplainFile(Machine& machine, const std::string& path) {
  RunFile(machine, path, true);
  if (machine.shared().verdict == VerdictKind::kNone) {
    std::printf("%s: none\n", path.c_str());
    return 0;
  }
  Report(machine);
  return 1;
}

int PrintTest(Machine& machine, const std::string& path) {
  RunFile(machine, path, true);
  std::fputs(TestText(machine).c_str(), stdout);
  return 0;
}

// Inputs that differ by a few records from one to the next, all with as many requests as there may be.
std::vector<uint8_t> RandomInput(Machine& machine, uint64_t seed) {
  Random random(seed);
  std::vector<uint8_t> input(kMaxInput);
  const size_t head = machine.setup().options.requests * kRecordBytes;
  const size_t examples = machine.example_names().size();
  for (size_t i = 0; i < head; i += kRecordBytes) {
    input[i + 2] = static_cast<uint8_t>(random.Below(examples));
  }
  size_t size = 0;
  for (uint64_t rounds = random.Below(8); rounds != 0; --rounds) {
    size = Mutate(input.data() + head, size, kMaxInput - head, static_cast<uint32_t>(random.Next()));
  }
  input.resize(head + size);
  return input;
}

int RunRandom(Machine& machine, uint64_t count, uint64_t seed) {
  constexpr unsigned kNoLimit = 0;
  const auto run = [&](uint64_t i) { machine.RunInput(RandomInput(machine, seed * count + i)); };
  uint64_t& done = machine.shared().progress;
  done = 0;
  const auto all = [&] {
    const auto start = std::chrono::steady_clock::now();
    for (; done < count && machine.shared().verdict == VerdictKind::kNone; ++done) {
      run(done);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%llu inputs, %.0f a second, %.1f accesses each\n", static_cast<unsigned long long>(done),
                static_cast<double>(done) / seconds, static_cast<double>(machine.accesses()) / static_cast<double>(done));
    std::fflush(stdout);
  };
  InChild(machine, false, all, kNoLimit);  // a crash is a finding, too
  if (machine.shared().verdict == VerdictKind::kNone) {
    std::puts("nothing found");
    return 0;
  }
  if (machine.shared().verdict == VerdictKind::kCrash) {
    const uint64_t which = done;
    InChild(machine, true, [&] { run(which); });
  }
  Report(machine);
  return 1;
}

int RunTwice(Machine& machine, uint64_t count, uint64_t seed) {
  std::vector<uint64_t> digests(count);
  int status = 0;
  for (uint64_t i = 0; i < 2 * count; ++i) {
    const uint64_t which = i < count ? i : 2 * count - 1 - i;
    machine.RunInput(RandomInput(machine, seed * count + which));
    if (i < count) {
      digests[which] = machine.Digest();
    } else if (digests[which] != machine.Digest()) {
      std::printf("input %llu gives another record of accesses when it runs again\n", static_cast<unsigned long long>(which));
      status = 1;
    }
  }
  std::printf("%llu inputs, twice%s\n", static_cast<unsigned long long>(count), status == 0 ? ": the same records" : "");
  return status;
}

// Exit status of a command; negative: these are no commands of ours.
int RunCommand(const std::vector<std::string>& words) {
  if (words.empty()) {
    return -1;
  }
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  const auto number = [&](size_t i, uint64_t otherwise) { return i < rest.size() ? std::strtoull(rest[i].c_str(), nullptr, 10) : otherwise; };
  if (words[0] == "--replay") {
    return ReplayFiles(TheMachine(), rest);
  }
  if (words[0] == "--explain" && rest.size() == 1) {
    return ExplainFile(TheMachine(), rest[0]);
  }
  if (words[0] == "--test" && rest.size() == 1) {
    return PrintTest(TheMachine(), rest[0]);
  }
  if (words[0] == "--random" && !rest.empty()) {
    return RunRandom(TheMachine(), number(0, 1), number(1, 1));
  }
  if (words[0] == "--twice" && !rest.empty()) {
    return RunTwice(TheMachine(), number(0, 1), number(1, 1));
  }
  return -1;
}

}  // namespace
}  // namespace detail
}  // namespace guestmem::hostile

namespace detail = guestmem::hostile::detail;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc > 0) {
    detail::g_program = (*argv)[0];
  }
  const int status = detail::RunCommand(*argc > 1 ? std::vector<std::string>(*argv + 1, *argv + *argc) : std::vector<std::string>());
  if (status >= 0) {
    std::fflush(nullptr);
    std::_Exit(status);
  }
  (void)detail::TheMachine();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  detail::Machine& machine = detail::TheMachine();
  machine.RunInput({data, size});
  if (machine.shared().verdict != detail::VerdictKind::kNone) {
    detail::ReportAndAbort(machine);
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return detail::Mutate(data, size, std::min(max_size, detail::kMaxInput), seed);
}
