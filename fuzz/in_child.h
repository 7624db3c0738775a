// Runs what may crash or hang in a process of its own. For the tools that minimise.

#ifndef GUESTMEM_FUZZ_IN_CHILD_H_
#define GUESTMEM_FUZZ_IN_CHILD_H_

#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "reference/setup.h"
#include "reference/trace/verdict.h"

namespace fuzz {

struct ChildEnd {
  std::string text;  // its output
  bool hung = false;
  int signal = 0;  // the one that ended it; 0: it exited
  std::string reason() const { return hung ? "no end" : strsignal(signal); }
};

// Writes a child's output to its parent.
class Speaker {
 public:
  explicit Speaker(int fd) : fd_(fd) {}
  void operator()(std::string_view text) const { (void)!write(fd_, text.data(), text.size()); }

 private:
  const int fd_;
};

// A child that uses more than `processor_milliseconds` hangs; if that is 0, one that takes more than kMostSeconds.
template <typename Work>
ChildEnd InChild(Work work, int processor_milliseconds = 0) {
  constexpr unsigned kMostSeconds = 5;
  int ends[2];
  reference::Require(pipe(ends) == 0, "pipe");
  std::fflush(nullptr);
  const pid_t child = fork();
  reference::Require(child >= 0, "fork");
  if (child == 0) {
    const itimerval most = {{0, 0}, {0, processor_milliseconds * 1000}};
    setitimer(ITIMER_PROF, &most, nullptr);
    alarm(kMostSeconds);
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);  // or the engine's fatal message appears a thousand times
    work(Speaker(ends[1]));
    _exit(0);
  }
  close(ends[1]);
  ChildEnd end;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) {
    end.text.append(part, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == reference::kCannotSetUp) {
    reference::CannotSetUp("a run in a process of its own", "the machine has no more memory, mappings or files");
  }
  end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  end.hung = end.signal == SIGPROF || end.signal == SIGALRM;
  return end;
}

// What `judge` says of a trace of `ops` ops, or that it crashes or hangs.
template <typename Judge>
reference::trace::Verdict JudgeInChild(size_t ops, Judge judge) {
  using reference::trace::Divergence;
  constexpr int kMostProcessorMilliseconds = 100;
  const ChildEnd end = InChild(
      [&](const Speaker& say) {
        if (const reference::trace::Verdict verdict = judge()) {
          const auto& [step, field, expected, actual] = *verdict;
          const std::string zero(1, '\0');
          say(std::to_string(step) + zero + field + zero + expected + zero + actual);
        }
      },
      kMostProcessorMilliseconds);
  if (end.signal != 0) {
    return Divergence{ops, end.hung ? "hang" : "crash", "an end", end.reason()};
  }
  if (end.text.empty()) {
    return std::nullopt;
  }
  std::istringstream parts(end.text);
  std::string step, field, expected, actual;
  std::getline(parts, step, '\0');
  std::getline(parts, field, '\0');
  std::getline(parts, expected, '\0');
  std::getline(parts, actual, '\0');
  return Divergence{std::stoul(step), field, expected, actual};
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_IN_CHILD_H_
