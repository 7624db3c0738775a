// What a GuestMemory is asked for beside accesses and locks (SPEC 10): views, addresses, files.

#ifndef GUESTMEM_REFERENCE_MODEL_VIEWS_H_
#define GUESTMEM_REFERENCE_MODEL_VIEWS_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "reference/model/kernel.h"
#include "reference/model/locks.h"

namespace reference::model {

inline Status AskHook(Kernel& kernel, Piece& view, bool preemptive_locking) {
  if (!kernel.memories[view.backing].scripted) return kOk;
  const auto backing = static_cast<uint8_t>(view.backing);
  kernel.calls.push_back({.kind = CallKind::kSubrange, .backing = backing, .address = view.address, .length = view.length, .value = preemptive_locking});
  const SubrangeAnswer answer = kernel.subrange_answers.Next(view.backing, view.address / kPageSize);
  if (answer == SubrangeAnswer::kWrongSize) return Error{ErrorKind::kBackend, view.gpa, 0, kWrongSizeCode};
  view.own = answer == SubrangeAnswer::kOwn;
  const Reply reply = ReplyOf(answer, view.address, view.length);
  if (reply.says == Reply::Says::kOk) return kOk;
  return Kernel::FailureOf(reply, {&view, 1});
}

// Within one backing; at its end there may be an empty one.
inline Status FindView(Kernel& kernel, const Handle& memory, uint64_t gpa, uint64_t length, bool preemptive_locking, Handle& view) {
  std::optional<Piece> found;
  for (const Piece& part : memory.parts) {
    if (gpa < part.gpa || gpa - part.gpa > part.length) continue;
    const uint64_t skip = gpa - part.gpa;
    if (length <= part.length - skip) found = Cut(part, skip, length);
  }
  if (!found) return Error{ErrorKind::kOutOfRange, gpa};
  if (!found->own)
    if (Status status = AskHook(kernel, *found, preemptive_locking)) return status;
  found->gpa = 0;
  view = {{*found}, true, found->own ? kOwnName : memory.name};
  return kOk;
}

// What a backing's sharing() says.
inline std::vector<File> FilesOf(const Kernel::Memory& memory, uint64_t b) {
  if (memory.made == Made::kShared) return {{b, 0, 0, kMaxUint64}};  // as much as there is
  if (memory.made) return {};
  switch (memory.setup.sharing) {
    case Sharing::kNone: break;
    case Sharing::kWhole: return {{b, 0, 0, memory.setup.max_address()}};
    case Sharing::kParts: return {{b, 8192, 4096, 4096}, {b, 0, 0, 100}};
    case Sharing::kWild:
      return {{b, kMaxUint64 - 4095, 0, kMaxUint64}, {b, 0, kMaxUint64 - 4095, 8192}, {b, 4096, 4096, kMaxUint64 - 4095}};
  }
  return {};
}

// `view`: what it makes.
inline Status Subrange(Kernel& kernel, const Handle& memory, uint64_t gpa, uint64_t length, bool preemptive_locking, Handle& view) {
  Handle found;
  Status status = FindView(kernel, memory, gpa, length, preemptive_locking, found);
  if (!status) view = found;
  return Told(status, Operation::kSubrange, Range{gpa, length}, memory.name);
}

inline Status LockableSubrange(Kernel& kernel, const Handle& memory, uint64_t gpa, uint64_t length, Handle& view) {
  Handle found;
  Status status = FindView(kernel, memory, gpa, length, true, found);
  if (!status && !SupportsLocking(kernel, found)) status = Error{ErrorKind::kNotLockable};
  if (!status) view = found;
  return Told(status, Operation::kSubrange, Range{gpa, length}, memory.name);
}

inline std::optional<Piece> FullMapping(const Kernel& kernel, const Handle& memory) {
  if (!memory.one_region || memory.parts.empty()) return std::nullopt;
  const Backing& setup = kernel.memories[memory.parts[0].backing].setup;
  if (!setup.mapped || setup.has_bitmap || memory.parts[0].own) return std::nullopt;
  return memory.parts[0];
}

inline std::optional<uint64_t> Iova(const Kernel& kernel, const Handle& memory, uint64_t gpa) {
  for (const Piece& piece : PiecesOf(memory, gpa, 1))
    if (kernel.memories[piece.backing].setup.has_iova && !piece.own) return kIovaBase + piece.address;
  return std::nullopt;
}

// SharedMemory's file: what its backing says, in which the memory's size is all that there is.
inline std::vector<File> Files(const Kernel& kernel, const Handle& memory) {
  std::vector<File> files;
  for (const Piece& part : memory.parts) {
    if (part.own) continue;
    for (const File& file : FilesOf(kernel.memories[part.backing], part.backing)) {
      const uint64_t first = std::max(file.address, part.address);
      const uint64_t end = file.size <= kMaxUint64 - file.address ? file.address + file.size : kMaxUint64;
      const uint64_t last = std::min(end, part.address + part.length);
      if (first >= last || first - file.address > kMaxUint64 - file.offset) continue;
      files.push_back({file.file, file.offset + (first - file.address), part.gpa + (first - part.address), last - first});
    }
  }
  return files;
}

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_VIEWS_H_
