// A plain main for fuzz targets: runs each given input once, so that targets build and replay with any compiler.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "fuzz/time_limit.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);
// Defined by a sanitizer's runtime, where one is linked.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

constexpr char kUsage[] =
    "usage: %s [--repeat N] [--seconds N] [--verbose] FILE|DIRECTORY...\n"
    "Runs the fuzz target on each file (directories: every file below them, in name order).\n"
    "  --repeat N   run all of it N times (default 1)\n"
    "  --seconds N  the real time that one input may take (default 60; 0: any): one that takes more hangs, and is named\n"
    "  --verbose    print each file's name before it runs\n"
    "Exit status: 0 all ran; 1 an input hangs; 2 bad arguments, a file that cannot be read, nothing to run, or nowhere to say so; 3 the\n"
    "machine has no more memory or files for the harness. A failing input ends the process as the target does.\n";

struct Input {
  std::string path;
  std::vector<uint8_t> bytes;
};

const char* volatile current_path = nullptr;

// Signal-safe: says which input was running when the process died.
void SayCurrentPath() {
  if (current_path == nullptr) return;
  constexpr char kPrefix[] = "replay: the input was ";
  (void)!write(STDERR_FILENO, kPrefix, sizeof kPrefix - 1);
  (void)!write(STDERR_FILENO, current_path, strlen(current_path));
  (void)!write(STDERR_FILENO, "\n", 1);
}

// Returns with the default action restored: a fault then happens again and ends the process where it happened.
void OnFatalSignal(int number) {
  SayCurrentPath();
  signal(number, SIG_DFL);
}

// Installed before the target's own handler, which therefore chains to this one.
void WatchForDeath() {
  struct sigaction action = {};
  action.sa_handler = OnFatalSignal;
  sigaction(SIGABRT, &action, nullptr);
  if (&__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(SayCurrentPath);  // the sanitizer reports faults
    return;
  }
  for (int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigaction(number, &action, nullptr);
}

bool ReadFile(const std::string& path, std::vector<Input>& inputs) {
  FILE* const file = fopen(path.c_str(), "rb");
  std::vector<uint8_t> bytes;
  uint8_t part[4096];
  for (size_t n = 1; file != nullptr && n != 0;) {
    n = fread(part, 1, sizeof part, file);
    bytes.insert(bytes.end(), part, part + n);
  }
  const bool good = file != nullptr && ferror(file) == 0;
  if (!good) fprintf(stderr, "replay: cannot read %s: %s\n", path.c_str(), strerror(errno));
  if (file != nullptr) fclose(file);
  if (good) inputs.push_back({path, std::move(bytes)});
  return good;
}

bool Collect(const std::string& argument, std::vector<Input>& inputs) {
  std::error_code error;
  if (!std::filesystem::is_directory(argument, error)) return ReadFile(argument, inputs);
  std::vector<std::string> paths;
  std::filesystem::recursive_directory_iterator entry(argument, error), end;
  for (; !error && entry != end; entry.increment(error)) {
    if (!entry->is_directory(error)) paths.push_back(entry->path().string());  // one that is no file is refused when it is read
    if (error) break;
  }
  if (error) {
    fprintf(stderr, "replay: cannot list %s: %s\n", argument.c_str(), error.message().c_str());
    return false;
  }
  std::sort(paths.begin(), paths.end());
  return std::all_of(paths.begin(), paths.end(), [&](const std::string& path) { return ReadFile(path, inputs); });
}

}  // namespace

int main(int argc, char** argv) {
  if (fcntl(STDOUT_FILENO, F_GETFD) == -1) {  // or a file of the target takes its place
    fprintf(stderr, "replay: standard output is closed\n");
    return 2;
  }
  constexpr uint64_t kMostSeconds = 1'000'000;
  uint64_t repeat = 1, seconds_each = fuzz::kDefaultSeconds;
  bool verbose = false;
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--help") {
      printf(kUsage, argv[0]);
      return 0;
    } else if (word == "--verbose") {
      verbose = true;
    } else if (word == "--repeat" || word == "--seconds") {
      const std::string_view number = i + 1 < argc ? argv[++i] : "";
      uint64_t& value = word == "--repeat" ? repeat : seconds_each;
      const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), value);
      if (error != std::errc() || rest != number.data() + number.size() || repeat == 0 || seconds_each > kMostSeconds) {
        fprintf(stderr, "replay: %s wants a number%s, not '%s'\n", std::string(word).c_str(), word == "--repeat" ? " from 1 on" : "", std::string(number).c_str());
        return 2;
      }
    } else if (word.starts_with("-")) {
      fprintf(stderr, "replay: unknown option %s\n", argv[i]);
      fprintf(stderr, kUsage, argv[0]);
      return 2;
    } else {
      arguments.emplace_back(word);
    }
  }
  if (arguments.empty()) {
    fprintf(stderr, kUsage, argv[0]);
    return 2;
  }

  std::vector<Input> inputs;
  for (const std::string& argument : arguments) {
    if (!Collect(argument, inputs)) return 2;
  }
  if (inputs.empty()) {
    fprintf(stderr, "replay: no files in the given directories\n");
    return 2;
  }

  WatchForDeath();
  if (&LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
  const fuzz::TimeLimit limit("replay", static_cast<unsigned>(seconds_each), 1);
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t round = 0; round < repeat; ++round) {
    for (const Input& input : inputs) {
      current_path = input.path.c_str();
      if (verbose) fprintf(stderr, "%s\n", current_path);
      limit.Start(current_path);
      LLVMFuzzerTestOneInput(input.bytes.data(), input.bytes.size());
    }
  }
  limit.Stop();
  current_path = nullptr;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double runs = static_cast<double>(inputs.size()) * static_cast<double>(repeat);
  printf("%zu inputs, %.0f runs, %.2f s, %.0f runs/s\n", inputs.size(), runs, seconds, seconds > 0 ? runs / seconds : 0);
  if (fflush(stdout) == 0 && ferror(stdout) == 0) return 0;
  fprintf(stderr, "replay: standard output cannot be written: %s\n", strerror(errno));
  return 2;
}
