// The engine's adapter, for the steps about the primitives that survive a fault.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_TRAP_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_TRAP_H_

#include <cstdint>

#include "reference/lockstep/scripted_backing.h"
#include "reference/model/vocabulary.h"

namespace reference {

void Try(const Step& step, ScriptedBacking& backing, Outcome& outcome);

// Whether TryHandleFault takes a fault for one of its own that no Try access has made: such a signal and code, from anywhere.
bool HandlesForeignFault(uint8_t which);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_TRAP_H_
