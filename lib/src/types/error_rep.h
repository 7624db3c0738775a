// The inside of an error, and the ways the library makes one. All of it cold, and none of it throws: where there is no memory to
// describe an error with, it is an immortal one that says no more than its kind and code.

#ifndef GUESTMEM_SRC_TYPES_ERROR_REP_H_
#define GUESTMEM_SRC_TYPES_ERROR_REP_H_

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <new>
#include <string_view>

#include "guestmem/detail/debug_name.h"
#include "guestmem/status.h"

namespace guestmem::detail {

struct ErrorRep {
  std::atomic<uint32_t> references{1};  // zero marks an immortal one
  StatusCode code = StatusCode::kUnknown;
  bool write_refused = false;  // kNotMapped: a store met a mapping that does not take stores
  bool named = false;          // false: a callback's own status; true without operation: the engine's, undescribed
  ErrorInfo info;
  DebugName name;              // the memory's
  std::string_view message;    // replaces the kind's own cause text where not empty; stands behind this object
};

// Set by harnesses: memory for another error can't be had.
extern constinit bool g_no_error_memory;

// A text made without memory; cut where it is longer than what the library has to say.
class Text {
 public:
  [[gnu::format(printf, 2, 3)]] explicit Text(const char* format, ...) noexcept {
    va_list values;
    va_start(values, format);
    std::vsnprintf(text_, sizeof text_, format, values);
    va_end(values);
  }
  operator std::string_view() const noexcept { return text_; }

 private:
  char text_[256];
};

// A host bug that nothing can be returned for.
[[noreturn]] void Fatal(std::string_view text, std::string_view more = {}) noexcept;

// An error of the engine's (`name` is null: a callback's own), with what there is to say of it still to be filled in where Editable lets one.
[[gnu::cold, gnu::noinline]] Status MakeError(const DebugName* name, ErrorKind kind, Operation operation,
                                              std::string_view message = {}) noexcept;
// The facts of an error just made, whose one reference the caller holds. Null: there was no memory to describe it.
[[gnu::cold]] ErrorInfo* Editable(Status& status) noexcept;

// A fully described error of the engine's. `message` may be empty.
[[gnu::cold, gnu::noinline]] Status MakeError(const DebugName* name, ErrorInfo info, std::string_view message = {}) noexcept;
// The same with a name that may be long.
[[gnu::cold]] Status MakeNamedError(std::string_view name, ErrorInfo info, std::string_view message = {}) noexcept;
// The error for a failed callback, as the first MakeError: a status of the callback's own keeps its kind, another memory's is kBackend.
[[gnu::cold, gnu::noinline]] Status MakeCallbackError(const DebugName* name, Operation operation, Status cause,
                                                      bool write_refused) noexcept;

// kResourceExhausted, and no more.
[[gnu::cold]] Status OutOfMemory() noexcept;

// What `make` returns, or OutOfMemory() where operator new throws in it: what may be undone must undo itself.
template <typename Make>
auto OrOutOfMemory(Make make) noexcept -> decltype(make()) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
}

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_TYPES_ERROR_REP_H_
