// Read-side sections and grace periods, one claim at a time. What needs luck to fail is in proptest/stress_test.cc.

#include "guestmem/rcu.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

// What slots are made with: counted, and refused where a test says so.
std::atomic<bool> g_refuse_slots = false;
std::atomic<int> g_slots_asked_for = 0;

// A child process that has no thread-specific key left when the library starts (103). GoogleTest needs some later.
constexpr char kTakeKeys[] = "GUESTMEM_TEST_TAKE_KEYS";
constinit pthread_key_t g_keys[PTHREAD_KEYS_MAX];
constinit int g_keys_taken = 0;
[[gnu::constructor(102)]] void TakeKeys() {
  while (std::getenv(kTakeKeys) != nullptr && pthread_key_create(&g_keys[g_keys_taken], nullptr) == 0) {
    ++g_keys_taken;
  }
}
[[gnu::constructor(104)]] void GiveKeysBack() {
  while (g_keys_taken > 0) {
    pthread_key_delete(g_keys[--g_keys_taken]);
  }
}

}  // namespace

void* operator new(size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  ++g_slots_asked_for;
  return g_refuse_slots ? nullptr : std::aligned_alloc(static_cast<size_t>(alignment), size);
}

namespace guestmem {
namespace {

void AwaitTrue(const std::atomic<bool>& flag) {
  while (!flag.load()) {
    std::this_thread::yield();
  }
}

TEST(Rcu, SynchronizeReturnsWhereNobodyReads) {
  Rcu::Synchronize();
  EXPECT_FALSE(Rcu::InSection());
}

TEST(Rcu, SectionsNestAndOnlyTheOutermostEnds) {
  {
    const Rcu::Section outer;
    EXPECT_TRUE(Rcu::InSection());
    {
      const Rcu::Section inner;
      EXPECT_TRUE(Rcu::InSection());
    }
    EXPECT_TRUE(Rcu::InSection());
  }
  EXPECT_FALSE(Rcu::InSection());
}

TEST(Rcu, DisabledSectionIsNone) {
  const Rcu::Section section(false);
  EXPECT_FALSE(Rcu::InSection());
}

// A section that began before Synchronize holds it up until it ends; the yields give a broken one time to return.
void ExpectHeldUp(bool nested) {
  std::atomic<bool> reading = false;
  std::atomic<bool> synchronizing = false;
  std::atomic<bool> returned = false;
  std::thread reader([&] {
    const Rcu::Section section;
    reading = true;
    AwaitTrue(synchronizing);
    for (int i = 0; i < 2000; ++i) {
      if (nested) {
        const Rcu::Section inner;
      }
      std::this_thread::yield();
    }
    EXPECT_FALSE(returned.load());
  });
  AwaitTrue(reading);
  std::thread writer([&] {
    synchronizing = true;
    Rcu::Synchronize();
    returned = true;
  });
  reader.join();
  writer.join();
  EXPECT_TRUE(returned.load());
}

TEST(Rcu, D10_SynchronizeWaitsForARunningSection) { ExpectHeldUp(false); }
TEST(Rcu, EndOfANestedSectionDoesNotEndTheOuterOne) { ExpectHeldUp(true); }

TEST(Rcu, SynchronizeDoesNotWaitForSectionsThatBeganLater) {
  // Sections that follow each other without a pause must not starve it.
  std::atomic<bool> stop = false;
  std::atomic<bool> reading = false;
  std::thread reader([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const Rcu::Section section;
      reading = true;
    }
  });
  AwaitTrue(reading);
  for (int i = 0; i < 1000; ++i) {
    Rcu::Synchronize();
  }
  stop = true;
  reader.join();
}

TEST(Rcu, EachLivingThreadHasASlotOnItsOwnCacheLine) {
  constexpr int kThreads = 8;
  std::vector<std::atomic<uintptr_t>> slots(kThreads);
  std::atomic<int> ready = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const Rcu::Section section;
      slots[static_cast<size_t>(i)] = reinterpret_cast<uintptr_t>(detail::t_reader_slot);
      ++ready;
      while (ready.load() != kThreads) {
        std::this_thread::yield();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::set<uintptr_t> lines;
  for (const auto& slot : slots) {
    EXPECT_EQ(slot % 64, 0u);
    lines.insert(slot / 64);
  }
  EXPECT_EQ(lines.size(), size_t{kThreads});
}

TEST(Rcu, ASlotIsReusedAfterItsThreadIsGone) {
  std::set<detail::ReaderSlot*> slots;
  for (int i = 0; i < 100; ++i) {
    std::thread([&] {
      const Rcu::Section section;
      slots.insert(detail::t_reader_slot);
    }).join();
  }
  EXPECT_EQ(slots.size(), 1u);
}

TEST(Rcu, AnAccessDuringThreadExitRegistersAgain) {
  static bool ran = false;
  pthread_key_t key = 0;  // its destructor runs after the library's, whose key was made at load
  ASSERT_EQ(pthread_key_create(&key, [](void*) {
    EXPECT_EQ(detail::t_reader_slot, nullptr);
    const Rcu::Section section;
    EXPECT_TRUE(Rcu::InSection());
    EXPECT_TRUE(detail::t_reader_slot->taken);
    ran = true;
  }), 0);
  std::thread([&] {
    ASSERT_EQ(pthread_setspecific(key, &key), 0);
    const Rcu::Section section;
  }).join();
  EXPECT_EQ(pthread_key_delete(key), 0);
  EXPECT_TRUE(ran);
  Rcu::Synchronize();
}

// As a signal handler's siglongjmp does: nobody ends the section.
void EnterAndJumpAway() {
  alignas(Rcu::Section) static thread_local std::byte place[sizeof(Rcu::Section)];
  new (place) Rcu::Section;
}

TEST(Rcu, ASectionLeftByAJumpEndsWithItsThread) {
  std::thread([] {
    EnterAndJumpAway();
    EXPECT_TRUE(Rcu::InSection());
  }).join();
  Rcu::Synchronize();
  std::thread([] {
    EXPECT_FALSE(Rcu::InSection());
    { const Rcu::Section section; }
    EXPECT_FALSE(Rcu::InSection()) << "the section of a thread that is gone was handed on";
  }).join();
}

// In each of many more threads than there are slots to share: sections nest and end, and hold a writer up.
void ExpectSectionsToWorkInManyThreads() {
  constexpr int kThreads = 40;
  std::atomic<int> done = 0;
  std::atomic<bool> good[2] = {true, true};  // the writer retires the one that is not current
  std::atomic<std::atomic<bool>*> current = &good[0];
  std::vector<std::thread> readers;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < kThreads; ++i) {
    readers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        wrong += Rcu::InSection();
        {
          const Rcu::Section outer;
          const std::atomic<bool>& seen = *current.load();
          wrong += !seen;
          {
            const Rcu::Section inner;
            std::this_thread::yield();
          }
          wrong += !Rcu::InSection();
          wrong += !seen;  // not retired while this section runs
        }
        wrong += Rcu::InSection();
      }
      ++done;
    });
  }
  for (int turn = 0; done < kThreads; ++turn) {
    good[(turn + 1) % 2] = true;
    current = &good[(turn + 1) % 2];
    Rcu::Synchronize();
    good[turn % 2] = false;
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST(Rcu, ThreadsShareSlotsWhereThereIsNoMemoryForTheirs) {
  std::atomic<bool> stop = false;
  std::vector<std::thread> owners;  // have every slot that is free
  for (const int before = g_slots_asked_for; g_slots_asked_for == before;) {
    std::atomic<bool> in = false;
    owners.emplace_back([&] {
      { const Rcu::Section section; }
      in = true;
      AwaitTrue(stop);
    });
    AwaitTrue(in);
  }
  g_refuse_slots = true;
  const int before = g_slots_asked_for;
  ExpectSectionsToWorkInManyThreads();
  EXPECT_GE(g_slots_asked_for - before, 40) << "nobody was refused a slot: this test says nothing";
  g_refuse_slots = false;
  stop = true;
  for (std::thread& owner : owners) {
    owner.join();
  }
}

TEST(Rcu, ThreadsShareSlotsWhereNoThreadSpecificKeyIsLeft) {
  if (std::getenv(kTakeKeys) != nullptr) {
    { const Rcu::Section section; }
    ASSERT_NE(detail::t_reader_slot->borrower, nullptr) << "there was a key: this test says nothing";
    ExpectSectionsToWorkInManyThreads();
    return;
  }
  const pid_t child = fork();
  if (child == 0) {
    setenv(kTakeKeys, "1", 1);
    execl("/proc/self/exe", "/proc/self/exe", "--gtest_brief=1",
          "--gtest_filter=*-*ThreadsShareSlotsWhereThereIs*:*AnAccessDuringThreadExit*:*Membarrier*:*LeftByAJump*",
          static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(RcuDeathTest, SynchronizeInsideASectionIsAClearFatalError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        const Rcu::Section section;
        Rcu::Synchronize();
      },
      "inside a read-side section");
}

TEST(Rcu, AForkChildStartsClean) {
  // The reader is in a section while we fork; in the child it does not exist, so nothing may wait for it.
  std::atomic<bool> reading = false;
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    const Rcu::Section section;
    reading = true;
    AwaitTrue(stop);
  });
  AwaitTrue(reading);
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    Rcu::Synchronize();
    {
      const Rcu::Section section;
    }
    Rcu::Synchronize();
    _exit(0);
  }
  stop = true;
  reader.join();
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(Rcu, ASectionMayForkWhileAWriterWaitsForIt) {
  pid_t child = 0;
  bool goes_on = false;
  std::thread writer;
  {
    const Rcu::Section section;
    const uint64_t epoch = detail::g_epoch;
    writer = std::thread([] { Rcu::Synchronize(); });
    while (detail::g_epoch == epoch) {  // until its grace period has begun
      std::this_thread::yield();
    }
    child = fork();
    if (child == 0) {
      alarm(30);
      goes_on = Rcu::InSection() && detail::t_reader_slot->taken;
    }
  }
  if (child == 0) {
    Rcu::Synchronize();
    _exit(goes_on ? 0 : 1);
  }
  writer.join();
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

// Without membarrier the reader pays the fence: all of the above again in a process that was refused it.
TEST(Rcu, WorksWhereMembarrierIsRefused) {
  if (std::getenv("GUESTMEM_MEMBARRIER") != nullptr) {
    EXPECT_NE(detail::g_epoch & detail::kReadersFence, 0u);
    { const detail::ReadSection section; }
    EXPECT_NE(detail::t_fast_slot, detail::t_reader_slot) << "the inline path has no fence";
    return;
  }
  EXPECT_EQ(detail::g_epoch & detail::kReadersFence, 0u) << "this kernel refuses membarrier: only the fallback was tested";
  const pid_t child = fork();
  if (child == 0) {
    setenv("GUESTMEM_MEMBARRIER", "0", 1);
    execl("/proc/self/exe", "/proc/self/exe", "--gtest_brief=1", static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace guestmem
