// Locked guest memory: host addresses that stay valid while the lock lives. What GuestMemory::LockGpns and LockRange return.
//
//   auto locked = memory.LockGpns(guestmem::AccessType::kWrite, /*kernel_access=*/true, gpns);
//   if (!locked.ok()) return locked.status();
//   ssize_t n = preadv(file, locked->iovecs().data(), static_cast<int>(locked->iovecs().size()), 0);
//   // unlocked here, whatever happened
//
// While a page is locked, its backing does not unmap, move or refuse it: no access bit is checked and no handler asked
// any more. The guest goes on running and may change the bytes at any moment. The backings that the library ships keep that
// promise by themselves (kLocked); a backing of your own keeps it in LockGpns and UnlockGpns.
// The list of GPNs is read once; it may be the guest's own memory, and change.
//
// The access type binds. Without AccessType::kWrite nothing here stores: CopyFrom and Fill are kInvalidArgument, At loads and
// AtWritable gives nothing. An iovec cannot carry that: do not give one of a read lock to a call that stores.
//
// What is handed to the kernel and At are plain memory: nothing recovers from a fault there. The kernel answers EFAULT, or a
// short count; At raises the signal as any load would. It can still happen where the backing has broken its promise,
// where a file behind the memory was truncated or read with an I/O error (SIGBUS), and where a page of memory is found to be broken
// (SIGBUS, BUS_MCEERR_AR). CopyTo, CopyFrom and Fill report all of these.
//
// When not: an access or two (GuestMemory's own calls are as fast, and lock nothing); memory that must be taken away from
// the guest in the meantime (taking it away fails, or waits, while it is locked).
//
// Threads: a lock object is used by one thread at a time; spans may be copied to, and used from, any thread while the
// lock object lives. Signal context: no. Units: bytes.

#ifndef GUESTMEM_LOCK_H_
#define GUESTMEM_LOCK_H_

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "guestmem/status.h"

namespace guestmem {

class GuestMemory;
class GuestSpans;
namespace detail {
class Lock;
struct LockRequest;
struct LockState;
struct Memory;
}  // namespace detail

// One byte of locked memory, for loading. A plain value.
class GuestByte {
 public:
  // As std::atomic_ref's.
  uint8_t load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    return __atomic_load_n(byte_, static_cast<int>(order));
  }

 private:
  friend class GuestSpan;
  // Safe because guest bytes have no type of their own, and a byte may be accessed as any.
  explicit GuestByte(const std::byte* byte) : byte_(reinterpret_cast<const uint8_t*>(byte)) {}

  const uint8_t* byte_;
};

// A contiguous range of locked memory. A plain value: valid while the lock that it came from lives.
class GuestSpan {
 public:
  GuestSpan() = default;

  uint64_t size() const { return size_; }
  // The guest's address of byte 0, in the coordinates of the memory that was locked.
  uint64_t gpa() const { return gpa_; }
  // Whether it was locked for AccessType::kWrite.
  bool writable() const { return writable_; }
  // For the kernel; nothing recovers from a fault there (above). Not for memcpy: the guest writes at the same time.
  iovec ToIovec() const { return {base_, size_}; }

  // Copies destination.size() bytes from `offset` on, ascending, at the speed of a bulk access and with its promises
  // (not atomic; each byte as it was at some moment). Errors: kInvalidArgument if they do not lie in the span;
  // kNotMapped if the backing broke its promise and the memory is gone: then exactly the bytes below
  // ErrorInfo::fault_address were transferred. The host buffer may be locked memory itself: where it overlaps the span this is
  // memmove, and after a failure the bytes of both are unspecified; kResourceExhausted, and nothing changed, if there is no
  // memory for that.
  Status CopyTo(std::span<std::byte> destination, uint64_t offset = 0) const;
  // Copies source.size() bytes to `offset`. Errors: as CopyTo; kInvalidArgument too if not writable(), whatever the length.
  Status CopyFrom(std::span<const std::byte> source, uint64_t offset = 0) const;
  // Stores `value` into `length` bytes. Errors: as CopyFrom.
  Status Fill(std::byte value, uint64_t offset, uint64_t length) const;
  Status Fill(std::byte value) const { return Fill(value, 0, size_); }

  // One byte, as an atomic that can only be loaded; no recovery (above). Precondition: i < size() (not checked: this is for
  // inner loops).
  GuestByte At(uint64_t i) const { return GuestByte(base_ + i); }
  // The same for storing, exchanging and so on; nothing if not writable().
  std::optional<std::atomic_ref<uint8_t>> AtWritable(uint64_t i) const {
    if (!writable_) {
      return std::nullopt;
    }
    // Safe because guest bytes have no type of their own, and a byte may be accessed as any.
    return std::atomic_ref<uint8_t>(*reinterpret_cast<uint8_t*>(base_ + i));
  }

 private:
  friend class GuestSpans;
  template <typename Transfer>
  Status Run(uint64_t offset, uint64_t length, Transfer transfer) const;

  std::byte* base_ = nullptr;
  uint64_t size_ = 0;
  uint64_t gpa_ = 0;
  const detail::Memory* memory_ = nullptr;  // kept alive by the lock
  bool writable_ = false;
};

// All spans of a lock, in order; each is made when it is asked for, since a lock may be of a great many pages. A plain value.
class GuestSpans {
 public:
  class Iterator {
   public:
    GuestSpan operator*() const { return GuestSpans(lock_)[i_]; }
    Iterator& operator++() { return ++i_, *this; }
    bool operator==(const Iterator&) const = default;

   private:
    friend class GuestSpans;
    Iterator(const detail::LockState* lock, size_t i) : lock_(lock), i_(i) {}
    const detail::LockState* lock_;
    size_t i_;
  };

  size_t size() const;
  bool empty() const { return size() == 0; }
  // Precondition: i < size() (not checked).
  GuestSpan operator[](size_t i) const;
  Iterator begin() const { return {lock_, 0}; }
  Iterator end() const { return {lock_, size()}; }

 private:
  friend class detail::Lock;
  friend struct detail::LockState;
  explicit GuestSpans(const detail::LockState* lock) : lock_(lock) {}

  const detail::LockState* lock_;  // null: nothing is locked
};

namespace detail {

// The common part of both kinds of lock: pages of one memory, unlocked when dropped.
class Lock {
 public:
  Lock() = default;  // holds nothing
  Lock(Lock&& other) noexcept;
  // Unlocks what it held, then takes over.
  Lock& operator=(Lock&& other) noexcept;
  // Unlocks, in the reverse order of locking. Calls the backings; the memory is kept alive until then.
  ~Lock();

  // In order. Valid while this object lives, also after it was moved from: the new owner has them.
  // Not of a temporary: it is unlocked before they could be used.
  GuestSpans spans() const& { return GuestSpans(state_); }
  GuestSpans spans() const&& = delete;
  // The same for preadv(2), pwritev(2) and their kin (which take at most IOV_MAX at once). None without kernel access.
  std::span<const iovec> iovecs() const&;
  std::span<const iovec> iovecs() const&& = delete;

 private:
  friend class guestmem::GuestMemory;
  friend struct LockState;
  explicit Lock(LockState* state) : state_(state) {}

  LockState* state_ = nullptr;  // null: nothing is locked
};

}  // namespace detail

// Whole pages: one span of 4096 bytes an entry of the list, in its order.
class LockedPages : public detail::Lock {
 public:
  LockedPages() = default;

 private:
  friend class GuestMemory;
  explicit LockedPages(detail::Lock lock) : Lock(std::move(lock)) {}
};

// The bytes of a range over listed pages: one span where neighbouring entries are neighbouring pages of one backing.
class LockedRange : public detail::Lock {
 public:
  LockedRange() = default;

 private:
  friend class GuestMemory;
  explicit LockedRange(detail::Lock lock) : Lock(std::move(lock)) {}
};

}  // namespace guestmem

#endif  // GUESTMEM_LOCK_H_
