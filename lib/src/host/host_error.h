// Errors of the backings that the library ships.

#ifndef GUESTMEM_SRC_HOST_HOST_ERROR_H_
#define GUESTMEM_SRC_HOST_HOST_ERROR_H_

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
  return detail::MakeError(std::make_shared<const std::string>(name), std::move(info), std::move(message));
}

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_HOST_ERROR_H_
