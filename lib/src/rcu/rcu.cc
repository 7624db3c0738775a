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
#include "trap/arch.h"
#include "trap/trap_outside.h"
#include "types/error_rep.h"

namespace guestmem {
namespace detail {

constinit std::atomic<uint64_t> g_epoch{kReadersFence | 1};  // until StartReaders knows better
constinit thread_local ReaderSlot* t_reader_slot = nullptr;
constinit thread_local OwnWord t_no_section{0};

namespace {

// Two that are never free: of a thread that has none or pays for fence B, and of one that has given its slot back for good.
constinit ReaderSlot g_no_slot{kReadersFence};
constinit ReaderSlot g_left{kReadersFence};

// For threads that can have no slot of their own: no memory is left, or no thread-specific key, or the thread is at its end,
// where nobody would give a slot back. Always taken.
constexpr int kSpareSlots = 8;
constinit ReaderSlot g_spare_slots[kSpareSlots] = {
    {0, &g_spare_slots[1], true}, {0, &g_spare_slots[2], true}, {0, &g_spare_slots[3], true}, {0, &g_spare_slots[4], true},
    {0, &g_spare_slots[5], true}, {0, &g_spare_slots[6], true}, {0, &g_spare_slots[7], true}, {0, nullptr, true}};

// Guards ReaderSlot::taken and g_started, and serialises pushes and borrowing. Lock order: after g_writer.
constinit Mutex g_registry;
// All slots ever made; a slot is pushed whole and never removed, so writers walk the list without the lock.
constinit std::atomic<ReaderSlot*> g_slots{g_spare_slots};
// One grace period at a time.
constinit Mutex g_writer;

constinit bool g_started = false;
constinit bool g_has_key = false;  // constant once started
pthread_key_t g_thread_exit;       // likewise

bool IsSpare(const ReaderSlot* slot) { return slot >= g_spare_slots && slot < g_spare_slots + kSpareSlots; }

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

// Runs at thread exit. A section that the thread left by a jump (siglongjmp out of a signal handler) ends here: nothing of it
// runs any more. Sections of destructors that run later borrow a slot.
void ReleaseSlot(void* pointer) {
  auto* const slot = static_cast<ReaderSlot*>(pointer);
  SetReaderSlot(nullptr);
  t_fast_slot = &g_left;
  const std::lock_guard lock(g_registry);
  slot->epoch.store(0, std::memory_order_release);  // fence C
  slot->taken = false;
}

// A fork child has one thread: the slots of the others are free, whatever they were doing.
void ChildAfterFork() {
  const bool in_section = Rcu::InSection();
  for (ReaderSlot* slot = g_slots.load(std::memory_order_relaxed); slot != nullptr; slot = slot->next) {
    if (slot != t_reader_slot || !in_section) {
      slot->epoch.store(0, std::memory_order_relaxed);
    }
    slot->taken = slot == t_reader_slot || IsSpare(slot);
  }
  g_registry.unlock();
  new (&g_writer) Mutex;  // the thread that held it does not exist in the child
  if (!ReadersFence()) {
    Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  }
}

// Once, before the first slot is taken. With g_registry held.
// GUESTMEM_MEMBARRIER=0 stands for a kernel that refuses it; for tests.
void Start() {
  g_started = true;
  // The thread-specific key and the threads' slots point into this object. Nothing can be done if it can't be held.
  (void)trap::StayLoaded(&g_started);
  const char* wish = std::getenv("GUESTMEM_MEMBARRIER");
  const bool wanted = wish == nullptr || wish[0] != '0';
  if (wanted && Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0) {
    g_epoch.fetch_and(~kReadersFence, std::memory_order_seq_cst);
  }
  g_has_key = pthread_key_create(&g_thread_exit, ReleaseSlot) == 0;
  pthread_atfork(
      // Not g_writer: a writer may be waiting for the section that the forking thread is in.
      [] { g_registry.lock(); }, [] { g_registry.unlock(); }, ChildAfterFork);
}

}  // namespace

// Starts the registry at load, where one thread runs and nothing is forbidden yet. Not static and never inlined: where a
// program's copy of the library stands in for a plugin's, the plugin's constructor comes here, to the copy that is used.
[[gnu::noinline]] void StartReaders() noexcept;
void StartReaders() noexcept {
  const std::lock_guard lock(g_registry);
  if (!g_started) {
    Start();
  }
}

namespace {

[[gnu::constructor(103)]] void StartReadersAtLoad() { StartReaders(); }

// Null: there is none, and no memory for one, or nobody would give it back at the thread's end.
ReaderSlot* TakeSlot() {
  const std::lock_guard lock(g_registry);
  if (!g_started) {
    Start();  // a constructor that runs before ours
  }
  if (!g_has_key) {
    return nullptr;
  }
  ReaderSlot* const first = g_slots.load(std::memory_order_relaxed);
  ReaderSlot* slot = first;
  while (slot != nullptr && slot->taken) {
    slot = slot->next;
  }
  if (slot == nullptr) {
    slot = new (std::nothrow) ReaderSlot;
    if (slot == nullptr) {
      return nullptr;
    }
    slot->next = first;
    g_slots.store(slot, std::memory_order_seq_cst);
  }
  // The C library may need memory for it.
  slot->taken = pthread_setspecific(g_thread_exit, slot) == 0;
  return slot->taken ? slot : nullptr;
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
    trap::Pause();
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

namespace {

// One of the shared slots, for one section: its end frees it. Waits while all are in use.
ReaderSlot* BorrowSlot() {
  for (int round = 0;; ++round) {
    {
      const std::lock_guard lock(g_registry);
      for (ReaderSlot& slot : g_spare_slots) {
        if (slot.epoch.load(std::memory_order_acquire) == 0) {
          // In this order, so that the last borrower does not take the new section for its own.
          slot.borrower.store(&t_reader_slot, std::memory_order_relaxed);
          slot.epoch.store(g_epoch.load(std::memory_order_relaxed), std::memory_order_release);
          return &slot;
        }
      }
    }
    Wait(round);
  }
}

}  // namespace

OwnWord* EnterSlowly() noexcept {
  if (Rcu::InSection()) {
    return &t_no_section;
  }
  if (t_reader_slot == nullptr || IsSpare(t_reader_slot)) {
    if (ReaderSlot* const slot = t_fast_slot == &g_left ? nullptr : TakeSlot(); slot != nullptr) {
      SetReaderSlot(slot);
    } else {
      t_reader_slot = BorrowSlot();
    }
  }
  ReaderSlot* const slot = t_reader_slot;
  if (!IsSpare(slot)) {
    slot->epoch.store(g_epoch.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  if (ReadersFence()) {
    FenceThisThread();  // fence B
  }
  return &slot->epoch;
}

#if defined(GUESTMEM_SCHEDULED)
void LeaveReaders() noexcept {
  if (t_reader_slot != nullptr) {
    ReleaseSlot(t_reader_slot);
  }
}

void ForgetReaders(bool membarrier) noexcept {
  for (ReaderSlot* slot = g_slots.exchange(g_spare_slots); slot != g_spare_slots;) {
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
  using namespace detail;
  const ReaderSlot* const slot = t_reader_slot;
  if (slot == nullptr || !IsSpare(slot)) {
    return slot != nullptr && slot->epoch.load(std::memory_order_relaxed) != 0;
  }
  return slot->epoch.load(std::memory_order_acquire) != 0 &&
         slot->borrower.load(std::memory_order_relaxed) == &t_reader_slot;
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
