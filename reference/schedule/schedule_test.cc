// Deterministic schedules of the engine: every schedule of small scenarios, random ones of random traces, the verdicts that
// stand for hangs, and that a run replays. Each of ci/mutants/*.patch fails here.

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "reference/schedule/runner.h"
#include "reference/schedule/scenarios.h"

namespace reference::schedule {
namespace {

Runner& TheRunner() {
  static Runner runner;
  return runner;
}

std::string Told(const Search& search) {
  return search.verdict ? TheRunner().Report(search.failing, *search.verdict) : "nothing wrong";
}

Trace Parsed(const char* lines) { return TraceOf({"of a test", lines}); }

class EverySchedule : public testing::TestWithParam<std::pair<std::string, Trace>> {};

TEST_P(EverySchedule, WithTwoPreemptionsIsRight) {
  constexpr uint64_t kMost = 200'000;
  const Search search = SearchAll(TheRunner(), GetParam().second, 2, kMost);
  EXPECT_FALSE(search.verdict) << Told(search);
  EXPECT_TRUE(search.complete) << "more than " << kMost << " schedules: make the scenario smaller";
  RecordProperty("schedules", static_cast<int>(search.schedules));
}

INSTANTIATE_TEST_SUITE_P(Schedule, EverySchedule, testing::ValuesIn(Scenarios()),
                         [](const auto& info) { return info.param.first; });

TEST(Schedule, RandomTracesAreRightUnderRandomSchedules) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 4000; ++i) {
    const Search search = SearchRandomly(TheRunner(), RandomTrace(random()), static_cast<uint64_t>(i) * 1000 + 1, 10);
    ASSERT_FALSE(search.verdict) << Told(search);
  }
}

// All that a run did, in one list.
std::vector<uint64_t> Fingerprint(const History& history, uint64_t steps) {
  std::vector<uint64_t> all = {steps, history.retired};
  for (const Access& a : history.accesses) {
    all.insert(all.end(), {a.start, a.end, a.address, a.length, a.op, a.reads, a.writes, a.written, a.seen, a.buffer});
  }
  for (const auto* events : {&history.changes, &history.findings}) {
    for (const BitEvent& e : *events) {
      all.insert(all.end(), {e.start, e.end, e.page, static_cast<uint64_t>(e.bit), e.value, e.op});
    }
  }
  for (const LockSpan& l : history.locks) {
    all.insert(all.end(), {l.lock_start, l.locked, l.unlock_start, l.unlocked, l.page});
  }
  for (const RevokeEvent& r : history.revokes) {
    all.insert(all.end(), {r.start, r.end, r.page, r.count, r.refused, r.op});
  }
  for (const uint8_t byte : history.bytes) {
    all.push_back(byte);
  }
  for (size_t i = 0; i < history.final_bytes.size(); i += 8) {
    all.push_back(history.final_bytes[i]);
  }
  return all;
}

TEST(Schedule, TenThousandRunsReplayIdentically) {
  std::mt19937_64 random(2);
  int identical = 0;
  for (int i = 0; i < 10'000; ++i) {
    const Trace trace = RandomTrace(random());
    RandomWalk walk(static_cast<uint64_t>(i) + 1);
    const auto first = TheRunner().Run(trace, walk);
    const auto before = Fingerprint(TheRunner().history(), TheRunner().steps());
    // Through the bytes, as a saved input would be.
    const Trace saved = FromBytes(ToBytes(TheRunner().Taken(trace)));
    const auto again = TheRunner().Run(saved);
    identical += first == again && Fingerprint(TheRunner().history(), TheRunner().steps()) == before;
  }
  EXPECT_EQ(identical, 10'000);
}

TEST(Schedule, AResolverThatWaitsForReadersIsADeadlock) {
  // Thread 0 sleeps on page 0, inside its section; thread 1 would wake it, but first waits for readers.
  const Trace trace = Parsed("page rw missing\npage rw\nops\n0 read page=0\n1 revoke page=1\n1 resolve page=0\n");
  const Search search = SearchAll(TheRunner(), trace, 2, 100'000);
  ASSERT_TRUE(search.verdict);
  EXPECT_EQ(search.verdict->end, End::kDeadlock);
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_EQ(TheRunner().Run(search.failing), search.verdict);
  }
  EXPECT_NE(TheRunner().Report(search.failing, *search.verdict).find("waits"), std::string::npos);
  // The other order of the resolver's two steps is right under every schedule.
  const Trace right = Parsed("page rw missing\npage rw\nops\n0 read page=0\n1 resolve page=0\n1 revoke page=1\n");
  const Search none = SearchAll(TheRunner(), right, 2, 100'000);
  EXPECT_FALSE(none.verdict) << Told(none);
  EXPECT_TRUE(none.complete);
}

TEST(Schedule, AHandlerThatRetriesForEverIsStarvation) {
  const auto verdict = TheRunner().Run(Parsed("page --\nhandler retry_forever\nops\n0 read page=0\n1 lock page=0\n"));
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->end, End::kStarvation);
  // A run that was given up leaves nothing behind.
  EXPECT_FALSE(TheRunner().Run(TraceOf(BenchmarkScenario())));
}

// The search counts what it should: k steps of one thread into n of another, unhindered, is a binomial coefficient.
TEST(Schedule, ExhaustiveSearchVisitsEachScheduleOnce) {
  const Trace trace = Parsed("page rw\nops\n0 write page=0\n0 read page=0\n1 write page=0\n");
  Exhaustive all(1000);
  std::set<std::vector<uint8_t>> seen;
  uint64_t runs = 0;
  do {
    ASSERT_FALSE(TheRunner().Run(trace, all));
    seen.insert(TheRunner().Taken(trace).choices);
    ++runs;
  } while (all.Next());
  EXPECT_EQ(seen.size(), runs);
  const Search few = SearchAll(TheRunner(), trace, 1, 1'000'000);
  EXPECT_LT(few.schedules, runs);
}

}  // namespace
}  // namespace reference::schedule
