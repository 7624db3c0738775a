// Accesses whose host buffer is guest memory itself.

#include <algorithm>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

namespace reference {

bool Model::LiesWithin(const Step& step, uint64_t length) const {
  if (step.within == 0 || step.HostBacking() >= backings_ || vanishes_) return false;
  return IsPlainRam(step.HostBacking(), step.HostAddress() + step.choice, length);
}

bool Model::IsPlainRam(uint64_t backing, uint64_t start, uint64_t length) const {
  const Memory& memory = memories_[backing];
  if (length > kMaxPages * kPageSize - start) return false;
  for (uint64_t page = start / kPageSize; length > 0 && page * kPageSize < start + length; ++page)
    if (memory.state[page] != PageState::kRam || !memory.mapped.ShowsOwn(page)) return false;
  return true;
}

std::optional<Range> Model::CopyBetweenSpans(const Piece& piece, const Piece& other, StepKind kind, Outcome& outcome) {
  const bool overlap = piece.backing == other.backing && piece.address < other.address + piece.length && other.address < piece.address + piece.length;
  if (overlap && piece.length > kPageSize && !HostCall()) {
    Fail(outcome, ErrorKind::kResourceExhausted, std::nullopt);
    return std::nullopt;
  }
  Bytes& bytes = memories_[other.backing].mapped;
  Memory& memory = memories_[piece.backing];
  const std::optional<uint64_t> fault = FirstFaulting(memory, piece, kind == StepKind::kWrite);
  const uint64_t count = fault ? *fault - piece.address : piece.length;
  std::vector<uint8_t> moved(piece.length);
  for (uint64_t i = 0; i < piece.length; ++i) moved[i] = bytes[other.address + i];
  Move({kind, piece.gpa, piece.length, 0, 0, moved, outcome}, piece, count, memory.mapped);
  for (uint64_t i = 0; i < count && kind == StepKind::kRead; ++i) bytes.Store(other.address + i, moved[i]);
  for (uint64_t page = other.address / kPageSize; page * kPageSize < other.address + piece.length; ++page)
    touched_.push_back({other.backing, page});
  if (fault) {
    Fail(outcome, ErrorKind::kNotMapped, piece.gpa + count, overlap ? 0 : count);
    if (overlap) unspecified_ = {{static_cast<uint8_t>(piece.backing), piece.address, piece.length, 0},
                                 {static_cast<uint8_t>(other.backing), other.address, piece.length, 0}};
  }
  return Range{piece.gpa, piece.length};
}

bool Model::CarryWithin(const Handle& handle, const Step& step, std::span<const PagePart> parts, Outcome& outcome) {
  const bool write = step.kind == StepKind::kWrite || step.kind == StepKind::kRangeWrite;
  Bytes& bytes = memories_[step.HostBacking()].mapped;
  const uint64_t host = step.HostAddress() + step.choice;
  const auto meets = [&](const Piece& piece, uint64_t start, uint64_t length) {
    const bool mapped = memories_[piece.backing].setup.mapped && !piece.own;
    return mapped && piece.backing == step.HostBacking() && piece.address < start + length && start < piece.address + piece.length;
  };
  uint64_t length = 0;
  for (const PagePart& part : parts) length += part.length;
  bool overlap = false;
  for (const PagePart& part : parts) {
    if (part.gpn >= kFirstInvalidGpn) continue;
    FindPieces(handle, part.gpn * kPageSize + part.offset, part.length);
    for (const Piece& piece : pieces_) {
      overlap = overlap || meets(piece, host, length);
      unspecified_.push_back({static_cast<uint8_t>(piece.backing), piece.address, piece.length, piece.gpa});
    }
  }
  unspecified_.push_back({static_cast<uint8_t>(step.HostBacking()), host, length, 0});

  uint64_t done = 0;
  const auto carry_part = [&](const PagePart& part) {
    if (part.gpn >= kFirstInvalidGpn) {
      outcome.gpn = part.gpn;
      return Fail(outcome, ErrorKind::kInvalidGpn, std::nullopt, done);
    }
    const uint64_t gpa = part.gpn * kPageSize + part.offset;
    if (!FindPieces(handle, gpa, part.length)) return Fail(outcome, ErrorKind::kOutOfRange, gpa, done);
    const std::vector<Piece> pieces = pieces_;
    const bool copies = std::any_of(pieces.begin(), pieces.end(), [&](const Piece& piece) {
      return piece.length > kPageSize && meets(piece, host + (piece.gpa - step.gpa), piece.length);
    });
    if (copies && !HostCall()) return Fail(outcome, ErrorKind::kResourceExhausted, gpa, done);
    for (const Piece& piece : pieces) {
      std::vector<uint8_t> moved(piece.length);
      for (uint64_t i = 0; i < piece.length; ++i) moved[i] = bytes[host + done + i];
      const bool ok = CarryPiece({write ? StepKind::kWrite : StepKind::kRead, piece.gpa, piece.length, 0, 0, moved, outcome}, piece);
      for (uint64_t i = 0; i < piece.length && !write; ++i) bytes.Store(host + done + i, moved[i]);
      if (!ok) {
        outcome.transferred += done;
        return false;
      }
      done += piece.length;
    }
    return true;
  };
  for (const PagePart& part : parts)
    if (!carry_part(part)) break;
  for (uint64_t page = host / kPageSize; length > 0 && page * kPageSize < host + length; ++page)
    touched_.push_back({step.HostBacking(), page});
  if (!outcome.ok && overlap)
    outcome.transferred = 0;
  else
    unspecified_.clear();
  return outcome.ok;
}

}  // namespace reference
