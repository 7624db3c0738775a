// GuestMemory's accesses: range check, pieces, errors.

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "guest/access_errors.h"
#include "guest/live.h"
#include "guest/piece.h"
#include "guest/transfers.h"
#include "guestmem/guest_memory.h"
#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

using detail::CopiesHostBytes;
using detail::ErrorRep;
using detail::ForgetTransferred;
using detail::GpnError;
using detail::Handle;
using detail::LengthError;
using detail::Memory;
using detail::Piece;
using detail::PieceError;
using detail::PieceFailure;
using detail::RangeError;
using detail::Region;
using detail::Stop;

// The part of [gpa, gpa + length) that lies in gpa's region; length 0 if gpa is not in memory.
Piece FirstPiece(const Memory& memory, uint64_t gpa, uint64_t length) {
  return detail::PieceOf(memory.regions[gpa >> memory.region_bits & (memory.regions.size() - 1)], gpa, length);
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

// The length of the longest piece of [gpa, gpa + length) that shares memory with its part of the host buffer; 0: none does.
[[gnu::cold]] uint64_t LongestOverlap(const Memory& memory, uint64_t gpa, uint64_t length, const std::byte* host) {
  uint64_t longest = 0;
  for (uint64_t at = 0; at < length;) {
    const Piece piece = FirstPiece(memory, gpa + at, length - at);
    if (piece.region->base != nullptr && detail::Overlaps(host + at, piece.region->base + piece.offset, piece.length)) {
      longest = std::max(longest, piece.length);
    }
    at += piece.length;
  }
  return longest;
}

// Whether the host buffer of a failed access shares memory with any of [gpa, gpa + length).
[[gnu::cold]] bool OverlapsAny(const Memory& memory, uint64_t gpa, uint64_t length, std::span<const std::byte> host) {
  const bool live = memory.space != nullptr;
  const detail::ReadSection section(live);
  while (length != 0) {
    const Piece piece = live ? detail::LivePiece(memory, memory.space->Now(), gpa, length) : FirstPiece(memory, gpa, length);
    if (piece.length == 0) {
      return false;
    }
    if (piece.region->base != nullptr) {
      const auto guest = reinterpret_cast<uintptr_t>(piece.region->base) + piece.offset;
      const auto buffer = reinterpret_cast<uintptr_t>(host.data());
      if (guest < buffer + host.size() && buffer < guest + piece.length) {
        return true;
      }
    }
    gpa += piece.length;
    length -= piece.length;
  }
  return false;
}

[[gnu::cold]] bool OverlapsAny(const Memory& memory, const PagedRange& range, std::span<const std::byte> host) {
  uint64_t in_page = range.offset();
  uint64_t left = range.length();
  for (const uint64_t& listed : range.gpns()) {
    const uint64_t gpn = detail::ListedGpn(listed);
    const uint64_t here = std::min(left, kPageSize - in_page);
    if (gpn < kFirstInvalidGpn && OverlapsAny(memory, gpn * kPageSize + in_page, here, host)) {
      return true;
    }
    left -= here;
    in_page = 0;
  }
  return false;
}

[[gnu::cold]] bool OverlapsAny(const Memory& memory, const PagedRanges& ranges, std::span<const std::byte> host) {
  for (const PagedRange& range : ranges) {
    if (OverlapsAny(memory, range, host)) {
      return true;
    }
  }
  return false;
}

}  // namespace

template <typename Transfer>
Status GuestMemory::RunBulk(uint64_t gpa, uint64_t length, Transfer& transfer, std::optional<AddressRange> range,
                            uint64_t before, const Fault* met, Handle& handle) const {
  const Memory& memory = *memory_;
  uint64_t offset;
  const Region* const region = Locate(gpa, length, offset);
  if (region == nullptr && memory.space != nullptr) {
    return RunLive(gpa, length, transfer, range, before, handle);
  }
  if (region == nullptr && !IsCovered(memory, gpa, length)) [[unlikely]] {
    return RangeError(memory, ErrorKind::kOutOfRange, Transfer::kOperation, range, gpa, before);
  }
  detail::OverlapCopy copy;
  if constexpr (CopiesHostBytes<Transfer>) {
    if (!copy.Reserve(LongestOverlap(memory, gpa, length, transfer.host + before))) {
      return RangeError(memory, ErrorKind::kResourceExhausted, Transfer::kOperation, range, gpa, before);
    }
  }
  for (uint64_t at = 0; at < length;) {
    const Piece piece = region != nullptr ? Piece{region, offset, length} : FirstPiece(memory, gpa + at, length - at);
    PieceFailure failure;
    bool done;
    const uint64_t in_access = before + at;
    // A kernel that met a fault had the access as one piece.
    const auto run = [&] {
      return RunPiece(piece, in_access, transfer, handle, failure,
                      met == nullptr ? std::nullopt : std::optional(detail::StopAt(0, *met)));
    };
    if constexpr (CopiesHostBytes<Transfer>) {
      const bool overlaps = piece.region->base != nullptr &&
                            detail::Overlaps(transfer.host + in_access, piece.region->base + piece.offset, piece.length);
      done = overlaps ? copy.Run(transfer, in_access, piece.length,
                                 [&](Transfer& through) { return RunPiece(piece, 0, through, handle, failure); })
                      : run();
    } else {
      done = run();
    }
    if (!done) [[unlikely]] {
      failure.transferred += in_access;
      return PieceError(memory, Transfer::kOperation, range, piece, std::move(failure));
    }
    at += piece.length;
  }
  return {};
}

template <typename Transfer>
Status GuestMemory::RunAt(uint64_t gpa, uint64_t length, Transfer& transfer, const Fault* met) const {
  if (length == 0) {
    return {};
  }
  Handle handle(*this);
  const Memory& memory = *memory_;
  Status status = RunBulk(gpa, length, transfer, AddressRange{gpa, length}, 0, met, handle);
  if constexpr (CopiesHostBytes<Transfer>) {
    if (!status.ok() && OverlapsAny(memory, gpa, length, {transfer.host, length})) [[unlikely]] {
      ForgetTransferred(status);
    }
  }
  return status;
}

template <typename Transfer>
Status GuestMemory::RunProbe(uint64_t gpa, uint64_t length, std::optional<AddressRange> range, Handle& handle) const {
  const Memory& memory = *memory_;
  Transfer transfer;
  if (!IsCovered(memory, gpa, length)) {
    return memory.space != nullptr ? RunLive(gpa, length, transfer, range, 0, handle)
                                   : RangeError(memory, ErrorKind::kOutOfRange, Operation::kProbe, range, gpa);
  }
  for (uint64_t at = 0; at < length;) {
    const Piece piece = FirstPiece(memory, gpa + at, length - at);
    PieceFailure failure;
    if (!RunPiece(piece, at, transfer, handle, failure)) {
      return PieceError(memory, Operation::kProbe, range, piece, std::move(failure));
    }
    at += piece.length;
  }
  return {};
}

ErrorRep* GuestMemory::ReadSlow(uint64_t gpa, std::span<std::byte> destination, const Fault* met) const {
  detail::ReadTransfer transfer(destination.data());
  return RunAt(gpa, destination.size(), transfer, met).Release();
}

ErrorRep* GuestMemory::WriteSlow(uint64_t gpa, std::span<const std::byte> source, const Fault* met) const {
  detail::WriteTransfer transfer(source.data());
  return RunAt(gpa, source.size(), transfer, met).Release();
}

ErrorRep* GuestMemory::FillSlow(uint64_t gpa, std::byte value, uint64_t length, const Fault* met) const {
  detail::FillTransfer transfer(value);
  return RunAt(gpa, length, transfer, met).Release();
}

// Safe because std::atomic<uint8_t> is a byte that is lock-free: it has the size and representation of one.
static_assert(sizeof(std::atomic<uint8_t>) == 1 && std::atomic<uint8_t>::is_always_lock_free);

Status GuestMemory::ReadToAtomic(uint64_t gpa, std::span<std::atomic<uint8_t>> destination) const {
  detail::SharedReadTransfer transfer(reinterpret_cast<std::byte*>(destination.data()));
  return RunAt(gpa, destination.size(), transfer);
}

Status GuestMemory::WriteFromAtomic(uint64_t gpa, std::span<const std::atomic<uint8_t>> source) const {
  detail::SharedWriteTransfer transfer(reinterpret_cast<const std::byte*>(source.data()));
  return RunAt(gpa, source.size(), transfer);
}

template <typename Transfer>
Status GuestMemory::RunRange(const PagedRange& range, Transfer& transfer, uint64_t& done, Handle& handle) {
  uint64_t in_page = range.offset();
  uint64_t left = range.length();
  for (const uint64_t& listed : range.gpns()) {
    const uint64_t gpn = detail::ListedGpn(listed);
    const GuestMemory& memory = *handle;
    if (gpn >= kFirstInvalidGpn) [[unlikely]] {
      return GpnError(*memory.memory_, Transfer::kOperation, gpn, done);
    }
    const uint64_t here = std::min(left, kPageSize - in_page);
    const uint64_t gpa = gpn * kPageSize + in_page;
    Status status = memory.RunFastBulk(
        Transfer::kAccess, gpa, here,
        [&](std::byte* guest) { return transfer.Kernel(guest, done, here); },
        [&](std::byte* guest, detail::TrapResult result) { return transfer.Finish(guest, done, here, result); },
        [&](const Fault* met) { return memory.RunBulk(gpa, here, transfer, std::nullopt, done, met, handle).Release(); });
    if (!status.ok()) [[unlikely]] {
      return status;
    }
    done += here;
    left -= here;
    in_page = 0;
  }
  return {};
}

template <typename Transfer>
Status GuestMemory::RunRange(const PagedRanges& ranges, Transfer& transfer, uint64_t& done, Handle& handle) {
  for (const PagedRange& part : ranges) {
    Status status = RunRange(part, transfer, done, handle);
    if (!status.ok()) [[unlikely]] {
      return status;
    }
  }
  return {};
}

template <typename Transfer, typename Range, typename Buffer>
Status GuestMemory::RunBuffer(const Range& range, Buffer buffer) const {
  if (buffer.size() != range.length()) [[unlikely]] {
    return LengthError(*memory_, Transfer::kOperation);
  }
  // Safe because an atomic byte has a byte's representation, as asserted above; a byte is itself.
  Transfer transfer(reinterpret_cast<decltype(Transfer::host)>(buffer.data()));
  uint64_t done = 0;
  Handle handle(*this);
  Status status = RunRange(range, transfer, done, handle);
  if (!status.ok() && OverlapsAny(*(*handle).memory_, range, {transfer.host, buffer.size()})) [[unlikely]] {
    ForgetTransferred(status);
  }
  return status;
}

Status GuestMemory::ReadRange(const PagedRange& range, std::span<std::byte> destination) const {
  return RunBuffer<detail::ReadTransfer>(range, destination);
}
Status GuestMemory::ReadRange(const PagedRanges& ranges, std::span<std::byte> destination) const {
  return RunBuffer<detail::ReadTransfer>(ranges, destination);
}

Status GuestMemory::WriteRange(const PagedRange& range, std::span<const std::byte> source) const {
  return RunBuffer<detail::WriteTransfer>(range, source);
}
Status GuestMemory::WriteRange(const PagedRanges& ranges, std::span<const std::byte> source) const {
  return RunBuffer<detail::WriteTransfer>(ranges, source);
}

Status GuestMemory::ReadRangeToAtomic(const PagedRange& range, std::span<std::atomic<uint8_t>> destination) const {
  return RunBuffer<detail::SharedReadTransfer>(range, destination);
}
Status GuestMemory::ReadRangeToAtomic(const PagedRanges& ranges, std::span<std::atomic<uint8_t>> destination) const {
  return RunBuffer<detail::SharedReadTransfer>(ranges, destination);
}

Status GuestMemory::WriteRangeFromAtomic(const PagedRange& range, std::span<const std::atomic<uint8_t>> source) const {
  return RunBuffer<detail::SharedWriteTransfer>(range, source);
}
Status GuestMemory::WriteRangeFromAtomic(const PagedRanges& ranges, std::span<const std::atomic<uint8_t>> source) const {
  return RunBuffer<detail::SharedWriteTransfer>(ranges, source);
}

Status GuestMemory::FillRange(const PagedRange& range, std::byte value) const {
  detail::FillTransfer transfer(value);
  uint64_t done = 0;
  Handle handle(*this);
  return RunRange(range, transfer, done, handle);
}
Status GuestMemory::FillRange(const PagedRanges& ranges, std::byte value) const {
  detail::FillTransfer transfer(value);
  uint64_t done = 0;
  Handle handle(*this);
  return RunRange(ranges, transfer, done, handle);
}

Status GuestMemory::ProbeReadable(uint64_t gpa, uint64_t length) const {
  Handle handle(*this);
  return RunProbe<detail::ProbeTransfer<AccessType::kRead>>(gpa, length, AddressRange{gpa, length}, handle);
}

Status GuestMemory::ProbeWritable(uint64_t gpa, uint64_t length) const {
  Handle handle(*this);
  return RunProbe<detail::ProbeTransfer<AccessType::kWrite>>(gpa, length, AddressRange{gpa, length}, handle);
}

Status GuestMemory::ProbeExecutable(uint64_t gpa, uint64_t length) const {
  Handle handle(*this);
  return RunProbe<detail::ProbeTransfer<AccessType::kExecute>>(gpa, length, AddressRange{gpa, length}, handle);
}

Status GuestMemory::ProbeGpns(std::span<const uint64_t> gpns) const {
  Handle handle(*this);
  while (true) {
    const GuestMemory& memory = *handle;
    gpns = gpns.subspan(detail::ProbePages<AccessType::kRead>(gpns, [&](size_t i) {
      // An invalid GPN is not in it.
      const Region& region = memory.RegionOf(std::min(detail::ListedGpn(gpns[i]), kFirstInvalidGpn - 1) * kPageSize);
      return detail::ListedPage{&region, region.start / kPageSize, gpns.size()};
    }));
    if (gpns.empty()) {
      return {};
    }
    const uint64_t gpn = detail::ListedGpn(gpns[0]);
    if (gpn >= kFirstInvalidGpn) {
      return GpnError(*memory.memory_, Operation::kProbe, gpn, 0);
    }
    Status status = memory.RunProbe<detail::ProbeTransfer<AccessType::kRead>>(gpn * kPageSize, kPageSize, std::nullopt, handle);
    if (!status.ok()) {
      return status;
    }
    gpns = gpns.subspan(1);
  }
}

// A plain access or compare-exchange of `size` bytes in one region, on the general path.
template <typename Transfer>
Status GuestMemory::RunWhole(uint64_t gpa, uint64_t size, Transfer& transfer, detail::TrapResult met) const {
  const Memory& memory = *memory_;
  const AddressRange range{gpa, size};
  Handle handle(*this);
  uint64_t offset = 0;
  const Region* const region = Locate(gpa, size, offset);
  if (region == nullptr) {
    return memory.space != nullptr ? RunLive(gpa, size, transfer, range, 0, handle)
                                   : RangeError(memory, ErrorKind::kOutOfRange, Transfer::kOperation, range, gpa);
  }
  if (detail::IsMisaligned<Transfer>(*region, offset, size)) {
    return RangeError(memory, ErrorKind::kMisaligned, Transfer::kOperation, range, gpa);
  }
  const Piece piece{region, offset, size};
  std::optional<Stop> stop;
  if (met.info != 0) {
    const Fault fault = detail::MakeFault(region->base + offset, size, met);
    stop = detail::StopAt(0, fault);
  }
  PieceFailure failure;
  if (!RunPiece(piece, 0, transfer, handle, failure, stop)) {
    return PieceError(memory, Transfer::kOperation, range, piece, std::move(failure));
  }
  return {};
}

template <int Size>
detail::PlainWord GuestMemory::ReadPlainSlow(uint64_t gpa, detail::TrapResult met) const {
  if (memory_->space != nullptr) [[likely]] {
    uint64_t word;
    if (detail::RunLiveFast<AccessType::kRead, Size>(
            *memory_, gpa, [&](std::byte* guest) { return detail::TrapLoad<Size>(guest, word, met); })) [[likely]] {
      return {word, nullptr};
    }
  }
  return ReadPlainAgain(gpa, Size, met);
}

template <int Size>
ErrorRep* GuestMemory::WritePlainSlow(uint64_t gpa, uint64_t word, detail::TrapResult met) const {
  if (memory_->space != nullptr) [[likely]] {
    if (detail::RunLiveFast<AccessType::kWrite, Size>(
            *memory_, gpa, [&](std::byte* guest) { return detail::TrapStore<Size>(guest, word, met); })) [[likely]] {
      return nullptr;
    }
  }
  return WritePlainAgain(gpa, word, Size, met);
}

detail::PlainWord GuestMemory::ReadPlainAgain(uint64_t gpa, size_t size, detail::TrapResult met) const {
  uint64_t word = 0;
  detail::PlainReadTransfer transfer(reinterpret_cast<std::byte*>(&word));
  ErrorRep* const error = RunWhole(gpa, size, transfer, met).Release();
  return {word, error};
}

ErrorRep* GuestMemory::WritePlainAgain(uint64_t gpa, uint64_t word, size_t size, detail::TrapResult met) const {
  detail::PlainWriteTransfer transfer(reinterpret_cast<const std::byte*>(&word));
  return RunWhole(gpa, size, transfer, met).Release();
}

#define GUESTMEM_INSTANTIATE_(size)                                                             \
  template detail::PlainWord GuestMemory::ReadPlainSlow<size>(uint64_t, detail::TrapResult) const; \
  template ErrorRep* GuestMemory::WritePlainSlow<size>(uint64_t, uint64_t, detail::TrapResult) const
GUESTMEM_INSTANTIATE_(1);
GUESTMEM_INSTANTIATE_(2);
GUESTMEM_INSTANTIATE_(4);
GUESTMEM_INSTANTIATE_(8);
#undef GUESTMEM_INSTANTIATE_

Result<bool> GuestMemory::CompareExchangeSlow(uint64_t gpa, void* current, const void* desired, size_t size,
                                              detail::TrapResult met) const {
  detail::CompareExchangeTransfer transfer(static_cast<std::byte*>(current), static_cast<const std::byte*>(desired));
  Status status = RunWhole(gpa, size, transfer, met);
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
    return detail::MakeError(&memory_->name, std::move(info), "both values must have the same 1, 2, 4 or 8 bytes");
  }
  return CompareExchangeSlow(gpa, current.data(), desired.data(), size, {});
}

}  // namespace guestmem
