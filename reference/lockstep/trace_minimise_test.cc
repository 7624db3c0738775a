#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"

namespace reference {
namespace {

Trace Parsed(const std::string& text) { return std::get<Trace>(FromText("guestmem trace 1\n" + text)); }

// A long trace in a rich world; what of it is wrong is the judge's to say.
const Trace kTrace = Parsed(
    "world region_pages=4\n"
    "backing 0 pages=3 trim=4 bitmap offset=6 iova page1=ram:r-x page2=hole\n"
    "backing 1 pages=2 unmapped fickle\n"
    "handler fix_retry, fallback\nfallback fail, none\nlock fail\nsubrange own\nfail_host_call 3\nops\n"
    "subrange page1 slot=2 length=64 form=preemptive\n"
    "fill page1+3 target=2 length=41 value=0x5a\n"
    "write mid2-7 target=1 length=100 misaligned=5 form=atomic value=0x1122334455667788\n"
    "lock_gpns object=2 access=write form=kernel 3 5 9\n"
    "compare_exchange end1-8 size=8 value=0x22 desired=0x3344\n"
    "read 2^63+1 length=4104 misaligned=3\n");

Verdict Wrong(const std::string& field) { return Divergence{5, field, "", ""}; }

using Judge = std::function<Verdict(const Trace& trace)>;

trace::Minimised<Trace> Minimal(const Judge& judge, const Trace& trace) {
  return trace::MinimiseDiverging(Rows(), judge, trace, *judge(trace));
}
Trace MinimalFor(const Judge& judge) { return Minimal(judge, kTrace).trace; }

const Op* Find(const Trace& trace, StepKind kind) {
  const auto op = std::find_if(trace.ops.begin(), trace.ops.end(), [&](const Op& o) { return o.kind == kind; });
  return op == trace.ops.end() ? nullptr : &*op;
}

TEST(TraceMinimise, LeavesOneOpWithPlainNumbersInAPlainWorld) {
  const Trace minimal = MinimalFor([](const Trace& trace) { return Find(trace, StepKind::kWrite) ? Wrong("data") : std::nullopt; });
  EXPECT_EQ(ToText(minimal), ToText(Parsed("world single_region\nbacking 0 pages=3\nops\nwrite page0 length=8 value=0x0\n")));
}

TEST(TraceMinimise, KeepsTheNumbersThatMatter) {
  const Trace minimal = MinimalFor([](const Trace& trace) {
    const Op* const write = Find(trace, StepKind::kWrite);
    const Op* const lock = Find(trace, StepKind::kLockGpns);
    const bool wrong = write != nullptr && kLengths[write->length] >= 70 && (write->value >> 8 & 0xff) == 0x77 && lock != nullptr &&
                       std::count(lock->gpns.begin(), lock->gpns.end(), 5) != 0 && !trace.world.handler.empty();
    return wrong ? Wrong("data") : std::nullopt;
  });
  EXPECT_EQ(ToText(minimal), ToText(Parsed("world single_region\nbacking 0 pages=3\nhandler default\nops\n"
                                           "write page0 length=72 value=0x7700\nlock_gpns 5 access=read\n")));
}

TEST(TraceMinimise, DoesNotTakeADivergenceInAnotherField) {
  const Trace minimal =
      MinimalFor([](const Trace& trace) { return Wrong(Find(trace, StepKind::kRead) ? "memory of backing 0 page 1" : "calls"); });
  EXPECT_NE(Find(minimal, StepKind::kRead), nullptr);
  EXPECT_EQ(minimal.ops.size(), 1u);
}

// The last `do`s of a script say nothing, so that one answer less can be several.
TEST(TraceMinimise, ShortensAScriptWhoseLastAnswersGoTogether) {
  const Trace trace = Parsed("world single_region\nbacking 0 pages=1\nfallback do, do, fail_at\nfail_host_call 3\nops\nread page0 length=1\n");
  const Judge judge = [](const Trace& t) { return t.world.failing_host_call == 3 ? Wrong("data") : std::nullopt; };
  const Trace minimal = Minimal(judge, trace).trace;
  EXPECT_TRUE(minimal.world.fallback.empty());
}

TEST(TraceMinimise, EndsByItself) {
  const Judge judge = [](const Trace& trace) { return trace.ops.empty() ? std::nullopt : Wrong("data"); };
  EXPECT_LT(Minimal(judge, kTrace).runs, 300u);
}

TEST(TraceMinimise, RunsNoMoreThanItMay) {
  uint64_t runs = 0;
  const auto judge = [&](const Trace&) {
    ++runs;
    return Wrong("data");
  };
  trace::MinimiseDiverging(Rows(), judge, kTrace, *Wrong("data"), 10);
  EXPECT_LE(runs, 10u);
}

}  // namespace
}  // namespace reference
