#include "host/host_calls.h"

#include <errno.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace guestmem {
namespace {

constinit std::atomic<detail::HostCallFilter> g_filter{nullptr};

bool FailsNow(detail::HostCall call) {
  const detail::HostCallFilter filter = g_filter.load(std::memory_order_acquire);
  if (filter == nullptr || !filter(call)) [[likely]] {
    return false;
  }
  errno = ENOMEM;
  return true;
}

}  // namespace

void detail::SetHostCallFilter(HostCallFilter filter) { g_filter.store(filter, std::memory_order_release); }

namespace host {

void* Map(void* address, size_t length, int protection, int flags, int file, off_t offset) {
  if (FailsNow(detail::HostCall::kMmap)) {
    return nullptr;
  }
  void* const mapped = mmap(address, length, protection, flags, file, offset);
  return mapped == MAP_FAILED ? nullptr : mapped;
}

int Protect(void* address, size_t length, int protection) {
  return FailsNow(detail::HostCall::kMprotect) ? -1 : mprotect(address, length, protection);
}

void Unmap(void* address, size_t length) { munmap(address, length); }

void* AllocateZeroed(size_t alignment, size_t size) {
  if (FailsNow(detail::HostCall::kAllocate)) {
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
