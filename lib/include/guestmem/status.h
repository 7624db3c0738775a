// Status and Result<T>: how every fallible call says what happened.
//
// A Status is one word, null when OK. An error is built out of line on a cold path and holds facts; its text is made
// only when asked for. No exceptions are thrown, and no call that returns a Status aborts on a guest's behalf.
//
//   guestmem::Status s = memory.WriteAt(gpa, bytes);
//   if (!s.ok()) {
//     log(s.ToString());                       // guest memory 'ram': write error: failed to access 0x0-0x10 at 0x8: ...
//     residual = length - s.info().transferred;
//   }
//
// Where there is no memory to describe an error with, it keeps its kind and code and says no more: no operation, range, address
// or count, and the kind's own text.
//
// When not: do not keep a Status as a record of a whole memory; it shares ownership of the memory's name only.
// Threads: a Status may be copied, read and dropped from any thread; one object is not to be assigned while another
// thread uses it. Signal context: no.

#ifndef GUESTMEM_STATUS_H_
#define GUESTMEM_STATUS_H_

#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "guestmem/types.h"

namespace guestmem {

// The codes of absl::StatusCode, by number, so that guestmem/absl_status.h is a cast.
enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// What went wrong.
enum class ErrorKind : uint8_t {
  kOutOfRange,         // the range does not lie in memory
  kAccessDenied,       // an access bitmap refused, and the handler did not help
  kNotMapped,          // the mapping faulted, and the handler did not help
  kNotLockable,        // the memory cannot be locked there
  kLocked,             // the page is locked; ErrorInfo::gpn names the lowest such page
  kNoFallback,         // the backing has no slow path for this
  kInvalidGpn,         // ErrorInfo::gpn has no 64-bit address range
  kMisaligned,         // a compare-exchange that is not naturally aligned
  kInvalidArgument,    // misuse by the host
  kResourceExhausted,  // memory could not be had; nothing changed
  kBackend,            // a callback's own status: see ErrorInfo::cause
};

// What the caller asked for. kNone marks a callback's own status, before the engine reports it.
enum class Operation : uint8_t {
  kNone,
  kCreate,
  kRead,
  kWrite,
  kFill,
  kCompareExchange,
  kLock,
  kSubrange,
  kProbe,
  kRevoke,
  kAdd,
  kRemove,
  kChange,
};

struct ErrorInfo;
namespace detail {
struct ErrorRep;
}

class [[nodiscard]] Status {
 public:
  // OK.
  constexpr Status() noexcept = default;
  Status(const Status& other) noexcept : rep_(other.rep_) {
    if (rep_ != nullptr) [[unlikely]] {
      Ref(rep_);
    }
  }
  Status(Status&& other) noexcept : rep_(std::exchange(other.rep_, nullptr)) {}
  Status& operator=(Status other) noexcept {
    std::swap(rep_, other.rep_);
    return *this;
  }
  ~Status() {
    if (rep_ != nullptr) [[unlikely]] {
      Unref(rep_);
    }
  }

  bool ok() const noexcept { return rep_ == nullptr; }

  // The facts of an error; of a temporary, a copy. Precondition: !ok() (checked: a host bug, fatal).
  const ErrorInfo& info() const&;
  ErrorInfo info() const&&;
  ErrorKind kind() const;

  // The kind's code (SPEC's table; a callback's own for kBackend); kOk when OK.
  StatusCode code() const noexcept;

  // "OK", or the whole message; allocates. "(out of memory)" where there is none for it.
  std::string ToString() const noexcept;

  // Takes over one reference; for the library's own use.
  explicit Status(detail::ErrorRep* rep) noexcept : rep_(rep) {}
  const detail::ErrorRep* rep() const& noexcept { return rep_; }
  const detail::ErrorRep* rep() const&& = delete;
  // Gives its reference away, leaving OK; the counterpart.
  detail::ErrorRep* Release() && noexcept { return std::exchange(rep_, nullptr); }

 private:
  static void Ref(detail::ErrorRep* rep) noexcept;
  static void Unref(detail::ErrorRep* rep) noexcept;

  detail::ErrorRep* rep_ = nullptr;
};

// The facts of one error. Addresses and GPNs are in the coordinates of the GuestMemory that was called; in a
// callback's own status they are in the backing's.
struct ErrorInfo {
  ErrorKind kind = ErrorKind::kBackend;
  Operation operation = Operation::kNone;
  std::optional<AddressRange> range = {};     // what was asked for, where the operation has one range
  std::optional<uint64_t> fault_address = {};  // where the failing check stopped
  std::optional<uint64_t> gpn = {};            // kInvalidGpn, kLocked
  uint64_t transferred = 0;                    // bytes moved before the failure, from the start of the range
  Status cause = {};                           // the callback's own status; OK where there was none
};

// For implementations of the interfaces: any kind that their headers name, with the facts that `info` has and a text, or the kind's
// own where `message` is empty. For kBackend the code is kUnknown: BackendError has more to say.
//
//   return guestmem::MakeStatus({.kind = guestmem::ErrorKind::kLocked, .gpn = page});
//   return guestmem::MakeStatus({.kind = guestmem::ErrorKind::kInvalidArgument}, "the region is mapped already");
//
// From a backing's callback it keeps its kind on the way to the caller, and text, address, page and count count as BackendError's
// do: in the backing's coordinates, and ignored if they lie outside of what was handed over. The operation must be kNone there.
[[gnu::cold]] Status MakeStatus(ErrorInfo info, std::string_view message = {}) noexcept;

// The same without a word more; what the defaults of callbacks return.
Status AccessDenied() noexcept;
Status NotMapped() noexcept;
Status NoFallback() noexcept;

// For callbacks: a status of the backing's own. The caller gets kBackend with this code and text.
// `address` (in the backing's coordinates) is where it failed and `transferred` how many bytes of the range handed over
// had been moved; both are ignored if they lie outside that range. `code` must not be kOk (kUnknown is used then).
[[gnu::cold]] Status BackendError(StatusCode code, std::string_view message, std::optional<uint64_t> address = std::nullopt,
                                  uint64_t transferred = 0) noexcept;

const char* Name(ErrorKind kind) noexcept;
const char* Name(Operation operation) noexcept;

namespace detail {
[[noreturn]] void FatalResultAccess(const Status& status);
}

// A T, or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  // Both conversions are implicit, so that a function can `return value;` or `return status;`.
  Result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : value_(std::move(value)) {}
  // Precondition: !status.ok() (an OK status becomes kBackend, code kInvalidArgument: a Result without value must say why).
  Result(Status status) noexcept;

  Result(Result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) : status_(std::move(other.status_)) {
    if (status_.ok()) {
      ::new (static_cast<void*>(std::addressof(value_))) T(std::move(other.value_));
    } else {
      // A moved-from error must not pass for a value.
      other.status_ = status_;
    }
  }
  Result(const Result& other)
    requires std::is_copy_constructible_v<T>
      : status_(other.status_) {
    if (status_.ok()) {
      ::new (static_cast<void*>(std::addressof(value_))) T(other.value_);
    }
  }
  Result& operator=(Result other) noexcept(std::is_nothrow_move_constructible_v<T>) {
    this->~Result();
    return *::new (static_cast<void*>(this)) Result(std::move(other));
  }
  ~Result() {
    if (status_.ok()) [[likely]] {
      value_.~T();
    }
  }

  bool ok() const noexcept { return status_.ok(); }

  // Of a temporary, everything is given by value: a reference into it would not outlive the expression.
  const Status& status() const& noexcept { return status_; }
  Status status() const&& noexcept { return status_; }

  // Precondition: ok() (checked: a host bug, fatal).
  T& value() & { return Checked(), value_; }
  const T& value() const& { return Checked(), value_; }
  T value() && { return Checked(), std::move(value_); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  T* operator->() & { return &value(); }
  const T* operator->() const& { return &value(); }
  const T* operator->() const&& = delete;  // value().member, or a name for the result

  T value_or(T other) const& { return ok() ? value_ : std::move(other); }
  T value_or(T other) && { return ok() ? std::move(value_) : std::move(other); }

 private:
  void Checked() const {
    if (!ok()) [[unlikely]] {
      detail::FatalResultAccess(status_);
    }
  }

  Status status_;
  union {
    T value_;  // alive while status_ is OK
  };
};

namespace detail {
Status NonOk(Status status) noexcept;
}

template <typename T>
Result<T>::Result(Status status) noexcept : status_(detail::NonOk(std::move(status))) {}

}  // namespace guestmem

#endif  // GUESTMEM_STATUS_H_
