// Locked pages (SPEC 7).

#ifndef GUESTMEM_REFERENCE_MODEL_LOCKS_H_
#define GUESTMEM_REFERENCE_MODEL_LOCKS_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "reference/model/kernel.h"
#include "reference/model/ranges.h"

namespace reference::model {

struct Lock {
  Access access = Access::kRead;
  std::vector<Piece> pages = {};  // an entry of the list each
  std::vector<Piece> spans = {};
  const char* name = kWorldName;
};

// LockGpns; LockRange, whose spans are merged. `lock`: what it makes.
enum class Spans : bool { kPages, kMerged };

inline bool SupportsLocking(const Kernel& kernel, const Handle& memory) {
  return !memory.parts.empty() && std::ranges::all_of(memory.parts, [&](const Piece& part) {
    const Backing& setup = kernel.memories[part.backing].setup;
    return setup.mapped && setup.lockable && !part.own && part.address % kPageSize == 0;
  });
}

// Counted locks: of a backing's own bitmap, or of a sparse mapping. False, and nothing changed: no such page, or it is not locked.
inline bool Hold(Kernel::Memory& memory, std::span<const uint64_t> gpns) {
  for (const uint64_t gpn : gpns)
    if (gpn >= memory.setup.pages) return false;
  for (const uint64_t gpn : gpns) ++memory.locks[gpn];
  return true;
}

inline bool Release(Kernel::Memory& memory, std::span<const uint64_t> gpns) {
  auto locks = memory.locks;
  for (const uint64_t gpn : gpns) {
    if (gpn >= memory.setup.pages || locks[gpn] == 0) return false;
    --locks[gpn];
  }
  memory.locks = locks;
  return true;
}

// Every check before anything is called. Listing the pages takes memory.
inline Status FindPages(Kernel& kernel, const Handle& memory, const Buffer& list, std::vector<Piece>& pages) {
  if (!SupportsLocking(kernel, memory)) return Error{ErrorKind::kNotLockable};
  if (!kernel.HostCall()) return Error{ErrorKind::kResourceExhausted};
  for (const PagePart& part : list) {
    if (part.gpn >= kFirstInvalidGpn) return Error{.kind = ErrorKind::kInvalidGpn, .gpn = part.gpn};
    const std::vector<Piece> pieces = PiecesOf(memory, GpaOf(part), part.length);
    if (pieces.size() != 1 || LengthOf(pieces) != part.length) return Error{ErrorKind::kOutOfRange, GpaOf(part)};
    pages.push_back(pieces[0]);
  }
  return kOk;
}

// Maximal runs of neighbouring entries in one backing.
inline std::vector<std::span<const Piece>> RunsOf(std::span<const Piece> pages) {
  std::vector<std::span<const Piece>> runs;
  while (!pages.empty()) {
    const auto elsewhere = std::ranges::find_if(pages, [&](const Piece& page) { return page.backing != pages[0].backing; });
    runs.push_back(pages.first(static_cast<size_t>(elsewhere - pages.begin())));
    pages = pages.subspan(runs.back().size());
  }
  return runs;
}

inline Call CallOf(CallKind kind, Access access, std::span<const Piece> run) {
  Call call = {.kind = kind, .backing = static_cast<uint8_t>(run[0].backing), .access = access};
  for (const Piece& page : run) call.gpns.push_back(page.address / kPageSize);
  return call;
}

inline Status Ask(Kernel& kernel, const Call& call, std::span<const Piece> pages) {
  Kernel::Memory& memory = kernel.memories[call.backing];
  Reply reply;
  if (memory.scripted) {
    kernel.calls.push_back(call);
    const LockAnswer answer = kernel.lock_answers.Next(call.backing, pages[0].address / kPageSize);
    reply = call.gpns.empty() ? ReplyOf(answer, call.address, call.length) : ReplyOf(answer, call.gpns);
  }
  if (reply.says != Reply::Says::kOk) return Kernel::FailureOf(reply, pages);
  if (!memory.made) Hold(memory, call.gpns);
  return kOk;
}

inline void UnlockRuns(Kernel& kernel, Access access, std::span<const std::span<const Piece>> runs) {
  for (; !runs.empty(); runs = runs.first(runs.size() - 1)) {
    const Call call = CallOf(CallKind::kUnlockGpns, access, runs.back());
    Kernel::Memory& memory = kernel.memories[call.backing];
    if (!memory.made) Release(memory, call.gpns);
    if (memory.scripted) kernel.calls.push_back(call);
  }
}

// Locks, exposes and probes the pages, or leaves none of them locked. `again`: the handler has said Retry, so that all starts over.
inline Status TryLock(Kernel& kernel, std::span<const Piece> pages, Access access, bool kernel_access, bool& again) {
  const auto runs = RunsOf(pages);
  for (size_t i = 0; i < runs.size(); ++i) {
    if (Status status = Ask(kernel, CallOf(CallKind::kLockGpns, access, runs[i]), runs[i])) {
      UnlockRuns(kernel, access, std::span(runs).first(i));
      return status;
    }
  }
  for (size_t i = 0; kernel_access && i < pages.size(); ++i) {
    const Call call = {CallKind::kExposeVa, static_cast<uint8_t>(pages[i].backing), pages[i].address, pages[i].length};
    if (Status status = Ask(kernel, call, pages.subspan(i, 1))) {
      UnlockRuns(kernel, access, runs);
      return status;
    }
  }
  for (size_t i = 0; i < pages.size();) {
    const Piece& page = pages[i];
    const bool refused = kernel.FirstRefused(page, access).has_value();
    if (!refused && !kernel.MoveUpToFault({Transfer::kProbe, access, page.gpa, page.length}, page)) {
      ++i;
      continue;
    }
    if (!again) UnlockRuns(kernel, access, runs);
    again = true;
    Kernel::Answer answer = kernel.AskHandler(page, access, refused);
    if (answer.action == Kernel::Answer::Action::kFallback) return Error{ErrorKind::kNotLockable, page.gpa};
    answer.error.fault_address = page.gpa;
    answer.error.transferred = 0;
    if (answer.action == Kernel::Answer::Action::kFail) return answer.error;
  }
  return kOk;
}

inline std::vector<Piece> Merged(std::span<const Piece> pages) {
  std::vector<Piece> spans;
  for (const Piece& page : pages) {
    const bool adjacent = !spans.empty() && spans.back().backing == page.backing && spans.back().address + spans.back().length == page.address;
    if (adjacent)
      spans.back().length += page.length;
    else
      spans.push_back(page);
  }
  return spans;
}

inline Status TakeLock(Kernel& kernel, const Handle& memory, const Buffer& list, Access access, bool kernel_access, Spans spans, Lock& lock) {
  if (list.empty()) return kOk;
  Lock taken = {access, {}, {}, memory.name};
  Status status = FindPages(kernel, memory, list, taken.pages);
  for (bool again = !status; again;) {
    again = false;
    status = TryLock(kernel, taken.pages, access, kernel_access, again);
    again = again && !status;
  }
  if (status) return Told(status, Operation::kLock, std::nullopt, memory.name);
  taken.spans = spans == Spans::kMerged ? Merged(taken.pages) : taken.pages;
  lock = taken;
  return kOk;
}

inline void Unlock(Kernel& kernel, Lock& lock) {
  UnlockRuns(kernel, lock.access, RunsOf(lock.pages));
  lock = {};
}

// CopyTo, CopyFrom, Fill of a span from `offset` on: kRead, kWrite, kFill. `between`: the host buffer is the start of that span.
inline Status CopyLocked(Kernel& kernel, const Lock& lock, const Piece& span, uint64_t offset, Request request, const Piece* between) {
  const Operation operation = OperationOf(request.transfer);
  const bool permitted = request.access == Access::kRead || lock.access == Access::kWrite;
  if (!permitted || offset > span.length || request.length > span.length - offset)
    return Told(Error{ErrorKind::kInvalidArgument}, operation, std::nullopt, lock.name);
  if (request.length == 0) return kOk;
  const Piece piece = Cut(span, offset, request.length);
  const Piece host = Cut(between ? *between : piece, 0, request.length);
  const bool overlap = between && Overlap(piece, host);
  if (overlap && request.length > kPageSize && !kernel.HostCall())
    return Told(Error{ErrorKind::kResourceExhausted}, operation, std::nullopt, lock.name);
  std::vector<uint8_t> bytes;
  if (between) request.host = bytes = kernel.Load(host);
  request.gpa = piece.gpa;
  const std::optional<uint64_t> fault = kernel.MoveUpToFault(request, piece);
  if (between && request.transfer == Transfer::kRead) kernel.Store(host, bytes);
  if (!fault) return kOk;
  if (overlap) kernel.unspecified = {SpanOf(piece), SpanOf(host)};
  const uint64_t moved = *fault - piece.address;
  return Told(Error{ErrorKind::kNotMapped, piece.gpa + moved, overlap ? 0 : moved}, operation, Range{piece.gpa, piece.length}, lock.name);
}

// At(offset), and what AtWritable stores there. None: its page is not kRam.
inline std::optional<uint64_t> LockedByte(Kernel& kernel, const Lock& lock, const Piece& byte, uint8_t value) {
  if (kernel.State(byte.backing, byte.address / kPageSize) != PageState::kRam) return std::nullopt;
  const uint8_t was = kernel.ByteAt(byte.backing, byte.address);
  if (lock.access == Access::kWrite) kernel.Store(byte.backing, byte.address, value);
  return was;
}

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_LOCKS_H_
