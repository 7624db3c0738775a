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
    if (setup.present && (world.region_pages != 0 || b == 0))
      handles_[0].parts.push_back({b, b * world.region_pages * kPageSize, 0, setup.max_address()});
  }
  handler_ = world.handler;
  fallback_ = world.fallback;
  lock_ = world.lock;
  subrange_ = world.subrange;
  for (Lock& lock : locks_) lock = {};
  handler_calls_ = fallback_calls_ = lock_calls_ = subrange_calls_ = host_calls_ = 0;
  failing_host_call_ = world.failing_host_call;
  host_error_ = world.host_error;
  ForgetRanges();
}

void Model::Run(const Step& step, Outcome& outcome) {
  Clear(outcome);
  touched_.clear();
  unspecified_.clear();
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
        if (setup.mapped && !setup.has_bitmap && !handle.parts[0].own) outcome.number = handle.parts[0].length;
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
  outcome.operation = operation;
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
  if (memories_[piece.backing].made)
    return Fail(request.outcome, ErrorKind::kNoFallback, piece.gpa, IsProbe(request.kind) ? 0 : piece.gpa - request.gpa);
  request.outcome.calls.push_back(call);

  Bytes& slow = memories_[piece.backing].slow;
  ErrorKind kind = ErrorKind::kBackend;
  uint64_t named = piece.address;
  uint64_t counted = 0;
  int code = kScriptedCode;
  const bool scripted = fallback_calls_ < fallback_.size();
  switch (scripted ? fallback_[fallback_calls_++] : FallbackAnswer::kDo) {
    case FallbackAnswer::kDo:
      Move(request, piece, piece.length, slow);
      return true;
    case FallbackAnswer::kNone:
      kind = ErrorKind::kNoFallback;
      break;
    case FallbackAnswer::kFail:
      break;
    case FallbackAnswer::kFailMoved:
      if (call.kind == CallKind::kCompareExchangeFallback) break;
      counted = std::min<uint64_t>(3, piece.length);
      named = piece.address + counted;
      Move(request, piece, counted, slow);
      break;
    case FallbackAnswer::kFailAt:
      named = piece.address + piece.length / 2;
      break;
    case FallbackAnswer::kFailOutside:
      named = piece.address + piece.length + 1;
      counted = piece.length + 1;
      break;
    case FallbackAnswer::kFailBlank:
      code = kUnknownCode;
      break;
    case FallbackAnswer::kFailForeign:
      code = kOutOfRangeCode;
      break;
  }
  if (named >= piece.address + piece.length) named = piece.address;
  if (counted > piece.length) counted = 0;
  const uint64_t transferred = IsProbe(request.kind) ? 0 : piece.gpa - request.gpa + counted;
  return Fail(request.outcome, kind, piece.gpa + (named - piece.address), transferred, code);
}

Model::Answer Model::AskHandler(Outcome& outcome, Access access, uint64_t backing, uint64_t address, uint64_t length,
                                bool refused) {
  const auto fail = [](ErrorKind kind, int code) { return Answer{Action::kFail, kind, code}; };
  const Answer exhausted =
      fail(ErrorKind::kBackend, HostFailure() == ErrorKind::kResourceExhausted ? kExhaustedCode : kInvalidCode);
  const ErrorKind usual = refused ? ErrorKind::kAccessDenied : ErrorKind::kNotMapped;
  if (memories_[backing].made) return fail(usual, 0);
  outcome.calls.push_back({CallKind::kPageFault, static_cast<uint8_t>(backing), address, length, access, refused, 0, 0});
  const bool scripted = handler_calls_ < handler_.size();
  const HandlerAnswer answer = scripted ? handler_[handler_calls_++] : HandlerAnswer::kDefault;
  uint64_t last = address;
  switch (answer) {
    case HandlerAnswer::kDefault: return fail(usual, 0);
    case HandlerAnswer::kFail:
    case HandlerAnswer::kFailElsewhere: return fail(ErrorKind::kBackend, kScriptedCode);
    case HandlerAnswer::kFailOk: return fail(ErrorKind::kBackend, kUnknownCode);
    case HandlerAnswer::kFailNoFallback: return fail(ErrorKind::kNoFallback, 0);
    case HandlerAnswer::kFallback: return {Action::kFallback, {}, 0};
    case HandlerAnswer::kRetry: return {Action::kRetry, {}, 0};
    case HandlerAnswer::kFixAllRetry: last = address + length - 1; break;
    case HandlerAnswer::kFixRetry:
    case HandlerAnswer::kRefuseRetry:
    case HandlerAnswer::kRefuseLastRetry:
    case HandlerAnswer::kVanishRetry: break;
  }
  Memory& memory = memories_[backing];
  for (uint64_t page = address / kPageSize; page <= last / kPageSize; ++page)
    if (!Fix(memory, page, access, refused)) return exhausted;
  if (answer == HandlerAnswer::kRefuseRetry) SetBit(memory, 0, access, false);
  if (answer == HandlerAnswer::kRefuseLastRetry) SetBit(memory, (address + length - 1) / kPageSize, access, false);
  if (answer == HandlerAnswer::kVanishRetry) {
    if (!HostCall()) return exhausted;
    SetState(memory, 0, PageState::kHole);
  }
  return {Action::kRetry, {}, 0};
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
  if (BitExists(memory.setup, page, access) && !stays) memory.allowed[static_cast<size_t>(access)][page] = bit;
}

}  // namespace reference
