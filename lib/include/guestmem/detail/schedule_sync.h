// The mutex, condition and shared word that the engine uses: the standard ones, or in a scheduled build ones that
// pass schedule points and yield instead of blocking the one thread that runs. For the library's own files.

#ifndef GUESTMEM_DETAIL_SCHEDULE_SYNC_H_
#define GUESTMEM_DETAIL_SCHEDULE_SYNC_H_

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "guestmem/detail/schedule.h"

namespace guestmem::detail {

#if defined(GUESTMEM_SCHEDULED)

// Not for several threads at once: the scheduler runs one.
class Mutex {
 public:
  constexpr Mutex() = default;
  void lock() noexcept {
    GUESTMEM_SCHEDULE_POINT(kLock);
    for (bool first = true; locked_ && AwaitSchedule(first); first = false) {
    }
    locked_ = true;
  }
  void unlock() noexcept {
    GUESTMEM_SCHEDULE_POINT(kUnlock);
    locked_ = false;
  }

 private:
  bool locked_ = false;
};

// Time does not pass in a schedule: a deadline is never reached (but the clock's own beginning has passed), and who
// waits for ever is deadlocked.
class Condition {
 public:
  template <typename Lock, typename Deadline, typename Predicate>
  bool wait_until(Lock& lock, const Deadline& deadline, Predicate predicate) {
    if (deadline == Deadline()) {
      return predicate();
    }
    bool go_on = true;
    while (!predicate() && go_on) {
      const unsigned seen = notified_;
      lock.unlock();
      for (bool first = true; notified_ == seen && go_on; first = false) {
        go_on = AwaitSchedule(first);
      }
      lock.lock();
    }
    return predicate();
  }
  void notify_all() noexcept { ++notified_; }

 private:
  unsigned notified_ = 0;
};

template <typename T>
class SharedWord {
 public:
  T load(std::memory_order order) const noexcept { return Pass().load(order); }
  void store(T value, std::memory_order order) noexcept { Pass().store(value, order); }
  T fetch_or(T bits, std::memory_order order) noexcept { return Pass().fetch_or(bits, order); }
  T fetch_and(T bits, std::memory_order order) noexcept { return Pass().fetch_and(bits, order); }

 private:
  std::atomic<T>& Pass() const noexcept {
    GUESTMEM_SCHEDULE_POINT(kBits, &value_);
    return value_;
  }
  mutable std::atomic<T> value_;
};

#else

using Mutex = std::mutex;
using Condition = std::condition_variable;
template <typename T>
using SharedWord = std::atomic<T>;

#endif

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_SCHEDULE_SYNC_H_
