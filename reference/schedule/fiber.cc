#include "reference/schedule/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#include "reference/setup.h"

#if !defined(__x86_64__)
#error "fibers: another architecture is one more switch like the one below"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif

#if defined(FIBER_ASAN)
extern "C" void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom, size_t* old_size);
#endif
#if defined(FIBER_TSAN)
extern "C" void* __tsan_get_current_fiber();
extern "C" void* __tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void* fiber, unsigned flags);
#endif

// Saves what a callee must keep (System V AMD64 ABI 3.2.1), swaps stacks, restores it. Floating-point control words are
// not saved: no code here changes them.
asm(R"(
  .text
  .p2align 4
  .type reference_fiber_switch, @function
reference_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size reference_fiber_switch, . - reference_fiber_switch
)");
extern "C" void reference_fiber_switch(void** save, void* load);

namespace reference::schedule {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;  // room for a signal frame with AVX-512 state and for sanitized frames
constexpr size_t kGuardBytes = 4096;
constexpr size_t kSavedRegisters = 6;

// The fibers that a switch leaves and enters. Static, because after the switch the locals are those of the other stack.
Fiber* g_from = nullptr;
Fiber* g_to = nullptr;

}  // namespace

Fiber::~Fiber() {
  if (stack_ != nullptr) {
    munmap(stack_ - kGuardBytes, stack_size_ + kGuardBytes);
  }
}

void Fiber::Prepare(void (*entry)(void*), void* argument) {
  if (stack_ == nullptr) {
    void* const memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Require(memory != MAP_FAILED && mprotect(memory, kGuardBytes, PROT_NONE) == 0, "a fiber's stack");
    stack_ = static_cast<std::byte*>(memory) + kGuardBytes;
    stack_size_ = kStackBytes;
    bottom_ = stack_;
#if defined(FIBER_TSAN)
    tsan_fiber_ = __tsan_create_fiber(0);
#endif
  }
  entry_ = entry;
  argument_ = argument;
  fake_stack_ = nullptr;
  // What the switch pops: the registers, then Enter as return address, then one word so that Enter sees a called
  // function's alignment (ABI 3.2.2).
  auto* const top = reinterpret_cast<uint64_t*>(stack_ + stack_size_);
  uint64_t* const frame = top - 2 - kSavedRegisters;
  for (uint64_t* word = frame; word != top; ++word) {
    *word = 0;
  }
  frame[kSavedRegisters] = reinterpret_cast<uint64_t>(&Fiber::Enter);
  stack_pointer_ = frame;
}

void Fiber::Enter() {
  g_to->Arrived();
  g_to->entry_(g_to->argument_);
  std::abort();  // entry returned
}

// Runs on the stack that was switched to.
void Fiber::Arrived() {
#if defined(FIBER_ASAN)
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(fake_stack_, &bottom, &size);
  if (g_from->stack_ == nullptr) {
    g_from->bottom_ = bottom;
    g_from->stack_size_ = size;
  }
#endif
}

void Fiber::Switch(Fiber& from, Fiber& to, [[maybe_unused]] bool last) {
  g_from = &from;
  g_to = &to;
#if defined(FIBER_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack_, to.bottom_, to.stack_size_);
#endif
#if defined(FIBER_TSAN)
  if (from.tsan_fiber_ == nullptr) {
    from.tsan_fiber_ = __tsan_get_current_fiber();
  }
  __tsan_switch_to_fiber(to.tsan_fiber_, 0);
#endif
  reference_fiber_switch(&from.stack_pointer_, to.stack_pointer_);
  from.Arrived();
}

}  // namespace reference::schedule
