// Child processes of a test program: the program itself again, in a named mode or with other arguments. For claims
// about crashes and about what is installed once a process.

#ifndef GUESTMEM_LIB_TEST_CHILD_H_
#define GUESTMEM_LIB_TEST_CHILD_H_

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/detail/host_side.h"

namespace guestmem::test {

struct ChildResult {
  int status = -1;     // of waitpid
  std::string output;  // stdout and stderr

  bool Exited(int code) const { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
  bool Killed(int signal) const { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }
  bool Says(const char* text) const { return output.find(text) != std::string::npos; }
};

inline std::ostream& operator<<(std::ostream& out, const ChildResult& child) {
  out << (WIFSIGNALED(child.status) ? "killed by signal " : "exited with ")
      << (WIFSIGNALED(child.status) ? WTERMSIG(child.status) : WEXITSTATUS(child.status));
  return out << "; it printed:\n" << child.output;
}

// Runs `program` with `arguments`, this one's environment plus `variables` ("NAME=value"), and waits for its end.
inline ChildResult Run(const std::string& program, std::vector<std::string> arguments,
                       std::vector<std::string> variables = {}) {
  ChildResult result;
  const int output = memfd_create("child output", MFD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv, environment;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  for (std::string& variable : variables) {
    environment.push_back(variable.data());
  }
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  argv.push_back(nullptr);
  environment.push_back(nullptr);
  pid_t child = -1;
  if (posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environment.data()) == 0) {
    waitpid(child, &result.status, 0);
  }
  posix_spawn_file_actions_destroy(&actions);
  const off_t size = lseek(output, 0, SEEK_END);
  result.output.resize(size > 0 ? static_cast<size_t>(size) : 0);
  const ssize_t got = pread(output, result.output.data(), result.output.size(), 0);
  result.output.resize(got > 0 ? static_cast<size_t>(got) : 0);
  close(output);
  return result;
}

// The same of this program.
inline ChildResult RunSelf(std::vector<std::string> arguments, std::vector<std::string> variables = {}) {
  return Run("/proc/self/exe", std::move(arguments), std::move(variables));
}

// Runs the tests that `filter` names on each kernel path of this CPU that it does not choose by itself (GUESTMEM_KERNELS).
inline void PassesWithOtherKernels(const std::string& filter) {
  const std::pair<const char*, bool> paths[] = {{"sse2", true},
                                                {"avx", __builtin_cpu_supports("avx2") != 0},
                                                {"string", __builtin_cpu_supports("avx512vbmi2") != 0}};
  for (const auto& [kernels, has] : paths) {
    if (!has) {
      GTEST_SKIP() << "this CPU has not what the " << kernels << " kernels need: only those before them were run";
    }
    const ChildResult child = RunSelf({"--gtest_filter=" + filter}, {std::string("GUESTMEM_KERNELS=") + kernels,
                                                                     "GTEST_TOTAL_SHARDS=1", "GTEST_SHARD_INDEX=0"});
    EXPECT_TRUE(child.Exited(0)) << kernels << "\n" << child;
    EXPECT_FALSE(child.Says("[  PASSED  ] 0 tests")) << kernels << "\n" << child;
  }
}

inline ChildResult RunMode(const char* mode) { return RunSelf({"--child", mode}); }

// Whether the child ended as a crash does: of the signal, or, where a sanitizer handles deadly signals, with its
// report.
inline testing::AssertionResult Crashed(const ChildResult& child, int signal) {
#if defined(GUESTMEM_ASAN)
  const bool crashed = !child.Exited(0) && child.Says("ERROR: AddressSanitizer") &&
                       (signal == SIGSEGV ? child.Says("SEGV") : child.Says("BUS"));
#elif defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  const bool crashed = !child.Exited(0) && child.Says("Sanitizer:DEADLYSIGNAL");
#else
  const bool crashed = child.Killed(signal);
#endif
  // It must have come as far as the access, and no further.
  const bool in_place = child.Says("now:") && !child.Says("survived");
  return (crashed && in_place ? testing::AssertionSuccess() : testing::AssertionFailure()) << child;
}

// For the child's own code. Unbuffered, so that a crash loses nothing.
inline void Say(const char* text) { (void)!write(STDOUT_FILENO, text, std::strlen(text)); }

#define CHILD_CHECK(condition)                                                     \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      _exit(9);                                                                    \
    }                                                                              \
  } while (false)

struct ChildMode {
  const char* name;
  void (*run)();
};

// The main of a test program with child modes. A mode that returns exits with 0.
inline int TestMain(int argc, char** argv, const std::vector<ChildMode>& modes) {
  if (argc == 3 && std::strcmp(argv[1], "--child") == 0) {
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(120);  // an access that faults for ever must end too
    for (const ChildMode& mode : modes) {
      if (std::strcmp(argv[2], mode.name) == 0) {
        mode.run();
        return 0;
      }
    }
    std::fprintf(stderr, "no child mode '%s'\n", argv[2]);
    return 8;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_CHILD_H_
