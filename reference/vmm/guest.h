// The library's side: InProcessGuest and what it makes, as a Machine. It carries out and reports; it never decides what is right.

#ifndef GUESTMEM_REFERENCE_VMM_GUEST_H_
#define GUESTMEM_REFERENCE_VMM_GUEST_H_

#include <memory>

#include "reference/vmm/machine.h"

namespace reference::vmm {

// One a process at a time: the filter of host calls is the process's.
std::unique_ptr<Machine> MakeGuest();

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_GUEST_H_
