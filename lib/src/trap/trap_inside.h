// The fault handler: everything in the *_inside.cc files runs in signal context, on whatever stack the fault found. It takes
// no lock, allocates nothing, and calls nothing but what signal-safety(7) allows. What it calls in other objects is bound when
// its own is loaded (-fno-plt, see lib/CMakeLists.txt), so it enters no dynamic linker.

#ifndef GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_
#define GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_

#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

// Sanitizer instrumentation has no business in signal context (it may not be set up on this thread yet, or may recurse).
#if defined(__clang__)
#define GUESTMEM_IN_SIGNAL_CONTEXT __attribute__((disable_sanitizer_instrumentation, no_sanitize("coverage")))
#else
#define GUESTMEM_IN_SIGNAL_CONTEXT __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif

namespace guestmem::trap {

// What was in force when the handler was installed. Found by InstallFaultHandler; never freed.
struct PreviousAction {
  struct sigaction action;        // what sigaction returned; immutable
  PreviousAction* next;           // one found before; immutable
  std::atomic<uint64_t> rank;     // the greater, the later it was found in force; 0: found again with other flags
  std::atomic<bool> used{false};  // a one-shot handler (SA_RESETHAND) had its shot
};

// One signal's handling. Two entries do the same; each installation takes the one that the last did not. So a handler that
// took over in between, and puts back what it found, puts back another one than is in force: it must not be asked again.
using Handler = void (*)(int signal, siginfo_t* info, void* ucontext);
struct Handling {
  std::atomic<PreviousAction*> previous{nullptr};  // all that were found, in no order
  std::atomic<int> entry{1};                       // the one last installed
};
extern Handling g_handling[2];
inline Handling& HandlingOf(int signal) { return g_handling[signal == SIGSEGV ? 0 : 1]; }

// The handlers to install: recover our own faults and pass on all others.
extern const Handler kHandlers[2];

// Asks whoever handled the signal before: the one found last, or, if it is that one who calls us, the one before it.
// `frame` is the handler's own: above it stands what called it.
void PassOn(int signal, siginfo_t* info, ucontext_t* context, int entry, const char* frame);

// Calls `action`'s handler as the kernel would have called it without an alternate stack: lays a signal frame on the stack that
// was interrupted, and changes `context`, which lies above `frame` as the kernel put it, so that our return enters the handler
// there.
enum class Entering {
  kDone,
  kNotNeeded,  // or not possible: our handler does not stand on an alternate stack, or it was not the kernel that called it, or
               // return addresses are guarded (a shadow stack). Nothing was changed
  kNoRoom,     // the interrupted stack takes no frame
};
Entering EnterOnInterruptedStack(const struct sigaction& action, int signal, const siginfo_t* info, ucontext_t* context,
                                 const char* frame);

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_TRAP_INSIDE_H_
