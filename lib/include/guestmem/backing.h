// GuestMemoryAccess: what a backing implements so that GuestMemory can read and write it.
//
// A backing is what guest memory really is: a mapping of host virtual memory, a slow path, or both. Only
// mapping() and max_address() must be implemented; everything else has a default. GuestMemory calls the stable ones
// (mapping, max_address, access_bitmap, base_iova, supports_locking) once, at creation, and never on the fast path.
//
//   class Ram : public guestmem::GuestMemoryAccess {
//    public:
//     std::byte* mapping() const override { return base_; }
//     uint64_t max_address() const override { return size_; }
//   };
//
// Addresses given to a backing are its own: 0 is the start of its mapping. Units: bytes.
// Threads: every method may be called from any thread at any time. Handlers and fallbacks run outside read-side sections
// and with no lock of the library's held: they may block, map pages, change bitmaps, revoke, and access the same
// GuestMemory. They may drop the last handle of the memory that they are called from, or the last lock: what the call needs lives
// until it has returned, and the backing may be destroyed then, on that thread. They must not throw. Signal context: never called
// there.
//
// Errors: a status of the backing's own (MakeStatus, AccessDenied and its kin, BackendError) keeps its kind on the way to the
// caller; one that another GuestMemory or a shipped backing has made arrives as kBackend, with that as its cause.

#ifndef GUESTMEM_BACKING_H_
#define GUESTMEM_BACKING_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "guestmem/sharing.h"
#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem {

class GuestMemory;

// Where a backing keeps its access bits: one bit a page, 1 = allowed, least significant bit first, page p at bit
// bit_offset + p. Each bitmap has bit_offset + ceil(max_address / 4096) bits, at any alignment, valid for
// the backing's life; a null pointer allows everything. Bits may change at any time by atomic read-modify-write.
struct BitmapInfo {
  const uint8_t* read = nullptr;
  const uint8_t* write = nullptr;
  const uint8_t* execute = nullptr;
  uint8_t bit_offset = 0;  // 0..7
};

// An access that a bitmap or the mapping refused.
struct PageFaultInfo {
  uint64_t address = 0;  // where it stopped: the refused page's start, or the start of what is still to do
  uint64_t length = 0;   // what remains of the access in this backing from there; not all of it need be inaccessible
  AccessType access = AccessType::kRead;
  bool bitmap_failure = false;  // false: the mapping faulted
};

// What to do about it.
class PageFaultAction {
 public:
  enum class Kind : uint8_t { kFail, kRetry, kFallback };

  // The access fails at PageFaultInfo::address. An OK status is reported as kBackend too.
  static PageFaultAction Fail(Status status) { return {Kind::kFail, std::move(status)}; }
  // The access goes on there, after checking the bitmap again. Not bounded: the handler must have made progress, or
  // have found the page in order.
  static PageFaultAction Retry() { return {Kind::kRetry, Status()}; }
  // The rest of the access in this backing goes through the fallback.
  static PageFaultAction Fallback() { return {Kind::kFallback, Status()}; }

  Kind kind() const { return kind_; }
  const Status& status() const& { return status_; }
  Status status() const&& { return status_; }

 private:
  PageFaultAction(Kind kind, Status status) : kind_(kind), status_(std::move(status)) {}

  Kind kind_;
  Status status_;
};

class GuestMemoryAccess {
 public:
  virtual ~GuestMemoryAccess();

  // Host address of byte 0, page-aligned, or null. [mapping, mapping + max_address rounded up to a page) stays reserved
  // for the backing's life, populated or not.
  virtual std::byte* mapping() const = 0;

  // Size in bytes, below 2^63; need not be a page multiple. Never changes.
  virtual uint64_t max_address() const = 0;

  // nullopt (default): every page is allowed. Consulted only where there is a mapping.
  virtual std::optional<BitmapInfo> access_bitmap() const;

  // Asked when a bitmap or the mapping refuses. Default: Fail(AccessDenied()) or Fail(NotMapped()).
  virtual PageFaultAction PageFault(const PageFaultInfo& fault);

  // Slow paths, called without a mapping or on the handler's word; the range is inside max_address. On failure the status
  // may name an address in the range and how many of its bytes were moved (BackendError). Default: NoFallback().
  // `destination` and `source` may be shared with other threads.
  virtual Status ReadFallback(uint64_t address, std::span<std::byte> destination);
  virtual Status WriteFallback(uint64_t address, std::span<const std::byte> source);
  virtual Status FillFallback(uint64_t address, std::byte value, uint64_t length);
  // Compares `current` with memory, both of 1, 2, 4 or 8 bytes, naturally aligned; stores `desired` if equal, puts the value
  // seen into `current`, returns whether it stored. Must be atomic against the backing's other accesses.
  virtual Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                               std::span<const std::byte> desired);

  // Locking. While a page is locked, the backing does not unmap, move or refuse it; populating it stays allowed. A page
  // listed twice is locked twice, and unlocked as often.
  //
  // Whether pages can be locked at all. Never changes. Default: where there is a mapping. Without one it is not asked.
  virtual bool supports_locking() const;
  // Locks all of `gpns` (pages of the backing, in the caller's order) for `access`, or none: a failure has changed nothing.
  // The status may name an address (BackendError). Default: OK.
  virtual Status LockGpns(AccessType access, std::span<const uint64_t> gpns);
  // Undoes one LockGpns of exactly this list and access. Default: nothing.
  virtual void UnlockGpns(AccessType access, std::span<const uint64_t> gpns);
  // Makes the range, which lies in one locked page, safe to hand to the kernel (for DMA, system calls). Default: OK.
  virtual Status ExposeVa(uint64_t address, uint64_t length);

  // A view of the backing's own of [offset, offset + length), or none for the default one. The range is inside
  // max_address; the view must be of exactly `length` bytes (else the caller gets kBackend). `allow_preemptive_locking`:
  // the caller owns the range, so its pages may be locked in advance, for speed. Default: none.
  // (Overriding it takes guestmem/guest_memory.h.)
  virtual Result<std::optional<GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking);

  // IO virtual address of byte 0, for DMA without an IOMMU. Default: none.
  virtual std::optional<uint64_t> base_iova() const;

  // The files behind the memory, with `gpa` an address of the backing's, for another process to map. Revocation does not reach
  // processes that mapped them. Default: none.
  virtual Result<std::vector<SharedFile>> sharing() const;
};

// A backing that is wholly reachable through its mapping: no fallbacks are needed. A type says so of itself with
//   static constexpr bool kLinear = true;
template <typename T>
concept LinearGuestMemory = std::derived_from<T, GuestMemoryAccess> && requires { requires T::kLinear; };

}  // namespace guestmem

#endif  // GUESTMEM_BACKING_H_
