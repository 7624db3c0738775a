// The inside of an error, and the ways the library makes one. All of it cold.

#ifndef GUESTMEM_SRC_TYPES_ERROR_REP_H_
#define GUESTMEM_SRC_TYPES_ERROR_REP_H_

#include <atomic>
#include <memory>
#include <string>

#include "guestmem/status.h"

namespace guestmem::detail {

struct ErrorRep {
  // Zero marks the immortal error that stands in when there is no memory for another.
  std::atomic<uint32_t> references{1};
  StatusCode code = StatusCode::kUnknown;
  bool write_refused = false;                // kNotMapped: a store met a mapping that does not take stores
  ErrorInfo info;
  std::shared_ptr<const std::string> name;   // the memory's debug name; null in a callback's own status
  std::string message;                       // replaces the kind's own cause text where not empty
};

// A host bug that nothing can be returned for.
[[noreturn]] void Fatal(const std::string& text);

// A fully described error of the engine's. `message` may be empty.
[[gnu::cold, gnu::noinline]] Status MakeError(std::shared_ptr<const std::string> name, ErrorInfo info,
                                              std::string message = {});
// The error for a failed callback: keeps the kind of the three well-known statuses, else kBackend. `info.kind` is
// overwritten.
[[gnu::cold, gnu::noinline]] Status MakeCallbackError(std::shared_ptr<const std::string> name, ErrorInfo info,
                                                      bool write_refused);

// For an error just made: an overlap of the host buffer leaves nothing to count on (SPEC 4).
[[gnu::cold]] void ForgetTransferred(Status& status);

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_TYPES_ERROR_REP_H_
