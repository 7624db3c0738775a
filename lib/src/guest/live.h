// Accesses to an address space (SPEC 14): what is there is looked up in each section.

#ifndef GUESTMEM_SRC_GUEST_LIVE_H_
#define GUESTMEM_SRC_GUEST_LIVE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "guest/access_errors.h"
#include "guest/layout.h"
#include "guest/piece.h"
#include "guest/transfers.h"
#include "guestmem/detail/read_section.h"
#include "guestmem/guest_memory.h"

namespace guestmem {
namespace detail {

// The first piece of [gpa, gpa + length) in a layout; length 0 if gpa is not in memory.
inline Piece LivePiece(const Memory& memory, const Layout& layout, uint64_t gpa, uint64_t length) noexcept {
  return PieceOf(*LiveRegion(memory, layout, gpa), gpa, length);
}

// A plain access of Size bytes, if nothing is in its way. False: nothing was done. Calls nothing, so that it costs no frame.
template <AccessType Type, int Size, typename Access>
[[gnu::always_inline]] inline bool RunLiveFast(const Memory& memory, uint64_t gpa, Access access) {
  const LeafReadSection section;
  if (!section.entered()) [[unlikely]] {
    return false;
  }
  const Region& region = *LiveRegion(memory, memory.space->Now(), gpa);
  uint64_t offset = OffsetIn(region, gpa);
  if (!EndsBelow(region.mapped_limit, offset, Size) || (Type == AccessType::kWrite && region.read_only)) [[unlikely]] {
    return false;
  }
  const uint8_t* const bitmap = region.Bitmap(Type);
  if (bitmap != nullptr && !(region.OnOnePage(offset, Size) && region.Allows(bitmap, offset))) [[unlikely]] {
    return false;
  }
  return access(region.base + offset);
}

// How far an access has come: `at` bytes in earlier pieces, `done` of the piece at hand.
struct LivePosition {
  uint64_t at = 0;
  Piece piece = {nullptr, 0, 0};
  uint64_t done = 0;
  uint64_t generation = 0;  // of the layout that the piece was found in; 0: none yet
  Checked checked = {};
};

// Why a section ended.
enum class LiveStop : uint8_t {
  kMore,  // it has covered enough
  kFinished,
  kGone,
  kMisaligned,
  kReadOnly,
  kFallback,
  kOverlap,
  kRefused,  // by a bit or the mapping
};

// One section of an access to [gpa, gpa + length). `slot` is what keeps the piece that it stopped at for the backing.
template <typename Transfer>
LiveStop RunLiveSection(const Memory& memory, uint64_t gpa, uint64_t length, uint64_t before, Transfer& transfer,
                        LivePosition& position, Stop& stop, std::shared_ptr<const Slot>& slot) {
  auto& [at, piece, done, generation, checked] = position;
  const ReadSection section;
  const Layout& layout = memory.space->Now();
  const auto find = [&](uint64_t from) { return LivePiece(memory, layout, gpa + from, length - from); };
  if (layout.generation() != generation) {
    at += done;
    piece.length = done = 0;
    for (uint64_t end = at; end < length;) {
      const Piece next = find(end);
      if (next.length == 0 || (Transfer::kWhole && next.length != length)) {
        return LiveStop::kGone;
      }
      end += next.length;
    }
    generation = layout.generation();
  }
  checked.Begin(done);
  for (uint64_t left = kSectionBytes; left != 0;) {
    if (done == piece.length) {
      at += piece.length;
      if (at == length) {
        return LiveStop::kFinished;
      }
      piece = find(at);
      done = 0;
      checked.end = 0;
      const Region& region = *piece.region;
      LiveStop special = LiveStop::kMore;
      if (IsMisaligned<Transfer>(region, piece.offset, length)) {
        return LiveStop::kMisaligned;
      }
      if (Transfer::kAccess == AccessType::kWrite && region.read_only) [[unlikely]] {
        special = LiveStop::kReadOnly;
      } else if (region.base == nullptr) [[unlikely]] {
        special = LiveStop::kFallback;
      } else if constexpr (CopiesHostBytes<Transfer> && !Transfer::kWhole) {
        if (Overlaps(transfer.host + before + at, region.base + piece.offset, piece.length)) [[unlikely]] {
          special = LiveStop::kOverlap;
        }
      }
      if (special != LiveStop::kMore) [[unlikely]] {
        slot = SlotOf(memory, piece.region);
        return special;
      }
    }
    const uint64_t most = std::min(left, piece.length - done);
    stop = MoveInSection(piece, before + at, transfer, done, most, checked);
    if (stop.done != done + most) [[unlikely]] {
      if (!Transfer::kWhole) {
        done = stop.done;
      }
      slot = SlotOf(memory, piece.region);
      return LiveStop::kRefused;
    }
    done += most;
    left -= most;
  }
  return LiveStop::kMore;
}

// A bulk access by one kernel's call, if it lies in one slot and nothing is in its way. kFinished: it is done; kRefused: so much as
// the mapping let through; kMore: nothing.
template <typename Transfer>
[[gnu::always_inline]] inline LiveStop RunLiveKernel(const Memory& memory, uint64_t gpa, uint64_t length, uint64_t before,
                                                     Transfer& transfer, LivePosition& position, Stop& stop,
                                                     std::shared_ptr<const Slot>& slot) {
  const ReadSection section;
  const Layout& layout = memory.space->Now();
  const Region& region = *LiveRegion(memory, layout, gpa);
  uint64_t offset = OffsetIn(region, gpa);
  if (length > kSectionBytes || !EndsBelow(region.mapped_limit, offset, length) ||
      (Transfer::kAccess == AccessType::kWrite && region.read_only)) [[unlikely]] {
    return LiveStop::kMore;
  }
  const uint8_t* const bitmap = region.Bitmap(Transfer::kAccess);
  if (bitmap != nullptr && !(region.OnOnePage(offset, length) ? region.Allows(bitmap, offset)
                                                              : region.FirstRefused(bitmap, offset, length) == offset + length)) {
    return LiveStop::kMore;
  }
  std::byte* const guest = region.base + offset;
  const TrapResult result = transfer.Kernel(guest, before, length);
  if (result.info == 0) [[likely]] {
    return LiveStop::kFinished;
  }
  if (result.info == kTrapInfoOverlap) {
    return LiveStop::kMore;
  }
  stop = StopAt(0, transfer.Finish(guest, before, length, result));
  position = {0, {&region, offset, length}, stop.done, layout.generation(), {}};
  slot = SlotOf(memory, &region);
  return LiveStop::kRefused;
}

}  // namespace detail

template <typename Transfer>
Status GuestMemory::RunLive(uint64_t gpa, uint64_t length, Transfer& transfer, std::optional<AddressRange> range, uint64_t before,
                            detail::Handle& handle) const {
  using detail::LiveStop;
  const detail::Memory& memory = *memory_;  // the handle's copy has the same
  detail::LivePosition position;
  detail::Stop stop{};
  std::shared_ptr<const detail::Slot> slot;
  LiveStop why = LiveStop::kMore;
  // A scheduled build goes page by page.
  if constexpr (!detail::kScheduled && Transfer::kCounts && !Transfer::kWhole) {
    why = detail::RunLiveKernel(memory, gpa, length, before, transfer, position, stop, slot);
    if (why == LiveStop::kFinished) [[likely]] {
      return {};
    }
  }
  for (;; slot.reset()) {
    if (slot == nullptr) {
      why = detail::RunLiveSection(memory, gpa, length, before, transfer, position, stop, slot);
    }
    if (why == LiveStop::kFinished) [[likely]] {
      return {};
    }
    if (why == LiveStop::kMore) {
      continue;
    }
    const auto& [at, piece, done, generation, checked] = position;
    const uint64_t moved = Transfer::kCounts ? before + at : 0;
    if (why == LiveStop::kGone || why == LiveStop::kMisaligned) {
      return detail::RangeError(memory, why == LiveStop::kGone ? ErrorKind::kOutOfRange : ErrorKind::kMisaligned, Transfer::kOperation,
                                range, gpa + at, moved);
    }
    detail::PieceFailure failure;
    bool retry = false;
    bool finished = false;  // the piece
    if (why == LiveStop::kReadOnly) {
      failure.cause = MakeStatus({.kind = ErrorKind::kAccessDenied}, "the slot is read-only");
    } else if (why == LiveStop::kFallback) {
      finished = detail::RunFallback(piece, before + at, transfer, done, handle, failure);
    } else if (why == LiveStop::kRefused) {
      const detail::Asked asked = detail::Ask(piece, before + at, transfer, stop, done, handle, failure);
      retry = asked == detail::Asked::kRetry;
      finished = asked == detail::Asked::kDone;
    } else if constexpr (detail::CopiesHostBytes<Transfer>) {
      detail::OverlapCopy copy;
      Status status = copy.Reserve(piece.length)
                          ? Status()
                          : detail::RangeError(memory, ErrorKind::kResourceExhausted, Transfer::kOperation, range, gpa + at, 0);
      finished = status.ok() && copy.Run(transfer, before + at, piece.length, [&](Transfer& through) {
        status = (*handle).RunLive(gpa + at, piece.length, through, range, 0, handle);
        return status.ok();
      });
      if (!finished) {
        detail::ForgetTransferred(status);
        return status;
      }
    }
    if (finished) {
      position.done = piece.length;
    } else if (!retry) {
      failure.transferred += moved;
      return detail::PieceError(memory, Transfer::kOperation, range, piece, std::move(failure));
    }
  }
}

}  // namespace guestmem

#endif  // GUESTMEM_SRC_GUEST_LIVE_H_
