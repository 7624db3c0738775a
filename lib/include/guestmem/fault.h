// Memory accesses that survive a fault, and the signal handler that makes them.
//
// A guest pointer here is host virtual memory that may fault at any time: reserved but not populated, unmapped by
// another thread, behind a truncated file. The Try functions access it and report a fault as a value. Everything else that
// faults in the process goes to the handler that was installed before: a crash is still reported, where it happened.
//
//   (void)guestmem::InstallFaultHandler();
//   uint32_t flags;
//   if (auto fault = guestmem::TryRead(ring + 8, flags)) { /* fault->address, fault->signal */ }
//
// When not: a host buffer of your own (a fault there is reported as the crash it is), a pointer outside the
// canonical address range (the kernel does not say where such an access faulted, so it is not recovered), a thread that
// blocks SIGSEGV or SIGBUS: the kernel ends the process at its first fault, whatever handler there is. Threads are often
// started with all signals blocked; PrepareThread() puts that right.
//
// Stacks: the handler runs on the thread's alternate signal stack where it has one, else on its stack. It needs
// kFaultHandlerStackBytes below what the kernel puts there for a signal (getauxval(AT_MINSIGSTKSZ): 2 to 12 KiB, by
// processor), and for a fault that is not ours what the previous handler needs.
//
// The previous handler is called as the kernel would have called it: with the signal's own siginfo_t and ucontext_t, its mask, its own
// signal blocked unless it has SA_NODEFER, once if it has SA_RESETHAND, and on the interrupted stack if it was installed
// without SA_ONSTACK (if that stack takes no frame, because it has overflowed, the process ends). SA_RESTART is taken over when
// installing. What cannot be had: where user-space shadow stacks are on, or where another handler called ours, a handler
// without SA_ONSTACK runs on the alternate stack; and sigaction() shows our handler, also where it would show that a one-shot
// handler is used up.
//
// System calls, for seccomp filters (lib/test/handler_limits_test.cc runs with these alone):
//   accesses, recovered faults, sections and Rcu::Synchronize: rt_sigreturn, membarrier, futex, sched_yield, clock_nanosleep;
//   where an error is described or a thread accesses for the first time, malloc's too: brk, mmap, munmap, mprotect, madvise
//   a fault that is passed on: rt_sigprocmask, rt_sigaction, getpid, gettid, tgkill
//   loading the library and installing: membarrier, rt_sigaction
//   PrepareThread: rt_sigprocmask, sigaltstack
//
// Objects that come and go: a program and its plugins may each have a static copy of the library, share one (a shared library,
// or a program that exports its copy's symbols), or mix these, and be loaded and unloaded in any order. An object that has a
// copy of its own in use stays loaded after dlclose, as with RTLD_NODELETE, because the kernel and the C library know
// addresses in it; its static objects then live until the process ends. Objects that use another's copy are unloaded as
// usual. Copies that do not share symbols are libraries of their own: a GuestMemory belongs to the copy that made it, and is not
// to be used through another. Threads may access guest memory, and fault, until the process is gone: in exit(), too.
//
// Threads: any. Signal context: the Try functions may be called from signal handlers; InstallFaultHandler may not.

#ifndef GUESTMEM_FAULT_H_
#define GUESTMEM_FAULT_H_

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "guestmem/detail/host_side.h"
#include "guestmem/detail/trap_inline.h"
#include "guestmem/plain.h"
#include "guestmem/status.h"

namespace guestmem {

// Puts this library's SIGSEGV and SIGBUS handler in force. What was in force before is called for faults that are not ours. Where
// ours is in force already, nothing happens. Where another library has taken the handler over since, ours is installed again on
// top of it, and it is asked first; if it then calls what it found (ours), or puts that back, the one before it is next, so
// nobody is asked twice about a fault. GuestMemory::Create calls this, but only until it has succeeded once.
// Errors: kResourceExhausted if the kernel refused or there was no memory; kInvalidArgument if it was accepted but is not in
// force afterwards (a sanitizer run with handle_segv=2 does that: use handle_segv=1). After a failure it may be called again.
// Threads: any. Signal context: no.
Status InstallFaultHandler();

// Whether the handler in force for both signals is this library's, read back from the kernel.
bool FaultHandlerIsInstalled();

// What the handler needs of the stack that it runs on, beside the kernel's signal frame.
inline constexpr size_t kFaultHandlerStackBytes = 1024;

// Makes the calling thread fit for guest accesses: unblocks SIGSEGV and SIGBUS, and checks that its alternate signal stack,
// if it has one, takes a signal. Call it where a thread begins whose creator may have blocked signals (as VMMs do for vCPUs).
// Errors: kInvalidArgument if that stack is smaller than the kernel's frame and the handler need; the signals are unblocked all
// the same. Signal context: no.
Status PrepareThread();

// For programs that own their signal handlers: call this first in them. True: the fault was a Try access's own and the
// context now resumes past it; return at once. False: not ours, nothing was changed. Signal context: made for it; in a program that
// links a shared library lazily, the first call is bound by the dynamic linker, so link with -z now, or call it once before.
bool TryHandleFault(int signal, siginfo_t* info, void* ucontext) noexcept;

// How many faults have been recovered in this process. For tests and metrics.
uint64_t RecoveredFaults() noexcept;

// A fault on the guest side of an access.
struct Fault {
  enum class Side : uint8_t { kRead, kWrite };

  uint64_t address = 0;   // host virtual address; the access's start or a page start inside it
  size_t offset = 0;      // address - start: the bytes below were transferred, none at or above
  Side side = Side::kRead;
  int signal = 0;         // SIGSEGV or SIGBUS
  int code = 0;           // si_code: SEGV_MAPERR, BUS_ADRERR, ...

  // A store met a mapping that does not take stores, or takes no access at all.
  bool write_refused() const { return side == Side::kWrite && signal == SIGSEGV && code == SEGV_ACCERR; }
};

// Which pointer of a copy is the guest's. The other one is the host's and must be valid.
enum class GuestSide : uint8_t { kSource, kDestination };

// Copies `length` bytes; nullopt: all of them. After a fault exactly the bytes below fault.offset were stored.
// The ranges must not overlap (where that matters: a host bug, fatal).
[[nodiscard]] std::optional<Fault> TryCopy(GuestSide guest, void* destination, const void* source, size_t length) noexcept;

// TryCopy against a host buffer that other threads access at the same time, atomically, byte by byte.
[[nodiscard]] std::optional<Fault> TryCopyShared(GuestSide guest, void* destination, const void* source,
                                                 size_t length) noexcept;

// Stores `value` into `length` bytes of guest memory. After a fault as TryCopy.
[[nodiscard]] std::optional<Fault> TryFill(void* guest, std::byte value, size_t length) noexcept;

namespace detail {

template <typename T>
inline constexpr bool kIsPlain =
    std::is_trivially_copyable_v<T> && (sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);

[[gnu::cold]] Fault MakeFault(const void* start, size_t length, TrapResult result) noexcept;

// After a kernel met a fault: makes the prefix below it exact, and describes it. In the section of the kernel's call, if that
// had one: it moves bytes that the bits allowed then. Tells sanitizers which bytes of a host buffer were written.
[[gnu::cold]] Fault FinishCopy(GuestSide guest, void* destination, const void* source, size_t length, TrapResult result,
                               HostSide::Sharing sharing) noexcept;
[[gnu::cold]] Fault FinishFill(void* guest, std::byte value, size_t length, TrapResult result) noexcept;

template <typename T>
GUESTMEM_TRAP_INLINE uint64_t ToWord(const T& value) noexcept {
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}
template <typename T>
GUESTMEM_TRAP_INLINE void FromWord(uint64_t word, T& value) noexcept {
  std::memcpy(static_cast<void*>(&value), &word, sizeof(T));
}

}  // namespace detail

// Reads a T (guestmem/plain.h) of 1, 2, 4 or 8 bytes; single-copy atomic where naturally aligned. After a fault `value` is unchanged.
template <typename T>
[[nodiscard]] GUESTMEM_TRAP_INLINE std::optional<Fault> TryRead(const void* guest, T& value) noexcept {
  GUESTMEM_REQUIRE_PLAIN(T);
  static_assert(detail::kIsPlain<T>, "TryRead takes types of 1, 2, 4 or 8 bytes");
  uint64_t word;
  detail::TrapResult result;
  if (!detail::TrapLoad<sizeof(T)>(guest, word, result)) [[unlikely]] {
    return detail::MakeFault(guest, sizeof(T), result);
  }
  detail::FromWord(word, value);
  return std::nullopt;
}

// Writes a T of 1, 2, 4 or 8 bytes; single-copy atomic where naturally aligned. After a fault nothing was stored.
template <typename T>
[[nodiscard]] GUESTMEM_TRAP_INLINE std::optional<Fault> TryWrite(void* guest, const T& value) noexcept {
  GUESTMEM_REQUIRE_PLAIN(T);
  static_assert(detail::kIsPlain<T>, "TryWrite takes types of 1, 2, 4 or 8 bytes");
  detail::TrapResult result;
  if (!detail::TrapStore<sizeof(T)>(guest, detail::ToWord(value), result)) [[unlikely]] {
    return detail::MakeFault(guest, sizeof(T), result);
  }
  return std::nullopt;
}

// Sequentially consistent compare-exchange of 1, 2, 4 or 8 bytes. Precondition: naturally aligned (an unaligned one
// takes a bus lock; GuestMemory refuses it). `current` becomes the value seen, `swapped` says whether `desired` was stored.
template <typename T>
[[nodiscard]] GUESTMEM_TRAP_INLINE std::optional<Fault> TryCompareExchange(void* guest, T& current, const T& desired,
                                                                           bool& swapped) noexcept {
  GUESTMEM_REQUIRE_PLAIN(T);
  static_assert(detail::kIsPlain<T>, "TryCompareExchange takes types of 1, 2, 4 or 8 bytes");
  const uint64_t wanted = detail::ToWord(current);
  uint64_t seen;
  detail::TrapResult result;
  if (!detail::TrapCompareExchange<sizeof(T)>(guest, wanted, detail::ToWord(desired), seen, result)) [[unlikely]] {
    return detail::MakeFault(guest, sizeof(T), result);
  }
  swapped = seen == wanted;
  detail::FromWord(seen, current);
  return std::nullopt;
}

}  // namespace guestmem

#endif  // GUESTMEM_FAULT_H_
