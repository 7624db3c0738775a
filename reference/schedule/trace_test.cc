// The two spellings of concurrent traces: total and lossless.

#include "reference/schedule/trace.h"

#include <gtest/gtest.h>

#include "reference/trace/spellings.h"

namespace reference::schedule {
namespace {

TEST(ConcurrentTrace, EveryByteStringIsALegalTraceAndBothSpellingsAreLossless) { trace::ExpectEveryByteStringIsATrace<Trace>(Rows()); }

TEST(ConcurrentTrace, AMutationOfOneOpLeavesTheOthersAlone) { trace::ExpectOpsAreIndependent<Trace>(Rows()); }

TEST(ConcurrentTrace, RefusalsNameTheLineAndTheWord) {
  const auto error = [](const std::string& text) {
    const auto parsed = FromText(text);
    const auto* refused = std::get_if<TextError>(&parsed);
    return refused == nullptr ? std::string() : std::to_string(refused->line) + ": " + refused->reason;
  };
  const auto world = [&](const std::string& lines) { return error("guestmem schedule 1\n" + lines); };
  EXPECT_EQ(error(""), "1: expected the header 'guestmem schedule 1', found the end of the text");
  EXPECT_EQ(world("threads 9\n"), "2: threads 9 is too large: the largest is 3");
  EXPECT_EQ(world("membarrier perhaps\n"), "2: unknown membarrier 'perhaps'; membarriers are: here, refused");
  EXPECT_EQ(world("membarrier\n"), "2: membarrier needs the word refused");
  EXPECT_EQ(world("page wr\n"), "2: 'wr' is not one of rw r- -w --");
  EXPECT_EQ(world("page rw hole missing\n"), "2: part of this line has no effect; what has is: page rw hole");
  EXPECT_EQ(world("page rw\npage rw\npage rw\npage rw\npage rw\n"), "6: more than 4 page lines");
  EXPECT_EQ(world("handler maybe\n"),
            "2: unknown answer 'maybe'; answers are: fail, retry, grant, restore, revoke_other, retry_forever");
  EXPECT_EQ(world("handler fail fail fail fail fail\n"), "2: more than 4 answers");
  EXPECT_EQ(world("choices 9\n"), "2: choice 9 is too large: the largest is 5");
  EXPECT_EQ(world("choices 0*4001\n"), "2: choice's count 4001 is too large: the largest is 4000");
  EXPECT_NE(world("ops\n0 reed page=0\n").find("3: unknown operation 'reed'; operations are: read, write"), std::string::npos);
  EXPECT_EQ(world("ops\n0 read cell=7\n"), "3: cell 7 is not in the list of interesting cells: 0, 8, 2048, 4088");
  EXPECT_EQ(world("ops\n0 read page=1\n"), "3: part of this line has no effect; what has is: 0 read page=0");
}

}  // namespace
}  // namespace reference::schedule
