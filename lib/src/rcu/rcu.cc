#include "guestmem/rcu.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <new>

#include "guestmem/detail/schedule_sync.h"
#include "types/error_rep.h"

namespace guestmem {
namespace detail {

constinit std::atomic<uint64_t> g_epoch{kReadersFence | 1};  // until InitializeAtLoad knows better
constinit thread_local ReaderSlot* t_reader_slot = nullptr;
constinit thread_local ReaderSlot t_no_section;

namespace {

constinit ReaderSlot g_no_slot{kReadersFence};  // never free

// Guards ReaderSlot::taken and serialises pushes. Lock order: after g_writer.
constinit Mutex g_registry;
// All slots ever made; a slot is pushed whole and never removed, so writers walk the list without the lock.
constinit std::atomic<ReaderSlot*> g_slots{nullptr};
// One grace period at a time.
constinit Mutex g_writer;

pthread_key_t g_thread_exit;

bool ReadersFence() { return (g_epoch.load(std::memory_order_relaxed) & kReadersFence) != 0; }

int Membarrier([[maybe_unused]] int command) {
#if defined(GUESTMEM_SCHEDULED)
  for (ReaderSlot* slot = g_slots.load(std::memory_order_relaxed); slot != nullptr; slot = slot->next) {
    slot->epoch.Drain();
  }
  return 0;
#else
  return static_cast<int>(syscall(SYS_membarrier, command, 0, 0));
#endif
}

// Runs at thread exit, and again if a later destructor's access registered the thread again.
void ReleaseSlot(void* slot) {
  SetReaderSlot(nullptr);
  const std::lock_guard lock(g_registry);
  static_cast<ReaderSlot*>(slot)->taken = false;
}

// A fork child has one thread: the slots of the others are free, whatever they were doing.
void ChildAfterFork() {
  for (ReaderSlot* slot = g_slots.load(std::memory_order_relaxed); slot != nullptr; slot = slot->next) {
    if (slot != t_reader_slot) {
      slot->epoch.store(0, std::memory_order_relaxed);
      slot->taken = false;
    }
  }
  g_registry.unlock();
  new (&g_writer) Mutex;  // whoever had it does not exist here
  if (!ReadersFence()) {
    Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  }
}

// GUESTMEM_MEMBARRIER=0 stands for a kernel that refuses it; for tests.
[[gnu::constructor(103)]] void InitializeAtLoad() {
  const char* wish = std::getenv("GUESTMEM_MEMBARRIER");
  const bool wanted = wish == nullptr || wish[0] != '0';
  if (wanted && Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0) {
    g_epoch.fetch_and(~kReadersFence, std::memory_order_relaxed);
  }
  if (pthread_key_create(&g_thread_exit, ReleaseSlot) != 0) {
    Fatal("no thread-specific key is left for the reader registry");
  }
  pthread_atfork(
      // Not g_writer: a writer may be waiting for the section that the forking thread is in.
      [] { g_registry.lock(); }, [] { g_registry.unlock(); }, ChildAfterFork);
}

ReaderSlot* TakeSlot() {
  const std::lock_guard lock(g_registry);
  ReaderSlot* const first = g_slots.load(std::memory_order_relaxed);
  for (ReaderSlot* slot = first; slot != nullptr; slot = slot->next) {
    if (!slot->taken) {
      slot->taken = true;
      return slot;
    }
  }
  auto* const slot = new (std::nothrow) ReaderSlot;
  if (slot == nullptr) {
    Fatal("no memory for a thread's reader slot");
  }
  slot->taken = true;
  slot->next = first;
  g_slots.store(slot, std::memory_order_seq_cst);
  return slot;
}

void FenceThisThread() {
#if defined(GUESTMEM_SCHEDULED)
  if (t_reader_slot != nullptr) {
    t_reader_slot->epoch.Drain();
  }
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// The writer's part of fence B.
void FenceEveryThread() {
  if (ReadersFence()) {
    FenceThisThread();
  } else if (Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0) {
    Fatal("membarrier worked at load and is refused now");
  }
}

// A section may last as long as a page fault in the kernel: spin briefly, then let others run, then sleep. True: look again.
bool Wait(int round) {
#if defined(GUESTMEM_SCHEDULED)
  return AwaitSchedule(round == 0);
#else
  constexpr int kSpins = 64;
  constexpr int kYields = 64;
  if (round < kSpins) {
    __builtin_ia32_pause();
  } else if (round < kSpins + kYields) {
    sched_yield();
  } else {
    const timespec pause = {0, 50'000};
    nanosleep(&pause, nullptr);
  }
  return true;
#endif
}

}  // namespace

constinit thread_local ReaderSlot* t_fast_slot = &g_no_slot;

void SetReaderSlot(ReaderSlot* slot) noexcept {
  t_reader_slot = slot;
  t_fast_slot = slot == nullptr || ReadersFence() ? &g_no_slot : slot;
}

ReaderSlot* EnterSlowly() noexcept {
  if (t_reader_slot == nullptr) {
    SetReaderSlot(TakeSlot());
    pthread_setspecific(g_thread_exit, t_reader_slot);
  }
  ReaderSlot* const slot = t_reader_slot;
  if (slot->epoch.load(std::memory_order_relaxed) != 0) {
    return &t_no_section;
  }
  slot->epoch.store(g_epoch.load(std::memory_order_relaxed), std::memory_order_relaxed);
  if (ReadersFence()) {
    FenceThisThread();  // fence B
  }
  return slot;
}

#if defined(GUESTMEM_SCHEDULED)
void LeaveReaders() noexcept {
  if (t_reader_slot != nullptr) {
    ReleaseSlot(t_reader_slot);
  }
}

void ForgetReaders(bool membarrier) noexcept {
  for (ReaderSlot* slot = g_slots.exchange(nullptr); slot != nullptr;) {
    ReaderSlot* const next = slot->next;
    delete slot;
    slot = next;
  }
  pthread_setspecific(g_thread_exit, nullptr);
  g_epoch.store((membarrier ? 0 : kReadersFence) | 1, std::memory_order_relaxed);
  SetReaderSlot(nullptr);
}
#endif

}  // namespace detail

bool Rcu::InSection() {
  const detail::ReaderSlot* const slot = detail::t_reader_slot;
  return slot != nullptr && slot->epoch.load(std::memory_order_relaxed) != 0;
}

void Rcu::Synchronize() {
  using namespace detail;
  if (InSection()) {
    Fatal("Rcu::Synchronize inside a read-side section of the same thread would wait for itself");
  }
  const std::lock_guard lock(g_writer);
  GUESTMEM_SCHEDULE_POINT(kSynchronize);
  // A section that begins after this reads the new epoch, or an older one and is waited for needlessly.
  const uint64_t epoch = g_epoch.fetch_add(1, std::memory_order_seq_cst) + 1;
  FenceEveryThread();
  for (const ReaderSlot* slot = g_slots.load(std::memory_order_seq_cst); slot != nullptr; slot = slot->next) {
    for (int round = 0;; ++round) {
      const uint64_t since = slot->epoch.load(std::memory_order_acquire);  // fence C
      if (since == 0 || since >= epoch || !Wait(round)) {
        break;
      }
    }
  }
  GUESTMEM_SCHEDULE_POINT(kSynchronized);
}

}  // namespace guestmem
