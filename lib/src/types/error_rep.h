// The inside of an error, and the ways the library makes one. All of it cold.

#ifndef GUESTMEM_SRC_TYPES_ERROR_REP_H_
#define GUESTMEM_SRC_TYPES_ERROR_REP_H_

#include <atomic>
#include <string>

#include "guestmem/detail/debug_name.h"
#include "guestmem/status.h"

namespace guestmem::detail {

struct ErrorRep {
  // Zero marks an immortal one, which says no more than its kind: a callback's well-known one, or what stands in when there is no
  // memory for another.
  std::atomic<uint32_t> references{1};
  StatusCode code = StatusCode::kUnknown;
  bool write_refused = false;                // kNotMapped: a store met a mapping that does not take stores
  ErrorInfo info;
  bool named = false;                        // false: a callback's own status
  DebugName name;                                 // the memory's
  std::string message;                       // replaces the kind's own cause text where not empty
};

// Set by harnesses: memory for another error can't be had.
extern constinit bool g_no_error_memory;

// A host bug that nothing can be returned for.
[[noreturn]] void Fatal(const std::string& text);

// An error of the engine's (`name` is null: a callback's own), with what there is to say of it still to be filled in where Editable lets one.
[[gnu::cold, gnu::noinline]] Status MakeError(const DebugName* name, ErrorKind kind, Operation operation);
// The facts of an error just made, whose one reference the caller holds. Null: it is the one that stands in for all.
[[gnu::cold]] ErrorInfo* Editable(Status& status);

// A fully described error of the engine's. `message` may be empty.
[[gnu::cold, gnu::noinline]] Status MakeError(const DebugName* name, ErrorInfo info,
                                              std::string message = {});
// The error for a failed callback, as the first MakeError: keeps the kind of the three well-known statuses, else kBackend.
[[gnu::cold, gnu::noinline]] Status MakeCallbackError(const DebugName* name, Operation operation, Status cause, bool write_refused);

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_TYPES_ERROR_REP_H_
