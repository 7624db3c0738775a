// Read-side sections, the inline half: what an access through a bitmap pays. For the library's own headers; see rcu.h.
//
// A section is one store of the current epoch into the thread's own slot, and one store of zero at its end: no barrier, no
// written cache line shared with another thread. A waiting writer makes up for it with membarrier(2), which runs a full
// fence on every thread of the process.
//
// Fence B: a reader stores its slot, then loads bits; a writer changes bits, then loads slots. Between the two of the
//   writer stands a fence on every thread (membarrier; where refused, kFence on the reader's side), so either the writer
//   sees the slot and waits, or the reader sees the changed bits.
// Fence C: the release store that ends a section pairs with the writer's acquire load of the slot: what the reader did is
//   done when the writer goes on.

#ifndef GUESTMEM_DETAIL_READ_SECTION_H_
#define GUESTMEM_DETAIL_READ_SECTION_H_

#include <atomic>
#include <cstdint>

#include "guestmem/detail/schedule.h"

namespace guestmem::detail {

// One thread's place in the registry. Never freed, but reused by later threads; on its own cache line.
struct alignas(64) ReaderSlot {
  OwnWord epoch{0};                // 0: outside sections; else the epoch when the outermost one began. Written by its thread
  ReaderSlot* next = nullptr;      // in the registry; written before the slot is published, then immutable
  bool taken = false;              // by a living thread; guarded by the registry's mutex
  // Of the few slots that threads for which there is no memory share, a section at a time: whose section it is or was.
  std::atomic<const void*> borrower{nullptr};
};
static_assert(sizeof(ReaderSlot) == 64);

// Grows by one with each grace period. Read by every section, written by writers only. Its top bit says how readers take
// part in fence B: set, they pay for it (kernels that refuse membarrier). Decided once, at load.
extern constinit std::atomic<uint64_t> g_epoch;
inline constexpr uint64_t kReadersFence = uint64_t{1} << 63;
// Null until the thread's first section, and again after it has left the registry.
extern constinit thread_local ReaderSlot* t_reader_slot __attribute__((tls_model("initial-exec")));
// The same for the inline path, which asks one question: a slot that isn't taken as free (one that no thread has, where
// the thread has none or pays for fence B; its own, in a section) sends it to EnterSlowly.
extern constinit thread_local ReaderSlot* t_fast_slot __attribute__((tls_model("initial-exec")));

// Sets both.
void SetReaderSlot(ReaderSlot* slot) noexcept;
// What a section ends that has nothing to end: no writer looks at it.
extern constinit thread_local OwnWord t_no_section __attribute__((tls_model("initial-exec")));

// The word that the section now beginning is to end; t_no_section: it is nested, the outer one protects it.
OwnWord* EnterSlowly() noexcept;

class ReadSection {
 public:
  // `enabled` false: nothing (an access that no bitmap guards has nothing to protect).
  [[nodiscard]] explicit ReadSection(bool enabled = true) noexcept {
    if (!enabled) {
      epoch_ = &t_no_section;
      return;
    }
    GUESTMEM_SCHEDULE_POINT(kSectionEntry);
    epoch_ = &t_fast_slot->epoch;
    if (epoch_->load(std::memory_order_relaxed) == 0) [[likely]] {
      epoch_->store(g_epoch.load(std::memory_order_relaxed), std::memory_order_relaxed);
    } else {
      epoch_ = EnterSlowly();
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);  // fence B: the compiler's part
  }
  ~ReadSection() {
    if (!kScheduled || epoch_ != &t_no_section) {
      GUESTMEM_SCHEDULE_POINT(kSectionExit);
      epoch_->store(0, std::memory_order_release);  // fence C
    }
  }
  ReadSection(const ReadSection&) = delete;
  ReadSection& operator=(const ReadSection&) = delete;

 private:
  OwnWord* epoch_;
};

// A section for a path that calls nothing: only if the thread's own slot is free, which entered() says.
class LeafReadSection {
 public:
  [[nodiscard]] LeafReadSection() noexcept : epoch_(&t_fast_slot->epoch) {
    GUESTMEM_SCHEDULE_POINT(kSectionEntry);
    if (epoch_->load(std::memory_order_relaxed) != 0) [[unlikely]] {
      epoch_ = nullptr;
      return;
    }
    epoch_->store(g_epoch.load(std::memory_order_relaxed), std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // fence B: the compiler's part
  }
  ~LeafReadSection() {
    if (entered()) {
      GUESTMEM_SCHEDULE_POINT(kSectionExit);
      epoch_->store(0, std::memory_order_release);  // fence C
    }
  }
  LeafReadSection(const LeafReadSection&) = delete;
  LeafReadSection& operator=(const LeafReadSection&) = delete;
  bool entered() const noexcept { return epoch_ != nullptr; }

 private:
  OwnWord* epoch_;
};

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_READ_SECTION_H_
