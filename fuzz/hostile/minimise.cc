#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>

#include "report.h"

namespace guestmem::hostile::detail {
namespace {

constexpr std::chrono::seconds kPatience(5);

// Sorted by what they take away: whole requests first.
class Minimiser {
 public:
  explicit Minimiser(Machine& machine) : machine_(machine), verdict_(machine.shared().verdict), best_(std::make_unique<Plan>()) {
    Copy(machine.shared().plan, *best_);
  }

  void Run() {
    if (Shows()) {  // by address: what an input did is in the plan, or it cannot be made smaller
      for (bool smaller = true; smaller && !Late();) {
        smaller = DropRequests();
        smaller |= DropWrites();
        smaller |= DropAnswers();
      }
      SimplifyChange();
    }
    Copy(*best_, machine_.shared().plan);
    machine_.shared().verdict = verdict_;
  }

 private:
  bool Late() const { return std::chrono::steady_clock::now() - start_ > kPatience; }

  // Whether the plan that stands in shared() shows the verdict; then it is the best one.
  bool Shows() {
    Shared& shared = machine_.shared();
    const auto plan = std::make_unique<Plan>();
    Copy(shared.plan, *plan);
    InChild(machine_, true, [this] { machine_.RunPlan(); });
    if (shared.verdict != verdict_) {
      return false;
    }
    Copy(*plan, *best_);
    return true;
  }

  template <typename Edit>
  bool Try(Edit edit) {
    if (Late()) {
      return false;
    }
    Copy(*best_, machine_.shared().plan);
    edit(machine_.shared().plan);
    return Shows();
  }

  bool DropRequests() {
    bool any = false;
    for (uint32_t r = best_->requests; r-- > 0 && best_->requests > 1;) {
      if (best_->change.present && best_->change.write.request == r) {
        continue;
      }
      any |= Try([r](Plan& plan) {
        std::copy(plan.examples.begin() + r + 1, plan.examples.end(), plan.examples.begin() + r);
        --plan.requests;
        const auto gone = [r](auto& x) { return x.request == r; };
        const auto later = [r](auto& x) { x.request -= x.request > r ? 1 : 0; };
        auto* const writes_end = std::remove_if(plan.writes.begin(), plan.writes.begin() + plan.write_count, gone);
        plan.write_count = static_cast<uint32_t>(writes_end - plan.writes.begin());
        auto* const answers_end = std::remove_if(plan.answers.begin(), plan.answers.begin() + plan.answer_count, gone);
        plan.answer_count = static_cast<uint32_t>(answers_end - plan.answers.begin());
        std::for_each(plan.writes.begin(), writes_end, later);
        std::for_each(plan.answers.begin(), answers_end, later);
        later(plan.change.write);
      });
    }
    return any;
  }

  bool DropWrites() {
    bool any = false;
    for (uint32_t size = std::max(best_->write_count / 2, 1U); size != 0; size /= 2) {
      for (uint32_t at = 0; at < best_->write_count && !Late();) {
        const bool dropped = Try([at, size](Plan& plan) {
          const uint32_t end = std::min(at + size, plan.write_count);
          std::copy(plan.writes.begin() + end, plan.writes.begin() + plan.write_count, plan.writes.begin() + at);
          plan.write_count -= end - at;
        });
        any |= dropped;
        at += dropped ? 0 : size;
      }
    }
    return any;
  }

  bool DropAnswers() {
    bool any = false;
    for (uint32_t at = best_->answer_count; at-- > 0;) {
      any |= Try([at](Plan& plan) {
        std::copy(plan.answers.begin() + at + 1, plan.answers.begin() + plan.answer_count, plan.answers.begin() + at);
        --plan.answer_count;
      });
    }
    return any;
  }

  void SimplifyChange() {
    if (best_->change.present) {
      (void)Try([](Plan& plan) { plan.change.present = false; });  // a crash of the first run needs none
    }
  }

  Machine& machine_;
  const VerdictKind verdict_;
  const std::unique_ptr<Plan> best_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

Shared& NewShared() {
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("guestmem/hostile: mmap");
    std::abort();
  }
  return *new (memory) Shared;
}

void InChild(Machine& machine, bool quiet, const std::function<void()>& work, unsigned seconds) {
  Shared& shared = machine.shared();
  shared.verdict = VerdictKind::kNone;
  shared.judging = true;
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    std::perror("guestmem/hostile: fork");
    std::abort();
  }
  if (child == 0) {
    if (quiet) {
      const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
      dup2(null, STDOUT_FILENO);
      dup2(null, STDERR_FILENO);
    }
    g_watch.device_runs = false;  // the parent may have stopped in the middle of a run
    for (const int signal : {SIGABRT, SIGALRM}) {
      ::signal(signal, SIG_DFL);
    }
    alarm(seconds);
    const auto end = [&shared] {
      shared.judging = false;
      _exit(0);
    };
    machine.OnStop(end);
    work();
    end();
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (shared.judging && shared.verdict == VerdictKind::kNone) {
    const bool hang = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    shared.verdict = hang ? VerdictKind::kHang : VerdictKind::kCrash;
    const int code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    std::snprintf(shared.why.data(), shared.why.size(), hang ? "no end within %u seconds" : WIFSIGNALED(status) ? "signal %u" : "exit status %u",
                  hang ? seconds : static_cast<unsigned>(code));
  }
}

void Minimise(Machine& machine) { Minimiser(machine).Run(); }

}  // namespace guestmem::hostile::detail
