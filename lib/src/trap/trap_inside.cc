#include "trap/trap_inside.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

#include "guestmem/detail/trap_inline.h"
#include "guestmem/fault.h"
#include "trap/trap_table.h"

namespace guestmem::trap {

PreviousAction g_previous_segv;
PreviousAction g_previous_bus;
std::atomic<RecoveryTable*> g_tables{nullptr};
std::atomic<uint32_t> g_table_readers{0};
std::atomic<uint64_t> g_recovered_faults{0};

namespace {

// Tells of something elsewhere: returning from its handler does not meet it again.
GUESTMEM_IN_SIGNAL_CONTEXT bool WasSent(int signal, int code) {
  return code <= 0 || (signal == SIGBUS && code == BUS_MCEERR_AO);
}

// Only faults that the kernel raised for an address it names. A general protection fault (SI_KERNEL, no address: a
// non-canonical pointer) cannot be checked against the guest range, and anything with si_code <= 0 was sent, not raised.
GUESTMEM_IN_SIGNAL_CONTEXT bool IsAddressFault(int signal, int code) {
  if (signal == SIGSEGV) {
    return code == SEGV_MAPERR || code == SEGV_ACCERR || code == SEGV_PKUERR;
  }
  return signal == SIGBUS && (code == BUS_ADRERR || code == BUS_MCEERR_AR);
}

// Whether what stands at the instruction's address is still what was registered.
GUESTMEM_IN_SIGNAL_CONTEXT bool IsSameCode(const Recovery& recovery) {
  // Safe because the thread has just executed the instruction that stands here.
  const auto* const code = reinterpret_cast<const unsigned char*>(recovery.start);
  for (uint64_t i = 0; i < sizeof recovery.code && i < recovery.end - recovery.start; ++i) {
    if (code[i] != (recovery.code >> (8 * i) & 0xff)) {
      return false;
    }
  }
  return true;
}

// Copies out, so that the table may go once the reader count is given back.
GUESTMEM_IN_SIGNAL_CONTEXT bool FindRecovery(uint64_t instruction, Recovery& found) {
  g_table_readers.fetch_add(1, std::memory_order_seq_cst);  // fence A
  bool ok = false;
  for (const RecoveryTable* table = g_tables.load(std::memory_order_seq_cst); table != nullptr && !ok;
       table = table->next.load(std::memory_order_acquire)) {
    // The first that ends beyond the instruction, or the last. After a trip into the kernel each branch is a guess, so the search
    // has but one.
    const Recovery* at = table->begin;
    for (auto left = static_cast<size_t>(table->end - table->begin); left > 1;) {
      const size_t half = left / 2;
      at += (at[half - 1].end <= instruction ? 1 : 0) * half;
      left -= half;
    }
    if (at != table->end && at->start <= instruction && instruction < at->end) {
      found = *at;
      ok = !table->closed.load(std::memory_order_relaxed) || IsSameCode(*at);
    }
  }
  g_table_readers.fetch_sub(1, std::memory_order_release);
  return ok;
}

constexpr int kPageFaultVector = 14;       // x86 exception 14, #PF (Intel SDM volume 3)
constexpr greg_t kPageFaultWrite = 1 << 1;  // its error code's W/R bit

// A chain of refusals; each says why the fault is not ours.
GUESTMEM_IN_SIGNAL_CONTEXT bool Recover(int signal, const siginfo_t* info, ucontext_t* context) {
  if (!IsAddressFault(signal, info->si_code)) {
    return false;
  }
  greg_t* registers = context->uc_mcontext.gregs;
  Recovery recovery;
  if (!FindRecovery(static_cast<uint64_t>(registers[REG_RIP]), recovery)) {
    return false;  // an instruction that no table promises to recover: somebody's bug
  }
  const auto address = reinterpret_cast<uint64_t>(info->si_addr);
  const uint64_t size = recovery.flags >> detail::kTrapSizeShift;
  const uint64_t begin = static_cast<uint64_t>(registers[size != 0 ? REG_RDI : REG_R10]);
  const uint64_t end = size != 0 ? begin + size : static_cast<uint64_t>(registers[REG_R11]);
  // A machine check names only the page it is in.
  const uint64_t lowest = info->si_code == BUS_MCEERR_AR ? begin & ~(kPageSize - 1) : begin;
  if (address < lowest || address >= end) {
    return false;  // the host side of the access, or an instruction fetch
  }
  const bool write = (registers[REG_ERR] & kPageFaultWrite) != 0;
  if (registers[REG_TRAPNO] == kPageFaultVector && write != ((recovery.flags & detail::kTrapWrite) != 0)) {
    return false;  // the other operand of the instruction
  }
  registers[REG_RIP] = static_cast<greg_t>(recovery.landing);
  registers[REG_RAX] = static_cast<greg_t>(address);
  registers[REG_RDX] = static_cast<greg_t>(static_cast<uint64_t>(signal) | static_cast<uint64_t>(info->si_code) << 8 |
                                           ((recovery.flags & detail::kTrapWrite) != 0 ? detail::kTrapInfoWrite : 0));
  g_recovered_faults.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// Puts the default action back. A fault happens again on return, where it happened; a sent signal must be raised again.
GUESTMEM_IN_SIGNAL_CONTEXT void ChainToDefault(int signal, const siginfo_t* info) {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  if (WasSent(signal, info->si_code)) {
    raise(signal);
  }
}

GUESTMEM_IN_SIGNAL_CONTEXT void Chain(int signal, siginfo_t* info, void* context) {
  PreviousAction& remembered = signal == SIGSEGV ? g_previous_segv : g_previous_bus;
  const struct sigaction& previous = remembered.action;
  const bool has_info = (previous.sa_flags & SA_SIGINFO) != 0;
  if (!has_info && previous.sa_handler == SIG_IGN && WasSent(signal, info->si_code)) {
    return;
  }
  const bool one_shot = (previous.sa_flags & static_cast<int>(SA_RESETHAND)) != 0;
  if ((!has_info && (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)) ||
      (one_shot && remembered.used.exchange(true, std::memory_order_relaxed))) {
    // The kernel does not let a fault be ignored either.
    ChainToDefault(signal, info);
    return;
  }
  // What the kernel would have done for the previous handler: its mask, its own signal blocked.
  sigset_t mask = previous.sa_mask;
  if ((previous.sa_flags & SA_NODEFER) == 0) {
    sigaddset(&mask, signal);
  }
  sigset_t restore;
  pthread_sigmask(SIG_BLOCK, &mask, &restore);
  if (has_info) {
    previous.sa_sigaction(signal, info, context);
  } else {
    previous.sa_handler(signal);
  }
  pthread_sigmask(SIG_SETMASK, &restore, nullptr);
}

}  // namespace

GUESTMEM_IN_SIGNAL_CONTEXT void HandleSignal(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  // Safe because the kernel passes a ucontext_t to a handler installed with SA_SIGINFO (sigaction(2)).
  if (!Recover(signal, info, static_cast<ucontext_t*>(context))) {
    Chain(signal, info, context);
  }
  errno = saved_errno;
}

}  // namespace guestmem::trap

namespace guestmem {

GUESTMEM_IN_SIGNAL_CONTEXT bool TryHandleFault(int signal, siginfo_t* info, void* context) noexcept {
  return trap::Recover(signal, info, static_cast<ucontext_t*>(context));
}

}  // namespace guestmem
