// Handlers of others, before ours and on top of it: installing again, who is asked about a fault and how often, and on which
// stack. Each claim is a child process.

#include <gtest/gtest.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "child.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "pages.h"
#include "trap/trap_inside.h"

namespace guestmem {
namespace {

using test::Hole;
using test::kPage;
using test::Pages;
using test::Say;

using InfoHandler = void (*)(int, siginfo_t*, void*);
void Set(const struct sigaction& action) {
  CHILD_CHECK(sigaction(SIGSEGV, &action, nullptr) == 0 && sigaction(SIGBUS, &action, nullptr) == 0);
}
struct sigaction Action(InfoHandler handler, int flags = 0) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  return action;
}

[[gnu::noinline]] void WildStore(std::byte* address) { asm volatile("movb $7, (%0)" : : "r"(address) : "memory"); }

bool StillRecovers() {
  const Pages pages(1, 1, Hole::kInaccessible);
  uint64_t value = 0;
  return TryRead(pages.hole(), value).has_value();
}

// The handler that was there first: makes the page accessible, so that the store goes on.
int g_first_calls;
void Repair(int, siginfo_t* info, void*) {
  ++g_first_calls;
  auto* const page = reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(info->si_addr) & ~uintptr_t{kPage - 1});
  mprotect(page, kPage, PROT_READ | PROT_WRITE);
}
void FaultOnce() {
  const Pages pages(1, 1, Hole::kInaccessible);
  WildStore(pages.hole());
}

// Libraries that take the handler over, each with what it found.
template <int Library>
struct Other {
  static inline int calls = 0;
  static inline struct sigaction found = {};

  static void CallWhatItFound(int signal, siginfo_t* info, void* context) {
    ++calls;
    CHILD_CHECK(calls < 100'000);  // for ever
    if ((found.sa_flags & SA_SIGINFO) != 0) {
      found.sa_sigaction(signal, info, context);
    }
  }
  static void PutBackWhatItFound(int signal, siginfo_t*, void*) {
    ++calls;
    CHILD_CHECK(calls < 1000);
    sigaction(signal, &found, nullptr);
  }
  static void TakeOver(InfoHandler handler, int flags = 0) {
    struct sigaction action = Action(handler, flags);
    CHILD_CHECK(sigaction(SIGSEGV, &action, &found) == 0 && sigaction(SIGBUS, &action, nullptr) == 0);
  }
};
using X = Other<0>;
using Y = Other<1>;

size_t RememberedActions() {
  size_t count = 0;
  for (const trap::PreviousAction* each = trap::HandlingOf(SIGSEGV).previous; each != nullptr; each = each->next) {
    ++count;
  }
  return count;
}

void InstallsAgainOverWhoTookOver() {
  CHILD_CHECK(InstallFaultHandler().ok() && FaultHandlerIsInstalled());
  Set(Action(Repair));
  CHILD_CHECK(!FaultHandlerIsInstalled());
  CHILD_CHECK(InstallFaultHandler().ok() && FaultHandlerIsInstalled());
  CHILD_CHECK(StillRecovers() && g_first_calls == 0);
  FaultOnce();
  CHILD_CHECK(g_first_calls == 1 && FaultHandlerIsInstalled());
}

void CreateLeavesWhoTookOver() {
  CHILD_CHECK(GuestMemory::Allocate(kPage).ok() && FaultHandlerIsInstalled());
  Set(Action(Repair));
  CHILD_CHECK(GuestMemory::Allocate(kPage).ok() && !FaultHandlerIsInstalled());
}

void WhoCallsWhatItFoundIsAskedOnce() {
  Set(Action(Repair));
  CHILD_CHECK(InstallFaultHandler().ok());
  X::TakeOver(X::CallWhatItFound);
  FaultOnce();  // theirs is on top
  CHILD_CHECK(X::calls == 1 && g_first_calls == 1 && StillRecovers());
  X::calls = g_first_calls = 0;
  CHILD_CHECK(InstallFaultHandler().ok());
  for (int i = 1; i <= 10; ++i) {
    FaultOnce();
    CHILD_CHECK(X::calls == i && g_first_calls == i && StillRecovers() && X::calls == i);
  }
}

// Each time that theirs is put on top it finds ours, and each time ours finds theirs.
void TakingTurnsIsNoLoop() {
  Set(Action(Repair));
  CHILD_CHECK(InstallFaultHandler().ok());
  for (int turn = 1; turn <= 1000; ++turn) {
    X::TakeOver(X::CallWhatItFound);
    CHILD_CHECK(InstallFaultHandler().ok());
    FaultOnce();
    CHILD_CHECK(X::calls == turn && g_first_calls == turn && StillRecovers());
  }
  CHILD_CHECK(RememberedActions() == 2);  // and nothing is used up
}

void TwoTakeTurns() {
  Set(Action(Repair));
  CHILD_CHECK(InstallFaultHandler().ok());
  for (int turn = 1; turn <= 200; ++turn) {
    X::TakeOver(X::CallWhatItFound);
    CHILD_CHECK(InstallFaultHandler().ok());
    Y::TakeOver(Y::CallWhatItFound, turn % 2 == 0 ? SA_NODEFER : SA_ONSTACK);
    CHILD_CHECK(InstallFaultHandler().ok());
    const int before = g_first_calls;
    FaultOnce();
    CHILD_CHECK(X::calls >= turn && Y::calls >= turn && g_first_calls == before + 1 && StillRecovers());
  }
  CHILD_CHECK(RememberedActions() == 4);  // one more for the other flags
}

template <bool WithFirst>
void WhoPutsBackWhatItFoundIsAskedOnce() {
  Set(WithFirst ? Action(Repair) : (struct sigaction){});
  CHILD_CHECK(InstallFaultHandler().ok());
  X::TakeOver(X::PutBackWhatItFound, SA_NODEFER);
  CHILD_CHECK(InstallFaultHandler().ok() && StillRecovers() && X::calls == 0);
  Say("now:");
  FaultOnce();
  Say("survived");
  CHILD_CHECK(X::calls == 1 && g_first_calls == 1 && StillRecovers());
}

sigjmp_buf g_escape;
void Escape(int, siginfo_t*, void*) {
  ++X::calls;
  siglongjmp(g_escape, 1);
}
void WhoJumpsAwayIsAskedEachTime() {
  CHILD_CHECK(InstallFaultHandler().ok());
  Set(Action(Escape));
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  for (int i = 1; i <= 20; ++i) {
    if (sigsetjmp(g_escape, 1) == 0) {
      WildStore(pages.hole());
      _exit(7);
    }
    CHILD_CHECK(X::calls == i && StillRecovers());
  }
}

void OneShotCanBeHadAgain() {
  CHILD_CHECK(InstallFaultHandler().ok());
  for (int i = 1; i <= 3; ++i) {
    Set(Action(Repair, static_cast<int>(SA_RESETHAND)));
    CHILD_CHECK(InstallFaultHandler().ok());
    FaultOnce();
    CHILD_CHECK(g_first_calls == i);
  }
}

// --- stacks ---

// An alternate stack of exactly what is needed, with an inaccessible page below; the thread's own is large.
size_t SmallestStack() { return std::max<size_t>(getauxval(AT_MINSIGSTKSZ), 2048) + kFaultHandlerStackBytes; }
struct AlternateStack {
  explicit AlternateStack(size_t bytes) {
    size = bytes;
    auto* const base = static_cast<std::byte*>(mmap(nullptr, 32 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHILD_CHECK(base != MAP_FAILED && mprotect(base, 16 * kPage, PROT_NONE) == 0);
    begin = base + 16 * kPage;
    const stack_t stack = {begin, 0, size};
    CHILD_CHECK(sigaltstack(&stack, nullptr) == 0);
  }
  bool Has(const void* address) const { return static_cast<size_t>(static_cast<const std::byte*>(address) - begin) < size; }
  std::byte* begin;
  size_t size;
};
const AlternateStack* g_stack;

int g_calls;
std::byte* g_repair_page;
bool g_on_alternate, g_jump;
sigset_t g_mask;
siginfo_t g_info;
unsigned g_rounding, g_tag;
[[gnu::noinline]] void UseMuchStack(int signal, siginfo_t* info, void* context) {
  volatile char much[100 << 10];
  for (size_t i = 0; i < sizeof much; i += 512) {
    much[i] = 1;
  }
  ++g_calls;
  g_on_alternate = g_stack->Has(const_cast<char*>(much));
  g_rounding = __builtin_ia32_stmxcsr();
  asm volatile("fnstenv (%0)" : : "r"(const_cast<char*>(much)) : "memory");
  std::memcpy(&g_tag, const_cast<char*>(much) + 8, 2);
  asm volatile("fldenv (%0)" : : "r"(const_cast<char*>(much)) : "memory");
  pthread_sigmask(SIG_SETMASK, nullptr, &g_mask);
  if (context != nullptr) {
    g_info = *info;
    CHILD_CHECK(static_cast<ucontext_t*>(context)->uc_stack.ss_sp == g_stack->begin);
  }
  if (g_jump) {
    siglongjmp(g_escape, 1);
  }
  if (g_repair_page != nullptr) {
    mprotect(g_repair_page, kPage, PROT_READ | PROT_WRITE);
  }
  CHILD_CHECK(signal == SIGSEGV);
}
void UseMuchStackSimply(int signal) { UseMuchStack(signal, nullptr, nullptr); }

// A store that faults once, with what a handler could spoil in use: vector and x87 registers, the rounding, the direction flag, the
// bytes below the stack pointer.
[[gnu::noinline]] bool StoreKeepsRegisters(std::byte* address) {
  struct {
    uint64_t in[4] = {0x1111, 0x2222, 0x3333, 0x4444}, out[4] = {};
    uint32_t control = 0x3f80, old_control = 0, seen_control = 0;  // rounds down
    uint64_t one = 0, below = 0, flags = 0, registers = 0;
  } all;
  asm volatile(
      "lea -512(%%rsp), %%rsp\n"
      "stmxcsr 68(%%rbx)\n ldmxcsr 64(%%rbx)\n fld1\n"
      "movdqu (%%rbx), %%xmm0\n movdqu 16(%%rbx), %%xmm15\n mov $77, %%r8\n mov $78, %%r11\n movq $79, -120(%%rsp)\n std\n"
      "movb $7, (%%rcx)\n"
      "mov -120(%%rsp), %%rax\n mov %%rax, 88(%%rbx)\n"
      "pushfq\n popq 96(%%rbx)\n cld\n"
      "lea (%%r8,%%r11), %%rax\n mov %%rax, 104(%%rbx)\n"
      "movdqu %%xmm0, 32(%%rbx)\n movdqu %%xmm15, 48(%%rbx)\n"
      "stmxcsr 72(%%rbx)\n ldmxcsr 68(%%rbx)\n fistpll 80(%%rbx)\n"
      "lea 512(%%rsp), %%rsp\n"
      :
      : "b"(&all), "c"(address)
      : "rax", "r8", "r11", "xmm0", "xmm15", "memory", "cc", "st");
  return std::memcmp(all.in, all.out, sizeof all.in) == 0 && all.seen_control == all.control && all.one == 1 && all.below == 79 &&
         (all.flags & 0x400) != 0 && all.registers == 77 + 78;
}

template <int Flags>
void RunsOnTheInterruptedStack() {
  struct sigaction action = {};
  action.sa_flags = Flags;
  if constexpr ((Flags & SA_SIGINFO) != 0) {
    action.sa_sigaction = UseMuchStack;
  } else {
    action.sa_handler = UseMuchStackSimply;
  }
  sigaddset(&action.sa_mask, SIGUSR1);
  Set(action);
  CHILD_CHECK(InstallFaultHandler().ok());
  std::thread([] {
    const AlternateStack stack(SmallestStack());
    g_stack = &stack;
    CHILD_CHECK(PrepareThread().ok());
    const int rounds = (Flags & static_cast<int>(SA_RESETHAND)) != 0 ? 1 : 20;
    for (int i = 1; i <= rounds; ++i) {
      const Pages pages(1, 1, Hole::kInaccessible);
      g_repair_page = pages.hole();
      CHILD_CHECK(StoreKeepsRegisters(pages.hole() + 8));
      CHILD_CHECK(g_calls == i && !g_on_alternate);
      CHILD_CHECK(sigismember(&g_mask, SIGUSR1) == 1);
      CHILD_CHECK(sigismember(&g_mask, SIGSEGV) == ((Flags & SA_NODEFER) != 0 ? 0 : 1));
      CHILD_CHECK((Flags & SA_SIGINFO) == 0 || (g_info.si_addr == pages.hole() + 8 && g_info.si_code == SEGV_ACCERR));
      CHILD_CHECK(g_rounding == 0x1f80 && g_tag == 0xffff);  // a fresh floating-point state, as from the kernel
      CHILD_CHECK(*pages.Behind(pages.hole() + 8) == std::byte{7});
      sigset_t mask;
      pthread_sigmask(SIG_SETMASK, nullptr, &mask);
      CHILD_CHECK(sigismember(&mask, SIGUSR1) == 0 && sigismember(&mask, SIGSEGV) == 0);
      CHILD_CHECK(StillRecovers());
      if (rounds > 1) {
        g_repair_page = nullptr;
        CHILD_CHECK(pthread_kill(pthread_self(), SIGSEGV) == 0 && g_calls == i + 1 && !g_on_alternate);
        g_calls = i;
      }
    }
    stack_t still;
    CHILD_CHECK(sigaltstack(nullptr, &still) == 0 && still.ss_sp == stack.begin && still.ss_flags == 0);
  }).join();
}

void JumpsAwayFromTheInterruptedStack() {
  Set(Action(UseMuchStack));
  CHILD_CHECK(InstallFaultHandler().ok());
  std::thread([] {
    const AlternateStack stack(SmallestStack());
    g_stack = &stack;
    g_jump = true;
    const Pages pages(1, 1, Hole::kInaccessible);
    for (int i = 1; i <= 20; ++i) {
      if (sigsetjmp(g_escape, 1) == 0) {
        WildStore(pages.hole());
        _exit(7);
      }
      CHILD_CHECK(g_calls == i && !g_on_alternate && StillRecovers());
    }
  }).join();
}

void OnTheAlternateStackWhereItWantsThat() {
  Set(Action(UseMuchStack, SA_ONSTACK));
  CHILD_CHECK(InstallFaultHandler().ok());
  std::thread([] {
    auto* const base = static_cast<std::byte*>(mmap(nullptr, 64 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    AlternateStack stack(SmallestStack());
    stack.begin = base;
    stack.size = 64 * kPage;
    const stack_t large = {base, 0, 64 * kPage};
    CHILD_CHECK(sigaltstack(&large, nullptr) == 0);
    g_stack = &stack;
    const Pages pages(1, 1, Hole::kInaccessible);
    g_repair_page = pages.hole();
    WildStore(pages.hole());
    CHILD_CHECK(g_calls == 1 && g_on_alternate);
  }).join();
}

void AnOverflowedStackTakesNoHandler() {
  Set(Action(UseMuchStack));
  CHILD_CHECK(InstallFaultHandler().ok());
  const AlternateStack stack(8 * SmallestStack());  // room for a second fault inside the handler
  g_stack = &stack;
  const Pages pages(1, 1, Hole::kInaccessible);
  Say("now:");
  asm volatile("mov %0, %%rsp\n push %%rax" : : "r"(pages.hole() + 8) : "memory");
  Say("survived");
}

struct Mode {
  const char* name;
  int killed_by;  // 0: exits
  void (*run)();
};
constexpr Mode kModes[] = {
    {"InstallsAgainOverWhoTookOver", 0, InstallsAgainOverWhoTookOver},
    {"CreateLeavesWhoTookOver", 0, CreateLeavesWhoTookOver},
    {"WhoCallsWhatItFoundIsAskedOnce", 0, WhoCallsWhatItFoundIsAskedOnce},
    {"TakingTurnsIsNoLoopAndUsesNothingUp", 0, TakingTurnsIsNoLoop},
    {"TwoTakeTurns", 0, TwoTakeTurns},
    {"WhoPutsBackWhatItFoundIsAskedOnce", 0, WhoPutsBackWhatItFoundIsAskedOnce<true>},
    {"WhoPutsBackWhatItFoundDiesByDefault", SIGSEGV, WhoPutsBackWhatItFoundIsAskedOnce<false>},
    {"WhoJumpsAwayIsAskedEachTime", 0, WhoJumpsAwayIsAskedEachTime},
    {"AOneShotHandlerInstalledAgainIsCalledAgain", 0, OneShotCanBeHadAgain},
    {"ASimpleHandlerRunsOnTheInterruptedStack", 0, RunsOnTheInterruptedStack<0>},
    {"AnInfoHandlerRunsOnTheInterruptedStack", 0, RunsOnTheInterruptedStack<SA_SIGINFO>},
    {"ANoDeferHandlerRunsOnTheInterruptedStack", 0, RunsOnTheInterruptedStack<SA_NODEFER>},
    {"ANoDeferInfoHandlerRunsOnTheInterruptedStack", 0, RunsOnTheInterruptedStack<(SA_SIGINFO | SA_NODEFER | SA_RESTART)>},
    {"AOneShotHandlerRunsOnTheInterruptedStack", 0, RunsOnTheInterruptedStack<(SA_SIGINFO | static_cast<int>(SA_RESETHAND))>},
    {"AHandlerJumpsAwayFromTheInterruptedStack", 0, JumpsAwayFromTheInterruptedStack},
    {"AHandlerThatWantsTheAlternateStackRunsThere", 0, OnTheAlternateStackWhereItWantsThat},
    {"AnOverflowedStackTakesNoHandler", SIGSEGV, AnOverflowedStackTakesNoHandler},
};
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

class HandlerAgain : public testing::TestWithParam<Mode> {};

TEST_P(HandlerAgain, HoldsInAProcessOfItsOwn) {
  const test::ChildResult child = test::RunMode(GetParam().name);
  if (GetParam().killed_by == 0) {
    EXPECT_TRUE(child.Exited(0)) << child;
  } else {
    EXPECT_TRUE(child.Killed(GetParam().killed_by) && child.Says("now:") && !child.Says("survived")) << child;
  }
}
INSTANTIATE_TEST_SUITE_P(Claims, HandlerAgain, testing::ValuesIn(kModes),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace guestmem

int main(int argc, char** argv) {
  std::vector<guestmem::test::ChildMode> modes;
  for (const guestmem::Mode& mode : guestmem::kModes) {
    modes.push_back({mode.name, mode.run});
  }
  return guestmem::test::TestMain(argc, argv, modes);
}
