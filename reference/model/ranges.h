// Paged ranges and lists of them (SPEC 12): which bytes of which pages, in which order.

#ifndef GUESTMEM_REFERENCE_MODEL_RANGES_H_
#define GUESTMEM_REFERENCE_MODEL_RANGES_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "reference/model/kernel.h"

namespace reference::model {

// The part of a buffer in one listed page; `member` says which of its paged ranges has it.
struct PagePart {
  uint64_t member;
  uint64_t gpn;
  uint64_t offset;
  uint64_t length;
};
using Buffer = std::vector<PagePart>;

inline uint64_t GpaOf(const PagePart& part) { return part.gpn * kPageSize + part.offset; }

inline uint64_t LengthOf(std::span<const PagePart> buffer) {
  uint64_t length = 0;
  for (const PagePart& part : buffer) length += part.length;
  return length;
}

// Its bytes [start, start + length), as far as it has them.
inline Buffer Cut(const Buffer& buffer, uint64_t start, uint64_t length) {
  Buffer cut;
  for (auto [member, gpn, offset, here] : buffer) {
    const uint64_t skipped = std::min(start, here);
    const uint64_t kept = std::min(length, here - skipped);
    start -= skipped;
    length -= kept;
    if (kept > 0) cut.push_back({member, gpn, offset + skipped, kept});
  }
  return cut;
}

// None: the list is too short.
inline std::optional<Buffer> PagedRange(uint64_t offset, uint64_t length, std::span<const uint64_t> gpns, uint64_t member = 0) {
  Buffer whole;
  for (const uint64_t gpn : gpns) whole.push_back({member, gpn, 0, kPageSize});
  if (offset > LengthOf(whole) || length > LengthOf(whole) - offset) return std::nullopt;
  return Cut(whole, offset, length);
}

inline std::vector<RangePart> Iterate(const Buffer& buffer) {
  std::vector<RangePart> shown;
  std::optional<uint64_t> member;
  for (const PagePart& page : buffer) {
    const bool first = page.member != member;
    if (first) shown.push_back({.offset = page.offset});
    member = page.member;
    RangePart& part = shown.back();
    const bool next_page = !first && page.gpn > part.gpns.back() && page.gpn - part.gpns.back() == 1;
    part.length += page.length;
    part.gpns.push_back(page.gpn);
    if (part.invalid_gpn) continue;
    if (page.gpn >= kFirstInvalidGpn)
      part.invalid_gpn = page.gpn;
    else if (next_page)
      part.runs.back().length += page.length;
    else
      part.runs.push_back({GpaOf(page), page.length});
  }
  return shown;
}

// `carry` is told how many bytes the earlier parts had, too.
template <class Carry>
Status CarryParts(const Handle& memory, const Request& request, std::span<const PagePart> buffer, Carry carry) {
  uint64_t done = 0;
  const auto carry_part = [&](const PagePart& part) -> Status {
    if (part.gpn >= kFirstInvalidGpn) return Error{.kind = ErrorKind::kInvalidGpn, .gpn = part.gpn};
    Request here = request;
    here.gpa = GpaOf(part);
    here.length = part.length;
    if (!request.host.empty()) here.host = request.host.subspan(done, part.length);
    return carry(here, done);
  };
  for (const PagePart& part : buffer) {
    if (Status status = carry_part(part)) {
      if (request.transfer != Transfer::kProbe) status->transferred += done;
      return Told(status, OperationOf(request.transfer), std::nullopt, memory.name);
    }
    done += part.length;
  }
  return kOk;
}

// SPEC 4: each page's part is an access by itself; `request` says all but where. The host buffer may be guest memory, `within`:
// what a piece moves is what was there before the piece.
inline Status CarryBuffer(Kernel& kernel, const Handle& memory, const Request& request, std::span<const PagePart> buffer) {
  return CarryParts(memory, request, buffer, [&](const Request& here, uint64_t) { return kernel.Carry(memory, here); });
}

inline Status CarryBufferWithin(Kernel& kernel, const Handle& memory, const Request& request, std::span<const PagePart> buffer, const Piece& within) {
  const auto meets = [&](const Piece& piece, const Piece& host) {
    return kernel.memories[piece.backing].setup.mapped && !piece.own && Overlap(piece, host);
  };
  bool overlap = false;
  for (const PagePart& part : buffer) {
    if (part.gpn >= kFirstInvalidGpn) continue;
    for (const Piece& piece : PiecesOf(memory, GpaOf(part), part.length)) {
      overlap = overlap || meets(piece, within);
      kernel.unspecified.push_back(SpanOf(piece));
    }
  }
  kernel.unspecified.push_back(SpanOf(within));

  const auto carry = [&](const Request& part, uint64_t done) -> Status {
    const auto host_of = [&](const Piece& piece) { return Cut(within, done + piece.gpa - part.gpa, piece.length); };
    const std::vector<Piece> pieces = PiecesOf(memory, part.gpa, part.length);
    if (LengthOf(pieces) != part.length) return Error{ErrorKind::kOutOfRange, part.gpa};
    const bool copies = std::ranges::any_of(pieces, [&](const Piece& piece) { return piece.length > kPageSize && meets(piece, host_of(piece)); });
    if (copies && !kernel.HostCall()) return Error{ErrorKind::kResourceExhausted, part.gpa};
    for (const Piece& piece : pieces) {
      std::vector<uint8_t> bytes = kernel.Load(host_of(piece));
      Status status = kernel.CarryPiece({part.transfer, part.access, piece.gpa, piece.length, bytes}, piece);
      if (part.transfer == Transfer::kRead) kernel.Store(host_of(piece), bytes);
      if (!status) continue;
      status->transferred += piece.gpa - part.gpa;
      return status;
    }
    return kOk;
  };
  Status status = CarryParts(memory, request, buffer, carry);
  if (status && overlap)
    status->transferred = 0;
  else
    kernel.unspecified.clear();
  return status;
}

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_RANGES_H_
