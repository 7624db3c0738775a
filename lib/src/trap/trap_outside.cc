// Ordinary context: registering tables, installing the handler, the Try functions' out-of-line parts.

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "guestmem/detail/host_side.h"
#include "guestmem/fault.h"
#include "trap/trap_inside.h"
#include "trap/trap_table.h"
#include "types/error_rep.h"

extern "C" {
#define GUESTMEM_DECLARE_KERNELS(width)                                                                             \
  guestmem::detail::TrapResult guestmem_copy_from_guest_##width(void* host, const void* guest, size_t length);     \
  guestmem::detail::TrapResult guestmem_copy_to_guest_##width(void* guest, const void* host, size_t length);       \
  guestmem::detail::TrapResult guestmem_fill_guest_##width(void* guest, int value, size_t length)
GUESTMEM_DECLARE_KERNELS(sse2);
GUESTMEM_DECLARE_KERNELS(avx);
GUESTMEM_DECLARE_KERNELS(avx512);
extern uint64_t guestmem_string_bytes;
}

namespace guestmem {
namespace trap {
namespace {

constinit std::atomic<bool> g_exiting{false};

// Constructed by the first registrar, before any object's ordinary static objects; never destroyed.
std::mutex& TableMutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

uint64_t Absolute(const int32_t& offset) {
  return static_cast<uint64_t>(reinterpret_cast<int64_t>(&offset) + offset);
}

struct OwnedTable : RecoveryTable {
  OwnedTable(const detail::TrapEntry* first, const detail::TrapEntry* last) {
    auto* recoveries = new Recovery[static_cast<size_t>(last - first)];
    Recovery* out = recoveries;
    for (const detail::TrapEntry* entry = first; entry != last; ++entry) {
      if (entry->flags != 0) {  // zero entries only make the section exist
        *out++ = {Absolute(entry->start), Absolute(entry->end), Absolute(entry->landing), entry->flags};
      }
    }
    std::sort(recoveries, out, [](const Recovery& a, const Recovery& b) { return a.start < b.start; });
    begin = recoveries;
    end = out;
  }
  ~OwnedTable() { delete[] begin; }
};

constexpr detail::TrapKernels kSse2Kernels = {guestmem_copy_from_guest_sse2, guestmem_copy_to_guest_sse2,
                                              guestmem_fill_guest_sse2, "sse2"};
constexpr detail::TrapKernels kAvxKernels = {guestmem_copy_from_guest_avx, guestmem_copy_to_guest_avx,
                                             guestmem_fill_guest_avx, "avx"};

constexpr detail::TrapKernels kAvx512Kernels = {guestmem_copy_from_guest_avx512, guestmem_copy_to_guest_avx512,
                                                guestmem_fill_guest_avx512, "avx512"};
// With rep movsb wherever it can go, instead of from a length on.
constexpr detail::TrapKernels kStringKernels = {guestmem_copy_from_guest_avx512, guestmem_copy_to_guest_avx512,
                                                guestmem_fill_guest_avx512, "string"};

// The widest that the CPU has. GUESTMEM_KERNELS=sse2, avx, avx512 or string forces one that it has; for tests, which run every path.
const detail::TrapKernels& ChooseKernels() {
  __builtin_cpu_init();
  const bool avx = __builtin_cpu_supports("avx2") != 0;
  // VBMI2 came with the CPUs (Ice Lake, Zen 4) on which 64-byte moves no longer lower the clock, rep movsb is fast, and a memory
  // error met by it can be survived.
  const bool avx512 = __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                      __builtin_cpu_supports("avx512vbmi2") != 0;
  const char* wish = std::getenv("GUESTMEM_KERNELS");
  const auto forced = [&](const char* name) { return wish != nullptr && std::strcmp(wish, name) == 0; };
  if (!avx || forced("sse2")) {
    return kSse2Kernels;
  }
  if (!avx512 || forced("avx")) {
    return kAvxKernels;
  }
  if (forced("string")) {
    guestmem_string_bytes = 0;
    return kStringKernels;
  }
  return kAvx512Kernels;
}

}  // namespace
}  // namespace trap

namespace detail {

constinit TrapKernels g_trap_kernels = trap::kSse2Kernels;

TrapTable::TrapTable(const TrapEntry* begin, const TrapEntry* end) noexcept {
  auto* table = new trap::OwnedTable(begin, end);
  registration_ = table;
  const std::lock_guard lock(trap::TableMutex());
  table->next.store(trap::g_tables.load(std::memory_order_relaxed), std::memory_order_relaxed);
  trap::g_tables.store(table, std::memory_order_release);
}

// A table is taken out when its object is unloaded; at the end of the process it stays for threads that still run.
TrapTable::~TrapTable() {
  if (trap::g_exiting.load(std::memory_order_relaxed)) {
    return;
  }
  auto* table = static_cast<trap::OwnedTable*>(registration_);
  {
    const std::lock_guard lock(trap::TableMutex());
    std::atomic<trap::RecoveryTable*>* link = &trap::g_tables;
    while (link->load(std::memory_order_relaxed) != table) {
      link = &link->load(std::memory_order_relaxed)->next;
    }
    link->store(table->next.load(std::memory_order_relaxed), std::memory_order_seq_cst);  // fence A
    while (trap::g_table_readers.load(std::memory_order_seq_cst) != 0) {
      std::this_thread::yield();
    }
  }
  delete table;
}

Fault MakeFault(const void* start, size_t length, TrapResult result) noexcept {
  const auto begin = reinterpret_cast<uint64_t>(start);
  Fault fault;
  fault.address = std::max(begin, result.address & ~(kPageSize - 1));
  fault.offset = std::min<size_t>(fault.address - begin, length);
  fault.side = (result.info & kTrapInfoWrite) != 0 ? Fault::Side::kWrite : Fault::Side::kRead;
  fault.signal = static_cast<int>(result.info & 0xff);
  fault.code = static_cast<int>(static_cast<uint32_t>(result.info >> 8));
  return fault;
}

namespace {

// Once, at load, before ordinary static objects.
[[gnu::constructor(102)]] void ChooseKernelsAtLoad() { g_trap_kernels = trap::ChooseKernels(); }

// In a fork child neither a thread that held the mutex nor one that was looking at the tables exists.
[[gnu::constructor(103)]] void PrepareForFork() {
  pthread_atfork([] { trap::TableMutex().lock(); }, [] { trap::TableMutex().unlock(); },
                 [] {
                   trap::g_table_readers.store(0, std::memory_order_relaxed);
                   trap::TableMutex().unlock();
                 });
}

// A kernel faulted at or somewhat above the end of what it moved. Moves what lies between that and the fault's page, so that
// the prefix is exact. A page below may have vanished meanwhile: then the fault is there, or where moving stopped.
template <typename Move>
Fault FinishPrefix(const void* guest, size_t length, TrapResult result, Move move) noexcept {
  const auto begin = reinterpret_cast<uint64_t>(guest);
  for (;;) {
    const size_t moved = MovedUpTo(result) - begin;
    Fault fault = MakeFault(static_cast<const std::byte*>(guest) + moved, length - moved, result);
    const size_t missing = std::exchange(fault.offset, fault.offset + moved);
    GUESTMEM_SCHEDULE_POINT(kTransfer, static_cast<const std::byte*>(guest) + moved);
    result = move(moved, missing);
    if (result.info == 0) {
      return fault;
    }
  }
}

}  // namespace

Fault FinishCopy(GuestSide guest, void* destination, const void* source, size_t length, TrapResult result,
                 HostSide::Sharing sharing) noexcept {
  auto* const to = static_cast<std::byte*>(destination);
  auto* const from = static_cast<const std::byte*>(source);
  const bool reading = guest == GuestSide::kSource;
  const auto kernel = reading ? g_trap_kernels.copy_from_guest : g_trap_kernels.copy_to_guest;
  const Fault fault = FinishPrefix(reading ? source : destination, length, result,
                                   [&](size_t at, size_t n) { return kernel(to + at, from + at, n); });
  if (reading) {
    HostSide(HostSide::kWritten, destination, fault.offset, sharing).Moved(fault.offset);
  }
  return fault;
}

Fault FinishFill(void* guest, uint8_t value, size_t length, TrapResult result) noexcept {
  return FinishPrefix(guest, length, result, [&](size_t at, size_t n) {
    return g_trap_kernels.fill_guest(static_cast<std::byte*>(guest) + at, value, n);
  });
}

}  // namespace detail

namespace {

std::optional<Fault> Copy(GuestSide guest, void* destination, const void* source, size_t length,
                          detail::HostSide::Sharing sharing) noexcept {
  const bool reading = guest == GuestSide::kSource;
  const auto kernel = reading ? detail::g_trap_kernels.copy_from_guest : detail::g_trap_kernels.copy_to_guest;
  detail::HostSide host(reading ? detail::HostSide::kWritten : detail::HostSide::kRead,
                        reading ? destination : source, length, sharing);
  const detail::TrapResult result = kernel(destination, source, length);
  if (result.info == 0) [[likely]] {
    host.Moved(length);
    return std::nullopt;
  }
  if (result.info == detail::kTrapInfoOverlap) {
    detail::Fatal("TryCopy: the ranges overlap");
  }
  return detail::FinishCopy(guest, destination, source, length, result, sharing);
}

}  // namespace

std::optional<Fault> TryCopy(GuestSide guest, void* destination, const void* source, size_t length) noexcept {
  return Copy(guest, destination, source, length, detail::HostSide::kOwn);
}

std::optional<Fault> TryCopyShared(GuestSide guest, void* destination, const void* source, size_t length) noexcept {
  return Copy(guest, destination, source, length, detail::HostSide::kShared);
}

std::optional<Fault> TryFill(void* guest, uint8_t value, size_t length) noexcept {
  const detail::TrapResult result = detail::g_trap_kernels.fill_guest(guest, value, length);
  if (result.info == 0) [[likely]] {
    return std::nullopt;
  }
  return detail::FinishFill(guest, value, length, result);
}

namespace {

bool IsOurs(int signal) {
  struct sigaction action = {};
  return sigaction(signal, nullptr, &action) == 0 && (action.sa_flags & SA_SIGINFO) != 0 &&
         action.sa_sigaction == trap::HandleSignal;
}

Status InstallError(ErrorKind kind, std::string message) {
  ErrorInfo info;
  info.kind = kind;
  info.operation = Operation::kCreate;
  const detail::DebugName name("fault handler");
  return detail::MakeError(&name, std::move(info), std::move(message));
}

// The handler stays in force, so the object that it is in must stay loaded: it may be a plugin. In the main program there is
// nothing to do, and nothing is done.
void StayLoaded() {
  Dl_info object;
  if (dladdr(reinterpret_cast<void*>(trap::HandleSignal), &object) != 0) {
    (void)dlopen(object.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  }
}

Status Install(int signal, trap::PreviousAction& previous) {
  // Remember what was there first: a fault on another thread may come as soon as ours is in force.
  struct sigaction ours = {};
  ours.sa_sigaction = trap::HandleSignal;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&ours.sa_mask);
  // After an installation that went half-way it is ours, and what was there before is remembered already.
  bool done = IsOurs(signal) || sigaction(signal, nullptr, &previous.action) == 0;
  ours.sa_flags |= previous.action.sa_flags & SA_RESTART;  // what interrupts a system call is as it was
  done = done && sigaction(signal, &ours, nullptr) == 0;
  if (!done) {
    return InstallError(ErrorKind::kResourceExhausted, std::string("sigaction: ") + std::strerror(errno));
  }
  if (!IsOurs(signal)) {
    return InstallError(ErrorKind::kInvalidArgument,
                        "the handler was not accepted; under a sanitizer, run with handle_segv=1:handle_sigbus=1");
  }
  return {};
}

}  // namespace

Status InstallFaultHandler() {
  static constinit std::mutex mutex;
  static constinit std::atomic<bool> installed{false};
  if (installed.load(std::memory_order_acquire)) {
    return {};
  }
  const std::lock_guard lock(mutex);
  if (!installed.load(std::memory_order_relaxed)) {
    StayLoaded();
    if (Status status = Install(SIGSEGV, trap::g_previous_segv); !status.ok()) {
      return status;
    }
    if (Status status = Install(SIGBUS, trap::g_previous_bus); !status.ok()) {
      return status;
    }
    std::atexit([] { trap::g_exiting.store(true, std::memory_order_relaxed); });
    installed.store(true, std::memory_order_release);
  }
  return {};
}

bool FaultHandlerIsInstalled() { return IsOurs(SIGSEGV) && IsOurs(SIGBUS); }

uint64_t RecoveredFaults() noexcept { return trap::g_recovered_faults.load(std::memory_order_relaxed); }

}  // namespace guestmem
