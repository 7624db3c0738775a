// GuestMemory: reads and writes a guest's physical memory. Start here.
//
//   auto ram = guestmem::SparseMapping::Create(uint64_t{4} << 30).value();
//   guestmem::Status s = ram->Allocate(0, 1 << 20);
//   guestmem::GuestMemory memory = guestmem::GuestMemory::Create("ram", ram).value();
//
//   std::array<std::byte, 64> descriptor;
//   if (guestmem::Status s = memory.ReadAt(gpa, descriptor); !s.ok()) return s;   // any gpa, chosen by anyone
//   guestmem::Result<uint32_t> flags = memory.ReadPlain<uint32_t>(gpa + 4);
//   s = memory.WritePlain<uint16_t>(gpa + 8, 1);
//
// Addresses are the guest's and may be anything: what does not lie in memory is an error, never a crash, provided that SIGSEGV
// and SIGBUS are not blocked in the thread (the kernel ends the process then; PrepareThread() unblocks them, see fault.h). A host
// buffer is the caller's and must be valid: a fault there is reported as the crash that it is.
//
// What an access does, in order: nothing at all if its length is 0; the range check (kOutOfRange); then for each backing
// it touches: the access bits of all its pages, then the transfer, ascending. Where a bit or the mapping refuses, the
// backing's PageFault decides: fail, go on, or take the fallback. A failed bulk access has transferred exactly the bytes
// below ErrorInfo::fault_address, as counted by ErrorInfo::transferred; a failed plain access or compare-exchange nothing.
// That address is the start of a page or of the access. It is inside a page only if the page went away while its bytes were moved.
//
// Atomicity: a naturally aligned plain access of 1, 2, 4 or 8 bytes is never torn and is ordered by
// std::atomic_thread_fence as a relaxed atomic. Bulk accesses are not atomic; a bulk write may store a byte twice.
// A host buffer may overlap the guest range; a bulk access then behaves as memmove, backing by backing, and on failure the
// bytes of both ranges are unspecified and `transferred` is 0.
//
// Inside an Rcu::Section of the caller's own no handler and no fallback runs: an access that needs one is kInvalidArgument.
//
// When not: memory that must be touched from a signal handler (use guestmem/fault.h); memory that must stay where it is
// for a while (lock it).
//
// Threads: any handle may be used from any thread, and copied. Copying is cheap (shared ownership). Signal context: no.
// Units: addresses, offsets and lengths are bytes, an address always before its length; GPNs are pages of 4096 bytes.

#ifndef GUESTMEM_GUEST_MEMORY_H_
#define GUESTMEM_GUEST_MEMORY_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "guestmem/backing.h"
#include "guestmem/detail/host_side.h"
#include "guestmem/detail/memory.h"
#include "guestmem/detail/read_section.h"
#include "guestmem/detail/region.h"
#include "guestmem/detail/schedule.h"
#include "guestmem/detail/trap_inline.h"
#include "guestmem/fault.h"
#include "guestmem/lock.h"
#include "guestmem/paged_range.h"
#include "guestmem/plain.h"
#include "guestmem/sharing.h"
#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem {

class AddressSpace;
class AlignedHeapMemory;
namespace detail {
class Handle;
// What is read, or (an error) why nothing was: comes back in registers.
struct PlainWord {
  uint64_t word;
  ErrorRep* error;
};
}

struct CreateOptions {
  // False: the program owns its SIGSEGV and SIGBUS handlers and calls TryHandleFault from them.
  bool install_fault_handler = true;
};

// What a compare-exchange that reached memory found.
template <typename T>
struct CompareExchangeResult {
  bool swapped = false;
  T value{};  // as it was before; equals `current` exactly if swapped
};

// Host memory behind a whole GuestMemory.
struct HostMapping {
  std::byte* base = nullptr;
  uint64_t size = 0;
};

class GuestMemory {
 public:
  // Memory that refuses everything, named "empty".
  GuestMemory();
  // Copying is cheap (shared ownership). A handle that was moved from is the empty memory.
  GuestMemory(const GuestMemory&) = default;
  GuestMemory(GuestMemory&& other) noexcept;
  GuestMemory& operator=(const GuestMemory&) = default;
  GuestMemory& operator=(GuestMemory&& other) noexcept;
  ~GuestMemory() = default;

  // Memory over one backing. `name` appears in errors. Errors: kInvalidArgument if the backing breaks a promise (null;
  // max_address of 2^63 or more; a mapping that is not page-aligned; bit_offset over 7); kResourceExhausted; what
  // InstallFaultHandler says.
  static Result<GuestMemory> Create(std::string_view name, std::shared_ptr<GuestMemoryAccess> backing,
                                    CreateOptions options = {});

  // Memory over several backings: backing i starts at i * region_size. Null entries are empty slots; the count is rounded up
  // to a power of two; no entries make one empty slot. Errors (kInvalidArgument): region_size is not a power of two, or is
  // smaller than a page; more regions than fit below 2^63; a backing larger than region_size; and those of Create.
  static Result<GuestMemory> CreateMultiRegion(std::string_view name, uint64_t region_size,
                                               const std::vector<std::shared_ptr<GuestMemoryAccess>>& backings,
                                               CreateOptions options = {});

  // Zeroed memory from the heap, named "heap"; `size` is rounded up to pages. Errors: as AlignedHeapMemory::Create.
  static Result<GuestMemory> Allocate(uint64_t size);
  static GuestMemory Empty();

  // Bulk accesses. An access may run from one backing into the next where both have memory there.
  // Errors: kOutOfRange, kAccessDenied, kNotMapped, kNoFallback, kBackend; kResourceExhausted (only with an overlap).
  Status ReadAt(uint64_t gpa, std::span<std::byte> destination) const;
  Status WriteAt(uint64_t gpa, std::span<const std::byte> source) const;
  // The same against a host buffer that other threads access atomically meanwhile. Copied by the same kernels: no order is
  // promised between its bytes.
  Status ReadToAtomic(uint64_t gpa, std::span<std::atomic<uint8_t>> destination) const;
  Status WriteFromAtomic(uint64_t gpa, std::span<const std::atomic<uint8_t>> source) const;
  // Stores `value` into `length` bytes.
  Status FillAt(uint64_t gpa, std::byte value, uint64_t length) const;

  // Bulk accesses over pages that the guest lists. Each page's part is an access by itself, in order, as if made by ReadAt and
  // so on (neighbouring pages do not merge); empty ranges succeed. Errors: kInvalidArgument if the buffer's length is not
  // the range's (nothing was touched); kInvalidGpn when such a page is reached (ErrorInfo::gpn); those of ReadAt.
  // ErrorInfo::range is not set; the fault address is the GPA; `transferred` counts over all pages.
  Status ReadRange(const PagedRange& range, std::span<std::byte> destination) const;
  Status WriteRange(const PagedRange& range, std::span<const std::byte> source) const;
  Status FillRange(const PagedRange& range, std::byte value) const;
  Status ZeroRange(const PagedRange& range) const { return FillRange(range, std::byte{}); }
  // As ReadToAtomic and WriteFromAtomic.
  Status ReadRangeToAtomic(const PagedRange& range, std::span<std::atomic<uint8_t>> destination) const;
  Status WriteRangeFromAtomic(const PagedRange& range, std::span<const std::atomic<uint8_t>> source) const;
  // The same over a list of them; `transferred` counts over all members.
  Status ReadRange(const PagedRanges& ranges, std::span<std::byte> destination) const;
  Status WriteRange(const PagedRanges& ranges, std::span<const std::byte> source) const;
  Status FillRange(const PagedRanges& ranges, std::byte value) const;
  Status ZeroRange(const PagedRanges& ranges) const { return FillRange(ranges, std::byte{}); }
  Status ReadRangeToAtomic(const PagedRanges& ranges, std::span<std::atomic<uint8_t>> destination) const;
  Status WriteRangeFromAtomic(const PagedRanges& ranges, std::span<const std::atomic<uint8_t>> source) const;

  // Reads or writes one object. Of 1, 2, 4 or 8 bytes: a plain access, inside one backing; other sizes are bulk accesses. Every bit
  // pattern must be a T and no byte of T padding (guestmem/plain.h; else it does not compile).
  template <typename T>
  Result<T> ReadPlain(uint64_t gpa) const;
  template <typename T>
  Status WritePlain(uint64_t gpa, const std::type_identity_t<T>& value) const;

  // Sequentially consistent. Needs the page's write bit. Errors: also kMisaligned, if gpa in the backing is not naturally
  // aligned. A comparison that fails is not an error.
  template <typename T>
  Result<CompareExchangeResult<T>> CompareExchange(uint64_t gpa, const std::type_identity_t<T>& current,
                                                   const std::type_identity_t<T>& desired) const;
  // The same for a size known at run time: both spans of 1, 2, 4 or 8 bytes (else kInvalidArgument). Returns whether it
  // swapped; `current` becomes the value seen.
  Result<bool> CompareExchangeBytes(uint64_t gpa, std::span<std::byte> current, std::span<const std::byte> desired) const;

  // Asks whether an access would succeed now, by touching one byte of each page. A write probe changes no value, but
  // populates and dirties the pages. ProbeExecutable checks the execute bits, then reads. The answer may be stale when it
  // arrives. `transferred` is always 0.
  Status ProbeReadable(uint64_t gpa, uint64_t length) const;
  Status ProbeWritable(uint64_t gpa, uint64_t length) const;
  Status ProbeExecutable(uint64_t gpa, uint64_t length) const;
  // ProbeReadable of each whole page, in order. Errors: also kInvalidGpn, from GPN 2^52 - 1 on, when it is reached.
  Status ProbeGpns(std::span<const uint64_t> gpns) const;

  // Locks whole pages for as long as the result lives (guestmem/lock.h): all of them, or none and an error. Pages are locked
  // first and probed then, for `access`; where a probe is refused, everything is unlocked, the backing's PageFault is asked,
  // likewise for what else is refused behind that page, and the lock starts over if each answer is Retry.
  // `kernel_access`: they may be handed to the kernel. A GPN listed twice is locked twice. No GPNs:
  // a lock of nothing. Errors: kNotLockable, kInvalidGpn, kOutOfRange (a page not wholly inside one backing), kAccessDenied,
  // kNotMapped, kResourceExhausted, kBackend. In the first three nothing was called, nor where memory for the list ran out, which is
  // copied before it is looked at.
  Result<LockedPages> LockGpns(AccessType access, bool kernel_access, std::span<const uint64_t> gpns) const;
  // The same for the bytes of a paged range, with kernel access: a page need only be there where the range uses it, and only
  // those bytes are exposed. Where neighbouring entries are neighbouring pages of one backing, their spans are one.
  Result<LockedRange> LockRange(AccessType access, const PagedRange& range) const;
  // Whether this memory can be locked: every present backing can, there is one, and (a view) it starts a page of the backing's.
  bool supports_locking() const;

  // A view of [offset, offset + length), which must lie in one backing (a zero-length view: inside or at the end of one).
  // Addresses of the view start at 0; its errors are in its own coordinates. Access bits and alignment stay the
  // backing's. Keeps the memory alive. The backing may give a view of its own instead, named and behaving as it likes;
  // `allow_preemptive_locking` tells it that the caller owns the range. Errors: kOutOfRange; kBackend, what the backing says,
  // or its view is of another size.
  Result<GuestMemory> Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking = false) const;
  Result<GuestMemory> Subrange(uint64_t, uint64_t, detail::NotBool auto) const = delete;
  // A view whose pages can be locked; preemptive locking is allowed. Errors: also kNotLockable.
  Result<GuestMemory> LockableSubrange(uint64_t offset, uint64_t length) const;

  // The host memory behind all of it: only for one region that is mapped and has no bitmap. What is behind it may fault.
  // Not of a temporary, which may be what keeps it.
  std::optional<HostMapping> FullMapping() const&;
  std::optional<HostMapping> FullMapping() const&& = delete;

  // IO virtual address of `gpa`, for DMA without an IOMMU; nullopt if the backing has none or gpa is out of range.
  std::optional<uint64_t> Iova(uint64_t gpa) const;

  // The files behind this memory, in its own coordinates; for another process to map. Revocation does not reach processes
  // that have mapped them. Empty: there are none. Errors: kResourceExhausted; what a backing says, as it says it.
  Result<std::vector<SharedFile>> sharing() const;

  // The bytes of a memory made by Allocate, for its owner (not a view); nullopt for any other. Valid while the memory lives.
  std::optional<std::span<std::atomic<uint8_t>>> InnerBuffer() const&;
  std::optional<std::span<std::atomic<uint8_t>>> InnerBuffer() const&& = delete;
  // The same as plain bytes: only while there is no other handle, view or lock, and until one is made.
  std::optional<std::span<std::byte>> InnerBufferMutable() &;
  // Takes the heap memory back out, leaving this handle empty: only while there is no other handle, view or lock. Null, and
  // nothing changed, where it cannot be had.
  std::shared_ptr<AlignedHeapMemory> TakeInnerBuffer() &&;

 private:
  friend class AddressSpace;
  explicit GuestMemory(std::shared_ptr<const detail::Memory> memory);

  // The region of `gpa`, if it has one. An address beyond the last is masked into an earlier one, beyond the end of which it lies.
  const detail::Region& RegionOf(uint64_t gpa) const { return regions_[gpa >> region_bits_ & index_mask_]; }

  // The region that [gpa, gpa + length) lies in; null if not in one.
  const detail::Region* Locate(uint64_t gpa, uint64_t length, uint64_t& offset) const {
    const detail::Region& region = RegionOf(gpa);
    offset = gpa - region.start;
    return detail::EndsBelow(region.limit, offset, length) ? &region : nullptr;
  }

  // The same, if it is mapped. The first region, often the only one, is found without looking for it.
  const detail::Window* LocateMapped(uint64_t gpa, uint64_t length, uint64_t& offset) const {
    offset = gpa;
    if (detail::EndsBelow(first_.mapped_limit, offset, length)) [[likely]] {
      return &first_;
    }
    if (index_mask_ == 0) {  // no other; an address space's is looked up elsewhere
      return nullptr;
    }
    const detail::Window& window = RegionOf(gpa);
    offset = gpa - window.start;
    return detail::EndsBelow(window.mapped_limit, offset, length) ? &window : nullptr;
  }

  // Runs `access(host address)`, which is false for a fault, if nothing refuses. True: it is done. No section is open when
  // it returns.
  template <size_t Size, bool Aligned = false, typename Access>
  GUESTMEM_TRAP_INLINE bool RunFast(AccessType type, uint64_t gpa, Access access) const {
    uint64_t offset;
    const detail::Window* const region = LocateMapped(gpa, Size, offset);
    if (region == nullptr) [[unlikely]] {
      return false;
    }
    std::byte* const guest = region->base + offset;
    // A mapping is page-aligned and a view keeps its backing's alignment, so the host address has the backing's.
    if (Aligned && reinterpret_cast<uintptr_t>(guest) % Size != 0) [[unlikely]] {
      return false;
    }
    const uint8_t* const bitmap = region->Bitmap(type);
    if (bitmap == nullptr) {
      return access(guest);
    }
    const detail::ReadSection section;
    return region->OnOnePage(offset, Size) && region->Allows(bitmap, offset) && access(guest);
  }

  // The same for a bulk access: runs `move(host address)`, a kernel's call, if nothing refuses and one section is enough, and
  // `finish(host address, result)` in the same section if that met a fault. Else, or then, the error is what
  // `slow(the fault, or null)` returns.
  template <typename Move, typename Finish, typename Slow>
  GUESTMEM_TRAP_INLINE Status RunFastBulk(AccessType type, uint64_t gpa, uint64_t length, Move move, Finish finish,
                                          Slow slow) const {
    uint64_t offset;
    Fault fault;
    const Fault* met = nullptr;
    const auto moved = [&](std::byte* guest) {
      GUESTMEM_SCHEDULE_POINT(kTransfer, guest);
      const detail::TrapResult result = move(guest);
      if (result.info == 0) [[likely]] {
        return true;
      }
      if (result.info != detail::kTrapInfoOverlap) {
        fault = finish(guest, result);
        met = &fault;
      }
      return false;
    };
    const detail::Window* const region = LocateMapped(gpa, length, offset);
    // A scheduled build goes page by page, but for what is so short that it is mostly of one.
    constexpr uint64_t kShort = 64;
    if (region != nullptr &&
        (!detail::kScheduled || (length != 0 && (length < kShort || region->OnOnePage(offset, length))))) [[likely]] {
      std::byte* const guest = region->base + offset;
      const uint8_t* const bitmap = region->Bitmap(type);
      if (bitmap == nullptr) {
        if (moved(guest)) [[likely]] {
          return {};
        }
      } else {
        const detail::ReadSection section;
        bool allowed;
        if (region->OnOnePage(offset, length)) [[likely]] {
          allowed = region->Allows(bitmap, offset);
        } else {  // a length of 0 may have no page to ask for
          allowed = length != 0 && length <= detail::kSectionBytes && region->FirstRefused(bitmap, offset, length) == offset + length;
        }
        if (allowed && moved(guest)) [[likely]] {
          return {};
        }
      }
    }
    return Status(slow(met));
  }

  // The whole access on the general path. `met`, unless null, is the fault at which the fast path's kernel ended: it is not
  // repeated. They return what a Status takes over: a pointer comes back in a register.
  detail::ErrorRep* ReadSlow(uint64_t gpa, std::span<std::byte> destination, const Fault* met) const;
  detail::ErrorRep* WriteSlow(uint64_t gpa, std::span<const std::byte> source, const Fault* met) const;
  detail::ErrorRep* FillSlow(uint64_t gpa, std::byte value, uint64_t length, const Fault* met) const;

  // The whole access again where the fast path did not do it; `met`, unless zeroes, is the fault that it met. In an address space this
  // is the access. Values as in words.
  template <int Size>
  detail::PlainWord ReadPlainSlow(uint64_t gpa, detail::TrapResult met) const;
  template <int Size>
  detail::ErrorRep* WritePlainSlow(uint64_t gpa, uint64_t word, detail::TrapResult met) const;
  // The same on the general path.
  [[gnu::cold]] detail::PlainWord ReadPlainAgain(uint64_t gpa, size_t size, detail::TrapResult met) const;
  [[gnu::cold]] detail::ErrorRep* WritePlainAgain(uint64_t gpa, uint64_t word, size_t size, detail::TrapResult met) const;
  Result<bool> CompareExchangeSlow(uint64_t gpa, void* current, const void* desired, size_t size, detail::TrapResult met) const;

  Result<detail::Lock> LockList(const detail::LockRequest& request) const;
  Status AcquireFixed(detail::LockState& state) const;
  size_t FirstOutside(const detail::LockRequest& request) const;
  uint64_t Extent() const;
  bool IsUnsharedHeap() const;
  void Swap(GuestMemory& other) noexcept;

  // One access, or (in a paged range) the part of one in a listed page, after `done` bytes. `range` is what errors name.
  template <typename Transfer>
  Status RunBulk(uint64_t gpa, uint64_t length, Transfer& transfer, std::optional<AddressRange> range, uint64_t done,
                 const Fault* met, detail::Handle& handle) const;
  template <typename Transfer>
  Status RunAt(uint64_t gpa, uint64_t length, Transfer& transfer, const Fault* met = nullptr) const;
  template <typename Transfer>
  static Status RunRange(const PagedRange& range, Transfer& transfer, uint64_t& done, detail::Handle& handle);
  template <typename Transfer>
  static Status RunRange(const PagedRanges& ranges, Transfer& transfer, uint64_t& done, detail::Handle& handle);
  template <typename Transfer>
  Status RunWhole(uint64_t gpa, uint64_t size, Transfer& transfer, detail::TrapResult met) const;
  // All of these in an address space, looking up in each section what is there (guest/live.h).
  template <typename Transfer>
  Status RunLive(uint64_t gpa, uint64_t length, Transfer& transfer, std::optional<AddressRange> range, uint64_t done,
                 detail::Handle& handle) const;
  template <typename Transfer, typename Range, typename Buffer>
  Status RunBuffer(const Range& range, Buffer buffer) const;
  template <typename Transfer>
  Status RunProbe(uint64_t gpa, uint64_t length, std::optional<AddressRange> range, detail::Handle& handle) const;

  std::shared_ptr<const detail::Memory> memory_;
  // Copies of what memory_ holds, one load closer.
  const detail::Region* regions_;
  uint64_t index_mask_;  // the number of regions - 1
  detail::Window first_;  // regions_[0]
  unsigned region_bits_;
};

GUESTMEM_TRAP_INLINE Status GuestMemory::ReadAt(uint64_t gpa, std::span<std::byte> destination) const {
  return RunFastBulk(
      AccessType::kRead, gpa, destination.size(),
      [&](const std::byte* guest) {
        detail::HostSide host(detail::HostSide::kWritten, destination.data(), destination.size());
        const auto result = detail::g_trap_kernels.copy_from_guest(destination.data(), guest, destination.size());
        host.Moved(result.info == 0 ? destination.size() : 0);
        return result;
      },
      [&](const std::byte* guest, detail::TrapResult result) {
        return detail::FinishCopy(GuestSide::kSource, destination.data(), guest, destination.size(), result,
                                  detail::HostSide::kOwn);
      },
      [&](const Fault* met) { return ReadSlow(gpa, destination, met); });
}

GUESTMEM_TRAP_INLINE Status GuestMemory::WriteAt(uint64_t gpa, std::span<const std::byte> source) const {
  return RunFastBulk(
      AccessType::kWrite, gpa, source.size(),
      [&](std::byte* guest) {
        const detail::HostSide host(detail::HostSide::kRead, source.data(), source.size());
        return detail::g_trap_kernels.copy_to_guest(guest, source.data(), source.size());
      },
      [&](std::byte* guest, detail::TrapResult result) {
        return detail::FinishCopy(GuestSide::kDestination, guest, source.data(), source.size(), result, detail::HostSide::kOwn);
      },
      [&](const Fault* met) { return WriteSlow(gpa, source, met); });
}

GUESTMEM_TRAP_INLINE Status GuestMemory::FillAt(uint64_t gpa, std::byte value, uint64_t length) const {
  return RunFastBulk(
      AccessType::kWrite, gpa, length,
      [&](std::byte* guest) { return detail::g_trap_kernels.fill_guest(guest, std::to_integer<int>(value), length); },
      [&](std::byte* guest, detail::TrapResult result) { return detail::FinishFill(guest, value, length, result); },
      [&](const Fault* met) { return FillSlow(gpa, value, length, met); });
}

template <typename T>
GUESTMEM_TRAP_INLINE Result<T> GuestMemory::ReadPlain(uint64_t gpa) const {
  GUESTMEM_REQUIRE_PLAIN(T);
  std::array<std::byte, sizeof(T)> value;  // T need not have a default
  if constexpr (!detail::kIsPlain<T>) {
    Status status = ReadAt(gpa, value);
    return status.ok() ? Result<T>(std::bit_cast<T>(value)) : Result<T>(std::move(status));
  } else {
    detail::TrapResult met{};
    uint64_t word;
    if (RunFast<sizeof(T)>(AccessType::kRead, gpa,
                           [&](std::byte* guest) { return detail::TrapLoad<sizeof(T)>(guest, word, met); })) [[likely]] {
      detail::FromWord(word, value);
      return std::bit_cast<T>(value);
    }
    const detail::PlainWord read = ReadPlainSlow<sizeof(T)>(gpa, met);
    if (read.error != nullptr) {
      return Status(read.error);
    }
    detail::FromWord(read.word, value);
    return std::bit_cast<T>(value);
  }
}

template <typename T>
GUESTMEM_TRAP_INLINE Status GuestMemory::WritePlain(uint64_t gpa, const std::type_identity_t<T>& value) const {
  GUESTMEM_REQUIRE_PLAIN(T);
  if constexpr (!detail::kIsPlain<T>) {
    return WriteAt(gpa, std::as_bytes(std::span<const T, 1>(&value, 1)));
  } else {
    detail::TrapResult met{};
    if (RunFast<sizeof(T)>(AccessType::kWrite, gpa, [&](std::byte* guest) {
          return detail::TrapStore<sizeof(T)>(guest, detail::ToWord(value), met);
        })) [[likely]] {
      return {};
    }
    return Status(WritePlainSlow<sizeof(T)>(gpa, detail::ToWord(value), met));
  }
}

template <typename T>
GUESTMEM_TRAP_INLINE Result<CompareExchangeResult<T>> GuestMemory::CompareExchange(uint64_t gpa, const std::type_identity_t<T>& current,
                                                              const std::type_identity_t<T>& desired) const {
  GUESTMEM_REQUIRE_PLAIN(T);
  static_assert(detail::kIsPlain<T>, "CompareExchange takes types of 1, 2, 4 or 8 bytes");
  CompareExchangeResult<T> result{false, current};
  const uint64_t wanted = detail::ToWord(current);
  uint64_t seen;
  detail::TrapResult met{};
  if (RunFast<sizeof(T), true>(AccessType::kWrite, gpa, [&](std::byte* guest) {
        return detail::TrapCompareExchange<sizeof(T)>(guest, wanted, detail::ToWord(desired), seen, met);
      })) [[likely]] {
    result.swapped = seen == wanted;
    detail::FromWord(seen, result.value);
    return result;
  }
  Result<bool> swapped = CompareExchangeSlow(gpa, &result.value, &desired, sizeof(T), met);
  if (!swapped.ok()) {
    return swapped.status();
  }
  result.swapped = *swapped;
  return result;
}

}  // namespace guestmem

#endif  // GUESTMEM_GUEST_MEMORY_H_
