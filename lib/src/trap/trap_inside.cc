#include "trap/trap_inside.h"

#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

#include "guestmem/detail/trap_inline.h"
#include "guestmem/fault.h"
#include "trap/arch.h"
#include "trap/trap_table.h"

namespace guestmem::trap {

std::atomic<RecoveryTable*> g_tables{nullptr};
std::atomic<uint32_t> g_table_readers{0};
std::atomic<uint64_t> g_recovered_faults{0};

namespace {

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

// A chain of refusals; each says why the fault is not ours.
GUESTMEM_IN_SIGNAL_CONTEXT bool Recover(int signal, const siginfo_t* info, ucontext_t* context) {
  if (!IsAddressFault(signal, info->si_code)) {
    return false;
  }
  Recovery recovery;
  if (!FindRecovery(InstructionOf(*context), recovery)) {
    return false;  // an instruction that no table promises to recover: a bug elsewhere
  }
  const bool write = (recovery.flags & detail::kTrapWrite) != 0;
  const GuestRange guest = GuestSideOf(*context, recovery);
  auto address = reinterpret_cast<uint64_t>(info->si_addr);
  uint64_t lowest = guest.begin;
  // A memory error names the memory that is lost, a block of 2^lsb bytes, and its frame has the error code of another fault.
  const bool memory_error = signal == SIGBUS && info->si_code == BUS_MCEERR_AR;
  if (memory_error) {
    constexpr int kPageBits = 12;
    const int lsb = info->si_addr_lsb > 0 && info->si_addr_lsb < 64 ? info->si_addr_lsb : kPageBits;
    const uint64_t within_block = (uint64_t{1} << lsb) - 1;
    address &= ~within_block;
    lowest &= ~within_block;
  }
  if (address < lowest || address >= guest.end) {
    return false;  // the host side of the access, or an instruction fetch
  }
  if (!memory_error && WasInDirection(*context, !write)) {
    return false;  // the other operand of the instruction
  }
  const auto what = static_cast<uint64_t>(signal) | static_cast<uint64_t>(info->si_code) << 8;
  ResumeAt(recovery.landing, {address, what | (write ? detail::kTrapInfoWrite : 0)}, *context);
  g_recovered_faults.fetch_add(1, std::memory_order_relaxed);
  return true;
}

template <int Entry>
GUESTMEM_IN_SIGNAL_CONTEXT void HandleSignal(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  // Safe because the kernel passes a ucontext_t to a handler installed with SA_SIGINFO (sigaction(2)).
  auto* const ucontext = static_cast<ucontext_t*>(context);
  if (!Recover(signal, info, ucontext)) {
    PassOn(signal, info, ucontext, Entry, static_cast<const char*>(__builtin_frame_address(0)));
  }
  errno = saved_errno;
}

}  // namespace

const Handler kHandlers[2] = {HandleSignal<0>, HandleSignal<1>};

}  // namespace guestmem::trap

namespace guestmem {

GUESTMEM_IN_SIGNAL_CONTEXT bool TryHandleFault(int signal, siginfo_t* info, void* context) noexcept {
  return trap::Recover(signal, info, static_cast<ucontext_t*>(context));
}

}  // namespace guestmem
