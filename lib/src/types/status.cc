#include "guestmem/status.h"

#include <algorithm>
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
  const char* cause;
  const char* gpn = "";  // what stands between that and the GPN, where there is one
};
constexpr KindFacts kKinds[] = {
    {"out of range", StatusCode::kOutOfRange, "the range is not inside memory"},
    {"access denied", StatusCode::kPermissionDenied, "the page's access bit is clear"},
    {"not mapped", StatusCode::kFailedPrecondition, "the page is not mapped"},
    {"not lockable", StatusCode::kFailedPrecondition, "the memory cannot be locked"},
    {"locked", StatusCode::kFailedPrecondition, "there is a lock", " on page"},
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
  const Status& cause = rep.info.cause;
  if (!rep.message.empty()) {
    text += rep.message;
  } else if (!cause.ok() && (rep.info.kind == ErrorKind::kBackend || !cause.rep()->message.empty())) {
    text += cause.ToString();
  } else {
    const KindFacts& facts = FactsOf(rep.info.kind);
    text += rep.write_refused ? "the page is mapped read-only or not at all" : facts.cause;
    if (rep.info.gpn) {
      text += facts.gpn;
      text += ' ';
      AppendHex(text, *rep.info.gpn);
    }
  }
}

// An error that says no more than its kind and code: it needs no memory and is never freed. `named`: the engine's, which a callback
// that passes it on does not make its own.
Status Undescribed(ErrorKind kind, StatusCode code, bool named = false) noexcept {
  static constexpr auto kCodes = static_cast<size_t>(StatusCode::kUnauthenticated) + 1;
  static constexpr auto kBackend = static_cast<size_t>(ErrorKind::kBackend);
  // One of each kind, and of kBackend one of each code; then the same, named.
  static constexpr size_t kBoth = kBackend + kCodes;
  static ErrorRep* const reps = [] {
    alignas(ErrorRep) static std::byte storage[2 * kBoth * sizeof(ErrorRep)];
    auto* const made = reinterpret_cast<ErrorRep*>(storage);
    for (size_t all = 0; all < 2 * kBoth; ++all) {
      const size_t i = all % kBoth;
      auto* const immortal = new (made + all) ErrorRep;
      immortal->references = 0;
      immortal->named = all >= kBoth;
      immortal->info.kind = static_cast<ErrorKind>(std::min(i, kBackend));
      immortal->code = i < kBackend ? FactsOf(immortal->info.kind).code : static_cast<StatusCode>(i - kBackend);
    }
    return made;
  }();
  const auto index = static_cast<size_t>(kind);
  const auto number = static_cast<size_t>(code);
  const size_t of_backend = number != 0 && number < kCodes ? number : static_cast<size_t>(StatusCode::kUnknown);
  return Status(&reps[(named ? kBoth : 0) + (index < kBackend ? index : kBackend + of_backend)]);
}

// With the message behind it, in one allocation. Null: it can't be had.
ErrorRep* NewRep(ErrorKind kind, StatusCode code, std::string_view message) noexcept {
  if (detail::g_no_error_memory) {
    return nullptr;
  }
  void* const memory = ::operator new(sizeof(ErrorRep) + message.size(), std::nothrow);
  if (memory == nullptr) {
    return nullptr;
  }
  auto* const rep = new (memory) ErrorRep;
  rep->code = code;
  rep->info.kind = kind;
  if (!message.empty()) {
    auto* const text = reinterpret_cast<char*>(rep + 1);
    message.copy(text, message.size());
    rep->message = {text, message.size()};
  }
  return rep;
}

// A callback's own status: it has no name.
Status Own(ErrorKind kind, StatusCode code, ErrorInfo info, std::string_view message) noexcept {
  ErrorRep* const rep = NewRep(kind, code, message);
  if (rep == nullptr) {
    return Undescribed(kind, code);
  }
  rep->info = std::move(info);
  rep->info.kind = kind;
  return Status(rep);
}

}  // namespace

constinit bool detail::g_no_error_memory = false;

void detail::Fatal(std::string_view text, std::string_view more) noexcept {
  std::fprintf(stderr, "guestmem: fatal: %.*s%.*s\n", static_cast<int>(text.size()), text.data(), static_cast<int>(more.size()),
               more.data());
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
    rep->~ErrorRep();
    ::operator delete(rep);
  }
}

const ErrorInfo& Status::info() const& {
  if (ok()) {
    detail::Fatal("Status::info() of an OK status");
  }
  return rep_->info;
}

ErrorInfo Status::info() const&& { return info(); }

ErrorKind Status::kind() const { return info().kind; }

StatusCode Status::code() const noexcept { return ok() ? StatusCode::kOk : rep_->code; }

std::string Status::ToString() const noexcept try {
  if (ok()) {
    return "OK";
  }
  const ErrorInfo& info = rep_->info;
  std::string text;
  if (rep_->named && info.operation != Operation::kNone) {
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
} catch (const std::bad_alloc&) {
  return "(out of memory)";  // short enough to need none
}

Status AccessDenied() noexcept { return Undescribed(ErrorKind::kAccessDenied, StatusCode::kOk); }
Status NotMapped() noexcept { return Undescribed(ErrorKind::kNotMapped, StatusCode::kOk); }
Status NoFallback() noexcept { return Undescribed(ErrorKind::kNoFallback, StatusCode::kOk); }

Status MakeStatus(ErrorInfo info, std::string_view message) noexcept {
  const ErrorKind kind = std::min(info.kind, ErrorKind::kBackend);
  return Own(kind, FactsOf(kind).code, std::move(info), message);
}

Status BackendError(StatusCode code, std::string_view message, std::optional<uint64_t> address, uint64_t transferred) noexcept {
  return Own(ErrorKind::kBackend, code == StatusCode::kOk ? StatusCode::kUnknown : code,
             {.fault_address = address, .transferred = transferred}, message.empty() ? "error of the backing" : message);
}

const char* Name(ErrorKind kind) noexcept { return FactsOf(kind).name; }

const char* Name(Operation operation) noexcept {
  static constexpr const char* kNames[] = {
      "callback", "create", "read", "write", "fill", "compare exchange", "lock", "subrange", "probe", "revoke", "add", "remove",
      "change",
  };
  return kNames[static_cast<size_t>(operation)];
}

namespace detail {

namespace {

// Safe because the caller made it and has not handed it on.
ErrorRep& Rep(Status& status) { return *const_cast<ErrorRep*>(status.rep()); }

}  // namespace

ErrorInfo* Editable(Status& status) noexcept {
  return Rep(status).references.load(std::memory_order_relaxed) == 0 ? nullptr : &Rep(status).info;
}

Status MakeError(const DebugName* name, ErrorKind kind, Operation operation, std::string_view message) noexcept {
  const StatusCode code = FactsOf(kind).code;
  ErrorRep* const rep = NewRep(kind, code, message);
  if (rep == nullptr) {
    return Undescribed(kind, code, name != nullptr);
  }
  rep->info.operation = operation;
  if (name != nullptr) {
    rep->named = true;
    rep->name = *name;
  }
  return Status(rep);
}

Status MakeError(const DebugName* name, ErrorInfo info, std::string_view message) noexcept {
  Status status = MakeError(name, info.kind, info.operation, message);
  if (ErrorInfo* const made = Editable(status)) {
    *made = std::move(info);
  }
  return status;
}

Status MakeNamedError(std::string_view name, ErrorInfo info, std::string_view message) noexcept try {
  const DebugName shown(name);
  return MakeError(&shown, std::move(info), message);
} catch (const std::bad_alloc&) {
  return Undescribed(info.kind, FactsOf(info.kind).code, true);
}

Status MakeCallbackError(const DebugName* name, Operation operation, Status cause, bool write_refused) noexcept {
  const ErrorRep* const own = cause.rep();
  // A status of another GuestMemory has a name: it is the callback's own affair, whatever its kind.
  const ErrorKind kind = own == nullptr || own->named ? ErrorKind::kBackend : own->info.kind;
  const StatusCode code = own == nullptr ? StatusCode::kUnknown : own->code;
  Status status = MakeError(name, kind, operation);
  ErrorInfo* const info = Editable(status);
  if (info == nullptr) {
    return Undescribed(kind, code, true);
  }
  Rep(status).code = code;
  Rep(status).write_refused = kind == ErrorKind::kNotMapped && (write_refused || own->write_refused);
  info->cause = std::move(cause);
  return status;
}

Status OutOfMemory() noexcept { return Undescribed(ErrorKind::kResourceExhausted, StatusCode::kOk); }

Status NonOk(Status status) noexcept {
  if (!status.ok()) [[likely]] {
    return status;
  }
  return BackendError(StatusCode::kInvalidArgument, "a Result was made from an OK status");
}

void FatalResultAccess(const Status& status) { Fatal("value() of a Result that holds an error: ", status.ToString()); }

}  // namespace detail
}  // namespace guestmem
