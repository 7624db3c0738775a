// Passing a signal on to whoever handled it before, as the kernel would have called them.

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

#include "trap/trap_inside.h"

namespace guestmem::trap {

Handling g_handling[2];

namespace {

// Whom this thread is asking just now, about the signal of which context; `frame` is where. Left behind by a handler that
// jumped away: then what comes next stands at `frame` or above, while who calls back stands below.
struct Passing {
  const void* context;
  const char* frame;
  uint64_t rank;
};
constinit thread_local Passing t_passing __attribute__((tls_model("initial-exec"))) = {};

// Sent, or about memory that went bad elsewhere: returning from its handler does not meet it again.
GUESTMEM_IN_SIGNAL_CONTEXT bool WasSent(int signal, int code) {
  return code <= 0 || (signal == SIGBUS && code == BUS_MCEERR_AO);
}

// Puts the default action back. A fault happens again on return, where it happened; a sent signal must be raised again.
GUESTMEM_IN_SIGNAL_CONTEXT void PassOnToDefault(int signal, const siginfo_t* info) {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  if (WasSent(signal, info->si_code)) {
    raise(signal);
  }
}

// The one found last among those found before `below`.
GUESTMEM_IN_SIGNAL_CONTEXT PreviousAction* FoundBefore(uint64_t below, const Handling& handling) {
  PreviousAction* found = nullptr;
  uint64_t best = 0;
  for (PreviousAction* each = handling.previous.load(std::memory_order_acquire); each != nullptr; each = each->next) {
    const uint64_t rank = each->rank.load(std::memory_order_relaxed);
    if (rank < below && rank > best) {
      found = each;
      best = rank;
    }
  }
  return found;
}

}  // namespace

GUESTMEM_IN_SIGNAL_CONTEXT void PassOn(int signal, siginfo_t* info, ucontext_t* context, int entry, const char* frame) {
  const Handling& handling = HandlingOf(signal);
  uint64_t below = UINT64_MAX;
  if (t_passing.context == context && frame < t_passing.frame) {
    below = t_passing.rank;  // who we asked calls what it had found: us
  } else if (entry != handling.entry.load(std::memory_order_relaxed)) {
    const PreviousAction* const newest = FoundBefore(below, handling);  // it has put back what it had found
    below = newest == nullptr ? 0 : newest->rank.load(std::memory_order_relaxed);
  }
  PreviousAction* const found = FoundBefore(below, handling);
  if (found == nullptr) {
    PassOnToDefault(signal, info);
    return;
  }
  const struct sigaction& previous = found->action;
  const bool has_info = (previous.sa_flags & SA_SIGINFO) != 0;
  if (!has_info && previous.sa_handler == SIG_IGN && WasSent(signal, info->si_code)) {
    return;
  }
  const bool one_shot = (previous.sa_flags & static_cast<int>(SA_RESETHAND)) != 0;
  if ((!has_info && (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)) ||
      (one_shot && found->used.exchange(true, std::memory_order_relaxed))) {
    // The kernel does not let a fault be ignored either.
    PassOnToDefault(signal, info);
    return;
  }
  if ((previous.sa_flags & SA_ONSTACK) == 0) {
    const Entering entering = EnterOnInterruptedStack(previous, signal, info, context, frame);
    if (entering == Entering::kNoRoom) {
      PassOnToDefault(signal, info);  // as the kernel does then
    }
    if (entering != Entering::kNotNeeded) {
      return;
    }
  }
  // What the kernel would have done for the previous handler: its mask, its own signal blocked.
  sigset_t mask = previous.sa_mask;
  if ((previous.sa_flags & SA_NODEFER) == 0) {
    sigaddset(&mask, signal);
  }
  sigset_t restore;
  pthread_sigmask(SIG_BLOCK, &mask, &restore);
  const Passing outer = t_passing;
  t_passing = {context, frame, found->rank.load(std::memory_order_relaxed)};
  if (has_info) {
    previous.sa_sigaction(signal, info, context);
  } else {
    previous.sa_handler(signal);
  }
  t_passing = outer;
  pthread_sigmask(SIG_SETMASK, &restore, nullptr);
}

}  // namespace guestmem::trap
