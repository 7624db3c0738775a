// Errors of the backings that the library ships.

#ifndef GUESTMEM_SRC_HOST_HOST_ERROR_H_
#define GUESTMEM_SRC_HOST_HOST_ERROR_H_

#include <errno.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "guestmem/status.h"
#include "types/error_rep.h"

namespace guestmem::host {

[[gnu::cold]] inline Status CreateError(const char* name, ErrorKind kind, AddressRange range, std::string message = {}) {
  ErrorInfo info;
  info.kind = kind;
  info.operation = Operation::kCreate;
  info.range = range;
  const detail::DebugName shown(name);
  return detail::MakeError(&shown, std::move(info), std::move(message));
}

// What a failed host call means. What the caller handed in is to blame for some; the others say that the machine has no more.
inline ErrorKind KindOf(int reason) {
  switch (reason) {
    case EACCES:
    case EBADF:
    case EFAULT:
    case EINVAL:
    case ENODEV:
    case ENOSYS:
    case EOPNOTSUPP:
    case EOVERFLOW:
    case EPERM:
      return ErrorKind::kInvalidArgument;
    default:
      return ErrorKind::kResourceExhausted;
  }
}

// The error for a host call that failed with `reason`, an errno value.
[[gnu::cold]] inline Status HostFailure(const char* name, const char* call, int reason, AddressRange range) {
  return CreateError(name, KindOf(reason), range, std::string(call) + ": " + std::strerror(reason));
}

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_HOST_ERROR_H_
