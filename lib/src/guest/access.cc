// GuestMemory's accesses: range check, pieces, errors.

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "guest/piece.h"
#include "guest/transfers.h"
#include "guestmem/guest_memory.h"
#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

using detail::Memory;
using detail::Piece;
using detail::PieceFailure;
using detail::Region;
using detail::Stop;

[[gnu::cold]] Status RangeError(const Memory& memory, ErrorKind kind, Operation operation,
                                std::optional<AddressRange> range, uint64_t fault_address) {
  ErrorInfo info;
  info.kind = kind;
  info.operation = operation;
  info.range = range;
  info.fault_address = fault_address;
  return detail::MakeError(memory.name, std::move(info));
}

[[gnu::cold]] Status PieceError(const Memory& memory, Operation operation, std::optional<AddressRange> range,
                                const Piece& piece, PieceFailure failure) {
  ErrorInfo info;
  info.operation = operation;
  info.range = range;
  info.fault_address = piece.region_start + piece.offset + failure.offset;
  info.transferred = failure.transferred;
  info.cause = std::move(failure.cause);
  return detail::MakeCallbackError(memory.name, std::move(info), failure.write_refused);
}

// The part of [gpa, gpa + length) that lies in gpa's region; length 0 if gpa is not in memory.
Piece FirstPiece(const Memory& memory, uint64_t gpa, uint64_t length) {
  const uint64_t index = gpa >> memory.region_bits;
  if (index >= memory.regions.size()) {
    return {nullptr, 0, 0, 0};
  }
  const Region& region = memory.regions[detail::LimitSpeculation(index, memory.regions.size() - 1)];
  uint64_t offset = gpa & memory.region_mask();
  if (offset >= region.size) {
    return {nullptr, 0, 0, 0};
  }
  offset = detail::LimitSpeculation(offset, region.size - 1);
  return {&region, offset, std::min(length, region.size - offset), gpa - offset};
}

// Whether every byte of the range is in some backing.
[[gnu::cold]] bool IsCovered(const Memory& memory, uint64_t gpa, uint64_t length) {
  while (length != 0) {
    const Piece piece = FirstPiece(memory, gpa, length);
    if (piece.length == 0) {
      return false;
    }
    gpa += piece.length;  // cannot wrap: regions end below 2^63
    length -= piece.length;
  }
  return true;
}

template <typename Transfer>
concept CopiesHostBytes = requires(Transfer t) { t.host; };

bool Overlaps(const std::byte* host, const std::byte* guest, uint64_t length) {
  const auto a = reinterpret_cast<uintptr_t>(host);
  const auto b = reinterpret_cast<uintptr_t>(guest);
  return a - b < length || b - a < length;
}

// A host buffer inside the guest range: the piece goes through a copy, which makes it memmove. False as RunPiece.
template <typename Transfer>
[[gnu::cold]] bool RunOverlapping(const Piece& piece, uint64_t at, Transfer& transfer, PieceFailure& failure,
                                  bool& exhausted) {
  const auto free = [](std::byte* bytes) { host::Free(bytes); };
  const std::unique_ptr<std::byte, decltype(free)> copy(static_cast<std::byte*>(host::Allocate(piece.length)));
  if (copy == nullptr) {
    exhausted = true;
    return false;
  }
  if constexpr (Transfer::kAccess == AccessType::kWrite) {
    std::memcpy(copy.get(), transfer.host + at, piece.length);
  }
  Transfer through(copy.get());
  if (!RunPiece(piece, 0, through, failure)) {
    return false;
  }
  if constexpr (Transfer::kAccess == AccessType::kRead) {
    std::memcpy(transfer.host + at, copy.get(), piece.length);
  }
  return true;
}

}  // namespace

template <typename Transfer>
Status GuestMemory::RunBulk(uint64_t gpa, uint64_t length, Transfer& transfer) const {
  const AddressRange range{gpa, length};
  uint64_t offset;
  const Region* const region = Locate(gpa, length, offset);
  if (region == nullptr && !IsCovered(*memory_, gpa, length)) [[unlikely]] {
    return RangeError(*memory_, ErrorKind::kOutOfRange, Transfer::kOperation, range, gpa);
  }
  bool overlap = false;
  for (uint64_t at = 0; at < length;) {
    const Piece piece = region != nullptr ? Piece{region, offset, length, gpa - offset}
                                          : FirstPiece(*memory_, gpa + at, length - at);
    PieceFailure failure;
    bool exhausted = false;
    bool done;
    if constexpr (CopiesHostBytes<Transfer>) {
      const bool piece_overlaps =
          piece.region->base != nullptr && Overlaps(transfer.host + at, piece.region->base + piece.offset, piece.length);
      overlap |= piece_overlaps;
      done = piece_overlaps ? RunOverlapping(piece, at, transfer, failure, exhausted)
                            : RunPiece(piece, at, transfer, failure);
    } else {
      done = RunPiece(piece, at, transfer, failure);
    }
    if (!done) [[unlikely]] {
      if (exhausted) {
        return RangeError(*memory_, ErrorKind::kResourceExhausted, Transfer::kOperation, range, gpa + at);
      }
      failure.transferred = overlap ? 0 : at + failure.transferred;
      return PieceError(*memory_, Transfer::kOperation, range, piece, std::move(failure));
    }
    at += piece.length;
  }
  return {};
}

template <typename Transfer>
Status GuestMemory::RunProbe(uint64_t gpa, uint64_t length, std::optional<AddressRange> range) const {
  if (!IsCovered(*memory_, gpa, length)) {
    return RangeError(*memory_, ErrorKind::kOutOfRange, Operation::kProbe, range, gpa);
  }
  Transfer transfer;
  for (uint64_t at = 0; at < length;) {
    const Piece piece = FirstPiece(*memory_, gpa + at, length - at);
    PieceFailure failure;
    if (!RunPiece(piece, at, transfer, failure)) {
      return PieceError(*memory_, Operation::kProbe, range, piece, std::move(failure));
    }
    at += piece.length;
  }
  return {};
}

Status GuestMemory::ReadAt(uint64_t gpa, std::span<std::byte> destination) const {
  detail::ReadTransfer transfer(destination.data());
  return destination.empty() ? Status() : RunBulk(gpa, destination.size(), transfer);
}

Status GuestMemory::WriteAt(uint64_t gpa, std::span<const std::byte> source) const {
  detail::WriteTransfer transfer(source.data());
  return source.empty() ? Status() : RunBulk(gpa, source.size(), transfer);
}

// Safe because std::atomic<uint8_t> is a byte that is lock-free: it has the size and representation of one.
static_assert(sizeof(std::atomic<uint8_t>) == 1 && std::atomic<uint8_t>::is_always_lock_free);

Status GuestMemory::ReadToAtomic(uint64_t gpa, std::span<std::atomic<uint8_t>> destination) const {
  detail::SharedReadTransfer transfer(reinterpret_cast<std::byte*>(destination.data()));
  return destination.empty() ? Status() : RunBulk(gpa, destination.size(), transfer);
}

Status GuestMemory::WriteFromAtomic(uint64_t gpa, std::span<const std::atomic<uint8_t>> source) const {
  detail::SharedWriteTransfer transfer(reinterpret_cast<const std::byte*>(source.data()));
  return source.empty() ? Status() : RunBulk(gpa, source.size(), transfer);
}

Status GuestMemory::FillAt(uint64_t gpa, uint8_t value, uint64_t length) const {
  detail::FillTransfer transfer(value);
  return length == 0 ? Status() : RunBulk(gpa, length, transfer);
}

Status GuestMemory::ProbeReadable(uint64_t gpa, uint64_t length) const {
  return RunProbe<detail::ProbeTransfer<AccessType::kRead>>(gpa, length, AddressRange{gpa, length});
}

Status GuestMemory::ProbeWritable(uint64_t gpa, uint64_t length) const {
  return RunProbe<detail::ProbeTransfer<AccessType::kWrite>>(gpa, length, AddressRange{gpa, length});
}

Status GuestMemory::ProbeExecutable(uint64_t gpa, uint64_t length) const {
  return RunProbe<detail::ProbeTransfer<AccessType::kExecute>>(gpa, length, AddressRange{gpa, length});
}

Status GuestMemory::ProbeGpns(std::span<const uint64_t> gpns) const {
  constexpr uint64_t kInvalidFrom = (uint64_t{1} << 52) - 1;  // its page ends at 2^64, which is no 64-bit address
  for (const uint64_t gpn : gpns) {
    if (gpn >= kInvalidFrom) {
      ErrorInfo info;
      info.kind = ErrorKind::kInvalidGpn;
      info.operation = Operation::kProbe;
      info.gpn = gpn;
      return detail::MakeError(memory_->name, std::move(info));
    }
    Status status = RunProbe<detail::ProbeTransfer<AccessType::kRead>>(gpn * kPageSize, kPageSize, std::nullopt);
    if (!status.ok()) {
      return status;
    }
  }
  return {};
}

namespace {

// A plain access or compare-exchange of `size` bytes in one region, on the cold path.
template <typename Transfer>
Status RunWhole(const Memory& memory, const Region* region, uint64_t offset, uint64_t gpa, uint64_t size,
                Transfer& transfer, const detail::TrapResult* met) {
  const AddressRange range{gpa, size};
  if (region == nullptr) {
    return RangeError(memory, ErrorKind::kOutOfRange, Transfer::kOperation, range, gpa);
  }
  if (Transfer::kOperation == Operation::kCompareExchange && (region->backing_offset + offset) % size != 0) {
    return RangeError(memory, ErrorKind::kMisaligned, Transfer::kOperation, range, gpa);
  }
  const Piece piece{region, offset, size, gpa - offset};
  std::optional<Stop> stop;
  if (met != nullptr) {
    const Fault fault = detail::MakeFault(region->base + offset, size, *met);
    stop = Stop{fault.offset, false, fault.side == Fault::Side::kWrite && fault.code == SEGV_ACCERR};
  }
  PieceFailure failure;
  if (!RunPiece(piece, 0, transfer, failure, stop)) {
    return PieceError(memory, Transfer::kOperation, range, piece, std::move(failure));
  }
  return {};
}

}  // namespace

Status GuestMemory::ReadPlainSlow(uint64_t gpa, void* value, size_t size, const detail::TrapResult* fault) const {
  uint64_t offset = 0;
  const Region* const region = Locate(gpa, size, offset);
  detail::PlainReadTransfer transfer(static_cast<std::byte*>(value));
  return RunWhole(*memory_, region, offset, gpa, size, transfer, fault);
}

Status GuestMemory::WritePlainSlow(uint64_t gpa, const void* value, size_t size,
                                   const detail::TrapResult* fault) const {
  uint64_t offset = 0;
  const Region* const region = Locate(gpa, size, offset);
  detail::PlainWriteTransfer transfer(static_cast<const std::byte*>(value));
  return RunWhole(*memory_, region, offset, gpa, size, transfer, fault);
}

Result<bool> GuestMemory::CompareExchangeSlow(uint64_t gpa, void* current, const void* desired, size_t size,
                                              const detail::TrapResult* fault) const {
  uint64_t offset = 0;
  const Region* const region = Locate(gpa, size, offset);
  detail::CompareExchangeTransfer transfer(static_cast<std::byte*>(current), static_cast<const std::byte*>(desired));
  Status status = RunWhole(*memory_, region, offset, gpa, size, transfer, fault);
  return status.ok() ? Result<bool>(transfer.swapped) : Result<bool>(std::move(status));
}

Result<bool> GuestMemory::CompareExchangeBytes(uint64_t gpa, std::span<std::byte> current,
                                               std::span<const std::byte> desired) const {
  const size_t size = desired.size();
  if (current.size() != size || (size != 1 && size != 2 && size != 4 && size != 8)) {
    ErrorInfo info;
    info.kind = ErrorKind::kInvalidArgument;
    info.operation = Operation::kCompareExchange;
    info.range = {gpa, size};
    return detail::MakeError(memory_->name, std::move(info), "both values must have the same 1, 2, 4 or 8 bytes");
  }
  return CompareExchangeSlow(gpa, current.data(), desired.data(), size, nullptr);
}

}  // namespace guestmem
