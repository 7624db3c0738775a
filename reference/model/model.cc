#include "reference/model/model.h"

#include <algorithm>

#include "reference/model/outcome.h"

namespace reference {
namespace {

constexpr uint64_t kArenaSize = kMaxPages * kPageSize;
constexpr int kUnknownCode = 2;

Operation OperationOf(StepKind kind) {
  switch (kind) {
    case StepKind::kRead:
    case StepKind::kReadPlain: return Operation::kRead;
    case StepKind::kWrite:
    case StepKind::kWritePlain: return Operation::kWrite;
    case StepKind::kFill: return Operation::kFill;
    case StepKind::kCompareExchange: return Operation::kCompareExchange;
    case StepKind::kSubrange:
    case StepKind::kLockableSubrange: return Operation::kSubrange;
    case StepKind::kLockGpns:
    case StepKind::kLockRange: return Operation::kLock;
    case StepKind::kProbeReadable:
    case StepKind::kProbeWritable:
    case StepKind::kProbeExecutable:
    case StepKind::kProbeGpns: return Operation::kProbe;
    default: return Operation::kCreate;
  }
}

bool IsProbe(StepKind kind) { return OperationOf(kind) == Operation::kProbe; }

// An object moves as a whole or not at all, and lies in one backing.
bool IsObject(StepKind kind) {
  return kind == StepKind::kReadPlain || kind == StepKind::kWritePlain || kind == StepKind::kCompareExchange;
}

bool Stores(StepKind kind) {
  return kind == StepKind::kWrite || kind == StepKind::kFill || kind == StepKind::kWritePlain ||
         kind == StepKind::kCompareExchange || kind == StepKind::kProbeWritable;
}

Access AccessOf(StepKind kind) {
  if (kind == StepKind::kProbeExecutable) return Access::kExecute;
  return Stores(kind) ? Access::kWrite : Access::kRead;
}

bool BitExists(const Backing& setup, uint64_t page, Access access) {
  return setup.present && setup.has_bitmap && !setup.null_bitmap[static_cast<size_t>(access)] && page < setup.pages;
}

using Pattern = std::array<std::array<uint8_t, kArenaSize>, kMaxBackings>;

Pattern MakePattern(uint8_t (*byte)(uint64_t, uint64_t)) {
  Pattern pattern;
  for (uint64_t b = 0; b < kMaxBackings; ++b)
    for (uint64_t i = 0; i < kArenaSize; ++i) pattern[b][i] = byte(b, i);
  return pattern;
}

}  // namespace

void Model::Bytes::StartAs(std::span<const uint8_t> bytes) {
  const bool first = own.empty();
  own.resize(bytes.size());
  for (uint64_t page = 0; page < kMaxPages; ++page) {
    ShowOwn(page);
    if (first || stored[page]) std::copy_n(&bytes[page * kPageSize], kPageSize, shown[page]);
  }
  stored = {};
}

void Model::Start(const World& world) {
  static const Pattern kMapped = MakePattern(MappedPattern);
  static const Pattern kSlow = MakePattern(SlowPattern);
  for (uint64_t i = 0; file_shown_ && i < file_.size(); ++i) file_[i] = FilePattern(i);
  file_shown_ = false;
  memories_.resize(kMaxBackings);
  backings_ = world.backings.size();
  for (Handle& handle : handles_) {
    handle.parts.clear();
    handle.one_region = true;
    handle.name = kWorldName;
    handle.held = handle.owns_heap = false;
  }
  handles_[0].held = true;
  handles_[0].one_region = world.region_pages == 0 || world.backings.size() == 1;
  for (uint64_t b = 0; b < backings_; ++b) {
    Memory& memory = memories_[b];
    const Backing& setup = world.backings[b];
    memory.setup = setup;
    for (Bytes* bytes : {&memory.mapped, &memory.slow}) bytes->watch = nullptr;
    memory.mapped.StartAs(kMapped[b]);
    memory.slow.StartAs(kSlow[b]);
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      memory.state[page] = page < setup.pages ? setup.page[page].state : PageState::kRam;
      if (memory.state[page] == PageState::kBus) ZeroPage(memory, page);
      const std::array<bool, 3> bits = {setup.page[page].readable, setup.page[page].writable, setup.page[page].executable};
      for (Access access : {Access::kRead, Access::kWrite, Access::kExecute}) {
        const size_t a = static_cast<size_t>(access);
        memory.allowed[a][page] = BitExists(setup, page, access) ? bits[a] : true;
      }
    }
    memory.locks = {};
    for (Bytes* bytes : {&memory.mapped, &memory.slow}) {
      bytes->watch = watch_;
      bytes->backing = b;
      bytes->slow = bytes == &memory.slow;
    }
    if (setup.present && (world.region_pages != 0 || b == 0))
      handles_[0].parts.push_back({b, b * world.region_pages * kPageSize, 0, setup.max_address()});
  }
  handler_.Start(world.handler);
  fallback_.Start(world.fallback);
  lock_.Start(world.lock);
  subrange_.Start(world.subrange);
  vanishes_ = std::ranges::find(world.handler, HandlerAnswer::kVanishRetry) != world.handler.end();
  for (Lock& lock : locks_) lock = {};
  host_calls_ = 0;
  failing_host_call_ = world.failing_host_call;
  host_error_ = world.host_error;
  starved_ = false;
  ForgetRanges();
}

void Model::Run(const Step& step, Outcome& outcome) {
  Clear(outcome);
  touched_.clear();
  unspecified_.clear();
  for (uint64_t b = 0; b < backings_; ++b) {
    memories_[b].mapped.announced = memories_[b].slow.announced = {};
    memories_[b].announced = {};
  }
  if (step.kind == StepKind::kStarve) starved_ = step.choice == 1;
  RunStep(step, outcome);
  if (!starved_ || outcome.ok || step.kind == StepKind::kTry) return;
  Fail(outcome, outcome.kind, std::nullopt, 0, outcome.code);
  outcome.operation = Operation::kNone;
  outcome.range.reset();
  outcome.gpn.reset();
  outcome.text.clear();
}

void Model::RunStep(const Step& step, Outcome& outcome) {
  const Handle& target = handles_[step.target % kHandles];
  const Handle& handle = target.held ? target : handles_[0];
  if (RunRanges(handle, step, outcome) || RunStreams(handle, step, outcome) || RunMade(step, outcome)) return;
  std::optional<Range> range = Range{step.gpa, step.length};
  Operation operation = OperationOf(step.kind);
  std::array<uint8_t, 8> object = {};
  switch (step.kind) {
    case StepKind::kRead:
    case StepKind::kWrite: {
      if (LiesWithin(step, step.length)) {
        const PagePart all = {0, 0, step.gpa, step.length};
        CarryWithin(handle, step, {&all, 1}, outcome);
        break;
      }
      outcome.data.assign(kGuardBytes + step.length + kGuardBytes, kUntouched);
      const std::span<uint8_t> host = std::span(outcome.data).subspan(kGuardBytes, step.length);
      if (step.kind == StepKind::kWrite) PutDataPattern(step.value, host);
      Carry(handle, {step.kind, step.gpa, step.length, 0, 0, host, outcome});
      break;
    }
    case StepKind::kFill:
      Carry(handle, {step.kind, step.gpa, step.length, LowBytes(step.value, 1), 0, {}, outcome});
      break;
    case StepKind::kReadPlain:
    case StepKind::kWritePlain:
    case StepKind::kCompareExchange: {
      range->length = step.choice == 2 ? 3 : step.size;
      if (step.choice != 0) {
        Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
        break;
      }
      const std::span<uint8_t> host = std::span(object).first(step.size);
      const bool ok = Carry(handle, {step.kind, step.gpa, step.size, LowBytes(step.value, step.size),
                                     LowBytes(step.desired, step.size), host, outcome});
      if (ok && step.kind != StepKind::kWritePlain) outcome.number = LittleEndian(host);
      break;
    }
    case StepKind::kProbeReadable:
    case StepKind::kProbeWritable:
    case StepKind::kProbeExecutable:
      Carry(handle, {step.kind, step.gpa, step.length, 0, 0, {}, outcome});
      break;
    case StepKind::kProbeGpns:
      range.reset();
      ProbeGpns(handle, step, outcome);
      break;
    case StepKind::kFullMapping:
      if (handle.one_region && !handle.parts.empty()) {
        const Backing& setup = memories_[handle.parts[0].backing].setup;
        const Part& part = handle.parts[0];
        if (setup.mapped && !setup.has_bitmap && !part.own) outcome.number = part.length;
        if (outcome.number && part.length > 0) outcome.spans.push_back({static_cast<uint8_t>(part.backing), part.offset, part.length, 0});
      }
      break;
    case StepKind::kIova:
      if (FindPieces(handle, step.gpa, 1) && memories_[pieces_[0].backing].setup.has_iova && !pieces_[0].own)
        outcome.number = kIovaBase + pieces_[0].address;
      break;
    case StepKind::kSubrange:
    case StepKind::kLockableSubrange:
      Subrange(handle, step, outcome);
      break;
    case StepKind::kLockGpns:
    case StepKind::kLockRange:
      range.reset();
      MakeLock(handle, step, outcome);
      break;
    case StepKind::kUnlock: {
      Lock& lock = locks_[step.object];
      Unlock(lock, lock.pages.size(), outcome);
      lock = {};
      break;
    }
    case StepKind::kLockedCopy:
      operation = std::array{Operation::kRead, Operation::kWrite, Operation::kFill, Operation::kRead}[step.choice % 4];
      range = LockedCopy(step, outcome);
      break;
    case StepKind::kSupportsLocking:
      outcome.number = CanLock(handle) ? 1 : 0;
      break;
    case StepKind::kSetBit:
      SetBit(memories_[step.backing % memories_.size()], step.page, step.access, step.choice % 2 == 1);
      break;
    case StepKind::kAllocate:
    case StepKind::kMapZero:
    case StepKind::kProtect:
    case StepKind::kUnmap:
    case StepKind::kMapFile:
    case StepKind::kDecommit:
    case StepKind::kAdviseHugePages:
    case StepKind::kBindToNode:
      range = Range{step.page * kPageSize, step.count * kPageSize};
      ChangeMapping(step, *range, outcome);
      break;
    case StepKind::kUnmapBytes:
      range = Range{step.offset, step.length};
      ChangeMapping(step, *range, outcome);
      break;
    case StepKind::kMapFileBytes:
      range = Range{0, step.length};
      ChangeMapping(step, *range, outcome);
      break;
    default:
      break;
  }
  if (outcome.ok) return;
  outcome.operation = outcome.kind == ErrorKind::kLocked ? Operation::kRevoke : operation;
  outcome.range = range;
  const char* name = step.kind == StepKind::kLockedCopy ? locks_[step.object].name : handle.name;
  Describe(outcome, operation == Operation::kCreate ? kSparseName : name);
}

bool Model::FindPieces(const Handle& handle, uint64_t gpa, uint64_t length) {
  pieces_.clear();
  for (const Part& part : handle.parts) {
    if (length == 0 || gpa < part.start || gpa - part.start >= part.length) continue;
    const uint64_t skipped = gpa - part.start;
    const uint64_t here = std::min(length, part.length - skipped);
    pieces_.push_back({part.backing, part.offset + skipped, gpa, here, part.own});
    gpa += here;
    length -= here;
  }
  return length == 0;
}

bool Model::Carry(const Handle& handle, const Request& request) {
  if (request.length == 0) return true;
  const bool found = FindPieces(handle, request.gpa, request.length);
  if (!found || (IsObject(request.kind) && pieces_.size() != 1))
    return Fail(request.outcome, ErrorKind::kOutOfRange, request.gpa);
  if (request.kind == StepKind::kCompareExchange && pieces_[0].address % request.length != 0)
    return Fail(request.outcome, ErrorKind::kMisaligned, request.gpa);
  for (const Piece& piece : pieces_)
    if (!CarryPiece(request, piece)) return false;
  return true;
}

bool Model::CarryPiece(const Request& request, Piece rest) {
  Memory& memory = memories_[rest.backing];
  const uint64_t end = rest.address + rest.length;
  while (memory.setup.mapped && !rest.own) {
    std::optional<uint64_t> fault = FirstRefused(memory, rest, AccessOf(request.kind));
    const bool refused = fault.has_value();
    if (!refused) {
      fault = FirstFaulting(memory, rest, Stores(request.kind));
      if (!fault) {
        Move(request, rest, rest.length, memory.mapped);
        return true;
      }
      if (!IsObject(request.kind)) {
        const uint64_t moved = *fault - rest.address;
        Move(request, rest, moved, memory.mapped);
        rest = {rest.backing, *fault, rest.gpa + moved, end - *fault};
      }
    }
    const Answer answer = AskHandler(request.outcome, AccessOf(request.kind), rest.backing, *fault, end - *fault, refused);
    if (answer.action == Action::kFallback) break;
    if (answer.action == Action::kFail) {
      const uint64_t transferred = IsProbe(request.kind) ? 0 : rest.gpa - request.gpa;
      return Fail(request.outcome, answer.kind, rest.gpa + (*fault - rest.address), transferred, answer.code);
    }
  }
  return CarryByFallback(request, rest);
}

bool Model::CarryByFallback(const Request& request, Piece rest) {
  if (request.kind == StepKind::kProbeExecutable)
    return Fail(request.outcome, ErrorKind::kNoFallback, rest.gpa);
  if (!IsProbe(request.kind)) return CallFallback(request, rest);
  while (rest.length > 0) {
    if (!CallFallback(request, {rest.backing, rest.address, rest.gpa, 1})) return false;
    const uint64_t here = std::min(rest.length, kPageSize - rest.address % kPageSize);
    rest = {rest.backing, rest.address + here, rest.gpa + here, rest.length - here};
  }
  return true;
}

bool Model::CallFallback(const Request& request, const Piece& piece) {
  Call call = {};
  call.backing = static_cast<uint8_t>(piece.backing);
  call.address = piece.address;
  call.length = piece.length;
  switch (OperationOf(request.kind)) {
    case Operation::kWrite: call.kind = CallKind::kWriteFallback; break;
    case Operation::kFill: call.kind = CallKind::kFillFallback; break;
    case Operation::kCompareExchange: call.kind = CallKind::kCompareExchangeFallback; break;
    default: call.kind = CallKind::kReadFallback; break;
  }
  if (request.kind == StepKind::kProbeWritable) call.kind = CallKind::kCompareExchangeFallback;
  if (call.kind == CallKind::kFillFallback || call.kind == CallKind::kCompareExchangeFallback) call.value = request.value;
  if (call.kind == CallKind::kCompareExchangeFallback) call.desired = request.desired;
  if (!IsScripted(memories_[piece.backing]))
    return Fail(request.outcome, ErrorKind::kNoFallback, piece.gpa, IsProbe(request.kind) ? 0 : piece.gpa - request.gpa);
  request.outcome.calls.push_back(call);

  const bool exchange = call.kind == CallKind::kCompareExchangeFallback;
  const Reply reply = ReplyOf(fallback_.Next(piece.backing, piece.address / kPageSize), exchange, piece.address, piece.length);
  Move(request, piece, reply.moved, memories_[piece.backing].slow);
  if (reply.says == Reply::Says::kOk) return true;
  const Answer failure = FailureOf(reply);
  uint64_t named = failure.named.value_or(piece.address);
  if (named < piece.address || named >= piece.address + piece.length) named = piece.address;
  const uint64_t counted = reply.count > piece.length ? 0 : reply.count;
  const uint64_t transferred = IsProbe(request.kind) ? 0 : piece.gpa - request.gpa + counted;
  return Fail(request.outcome, failure.kind, piece.gpa + (named - piece.address), transferred, failure.code);
}

// What a caller sees of a callback's failure.
Model::Answer Model::FailureOf(const Reply& reply) {
  const auto backend = [](int code, std::optional<uint64_t> named) { return Answer{Action::kFail, ErrorKind::kBackend, code, named}; };
  switch (reply.says) {
    case Reply::Says::kOk:
    case Reply::Says::kBlank: return backend(kUnknownCode, reply.address);
    case Reply::Says::kScripted: break;
    case Reply::Says::kNoFallback: return {Action::kFail, ErrorKind::kNoFallback, 0, reply.address};
    case Reply::Says::kNotMapped: return {Action::kFail, ErrorKind::kNotMapped, 0, reply.address};
    case Reply::Says::kForeign: return backend(kOutOfRangeCode, std::nullopt);
    case Reply::Says::kOkAsError: return backend(kInvalidCode, reply.address);
  }
  return backend(kScriptedCode, reply.address);
}

Model::Answer Model::AskHandler(Outcome& outcome, Access access, uint64_t backing, uint64_t address, uint64_t length,
                                bool refused) {
  const int host_code = HostFailure() == ErrorKind::kResourceExhausted ? kExhaustedCode : kInvalidCode;
  const Answer exhausted = {Action::kFail, ErrorKind::kBackend, host_code, {}};
  const Answer usual = {Action::kFail, refused ? ErrorKind::kAccessDenied : ErrorKind::kNotMapped, 0, {}};
  if (!IsScripted(memories_[backing])) return usual;
  outcome.calls.push_back({CallKind::kPageFault, static_cast<uint8_t>(backing), address, length, access, refused, 0, 0});
  const Handling handling = HandlingOf(handler_.Next(backing, address / kPageSize), address, length);
  switch (handling.ends) {
    case Handling::Ends::kDefault: return usual;
    case Handling::Ends::kFail: return FailureOf(handling.failure);
    case Handling::Ends::kFallback: return {Action::kFallback, {}, 0, {}};
    case Handling::Ends::kRetry: break;
  }
  Memory& memory = memories_[backing];
  for (uint64_t page = address / kPageSize; handling.fixes && page <= handling.last / kPageSize; ++page)
    if (!Fix(memory, page, access, refused)) return exhausted;
  if (handling.refuses_at) SetBit(memory, *handling.refuses_at / kPageSize, access, false);
  if (handling.vanishes) {
    if (!HostCall()) return exhausted;
    SetState(memory, 0, PageState::kHole);
  }
  return {Action::kRetry, {}, 0, {}};
}

bool Model::Fix(Memory& memory, uint64_t page, Access access, bool refused) {
  if (refused) {
    SetBit(memory, page, access, true);
    return true;
  }
  if (memory.state[page] == PageState::kRam) return true;
  if (!HostCall()) return false;
  memory.state[page] = PageState::kRam;
  return true;
}

bool Model::HostCall() {
  ++host_calls_;
  return host_calls_ != failing_host_call_;
}

ErrorKind Model::HostFailure() const {
  return host_error_ == HostError::kNoMemory ? ErrorKind::kResourceExhausted : ErrorKind::kInvalidArgument;
}

bool Model::Allows(const Memory& memory, uint64_t page, Access access) {
  if (memory.made) return page != memory.refused_page;
  return memory.allowed[static_cast<size_t>(access)][page];
}

PageState Model::StateOf(const Memory& memory, uint64_t page) {
  if (memory.made == Made::kSparse) return PageState::kHole;
  return memory.state[page];
}

void Model::ProbeGpns(const Handle& handle, const Step& step, Outcome& outcome) {
  for (uint64_t gpn : step.gpns) {
    if (gpn >= kFirstInvalidGpn) {
      Fail(outcome, ErrorKind::kInvalidGpn, std::nullopt);
      outcome.gpn = gpn;
      return;
    }
    if (!Carry(handle, {StepKind::kProbeReadable, gpn * kPageSize, kPageSize, 0, 0, {}, outcome})) return;
  }
}

std::optional<uint64_t> Model::FirstRefused(const Memory& memory, const Piece& piece, Access access) {
  for (uint64_t page = piece.address / kPageSize; page * kPageSize < piece.address + piece.length; ++page)
    if (!Allows(memory, page, access)) return std::max(page * kPageSize, piece.address);
  return std::nullopt;
}

std::optional<uint64_t> Model::FirstFaulting(const Memory& memory, const Piece& piece, bool stores) {
  for (uint64_t page = piece.address / kPageSize; page * kPageSize < piece.address + piece.length; ++page) {
    const PageState state = StateOf(memory, page);
    const bool readable = state == PageState::kRam || state == PageState::kReadOnly;
    const bool writable = state == PageState::kRam;
    if (stores ? !writable : !readable) return std::max(page * kPageSize, piece.address);
  }
  return std::nullopt;
}

void Model::Move(const Request& request, const Piece& piece, uint64_t count, Bytes& bytes) {
  const uint64_t before = piece.gpa - request.gpa;
  for (uint64_t moved = 0; moved < count;) {
    const uint64_t address = piece.address + moved;
    const uint64_t here = std::min(count - moved, kPageSize - address % kPageSize);
    touched_.push_back({piece.backing, address / kPageSize});
    MoveOnPage(request, before + moved, bytes, address, here);
    moved += here;
  }
}

// The request's bytes [done, done + count).
void Model::MoveOnPage(const Request& request, uint64_t done, Bytes& bytes, uint64_t address, uint64_t count) {
  switch (request.kind) {
    case StepKind::kRead:
    case StepKind::kReadPlain:
      std::ranges::copy(bytes.ToSee(address, count), request.host.subspan(done, count).begin());
      break;
    case StepKind::kWrite:
      std::ranges::copy(request.host.subspan(done, count), bytes.ToStore(address, count).begin());
      break;
    case StepKind::kWritePlain:
      for (uint64_t i = 0; i < count; ++i) bytes.Store(address + i, ByteOf(request.value, done + i));
      break;
    case StepKind::kFill:
      std::ranges::fill(bytes.ToStore(address, count), ByteOf(request.value, 0));
      break;
    case StepKind::kCompareExchange:
      std::ranges::copy(bytes.ToSee(address, count), request.host.begin());
      request.outcome.swapped = LittleEndian(request.host) == request.value;
      for (uint64_t i = 0; request.outcome.swapped && i < count; ++i) bytes.Store(address + i, ByteOf(request.desired, i));
      break;
    default:
      break;
  }
}

void Model::SetBit(Memory& memory, uint64_t page, Access access, bool bit) {
  const bool stays = memory.setup.managed && !bit && page < kMaxPages && memory.locks[page] != 0;
  if (!BitExists(memory.setup, page, access) || stays) return;
  bool& announced = memory.announced[static_cast<size_t>(access)][page];
  if (watch_ && !announced) watch_->BeforeBit(memory.mapped.backing, page, access);
  announced = true;
  memory.allowed[static_cast<size_t>(access)][page] = bit;
}

}  // namespace reference
