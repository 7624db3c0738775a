// That what it writes compiles and passes is generated.seeds' business (fuzz/CMakeLists.txt).

#include "reference/lockstep/trace_gtest.h"

#include <algorithm>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reference/lockstep/op_fields.h"

namespace reference {
namespace {

using testing::HasSubstr;
using testing::Not;

Trace Parsed(const std::string& text) { return std::get<Trace>(FromText("guestmem trace 1\nworld single_region\n" + text)); }

// Those that make memory, or go under it: a test of theirs is as well written by hand.
constexpr StepKind kUnspelled[] = {StepKind::kMake, StepKind::kCreate, StepKind::kSharing,
                                   StepKind::kInnerBuffer, StepKind::kForeignFault};

TEST(TraceGtest, EveryKindOfOperationCanBeWrittenOrSaysThatItCannot) {
  for (const OpFields& row : kOpFields) {
    Trace trace = Parsed("backing 0 pages=1\nops\n");
    Op op;
    op.kind = row.kind;
    trace.ops.push_back(Normal(op));
    const TestSource source = ToTestSource(trace, "x");
    const bool unspelled = std::find(std::begin(kUnspelled), std::end(kUnspelled), row.kind) != std::end(kUnspelled);
    EXPECT_EQ(source.problem.empty(), !unspelled) << row.name;
    EXPECT_EQ(source.text.find("GTEST_SKIP") != source.text.npos, unspelled) << row.name;
  }
}

TEST(TraceGtest, HasTheTraceAndWhatTheModelExpects) {
  const std::string text = ToTestSource(Parsed("backing 0 pages=1 page0=hole\nops\nread page0+8 length=4\n"), "some_name").text;
  EXPECT_THAT(text, HasSubstr("//   read page0+8 length=4\n"));
  EXPECT_THAT(text, HasSubstr("TEST(Regression, SomeName)"));
  EXPECT_THAT(text, HasSubstr("memory.ReadAt(8, host1.bytes())"));
  EXPECT_THAT(text, HasSubstr("ErrorKind::kNotMapped"));
}

TEST(TraceGtest, HasNothingTheTraceDoesNotNeed) {
  const std::string text = ToTestSource(Parsed("backing 0 pages=1\nops\nwrite_plain page0 size=4 value=0x11\n"), "x").text;
  for (const char* needless : {"PageFault", "Fallback", "BitmapInfo", "LockGpns", "HostBuffer", "Calls", "memfd_create"}) {
    EXPECT_THAT(text, Not(HasSubstr(needless)));
  }
}

TEST(TraceGtest, NamesBytesByWhereTheyComeFrom) {
  const std::string text =
      ToTestSource(Parsed("backing 0 pages=2\nops\nwrite page1 length=8 value=0x22\nread page1-8 length=24\n"), "x").text;
  EXPECT_THAT(text, HasSubstr("Holds(Join({Initial(0, 0xff8, 8), Data(0x22, 8), Initial(0, 0x1008, 8)}))"));
}

}  // namespace
}  // namespace reference
