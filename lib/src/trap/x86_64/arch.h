// The signal frame of x86-64; included by trap/arch.h, which says what the functions do.

#ifndef GUESTMEM_SRC_TRAP_X86_64_ARCH_H_
#define GUESTMEM_SRC_TRAP_X86_64_ARCH_H_

#include "trap/arch.h"

namespace guestmem::trap {

GUESTMEM_IN_SIGNAL_CONTEXT inline uint64_t InstructionOf(const ucontext_t& context) {
  return static_cast<uint64_t>(context.uc_mcontext.gregs[REG_RIP]);
}

// Single accesses have the guest pointer in rdi, kernels the guest range in [r10, r11).
GUESTMEM_IN_SIGNAL_CONTEXT inline GuestRange GuestSideOf(const ucontext_t& context, const Recovery& recovery) {
  const greg_t* const registers = context.uc_mcontext.gregs;
  const uint64_t size = recovery.flags >> detail::kTrapSizeShift;
  if (size != 0) {
    const auto begin = static_cast<uint64_t>(registers[REG_RDI]);
    return {begin, begin + size};
  }
  return {static_cast<uint64_t>(registers[REG_R10]), static_cast<uint64_t>(registers[REG_R11])};
}

GUESTMEM_IN_SIGNAL_CONTEXT inline bool WasInDirection(const ucontext_t& context, bool write) {
  constexpr greg_t kPageFaultVector = 14;     // exception 14, #PF (Intel SDM volume 3)
  constexpr greg_t kPageFaultWrite = 1 << 1;  // its error code's W/R bit
  const greg_t* const registers = context.uc_mcontext.gregs;
  return registers[REG_TRAPNO] == kPageFaultVector && ((registers[REG_ERR] & kPageFaultWrite) != 0) == write;
}

GUESTMEM_IN_SIGNAL_CONTEXT inline void ResumeAt(uint64_t landing, detail::TrapResult result, ucontext_t& context) {
  greg_t* const registers = context.uc_mcontext.gregs;
  registers[REG_RIP] = static_cast<greg_t>(landing);
  registers[REG_RAX] = static_cast<greg_t>(result.address);
  registers[REG_RDX] = static_cast<greg_t>(result.info);
}

inline void Pause() { __builtin_ia32_pause(); }

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_X86_64_ARCH_H_
