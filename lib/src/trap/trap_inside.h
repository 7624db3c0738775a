// The fault handler: everything in trap_inside.cc runs in signal context, on whatever stack the fault found. It takes no
// lock, allocates nothing, and calls nothing but what signal-safety(7) allows.

#ifndef GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_
#define GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_

#include <signal.h>

#include <atomic>

// Sanitizer instrumentation has no business in signal context (it may not be set up on this thread yet, or may recurse).
#if defined(__clang__)
#define GUESTMEM_IN_SIGNAL_CONTEXT __attribute__((disable_sanitizer_instrumentation, no_sanitize("coverage")))
#else
#define GUESTMEM_IN_SIGNAL_CONTEXT __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif

namespace guestmem::trap {

// What was there before the handler was installed.
struct PreviousAction {
  struct sigaction action;          // what sigaction returned; written before installing, immutable afterwards
  std::atomic<bool> used{false};    // a one-shot handler (SA_RESETHAND) had its shot
};
extern PreviousAction g_previous_segv;
extern PreviousAction g_previous_bus;

// The installed handler: recovers our own faults and passes on all others.
void HandleSignal(int signal, siginfo_t* info, void* ucontext);

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_
