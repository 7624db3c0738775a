// Errors of the backings that the library ships.

#ifndef GUESTMEM_SRC_HOST_HOST_ERROR_H_
#define GUESTMEM_SRC_HOST_HOST_ERROR_H_

#include <errno.h>

#include <cstring>
#include <string_view>

#include "guestmem/status.h"
#include "types/error_rep.h"

namespace guestmem::host {

[[gnu::cold]] inline Status CreateError(const detail::DebugName& name, ErrorKind kind, AddressRange range,
                                       std::string_view message = {}) {
  return detail::MakeError(&name, {.kind = kind, .operation = Operation::kCreate, .range = range}, message);
}
// `name` is short.
[[gnu::cold]] inline Status CreateError(const char* name, ErrorKind kind, AddressRange range, std::string_view message = {}) {
  return CreateError(detail::DebugName(name), kind, range, message);
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
template <typename Name>
[[gnu::cold]] Status HostFailure(const Name& name, const char* call, int reason, AddressRange range) {
  return CreateError(name, KindOf(reason), range, detail::Text("%s: %s", call, std::strerror(reason)));
}

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_HOST_ERROR_H_
