// That what it writes compiles and passes is generated.vmm_seeds' business (fuzz/CMakeLists.txt).

#include "reference/vmm/vmm_gtest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <variant>

#include "reference/vmm/guest.h"

namespace reference::vmm {
namespace {

using testing::HasSubstr;
using testing::Not;

Trace Parsed(const std::string& text) { return std::get<Trace>(FromText("guestmem vmm 1\n" + text)); }

std::vector<bool> HostCallsOf(const Trace& trace) {
  std::vector<bool> failed;
  WatchHostCalls(*MakeGuest(), trace, [&](bool each) { failed.push_back(each); });
  return failed;
}

std::string TestOf(const Trace& trace) { return ToTestSource(trace, HostCallsOf(trace), "some-name"); }

TEST(VmmGtest, HasTheTraceAndWhatTheModelExpects) {
  const std::string text =
      TestOf(Parsed("guest pages=2\nops\nadd_ram page=1\nwrite page=1 size=4 value=257 how=plain\nread size=2\n"));
  EXPECT_THAT(text, HasSubstr("//   write page=1 size=4 value=257 how=plain\n"));
  EXPECT_THAT(text, HasSubstr("TEST(Regression, SomeName)"));
  EXPECT_THAT(text, HasSubstr("guest->AddRam(0x1000, 0x1000)"));
  EXPECT_THAT(text, HasSubstr("memory.WritePlain<uint32_t>(0x1000, 0x101)"));
  EXPECT_THAT(text, HasSubstr("ErrorKind::kNotMapped"));
  EXPECT_THAT(text, HasSubstr("EXPECT_EQ(Shape(memory, 2), \"-w\");"));
}

TEST(VmmGtest, HasNothingTheTraceDoesNotNeed) {
  const std::string text = TestOf(Parsed("ops\nadd_ram\nread\n"));
  for (const char* needless :
       {"HostCallFailure", "MakeFile", "Rom", "Doorbell", "Event", "LockedPages", "IsSignalled"}) {
    EXPECT_THAT(text, Not(HasSubstr(needless)));
  }
}

TEST(VmmGtest, NamesBytesByWhereTheyComeFrom) {
  const std::string text = TestOf(Parsed("ops\nnew_rom\nmap_rom page=1\nread page=1 at=8 size=100\n"));
  EXPECT_THAT(text, HasSubstr("Difference(Rom(0, 8, 100), buffer3)"));
}

TEST(VmmGtest, AHostCallFailsWhereTheGuestCameToIt) {
  const Trace trace = Parsed("ops\nadd_ram fail=1\nadd_ram fail=8\n");
  EXPECT_EQ(HostCallsOf(trace), (std::vector<bool>{true, false}));
  const std::string text = TestOf(trace);
  EXPECT_THAT(text, HasSubstr("HostCallFailure failure1(1);"));
  EXPECT_THAT(text, HasSubstr("ErrorKind::kResourceExhausted"));
  EXPECT_THAT(text, Not(HasSubstr("HostCallFailure failure2")));
}

TEST(VmmGtest, WhereTheGuestHasCrashedTheHostCallCountsAsFailed) {
  EXPECT_THAT(ToTestSource(Parsed("ops\nadd_ram\nadd_ram page=1 fail=2\n"), {false}, "x"),
              HasSubstr("HostCallFailure failure2(2);"));
}

TEST(VmmGtest, EveryKindOfOperationCanBeWritten) {
  const Trace before = Parsed("ops\nadd_ram\nnew_region\nnew_rom\nmap_rom page=1\nnew_event\nregister page=2\nlock\n");
  for (const trace::Kind& kind : Rows().ops().kinds) {
    Trace trace = before;
    Op op;
    op.kind = static_cast<OpKind>(kind.number);
    trace.ops.push_back(op);
    const std::string text = TestOf(trace), heading = "  // " + OpText(op) + "\n";
    const size_t at = text.rfind(heading);
    ASSERT_NE(at, text.npos) << OpText(op);
    EXPECT_THAT(text.substr(at + heading.size(), 3), testing::MatchesRegex("  [a-zA-Z]")) << OpText(op);  // a statement
  }
}

}  // namespace
}  // namespace reference::vmm
