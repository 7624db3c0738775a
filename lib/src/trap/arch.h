// What the trap layer needs of the architecture, besides the accesses themselves (guestmem/detail/trap_inline.h) and the kernels
// (kernels_outside.h). The functions on a ucontext_t run in signal context.

#ifndef GUESTMEM_SRC_TRAP_ARCH_H_
#define GUESTMEM_SRC_TRAP_ARCH_H_

#include <ucontext.h>

#include <cstdint>

#include "guestmem/detail/trap_inline.h"
#include "trap/trap_inside.h"
#include "trap/trap_table.h"

namespace guestmem::trap {

struct GuestRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// The address of the instruction that faulted.
GUESTMEM_IN_SIGNAL_CONTEXT inline uint64_t InstructionOf(const ucontext_t& context);

// The guest side of the access that `recovery`, the instruction's, describes.
GUESTMEM_IN_SIGNAL_CONTEXT inline GuestRange GuestSideOf(const ucontext_t& context, const Recovery& recovery);

// Whether the frame says that the fault was a page fault in that direction. False where it does not say.
GUESTMEM_IN_SIGNAL_CONTEXT inline bool WasInDirection(const ucontext_t& context, bool write);

// Makes the handler's return go to `landing` with `result`.
GUESTMEM_IN_SIGNAL_CONTEXT inline void ResumeAt(uint64_t landing, detail::TrapResult result, ucontext_t& context);

// Tells the processor that this is a loop that waits.
inline void Pause();

}  // namespace guestmem::trap

#if defined(__x86_64__)
#include "trap/x86_64/arch.h"
#else
#error "guestmem: no signal frame for this architecture: add lib/src/trap/<architecture>/arch.h"
#endif

#endif  // GUESTMEM_SRC_TRAP_ARCH_H_
