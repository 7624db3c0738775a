// Schedule points: the steps of the engine at which a harness may let another thread run. For the library's own files.
//
// A build with GUESTMEM_SCHEDULED (the target guestmem_scheduled, for reference/schedule alone) calls a hook at each
// point; in production a point is nothing, and ctest's schedule.absent looks for traces of it in the object code.
// The rule for placing one: before each step that another thread can observe, so that every order of the steps has a
// schedule. A step is made of primitives that have their points (trap_inline.h's accesses, schedule_sync.h's mutexes and
// words), so that a mistake put together from them has its points too.
//
// The scheduled build differs from production in this and no more: one thread of the process runs at a time, on fibers;
// bulk transfers go page by page; waiting yields to the scheduler; mutexes and access-bit words have points; a thread's
// store to its reader slot is seen by others as late as the order of the store allows (OwnWord), and membarrier is played.

#ifndef GUESTMEM_DETAIL_SCHEDULE_H_
#define GUESTMEM_DETAIL_SCHEDULE_H_

#include <atomic>
#include <cstdint>

#if defined(GUESTMEM_SCHEDULED)

namespace guestmem::detail {

inline constexpr bool kScheduled = true;

enum class SchedulePoint : uint8_t {
  kSectionEntry,     // before the slot says that a section runs
  kSectionExit,      // before it says that none does
  kLoad,             // before an access to guest memory; with its host address, as the next four
  kStore,
  kCompareExchange,
  kTouch,
  kTransfer,         // before each page's part of a bulk transfer: after the bit check, and between pages
  kBeforeHandler,
  kAfterHandler,
  kBits,             // before an atomic access of AccessBitmap to its bits, with the word's host address
  kCleared,          // Revoke: after clearing, before waiting for readers
  kRemap,            // SparseMapping: before a page changes
  kLock,             // before taking a mutex
  kUnlock,           // before giving it back
  kSynchronize,      // before the grace period's epoch begins
  kSynchronized,     // before Synchronize returns
  kLayout,           // before the layout of an address space is loaded or replaced
};

struct ScheduleHooks {
  // Returns when the calling thread is to go on. `address` is null where the point has none.
  void (*pass)(SchedulePoint point, const void* address);
  // Called in a loop while something that only another thread can change is not yet so; `first` in its first round.
  // False: the run has been given up; stop waiting and go on as if it were so.
  bool (*wait)(bool first);
};
inline constinit const ScheduleHooks* g_schedule_hooks = nullptr;

inline void PassSchedulePoint(SchedulePoint point, const void* address = nullptr) noexcept {
  if (g_schedule_hooks != nullptr) {
    g_schedule_hooks->pass(point, address);
  }
}

inline bool AwaitSchedule(bool first) noexcept { return g_schedule_hooks != nullptr && g_schedule_hooks->wait(first); }

// The calling fiber leaves the registry of readers, as a thread does at its end.
void LeaveReaders() noexcept;
// No slots, first epoch: each run starts from the same state, on a kernel that has membarrier or refuses it. No fiber may
// be inside the library.
void ForgetReaders(bool membarrier) noexcept;

// A word that only one thread stores to. What it stores relaxed stays in its store buffer, where it alone sees it, until its
// next fence or release: no processor keeps it longer than that, and one that keeps it so long shows the fences missing.
class OwnWord {
 public:
  constexpr OwnWord(uint64_t value) : own_(value), others_(value) {}
  // Relaxed: by the thread itself; acquire: by others.
  uint64_t load(std::memory_order order) const noexcept { return order == std::memory_order_relaxed ? own_ : others_; }
  void store(uint64_t value, std::memory_order order) noexcept {
    own_ = value;
    if (order != std::memory_order_relaxed) {
      Drain();
    }
  }
  void Drain() noexcept { others_ = own_; }

 private:
  uint64_t own_, others_;
};

}  // namespace guestmem::detail

// GUESTMEM_SCHEDULE_POINT(kName) or GUESTMEM_SCHEDULE_POINT(kName, host address).
#define GUESTMEM_SCHEDULE_POINT(name, ...) \
  ::guestmem::detail::PassSchedulePoint(::guestmem::detail::SchedulePoint::name __VA_OPT__(, ) __VA_ARGS__)

#else

namespace guestmem::detail {
inline constexpr bool kScheduled = false;
using OwnWord = std::atomic<uint64_t>;
}
#define GUESTMEM_SCHEDULE_POINT(...) static_cast<void>(0)

#endif

#endif  // GUESTMEM_DETAIL_SCHEDULE_H_
