// One piece of an access: bits, transfer, fault, handler, fallback (SPEC 3, steps 4 to 7).
//
// What is transferred is a policy:
//   static constexpr AccessType kAccess;
//   static constexpr bool kWhole;    // all or nothing: a fault leaves nothing transferred
//   static constexpr bool kCounts;   // false: a probe, which transfers nothing
//   // Moves [at, at + length) of the access from or to `guest`, ascending; a fault's offset counts from `guest`.
//   std::optional<Fault> Move(std::byte* guest, uint64_t at, uint64_t length);
//   // How much of `length` bytes at the backing's `address` one fallback call is asked for, and how far that gets.
//   FallbackStep NextFallback(uint64_t address, uint64_t length);
//   Status Fallback(GuestMemoryAccess& backing, uint64_t address, uint64_t at, uint64_t length);

#ifndef GUESTMEM_SRC_GUEST_PIECE_H_
#define GUESTMEM_SRC_GUEST_PIECE_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "guestmem/backing.h"
#include "guestmem/detail/memory.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "guestmem/detail/read_section.h"
#include "guestmem/detail/schedule.h"
#include "types/error_rep.h"

namespace guestmem::detail {

struct FallbackStep {
  uint64_t asked;
  uint64_t advance;
};

template <typename Transfer>
concept CopiesHostBytes = requires(Transfer t) { t.host; };

// From the region's start to `gpa`. Below the region it wraps, as it should: to beyond every limit.
inline uint64_t OffsetIn(const Region& region, uint64_t gpa) noexcept {
  uint64_t offset;
  (void)__builtin_sub_overflow(gpa, region.start, &offset);
  return offset;
}

// The part of [gpa, gpa + length) that lies in the region, from gpa on; length 0 if gpa does not.
inline Piece PieceOf(const Region& region, uint64_t gpa, uint64_t length) noexcept {
  uint64_t offset = OffsetIn(region, gpa);
  if (!EndsBelow(region.limit, offset, 1)) {
    return {nullptr, 0, 0};
  }
  return {&region, offset, std::min(length, region.size - offset)};
}

template <typename Transfer>
bool IsMisaligned(const Region& region, uint64_t offset, uint64_t size) noexcept {
  return Transfer::kOperation == Operation::kCompareExchange && (region.backing_offset + offset) % size != 0;
}

// How a piece failed. Offsets count from the piece's start.
struct PieceFailure {
  Status cause;                // the callback's; OK if it gave none
  uint64_t offset = 0;         // where
  uint64_t transferred = 0;
  bool write_refused = false;  // a store met a mapping that does not take stores
};

// The error where a backing's handler or fallback is due in a read-side section, which is then the caller's own.
[[gnu::cold]] inline Status InsideSection() {
  return MakeStatus({.kind = ErrorKind::kInvalidArgument},
                    "the backing must be asked, which cannot be done in the caller's own read-side section");
}

// The handle that an access goes on with: the one that it was called on, or a copy once a backing is called, which may drop that.
class Handle {
 public:
  explicit Handle(const GuestMemory& memory) : memory_(&memory) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  const GuestMemory& operator*() const { return *memory_; }

  // Before a backing's handler or fallback. False: none may run here, and `failure` says so.
  [[gnu::cold, gnu::noinline]] bool MayCall(Status& failure) {
    if (Rcu::InSection()) {
      failure = InsideSection();
      return false;
    }
    if (!copy_) {
      memory_ = &copy_.emplace(*memory_);
    }
    return true;
  }

 private:
  const GuestMemory* memory_;
  std::optional<GuestMemory> copy_;
};

// The page of the memory's that a callback's own status names as one of the backing's, if it is one.
[[gnu::cold]] inline std::optional<uint64_t> NamedGpn(const Region& region, const Status& cause) {
  if (cause.ok() || cause.info().operation != Operation::kNone || !cause.info().gpn) {
    return std::nullopt;
  }
  const uint64_t gpn = *cause.info().gpn;
  if (gpn >= kFirstInvalidGpn || region.backing_offset % kPageSize != 0 || gpn * kPageSize < region.backing_offset ||
      gpn * kPageSize - region.backing_offset >= region.size) {
    return std::nullopt;
  }
  return (region.start + (gpn * kPageSize - region.backing_offset)) / kPageSize;
}

// Where one pass over a piece stopped.
struct Stop {
  uint64_t done;        // bytes moved so far, by this pass and those before it
  uint64_t offset;      // of what stopped it; == the piece's length: finished
  bool bitmap_failure;
  bool write_refused;
};

// Moves [at, at + length) of the access; in a scheduled build, where it counts bytes, with a point before each page's part.
template <typename Transfer>
std::optional<Fault> MoveInSteps(Transfer& transfer, std::byte* guest, uint64_t at, uint64_t length) {
#if defined(GUESTMEM_SCHEDULED)
  if constexpr (Transfer::kCounts && !Transfer::kWhole) {
    for (uint64_t done = 0; done < length;) {
      const uint64_t page_rest = kPageSize - reinterpret_cast<uintptr_t>(guest + done) % kPageSize;
      const uint64_t part = std::min(length - done, page_rest);
      GUESTMEM_SCHEDULE_POINT(kTransfer, guest + done);
      if (auto fault = transfer.Move(guest + done, at + done, part)) {
        fault->offset += done;
        return fault;
      }
      done += part;
    }
    return std::nullopt;
  }
#endif
  return transfer.Move(guest, at, length);
}

inline Stop StopAt(uint64_t done, const Fault& fault) {
  return {done + fault.offset, done + fault.offset, false, fault.write_refused()};
}

// How far the bits of a piece have been found set, and in which epoch. A page before `end` is not looked at again until a section moves
// its bytes, unless something was revoked meanwhile (each grace period begins an epoch): else each Retry would look at all of them.
struct Checked {
  uint64_t end = 0;
  uint64_t epoch = 0;  // 0: none

  // Before the bits of a pass are loaded: what is revoked after that makes the next pass look at all of them.
  void Begin(uint64_t done) {
    if (const uint64_t now = g_epoch.load(std::memory_order_acquire); now != epoch) {
      *this = {done, now};
    }
  }
};

// In the section at hand: checks the bits of [done, piece.length) and moves `length` bytes of that. Done is more by `length`, unless
// something stopped it.
template <typename Transfer>
[[gnu::always_inline]] inline Stop MoveInSection(const Piece& piece, uint64_t at, Transfer& transfer, uint64_t done, uint64_t length,
                                                 Checked& checked) {
  const Region& region = *piece.region;
  const uint8_t* const bitmap = region.Bitmap(Transfer::kAccess);
  const auto first_refused = [&](uint64_t from, uint64_t to) {
    return region.FirstRefused(bitmap, piece.offset + from, to - from) - piece.offset;
  };
  uint64_t end = done + length;
  uint64_t refused = first_refused(done, end);
  if (const uint64_t seen = std::max(end, checked.end); refused == end && seen != piece.length) {
    end = piece.length;
    refused = checked.end = first_refused(seen, end);
  }
  if (refused != end) [[unlikely]] {
    return {done, refused, true, false};
  }
  if (auto fault = MoveInSteps(transfer, region.base + piece.offset + done, at + done, length)) [[unlikely]] {
    return StopAt(done, *fault);
  }
  return {done + length, done + length, false, false};
}

// Checks the bits of [done, length) and moves as much of it as will go.
template <typename Transfer>
Stop RunPass(const Piece& piece, uint64_t at, Transfer& transfer, uint64_t done, Checked& checked) {
  checked.Begin(done);
  while (done < piece.length) {
    const ReadSection section(piece.region->Guards(Transfer::kAccess));
    const uint64_t length = std::min(piece.length - done, kSectionBytes);
    const Stop stop = MoveInSection(piece, at, transfer, done, length, checked);
    if (stop.done != done + length) [[unlikely]] {
      return stop;
    }
    done += length;
  }
  return {piece.length, piece.length, false, false};
}

// The fallback for [done, length). False: `failure` is filled in.
template <typename Transfer>
[[gnu::cold]] bool RunFallback(const Piece& piece, uint64_t at, Transfer& transfer, uint64_t done, Handle& handle,
                               PieceFailure& failure) {
  if (!handle.MayCall(failure.cause)) {
    failure.offset = done;
    failure.transferred = Transfer::kCounts ? done : 0;
    return false;
  }
  GuestMemoryAccess& backing = *piece.region->backing;
  const uint64_t start = piece.region->backing_offset + piece.offset;
  while (done < piece.length) {
    const FallbackStep step = transfer.NextFallback(start + done, piece.length - done);
    Status status = transfer.Fallback(backing, start + done, at + done, step.asked);
    if (!status.ok()) {
      failure.offset = done;
      failure.transferred = Transfer::kCounts ? done : 0;
      // Where and how much, if the status is the backing's own (another memory's has other coordinates) and believable.
      if (status.info().operation == Operation::kNone) {
        const auto& [address, moved] = std::pair(status.info().fault_address, status.info().transferred);
        if (address && *address >= start + done && *address - (start + done) < step.asked) {
          failure.offset = *address - start;
        }
        if (Transfer::kCounts && moved <= step.asked) {
          failure.transferred += moved;
        }
      }
      failure.cause = std::move(status);
      return false;
    }
    done += step.advance;
  }
  return true;
}

enum class Asked : uint8_t { kRetry, kDone, kFailed };

// Asks the handler about what stopped a pass over the piece, `done` bytes into it; carries out its fallback. kFailed: `failure` is
// filled in.
template <typename Transfer>
[[gnu::cold]] Asked Ask(const Piece& piece, uint64_t at, Transfer& transfer, const Stop& stop, uint64_t done, Handle& handle,
                        PieceFailure& failure) {
  GUESTMEM_SCHEDULE_POINT(kBeforeHandler);
  if (!handle.MayCall(failure.cause)) {
    failure.offset = stop.offset;
    failure.transferred = Transfer::kCounts ? done : 0;
    return Asked::kFailed;
  }
  const Region& region = *piece.region;
  const PageFaultAction action = region.backing->PageFault(
      {region.backing_offset + piece.offset + stop.offset, piece.length - stop.offset, Transfer::kAccess, stop.bitmap_failure});
  GUESTMEM_SCHEDULE_POINT(kAfterHandler);
  if (action.kind() == PageFaultAction::Kind::kFallback) {
    return RunFallback(piece, at, transfer, done, handle, failure) ? Asked::kDone : Asked::kFailed;
  }
  if (action.kind() == PageFaultAction::Kind::kFail) {
    failure = {action.status(), stop.offset, Transfer::kCounts ? done : 0, stop.write_refused};
    return Asked::kFailed;
  }
  return Asked::kRetry;
}

// Carries the piece out; `at` is its start within the access. `met`, if set, is a fault of the whole piece that a fast
// path met already. False: `failure` is filled in.
template <typename Transfer>
bool RunPiece(const Piece& piece, uint64_t at, Transfer& transfer, Handle& handle, PieceFailure& failure,
              std::optional<Stop> met = std::nullopt) {
  if (piece.region->base == nullptr) [[unlikely]] {
    return RunFallback(piece, at, transfer, 0, handle, failure);
  }
  Checked checked;
  for (uint64_t done = 0;;) {
    const Stop stop = met ? *met : RunPass(piece, at, transfer, done, checked);
    met.reset();
    if (stop.offset == piece.length) [[likely]] {
      return true;
    }
    if (!Transfer::kWhole) {
      done = stop.done;
    }
    const Asked asked = Ask(piece, at, transfer, stop, done, handle, failure);
    if (asked != Asked::kRetry) {
      return asked == Asked::kDone;
    }
  }
}

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_GUEST_PIECE_H_
