// Tells the sanitizers about the host side of a transfer. They do not see inline assembly or the bulk kernels, so
// without this a bad host buffer would go unnoticed. The guest side is exempt: guests race by nature.

#ifndef GUESTMEM_DETAIL_HOST_SIDE_H_
#define GUESTMEM_DETAIL_HOST_SIDE_H_

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define GUESTMEM_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GUESTMEM_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GUESTMEM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define GUESTMEM_TSAN 1
#endif
#if __has_feature(memory_sanitizer)
#define GUESTMEM_MSAN 1
#endif
#endif

#if defined(GUESTMEM_ASAN)
extern "C" void __asan_loadN(const void*, size_t);
extern "C" void __asan_storeN(void*, size_t);
#endif
#if defined(GUESTMEM_TSAN)
extern "C" void __tsan_read_range(const void*, size_t);
extern "C" void __tsan_write_range(void*, size_t);
#endif
#if defined(GUESTMEM_MSAN)
extern "C" void __msan_check_mem_is_initialized(const volatile void*, size_t);
extern "C" void __msan_unpoison(const volatile void*, size_t);
#endif

namespace guestmem::detail {

// One transfer's host buffer: made before it, told afterwards how much was moved. Nothing in a plain build.
class HostSide {
 public:
  enum Use {
    kRead,           // the transfer reads it (a write to the guest)
    kWritten,        // the transfer writes it (a read from the guest)
  };
  enum Sharing {
    kOwn,
    kShared,  // other threads access it atomically meanwhile: no race to report
  };

  // Always inline: a program may be built partly with a sanitizer, and each part must keep its own.
  [[gnu::always_inline]] HostSide([[maybe_unused]] Use use, [[maybe_unused]] const void* buffer, [[maybe_unused]] size_t length,
           [[maybe_unused]] Sharing sharing = kOwn) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
    // Safe because a kWritten buffer was handed to the library as a mutable one.
    buffer_ = const_cast<void*>(buffer);
    use_ = use;
    sharing_ = sharing;
    if (length == 0) {
      return;
    }
#if defined(GUESTMEM_ASAN)
    use == kRead ? __asan_loadN(buffer, length) : __asan_storeN(buffer_, length);
#endif
#if defined(GUESTMEM_TSAN)
    if (use == kRead && sharing == kOwn) {
      __tsan_read_range(buffer, length);
    }
#endif
#if defined(GUESTMEM_MSAN)
    if (use == kRead) {
      __msan_check_mem_is_initialized(buffer, length);
    }
#endif
#endif
  }

  [[gnu::always_inline]] void Moved([[maybe_unused]] size_t length) {
#if defined(GUESTMEM_TSAN)
    if (use_ == kWritten && sharing_ == kOwn && length != 0) {
      __tsan_write_range(buffer_, length);
    }
#endif
#if defined(GUESTMEM_MSAN)
    if (use_ == kWritten) {
      __msan_unpoison(buffer_, length);
    }
#endif
  }

 private:
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  void* buffer_ = nullptr;
  Use use_ = kRead;
  Sharing sharing_ = kOwn;
#endif
};

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_HOST_SIDE_H_
