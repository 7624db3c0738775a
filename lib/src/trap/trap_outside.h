// What other layers ask of the trap layer outside of signal context. For the library's own files.

#ifndef GUESTMEM_SRC_TRAP_TRAP_OUTSIDE_H_
#define GUESTMEM_SRC_TRAP_TRAP_OUTSIDE_H_

#include "guestmem/status.h"

namespace guestmem::trap {

// InstallFaultHandler, unless it has succeeded before: who took the handler over since then keeps it.
Status InstallFaultHandlerOnce();

// Keeps the linked object that `inside` lies in loaded until the process ends, as dlopen's RTLD_NODELETE does. For what the
// kernel or the C library may call at any time: a signal handler, a thread's last words. In the main program there is
// nothing to do. False: it cannot be held.
bool StayLoaded(const void* inside) noexcept;

}  // namespace guestmem::trap

#endif  // GUESTMEM_SRC_TRAP_TRAP_OUTSIDE_H_
