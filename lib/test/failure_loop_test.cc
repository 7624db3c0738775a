// Failure loops: for every public call that needs something of the host, let its first host call fail, then its second, and
// so on until it succeeds. Each time: a clear error, nothing leaked, nothing changed, and the same call works afterwards.
// A backing's callbacks that fail: callback_loop_test.cc; operator new: operator_new_fails_test.cc.

#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "child.h"
#include "failure_world.h"
#include "guestmem/detail/host_calls.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "refuse.h"

namespace guestmem {
namespace {

using test::HostState;
using test::kPage;
using test::kScenarios;
using test::kSize;
using test::Scenario;
using test::World;

std::atomic<int> g_calls{0};
std::atomic<int> g_failing{0};  // which call fails; 0: none

bool FailOne(detail::HostCall) { return ++g_calls == g_failing; }

// While it lives, the n-th host call fails.
class FailNth {
 public:
  explicit FailNth(int n) {
    g_calls = 0;
    g_failing = n;
    detail::SetHostCallFilter(FailOne);
  }
  ~FailNth() { detail::SetHostCallFilter(nullptr); }
  bool happened() const { return g_calls >= g_failing; }
};

class FailureLoop : public testing::TestWithParam<Scenario> {};

// Runs the call with its n-th host call failing. False: it made fewer.
bool FailsAt(int n, const Scenario& scenario) {
  World world;
  const HostState before;
  Status status;
  {
    const FailNth failing(n);
    status = scenario.call(world);
    if (!failing.happened()) {
      EXPECT_TRUE(status.ok()) << status.ToString();
      return false;
    }
  }
  EXPECT_FALSE(status.ok()) << "the failure was swallowed";
  if (!status.ok()) {
    EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(status.info().transferred, 0U);
    const std::string text = status.ToString();
    EXPECT_TRUE(text.ends_with(": Cannot allocate memory") || text.ends_with(": out of memory")) << text;
    EXPECT_TRUE(text.starts_with("guest memory '")) << text;
  }
  EXPECT_EQ(HostState(), before) << "leaked";
  world.ExpectUnchanged();
  const Status again = scenario.call(world);
  EXPECT_TRUE(again.ok()) << "not as it was: " << again.ToString();
  return true;
}

TEST_P(FailureLoop, EveryHostCallMayFail) {
  World().ExpectUnchanged();  // makes what a process makes once
  const HostState before;
  int n = 1;
  while (FailsAt(n, GetParam())) {
    EXPECT_EQ(HostState(), before) << "leaked after host call " << n;
    ASSERT_LT(++n, 100);
  }
  EXPECT_EQ(HostState(), before);
  EXPECT_GE(n - 1, GetParam().host_calls);
}

INSTANTIATE_TEST_SUITE_P(Host, FailureLoop, testing::ValuesIn(kScenarios),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(FailureLoop, AdviceAndBindingThatFailSayWhy) {
  const World world;
  {
    const FailNth failing(1);
    const Status status = world.ram->AdviseHugePages(0, kSize, SparseMapping::HugePages::kRefused);
    ASSERT_TRUE(failing.happened());
    EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
    EXPECT_NE(status.ToString().find("madvise: Cannot allocate memory"), std::string::npos);
  }
  const FailNth failing(1);
  const Status status = world.ram->BindToNode(0, kSize, 0);
  EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
  EXPECT_NE(status.ToString().find("mbind: Cannot allocate memory"), std::string::npos);
}

// A destructor cannot say that it failed. Then the bytes stay in the guest, and nothing else may come to that place.
TEST(FailureLoop, WhatCannotBeTakenOutKeepsItsPlace) {
  World world;
  auto rom = world.rom->MapRom(8 * kPage, 0, kPage).value();
  {
    const FailNth failing(1);
    rom.reset();
    ASSERT_TRUE(failing.happened());
  }
  EXPECT_TRUE(world.vm.ProbeReadable(8 * kPage, kPage).ok());
  const Status refused = world.guest->AddRam(8 * kPage, kPage);
  EXPECT_EQ(refused.kind(), ErrorKind::kInvalidArgument);
  EXPECT_NE(refused.ToString().find("'rom' is there"), std::string::npos);
}

// What the library's filter does not reach, the kernel refuses, in a child.
constexpr int kNoSeccomp = 7;
constexpr int kHostsHandler = 5;  // the exit status of a child whose own handler was called

// True: the child could not be made to fail here, and has said so.
bool Skipped(const test::ChildResult& child) { return child.Exited(kNoSeccomp); }

void RefuseOrLeave(uint32_t call, uint32_t argument) {
  if (!test::Refuse(call, argument, ENOMEM)) {
    _exit(kNoSeccomp);
  }
}

// membarrier is asked for once, when the library is loaded: a kernel that refuses it costs readers a fence, nothing else.
void SynchronizeAndRing() {
  const World world;
  const auto bell = world.guest->RegisterDoorbell(8, {.length = DoorbellLength::k4}, world.event).value();
  Rcu::Synchronize();
  CHILD_CHECK(world.event.TryWait().value());
  CHILD_CHECK(world.vm.WritePlain<uint32_t>(8, 1).ok());
  CHILD_CHECK(world.event.TryWait().value());
}

void WithoutMembarrier() {
  RefuseOrLeave(SYS_membarrier, test::kAnyArgument);
  execl("/proc/self/exe", "/proc/self/exe", "--child", "SynchronizeAndRing", nullptr);
  _exit(9);
}

TEST(FailureLoop, AKernelWithoutMembarrierIsNoFailure) {
  for (const char* variable : {"GUESTMEM_MEMBARRIER=0", "GUESTMEM_MEMBARRIER=1"}) {
    const test::ChildResult child = test::RunSelf({"--child", "SynchronizeAndRing"}, {variable});
    EXPECT_TRUE(child.Exited(0)) << child;
  }
  const test::ChildResult refused = test::RunMode("WithoutMembarrier");
  if (Skipped(refused)) {
    GTEST_SKIP() << "no seccomp here: membarrier cannot be refused";
  }
  EXPECT_TRUE(refused.Exited(0)) << refused;
}

// Withdrawn after the readers were told that they need no fence: nothing that could be returned would be safe.
void MembarrierWithdrawn() {
  RefuseOrLeave(SYS_membarrier, test::kAnyArgument);
  Rcu::Synchronize();
  _exit(9);
}

TEST(FailureLoop, AMembarrierThatIsWithdrawnIsFatal) {
  const test::ChildResult child = test::RunMode("MembarrierWithdrawn");
  if (Skipped(child)) {
    GTEST_SKIP() << "no seccomp here: membarrier cannot be refused";
  }
  EXPECT_TRUE(child.Killed(SIGABRT) && child.Says("membarrier worked at load and is refused now")) << child;
}

// sigaction is called for one signal, then for the other. Whichever is refused, the error says so, and memory is not created.
template <int kSignal>
void WithoutSigaction() {
  struct sigaction hosts = {};
  hosts.sa_handler = [](int) { _exit(kHostsHandler); };
  CHILD_CHECK(sigaction(SIGSEGV, &hosts, nullptr) == 0);
  RefuseOrLeave(SYS_rt_sigaction, kSignal);
  for (int i = 0; i < 2; ++i) {
    const Status status = InstallFaultHandler();
    CHILD_CHECK(!status.ok() && status.kind() == ErrorKind::kResourceExhausted);
    CHILD_CHECK(status.ToString().ends_with("sigaction: Cannot allocate memory"));
    CHILD_CHECK(GuestMemory::Allocate(kPage).status().kind() == ErrorKind::kResourceExhausted);
  }
  // A fault of the host's own still reaches the host's handler, whatever part of ours is in force.
  *static_cast<volatile char*>(nullptr) = 1;
}

TEST(FailureLoop, AKernelThatRefusesTheHandlerIsAnErrorAndTheHostsOwnStays) {
  for (const char* mode : {"WithoutSegv", "WithoutBus"}) {
    const test::ChildResult child = test::RunMode(mode);
    if (Skipped(child)) {
      GTEST_SKIP() << "no seccomp here: sigaction cannot be refused";
    }
    EXPECT_TRUE(child.Exited(kHostsHandler)) << mode << " " << child;
  }
}

}  // namespace
}  // namespace guestmem

int main(int argc, char** argv) {
  using namespace guestmem;
  return test::TestMain(argc, argv, {{"SynchronizeAndRing", SynchronizeAndRing},
                                     {"WithoutMembarrier", WithoutMembarrier},
                                     {"MembarrierWithdrawn", MembarrierWithdrawn},
                                     {"WithoutSegv", WithoutSigaction<SIGSEGV>},
                                     {"WithoutBus", WithoutSigaction<SIGBUS>}});
}
