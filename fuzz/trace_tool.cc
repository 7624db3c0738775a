// The trace tool: shows traces as text, runs them against the engine and the model, turns texts into fuzzer inputs.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/in_child.h"
#include "fuzz/trace_files.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/minimise.h"
#include "reference/lockstep/trace.h"
#include "reference/lockstep/trace_gtest.h"

namespace {

constexpr int kAgree = 0, kDiverge = 1, kBadInput = 2;

constexpr char kHelp[] =
    "usage: trace COMMAND FILE... [-o OUT]\n"
    "\n"
    "  show      print each trace as text (decode is the same)\n"
    "  run       run each trace on the engine and on the model, and say where they first differ\n"
    "  encode    write each trace as a fuzzer input to OUT: a file, or for several traces a directory\n"
    "  minimise  write the smallest trace found that diverges, crashes or hangs like FILE to OUT, as text\n"
    "  test      write each trace as a C++ test (GoogleTest, the engine's public headers) to OUT or to standard output\n"
    "\n"
    "FILE is a trace in either spelling: text (see corpus/seeds) or bytes (a fuzzer's input or crash file).\n"
    "Exit status: 0 all agree, 1 a divergence, 2 an unusable argument or file.\n";

int Complain(const std::string& file, const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", file.c_str(), what.c_str());
  return kBadInput;
}

int Show(const std::string& file, const reference::Trace& trace, bool several) {
  if (several) std::printf("# %s\n", file.c_str());
  std::printf("%s", reference::ToText(trace).c_str());
  return kAgree;
}

int Run(const std::string& file, const reference::Trace& trace) {
  const std::unique_ptr<reference::Subject> subject = reference::MakeEngineSubject();
  const reference::Verdict verdict = reference::Lockstep(*subject).Run(trace);
  if (!verdict) {
    std::printf("%s: agree (%zu ops)\n", file.c_str(), trace.ops.size());
    return kAgree;
  }
  std::printf("%s: diverge\n%s", file.c_str(), reference::Report(trace, *verdict).c_str());
  return kDiverge;
}

int Write(const std::string& file, std::string_view content, const std::filesystem::path& out) {
  std::ofstream stream(out, std::ios::binary);
  stream.write(content.data(), static_cast<std::streamsize>(content.size()));
  stream.close();
  return stream ? kAgree : Complain(file, "cannot write " + out.string());
}

int Encode(const std::string& file, const reference::Trace& trace, const std::filesystem::path& out) {
  const std::vector<uint8_t> bytes = reference::ToBytes(trace);
  // Safe because any object may be read as char.
  return Write(file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, out);
}

// What a trace does, seen from outside: it may crash or hang.
reference::Verdict RunInChild(const reference::Trace& trace) {
  return fuzz::JudgeInChild<reference::Divergence>(trace.ops.size(), [&] {
    const std::unique_ptr<reference::Subject> subject = reference::MakeEngineSubject();
    return reference::Lockstep(*subject).Run(trace);
  });
}

int Minimise(const std::string& file, const reference::Trace& trace, const std::filesystem::path& out) {
  constexpr uint64_t kMostRuns = 4000;
  const reference::Verdict verdict = RunInChild(trace);
  if (!verdict) {
    std::printf("%s: agree (%zu ops)\n", file.c_str(), trace.ops.size());
    return kAgree;
  }
  const reference::Minimised minimal = reference::Minimise(RunInChild, trace, *verdict, verdict->field == "hang" ? kMostRuns / 20 : kMostRuns);
  if (verdict->field == "hang" || verdict->field == "crash") {
    std::printf("%s\nthe process: %s\n", reference::ToText(minimal.trace).c_str(), minimal.divergence.actual.c_str());
  } else {
    std::printf("%s", reference::Report(minimal.trace, minimal.divergence).c_str());
  }
  const int written = Write(file, reference::ToText(minimal.trace), out);
  return written == kAgree ? kDiverge : written;
}

int Test(const std::string& file, const reference::Trace& trace, const std::filesystem::path& out) {
  const reference::TestSource source = reference::ToTestSource(trace, std::filesystem::path(file).stem().string());
  if (!source.problem.empty()) std::fprintf(stderr, "%s: %s\n", file.c_str(), source.problem.c_str());
  if (!out.empty()) return Write(file, source.text, out);
  std::fputs(source.text.c_str(), stdout);
  return kAgree;
}

struct Arguments {
  std::string command;
  std::vector<std::string> files;
  std::filesystem::path out;
};

std::optional<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  if (argc < 3) return std::nullopt;
  arguments.command = argv[1];
  for (int i = 2; i < argc; ++i) {
    if (std::string_view(argv[i]) != "-o") {
      arguments.files.emplace_back(argv[i]);
    } else if (++i < argc) {
      arguments.out = argv[i];
    }
  }
  const std::string& command = arguments.command;
  const bool test = command == "test", writes = command == "encode" || command == "minimise";
  if (!writes && !test && command != "show" && command != "decode" && command != "run") return std::nullopt;
  if (arguments.files.empty() || (!test && writes == arguments.out.empty())) return std::nullopt;
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--help" && std::string_view(argv[i]) != "-h") continue;
    std::fputs(kHelp, stdout);
    return kAgree;
  }
  const std::optional<Arguments> arguments = ParseArguments(argc, argv);
  if (!arguments) {
    std::fputs(kHelp, stderr);
    return kBadInput;
  }
  const bool several = arguments->files.size() > 1;
  std::error_code error;
  if (several && !arguments->out.empty()) std::filesystem::create_directories(arguments->out, error);
  const bool into_directory = std::filesystem::is_directory(arguments->out, error);
  if (several && !arguments->out.empty() && !into_directory) return Complain(arguments->out, "not a directory");
  int worst = kAgree;
  for (const std::string& file : arguments->files) {
    const std::optional<reference::Trace> trace = fuzz::Load(file, reference::FromBytes, reference::FromText);
    int status = kBadInput;
    if (trace && arguments->command == "run") {
      status = Run(file, *trace);
    } else if (trace && arguments->command == "encode") {
      status = Encode(file, *trace, into_directory ? arguments->out / std::filesystem::path(file).stem() : arguments->out);
    } else if (trace && arguments->command == "minimise") {
      status = Minimise(file, *trace, into_directory ? arguments->out / (std::filesystem::path(file).stem().string() + ".trace") : arguments->out);
    } else if (trace && arguments->command == "test") {
      const std::string name = std::filesystem::path(file).stem().string() + "_test.cc";
      status = Test(file, *trace, into_directory ? arguments->out / name : arguments->out);
    } else if (trace) {
      status = Show(file, *trace, several);
    }
    worst = std::max(worst, status);
  }
  return worst;
}
