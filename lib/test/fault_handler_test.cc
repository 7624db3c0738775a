// Installing, reading back, owning and chaining the fault handler. What is installed is a matter of the whole process,
// so each claim about it is a child process; claims about crashes alone are in wild_crash_test.cc.

#include <gtest/gtest.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "child.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::Hole;
using test::kPage;
using test::Pages;
using test::RunMode;
using test::Say;

using SimpleHandler = void (*)(int);
using InfoHandler = void (*)(int, siginfo_t*, void*);

struct sigaction Action(SimpleHandler handler, int flags = 0) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  return action;
}
struct sigaction Action(InfoHandler handler, int flags = 0) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  return action;
}
void Set(int signal, const struct sigaction& action) { CHILD_CHECK(sigaction(signal, &action, nullptr) == 0); }

bool SameMask(const sigset_t& a, const sigset_t& b) {
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&a, signal) != sigismember(&b, signal)) {
      return false;
    }
  }
  return true;
}
sigset_t CurrentMask() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

// What the handlers below saw and do.
std::atomic<int> g_calls;
int g_signal;
siginfo_t g_info;
bool g_context_is_the_faults;
sigset_t g_mask_inside;
std::byte* g_repair;             // a page to make accessible, so that the access goes on
const std::byte* g_instruction;  // where the fault must have happened

void Note(int signal) {
  ++g_calls;
  g_signal = signal;
  g_mask_inside = CurrentMask();
  if (g_repair != nullptr) {
    mprotect(g_repair, kPage, PROT_READ | PROT_WRITE);
  }
}
void NoteInfo(int signal, siginfo_t* info, void* context) {
  g_info = *info;
  const greg_t instruction = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  g_context_is_the_faults = reinterpret_cast<const std::byte*>(instruction) == g_instruction;
  Note(signal);
}

// One store by an instruction whose address is known and in no table.
[[gnu::noinline]] void WildStore(std::byte* address) {
  asm volatile(
      "lea 1f(%%rip), %%rax\n mov %%rax, %0\n"
      "1: movb $7, (%1)"
      : "=m"(g_instruction)
      : "r"(address)
      : "rax", "memory");
}

bool StillRecovers() {
  const Pages pages(1, 1, Hole::kInaccessible);
  uint64_t value = 0;
  const uint64_t before = RecoveredFaults();
  return TryRead(pages.hole(), value).has_value() && RecoveredFaults() == before + 1;
}

// --- installing ---

void InstallIsIdempotent() {
  Set(SIGSEGV, Action(Note));
  CHILD_CHECK(!FaultHandlerIsInstalled());
  for (int i = 0; i < 3; ++i) {
    CHILD_CHECK(InstallFaultHandler().ok());
    CHILD_CHECK(FaultHandlerIsInstalled());
  }
  // Had a later call taken our own handler for the previous one, this would never end.
  const Pages pages(1, 1, Hole::kInaccessible);
  g_repair = pages.hole();
  WildStore(pages.hole());
  CHILD_CHECK(g_calls == 1 && StillRecovers() && g_calls == 1);
}

void ReadBackSeesWhatIsInForce() {
  CHILD_CHECK(InstallFaultHandler().ok());
  for (const int signal : {SIGSEGV, SIGBUS}) {
    struct sigaction ours;
    CHILD_CHECK(sigaction(signal, nullptr, &ours) == 0);
    CHILD_CHECK((ours.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_NODEFER)) == (SA_SIGINFO | SA_ONSTACK | SA_NODEFER));
    Set(signal, Action(Note));
    CHILD_CHECK(!FaultHandlerIsInstalled());
    Set(signal, ours);
    CHILD_CHECK(FaultHandlerIsInstalled());
  }
}

void CreateInstalls() {
  CHILD_CHECK(!FaultHandlerIsInstalled());
  CHILD_CHECK(GuestMemory::Allocate(kPage).ok());
  CHILD_CHECK(FaultHandlerIsInstalled());
}

// --- a program that owns its handlers ---

int g_recovered;
int g_refused;

void OwnHandler(int signal, siginfo_t* info, void* context) {
  auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  gregset_t before;
  std::memcpy(&before, registers, sizeof before);
  if (TryHandleFault(signal, info, context)) {
    ++g_recovered;
    return;
  }
  ++g_refused;
  if (std::memcmp(&before, registers, sizeof before) != 0) {
    _exit(7);  // not ours, and yet changed
  }
  if (g_repair != nullptr) {
    mprotect(g_repair, kPage, PROT_READ | PROT_WRITE);
  }
}

// As the kernel reports memory that has gone bad: at the start of its page.
void PoisonHandler(int signal, siginfo_t* info, void* context) {
  info->si_code = BUS_MCEERR_AR;
  info->si_addr = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(info->si_addr) & ~uintptr_t{kPage - 1});
  CHILD_CHECK(TryHandleFault(signal, info, context));
  ++g_recovered;
}

void MachineCheckBelowTheAccessIsRecovered() {
  Set(SIGBUS, Action(PoisonHandler));
  const Pages pages(1, 2, Hole::kTruncated);
  for (const size_t page : {0, 1}) {  // of an even and of an odd number
    uint64_t value = 0;
    CHILD_CHECK(TryRead(pages.hole() + page * kPage + 8, value).has_value());
  }
  CHILD_CHECK(g_recovered == 2);
}

// The same fault, told as what is none: sent, of another sort, or memory that went bad elsewhere.
void DisguisingHandler(int signal, siginfo_t* info, void* context) {
  auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const greg_t instruction = registers[REG_RIP];
  const int code = info->si_code;
  std::vector<int> others = {SI_USER, SI_QUEUE, SI_TKILL, SI_KERNEL};
  if (signal == SIGBUS) {
    others.insert(others.end(), {BUS_ADRALN, BUS_OBJERR, BUS_MCEERR_AO});
  } else {
    others.push_back(SEGV_BNDERR);
  }
  for (const int other : others) {
    info->si_code = other;
    CHILD_CHECK(!TryHandleFault(signal, info, context) && registers[REG_RIP] == instruction);
  }
  info->si_code = code;
  CHILD_CHECK(TryHandleFault(signal, info, context) && registers[REG_RIP] != instruction);
  ++g_recovered;
}

void OnlyAddressFaultsAreRecovered() {
  Set(SIGSEGV, Action(DisguisingHandler));
  Set(SIGBUS, Action(DisguisingHandler));
  for (const Hole hole : {Hole::kTruncated, Hole::kInaccessible}) {
    const Pages pages(1, 1, hole);
    uint64_t value = 0;
    CHILD_CHECK(TryRead(pages.hole(), value).has_value());
  }
  CHILD_CHECK(g_recovered == 2);
}

void OwnHandlerRecovers() {
  Set(SIGSEGV, Action(OwnHandler));
  Set(SIGBUS, Action(OwnHandler));
  auto ram = SparseMapping::Create(2 * kPage).value();
  CHILD_CHECK(ram->Allocate(0, kPage).ok());
  CreateOptions options;
  options.install_fault_handler = false;
  const GuestMemory memory = GuestMemory::Create("ram", ram, options).value();
  const GuestMemory regions = GuestMemory::CreateMultiRegion("ram", 2 * kPage, {ram}, options).value();
  CHILD_CHECK(!FaultHandlerIsInstalled());

  std::byte host[64];
  const Status status = memory.ReadAt(kPage - 10, host);
  CHILD_CHECK(!status.ok() && status.kind() == ErrorKind::kNotMapped && status.info().transferred == 10);
  CHILD_CHECK(!regions.ReadPlain<uint32_t>(kPage).ok());
  const Pages pages(1, 1, Hole::kTruncated);
  CHILD_CHECK(TryFill(pages.hole() - 5, std::byte{1}, 10).has_value());
  CHILD_CHECK(g_recovered == 3 && g_refused == 0 && RecoveredFaults() == 3);

  const Pages others(1, 1, Hole::kInaccessible);
  g_repair = others.hole();
  WildStore(others.hole());
  CHILD_CHECK(g_recovered == 3 && g_refused == 1 && RecoveredFaults() == 3);
  g_repair = nullptr;
  CHILD_CHECK(raise(SIGSEGV) == 0);  // sent, not raised by a fault
  CHILD_CHECK(g_recovered == 3 && g_refused == 2);
}

// --- tables of objects whose destructors have run ---

// An "object" of its own: a load that may fault, with an entry whose landing returns true.
struct CodePage {
  CodePage() {
    void* const page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHILD_CHECK(page != MAP_FAILED);
    code = static_cast<unsigned char*>(page) + 128;  // UBSan looks at what stands before a function
    const unsigned char load[] = {0x8b, 0x07, 0x31, 0xc0, 0xc3};             // mov (%rdi),%eax; xor %eax,%eax; ret
    const unsigned char landing[] = {0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3};  // mov $1,%eax; ret
    std::memcpy(code, load, sizeof load);
    std::memcpy(code + 32, landing, sizeof landing);
    auto* const entry = reinterpret_cast<detail::TrapEntry*>(code + 64);
    *entry = {-64, 2 - 68, 32 - 72, 4 << detail::kTrapSizeShift | detail::kTrapRead};
    table = new detail::TrapTable(entry, entry + 1);
  }
  // Safe because of what the constructor wrote there.
  bool Load(const void* from) const { return reinterpret_cast<int (*)(const void*)>(code)(from) != 0; }

  unsigned char* code;
  detail::TrapTable* table;
};

void ClosedTableRecoversItsOwnCode() {
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  const CodePage page;
  CHILD_CHECK(page.Load(pages.hole()) && !page.Load(pages.begin()));
  page.table->Close();
  CHILD_CHECK(page.Load(pages.hole()));  // the process ends, and this thread still runs
}

void ClosedTableIsNotBelievedAboutOtherCode() {
  Set(SIGSEGV, Action(SIG_DFL));
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  const CodePage page;
  CHILD_CHECK(page.Load(pages.hole()));
  page.table->Close();
  page.code[0] = 0x8a;  // mov (%rdi),%al: another object's, where the first was
  Say("now:");
  page.Load(pages.hole());
  Say("survived");
}

// --- chaining ---

void ChainsWithInfo() {
  Set(SIGSEGV, Action(NoteInfo));
  Set(SIGBUS, Action(NoteInfo));
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  g_repair = pages.hole();
  WildStore(pages.hole() + 24);
  CHILD_CHECK(g_calls == 1 && g_signal == SIGSEGV && g_info.si_code == SEGV_ACCERR);
  CHILD_CHECK(g_info.si_addr == pages.hole() + 24 && g_context_is_the_faults);
  CHILD_CHECK(*pages.Behind(pages.hole() + 24) == std::byte{7});  // and the store went on where it was
  CHILD_CHECK(StillRecovers() && g_calls == 1);
}

sigjmp_buf g_escape;
void Escape(int signal) {
  Note(signal);
  siglongjmp(g_escape, 1);
}

void ChainsToAHandlerThatJumpsAway() {
  Set(SIGBUS, Action(Escape));
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kTruncated);
  const sigset_t mask = CurrentMask();
  for (int i = 0; i < 3; ++i) {
    if (sigsetjmp(g_escape, 1) == 0) {
      WildStore(pages.hole());
      _exit(7);  // the store cannot have worked
    }
  }
  const sigset_t after = CurrentMask();
  CHILD_CHECK(g_calls == 3 && g_signal == SIGBUS && SameMask(mask, after) && StillRecovers());
}

template <bool NoDefer, bool WithInfo>
void ChainsWithItsMask() {
  struct sigaction action =
      WithInfo ? Action(NoteInfo, NoDefer ? SA_NODEFER : 0) : Action(Note, NoDefer ? SA_NODEFER : 0);
  sigaddset(&action.sa_mask, SIGUSR1);
  Set(SIGSEGV, action);
  CHILD_CHECK(InstallFaultHandler().ok());
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  const sigset_t before = CurrentMask();

  const Pages pages(1, 1, Hole::kInaccessible);
  g_repair = pages.hole();
  WildStore(pages.hole());
  CHILD_CHECK(g_calls == 1 && g_signal == SIGSEGV);
  CHILD_CHECK(sigismember(&g_mask_inside, SIGUSR1) == 1);  // sa_mask
  CHILD_CHECK(sigismember(&g_mask_inside, SIGUSR2) == 1);  // the thread's own
  CHILD_CHECK(sigismember(&g_mask_inside, SIGSEGV) == (NoDefer ? 0 : 1));
  CHILD_CHECK(sigismember(&g_mask_inside, SIGBUS) == 0);
  const sigset_t after = CurrentMask();
  CHILD_CHECK(SameMask(before, after));
}

template <bool WithInfo>
void OneShotHandler() {
  const int flags = static_cast<int>(SA_RESETHAND);
  Set(SIGSEGV, WithInfo ? Action(NoteInfo, flags) : Action(Note, flags));
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 2, Hole::kInaccessible);
  g_repair = pages.hole();
  WildStore(pages.hole());
  CHILD_CHECK(g_calls == 1 && FaultHandlerIsInstalled() && StillRecovers());  // ours is not what is used up
  Say("now:");
  WildStore(pages.hole() + kPage);  // its second: the default action
  Say("survived");
}

// --- sent signals ---

SimpleHandler g_default = SIG_DFL, g_ignore = SIG_IGN;

void SentSignalsReachThePreviousHandler() {
  Set(SIGSEGV, Action(NoteInfo));
  Set(SIGBUS, Action(NoteInfo));
  CHILD_CHECK(InstallFaultHandler().ok());
  CHILD_CHECK(kill(getpid(), SIGSEGV) == 0);
  CHILD_CHECK(g_calls == 1 && g_signal == SIGSEGV && g_info.si_code == SI_USER && g_info.si_pid == getpid());
  CHILD_CHECK(pthread_kill(pthread_self(), SIGBUS) == 0);
  CHILD_CHECK(g_calls == 2 && g_signal == SIGBUS && g_info.si_code == SI_TKILL);
  CHILD_CHECK(StillRecovers() && g_calls == 2 && FaultHandlerIsInstalled());
}

template <int Signal, bool ToThread>
void SentSignalKillsByDefault() {
  Set(Signal, Action(SIG_DFL));
  CHILD_CHECK(InstallFaultHandler().ok() && StillRecovers());
  Say("now:");
  ToThread ? pthread_kill(pthread_self(), Signal) : kill(getpid(), Signal);
  Say("survived");
}

// A machine check that nobody ran into: the kernel tells early that memory has gone bad somewhere.
template <SimpleHandler* Previous>
void MachineCheckElsewhere() {
  Set(SIGBUS, Action(*Previous));
  CHILD_CHECK(InstallFaultHandler().ok());
  siginfo_t info = {};
  info.si_signo = SIGBUS;
  info.si_code = BUS_MCEERR_AO;
  Say("now:");
  CHILD_CHECK(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info) == 0);
  Say("survived");
  CHILD_CHECK(FaultHandlerIsInstalled() && StillRecovers());
}

template <bool Restarts>
void SystemCallsRestartAsBefore() {
  Set(SIGSEGV, Action(Note, Restarts ? SA_RESTART : 0));
  CHILD_CHECK(InstallFaultHandler().ok());
  int ends[2];
  CHILD_CHECK(pipe(ends) == 0);
  const pthread_t reader = pthread_self();
  std::thread other([&] {
    while (g_calls == 0) {  // until one came while the reader slept
      usleep(20'000);
      pthread_kill(reader, SIGSEGV);
    }
    usleep(20'000);
    CHILD_CHECK(write(ends[1], "x", 1) == 1);
  });
  usleep(1'000);
  char byte;
  const ssize_t got = read(ends[0], &byte, 1);
  CHILD_CHECK(Restarts ? got == 1 : got == -1 && errno == EINTR);
  other.join();
}

void SentSignalIsIgnored() {
  Set(SIGSEGV, Action(SIG_IGN));
  CHILD_CHECK(InstallFaultHandler().ok());
  CHILD_CHECK(kill(getpid(), SIGSEGV) == 0 && pthread_kill(pthread_self(), SIGSEGV) == 0);
  CHILD_CHECK(FaultHandlerIsInstalled() && StillRecovers());
}

template <SimpleHandler* Previous>
void WildStoreKills() {
  Set(SIGSEGV, Action(*Previous));
  CHILD_CHECK(InstallFaultHandler().ok() && StillRecovers());
  const Pages pages(1, 1, Hole::kInaccessible);
  Say("now:");
  WildStore(pages.hole());
  Say("survived");
}

// Runs after everything that was registered with atexit, the recovery tables' removal included.
std::atomic<bool> g_faulting_until_the_end{false};
[[gnu::destructor]] void TheEnd() {
  const uint64_t before = RecoveredFaults();
  while (g_faulting_until_the_end && RecoveredFaults() < before + 100) {
  }
}

void RecoversUntilTheEnd() {
  CHILD_CHECK(InstallFaultHandler().ok());
  static const Pages pages(1, 1, Hole::kInaccessible);
  std::thread([] {
    for (char value;;) {
      if (TryRead(reinterpret_cast<const char*>(pages.hole()), value).has_value()) {
        g_faulting_until_the_end = true;
      }
    }
  }).detach();
  while (!g_faulting_until_the_end) {
  }
  exit(0);
}

struct Mode {
  const char* name;
  int killed_by;  // 0: exits
};
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

class FaultHandler : public testing::TestWithParam<Mode> {};

TEST_P(FaultHandler, HoldsInAProcessOfItsOwn) {
  const test::ChildResult child = RunMode(GetParam().name);
  if (GetParam().killed_by == 0) {
    EXPECT_TRUE(child.Exited(0)) << child;
  } else {
    // By the signal in sanitizer builds too: the previous action was set, so no sanitizer's handler is behind ours.
    EXPECT_TRUE(child.Killed(GetParam().killed_by) && child.Says("now:") && !child.Says("survived")) << child;
  }
}

struct NamedMode {
  const char* name;
  int killed_by;
  void (*run)();
};
constexpr NamedMode kModes[] = {
    {"InstallIsIdempotent", 0, InstallIsIdempotent},
    {"ReadBackSeesWhatIsInForce", 0, ReadBackSeesWhatIsInForce},
    {"CreateInstalls", 0, CreateInstalls},
    {"AProgramsOwnHandlerRecoversAndRefuses", 0, OwnHandlerRecovers},
    {"AMachineCheckBelowTheAccessIsRecovered", 0, MachineCheckBelowTheAccessIsRecovered},
    {"OnlyAddressFaultsAreRecovered", 0, OnlyAddressFaultsAreRecovered},
    {"AClosedTableRecoversItsOwnCode", 0, ClosedTableRecoversItsOwnCode},
    {"AClosedTableIsNotBelievedAboutOtherCode", SIGSEGV, ClosedTableIsNotBelievedAboutOtherCode},
    {"D19_ChainsWithAddressAndContext", 0, ChainsWithInfo},
    {"ChainsToAHandlerThatJumpsAway", 0, ChainsToAHandlerThatJumpsAway},
    {"ChainsWithTheMaskOfASimpleHandler", 0, ChainsWithItsMask<false, false>},
    {"ChainsWithTheMaskOfAnInfoHandler", 0, ChainsWithItsMask<false, true>},
    {"ChainsWithNoDeferToASimpleHandler", 0, ChainsWithItsMask<true, false>},
    {"ChainsWithNoDeferToAnInfoHandler", 0, ChainsWithItsMask<true, true>},
    {"AOneShotSimpleHandlerIsCalledOnce", SIGSEGV, OneShotHandler<false>},
    {"AOneShotInfoHandlerIsCalledOnce", SIGSEGV, OneShotHandler<true>},
    {"SentSignalsReachThePreviousHandler", 0, SentSignalsReachThePreviousHandler},
    {"ASegvSentToTheProcessKillsByDefault", SIGSEGV, SentSignalKillsByDefault<SIGSEGV, false>},
    {"ASegvSentToTheThreadKillsByDefault", SIGSEGV, SentSignalKillsByDefault<SIGSEGV, true>},
    {"ABusSentToTheProcessKillsByDefault", SIGBUS, SentSignalKillsByDefault<SIGBUS, false>},
    {"AMachineCheckElsewhereKillsByDefault", SIGBUS, MachineCheckElsewhere<&g_default>},
    {"AMachineCheckElsewhereIsIgnoredWhereItWas", 0, MachineCheckElsewhere<&g_ignore>},
    {"SystemCallsRestartWhereTheyDid", 0, SystemCallsRestartAsBefore<true>},
    {"SystemCallsAreInterruptedWhereTheyWere", 0, SystemCallsRestartAsBefore<false>},
    {"FaultsAreRecoveredUntilTheProcessEnds", 0, RecoversUntilTheEnd},
    {"SentSignalsAreIgnoredWhereTheyWere", 0, SentSignalIsIgnored},
    {"D19_AWildStoreKillsByDefault", SIGSEGV, WildStoreKills<&g_default>},
    {"AWildStoreKillsWhereTheSignalWasIgnored", SIGSEGV, WildStoreKills<&g_ignore>},
};

std::vector<Mode> Modes() {
  std::vector<Mode> modes;
  for (const NamedMode& mode : kModes) {
    modes.push_back({mode.name, mode.killed_by});
  }
  return modes;
}

INSTANTIATE_TEST_SUITE_P(Claims, FaultHandler, testing::ValuesIn(Modes()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace guestmem

int main(int argc, char** argv) {
  std::vector<guestmem::test::ChildMode> modes;
  for (const guestmem::NamedMode& mode : guestmem::kModes) {
    modes.push_back({mode.name, mode.run});
  }
  return guestmem::test::TestMain(argc, argv, modes);
}
