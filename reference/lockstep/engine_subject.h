// The engine as a Subject: guestmem::GuestMemory over scripted backings.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_SUBJECT_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_SUBJECT_H_

#include <functional>
#include <memory>

#include "reference/lockstep/lockstep.h"

namespace guestmem {
class GuestMemoryAccess;
}

namespace reference {

// Worlds are built from a pool that is kept between traces, so that a trace without special pages makes no system call.
// One engine subject at a time may run in a process (it counts the engine's host calls).
// `decorate`: what the engine gets in place of each backing; for tests that come between the two.
using Decorate = std::function<std::shared_ptr<guestmem::GuestMemoryAccess>(std::shared_ptr<guestmem::GuestMemoryAccess>)>;
std::unique_ptr<Subject> MakeEngineSubject(Decorate decorate = {});

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_SUBJECT_H_
