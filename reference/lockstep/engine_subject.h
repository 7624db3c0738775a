// The engine as a Subject: guestmem::GuestMemory over scripted backings.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_SUBJECT_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_SUBJECT_H_

#include <memory>

#include "reference/lockstep/lockstep.h"

namespace reference {

// Worlds are built from a pool that is kept between traces, so that a trace without special pages makes no system call.
// One engine subject at a time may run in a process (it counts the engine's host calls).
std::unique_ptr<Subject> MakeEngineSubject();

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_SUBJECT_H_
