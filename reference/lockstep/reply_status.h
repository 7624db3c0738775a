// The status that a callback returns for a Reply. Tests that are made of traces carry this text, too.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_REPLY_STATUS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_REPLY_STATUS_H_

#include <cstddef>
#include <span>

#include "guestmem/guest_memory.h"
#include "reference/world/answers.h"

namespace reference {

// ---- StatusOf
// What a callback returns. For kOkAsError that is an OK status, and the callback makes a Result of it.
inline guestmem::Status StatusOf(const Reply& reply) {
  switch (reply.says) {
    case Reply::Says::kOk:
    case Reply::Says::kOkAsError: return {};
    case Reply::Says::kScripted: break;
    case Reply::Says::kNoFallback: return guestmem::NoFallback();
    case Reply::Says::kNotMapped: return guestmem::NotMapped();
    case Reply::Says::kBlank: return guestmem::BackendError(guestmem::StatusCode::kOk, "", reply.address);
    case Reply::Says::kForeign: {
      std::byte byte;
      return guestmem::GuestMemory::Empty().ReadAt(*reply.address, std::span(&byte, 1));
    }
  }
  return guestmem::BackendError(guestmem::StatusCode::kAborted, "scripted", reply.address, reply.count);
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_REPLY_STATUS_H_
