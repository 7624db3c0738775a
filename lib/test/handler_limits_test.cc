// What the fault handler needs, and what a thread must be like (fault.h): its stack, its system calls, errno, signals not blocked;
// and memory errors (BUS_MCEERR_AR), which no machine raises for a test: their frames are made from real faults' frames.

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "child.h"
#include "guestmem/access_bitmap.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "guestmem/sparse_mapping.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::Hole;
using test::kPage;
using test::Pages;
using test::Say;

size_t KernelFrameBytes() { return std::max<size_t>(getauxval(AT_MINSIGSTKSZ), 2048); }

// Pages with an inaccessible one below them, as an alternate stack of `size` bytes at their start.
std::byte* NewStack(size_t size) {
  auto* const base =
      static_cast<std::byte*>(mmap(nullptr, 33 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHILD_CHECK(base != MAP_FAILED && mprotect(base, kPage, PROT_NONE) == 0);
  const stack_t stack = {base + kPage, 0, size};
  CHILD_CHECK(sigaltstack(&stack, nullptr) == 0);
  return base + kPage;
}

bool RecoversBoth() {
  for (const Hole hole : {Hole::kInaccessible, Hole::kTruncated}) {
    const Pages pages(1, 1, hole);
    uint64_t value = 0;
    std::byte bytes[300];
    if (!TryRead(pages.hole(), value) || !TryCopy(GuestSide::kSource, bytes, pages.hole() - 100, sizeof bytes)) {
      return false;
    }
  }
  return true;
}

// --- stack ---

void SmallestAlternateStack() {
  CHILD_CHECK(InstallFaultHandler().ok());
  NewStack(KernelFrameBytes() + kFaultHandlerStackBytes);
  CHILD_CHECK(PrepareThread().ok() && RecoversBoth());
}

void TooSmallAStackIsTold() {
  NewStack(KernelFrameBytes() + kFaultHandlerStackBytes - 1);
  const Status status = PrepareThread();
  CHILD_CHECK(status.kind() == ErrorKind::kInvalidArgument);
  CHILD_CHECK(status.ToString().find(std::to_string(KernelFrameBytes() + kFaultHandlerStackBytes - 1)) != std::string::npos);
}

const char* g_frame_end;  // the lowest byte of the kernel's frame
void NoteFrame(int, siginfo_t*, void* context) { g_frame_end = static_cast<const char*>(context) - sizeof(void*); }
[[gnu::naked]] void Nothing(int, siginfo_t*, void*) { asm("ret"); }

// How far below the kernel's frame the stack was written, in a fault that is recovered and in a signal that is passed on.
size_t StackUsed(bool passed_on) {
  constexpr size_t kSize = 32 * kPage;
  std::byte* const stack = NewStack(kSize);
  struct sigaction action = {};
  action.sa_sigaction = NoteFrame;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  CHILD_CHECK(sigaction(SIGUSR1, &action, nullptr) == 0 && raise(SIGUSR1) == 0);
  std::memset(stack, 0xa5, kSize);
  const Pages pages(1, 1, Hole::kInaccessible);
  uint64_t value = 0;
  CHILD_CHECK(passed_on ? raise(SIGSEGV) == 0 : TryRead(pages.hole(), value).has_value());
  size_t untouched = 0;
  while (stack[untouched] == std::byte{0xa5}) {
    ++untouched;
  }
  return static_cast<size_t>(g_frame_end - reinterpret_cast<const char*>(stack)) - untouched;
}
void StackNeedIsAsStated() {
  struct sigaction action = {};
  action.sa_sigaction = Nothing;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  CHILD_CHECK(sigaction(SIGSEGV, &action, nullptr) == 0 && InstallFaultHandler().ok());
  StackUsed(true);  // binds what is bound on first use: raise's, not ours
  const size_t recovered = StackUsed(false), passed_on = StackUsed(true);
  std::printf("%zu bytes for a recovered fault, %zu for one passed on, %zu stated\n", recovered, passed_on,
              kFaultHandlerStackBytes);
  CHILD_CHECK(recovered > 0 && recovered <= kFaultHandlerStackBytes);
  CHILD_CHECK(passed_on > 0 && passed_on <= kFaultHandlerStackBytes);
}

// --- blocked signals ---

void BlockAll() {
  sigset_t all;
  sigfillset(&all);
  CHILD_CHECK(pthread_sigmask(SIG_SETMASK, &all, nullptr) == 0);
}
void APreparedThreadRecovers() {
  CHILD_CHECK(InstallFaultHandler().ok());
  BlockAll();  // a new thread has its creator's mask
  std::thread([] {
    CHILD_CHECK(PrepareThread().ok());
    CHILD_CHECK(RecoversBoth());
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    for (int signal = 1; signal < 32; ++signal) {  // the C library keeps 32 and 33
      const bool never = signal == SIGKILL || signal == SIGSTOP;
      CHILD_CHECK(sigismember(&mask, signal) == (signal == SIGSEGV || signal == SIGBUS || never ? 0 : 1));
    }
  }).join();
}
void ABlockedThreadDies() {
  CHILD_CHECK(InstallFaultHandler().ok());
  BlockAll();
  Say("now:");
  RecoversBoth();
  Say("survived");
}

// --- errno ---

void SetErrno(int, siginfo_t*, void*) { errno = ERANGE; }
void ErrnoIsKept() {
  struct sigaction action = {};
  action.sa_sigaction = SetErrno;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  CHILD_CHECK(sigaction(SIGSEGV, &action, nullptr) == 0 && InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  uint64_t value = 0;
  errno = EDOM;
  CHILD_CHECK(TryRead(pages.hole(), value).has_value() && errno == EDOM);
  CHILD_CHECK(raise(SIGSEGV) == 0 && errno == EDOM);
}

// --- system calls ---

// The names that fault.h lists behind `what`, as numbers.
std::vector<int> Listed(const std::vector<std::string>& headings) {
  static const std::pair<const char*, int> kNames[] = {
      {"rt_sigreturn", SYS_rt_sigreturn}, {"membarrier", SYS_membarrier}, {"futex", SYS_futex},
      {"sched_yield", SYS_sched_yield}, {"clock_nanosleep", SYS_clock_nanosleep}, {"brk", SYS_brk}, {"mmap", SYS_mmap},
      {"munmap", SYS_munmap}, {"mprotect", SYS_mprotect}, {"madvise", SYS_madvise}, {"rt_sigprocmask", SYS_rt_sigprocmask},
      {"rt_sigaction", SYS_rt_sigaction}, {"getpid", SYS_getpid}, {"gettid", SYS_gettid}, {"tgkill", SYS_tgkill},
      {"sigaltstack", SYS_sigaltstack}};
  std::FILE* const file = std::fopen(GUESTMEM_FAULT_H, "r");
  CHILD_CHECK(file != nullptr);
  std::string text(64 << 10, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  std::vector<int> numbers;
  for (const std::string& heading : headings) {
    size_t at = text.find("//   " + heading);
    CHILD_CHECK(at != std::string::npos);
    // To the next heading or the list's end.
    do {
      const size_t end = text.find('\n', at);
      const std::string line = text.substr(at, end - at) + " ";
      for (const auto& [name, number] : kNames) {
        for (const char* after : {",", ";", " ", "."}) {
          if (line.find(std::string(" ") + name + after) != std::string::npos) {
            numbers.push_back(number);
          }
        }
      }
      at = end + 1;
    } while (heading.starts_with("accesses") && text.compare(at, 8, "//   whe") == 0);
  }
  return numbers;
}

// From here on this thread ends the process with SIGSYS if it makes another system call.
void AllowOnly(std::vector<int> numbers) {
  numbers.push_back(SYS_write);
  numbers.push_back(SYS_exit_group);
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offsetof(seccomp_data, nr)))};
  for (const int number : numbers) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  CHILD_CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHILD_CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

void UseOthersToo(const GuestMemory& memory, uint64_t missing) {
  std::byte bytes[200] = {};
  for (int i = 0; i < 100; ++i) {
    CHILD_CHECK(memory.ReadAt(0, bytes).ok() && memory.WriteAt(0, bytes).ok());
    CHILD_CHECK(memory.ReadAt(missing - 100, bytes).kind() == ErrorKind::kNotMapped);
    CHILD_CHECK(!memory.ReadPlain<uint32_t>(missing).ok() && !memory.ReadAt(missing, bytes).ToString().empty());
    Rcu::Synchronize();
  }
}

void AccessesMakeTheListedSystemCalls() {
  auto ram = SparseMapping::Create(4 * kPage).value();
  CHILD_CHECK(ram->Allocate(0, kPage).ok());
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  const auto allowed = Listed({"accesses, recovered faults"});
  CHILD_CHECK(allowed.size() == 10);
  static std::atomic<bool> held = false, release = false;
  std::thread reader([] {  // so that a grace period waits
    const Rcu::Section section;
    held = true;
    while (!release) {
      std::this_thread::yield();
    }
  });
  while (!held) {
    std::this_thread::yield();
  }
  std::thread([&] {
    AllowOnly(allowed);
    release = true;
    UseOthersToo(memory, kPage);
    _exit(0);  // a thread's end is the C library's affair
  }).join();
}

int g_sent;
void CountSent(int, siginfo_t*, void*) { ++g_sent; }
void PassingOnMakesTheListedSystemCalls() {
  struct sigaction action = {};
  action.sa_sigaction = CountSent;
  action.sa_flags = SA_SIGINFO;
  CHILD_CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
  CHILD_CHECK(InstallFaultHandler().ok());
  std::vector<int> allowed = Listed({"a fault that is passed on:", "accesses, recovered faults", "PrepareThread:"});
  const int self = getpid(), thread = gettid();
  AllowOnly(allowed);
  CHILD_CHECK(PrepareThread().ok());
  CHILD_CHECK(syscall(SYS_tgkill, self, thread, SIGBUS) == 0 && g_sent == 1);
  Say("now:");
  syscall(SYS_tgkill, self, thread, SIGSEGV);  // by default: put back and raised again
  Say("survived");
}
void AnotherSystemCallEndsIt() {  // or the two above prove nothing
  AllowOnly(Listed({"accesses, recovered faults"}));
  Say("now:");
  (void)getppid();
  Say("survived");
}

// --- memory errors ---

int g_lsb;
uintptr_t g_lost;  // what the kernel would name
int g_told;
// The fault's frame, told as a memory error: with another fault's error code.
void TellMemoryError(int, siginfo_t* info, void* context) {
  auto* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const greg_t instruction = registers[REG_RIP];
  info->si_signo = SIGBUS;
  info->si_code = BUS_MCEERR_AR;
  info->si_addr_lsb = static_cast<short>(g_lsb);
  for (const greg_t stale : {greg_t{0}, greg_t{2}, greg_t{4}, greg_t{6}, greg_t{0x14}}) {
    registers[REG_ERR] = stale;
    registers[REG_TRAPNO] = 14;
    // Memory lost elsewhere is not this access's.
    for (const uintptr_t elsewhere : {g_lost - (uintptr_t{1} << g_lsb), g_lost + (uintptr_t{1} << g_lsb) * 2}) {
      info->si_addr = reinterpret_cast<void*>(elsewhere);
      CHILD_CHECK(!TryHandleFault(SIGBUS, info, context) && registers[REG_RIP] == instruction);
    }
  }
  static int turn = 0;
  registers[REG_ERR] = turn++ % 2 == 0 ? 2 : 0;
  info->si_addr = reinterpret_cast<void*>(g_lost);
  CHILD_CHECK(TryHandleFault(SIGBUS, info, context) && registers[REG_RIP] != instruction);
  ++g_told;
}

template <int Lsb>
void MemoryErrorsAreJudgedByAddress() {
  struct sigaction action = {};
  action.sa_sigaction = TellMemoryError;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  CHILD_CHECK(sigaction(SIGBUS, &action, nullptr) == 0 && sigaction(SIGSEGV, &action, nullptr) == 0);
  g_lsb = Lsb;
  constexpr uintptr_t kBlock = uintptr_t{1} << Lsb;
  constexpr size_t kGood = kBlock == kPage ? kPage : 64 * kPage;  // of the block, before what is lost
  auto* const base = static_cast<std::byte*>(mmap(nullptr, 3 * kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHILD_CHECK(base != MAP_FAILED);
  auto* const block = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(base) + kBlock - 1) & ~(kBlock - 1));
  std::byte* const hole = kBlock == kPage ? block : block + kGood;
  CHILD_CHECK(mprotect(hole, kPage, PROT_NONE) == 0);
  g_lost = reinterpret_cast<uintptr_t>(block);
  for (const size_t at : {0, 8, 2040}) {
    uint64_t value = 5;
    bool swapped = true;
    CHILD_CHECK(TryRead(hole + at, value).has_value() && value == 5);
    CHILD_CHECK(TryWrite(hole + at, value).has_value());
    CHILD_CHECK(TryCompareExchange(hole + at, value, uint64_t{6}, swapped).has_value());
  }
  // Copies that begin before what is lost: exactly what is below the fault address was moved.
  static std::byte host[16 * kPage];
  for (const size_t before : {size_t{0}, size_t{1}, size_t{100}, size_t{3000}, kBlock == kPage ? size_t{4000} : 10 * kPage}) {
    for (const size_t length : {before + 1, before + 64, before + 3000}) {
      if (kBlock == kPage && before > 0) {
        continue;  // the page below is another block
      }
      std::memset(hole - before, 0x11, before);
      std::memset(host, 0x22, sizeof host);
      const auto read = TryCopy(GuestSide::kSource, host, hole - before, length);
      CHILD_CHECK(read.has_value() && read->offset <= before && read->code == BUS_MCEERR_AR);
      CHILD_CHECK(read->address == reinterpret_cast<uintptr_t>(hole) - before + read->offset);
      for (size_t i = 0; i < length; ++i) {
        CHILD_CHECK(host[i] == (i < read->offset ? std::byte{0x11} : std::byte{0x22}));
      }
      const auto written = TryCopy(GuestSide::kDestination, hole - before, host, length);
      std::memset(host, 0x33, sizeof host);
      std::memset(hole - before, 0x11, before);
      const auto again = TryCopy(GuestSide::kDestination, hole - before, host, length);
      CHILD_CHECK(written.has_value() && again.has_value() && again->offset <= before);
      for (size_t i = 0; i < before; ++i) {
        CHILD_CHECK((hole - before)[i] == (i < again->offset ? std::byte{0x33} : std::byte{0x11}));
      }
      CHILD_CHECK(TryFill(hole - before, std::byte{0x44}, length).has_value());
    }
  }
  CHILD_CHECK(g_told >= 9);
}

struct Mode {
  const char* name;
  int killed_by;  // 0: exits
  void (*run)();
};
constexpr Mode kModes[] = {
    {"TheSmallestAlternateStackIsEnough", 0, SmallestAlternateStack},
    {"PrepareThreadTellsOfAStackThatIsTooSmall", 0, TooSmallAStackIsTold},
    {"TheStackNeedIsAsStated", 0, StackNeedIsAsStated},
    {"APreparedThreadRecovers", 0, APreparedThreadRecovers},
    {"AThreadThatBlocksFaultsDies", SIGSEGV, ABlockedThreadDies},
    {"ErrnoIsKept", 0, ErrnoIsKept},
    {"AccessesMakeTheListedSystemCalls", 0, AccessesMakeTheListedSystemCalls},
    {"PassingOnMakesTheListedSystemCalls", SIGSEGV, PassingOnMakesTheListedSystemCalls},
    {"AnotherSystemCallEndsTheProcess", SIGSYS, AnotherSystemCallEndsIt},
    {"AMemoryErrorOfAPageIsJudgedByAddress", 0, MemoryErrorsAreJudgedByAddress<12>},
    {"AMemoryErrorOfAHugePageIsJudgedByAddress", 0, MemoryErrorsAreJudgedByAddress<21>},
};
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

class HandlerLimits : public testing::TestWithParam<Mode> {};

TEST_P(HandlerLimits, HoldInAProcessOfItsOwn) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  const std::string name = GetParam().name;
  if (name.find("SystemCall") != std::string::npos || name.find("Stack") != std::string::npos) {
    GTEST_SKIP() << "the sanitizer's runtime makes system calls and uses stack of its own";
  }
#endif
  const test::ChildResult child = test::RunMode(GetParam().name);
  if (GetParam().killed_by == 0) {
    EXPECT_TRUE(child.Exited(0)) << child;
  } else {
    EXPECT_TRUE(child.Killed(GetParam().killed_by) && child.Says("now:") && !child.Says("survived")) << child;
  }
  RecordProperty("said", child.output);
}
INSTANTIATE_TEST_SUITE_P(Claims, HandlerLimits, testing::ValuesIn(kModes),
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
