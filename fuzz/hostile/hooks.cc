// What instrumented code calls, the allocation count, and faults at host addresses of pages that are not locked.
//
// The device is compiled with load and store tracing, so each of its loads and stores comes here first. Keep these short.

#include <execinfo.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "machine.h"

namespace guestmem::hostile::detail {

Watch g_watch;

namespace {

[[gnu::noinline]] void Slow(uintptr_t address, uint64_t length, bool store) {
  if (!g_watch.device_runs) {
    return;
  }
  const Inside inside;
  Machine& machine = *g_watch.machine;
  if (g_watch.work > g_watch.max_work) {
    machine.Stop(VerdictKind::kWork, "the request took more loads and stores of the device's own than Options::max_work");
  }
  machine.Settle();
  const uint64_t gpa = address - g_watch.base;
  if (gpa >= g_watch.size) {
    return;
  }
  if (store) {
    machine.RawStore(gpa, length);
  } else {
    machine.RawFetch(gpa, length);
  }
}

inline void Watched(const void* where, uint64_t length, bool store) {
  const auto address = reinterpret_cast<uintptr_t>(where);
  if (address - g_watch.base < g_watch.size || ++g_watch.work > g_watch.max_work) [[unlikely]] {
    Slow(address, length, store);
  }
}

struct sigaction g_before;

void OnFault(int signal, siginfo_t* info, void* context) {
  if (g_watch.machine != nullptr && g_watch.device_runs) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(info->si_addr) - reinterpret_cast<uintptr_t>(g_watch.machine->front());
    if (offset < g_watch.machine->size()) {
      g_watch.device_runs = false;
      char why[96];
      std::snprintf(why, sizeof(why), "gpa 0x%llx by its host address, where no lock is held",
                    static_cast<unsigned long long>(offset));
      g_watch.machine->Stop(VerdictKind::kUseAfterUnlock, why);
    }
  }
  if ((g_before.sa_flags & SA_SIGINFO) != 0) {  // guestmem's, which passes on what is not its own
    g_before.sa_sigaction(signal, info, context);
  } else {
    sigaction(signal, &g_before, nullptr);
  }
}

void CountAllocation(size_t size) {
  if (!g_watch.device_runs) {
    return;
  }
  g_watch.allocated += size;
  if (g_watch.allocated < size || g_watch.allocated > g_watch.max_allocated) {
    const Inside inside;
    g_watch.machine->Stop(VerdictKind::kMemory, "the request allocated more than Options::max_allocated");
  }
}

void* NewOrNull(size_t size, size_t alignment) {
  CountAllocation(size);
  return alignment == 0 ? std::malloc(size == 0 ? 1 : size)
                        : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* New(size_t size, size_t alignment) {
  void* const block = NewOrNull(size, alignment);
  if (block == nullptr) {
    throw std::bad_alloc();
  }
  return block;
}

}  // namespace

int CaptureStack(std::span<void*> frames) { return backtrace(frames.data(), static_cast<int>(frames.size())); }

void InstallFaultReport() {
  struct sigaction action = {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &g_before);
  std::array<void*, 1> frame;
  (void)CaptureStack(frame);  // its first call loads a library
}

}  // namespace guestmem::hostile::detail

using guestmem::hostile::detail::New;
using guestmem::hostile::detail::NewOrNull;
using guestmem::hostile::detail::Watched;

extern "C" {
void __sanitizer_cov_load1(uint8_t* where) { Watched(where, 1, false); }
void __sanitizer_cov_load2(uint16_t* where) { Watched(where, 2, false); }
void __sanitizer_cov_load4(uint32_t* where) { Watched(where, 4, false); }
void __sanitizer_cov_load8(uint64_t* where) { Watched(where, 8, false); }
void __sanitizer_cov_load16(__int128* where) { Watched(where, 16, false); }
void __sanitizer_cov_store1(uint8_t* where) { Watched(where, 1, true); }
void __sanitizer_cov_store2(uint16_t* where) { Watched(where, 2, true); }
void __sanitizer_cov_store4(uint32_t* where) { Watched(where, 4, true); }
void __sanitizer_cov_store8(uint64_t* where) { Watched(where, 8, true); }
void __sanitizer_cov_store16(__int128* where) { Watched(where, 16, true); }
}

// Every form that a device's code may call, so that none is a sanitizer's own and meets another's delete.
void* operator new(size_t size) { return New(size, 0); }
void* operator new[](size_t size) { return New(size, 0); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return NewOrNull(size, 0); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return NewOrNull(size, 0); }
void* operator new(size_t size, std::align_val_t alignment) { return New(size, static_cast<size_t>(alignment)); }
void* operator new[](size_t size, std::align_val_t alignment) { return New(size, static_cast<size_t>(alignment)); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete(void* block, size_t) noexcept { std::free(block); }
void operator delete[](void* block, size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, size_t, std::align_val_t) noexcept { std::free(block); }
