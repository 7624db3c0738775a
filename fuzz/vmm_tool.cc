// The vmm tool: shows, runs, encodes and minimises traces of the VMM interfaces, and writes them as tests.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/in_child.h"
#include "fuzz/trace_files.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"
#include "reference/vmm/minimise.h"
#include "reference/vmm/vmm_gtest.h"

namespace {

using namespace reference::vmm;

constexpr int kRight = 0, kWrong = 1, kBadInput = 2;

constexpr char kHelp[] =
    "usage: vmm show|run FILE...\n"
    "       vmm encode|test FILE... -o DIRECTORY\n"
    "       vmm minimise|test FILE -o OUT\n"
    "\n"
    "  show      print each trace as text\n"
    "  run       run each on the in-process guest and on its model; print those where they differ\n"
    "  encode    write each as a fuzzer input of the same name to DIRECTORY\n"
    "  minimise  write the smallest trace found that diverges, crashes or hangs like FILE to OUT, as text\n"
    "  test      write each as a C++ test (GoogleTest, the public headers) to OUT, or to DIRECTORY as NAME_test.cc\n"
    "\n"
    "FILE is a trace in either spelling: text (first line 'guestmem vmm 1') or bytes (an input of vmm_fuzzer).\n"
    "Exit status: 0 all right, 1 they differ, 2 an unusable argument or file.\n";

using Path = std::filesystem::path;

int WriteText(const Path& out, const std::string& text, int status) {
  return fuzz::Write(out.string(), {text.begin(), text.end()}) ? status : kBadInput;
}

int Run(const Path& file, const Trace& trace) {
  const std::unique_ptr<Machine> guest = MakeGuest();
  const Verdict verdict = Lockstep(*guest).Run(trace);
  if (verdict) {
    std::printf("# %s\n%s\n", file.c_str(), Report(trace, *verdict).c_str());
  }
  return verdict ? kWrong : kRight;
}

// What a trace does, seen from outside: it may crash or hang.
Verdict RunInChild(const Trace& trace) {
  return fuzz::JudgeInChild<Divergence>(trace.ops.size(), [&] {
    const std::unique_ptr<Machine> guest = MakeGuest();
    return Lockstep(*guest).Run(trace);
  });
}

int MinimiseTo(const Path& out, const Path& file, const Trace& trace) {
  const Verdict verdict = RunInChild(trace);
  if (!verdict) {
    std::printf("%s: nothing wrong\n", file.c_str());
    return kRight;
  }
  const Minimised minimal = Minimise(RunInChild, trace, *verdict);
  std::printf("%s", Report(minimal.trace, minimal.divergence).c_str());
  return WriteText(out, ToText(minimal.trace), kWrong);
}

int TestTo(const Path& out, const Path& file, const Trace& trace) {
  const fuzz::ChildEnd end = fuzz::InChild([&](const fuzz::Speaker& say) {
    const std::unique_ptr<Machine> guest = MakeGuest();
    WatchHostCalls(*guest, trace, [&](bool failed) { say(failed ? "1" : "0"); });
  });
  std::vector<bool> host_call_failed;
  for (const char failed : end.text) {
    host_call_failed.push_back(failed == '1');
  }
  return WriteText(out, ToTestSource(trace, host_call_failed, file.stem().string()), kRight);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> files(argv + 1, argv + argc);
  if (!files.empty() && files[0] == "--help") {
    std::printf("%s", kHelp);
    return kRight;
  }
  const std::string command = files.empty() ? "" : files[0];
  files.erase(files.begin(), files.begin() + (files.empty() ? 0 : 1));
  Path out;
  if (files.size() >= 2 && files[files.size() - 2] == "-o") {
    out = files.back();
    files.resize(files.size() - 2);
  }
  const bool writes = command == "encode" || command == "minimise" || command == "test";
  std::error_code error;
  const bool into_directory = std::filesystem::is_directory(out, error);
  const bool one_out = into_directory ? command != "minimise" : command != "encode" && files.size() == 1;
  if (files.empty() || (!writes && command != "show" && command != "run") ||
      (writes ? out.empty() || !one_out : !out.empty())) {
    std::fprintf(stderr, "%s", kHelp);
    return kBadInput;
  }
  int status = kRight;
  for (const Path file : files) {
    const auto trace = fuzz::Load(file.string(), FromBytes, FromText);
    if (!trace) {
      return kBadInput;
    }
    int done = kRight;
    if (command == "show") {
      std::printf("%s", ToText(*trace).c_str());
    } else if (command == "run") {
      done = Run(file, *trace);
    } else if (command == "minimise") {
      done = MinimiseTo(out, file, *trace);
    } else if (command == "test") {
      done = TestTo(into_directory ? out / (file.stem().string() + "_test.cc") : out, file, *trace);
    } else if (!fuzz::Write(out / file.filename(), ToBytes(*trace))) {
      done = kBadInput;
    }
    status = std::max(status, done);
  }
  return status;
}
