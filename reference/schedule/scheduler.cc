#include "reference/schedule/scheduler.h"

#include <cstdlib>

namespace reference::schedule {
namespace {

using guestmem::detail::SchedulePoint;

Scheduler* g_scheduler = nullptr;  // the one that the hooks call

}  // namespace

Scheduler::Scheduler() {
  if (g_scheduler != nullptr) {
    std::abort();  // the hooks belong to the process: one scheduler at a time
  }
  g_scheduler = this;
  static constexpr guestmem::detail::ScheduleHooks kHooks = {HookPass, HookWait};
  guestmem::detail::g_schedule_hooks = &kHooks;
}

void Scheduler::HookPass(SchedulePoint point, const void* address) { g_scheduler->Pass(point, address, true); }
bool Scheduler::HookWait(bool first) { return g_scheduler->Wait(first); }

End Scheduler::Run(int threads, Body body, Arrival arrival, void* context, Choices& choices) {
  count_ = threads;
  body_ = body;
  arrival_ = arrival;
  context_ = context;
  choices_ = &choices;
  end_ = End::kFinished;
  progress_ = steps_ = clock_ = 0;
  taken_.clear();
  log_.clear();
  for (int i = 0; i < threads; ++i) {
    threads_[i].state = State::kReady;
    threads_[i].reader_slot = nullptr;
    threads_[i].fiber.Prepare(Main, &threads_[i]);
  }
  current_ = 0;
  current_ = Pick();
  Fiber::Switch(main_, threads_[current_].fiber);
  current_ = -1;
  return end_;
}

void Scheduler::Main(void*) {
  Scheduler& self = *g_scheduler;
  self.body_(self.context_, self.current_);
  guestmem::detail::LeaveReaders();
  self.Finish();
}

bool Scheduler::CanRun(int thread) const {
  const Thread& t = threads_[thread];
  // After the run was given up, nothing waits.
  return t.state == State::kReady || (t.state == State::kWaiting && (given_up() || t.waits_since != progress_));
}

int Scheduler::Pick() {
  std::array<int, kMaxThreads> able;
  int count = 0;
  for (int i = 0; i < count_; ++i) {
    const int thread = (current_ + i) % count_;
    if (CanRun(thread)) {
      able[count++] = thread;
    }
  }
  if (count == 0) {
    return -1;
  }
  if (count == 1 || given_up()) {
    return able[0];
  }
  const int choice = choices_->Choose({able.data(), count, able[0] == current_ && steps_ != 0});
  taken_.push_back(static_cast<uint8_t>(choice));
  return able[choice];
}

void Scheduler::SwitchTo(int thread, bool last) {
  using guestmem::detail::t_reader_slot;
  Thread& from = threads_[current_];
  if (thread < 0) {
    Fiber::Switch(from.fiber, main_, last);
    return;
  }
  Thread& to = threads_[thread];
  from.reader_slot = t_reader_slot;
  guestmem::detail::SetReaderSlot(to.reader_slot);
  current_ = thread;
  Fiber::Switch(from.fiber, to.fiber, last);
}

void Scheduler::Pass(SchedulePoint point, const void* address, bool logged) {
  if (current_ < 0 || given_up()) {
    return;
  }
  ++progress_;
  if (++steps_ > kMaxSteps) {
    GiveUp(End::kStarvation);
    return;
  }
  if (log && logged) {
    log_.push_back({current_, point, false, address});
  }
  if (const int next = Pick(); next != current_) {
    SwitchTo(next);
  }
  if (address != nullptr && !given_up()) {
    arrival_(context_, current_, address);
  }
}

bool Scheduler::Wait(bool first) {
  if (current_ < 0) {
    std::abort();  // no other thread could ever end the wait
  }
  if (given_up()) {
    return false;
  }
  if (first) {
    ++progress_;  // what this thread did since its last point may be what another waits for
    if (log) {
      log_.push_back({current_, SchedulePoint::kLock, true, nullptr});
    }
  }
  if (++steps_ > kMaxSteps) {
    GiveUp(End::kStarvation);
    return false;
  }
  Thread& self = threads_[current_];
  self.state = State::kWaiting;
  self.waits_since = progress_;
  const int next = Pick();
  if (next < 0) {
    GiveUp(End::kDeadlock);
  } else if (next != current_) {
    SwitchTo(next);
  }
  self.state = State::kReady;
  return !given_up();
}

void Scheduler::Finish() {
  threads_[current_].state = State::kDone;
  ++progress_;
  SwitchTo(Pick(), true);
  std::abort();  // a finished fiber runs again
}

void Scheduler::GiveUp(End end) { end_ = end; }

}  // namespace reference::schedule
