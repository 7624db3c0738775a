// The errors of accesses.

#ifndef GUESTMEM_SRC_GUEST_ACCESS_ERRORS_H_
#define GUESTMEM_SRC_GUEST_ACCESS_ERRORS_H_

#include <cstdint>
#include <optional>
#include <utility>

#include "guest/piece.h"
#include "types/error_rep.h"

namespace guestmem::detail {

[[gnu::cold]] inline Status RangeError(const Memory& memory, ErrorKind kind, Operation operation,
                                const std::optional<AddressRange>& range, uint64_t fault_address, uint64_t transferred = 0) {
  Status status = MakeError(&memory.name, kind, operation);
  if (ErrorInfo* const info = Editable(status)) {
    info->range = range;
    info->fault_address = fault_address;
    info->transferred = transferred;
  }
  return status;
}

// An overlap of the host buffer leaves nothing to count on (SPEC 4).
[[gnu::cold]] inline void ForgetTransferred(Status& status) {
  if (ErrorInfo* const info = Editable(status)) {
    info->transferred = 0;
  }
}

[[gnu::cold]] inline Status PieceError(const Memory& memory, Operation operation, std::optional<AddressRange> range,
                                const Piece& piece, PieceFailure failure) {
  Status status = MakeCallbackError(&memory.name, operation, std::move(failure.cause), failure.write_refused);
  if (ErrorInfo* const info = Editable(status)) {
    info->range = range;
    info->fault_address = piece.region->start + piece.offset + failure.offset;
    info->gpn = NamedGpn(*piece.region, info->cause);
    info->transferred = failure.transferred;
  }
  return status;
}

[[gnu::cold]] inline Status GpnError(const Memory& memory, Operation operation, uint64_t gpn, uint64_t transferred) {
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidGpn;
  info.operation = operation;
  info.gpn = gpn;
  info.transferred = transferred;
  return MakeError(&memory.name, std::move(info));
}

[[gnu::cold]] inline Status LengthError(const Memory& memory, Operation operation) {
  return MakeError(&memory.name, ErrorKind::kInvalidArgument, operation, "the buffer's length is not the range's");
}

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_GUEST_ACCESS_ERRORS_H_
