// The fault handler: everything in trap_inside.cc runs in signal context, on whatever stack the fault found. It takes no
// lock, allocates nothing, and calls nothing but what signal-safety(7) allows.

#ifndef GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_
#define GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_

#include <signal.h>

// Sanitizer instrumentation has no business in signal context (it may not be set up on this thread yet, or may recurse).
#if defined(__clang__)
#define GUESTMEM_IN_SIGNAL_CONTEXT __attribute__((disable_sanitizer_instrumentation, no_sanitize("coverage")))
#else
#define GUESTMEM_IN_SIGNAL_CONTEXT __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif

namespace guestmem::trap {

// What sigaction returned when the handler was installed. Written before installing, immutable afterwards.
extern struct sigaction g_previous_segv;
extern struct sigaction g_previous_bus;

// The installed handler: recovers our own faults and passes on all others.
void HandleSignal(int signal, siginfo_t* info, void* ucontext);

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_
