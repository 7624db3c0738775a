// The two spellings of concurrent traces: total and lossless.

#include "reference/schedule/trace.h"

#include <gtest/gtest.h>

#include <random>

namespace reference::schedule {
namespace {

TEST(ConcurrentTrace, EveryByteStringIsALegalTraceAndBothSpellingsAreLossless) {
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<uint8_t> bytes(random() % 200);
    for (uint8_t& byte : bytes) {
      byte = static_cast<uint8_t>(random());
    }
    const Trace trace = FromBytes(bytes);
    EXPECT_EQ(FromBytes(ToBytes(trace)), trace);
    const auto parsed = FromText(ToText(trace));
    ASSERT_TRUE(std::holds_alternative<Trace>(parsed)) << ToText(trace) << std::get<TextError>(parsed).reason;
    EXPECT_EQ(std::get<Trace>(parsed), trace) << ToText(trace);
  }
}

TEST(ConcurrentTrace, AMutationOfOneOpLeavesTheOthersAlone) {
  std::vector<uint8_t> bytes(kHeaderBytes + 4 * kOpBytes + 3, 0);
  bytes[2] = 4;
  const Trace before = FromBytes(bytes);
  bytes[kHeaderBytes + kOpBytes] = 9;
  Trace after = FromBytes(bytes);
  EXPECT_NE(after.ops[1], before.ops[1]);
  after.ops[1] = before.ops[1];
  EXPECT_EQ(after, before);
}

TEST(ConcurrentTrace, RefusalsNameTheLineAndTheWord) {
  const auto error = [](const std::string& text) {
    const auto parsed = FromText(text);
    const auto* refused = std::get_if<TextError>(&parsed);
    return refused == nullptr ? std::string() : std::to_string(refused->line) + ": " + refused->reason;
  };
  EXPECT_NE(error("").find("empty"), std::string::npos);
  EXPECT_NE(error("guestmem schedule 1\nthreads 9\n").find("2: threads wants a number"), std::string::npos);
  EXPECT_NE(error("guestmem schedule 1\nmembarrier perhaps\npage rw\n").find("2: after membarrier comes the word refused"), std::string::npos);
  EXPECT_NE(error("guestmem schedule 1\npage rw\n0 reed page=0\n").find("3: 'reed' is no op"), std::string::npos);
  EXPECT_NE(error("guestmem schedule 1\npage rw\n0 read cell=7\n").find("3: cell wants a number"), std::string::npos);
  EXPECT_NE(error("guestmem schedule 1\npage rw\nhandler maybe\n").find("'maybe' is no answer"), std::string::npos);
  EXPECT_NE(error("guestmem schedule 1\npage rw\nchoices 9\n").find("'9' is no choice"), std::string::npos);
}

}  // namespace
}  // namespace reference::schedule
