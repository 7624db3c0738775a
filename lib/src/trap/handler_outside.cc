// Installing the fault handler, and what a thread must be like for it to work. Ordinary context.

#include <errno.h>
#include <signal.h>
#include <sys/auxv.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <new>
#include <string_view>
#include <utility>

#include "guestmem/fault.h"
#include "trap/trap_inside.h"
#include "trap/trap_outside.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

Status Error(ErrorKind kind, std::string_view message) {
  const detail::DebugName name("fault handler");
  return detail::MakeError(&name, kind, Operation::kCreate, message);
}

bool IsOurs(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 &&
         (action.sa_sigaction == trap::kHandlers[0] || action.sa_sigaction == trap::kHandlers[1]);
}
bool OursIsInForce(int signal) {
  struct sigaction action = {};
  return sigaction(signal, nullptr, &action) == 0 && IsOurs(action);
}

bool SameHandler(const struct sigaction& a, const struct sigaction& b) {
  // Safe because both are pointers in one union, of which the kernel knows no more than the address.
  return reinterpret_cast<void*>(a.sa_sigaction) == reinterpret_cast<void*>(b.sa_sigaction);
}
bool SameAction(const struct sigaction& a, const struct sigaction& b) {
  bool same = SameHandler(a, b) && a.sa_flags == b.sa_flags;
  for (int signal = 1; signal < NSIG; ++signal) {  // what lies behind the last is left to chance
    same = same && sigismember(&a.sa_mask, signal) == sigismember(&b.sa_mask, signal);
  }
  return same;
}

// Remembers what is in force as the one to ask first. A handler that was found before moves to the front; one that comes back with
// other flags takes the place of what it was. False: no memory.
bool Remember(trap::Handling& handling, const struct sigaction& action) {
  uint64_t rank = 0;
  trap::PreviousAction* same = nullptr;
  trap::PreviousAction* const first = handling.previous.load(std::memory_order_relaxed);
  for (trap::PreviousAction* each = first; each != nullptr; each = each->next) {
    rank = std::max(rank, each->rank.load(std::memory_order_relaxed));
    if (SameAction(each->action, action)) {
      same = each;
    }
  }
  if (same == nullptr) {
    same = new (std::nothrow) trap::PreviousAction{action, first, 0};
    if (same == nullptr) {
      return false;
    }
    handling.previous.store(same, std::memory_order_release);
  }
  for (trap::PreviousAction* each = first; each != nullptr; each = each->next) {
    if (each != same && SameHandler(each->action, action)) {
      each->rank.store(0, std::memory_order_relaxed);
    }
  }
  same->used.store(false, std::memory_order_relaxed);
  same->rank.store(rank + 1, std::memory_order_relaxed);
  return true;
}

Status Install(int signal) {
  trap::Handling& handling = trap::HandlingOf(signal);
  struct sigaction found = {};
  if (sigaction(signal, nullptr, &found) != 0) {
    return Error(ErrorKind::kResourceExhausted, detail::Text("sigaction: %s", std::strerror(errno)));
  }
  if (IsOurs(found)) {
    return {};
  }
  // Remember what was there first: a fault on another thread may come as soon as ours is in force.
  if (!Remember(handling, found)) {
    return Error(ErrorKind::kResourceExhausted, "no memory to remember the handler that was installed before");
  }
  const int entry = 1 - handling.entry.load(std::memory_order_relaxed);
  handling.entry.store(entry, std::memory_order_relaxed);
  struct sigaction ours = {};
  ours.sa_sigaction = trap::kHandlers[entry];
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  ours.sa_flags |= found.sa_flags & SA_RESTART;  // what interrupts a system call is as it was
  sigemptyset(&ours.sa_mask);
  if (sigaction(signal, &ours, nullptr) != 0) {
    return Error(ErrorKind::kResourceExhausted, detail::Text("sigaction: %s", std::strerror(errno)));
  }
  if (!OursIsInForce(signal)) {
    return Error(ErrorKind::kInvalidArgument,
                 "the handler was not accepted; under a sanitizer, run with handle_segv=1:handle_sigbus=1");
  }
  return {};
}

constinit std::mutex g_mutex;
constinit std::atomic<bool> g_installed{false};

}  // namespace

Status InstallFaultHandler() {
  const std::lock_guard lock(g_mutex);
  if (!trap::StayLoaded(reinterpret_cast<const void*>(trap::kHandlers[0]))) {
    return Error(ErrorKind::kResourceExhausted, "the object that the handler is in cannot be kept loaded");
  }
  for (const int signal : {SIGSEGV, SIGBUS}) {
    if (Status status = Install(signal); !status.ok()) {
      return status;
    }
  }
  g_installed.store(true, std::memory_order_release);
  return {};
}

namespace trap {

Status InstallFaultHandlerOnce() { return g_installed.load(std::memory_order_acquire) ? Status() : InstallFaultHandler(); }

}  // namespace trap

bool FaultHandlerIsInstalled() { return OursIsInForce(SIGSEGV) && OursIsInForce(SIGBUS); }

Status PrepareThread() {
  sigset_t faults;
  sigemptyset(&faults);
  sigaddset(&faults, SIGSEGV);
  sigaddset(&faults, SIGBUS);
  if (const int error = pthread_sigmask(SIG_UNBLOCK, &faults, nullptr); error != 0) {
    return Error(ErrorKind::kResourceExhausted, detail::Text("pthread_sigmask: %s", std::strerror(error)));
  }
  stack_t alternate = {};
  if (sigaltstack(nullptr, &alternate) != 0) {
    return Error(ErrorKind::kResourceExhausted, detail::Text("sigaltstack: %s", std::strerror(errno)));
  }
  // Kernels before 5.14 do not tell; their headers' constant was right for the processors of their day.
  const uint64_t frame = std::max<uint64_t>(getauxval(AT_MINSIGSTKSZ), 2048);
  if ((alternate.ss_flags & SS_DISABLE) == 0 && alternate.ss_size < frame + kFaultHandlerStackBytes) {
    return Error(ErrorKind::kInvalidArgument, "the thread's alternate signal stack has " + std::to_string(alternate.ss_size) +
                                                  " bytes; the kernel needs " + std::to_string(frame) +
                                                  " for a signal, and the fault handler " +
                                                  std::to_string(kFaultHandlerStackBytes));
  }
  return {};
}

}  // namespace guestmem
