// Status and Result<T> as absl::Status and absl::StatusOr<T>, and back for callbacks. Header only: the library itself
// needs no Abseil, and this header uses whichever one the program does.
//
//   absl::StatusOr<uint32_t> ReadFlags(uint64_t gpa) { return guestmem::ToAbsl(memory.ReadPlain<uint32_t>(gpa)); }
//
// An absl::Status has the code and the whole text. The facts (ErrorInfo: how much was transferred, where it stopped) stay
// behind: take what you need of them first.
//
// When not: on a hot error path; the text is made here (some hundred nanoseconds). An OK status costs nothing.
// Threads: any. Signal context: no.

#ifndef GUESTMEM_ABSL_STATUS_H_
#define GUESTMEM_ABSL_STATUS_H_

#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "guestmem/status.h"

namespace guestmem {

// Without memory for the text, the code alone.
inline absl::Status ToAbsl(const Status& status) noexcept {
  if (status.ok()) [[likely]] {
    return absl::OkStatus();
  }
  const auto code = static_cast<absl::StatusCode>(status.code());  // Abseil's by number
#if defined(__cpp_exceptions)
  try {
#endif
    const std::string text = status.ToString();
    // By pointer and size: absl::string_view need not be std::string_view.
    return absl::Status(code, {text.data(), text.size()});
#if defined(__cpp_exceptions)
  } catch (const std::bad_alloc&) {
    return absl::Status(code, {});
  }
#endif
}

template <typename T>
absl::StatusOr<T> ToAbsl(const Result<T>& result) {
  if (!result.ok()) [[unlikely]] {
    return ToAbsl(result.status());
  }
  return *result;
}
template <typename T>
absl::StatusOr<T> ToAbsl(Result<T>&& result) {
  if (!result.ok()) [[unlikely]] {
    return ToAbsl(result.status());
  }
  return *std::move(result);
}

// For callbacks of a backing that speaks Abseil: OK, or BackendError with the code and text.
inline Status FromAbsl(const absl::Status& status, std::optional<uint64_t> address = std::nullopt,
                       uint64_t transferred = 0) {
  if (status.ok()) [[likely]] {
    return {};
  }
  return BackendError(static_cast<StatusCode>(status.code()), {status.message().data(), status.message().size()}, address,
                      transferred);
}

}  // namespace guestmem

#endif  // GUESTMEM_ABSL_STATUS_H_
