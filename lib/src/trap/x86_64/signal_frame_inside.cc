// A signal frame for another handler, laid out as Linux does on x86-64 (arch/x86/include/asm/sigframe.h, asm/ucontext.h).

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>

#include <cstdint>

#include "guestmem/detail/trap_inline.h"
#include "trap/trap_inside.h"

extern "C" guestmem::detail::TrapResult guestmem_copy_to_guest_sse2(void* guest, const void* host, size_t length);

namespace guestmem::trap {
namespace {

constexpr uint64_t kRedZone = 128;
constexpr size_t kSignalSetBytes = 8;  // the kernel's; what follows in a ucontext_t is the C library's own
constexpr size_t kContextBytes = offsetof(ucontext_t, uc_sigmask) + kSignalSetBytes;
constexpr greg_t kTrapFlag = 0x100, kDirectionFlag = 0x400, kResumeFlag = 0x10000;  // cleared for a handler, by the ABI
// Of the saved floating-point state: 512 bytes, or as many as their software part says where it begins with the magic.
constexpr size_t kLegacyStateBytes = 512, kSoftwarePart = 464;
constexpr uint32_t kExtendedMagic = 0x46505853;

GUESTMEM_IN_SIGNAL_CONTEXT bool ReturnAddressesAreGuarded() {
  uint64_t shadow_stack = 0;
  asm volatile("rdsspq %0" : "+r"(shadow_stack));  // does nothing where there is none
  return shadow_stack != 0;
}

// Into the interrupted stack, which may be what is broken: a fault is recovered as any other.
GUESTMEM_IN_SIGNAL_CONTEXT bool Put(uint64_t to, const void* from, size_t length) {
  return guestmem_copy_to_guest_sse2(reinterpret_cast<void*>(to), from, length).info == 0;
}

}  // namespace

GUESTMEM_IN_SIGNAL_CONTEXT Entering EnterOnInterruptedStack(const struct sigaction& action, int signal,
                                                            const siginfo_t* info, ucontext_t* context,
                                                            const char* frame) {
  greg_t* const registers = context->uc_mcontext.gregs;
  const stack_t& alternate = context->uc_stack;
  const auto begin = reinterpret_cast<uint64_t>(alternate.ss_sp);
  const auto interrupted = static_cast<uint64_t>(registers[REG_RSP]);
  if (reinterpret_cast<uint64_t>(frame) - begin >= alternate.ss_size || interrupted - begin < alternate.ss_size) {
    return Entering::kNotNeeded;
  }
  // The kernel puts the return address right below the context; a caller's is where its call left it.
  const auto* const return_address = reinterpret_cast<const char*>(context) - sizeof(void*);
  if (frame + sizeof(void*) != return_address || action.sa_restorer == nullptr || ReturnAddressesAreGuarded()) {
    return Entering::kNotNeeded;
  }
  const auto* const state = reinterpret_cast<const char*>(context->uc_mcontext.fpregs);
  size_t state_bytes = 0;
  if (state != nullptr) {
    uint32_t software[2];  // the magic, the size of it all
    memcpy(software, state + kSoftwarePart, sizeof software);
    state_bytes = software[0] == kExtendedMagic ? software[1] : kLegacyStateBytes;
  }
  const uint64_t state_at = (interrupted - kRedZone - state_bytes) & ~uint64_t{63};
  // As after a call: the return address, then the context, then the information.
  const uint64_t at = ((state_at - kContextBytes - sizeof *info) & ~uint64_t{15}) - sizeof(void*);
  const uint64_t context_at = at + sizeof(void*);
  const uint64_t info_at = context_at + kContextBytes;
  const uint64_t new_state = state != nullptr ? state_at : 0;
  if (!Put(at, &action.sa_restorer, sizeof(void*)) || !Put(context_at, context, kContextBytes) ||
      !Put(info_at, info, sizeof *info) || !Put(state_at, state, state_bytes) ||
      !Put(context_at + offsetof(ucontext_t, uc_mcontext.fpregs), &new_state, sizeof new_state)) {
    return Entering::kNoRoom;
  }
  // Safe because the handler's address and type are those that sigaction was given.
  registers[REG_RIP] = reinterpret_cast<greg_t>((action.sa_flags & SA_SIGINFO) != 0
                                                    ? reinterpret_cast<void*>(action.sa_sigaction)
                                                    : reinterpret_cast<void*>(action.sa_handler));
  registers[REG_RSP] = static_cast<greg_t>(at);
  registers[REG_RDI] = signal;
  registers[REG_RSI] = static_cast<greg_t>(info_at);
  registers[REG_RDX] = static_cast<greg_t>(context_at);
  registers[REG_RAX] = 0;
  registers[REG_EFL] &= ~(kTrapFlag | kDirectionFlag | kResumeFlag);
  context->uc_mcontext.fpregs = nullptr;  // the initial state
  uint64_t mask, blocked;
  memcpy(&mask, &action.sa_mask, sizeof mask);
  memcpy(&blocked, &context->uc_sigmask, sizeof blocked);
  blocked |= mask | ((action.sa_flags & SA_NODEFER) == 0 ? uint64_t{1} << (signal - 1) : 0);
  memcpy(&context->uc_sigmask, &blocked, sizeof blocked);
  return Entering::kDone;
}

}  // namespace guestmem::trap
