// What the parts of the engine's adapter share: how a Status becomes an Outcome.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_OBSERVE_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_OBSERVE_H_

#include <atomic>
#include <cstdint>

#include "guestmem/status.h"
#include "reference/model/vocabulary.h"

namespace reference {

void Observe(const guestmem::Status& status, Outcome& outcome);

// Safe because an atomic byte has a byte's representation.
inline std::atomic<uint8_t>* Atomic(uint8_t* bytes) { return reinterpret_cast<std::atomic<uint8_t>*>(bytes); }

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_OBSERVE_H_
