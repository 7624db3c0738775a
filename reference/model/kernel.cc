#include "reference/model/kernel.h"

#include <algorithm>

namespace reference::model {
namespace {

constexpr uint64_t kMemorySize = kMaxPages * kPageSize;
constexpr int kUnknownCode = 2;
constexpr std::array<Access, 3> kAccesses = {Access::kRead, Access::kWrite, Access::kExecute};

bool BitExists(const Backing& setup, uint64_t page, Access access) {
  return setup.present && setup.has_bitmap && !setup.null_bitmap[static_cast<size_t>(access)] && page < setup.pages;
}

// The first byte of the piece that lies on such a page.
template <class IsSuch>
std::optional<uint64_t> FirstOn(const Piece& piece, IsSuch is_such) {
  for (uint64_t page = piece.address / kPageSize; piece.length > 0 && page * kPageSize < piece.address + piece.length; ++page)
    if (is_such(page)) return std::max(page * kPageSize, piece.address);
  return std::nullopt;
}

CallKind FallbackOf(const Request& request) {
  switch (request.transfer) {
    case Transfer::kRead: break;
    case Transfer::kWrite: return CallKind::kWriteFallback;
    case Transfer::kFill: return CallKind::kFillFallback;
    case Transfer::kCompareExchange: return CallKind::kCompareExchangeFallback;
    case Transfer::kProbe:
      if (request.access == Access::kWrite) return CallKind::kCompareExchangeFallback;
  }
  return CallKind::kReadFallback;
}

}  // namespace

Piece Cut(const Piece& piece, uint64_t skip, uint64_t length) {
  return {piece.backing, piece.address + skip, piece.gpa + skip, length, piece.own};
}

bool Has(const Piece& piece, std::optional<uint64_t> address) {
  return address && *address >= piece.address && *address < piece.address + piece.length;
}

bool Overlap(const Piece& one, const Piece& other) {
  return one.backing == other.backing && one.address < other.address + other.length && other.address < one.address + one.length;
}

Span SpanOf(const Piece& piece) { return {static_cast<uint8_t>(piece.backing), piece.address, piece.length, piece.gpa}; }

std::vector<Piece> PiecesOf(const Handle& memory, uint64_t gpa, uint64_t length) {
  std::vector<Piece> pieces;
  for (const Piece& part : memory.parts) {
    if (length == 0 || gpa < part.gpa || gpa - part.gpa >= part.length) continue;
    const uint64_t skip = gpa - part.gpa;
    pieces.push_back(Cut(part, skip, std::min(length, part.length - skip)));
    gpa += pieces.back().length;
    length -= pieces.back().length;
  }
  return pieces;
}

uint64_t LengthOf(std::span<const Piece> pieces) {
  uint64_t length = 0;
  for (const Piece& piece : pieces) length += piece.length;
  return length;
}

Operation OperationOf(Transfer transfer) {
  switch (transfer) {
    case Transfer::kRead: return Operation::kRead;
    case Transfer::kWrite: return Operation::kWrite;
    case Transfer::kFill: return Operation::kFill;
    case Transfer::kCompareExchange: return Operation::kCompareExchange;
    case Transfer::kProbe: break;
  }
  return Operation::kProbe;
}

// ---- Bytes, bits, states.

void Kernel::Start(const World& world) {
  memories.resize(kMaxBackings);
  backings = world.backings.size();
  StartBytes();
  for (uint64_t b = 0; b < backings; ++b) {
    Memory& memory = memories[b];
    const Backing& setup = memory.setup = world.backings[b];
    memory.scripted = !setup.sparse;
    memory.file_page = {};
    memory.locks = {};
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      memory.state[page] = page < setup.pages ? setup.page[page].state : PageState::kRam;
      if (memory.state[page] == PageState::kBus) ZeroPage(b, page);
      const std::array<bool, 3> bits = {setup.page[page].readable, setup.page[page].writable, setup.page[page].executable};
      for (const Access access : kAccesses) {
        const auto a = static_cast<size_t>(access);
        memory.allowed[a][page] = !BitExists(setup, page, access) || bits[a];
      }
    }
  }
  handler_answers_.Start(world.handler);
  fallback_answers_.Start(world.fallback);
  lock_answers.Start(world.lock);
  subrange_answers.Start(world.subrange);
  host_calls_ = 0;
  failing_host_call_ = world.failing_host_call;
  host_error_ = world.host_error;
}

void Kernel::StartBytes() {
  for (uint64_t b = 0; b < backings; ++b) {
    for (uint64_t i = 0; i < kMemorySize; ++i) memories[b].mapped[i] = MappedPattern(b, i);
    for (uint64_t i = 0; i < kMemorySize; ++i) memories[b].slow[i] = SlowPattern(b, i);
  }
  for (uint64_t i = 0; i < file_.size(); ++i) file_[i] = FilePattern(i);
}

void Kernel::ZeroPage(uint64_t backing, uint64_t page) {
  std::fill_n(&memories[backing].mapped[page * kPageSize], kPageSize, uint8_t{0});
}

uint8_t& Kernel::ByteAt(uint64_t backing, uint64_t address, bool slow) {
  Memory& memory = memories[backing];
  if (slow) return memory.slow[address];
  const std::optional<uint64_t> file_page = memory.file_page[address / kPageSize];
  return file_page ? file_[*file_page * kPageSize + address % kPageSize] : memory.mapped[address];
}

void Kernel::AnnounceStore(uint64_t backing, uint64_t page, bool slow) {
  if (watch_) watch_->BeforeStore(backing, page, slow);
}

void Kernel::Store(uint64_t backing, uint64_t address, uint8_t byte, bool slow) {
  AnnounceStore(backing, address / kPageSize, slow);
  ByteAt(backing, address, slow) = byte;
}

std::vector<uint8_t> Kernel::Load(const Piece& piece) {
  std::vector<uint8_t> bytes;
  for (uint64_t i = 0; i < piece.length; ++i) bytes.push_back(ByteAt(piece.backing, piece.address + i));
  return bytes;
}

void Kernel::Store(const Piece& piece, std::span<const uint8_t> bytes) {
  for (uint64_t i = 0; i < bytes.size(); ++i) Store(piece.backing, piece.address + i, bytes[i]);
}

void Kernel::Remap(uint64_t backing, uint64_t page, PageState state, std::optional<uint64_t> file_page) {
  AnnounceStore(backing, page, false);
  ZeroPage(backing, page);
  Memory& memory = memories[backing];
  const bool missing = file_page && *file_page >= kFilePages;
  memory.file_page[page] = missing ? std::nullopt : file_page;
  memory.state[page] = missing ? PageState::kBus : state;
}

void Kernel::Decommit(uint64_t backing, uint64_t page) {
  if (!memories[backing].file_page[page]) Remap(backing, page, State(backing, page));
}

PageState Kernel::State(uint64_t backing, uint64_t page) const { return page < kMaxPages ? memories[backing].state[page] : PageState::kHole; }

void Kernel::SetState(uint64_t backing, uint64_t page, PageState state) {
  if (State(backing, page) != PageState::kBus) memories[backing].state[page] = state;
}

bool Kernel::Bit(uint64_t backing, uint64_t page, Access access) const {
  const Memory& memory = memories[backing];
  return page != memory.refused_page && (page >= kMaxPages || memory.allowed[static_cast<size_t>(access)][page]);
}

void Kernel::SetBit(uint64_t backing, uint64_t page, Access access, bool bit) {
  Memory& memory = memories[backing];
  if (!BitExists(memory.setup, page, access)) return;
  if (memory.setup.managed && memory.locks[page] != 0 && !bit) return;  // SPEC 7: while locked, a page is not refused
  if (watch_) watch_->BeforeBit(backing, page, access);
  memory.allowed[static_cast<size_t>(access)][page] = bit;
}

bool Kernel::IsPlainRam(const Piece& piece) const {
  if (piece.length > kMemorySize - piece.address) return false;
  return !FirstOn(piece, [&](uint64_t page) {
    return State(piece.backing, page) != PageState::kRam || memories[piece.backing].file_page[page];
  });
}

bool Kernel::HostCall() { return ++host_calls_ != failing_host_call_; }

ErrorKind Kernel::HostFailure() const {
  return host_error_ == HostError::kNoMemory ? ErrorKind::kResourceExhausted : ErrorKind::kInvalidArgument;
}

// ---- One access.

Status Kernel::Carry(const Handle& memory, const Request& request) {
  return Told(CarryPieces(memory, request), OperationOf(request.transfer), Range{request.gpa, request.length}, memory.name);
}

// Steps 2 and 3 of SPEC 3, then each piece by itself.
Status Kernel::CarryPieces(const Handle& memory, const Request& request) {
  if (request.length == 0) return kOk;
  const std::vector<Piece> pieces = PiecesOf(memory, request.gpa, request.length);
  if (LengthOf(pieces) != request.length || (request.whole && pieces.size() > 1)) return Error{ErrorKind::kOutOfRange, request.gpa};
  if (request.transfer == Transfer::kCompareExchange && pieces[0].address % request.length != 0)
    return Error{ErrorKind::kMisaligned, request.gpa};
  for (const Piece& piece : pieces)
    if (Status status = CarryPiece(request, piece)) return status;
  return kOk;
}

Status Kernel::CarryPiece(const Request& request, Piece rest) {
  const uint64_t end = rest.address + rest.length;
  while (memories[rest.backing].setup.mapped && !rest.own) {               // step 4
    std::optional<uint64_t> fault = FirstRefused(rest, request.access);    // step 5
    const bool refused = fault.has_value();
    if (!refused) {
      fault = MoveUpToFault(request, rest);                                // step 6
      if (!fault) return kOk;
      if (!request.whole) rest = Cut(rest, *fault - rest.address, end - *fault);
    }
    const Piece failing = Cut(rest, *fault - rest.address, end - *fault);  // step 7
    Answer answer = AskHandler(failing, request.access, refused);
    if (answer.action == Answer::Action::kFallback) break;
    if (answer.action == Answer::Action::kFail) {
      answer.error.fault_address = failing.gpa;
      answer.error.transferred = request.transfer == Transfer::kProbe ? 0 : rest.gpa - request.gpa;
      return answer.error;
    }
  }
  return FallBack(request, rest);
}

std::optional<uint64_t> Kernel::FirstRefused(const Piece& piece, Access access) const {
  return FirstOn(piece, [&](uint64_t page) { return !Bit(piece.backing, page, access); });
}

std::optional<uint64_t> Kernel::FirstFaulting(const Piece& piece, Access access) const {
  return FirstOn(piece, [&](uint64_t page) {
    switch (State(piece.backing, page)) {
      case PageState::kRam: return false;
      case PageState::kReadOnly: return access == Access::kWrite;
      case PageState::kHole:
      case PageState::kBus: break;
    }
    return true;
  });
}

std::optional<uint64_t> Kernel::MoveUpToFault(const Request& request, const Piece& piece) {
  const std::optional<uint64_t> fault = FirstFaulting(piece, request.access);
  if (!fault) Move(request, piece, piece.length, false);
  if (fault && !request.whole) Move(request, piece, *fault - piece.address, false);
  return fault;
}

void Kernel::Move(const Request& request, const Piece& piece, uint64_t count, bool slow) {
  const uint64_t done = piece.gpa - request.gpa;
  const uint64_t expected = request.transfer == Transfer::kCompareExchange ? LittleEndian(request.host) : 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t address = piece.address + i;
    switch (request.transfer) {
      case Transfer::kRead:
      case Transfer::kCompareExchange: request.host[done + i] = ByteAt(piece.backing, address, slow); break;
      case Transfer::kWrite: Store(piece.backing, address, request.host[done + i], slow); break;
      case Transfer::kFill: Store(piece.backing, address, ByteOf(request.value, 0), slow); break;
      case Transfer::kProbe: break;
    }
  }
  if (request.transfer != Transfer::kCompareExchange || LittleEndian(request.host) != expected) return;
  for (uint64_t i = 0; i < count; ++i) Store(piece.backing, piece.address + i, ByteOf(request.value, i), slow);
}

// ---- What the backing says.

Kernel::Answer Kernel::AskHandler(const Piece& rest, Access access, bool bitmap_failure) {
  using Action = Answer::Action;
  const Answer usual = {Action::kFail, {bitmap_failure ? ErrorKind::kAccessDenied : ErrorKind::kNotMapped}};
  const int host_code = HostFailure() == ErrorKind::kResourceExhausted ? kExhaustedCode : kInvalidCode;
  const Answer host_failed = {Action::kFail, {.kind = ErrorKind::kBackend, .code = host_code}};
  if (!memories[rest.backing].scripted) return usual;
  calls.push_back({CallKind::kPageFault, static_cast<uint8_t>(rest.backing), rest.address, rest.length, access, bitmap_failure, 0, 0});
  const HandlerAnswer answer = handler_answers_.Next(rest.backing, rest.address / kPageSize);
  const Handling handling = HandlingOf(answer, rest.address, rest.length);
  switch (handling.ends) {
    case Handling::Ends::kDefault: return usual;
    case Handling::Ends::kFail: return {Action::kFail, FailureOf(handling.failure, {&rest, 1})};
    case Handling::Ends::kFallback: return {Action::kFallback};
    case Handling::Ends::kRetry: break;
  }
  for (uint64_t page = rest.address / kPageSize; handling.fixes && page <= handling.last / kPageSize; ++page)
    if (!Fix(rest.backing, page, access, bitmap_failure)) return host_failed;
  if (handling.refuses_at) SetBit(rest.backing, *handling.refuses_at / kPageSize, access, false);
  if (handling.vanishes) {
    if (!HostCall()) return host_failed;
    SetState(rest.backing, 0, PageState::kHole);
  }
  return {Action::kRetry};
}

bool Kernel::Fix(uint64_t backing, uint64_t page, Access access, bool bitmap_failure) {
  if (bitmap_failure) {
    SetBit(backing, page, access, true);
    return true;
  }
  if (State(backing, page) == PageState::kRam) return true;
  if (!HostCall()) return false;
  memories[backing].state[page] = PageState::kRam;
  return true;
}

// A probe asks for one byte a page (SPEC 7).
Status Kernel::FallBack(const Request& request, Piece rest) {
  if (request.transfer != Transfer::kProbe) return CallFallback(request, rest);
  if (request.access == Access::kExecute) return Error{ErrorKind::kNoFallback, rest.gpa};
  while (rest.length > 0) {
    if (Status status = CallFallback(request, Cut(rest, 0, 1))) return status;
    const uint64_t here = std::min(rest.length, kPageSize - rest.address % kPageSize);
    rest = Cut(rest, here, rest.length - here);
  }
  return kOk;
}

Status Kernel::CallFallback(const Request& request, const Piece& piece) {
  const CallKind kind = FallbackOf(request);
  const bool exchange = kind == CallKind::kCompareExchangeFallback;
  Reply reply = {Reply::Says::kNoFallback};
  if (memories[piece.backing].scripted) {
    Call call = {kind, static_cast<uint8_t>(piece.backing), piece.address, piece.length, {}, false, 0, 0};
    if (kind == CallKind::kFillFallback) call.value = request.value;
    if (exchange) call.value = LittleEndian(request.host);
    if (exchange) call.desired = request.value;
    calls.push_back(call);
    reply = ReplyOf(fallback_answers_.Next(piece.backing, piece.address / kPageSize), exchange, piece.address, piece.length);
    Move(request, piece, reply.moved, true);
  }
  if (reply.says == Reply::Says::kOk) return kOk;
  Error error = FailureOf(reply, {&piece, 1});
  error.transferred = request.transfer == Transfer::kProbe ? 0 : piece.gpa - request.gpa + error.transferred;
  return error;
}

Error Kernel::FailureOf(const Reply& reply, std::span<const Piece> pieces) {
  Error error = {.kind = ErrorKind::kBackend, .fault_address = pieces[0].gpa, .code = kScriptedCode};
  switch (reply.says) {
    case Reply::Says::kOk:
    case Reply::Says::kBlank: error.code = kUnknownCode; break;
    case Reply::Says::kScripted: break;
    case Reply::Says::kNoFallback: error.kind = ErrorKind::kNoFallback; break;
    case Reply::Says::kNotMapped: error.kind = ErrorKind::kNotMapped; break;
    case Reply::Says::kForeign: error.code = kOutOfRangeCode; return error;
    case Reply::Says::kOkAsError: error.code = kInvalidCode; break;
  }
  const auto named = std::ranges::find_if(pieces, [&](const Piece& piece) { return Has(piece, reply.address); });
  if (named != pieces.end()) error.fault_address = named->gpa + (*reply.address - named->address);
  if (reply.count <= pieces[0].length) error.transferred = reply.count;
  return error;
}

}  // namespace reference::model
