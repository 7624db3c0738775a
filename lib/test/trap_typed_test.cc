// TryRead, TryWrite and TryCompareExchange: values, faults, and the circumstances a fault may come in.

#include <errno.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>
#include <vector>

#include "guestmem/detail/host_side.h"
#include "guestmem/fault.h"
#include "pages.h"
#include "trap/trap_table.h"

namespace guestmem {
namespace {

using test::Hole;
using test::kPage;
using test::Pages;

template <typename T>
T Value(uint64_t seed) {
  return static_cast<T>(0x8796a5b4c3d2e1f0 + static_cast<unsigned __int128>(seed) * 0x1010101010101011);
}

bool SameFault(const std::optional<Fault>& fault, const Pages& pages, const std::byte* start, size_t offset,
               Fault::Side side) {
  EXPECT_TRUE(fault.has_value());
  if (!fault) {
    return false;
  }
  EXPECT_EQ(fault->offset, offset);
  EXPECT_EQ(fault->address, reinterpret_cast<uint64_t>(start) + offset);
  EXPECT_EQ(fault->side, side);
  EXPECT_EQ(fault->signal, pages.signal());
  EXPECT_EQ(fault->code, pages.code());
  return fault->offset == offset && fault->address == reinterpret_cast<uint64_t>(start) + offset &&
         fault->side == side && fault->signal == pages.signal() && fault->code == pages.code();
}

// Bytes that each test may look at round an access.
std::array<std::byte, 32> Around(const Pages& pages, const std::byte* address) {
  std::array<std::byte, 32> bytes;
  std::memcpy(bytes.data(), pages.Behind(address) - 12, bytes.size());
  return bytes;
}

template <typename T>
class TrapTyped : public testing::Test {
 protected:
  TrapTyped() { EXPECT_TRUE(InstallFaultHandler().ok()); }
};
using Types = testing::Types<uint8_t, uint16_t, uint32_t, uint64_t>;
TYPED_TEST_SUITE(TrapTyped, Types);

TYPED_TEST(TrapTyped, AtEveryAlignmentMovesTheValueAndNothingElse) {
  const Pages pages(2, 1, Hole::kInaccessible);
  std::memset(pages.begin(), 0xee, 2 * kPage);
  for (size_t at = kPage - 16; at < kPage + 16; ++at) {  // across a page boundary too
    std::byte* const guest = pages.begin() + at;
    const auto value = Value<TypeParam>(at);
    std::array<std::byte, 32> expected = Around(pages, guest);
    std::memcpy(expected.data() + 12, &value, sizeof value);
    ASSERT_FALSE(TryWrite(guest, value));
    ASSERT_EQ(Around(pages, guest), expected) << at;
    TypeParam read = 0;
    ASSERT_FALSE(TryRead(guest, read));
    ASSERT_EQ(read, value) << at;
    ASSERT_EQ(Around(pages, guest), expected) << at;
    std::memset(guest - 12, 0xee, 32);
  }
}

TYPED_TEST(TrapTyped, CompareExchangeStoresOnlyOnEqualityAndReturnsWhatItSaw) {
  const Pages pages(1, 1, Hole::kInaccessible);
  std::byte* const guest = pages.begin() + 64;
  std::memset(pages.begin(), 0xee, kPage);
  const auto old = Value<TypeParam>(1), other = Value<TypeParam>(2), desired = Value<TypeParam>(3);
  ASSERT_FALSE(TryWrite(guest, old));
  std::array<std::byte, 32> expected = Around(pages, guest);

  TypeParam current = other;
  bool swapped = true;
  ASSERT_FALSE(TryCompareExchange(guest, current, desired, swapped));
  EXPECT_FALSE(swapped);
  EXPECT_EQ(current, old);
  EXPECT_EQ(Around(pages, guest), expected);

  swapped = false;
  ASSERT_FALSE(TryCompareExchange(guest, current, desired, swapped));
  EXPECT_TRUE(swapped);
  EXPECT_EQ(current, old);
  std::memcpy(expected.data() + 12, &desired, sizeof desired);
  EXPECT_EQ(Around(pages, guest), expected);
}

TYPED_TEST(TrapTyped, AFaultLeavesTheValueAndTheMemoryAsTheyWere) {
  for (const Hole hole : {Hole::kInaccessible, Hole::kReadOnly, Hole::kTruncated}) {
    const Pages pages(1, 1, hole);
    std::memset(pages.Behind(pages.begin()), 0xee, kPage + pages.hidden());
    // Wholly inside the hole at every alignment, then straddling into it by every number of bytes.
    for (int distance = 16; distance > -static_cast<int>(sizeof(TypeParam)); --distance) {
      std::byte* const guest = pages.hole() + distance;
      const size_t offset = distance >= 0 ? 0 : static_cast<size_t>(-distance);
      const auto value = Value<TypeParam>(static_cast<size_t>(distance + 16));
      if (hole != Hole::kReadOnly) {
        TypeParam read = value;
        ASSERT_TRUE(SameFault(TryRead(guest, read), pages, guest, offset, Fault::Side::kRead)) << distance;
        ASSERT_EQ(read, value);
      }
      ASSERT_TRUE(SameFault(TryWrite(guest, value), pages, guest, offset, Fault::Side::kWrite)) << distance;
      if (reinterpret_cast<uintptr_t>(guest) % sizeof(TypeParam) == 0) {
        for (const TypeParam expected :
             {value, std::numeric_limits<TypeParam>::max(), static_cast<TypeParam>(0xeeeeeeeeeeeeeeee)}) {
          TypeParam current = expected;
          bool swapped = true;
          ASSERT_TRUE(
              SameFault(TryCompareExchange(guest, current, value, swapped), pages, guest, offset, Fault::Side::kWrite));
          ASSERT_EQ(current, expected);
        }
      }
    }
    const std::byte* const behind = pages.Behind(pages.begin());
    for (size_t i = 0; i < kPage + pages.hidden(); ++i) {
      ASSERT_EQ(behind[i], std::byte{0xee}) << i;
    }
  }
}

TYPED_TEST(TrapTyped, AnUnmappedAddressIsReportedAsSuch) {
  // Page 0 is never mapped.
  auto* const guest = reinterpret_cast<std::byte*>(uintptr_t{128});
  TypeParam value = 1;
  const std::optional<Fault> read = TryRead(guest, value), write = TryWrite(guest, value);
  ASSERT_TRUE(read && write);
  EXPECT_EQ(read->address, 128U);
  EXPECT_EQ(read->code, SEGV_MAPERR);
  EXPECT_EQ(write->address, 128U);
  EXPECT_EQ(write->code, SEGV_MAPERR);
}

struct Pair {
  uint16_t a;
  int16_t b;
};

TEST(TrapTypedMore, AnyTriviallyCopyableTypeOfTheRightSizeGoes) {
  const Pages pages(1, 1, Hole::kInaccessible);
  ASSERT_FALSE(TryWrite(pages.begin(), Pair{7, -3}));
  Pair read{};
  ASSERT_FALSE(TryRead(pages.begin(), read));
  EXPECT_EQ(read.a, 7);
  EXPECT_EQ(read.b, -3);
  ASSERT_FALSE(TryWrite(pages.begin() + 8, 2.5));
  double number = 0;
  ASSERT_FALSE(TryRead(pages.begin() + 8, number));
  EXPECT_EQ(number, 2.5);
}

TEST(RecoveredFaults, CountsEachRecoveredFaultOnce) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  uint32_t value = 0;
  bool swapped;
  const uint64_t start = RecoveredFaults();
  ASSERT_FALSE(TryRead(pages.begin(), value));
  EXPECT_EQ(RecoveredFaults(), start);
  ASSERT_TRUE(TryRead(pages.hole(), value));
  EXPECT_EQ(RecoveredFaults(), start + 1);
  ASSERT_TRUE(TryWrite(pages.hole(), value));
  EXPECT_EQ(RecoveredFaults(), start + 2);
  ASSERT_TRUE(TryCompareExchange(pages.hole(), value, 1U, swapped));
  EXPECT_EQ(RecoveredFaults(), start + 3);
  std::array<std::byte, 300> host;
  ASSERT_TRUE(TryCopy(GuestSide::kSource, host.data(), pages.hole() - 200, host.size()));
  EXPECT_EQ(RecoveredFaults(), start + 4);
  ASSERT_TRUE(TryFill(pages.hole() - 200, std::byte{1}, host.size()));
  EXPECT_EQ(RecoveredFaults(), start + 5);
}

TEST(Recovery, WorksInSeveralThreadsAtOnce) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  constexpr int kThreads = 4, kRounds = 2000;
  const uint64_t start = RecoveredFaults();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&wrong, i] {
      // Holes of different kinds, so that a description that strays to another thread is noticed.
      const Pages pages(1, 1, i % 2 == 0 ? Hole::kInaccessible : Hole::kTruncated);
      for (int round = 0; round < kRounds; ++round) {
        std::byte* const guest = pages.hole() - round % 8;
        uint64_t value = 0;
        const std::optional<Fault> fault = TryRead(guest, value);
        wrong += !fault || fault->signal != pages.signal() || fault->offset != static_cast<size_t>(round % 8) ||
                 fault->address != reinterpret_cast<uint64_t>(pages.hole());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(RecoveredFaults() - start, uint64_t{kThreads} * kRounds);
}

// An access on the smallest stack that pthread allows, without an alternate one.
void* FaultOnSmallStack(void* argument) {
  const auto* const pages = static_cast<const Pages*>(argument);
  stack_t off = {}, previous;  // a sanitizer gives each thread an alternate stack
  off.ss_flags = SS_DISABLE;
  bool good = sigaltstack(&off, &previous) == 0;
  uint32_t value = 0;
  std::byte host[32];
  good &= TryRead(pages->hole(), value) && TryCopy(GuestSide::kSource, host, pages->hole() - 20, sizeof host);
  good &= sigaltstack(&previous, nullptr) == 0;
  return good ? argument : nullptr;
}

TEST(Recovery, WorksOnASmallStackWithoutAnAlternateOne) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  const size_t stack_size = 256 << 10;  // sanitizer run-time libraries need this much to start a thread
#else
  const size_t stack_size = 32 << 10;
#endif
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, stack_size), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, FaultOnSmallStack, const_cast<Pages*>(&pages)), 0);
  void* result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, &pages);
  pthread_attr_destroy(&attributes);
}

TEST(Recovery, WorksOnAnAlternateStack) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  std::vector<char> memory(size_t{64} << 10);
  stack_t alternate = {}, previous;
  alternate.ss_sp = memory.data();
  alternate.ss_size = memory.size();
  ASSERT_EQ(sigaltstack(&alternate, &previous), 0);
  const Pages pages(1, 1, Hole::kInaccessible);
  uint32_t value = 0;
  EXPECT_TRUE(TryRead(pages.hole(), value));
  EXPECT_TRUE(TryWrite(pages.hole(), value));
  ASSERT_EQ(sigaltstack(&previous, nullptr), 0);
}

const Pages* g_pages;
std::atomic<int> g_good_in_handler;

void AccessInHandler(int) {
  uint64_t value = 5;
  const std::optional<Fault> fault = TryRead(g_pages->hole() - 3, value);
  g_good_in_handler += fault && fault->offset == 3 && value == 5 && !TryRead(g_pages->begin(), value);
}

TEST(Recovery, WorksInASignalHandlerWhileOrdinaryCodeGoesOn) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  g_pages = &pages;
  g_good_in_handler = 0;
  struct sigaction action = {}, previous;
  action.sa_handler = AccessInHandler;
  ASSERT_EQ(sigaction(SIGUSR1, &action, &previous), 0);
  for (int round = 0; round < 100; ++round) {
    uint32_t value = 9;
    ASSERT_TRUE(TryRead(pages.hole(), value));
    ASSERT_EQ(raise(SIGUSR1), 0);
    ASSERT_EQ(g_good_in_handler, round + 1);
    ASSERT_EQ(value, 9U);
    ASSERT_TRUE(TryWrite(pages.hole(), value));
    ASSERT_FALSE(TryWrite(pages.begin(), value));
  }
  ASSERT_EQ(sigaction(SIGUSR1, &previous, nullptr), 0);
}

// The signal arrives on another thread at any instruction, the faulting ones and the handler's included.
TEST(Recovery, WorksInASignalHandlerThatInterruptsAccesses) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  g_pages = &pages;
  g_good_in_handler = 0;
  struct sigaction action = {}, previous;
  action.sa_handler = AccessInHandler;
  ASSERT_EQ(sigaction(SIGUSR1, &action, &previous), 0);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread worker([&] {
    std::array<std::byte, 200> host;
    while (!stop) {
      const std::optional<Fault> fault = TryCopy(GuestSide::kSource, host.data(), pages.hole() - 100, host.size());
      wrong += !fault || fault->offset != 100;
    }
  });
  for (int sent = 0; sent < 60; ++sent) {
    const int seen = g_good_in_handler;
    ASSERT_EQ(pthread_kill(worker.native_handle(), SIGUSR1), 0);
    while (g_good_in_handler == seen) {
      std::this_thread::yield();
    }
  }
  stop = true;
  worker.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(g_good_in_handler, 60);
  ASSERT_EQ(sigaction(SIGUSR1, &previous, nullptr), 0);
}

TEST(Recovery, PreservesErrno) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  uint32_t value = 0;
  errno = EXDEV;
  const bool faulted = TryRead(pages.hole(), value).has_value();
  const int after = errno;
  EXPECT_TRUE(faulted);
  EXPECT_EQ(after, EXDEV);
}

TEST(Recovery, PreservesTheSignalMask) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  sigset_t before, after;
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &before), 0);
  uint32_t value = 0;
  ASSERT_TRUE(TryRead(pages.hole(), value));
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &after), 0);
  for (int signal = 1; signal < NSIG; ++signal) {
    EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal)) << signal;
  }
}

// Fence A: a handler that may be looking at a table keeps it, here one that only says so. A table on the stack is that of an object
// that is gone; the next object's registration takes it out.
TEST(TrapTable, OfAGoneObjectIsKeptWhileAHandlerLooks) {
  detail::TrapTable table(nullptr, nullptr);
  table.Close();
  trap::g_table_readers.fetch_add(1);
  std::atomic<bool> begun = false, gone = false;
  std::thread loads([&] {
    begun = true;
    detail::TrapTable(nullptr, nullptr).Close();
    gone = true;
  });
  for (int i = 0; i < 200'000 || !begun.load(); ++i) {  // time enough to go
    std::this_thread::yield();
  }
  EXPECT_FALSE(gone.load());
  trap::g_table_readers.fetch_sub(1);
  loads.join();
}

size_t CountTables() {
  size_t count = 0;
  for (const trap::RecoveryTable* table = trap::g_tables; table != nullptr; table = table->next) {
    ++count;
  }
  return count;
}

TEST(TrapTable, OfAnObjectThatIsStillThereIsKept) {
  static detail::TrapTable here(nullptr, nullptr);
  here.Close();
  detail::TrapTable(nullptr, nullptr).Close();  // one more that is gone
  const size_t before = CountTables();
  for (int i = 0; i < 10; ++i) {
    detail::TrapTable(nullptr, nullptr).Close();
    EXPECT_EQ(CountTables(), before);
  }
}

}  // namespace
}  // namespace guestmem
