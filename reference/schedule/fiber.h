// Fibers: several stacks on one thread, switched by a dozen instructions. Real threads that hand over to each other cost
// some microseconds a switch, which is too slow for 20,000 schedules a second; a fiber switch costs a few nanoseconds.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_FIBER_H_
#define GUESTMEM_REFERENCE_SCHEDULE_FIBER_H_

#include <cstddef>

namespace reference::schedule {

class Fiber {
 public:
  Fiber() = default;  // the thread's own stack: only switched from and back to
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber calls entry(argument) on its own stack. It must never return: it ends by a switch with
  // `last` set, after which the fiber may be prepared again.
  void Prepare(void (*entry)(void*), void* argument);

  static void Switch(Fiber& from, Fiber& to, bool last = false);

 private:
  static void Enter();
  void Arrived();

  void* stack_pointer_ = nullptr;
  std::byte* stack_ = nullptr;  // null: the thread's own
  size_t stack_size_ = 0;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  // For the sanitizers: where the stack lies, and what they keep for it.
  const void* bottom_ = nullptr;
  void* fake_stack_ = nullptr;
  [[maybe_unused]] void* tsan_fiber_ = nullptr;
};

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_FIBER_H_
