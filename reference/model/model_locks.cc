// Locks and views.

#include <algorithm>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

namespace reference {

bool Model::CanLock(const Handle& handle) const {
  for (const Part& part : handle.parts) {
    const Backing& setup = memories_[part.backing].setup;
    if (!setup.mapped || !setup.lockable || part.own || part.offset % kPageSize != 0) return false;
  }
  return !handle.parts.empty();
}

void Model::MakeLock(const Handle& handle, const Step& step, Outcome& outcome) {
  Lock& held = locks_[step.object];
  Unlock(held, held.pages.size(), outcome);
  held = {};
  Lock lock = {step.access, {}, {}, handle.name};
  if (!PagesToLock(handle, step, outcome, lock.pages) || lock.pages.empty()) return;
  const bool range = step.kind == StepKind::kLockRange;
  bool again = true;
  while (again)
    if (!TryLock(lock, range || step.form == 1, outcome, again)) return;
  MakeSpans(lock, range, outcome);
  held = lock;
}

bool Model::PagesToLock(const Handle& handle, const Step& step, Outcome& outcome, std::vector<Piece>& pages) {
  const uint64_t listed = step.gpns.size() * kPageSize;
  const uint64_t offset = step.kind == StepKind::kLockRange ? step.offset : 0;
  const uint64_t length = step.kind == StepKind::kLockRange ? step.length : listed;
  outcome.refused = offset > listed || length > listed - offset;
  if (outcome.refused) return false;
  if (length == 0) return true;
  if (!CanLock(handle)) return Fail(outcome, ErrorKind::kNotLockable, std::nullopt);
  if (!HostCall()) return Fail(outcome, ErrorKind::kResourceExhausted, std::nullopt);
  for (uint64_t i = 0; i < step.gpns.size(); ++i) {
    const uint64_t start = std::max(offset, i * kPageSize);
    const uint64_t end = std::min(offset + length, (i + 1) * kPageSize);
    if (start >= end) continue;
    const uint64_t gpn = step.gpns[i];
    if (gpn >= kFirstInvalidGpn) {
      outcome.gpn = gpn;
      return Fail(outcome, ErrorKind::kInvalidGpn, std::nullopt);
    }
    const uint64_t gpa = gpn * kPageSize + start % kPageSize;
    if (!FindPieces(handle, gpa, end - start) || pieces_.size() != 1) return Fail(outcome, ErrorKind::kOutOfRange, gpa);
    pages.push_back(pieces_[0]);
  }
  return true;
}

bool Model::TryLock(Lock& lock, bool expose, Outcome& outcome, bool& again) {
  const std::vector<Piece>& pages = lock.pages;
  again = false;
  for (size_t first = 0; first < pages.size();) {
    Call call = {};
    call.kind = CallKind::kLockGpns;
    call.backing = static_cast<uint8_t>(pages[first].backing);
    call.access = lock.access;
    size_t end = first;
    for (; end < pages.size() && pages[end].backing == pages[first].backing; ++end)
      call.gpns.push_back(pages[end].address / kPageSize);
    if (!LockCall(call, std::span(pages).subspan(first, end - first), outcome)) {
      Unlock(lock, first, outcome);
      return false;
    }
    first = end;
  }
  for (size_t i = 0; expose && i < pages.size(); ++i) {
    Call call = {};
    call.kind = CallKind::kExposeVa;
    call.backing = static_cast<uint8_t>(pages[i].backing);
    call.address = pages[i].address;
    call.length = pages[i].length;
    if (!LockCall(call, std::span(pages).subspan(i, 1), outcome)) {
      Unlock(lock, pages.size(), outcome);
      return false;
    }
  }
  for (size_t i = 0; i < pages.size();) {
    const Piece& page = pages[i];
    const Memory& memory = memories_[page.backing];
    const bool refused = FirstRefused(memory, page, lock.access).has_value();
    if (!refused && !FirstFaulting(memory, page, lock.access == Access::kWrite)) {
      ++i;
      continue;
    }
    if (!again) Unlock(lock, pages.size(), outcome);
    again = true;
    const Answer answer = AskHandler(outcome, lock.access, page.backing, page.address, page.length, refused);
    if (answer.action == Action::kFallback) return Fail(outcome, ErrorKind::kNotLockable, page.gpa);
    if (answer.action == Action::kFail) return Fail(outcome, answer.kind, page.gpa, 0, answer.code);
  }
  return true;
}

bool Model::LockCall(Call call, std::span<const Piece> pages, Outcome& outcome) {
  Memory& memory = memories_[call.backing];
  if (!IsScripted(memory)) {
    if (memory.setup.sparse) Hold(memory, call.gpns);
    return true;
  }
  outcome.calls.push_back(call);
  const LockAnswer answer = lock_.Next(call.backing, pages[0].address / kPageSize);
  const Reply reply = call.gpns.empty() ? ReplyOf(answer, call.address, call.length) : ReplyOf(answer, call.gpns);
  if (reply.says == Reply::Says::kOk) {
    Hold(memory, call.gpns);
    return true;
  }
  const auto [action, kind, code, named] = FailureOf(reply);
  std::optional<uint64_t> fault;
  for (const Piece& page : pages) {
    const bool inside = named && *named >= page.address && *named < page.address + page.length;
    if (inside && !fault) fault = page.gpa + (*named - page.address);
  }
  return Fail(outcome, kind, fault.value_or(pages[0].gpa), 0, code);
}

void Model::Unlock(const Lock& lock, size_t pages, Outcome& outcome) {
  while (pages > 0) {
    Call call = {};
    call.kind = CallKind::kUnlockGpns;
    call.backing = static_cast<uint8_t>(lock.pages[pages - 1].backing);
    call.access = lock.access;
    for (; pages > 0 && lock.pages[pages - 1].backing == call.backing; --pages)
      call.gpns.push_back(lock.pages[pages - 1].address / kPageSize);
    std::reverse(call.gpns.begin(), call.gpns.end());
    if (memories_[call.backing].made) continue;
    Release(memories_[call.backing], call.gpns);
    if (IsScripted(memories_[call.backing])) outcome.calls.push_back(call);
  }
}

void Model::MakeSpans(Lock& lock, bool merge, Outcome& outcome) {
  for (const Piece& page : lock.pages) {
    Piece* last = lock.spans.empty() ? nullptr : &lock.spans.back();
    const bool adjacent = last && last->backing == page.backing && last->address + last->length == page.address;
    if (merge && adjacent)
      last->length += page.length;
    else
      lock.spans.push_back(page);
  }
  for (const Piece& span : lock.spans)
    outcome.spans.push_back({static_cast<uint8_t>(span.backing), span.address, span.length, span.gpa});
}

std::optional<Range> Model::LockedCopy(const Step& step, Outcome& outcome) {
  constexpr std::array<StepKind, 3> kKinds = {StepKind::kRead, StepKind::kWrite, StepKind::kFill};
  const std::vector<Piece>& spans = locks_[step.object].spans;
  if (spans.empty()) return std::nullopt;
  const Piece& span = spans[step.count % spans.size()];
  const bool writable = locks_[step.object].access == Access::kWrite;
  if (step.choice == 3) {
    LockedByte(span, step, writable, outcome);
    return std::nullopt;
  }
  const StepKind kind = kKinds[step.choice % kKinds.size()];
  const Piece& other = spans[(step.count + 1) % spans.size()];
  const bool between = step.form == 1 && other.backing < kMaxBackings && step.length <= other.length &&
                       IsPlainRam(other.backing, other.address, step.length);
  std::span<uint8_t> host;
  if (kind != StepKind::kFill && !between) {
    outcome.data.assign(kGuardBytes + step.length + kGuardBytes, kUntouched);
    host = std::span(outcome.data).subspan(kGuardBytes, step.length);
  }
  if (kind == StepKind::kWrite && !between) PutDataPattern(step.value, host);
  if ((kind != StepKind::kRead && !writable) || step.offset > span.length || step.length > span.length - step.offset) {
    Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
    return std::nullopt;
  }
  if (step.length == 0) return std::nullopt;
  const Piece piece = {span.backing, span.address + step.offset, span.gpa + step.offset, step.length};
  if (between) return CopyBetweenSpans(piece, other, kind, outcome);
  Memory& memory = memories_[piece.backing];
  const std::optional<uint64_t> fault = FirstFaulting(memory, piece, kind != StepKind::kRead);
  const uint64_t moved = fault ? *fault - piece.address : piece.length;
  Move({kind, piece.gpa, piece.length, step.value, 0, host, outcome}, piece, moved, memory.mapped);
  if (fault) Fail(outcome, ErrorKind::kNotMapped, piece.gpa + moved, moved);
  return Range{piece.gpa, piece.length};
}

void Model::LockedByte(const Piece& span, const Step& step, bool writable, Outcome& outcome) {
  if (step.offset >= span.length) return;
  const uint64_t address = span.address + step.offset;
  Memory& memory = memories_[span.backing];
  if (StateOf(memory, address / kPageSize) != PageState::kRam) return;
  outcome.number = memory.mapped[address];
  if (!writable) return;
  memory.mapped.Store(address, ByteOf(step.value, 0));
  touched_.push_back({span.backing, address / kPageSize});
}

void Model::Subrange(const Handle& handle, const Step& step, Outcome& outcome) {
  std::optional<Part> found;
  for (const Part& part : handle.parts) {
    if (step.gpa < part.start || step.gpa - part.start > part.length) continue;
    const uint64_t skipped = step.gpa - part.start;
    if (step.length <= part.length - skipped) found = Part{part.backing, 0, part.offset + skipped, step.length, part.own};
  }
  if (!found) {
    Fail(outcome, ErrorKind::kOutOfRange, step.gpa);
    return;
  }
  if (!found->own && !AskHook(*found, step, outcome)) return;
  const Handle view = {{*found}, true, found->own ? kOwnName : handle.name};
  if (step.kind == StepKind::kLockableSubrange && !CanLock(view))
    Fail(outcome, ErrorKind::kNotLockable, std::nullopt);
  else
    handles_[step.slot] = view;
}

bool Model::AskHook(Part& view, const Step& step, Outcome& outcome) {
  if (!IsScripted(memories_[view.backing])) return true;
  Call call = {};
  call.kind = CallKind::kSubrange;
  call.backing = static_cast<uint8_t>(view.backing);
  call.address = view.offset;
  call.length = view.length;
  call.value = step.kind == StepKind::kLockableSubrange || step.form == 1 ? 1 : 0;
  outcome.calls.push_back(call);
  const SubrangeAnswer answer = subrange_.Next(view.backing, view.offset / kPageSize);
  if (answer == SubrangeAnswer::kWrongSize) return Fail(outcome, ErrorKind::kBackend, step.gpa, 0, kWrongSizeCode);
  view.own = answer == SubrangeAnswer::kOwn;
  const Reply reply = ReplyOf(answer, view.offset, view.length);
  if (reply.says == Reply::Says::kOk) return true;
  const auto [action, kind, code, named] = FailureOf(reply);
  const bool inside = named && *named >= view.offset && *named < view.offset + view.length;
  return Fail(outcome, kind, inside ? step.gpa + (*named - view.offset) : step.gpa, 0, code);
}

}  // namespace reference
