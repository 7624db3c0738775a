#include "guestmem/status.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "types/error_rep.h"

namespace guestmem {
namespace {

using detail::ErrorRep;

StatusCode CodeOf(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kOutOfRange:
      return StatusCode::kOutOfRange;
    case ErrorKind::kAccessDenied:
      return StatusCode::kPermissionDenied;
    case ErrorKind::kNotMapped:
    case ErrorKind::kNotLockable:
    case ErrorKind::kLocked:
      return StatusCode::kFailedPrecondition;
    case ErrorKind::kNoFallback:
      return StatusCode::kUnimplemented;
    case ErrorKind::kInvalidGpn:
    case ErrorKind::kMisaligned:
    case ErrorKind::kInvalidArgument:
      return StatusCode::kInvalidArgument;
    case ErrorKind::kResourceExhausted:
      return StatusCode::kResourceExhausted;
    case ErrorKind::kBackend:
      break;
  }
  return StatusCode::kUnknown;
}

std::string Hex(uint64_t value) {
  char text[2 + 16 + 1];
  std::snprintf(text, sizeof text, "0x%" PRIx64, value);
  return text;
}

std::string CauseOf(const ErrorRep& rep) {
  if (!rep.message.empty()) {
    return rep.message;
  }
  switch (rep.info.kind) {
    case ErrorKind::kOutOfRange:
      return "the range is not inside memory";
    case ErrorKind::kAccessDenied:
      return "the page's access bit is clear";
    case ErrorKind::kNotMapped:
      return rep.write_refused ? "the page is mapped read-only or not at all" : "the page is not mapped";
    case ErrorKind::kNotLockable:
      return "the memory cannot be locked";
    case ErrorKind::kLocked:
      return rep.info.gpn ? "page " + Hex(*rep.info.gpn) + " is locked" : "the page is locked";
    case ErrorKind::kNoFallback:
      return "the backing has no fallback for this operation";
    case ErrorKind::kInvalidGpn:
      return rep.info.gpn ? "invalid guest page number " + Hex(*rep.info.gpn) : "invalid guest page number";
    case ErrorKind::kMisaligned:
      return "the address is not naturally aligned";
    case ErrorKind::kInvalidArgument:
      return "invalid argument";
    case ErrorKind::kResourceExhausted:
      return "out of memory";
    case ErrorKind::kBackend:
      break;
  }
  return rep.info.cause.ok() ? "the backing gave no reason" : rep.info.cause.ToString();
}

// Out of memory while describing an error: this one needs none, and is never freed.
ErrorRep* OutOfMemoryRep() {
  static ErrorRep* const rep = [] {
    alignas(ErrorRep) static std::byte storage[sizeof(ErrorRep)];
    auto* immortal = new (storage) ErrorRep;
    immortal->references = 0;
    immortal->info.kind = ErrorKind::kResourceExhausted;
    immortal->code = StatusCode::kResourceExhausted;
    return immortal;
  }();
  return rep;
}

ErrorRep* NewRep() { return new (std::nothrow) ErrorRep; }

Status WellKnown(ErrorKind kind) {
  ErrorInfo info;
  info.kind = kind;
  return detail::MakeError(nullptr, std::move(info));
}

}  // namespace

void detail::Fatal(const std::string& text) {
  std::fprintf(stderr, "guestmem: fatal: %s\n", text.c_str());
  std::abort();
}

void Status::Ref(ErrorRep* rep) noexcept {
  if (rep->references.load(std::memory_order_relaxed) != 0) {
    rep->references.fetch_add(1, std::memory_order_relaxed);
  }
}

void Status::Unref(ErrorRep* rep) noexcept {
  if (rep->references.load(std::memory_order_relaxed) != 0 &&
      rep->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    delete rep;
  }
}

const ErrorInfo& Status::info() const {
  if (ok()) {
    detail::Fatal("Status::info() of an OK status");
  }
  return rep_->info;
}

ErrorKind Status::kind() const { return info().kind; }

StatusCode Status::code() const noexcept { return ok() ? StatusCode::kOk : rep_->code; }

std::string Status::ToString() const {
  if (ok()) {
    return "OK";
  }
  const ErrorInfo& info = rep_->info;
  if (rep_->name == nullptr) {
    return CauseOf(*rep_);
  }
  std::string text = "guest memory '" + *rep_->name + "': " + Name(info.operation) + " error: failed to access ";
  if (info.range) {
    const auto [start, length] = *info.range;
    text += Hex(start) + (length > ~uint64_t{0} - start ? "+" + Hex(length) : "-" + Hex(start + length));
  } else {
    text += "memory";
  }
  if (info.fault_address && !(info.range && info.range->start == *info.fault_address)) {
    text += " at " + Hex(*info.fault_address);
  }
  return text + ": " + CauseOf(*rep_);
}

Status AccessDenied() { return WellKnown(ErrorKind::kAccessDenied); }
Status NotMapped() { return WellKnown(ErrorKind::kNotMapped); }
Status NoFallback() { return WellKnown(ErrorKind::kNoFallback); }

Status BackendError(StatusCode code, std::string_view message, std::optional<uint64_t> address, uint64_t transferred) {
  ErrorRep* rep = NewRep();
  if (rep == nullptr) {
    return Status(OutOfMemoryRep());
  }
  rep->code = code == StatusCode::kOk ? StatusCode::kUnknown : code;
  rep->message = message.empty() ? "error of the backing" : message;
  rep->info.fault_address = address;
  rep->info.transferred = transferred;
  return Status(rep);
}

const char* Name(ErrorKind kind) {
  static constexpr const char* kNames[] = {
      "out of range", "access denied", "not mapped", "not lockable",     "locked",             "no fallback",
      "invalid GPN",  "misaligned",    "invalid argument", "resource exhausted", "backend",
  };
  return kNames[static_cast<size_t>(kind)];
}

const char* Name(Operation operation) {
  static constexpr const char* kNames[] = {
      "callback", "create", "read", "write", "fill", "compare exchange", "lock", "subrange", "probe", "revoke",
  };
  return kNames[static_cast<size_t>(operation)];
}

namespace detail {

Status MakeError(std::shared_ptr<const std::string> name, ErrorInfo info, std::string message) {
  ErrorRep* rep = NewRep();
  if (rep == nullptr) {
    return Status(OutOfMemoryRep());
  }
  rep->code = CodeOf(info.kind);
  rep->info = std::move(info);
  rep->name = std::move(name);
  rep->message = std::move(message);
  return Status(rep);
}

Status MakeCallbackError(std::shared_ptr<const std::string> name, ErrorInfo info, bool write_refused) {
  const ErrorRep* cause = info.cause.rep();
  StatusCode code = cause == nullptr ? StatusCode::kUnknown : cause->code;
  // A status of another GuestMemory has a name: it is the callback's own affair, whatever its kind.
  const bool keeps_kind = cause != nullptr && cause->name == nullptr && cause->info.kind != ErrorKind::kBackend;
  write_refused = write_refused || (keeps_kind && cause->write_refused);
  info.kind = keeps_kind ? cause->info.kind : ErrorKind::kBackend;
  if (keeps_kind) {
    info.cause = Status();
  }
  Status status = MakeError(std::move(name), std::move(info));
  // Safe because the only other holder could be the immortal error, which is left alone.
  auto* rep = const_cast<ErrorRep*>(status.rep());
  if (rep != OutOfMemoryRep()) {
    rep->code = code;
    rep->write_refused = write_refused;
  }
  return status;
}

void ForgetTransferred(Status& status) {
  // Safe because the caller made it and holds the one reference; the immortal error counts nothing anyway.
  auto* const rep = const_cast<ErrorRep*>(status.rep());
  if (rep != OutOfMemoryRep()) {
    rep->info.transferred = 0;
  }
}

Status NonOk(Status status) noexcept {
  if (!status.ok()) [[likely]] {
    return status;
  }
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidArgument;
  return MakeError(nullptr, std::move(info), "a Result was made from an OK status");
}

void FatalResultAccess(const Status& status) { Fatal("value() of a Result that holds an error: " + status.ToString()); }

}  // namespace detail
}  // namespace guestmem
