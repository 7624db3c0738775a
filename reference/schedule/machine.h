// The machine that a concurrent trace runs on: the engine over one AccessBitmap backing, reset for each run, and what
// its operations, its page-fault handler and the pages themselves do. Everything done goes into the history.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_MACHINE_H_
#define GUESTMEM_REFERENCE_SCHEDULE_MACHINE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/lock.h"
#include "guestmem/sparse_mapping.h"
#include "reference/schedule/history.h"
#include "reference/schedule/scheduler.h"
#include "reference/schedule/trace.h"

namespace reference::schedule {

class Machine {
 public:
  explicit Machine(Scheduler& scheduler);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Runs the ops, each thread's in order; history() then tells what happened.
  End Run(const Trace& trace, Choices& choices);
  const History& history() const { return history_; }
  // The offset of a host address in guest memory, or -1; for reports.
  int64_t OffsetOf(const void* address) const;

 private:
  class Backing;
  enum class Use : uint8_t { kInUse, kChanging, kPoisoned, kUnmapped };
  struct PageState {
    Use use = Use::kInUse;
    int granting = 0;      // grants under way: the page must not be retired meanwhile
    bool missing = false;
    bool hole = false;
    uint64_t filled = 0;   // when the hole was filled
  };
  // What a thread last saw at an address; its next compare-exchange there expects it.
  struct Seen {
    uint64_t address = 0, value = 0;
    uint8_t size = 0;
  };
  struct Held {
    guestmem::LockedPages pages;  // one page
    size_t span = 0;              // index + 1 in history_.locks; 0: nothing is held
  };
  struct Thread {
    bool in_section = false;  // a section that the thread itself has entered
    std::array<Held, kMaxPages> lock = {};
    std::vector<Seen> seen;
    size_t op = 0;            // the operation that runs
    uint64_t start = 0;       // when it started
  };

  static void Body(void* machine, int thread);
  static void Arrive(void* machine, int thread, const void* address);
  void Reset(const Trace& trace);
  void Look();  // reads the final contents
  void RunOp(size_t index);
  void Plain(const Op& op);
  template <typename T>
  void PlainOf(const Op& op, uint64_t address);
  void Bulk(const Op& op);
  bool ChangeBits(uint8_t page, uint8_t count, uint8_t access, bool grant);  // returns whether the bits changed
  void Retire(const Op& op);
  void Restore(uint8_t page);
  void LockPage(const Op& op);
  void TouchLocked(const Op& op);
  void UnlockPage(uint8_t page);
  void WaitUnlocked(const Op& op);
  void OwnSection(const Op& op);
  guestmem::PageFaultAction Handle(const guestmem::PageFaultInfo& fault);

  Thread& me() { return threads_[scheduler_.current()]; }
  std::byte* host(uint64_t address) const { return pages_->mapping() + address; }
  uint64_t LastSeen(uint64_t address, uint8_t size);
  void Remember(uint64_t address, uint8_t size, uint64_t value);
  void Found(uint64_t start, uint64_t address, uint64_t length, Bit bit, bool value);
  void FoundRefusal(uint64_t start, const guestmem::Status& status, Bit bit);
  bool MayFault(uint8_t page);
  void Note(const Access& access) { history_.accesses.push_back(access); }
  void Break(std::string what);

  Scheduler& scheduler_;
  std::shared_ptr<guestmem::SparseMapping> pages_;
  std::shared_ptr<guestmem::AccessBitmap> bits_;
  std::shared_ptr<Backing> backing_;
  guestmem::GuestMemory whole_;
  std::array<guestmem::GuestMemory, kMaxPages> memory_;  // index: number of pages - 1
  const Trace* trace_ = nullptr;
  std::array<PageState, kMaxPages> page_;
  std::array<Thread, kMaxThreads> threads_;
  size_t next_answer_ = 0;
  History history_;
};

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_MACHINE_H_
