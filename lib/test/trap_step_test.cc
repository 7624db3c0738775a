// The kernels, an instruction at a time: the CPU's trap flag stops before each. A page may vanish between any two; here it does, and
// what the kernel then says that it moved must have been moved. And no instruction may store more than 8 bytes in two pages.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <x86intrin.h>

#include <algorithm>
#include <climits>
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
constexpr size_t kPages = 3;
constexpr size_t kGuard = 128;
constexpr std::byte kUntouched{0xee};
constexpr uint8_t kFill = 0x5a;

// For the handler: how many instructions to let pass, and what to take away then.
volatile int g_steps = 0;
std::byte* g_page = nullptr;

// For the handler: where a page ends, and whether an instruction stored more than 8 bytes on both sides of it. What one stored
// there is wiped out, so that the next one's bytes show.
std::byte* g_boundary = nullptr;
bool g_straddled = false;
bool g_stored = false;  // anything there at all

void LookAtBoundary() {
  constexpr size_t kWidest = 64;
  size_t below = 0, above = 0;
  for (std::byte* byte = g_boundary - kWidest; byte != g_boundary + kWidest; ++byte) {
    (byte < g_boundary ? below : above) += *byte != kUntouched;
    *byte = kUntouched;
  }
  g_stored = g_stored || below + above != 0;
  g_straddled = g_straddled || (below != 0 && above != 0 && below + above > 8);
}

void Step(int, siginfo_t*, void* context) {
  g_steps = g_steps - 1;
  if (g_boundary != nullptr) {
    LookAtBoundary();
  }
  if (g_steps == 0) {
    mprotect(g_page, kPage, PROT_NONE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
  }
}

// While it lives, SIGTRAP is a step.
class Stepping {
 public:
  Stepping() {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = Step;
    sigaction(SIGTRAP, &action, &before_);
  }
  ~Stepping() { sigaction(SIGTRAP, &before_, nullptr); }
  Stepping(const Stepping&) = delete;
  Stepping& operator=(const Stepping&) = delete;

 private:
  struct sigaction before_ = {};
};

class Stepper {
 public:
  explicit Stepper(Operation operation) : operation_(operation), host_(kPages * kPage) {}

  // Takes page `vanishing` away before each instruction that moves [offset, offset + length) of the pages.
  bool RunAll(size_t offset, size_t length, size_t vanishing) {
    bool vanished = true;
    for (int steps = 1; vanished; ++steps) {
      const bool right = Run(offset, length, vanishing, steps, vanished);
      if (steps == 1 && !vanished) {
        ADD_FAILURE() << "the trap flag stops nothing here";
        return false;
      }
      if (!right) {
        ADD_FAILURE() << "operation " << static_cast<int>(operation_) << ", kernels " << detail::g_trap_kernels.name << ", offset "
                      << offset << ", length " << length << ", page " << vanishing << " vanishes after " << steps << " instructions";
        return false;
      }
    }
    return true;
  }

  // Lets all instructions pass, and looks at what each stores about `boundary`.
  bool StaysInPages(size_t offset, size_t length, size_t boundary) {
    g_boundary = pages_.Behind(pages_.begin()) + boundary;
    g_straddled = g_stored = false;
    bool vanished = false;
    (void)Run(offset, length, 0, INT_MAX, vanished);  // its bytes about the boundary are wiped out: not right
    g_boundary = nullptr;
    EXPECT_NE(g_steps, INT_MAX) << "the trap flag stops nothing here";
    EXPECT_TRUE(g_stored) << "no store was seen";
    return !g_straddled;
  }

 private:
  bool Run(size_t offset, size_t length, size_t vanishing, int steps, bool& vanished) {
    std::byte* const guest = pages_.begin() + offset;
    std::byte* const behind = pages_.Behind(pages_.begin());
    std::byte* const host = host_.data() + kGuard;
    for (size_t i = 0; i < kPages * kPage; ++i) {
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
  const Pages pages_{kPages, 0, test::Hole::kInaccessible};
  std::vector<std::byte> host_;
};

void StepThrough(Operation operation) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Stepping stepping;
  Stepper stepper(operation);
  for (const size_t length : {1, 3, 6, 13, 24, 40, 100, 130, 200, 300, 600}) {  // one for each way through each kernel
    ASSERT_TRUE(stepper.RunAll(kGuard + 5, length, 0));
    ASSERT_TRUE(stepper.RunAll(kPage - length / 3, length, 0));  // across the two
    ASSERT_TRUE(stepper.RunAll(kPage - length / 3, length, 1));
  }
}

void EveryStoreStaysInItsPage(Operation operation) {
  const Stepping stepping;
  Stepper stepper(operation);
  for (const size_t length : {3, 6, 8, 13, 17, 24, 33, 40, 64, 65, 100, 130, 200, 257, 300, 500, 513, 700, 1000}) {
    for (size_t below = 1; below < length; below += below < 70 ? 3 : 61) {
      for (const size_t boundary : {kPage, 2 * kPage}) {  // below it an even or an odd page
        ASSERT_TRUE(stepper.StaysInPages(boundary - below, length, boundary))
            << "operation " << static_cast<int>(operation) << ", kernels " << detail::g_trap_kernels.name << ", length " << length
            << ", of it below the boundary " << below;
      }
    }
  }
}

TEST(TrapStep, AReadWhosePageVanishesAnywhereSaysWhatItMoved) { StepThrough(Operation::kRead); }
TEST(TrapStep, AWriteWhosePageVanishesAnywhereSaysWhatItMoved) { StepThrough(Operation::kWrite); }
TEST(TrapStep, AFillWhosePageVanishesAnywhereSaysWhatItMoved) { StepThrough(Operation::kFill); }

TEST(TrapStep, AWideStoreOfAWriteStaysInItsPage) { EveryStoreStaysInItsPage(Operation::kWrite); }
TEST(TrapStep, AWideStoreOfAFillStaysInItsPage) { EveryStoreStaysInItsPage(Operation::kFill); }

TEST(TrapStepWithOtherKernels, EveryStepHolds) { test::PassesWithOtherKernels("TrapStep.*"); }

}  // namespace
}  // namespace guestmem
