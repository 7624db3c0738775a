#include "host/host_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "guestmem/types.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

constinit std::atomic<detail::HostCallFilter> g_filter{nullptr};
constinit std::atomic<uint64_t> g_file_page_size{0};  // 0: what the kernel says

bool FailsNow(detail::HostCall call) {
  const detail::HostCallFilter filter = g_filter.load(std::memory_order_acquire);
  if (filter == nullptr) [[likely]] {
    return false;
  }
  const int before = errno;
  errno = 0;
  const bool fails = filter(call);
  errno = !fails ? before : errno == 0 ? ENOMEM : errno;
  return fails;
}

}  // namespace

void detail::SetHostCallFilter(HostCallFilter filter) { g_filter.store(filter, std::memory_order_release); }

void detail::SetFilePageSize(uint64_t bytes) { g_file_page_size.store(bytes, std::memory_order_relaxed); }

void detail::SetErrorMemory(bool available) { g_no_error_memory = !available; }

namespace host {

void* Map(void* address, size_t length, int protection, int flags, int file, off_t offset, detail::HostCall call) {
  if (FailsNow(call)) {
    return nullptr;
  }
  void* const mapped = mmap(address, length, protection, flags, file, offset);
  return mapped == MAP_FAILED ? nullptr : mapped;
}

int Protect(void* address, size_t length, int protection) {
  return FailsNow(detail::HostCall::kMprotect) ? -1 : mprotect(address, length, protection);
}

int Advise(void* address, size_t length, int advice) {
  return FailsNow(detail::HostCall::kMadvise) ? -1 : madvise(address, length, advice);
}

int Discard(void* address, size_t length) {
  if (FailsNow(detail::HostCall::kMadvise)) {
    return -1;
  }
  // MADV_DONTNEED stops at the first mlocked page, with what is before it discarded. An older kernel knows nothing else.
  const int done = madvise(address, length, MADV_DONTNEED_LOCKED);
  return done != 0 && errno == EINVAL ? madvise(address, length, MADV_DONTNEED) : done;
}

int BindToNode(void* address, size_t length, unsigned node) {
  if (FailsNow(detail::HostCall::kMbind)) {
    return -1;
  }
  constexpr unsigned kBits = 8 * sizeof(unsigned long);
  std::array<unsigned long, kMaxNodes / kBits> mask = {};
  mask[node / kBits] = 1UL << node % kBits;
  // The kernel reads one bit less than it is told.
  return static_cast<int>(syscall(SYS_mbind, address, length, MPOL_BIND, mask.data(), kMaxNodes + 1, MPOL_MF_MOVE));
}

void Unmap(void* address, size_t length) { munmap(address, length); }

bool CanRead(const void* address) {
  constexpr int kNoSuchChange = -1;
  constexpr size_t kSignalSetBytes = 8;
  // The kernel copies the set before it looks at what to do with it: EFAULT, or EINVAL; nothing is changed. (Linux,
  // kernel/signal.c: sys_rt_sigprocmask.)
  const int before = errno;
  syscall(SYS_rt_sigprocmask, kNoSuchChange, address, nullptr, kSignalSetBytes);
  return std::exchange(errno, before) != EFAULT;
}

bool Replace(void* address, size_t length, int protection, int flags, int file, off_t offset) {
  void* const made = Map(nullptr, length, protection, flags, file, offset);
  if (made == nullptr) {
    return false;
  }
  if (!FailsNow(detail::HostCall::kMremap) &&
      mremap(made, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, address) != MAP_FAILED) {
    return true;
  }
  const int reason = errno;
  munmap(made, length);
  errno = reason;
  return false;
}

namespace {

// Whether mmap(MAP_FIXED) leaves the old mapping where the kernel refuses to commit the new one.
bool KernelRefusesFirst() {
  static const bool answer = [] {
    utsname kernel;
    unsigned major = 0, minor = 0;
    return uname(&kernel) == 0 && std::sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 12));
  }();
  return answer;
}

}  // namespace

bool ReplaceByMemory(void* address, size_t length, int protection, int flags) {
  // What no store can reach is never committed, so nothing is refused.
  return (protection & PROT_WRITE) == 0 || KernelRefusesFirst()
             ? Map(address, length, protection, flags | MAP_FIXED, -1, 0) != nullptr
             : Replace(address, length, protection, flags, -1, 0);
}

uint64_t FilePageSize(int file) {
  if (const uint64_t played = g_file_page_size.load(std::memory_order_relaxed); played != 0) {
    return played;
  }
  struct statfs system;
  // Of a descriptor that is none, mmap will say so.
  return fstatfs(file, &system) == 0 && system.f_type == HUGETLBFS_MAGIC ? static_cast<uint64_t>(system.f_bsize) : kPageSize;
}

int MakeMemfd(const char* name, uint64_t page_size) {
  const unsigned huge =
      page_size == kPageSize ? 0 : MFD_HUGETLB | static_cast<unsigned>(std::countr_zero(page_size)) << MFD_HUGE_SHIFT;
  return FailsNow(detail::HostCall::kMemfdCreate) ? -1 : memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | huge);
}

int Resize(int file, uint64_t size) {
  return FailsNow(detail::HostCall::kFtruncate) ? -1 : ftruncate(file, static_cast<off_t>(size));
}

int Seal(int file, int seals) { return FailsNow(detail::HostCall::kSeal) ? -1 : fcntl(file, F_ADD_SEALS, seals); }

int MakeEventfd() { return FailsNow(detail::HostCall::kEventfd) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int Duplicate(int file) {
  return FailsNow(detail::HostCall::kDuplicate) ? -1 : fcntl(file, F_DUPFD_CLOEXEC, 0);
}

bool AreOneFile(int a, int b) {
  struct stat of_a, of_b;
  return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && S_ISREG(of_a.st_mode) && of_a.st_dev == of_b.st_dev &&
         of_a.st_ino == of_b.st_ino && fcntl(a, F_GETFL) == fcntl(b, F_GETFL);
}

int TakeEvent(int file, bool wait) {
  if (FailsNow(detail::HostCall::kRead)) {
    return -1;
  }
  while (true) {
    uint64_t count;
    const ssize_t got = read(file, &count, sizeof count);
    if (got == ssize_t{sizeof count}) {
      return 1;
    }
    if (got >= 0) {  // not an eventfd
      errno = EINVAL;
      return -1;
    }
    if (errno == EAGAIN) {
      if (!wait) {
        return 0;
      }
      // Another waiter may take the count between poll and read: then round again.
      pollfd poll_for = {file, POLLIN, 0};
      if (poll(&poll_for, 1, -1) >= 0) {
        continue;
      }
    }
    if (errno != EINTR) {
      return -1;
    }
  }
}

void Close(int file) { close(file); }

void* Allocate(size_t size) { return FailsNow(detail::HostCall::kAllocate) ? nullptr : std::malloc(size); }

void* AllocateZeroed(size_t alignment, size_t size, detail::HostCall call) {
  if (FailsNow(call)) {
    return nullptr;
  }
  void* const memory = std::aligned_alloc(alignment, size);
  if (memory != nullptr) {
    std::memset(memory, 0, size);
  }
  return memory;
}

void Free(void* memory) { std::free(memory); }

bool MayAllocate() { return !FailsNow(detail::HostCall::kAllocate); }

}  // namespace host
}  // namespace guestmem
