// That what it writes compiles and passes is generated.seeds' business (fuzz/CMakeLists.txt).

#include "reference/lockstep/trace_gtest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "reference/lockstep/trace_rows.h"

namespace reference {
namespace {

using testing::HasSubstr;
using testing::Not;

Trace Parsed(const std::string& text) {
  return std::get<Trace>(FromText("guestmem trace 1\nworld single_region\n" + text));
}

TEST(TraceGtest, EveryKindOfOperationCanBeWritten) {
  for (const trace::Kind& row : Rows().ops().kinds) {
    for (int i = 0; i < 2 * kMisalignments; ++i) {
      Trace trace = Parsed("backing 0 pages=1 bitmap managed\nops\nlock_gpns 0 access=read\n");
      Op op;
      op.kind = static_cast<StepKind>(row.number);
      op.choice = static_cast<uint8_t>(i / 2);
      op.form = static_cast<uint8_t>(i % 2);
      trace.ops.push_back(Normal(op));
      const std::string text = ToTestSource(trace, "x");
      const std::string heading = "\n  // " + OpText(trace.ops[1]) + "\n  ";  // and a statement
      EXPECT_NE(text.find(heading), text.npos) << heading;
    }
  }
}

TEST(TraceGtest, HasTheTraceAndWhatTheModelExpects) {
  const std::string text =
      ToTestSource(Parsed("backing 0 pages=1 page0=hole\nops\nread page0+8 length=4\n"), "some_name");
  EXPECT_THAT(text, HasSubstr("//   read page0+8 length=4\n"));
  EXPECT_THAT(text, HasSubstr("TEST(Regression, SomeName)"));
  EXPECT_THAT(text, HasSubstr("memory.ReadAt(8, host1.bytes())"));
  EXPECT_THAT(text, HasSubstr("ErrorKind::kNotMapped"));
}

TEST(TraceGtest, HasNothingTheTraceDoesNotNeed) {
  const std::string plain = ToTestSource(Parsed("backing 0 pages=1\nops\nwrite_plain page0 size=4 value=0x11\n"), "x");
  for (const char* needless : {"PageFault", "Fallback", "BitmapInfo", "LockGpns", "HostBuffer", "Script", "memfd_create"}) {
    EXPECT_THAT(plain, Not(HasSubstr(needless)));
  }
  const std::string scripted = ToTestSource(Parsed("backing 0 pages=1 bitmap\nops\nwrite_plain page0 size=4 value=0x11\n"), "x");
  EXPECT_THAT(scripted, HasSubstr("class ScriptedBacking"));
  for (const char* needless : {"HostBuffer", "RangeBuffer", "MemoryReader", "HeldSpan", "MadeMemory"}) {
    EXPECT_THAT(scripted, Not(HasSubstr(needless)));
  }
}

TEST(TraceGtest, NamesBytesByWhereTheyComeFrom) {
  const std::string text =
      ToTestSource(Parsed("backing 0 pages=2\nops\nwrite page1 length=8 value=0x22\nread page1-8 length=24\n"), "x");
  EXPECT_THAT(text, HasSubstr("Difference(Join({Initial(0, 0xff8, 8), Data(0x22, 8), Initial(0, 0x1008, 8)}), host2.Seen())"));
}

TEST(TraceGtest, MakesMemoryAsAProgramWould) {
  const std::string text =
      ToTestSource(Parsed("backing 0 pages=1\nops\n"
                          "make slot=1 bytes=8192 choice=shared\nsharing target=1\n"
                          "make slot=2 bytes=4096 choice=heap\ninner_buffer target=2 choice=take value=0x7\n"
                          "create slot=3 bytes=0 choice=size\n"),
                   "x");
  EXPECT_THAT(text, HasSubstr("result1 = MakeShared(0x2000)"));
  EXPECT_THAT(text, HasSubstr("guestmem::SharedMemory::Create(bytes)"));
  EXPECT_THAT(text, HasSubstr("testing::ElementsAre(SharedFile{result1->file, 0, 0, 0x2000})"));
  EXPECT_THAT(text, HasSubstr("result3 = MakeHeap(0x1000)"));
  EXPECT_THAT(text, HasSubstr("StoreInner(memory2, Inner::kTake, 7, taken)"));
  EXPECT_THAT(text, HasSubstr("Difference(Join({Bytes{7}, Repeat(4095, 0)}), result3->Page(0))"));
  EXPECT_THAT(text, HasSubstr("backing0->Break(Promise::kSize);"));
}

TEST(TraceGtest, WhatAFailureLeavesInAnOverlapIsNotCompared) {
  const std::string world = "backing 0 pages=3 page2=hole\nops\n";
  const std::string overlap = ToTestSource(Parsed(world + "read page1+8 length=4096 within=0.1\n"), "x");
  EXPECT_THAT(overlap, HasSubstr("host1(backing0->At(0x1000), 4096);"));
  EXPECT_THAT(overlap, HasSubstr("EXPECT_EQ(status1.info().transferred, 0u);"));
  EXPECT_THAT(overlap, HasSubstr("std::memset(backing0->At(0x1000), 0, 0x1000);"));
  const std::string apart = ToTestSource(Parsed(world + "read page2 length=8 within=0.1\n"), "x");
  EXPECT_THAT(apart, Not(HasSubstr("std::memset(backing0")));
}

TEST(TraceGtest, ABackingThatIsAbsentIsThereForTheHost) {
  const auto trace =
      std::get<Trace>(FromText("guestmem trace 1\nworld region_pages=1\nbacking 0 pages=1\nbacking 1 absent\nops\n"
                               "unmap backing=1 page=0 count=1\n"));
  const std::string text = ToTestSource(trace, "x");
  EXPECT_THAT(text, HasSubstr("CreateMultiRegion(\"world\", 0x1000, {backing0, nullptr})"));
  EXPECT_THAT(text, HasSubstr("backing1->Unmap(0, 0x1000)"));
}

}  // namespace
}  // namespace reference
