// What no caller may ask of a backing, whatever the backing answers: for scripted backings, which must judge a wrong
// caller rather than fall with it.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_CALL_CHECK_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_CALL_CHECK_H_

#include <span>
#include <string>

#include "reference/model/vocabulary.h"

namespace reference {

// Empty, or which callback was called with which argument that it may not be called with. `held`: the LockGpns calls that have
// succeeded and are not unlocked yet.
std::string WrongCall(const Backing& setup, const Call& call, std::span<const Call> held);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_CALL_CHECK_H_
