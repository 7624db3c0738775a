#include "guestmem/status.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <new>

#include "types/error_rep.h"

namespace guestmem {
namespace {

using detail::ErrorRep;

struct KindFacts {
  const char* name;
  StatusCode code;
  const char* cause;  // of kinds about a GPN, that follows
};
constexpr KindFacts kKinds[] = {
    {"out of range", StatusCode::kOutOfRange, "the range is not inside memory"},
    {"access denied", StatusCode::kPermissionDenied, "the page's access bit is clear"},
    {"not mapped", StatusCode::kFailedPrecondition, "the page is not mapped"},
    {"not lockable", StatusCode::kFailedPrecondition, "the memory cannot be locked"},
    {"locked", StatusCode::kFailedPrecondition, "there is a lock on page"},
    {"no fallback", StatusCode::kUnimplemented, "the backing has no fallback for this operation"},
    {"invalid GPN", StatusCode::kInvalidArgument, "invalid guest page number"},
    {"misaligned", StatusCode::kInvalidArgument, "the address is not naturally aligned"},
    {"invalid argument", StatusCode::kInvalidArgument, "invalid argument"},
    {"resource exhausted", StatusCode::kResourceExhausted, "out of memory"},
    {"backend", StatusCode::kUnknown, "the backing gave no reason"},
};
static_assert(std::size(kKinds) == static_cast<size_t>(ErrorKind::kBackend) + 1);
const KindFacts& FactsOf(ErrorKind kind) { return kKinds[static_cast<size_t>(kind)]; }

void AppendHex(std::string& text, uint64_t value) {
  char digits[2 + 16] = {'0', 'x'};
  text.append(digits, std::to_chars(digits + 2, std::end(digits), value, 16).ptr);
}

void AppendCause(std::string& text, const ErrorRep& rep) {
  if (!rep.message.empty()) {
    text += rep.message;
  } else if (rep.info.kind == ErrorKind::kBackend && !rep.info.cause.ok()) {
    text += rep.info.cause.ToString();
  } else {
    text += rep.write_refused ? "the page is mapped read-only or not at all" : FactsOf(rep.info.kind).cause;
    if (rep.info.gpn) {
      text += ' ';
      AppendHex(text, *rep.info.gpn);
    }
  }
}

// An error that says no more than its kind: it needs no memory and is never freed.
template <ErrorKind kKind>
Status WellKnown() {
  static ErrorRep* const rep = [] {
    alignas(ErrorRep) static std::byte storage[sizeof(ErrorRep)];
    auto* immortal = new (storage) ErrorRep;
    immortal->references = 0;
    immortal->info.kind = kKind;
    immortal->code = FactsOf(kKind).code;
    return immortal;
  }();
  return Status(rep);
}

// Out of memory while describing an error.
Status OutOfMemory() { return WellKnown<ErrorKind::kResourceExhausted>(); }

ErrorRep* NewRep() { return detail::g_no_error_memory ? nullptr : new (std::nothrow) ErrorRep; }

}  // namespace

constinit bool detail::g_no_error_memory = false;

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
  const uint32_t references = rep->references.load(std::memory_order_acquire);
  if (references == 0) {
    return;
  }
  // The last one has it to itself, and pays for no atomic subtraction.
  if (references == 1 || rep->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
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
  std::string text;
  if (rep_->named) {
    text.reserve(rep_->name.view().size() + 160);  // what most of them take, at once
    text += "guest memory '";
    text += rep_->name.view();
    text += "': ";
    text += Name(info.operation);
    text += " error: failed to access ";
    if (info.range) {
      const auto [start, length] = *info.range;
      AppendHex(text, start);
      const bool wraps = length > ~uint64_t{0} - start;
      text += wraps ? '+' : '-';
      AppendHex(text, wraps ? length : start + length);
    } else {
      text += "memory";
    }
    if (info.fault_address && !(info.range && info.range->start == *info.fault_address)) {
      text += " at ";
      AppendHex(text, *info.fault_address);
    }
    text += ": ";
  }
  AppendCause(text, *rep_);
  return text;
}

Status AccessDenied() { return WellKnown<ErrorKind::kAccessDenied>(); }
Status NotMapped() { return WellKnown<ErrorKind::kNotMapped>(); }
Status NoFallback() { return WellKnown<ErrorKind::kNoFallback>(); }

Status BackendError(StatusCode code, std::string_view message, std::optional<uint64_t> address, uint64_t transferred) {
  ErrorRep* rep = NewRep();
  if (rep == nullptr) {
    return OutOfMemory();
  }
  rep->code = code == StatusCode::kOk ? StatusCode::kUnknown : code;
  rep->message = message.empty() ? "error of the backing" : message;
  rep->info.fault_address = address;
  rep->info.transferred = transferred;
  return Status(rep);
}

const char* Name(ErrorKind kind) { return FactsOf(kind).name; }

const char* Name(Operation operation) {
  static constexpr const char* kNames[] = {
      "callback", "create", "read", "write", "fill", "compare exchange", "lock", "subrange", "probe", "revoke",
  };
  return kNames[static_cast<size_t>(operation)];
}

namespace detail {

namespace {

// Safe because the caller made it and has not handed it on.
ErrorRep& Rep(Status& status) { return *const_cast<ErrorRep*>(status.rep()); }

}  // namespace

ErrorInfo* Editable(Status& status) {
  return Rep(status).references.load(std::memory_order_relaxed) == 0 ? nullptr : &Rep(status).info;
}

Status MakeError(const DebugName* name, ErrorKind kind, Operation operation) {
  ErrorRep* rep = NewRep();
  if (rep == nullptr) {
    return OutOfMemory();
  }
  rep->code = FactsOf(kind).code;
  rep->info.kind = kind;
  rep->info.operation = operation;
  if (name != nullptr) {
    rep->named = true;
    rep->name = *name;
  }
  return Status(rep);
}

Status MakeError(const DebugName* name, ErrorInfo info, std::string message) {
  Status status = MakeError(name, info.kind, info.operation);
  if (ErrorInfo* const made = Editable(status)) {
    *made = std::move(info);
    Rep(status).message = std::move(message);
  }
  return status;
}

Status MakeCallbackError(const DebugName* name, Operation operation, Status cause, bool write_refused) {
  const ErrorRep* const own = cause.rep();
  // A status of another GuestMemory has a name: it is the callback's own affair, whatever its kind.
  const bool keeps_kind = own != nullptr && !own->named &&
                          (own->info.kind == ErrorKind::kAccessDenied || own->info.kind == ErrorKind::kNotMapped ||
                           own->info.kind == ErrorKind::kNoFallback);
  Status status = MakeError(name, keeps_kind ? own->info.kind : ErrorKind::kBackend, operation);
  if (ErrorInfo* const info = Editable(status)) {
    Rep(status).code = own == nullptr ? StatusCode::kUnknown : own->code;
    Rep(status).write_refused = info->kind == ErrorKind::kNotMapped && (write_refused || own->write_refused);
    info->cause = std::move(cause);
  }
  return status;
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
