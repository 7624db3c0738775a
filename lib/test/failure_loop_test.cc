// Failure loops: for every public call that needs something of the host, let its first host call fail, then its second, and
// so on until it succeeds. Each time: a clear error, nothing leaked, nothing changed, and the same call works afterwards.
// A backing's callbacks that fail: callback_loop_test.cc.

#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "child.h"
#include "guestmem/access_bitmap.h"
#include "guestmem/detail/host_calls.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/paged_range.h"
#include "guestmem/rcu.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/stream.h"
#include "host_state.h"
#include "pages.h"
#include "refuse.h"

namespace guestmem {
namespace {

using test::File;
using test::HostState;
using test::kPage;

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

// What calls work on, and what they make.
struct World {
  static constexpr uint64_t kSize = 4 * kPage;
  World() {
    Require(ram->Allocate(0, kSize));
    Require(memory.FillAt(0, 7, kSize));
    Require(guest->AddRam(0, kPage));
    Require(vm.FillAt(0, 7, kPage));
    Require(region.region->Map(0, file.fd(), 0, kPage, true));
    Require(region.region->Map(2 * kPage, file.fd(), kPage, kPage, true));
    Require(shown.region->Map(0, file.fd(), 0, 2 * kPage, true));
    Require(shown.guest->MapToGuest(16 * kPage, true));
    // What the counts of locks take once stays: page_locks_test.cc.
    for (const GuestMemory& lockable : {memory, vm}) Require(lockable.LockGpns(AccessType::kRead, false, std::array<uint64_t, 1>{0}).status());
    event.Signal();
  }
  static void Require(const Status& status) { ASSERT_TRUE(status.ok()) << status.ToString(); }

  // SPEC 4: whatever failed, memory is what it was.
  void ExpectUnchanged() const {
    for (uint64_t gpa = 0; gpa < kSize; gpa += kPage / 2) {
      EXPECT_EQ(memory.ReadPlain<uint8_t>(gpa).value_or(0), 7);
    }
    EXPECT_TRUE(memory.ProbeWritable(0, kSize).ok());
    EXPECT_TRUE(vm.ProbeWritable(0, kPage).ok());
    EXPECT_EQ(vm.ReadPlain<uint8_t>(0).value_or(0), 7);
    EXPECT_EQ(vm.ProbeReadable(kPage, 1).kind(), ErrorKind::kNotMapped);
    EXPECT_EQ(vm.ProbeReadable(8 * kPage, 1).kind(), ErrorKind::kNotMapped);
    EXPECT_EQ(vm.ReadPlain<uint8_t>(16 * kPage + 3).value_or(0), file.At(3));
    EXPECT_EQ(vm.ReadPlain<uint8_t>(17 * kPage + 3).value_or(0), file.At(kPage + 3));
    EXPECT_EQ(guest->access_bitmap()->write[0] & guest->access_bitmap()->write[1], 0xff);
  }

  const File file{2 * kPage};
  const std::shared_ptr<SparseMapping> ram = SparseMapping::Create(kSize).value();
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  const std::shared_ptr<InProcessGuest> guest = InProcessGuest::Create("vm", 32 * kPage).value();
  const GuestMemory vm = GuestMemory::Create("vm", guest).value();
  const NewMemoryRegion region = guest->NewRegion(3 * kPage, "region").value();
  const NewMemoryRegion shown = guest->NewRegion(2 * kPage, "shown").value();
  const std::shared_ptr<RomMapper> rom = guest->NewRom(std::vector<std::byte>(kPage), "rom").value();
  Event event = Event::Create().value();
  std::shared_ptr<void> kept;
};

// What the call made lives as long as the world: dropping it here would make host calls too.
template <typename T>
Status Keep(World& world, Result<T> result) {
  Status status = result.status();
  world.kept = std::make_shared<Result<T>>(std::move(result));
  return status;
}

struct Scenario {
  const char* name;
  std::function<Status(World&)> call;
  int host_calls;  // at least: else the loop says nothing
};
void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

constexpr uint64_t kSize = World::kSize;
constexpr uint64_t kGpns[] = {2, 0, 1};

PagedRange Range() { return PagedRange::Create(100, 2 * kPage, kGpns).value(); }

const Scenario kScenarios[] = {
    {"SparseMappingCreate", [](World& w) { return Keep(w, SparseMapping::Create(3 << 20)); }, 1},
    {"Allocate", [](World& w) { return w.ram->Allocate(kPage, 2 * kPage); }, 1},
    {"MapZero", [](World& w) { return w.ram->MapZero(kPage, 2 * kPage); }, 1},
    {"MapFile", [](World& w) { return w.ram->MapFile(kPage, 2 * kPage, w.file.fd(), 0, true); }, 2},
    {"Protect", [](World& w) { return w.ram->Protect(0, kSize, SparseMapping::Protection::kRead); }, 1},
    {"Decommit", [](World& w) { return w.ram->Decommit(0, kSize); }, 1},
    {"Unmap", [](World& w) { return w.ram->Unmap(0, kSize); }, 1},
    {"AlignedHeapMemoryCreate", [](World& w) { return Keep(w, AlignedHeapMemory::Create(kSize)); }, 1},
    {"SharedMemoryCreate", [](World& w) { return Keep(w, SharedMemory::Create(3 << 20)); }, 5},
    {"GuestMemoryAllocate", [](World& w) { return Keep(w, GuestMemory::Allocate(kSize)); }, 1},
    {"GuestMemoryOfTwoBackings",
     [](World& w) {
       auto first = SharedMemory::Create(kPage);
       if (!first.ok()) {
         return first.status();
       }
       auto second = AlignedHeapMemory::Create(kPage);
       return second.ok() ? Keep(w, GuestMemory::CreateMultiRegion("two", kPage, {*first, *second})) : second.status();
     },
     6},
    {"ReadOverItself",
     [](World& w) { return w.memory.ReadAt(100, {w.ram->mapping() + 50, 3 * kPage}); },
     1},
    {"WriteOverItself",
     [](World& w) { return w.memory.WriteAt(100, {w.ram->mapping() + 50, 3 * kPage}); },
     1},
    {"CopyOfALockedSpanOverItself",
     [](World& w) {
       auto locked = w.memory.LockRange(AccessType::kWrite, Range());
       return locked.ok() ? locked->spans()[1].CopyTo({w.ram->mapping() + 50, locked->spans()[1].size()}) : locked.status();
     },
     2},
    {"ReadArray",
     [](World& w) {
       PagedReader reader(w.memory, Range());
       const Status status = reader.ReadArray<uint32_t>(1000).status();
       EXPECT_EQ(reader.remaining(), status.ok() ? 2 * kPage - 4000 : 2 * kPage);
       return status;
     },
     1},
    {"ReadAll", [](World& w) { return PagedReader(w.memory, Range()).ReadAll().status(); }, 1},
    {"LockGpns", [](World& w) { return Keep(w, w.memory.LockGpns(AccessType::kWrite, true, kGpns)); }, 1},
    {"LockRange", [](World& w) { return Keep(w, w.memory.LockRange(AccessType::kRead, Range())); }, 1},
    {"LockGpnsOfTheGuest",
     [](World& w) { return Keep(w, w.vm.LockGpns(AccessType::kRead, false, std::array<uint64_t, 2>{0, 16})); },
     1},
    {"AccessBitmapCreate", [](World& w) { return Keep(w, AccessBitmap::Create("bits", 1000, true)); }, 1},
    {"EventCreate", [](World& w) { return Keep(w, Event::Create()); }, 1},
    {"EventClone", [](World& w) { return Keep(w, w.event.Clone()); }, 1},
    {"EventWait", [](World& w) { return w.event.Wait(); }, 1},
    {"EventTryWait", [](World& w) { return Keep(w, w.event.TryWait()); }, 1},
    {"InProcessGuestCreate", [](World& w) { return Keep(w, InProcessGuest::Create("other", 1 << 30)); }, 2},
    {"AddRam", [](World& w) { return w.guest->AddRam(8 * kPage, kPage); }, 1},
    {"NewRom", [](World& w) { return Keep(w, w.guest->NewRom(std::vector<std::byte>(kPage), "other")); }, 5},
    {"MapRom", [](World& w) { return Keep(w, w.rom->MapRom(8 * kPage, 0, kPage)); }, 2},
    {"MapToGuest", [](World& w) { return w.region.guest->MapToGuest(8 * kPage, true); }, 4},
    {"UnmapFromGuest", [](World& w) { return w.shown.guest->UnmapFromGuest(); }, 1},
    {"RegionMap", [](World& w) { return w.region.region->Map(kPage, w.file.fd(), 0, 2 * kPage, true); }, 4},
    {"RegionMapInGuest", [](World& w) { return w.shown.region->Map(0, w.file.fd(), kPage, kPage, true); }, 6},
    {"RegionUnmapInGuest", [](World& w) { return w.shown.region->Unmap(0, kPage); }, 1},
    {"RegisterDoorbell",
     [](World& w) { return Keep(w, w.guest->RegisterDoorbell(8, std::nullopt, 4, w.event)); },
     1},
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
  const auto bell = world.guest->RegisterDoorbell(8, std::nullopt, 4, world.event).value();
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
