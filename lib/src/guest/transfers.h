// The transfers that piece.h runs: read, write, fill, compare-exchange, probe.

#ifndef GUESTMEM_SRC_GUEST_TRANSFERS_H_
#define GUESTMEM_SRC_GUEST_TRANSFERS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "guest/listed_gpn.h"
#include "guest/piece.h"
#include "guestmem/backing.h"
#include "guestmem/detail/host_side.h"
#include "guestmem/fault.h"
#include "host/host_calls.h"

namespace guestmem::detail {

// `Kernel` and `Finish` are what GuestMemory's fast path needs of a transfer over listed pages.
struct BulkTransfer {
  static constexpr bool kWhole = false;
  static constexpr bool kCounts = true;
  static FallbackStep NextFallback(uint64_t, uint64_t length) { return {length, length}; }
};

struct ReadTransfer : BulkTransfer {
  static constexpr AccessType kAccess = AccessType::kRead;
  static constexpr Operation kOperation = Operation::kRead;
  std::byte* host;

  explicit ReadTransfer(std::byte* host) : host(host) {}
  TrapResult Kernel(const std::byte* guest, uint64_t at, uint64_t length, HostSide::Sharing sharing = HostSide::kOwn) {
    HostSide side(HostSide::kWritten, host + at, length, sharing);
    const TrapResult result = g_trap_kernels.copy_from_guest(host + at, guest, length);
    side.Moved(result.info == 0 ? length : 0);
    return result;
  }
  Fault Finish(std::byte* guest, uint64_t at, uint64_t length, TrapResult result, HostSide::Sharing sharing = HostSide::kOwn) {
    return FinishCopy(GuestSide::kSource, host + at, guest, length, result, sharing);
  }
  std::optional<Fault> Move(std::byte* guest, uint64_t at, uint64_t length) {
    return TryCopy(GuestSide::kSource, host + at, guest, length);
  }
  Status Fallback(GuestMemoryAccess& backing, uint64_t address, uint64_t at, uint64_t length) {
    return backing.ReadFallback(address, {host + at, length});
  }
};

struct WriteTransfer : BulkTransfer {
  static constexpr AccessType kAccess = AccessType::kWrite;
  static constexpr Operation kOperation = Operation::kWrite;
  const std::byte* host;

  explicit WriteTransfer(const std::byte* host) : host(host) {}
  TrapResult Kernel(std::byte* guest, uint64_t at, uint64_t length, HostSide::Sharing sharing = HostSide::kOwn) {
    const HostSide side(HostSide::kRead, host + at, length, sharing);
    return g_trap_kernels.copy_to_guest(guest, host + at, length);
  }
  std::optional<Fault> Move(std::byte* guest, uint64_t at, uint64_t length) {
    return TryCopy(GuestSide::kDestination, guest, host + at, length);
  }
  Fault Finish(std::byte* guest, uint64_t at, uint64_t length, TrapResult result) {
    return FinishCopy(GuestSide::kDestination, guest, host + at, length, result, HostSide::kOwn);
  }
  Status Fallback(GuestMemoryAccess& backing, uint64_t address, uint64_t at, uint64_t length) {
    return backing.WriteFallback(address, {host + at, length});
  }
};

// Against a host buffer that other threads access atomically meanwhile.
struct SharedReadTransfer : ReadTransfer {
  using ReadTransfer::ReadTransfer;
  TrapResult Kernel(const std::byte* guest, uint64_t at, uint64_t length) {
    return ReadTransfer::Kernel(guest, at, length, HostSide::kShared);
  }
  Fault Finish(std::byte* guest, uint64_t at, uint64_t length, TrapResult result) {
    return ReadTransfer::Finish(guest, at, length, result, HostSide::kShared);
  }
  std::optional<Fault> Move(std::byte* guest, uint64_t at, uint64_t length) {
    return TryCopyShared(GuestSide::kSource, host + at, guest, length);
  }
};

struct SharedWriteTransfer : WriteTransfer {
  using WriteTransfer::WriteTransfer;
  TrapResult Kernel(std::byte* guest, uint64_t at, uint64_t length) {
    return WriteTransfer::Kernel(guest, at, length, HostSide::kShared);
  }
  std::optional<Fault> Move(std::byte* guest, uint64_t at, uint64_t length) {
    return TryCopyShared(GuestSide::kDestination, guest, host + at, length);
  }
};

struct FillTransfer : BulkTransfer {
  static constexpr AccessType kAccess = AccessType::kWrite;
  static constexpr Operation kOperation = Operation::kFill;
  std::byte value;

  explicit FillTransfer(std::byte value) : value(value) {}
  TrapResult Kernel(std::byte* guest, uint64_t, uint64_t length) const {
    return g_trap_kernels.fill_guest(guest, std::to_integer<int>(value), length);
  }
  std::optional<Fault> Move(std::byte* guest, uint64_t, uint64_t length) { return TryFill(guest, value, length); }
  Fault Finish(std::byte* guest, uint64_t, uint64_t length, TrapResult result) {
    return FinishFill(guest, value, length, result);
  }
  Status Fallback(GuestMemoryAccess& backing, uint64_t address, uint64_t, uint64_t length) {
    return backing.FillFallback(address, value, length);
  }
};

// Bytes of the library's own between the two sides of a copy that overlap: what makes it memmove.
class OverlapCopy {
 public:
  OverlapCopy() = default;
  OverlapCopy(const OverlapCopy&) = delete;
  OverlapCopy& operator=(const OverlapCopy&) = delete;
  ~OverlapCopy() { host::Free(large_); }

  // Before anything moves: for runs of up to `length` bytes. False: there is no memory for them.
  [[nodiscard]] bool Reserve(uint64_t length) {
    if (length <= kPageSize) {
      return true;
    }
    large_ = static_cast<std::byte*>(host::Allocate(length));
    return large_ != nullptr;
  }

  // Calls `move(a transfer over own bytes)`, false for a failure, instead of [at, at + length) of `transfer`. A failed read has
  // stored nothing.
  template <typename Transfer, typename Move>
  [[gnu::cold, gnu::noinline]] bool Run(const Transfer& transfer, uint64_t at, uint64_t length, Move move) {
    std::byte small[kPageSize];
    std::byte* const bytes = large_ == nullptr ? small : large_;
    if constexpr (Transfer::kAccess == AccessType::kWrite) {
      std::memcpy(bytes, transfer.host + at, length);
    }
    Transfer through(bytes);
    const bool done = move(through);
    if constexpr (Transfer::kAccess == AccessType::kRead) {
      if (done) {
        std::memcpy(transfer.host + at, bytes, length);
      }
    }
    return done;
  }

 private:
  std::byte* large_ = nullptr;
};

// Calls `call` with an integral_constant of `size`, which is 1, 2, 4 or 8.
template <typename Call>
auto WithSize(uint64_t size, Call call) {
  switch (size) {
    case 1:
      return call(std::integral_constant<int, 1>());
    case 2:
      return call(std::integral_constant<int, 2>());
    case 4:
      return call(std::integral_constant<int, 4>());
    default:
      return call(std::integral_constant<int, 8>());
  }
}

// A plain access: one object, whole or not at all.
struct PlainReadTransfer : ReadTransfer {
  static constexpr bool kWhole = true;
  using ReadTransfer::ReadTransfer;
  std::optional<Fault> Move(std::byte* guest, uint64_t, uint64_t length) {
    return WithSize(length, [&](auto size) -> std::optional<Fault> {
      uint64_t word;
      TrapResult result;
      if (!TrapLoad<size()>(guest, word, result)) {
        return MakeFault(guest, size(), result);
      }
      std::memcpy(host, &word, size());
      return std::nullopt;
    });
  }
};

struct PlainWriteTransfer : WriteTransfer {
  static constexpr bool kWhole = true;
  using WriteTransfer::WriteTransfer;
  std::optional<Fault> Move(std::byte* guest, uint64_t, uint64_t length) {
    return WithSize(length, [&](auto size) -> std::optional<Fault> {
      uint64_t word = 0;
      std::memcpy(&word, host, size());
      TrapResult result;
      if (!TrapStore<size()>(guest, word, result)) {
        return MakeFault(guest, size(), result);
      }
      return std::nullopt;
    });
  }
};

struct CompareExchangeTransfer : BulkTransfer {
  static constexpr AccessType kAccess = AccessType::kWrite;
  static constexpr Operation kOperation = Operation::kCompareExchange;
  static constexpr bool kWhole = true;
  std::byte* current;  // in: the value compared with; out: the value seen
  const std::byte* desired;
  bool swapped = false;

  CompareExchangeTransfer(std::byte* current, const std::byte* desired) : current(current), desired(desired) {}
  std::optional<Fault> Move(std::byte* guest, uint64_t, uint64_t length) {
    return WithSize(length, [&](auto size) -> std::optional<Fault> {
      uint64_t wanted = 0, replacement = 0, seen;
      std::memcpy(&wanted, current, size());
      std::memcpy(&replacement, desired, size());
      TrapResult result;
      if (!TrapCompareExchange<size()>(guest, wanted, replacement, seen, result)) {
        return MakeFault(guest, size(), result);
      }
      swapped = seen == wanted;
      std::memcpy(current, &seen, size());
      return std::nullopt;
    });
  }
  Status Fallback(GuestMemoryAccess& backing, uint64_t address, uint64_t, uint64_t length) {
    const Result<bool> result = backing.CompareExchangeFallback(address, {current, length}, {desired, length});
    swapped = result.ok() && *result;
    return result.status();
  }
};

// Touches the lowest byte of the range in each page.
template <AccessType Access>
struct ProbeTransfer {
  static constexpr AccessType kAccess = Access;
  static constexpr Operation kOperation = Operation::kProbe;
  static constexpr bool kWhole = false;
  static constexpr bool kCounts = false;

  static std::optional<Fault> Move(std::byte* guest, uint64_t, uint64_t length) {
    for (uint64_t done = 0; done < length;) {
      TrapResult result;
      uint64_t value;
      std::byte* const byte = guest + done;
      if (!(Access == AccessType::kWrite ? TrapTouchWrite(byte, result) : TrapLoad<1>(byte, value, result))) {
        Fault fault = MakeFault(byte, 1, result);
        fault.offset = done;
        return fault;
      }
      done += ToNextPage(reinterpret_cast<uint64_t>(byte));
    }
    return std::nullopt;
  }
  static FallbackStep NextFallback(uint64_t address, uint64_t length) {
    return {1, std::min(length, ToNextPage(address))};
  }
  static Status Fallback(GuestMemoryAccess& backing, uint64_t address, uint64_t, uint64_t) {
    std::byte current{};
    if constexpr (Access == AccessType::kRead) {
      return backing.ReadFallback(address, {&current, 1});
    } else if constexpr (Access == AccessType::kWrite) {
      const std::byte desired{};
      return backing.CompareExchangeFallback(address, {&current, 1}, {&desired, 1}).status();
    } else {
      return NoFallback();
    }
  }

 private:
  static uint64_t ToNextPage(uint64_t address) { return kPageSize - address % kPageSize; }
};

// Probes a byte of each of pages [done, end) of a list, as long as they are whole pages of the window, whose first is number
// `first`. False: something refuses the next.
template <AccessType Access>
bool ProbeRun(const Window& shared, uint64_t first, std::span<const uint64_t> pages, size_t end, size_t& done) {
  const Window window = shared;  // a copy, which no store can change
  const uint64_t limit = window.mapped_limit == 0 ? 0 : (window.mapped_limit - 1) / kPageSize;
  const uint8_t* const bitmap = window.Bitmap(Access);
  for (; done < end; ++done) {
    uint64_t page;
    (void)__builtin_sub_overflow(ListedGpn(pages[done]), first, &page);  // below the window is far above it
    if (!Below(limit, page)) {
      break;
    }
    TrapResult result;
    uint64_t value;
    std::byte* const byte = window.base + page * kPageSize;
    if ((bitmap != nullptr && !window.Allows(bitmap, page * kPageSize)) ||
        !(Access == AccessType::kWrite ? TrapTouchWrite(byte, result) : TrapLoad<1>(byte, value, result))) {
      return false;
    }
  }
  return true;
}

// Where the page at some place of a list is looked for.
struct ListedPage {
  const Window* window;
  uint64_t first;  // the window's first page
  size_t run;      // so many pages of the list may be in it
};

// Probes listed pages, with a section for as many as any transfer may cover. Returns how many were done: what is in the way of the
// next is for the general path to find.
template <AccessType Access, typename At>
size_t ProbePages(std::span<const uint64_t> pages, At at) {
  for (size_t done = 0; done < pages.size();) {
    const ReadSection section;
    for (const size_t end = std::min(pages.size(), done + kSectionBytes / kPageSize); done < end;) {
      const size_t before = done;
      const ListedPage here = at(done);
      if (here.window->bit_bytes % kPageSize != 0 ||  // else a page here is none of the backing's
          !ProbeRun<Access>(*here.window, here.first, pages, done + std::min(here.run, end - done), done) || done == before) {
        return done;
      }
    }
  }
  return pages.size();
}

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_GUEST_TRANSFERS_H_
