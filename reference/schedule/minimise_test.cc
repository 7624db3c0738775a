#include "reference/schedule/minimise.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reference::schedule {
namespace {

Trace Parsed(const std::string& text) { return std::get<Trace>(FromText("guestmem schedule 1\n" + text)); }

bool Has(const Trace& trace, OpKind kind) {
  return std::any_of(trace.ops.begin(), trace.ops.end(), [&](const Op& op) { return op.kind == kind; });
}

TEST(Minimise, KeepsOnlyWhatTheFailureNeeds) {
  // "Fails" where there is a write and a grant, after a second choice of 1.
  const Finder find = [](const Trace& trace, int) -> std::optional<Failing> {
    const bool fails = Has(trace, OpKind::kWrite) && Has(trace, OpKind::kGrant) && trace.choices.size() > 1 && trace.choices[1] == 1;
    return fails ? std::optional(Failing{trace, {End::kFinished, "op 3 is wrong at 0x10"}}) : std::nullopt;
  };
  const Trace trace = Parsed(
      "threads 3\npage r- missing\npage rw\nhandler retry grant\nchoices 2 1 1\nops\n2 write page=1 cell=2048 size=2\n1 read page=1\n"
      "2 grant page=1 access=read\n0 lock page=1\n");
  ASSERT_TRUE(find(trace, 0).has_value());
  EXPECT_EQ(Minimise(find, *find(trace, 0)).trace,
            Parsed("choices 0 1 0\nops\n0 write page=0\n0 grant page=0\n"));
}

TEST(Minimise, DoesNotTakeAnotherFailure) {
  const Finder find = [](const Trace& trace, int) -> std::optional<Failing> {
    return Failing{trace, {End::kFinished, Has(trace, OpKind::kWrite) ? "torn" : "lost"}};
  };
  const Trace trace = Parsed("ops\n0 write page=0\n1 read page=0\n");
  EXPECT_EQ(Minimise(find, *find(trace, 0)).trace, Parsed("ops\n0 write page=0\n"));
}

TEST(Minimise, FindsNothingWhereEverySchedulePasses) {
  Runner runner;
  EXPECT_FALSE(FindFailing(runner, Parsed("ops\n0 write page=0\n1 retire page=0\n1 restore page=0\n"), 2).has_value());
}

TEST(Minimise, TestSourceHasTheScheduleInIt) {
  EXPECT_THAT(ToTestSource(Parsed("choices 0*5 1\nops\n0 write page=0\n"), "a-b"),
              testing::AllOf(testing::HasSubstr("TEST(Regression, a_b)"), testing::HasSubstr("\nchoices 0*5 1\n")));
}

}  // namespace
}  // namespace reference::schedule
