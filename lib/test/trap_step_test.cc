// A page may vanish between any two instructions of a kernel. Here it does: the CPU's trap flag stops before each in turn, and the
// page is taken away there. What the kernel then says that it moved must have been moved.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "child.h"
#include "guestmem/detail/trap_inline.h"
#include "guestmem/fault.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::kPage;
using test::Pages;

enum class Operation { kRead, kWrite, kFill };

constexpr uint64_t kTrapFlag = 0x100;
constexpr size_t kGuard = 128;
constexpr std::byte kUntouched{0xee};
constexpr uint8_t kFill = 0x5a;

// For the handler: how many instructions to let pass, and what to take away then.
volatile int g_steps = 0;
std::byte* g_page = nullptr;

void Step(int, siginfo_t*, void* context) {
  g_steps = g_steps - 1;
  if (g_steps == 0) {
    mprotect(g_page, kPage, PROT_NONE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
  }
}

class Stepper {
 public:
  explicit Stepper(Operation operation) : operation_(operation), host_(2 * kPage) {}

  // Takes page `vanishing` away before each instruction that moves [offset, offset + length) of two pages.
  bool RunAll(size_t offset, size_t length, size_t vanishing) {
    bool vanished = true;
    for (int steps = 1; vanished; ++steps) {
      if (!Run(offset, length, vanishing, steps, vanished)) {
        ADD_FAILURE() << "operation " << static_cast<int>(operation_) << ", kernels " << detail::g_trap_kernels.name << ", offset "
                      << offset << ", length " << length << ", page " << vanishing << " vanishes after " << steps << " instructions";
        return false;
      }
    }
    return true;
  }

 private:
  bool Run(size_t offset, size_t length, size_t vanishing, int steps, bool& vanished) {
    std::byte* const guest = pages_.begin() + offset;
    std::byte* const behind = pages_.Behind(pages_.begin());
    std::byte* const host = host_.data() + kGuard;
    for (size_t i = 0; i < 2 * kPage; ++i) {
      const auto pattern = static_cast<std::byte>(i % 251 % 0xed);
      behind[i] = operation_ == Operation::kRead ? pattern : kUntouched;
      host_[i] = operation_ == Operation::kRead ? kUntouched : pattern;
    }
    g_steps = steps;
    g_page = pages_.begin() + vanishing * kPage;
    const detail::TrapResult called = Call(guest, host, length);
    vanished = g_steps <= 0;
    mprotect(g_page, kPage, PROT_READ | PROT_WRITE);
    const size_t moved = called.info == 0 ? length : detail::MovedUpTo(called) - reinterpret_cast<uint64_t>(guest);
    std::byte* const to = operation_ == Operation::kRead ? host : behind + offset;
    const std::byte* const from = operation_ == Operation::kRead ? behind + offset : host;
    const auto untouched = [](std::byte b) { return b == kUntouched; };
    return moved <= length &&
           (operation_ == Operation::kFill ? std::all_of(to, to + moved, [](std::byte b) { return b == std::byte{kFill}; })
                                           : std::memcmp(to, from, moved) == 0) &&
           std::all_of(to + length, to + length + kGuard, untouched) && std::all_of(to - kGuard, to, untouched);
  }

  [[gnu::noinline]] detail::TrapResult Call(std::byte* guest, std::byte* host, size_t length) const {
    const detail::TrapKernels& kernels = detail::g_trap_kernels;
    __writeeflags(__readeflags() | kTrapFlag);
    const detail::TrapResult result = operation_ == Operation::kRead    ? kernels.copy_from_guest(host, guest, length)
                                : operation_ == Operation::kWrite ? kernels.copy_to_guest(guest, host, length)
                                                                  : kernels.fill_guest(guest, kFill, length);
    __writeeflags(__readeflags() & ~kTrapFlag);
    return result;
  }

  const Operation operation_;
  const Pages pages_{2, 0, test::Hole::kInaccessible};
  std::vector<std::byte> host_;
};

void StepThrough(Operation operation) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  struct sigaction stepping = {}, before = {};
  stepping.sa_flags = SA_SIGINFO;
  stepping.sa_sigaction = Step;
  ASSERT_EQ(sigaction(SIGTRAP, &stepping, &before), 0);
  Stepper stepper(operation);
  for (const size_t length : {1, 3, 6, 13, 24, 40, 100, 130, 200, 300, 600}) {  // one for each way through each kernel
    ASSERT_TRUE(stepper.RunAll(kGuard + 5, length, 0));
    ASSERT_TRUE(stepper.RunAll(kPage - length / 3, length, 0));  // across the two
    ASSERT_TRUE(stepper.RunAll(kPage - length / 3, length, 1));
  }
  ASSERT_EQ(sigaction(SIGTRAP, &before, nullptr), 0);
}

TEST(TrapStep, AReadWhosePageVanishesAnywhereSaysWhatItMoved) { StepThrough(Operation::kRead); }
TEST(TrapStep, AWriteWhosePageVanishesAnywhereSaysWhatItMoved) { StepThrough(Operation::kWrite); }
TEST(TrapStep, AFillWhosePageVanishesAnywhereSaysWhatItMoved) { StepThrough(Operation::kFill); }

TEST(TrapStepWithOtherKernels, EveryStepHolds) {
  for (const char* const kernels : {"sse2", "avx"}) {
    if (std::strcmp(kernels, "avx") == 0 && !__builtin_cpu_supports("avx2")) {
      GTEST_SKIP() << "this CPU has no AVX2: only the baseline kernels were run";
    }
    const test::ChildResult child =
        test::RunSelf({"--gtest_filter=TrapStep.*"},
                      {std::string("GUESTMEM_KERNELS=") + kernels, "GTEST_TOTAL_SHARDS=1", "GTEST_SHARD_INDEX=0"});
    EXPECT_TRUE(child.Exited(0)) << kernels << "\n" << child;
  }
}

}  // namespace
}  // namespace guestmem
