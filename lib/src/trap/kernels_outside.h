// Ordinary context: which of an architecture's bulk kernels this processor runs (trap/<architecture>/kernels_outside.cc).

#ifndef GUESTMEM_SRC_TRAP_KERNELS_OUTSIDE_H_
#define GUESTMEM_SRC_TRAP_KERNELS_OUTSIDE_H_

#include "guestmem/detail/trap_inline.h"

namespace guestmem::trap {

// The fastest that the processor has. The environment variable GUESTMEM_KERNELS names others that it has, for tests.
const detail::TrapKernels& ChooseKernels();

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_KERNELS_OUTSIDE_H_
