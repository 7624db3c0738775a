// The scheduler: runs the threads of a trace as fibers, one at a time, and asks at each schedule point who goes on.
//
// What it decides is the whole of the nondeterminism: the same bodies with the same choices take the same steps. A thread
// that waits (for readers, for a mutex, for a page to come) can run again once another has made a step. If no thread can, the
// verdict is a deadlock; after kMaxSteps it is starvation. The run is then given up: whatever waits goes on as if
// it had what it wanted, the bodies see given_up() and return, and the next run starts clean.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_SCHEDULER_H_
#define GUESTMEM_REFERENCE_SCHEDULE_SCHEDULER_H_

#include <array>
#include <cstdint>
#include <vector>

#include "guestmem/detail/read_section.h"
#include "guestmem/detail/schedule.h"
#include "reference/schedule/choices.h"
#include "reference/schedule/fiber.h"
#include "reference/schedule/trace.h"

namespace reference::schedule {

inline constexpr uint64_t kMaxSteps = 4000;

enum class End : uint8_t { kFinished, kDeadlock, kStarvation };

// One step as it was taken; for reports.
struct LoggedStep {
  int thread;
  guestmem::detail::SchedulePoint point;
  bool waits;           // `point` is then meaningless
  const void* address;  // null: none
};

class Scheduler {
 public:
  using Body = void (*)(void* context, int thread);
  // Called when a thread is about to pass its point, on its fiber; may call Wait. For pages that are not there yet.
  using Arrival = void (*)(void* context, int thread, const void* address);

  Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Precondition: detail::ForgetReaders was called since the last run.
  // Runs body(context, 0..threads-1) to their ends, or gives up.
  End Run(int threads, Body body, Arrival arrival, void* context, Choices& choices);

  // Called by bodies: a step at which the engine has no point; the current thread; whether the run was given up and the body should return.
  void Step() { Pass(guestmem::detail::SchedulePoint::kUnlock, nullptr, false); }
  int current() const { return current_; }
  bool given_up() const { return end_ != End::kFinished; }
  bool Wait(bool first);
  // A clock that every call advances.
  uint64_t Tick() { return ++clock_; }

  // About the last run: the choices that were made, and its steps if `log` was set before it.
  const std::vector<uint8_t>& taken() const { return taken_; }
  const std::vector<LoggedStep>& steps() const { return log_; }
  uint64_t step_count() const { return steps_; }
  bool log = false;

 private:
  enum class State : uint8_t { kReady, kWaiting, kDone };
  struct Thread {
    Fiber fiber;
    State state = State::kDone;
    uint64_t waits_since = 0;  // progress_ when it last checked and had to go on waiting
    guestmem::detail::ReaderSlot* reader_slot = nullptr;
  };

  static void HookPass(guestmem::detail::SchedulePoint point, const void* address);
  static bool HookWait(bool first);
  static void Main(void* thread);
  void Pass(guestmem::detail::SchedulePoint point, const void* address, bool logged);
  void Finish();
  void GiveUp(End end);
  bool CanRun(int thread) const;
  int Pick();  // -1: no thread can run
  void SwitchTo(int thread, bool last = false);

  std::array<Thread, kMaxThreads> threads_;
  Fiber main_;
  int count_ = 0;
  int current_ = -1;  // -1: outside Run
  Body body_ = nullptr;
  Arrival arrival_ = nullptr;
  void* context_ = nullptr;
  Choices* choices_ = nullptr;
  End end_ = End::kFinished;
  uint64_t progress_ = 0, steps_ = 0, clock_ = 0;
  std::vector<uint8_t> taken_;
  std::vector<LoggedStep> log_;
};

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_SCHEDULER_H_
