// Watches the model's ranges and streams: every expected number here was worked out by hand from the contract. Mapped
// bytes of backing 0, also by hand: byte 0 is 1, byte 1 is 8, byte 4095 is 189 and byte 4096 is 209.

#include <gtest/gtest.h>

#include "reference/model/model.h"

// Safe because every field of Step that a test leaves out has a default, of its own or its type's.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace reference {
namespace {

using Bytes = std::vector<uint8_t>;
using Numbers = std::vector<uint64_t>;

class ModelRangesTest : public testing::Test {
 protected:
  ModelRangesTest() {
    world_.backings.resize(1);
    model_.Start(world_);
  }
  const Outcome& Run(const Step& step) {
    model_.Run(step, outcome_);
    return outcome_;
  }
  const Outcome& Set(uint64_t offset, uint64_t length, const Numbers& gpns) {
    return Run({.kind = StepKind::kRangeSet, .length = length, .gpns = gpns, .offset = offset});
  }
  Bytes Delivered() { return Bytes(outcome_.data.begin() + 16, outcome_.data.end() - 16); }

  World world_;
  Model model_;
  Outcome outcome_;
};

TEST_F(ModelRangesTest, IterationMergesAndStopsAtAnInvalidGpn) {
  EXPECT_EQ(Set(4095, 4 * 4096 + 2, {7, 1, 2, 2, 0xf'ffff'ffff'ffff, 3}).lengths, Numbers{16386});
  const Outcome& seen = Run({.kind = StepKind::kRangeIterate});
  ASSERT_EQ(seen.parts.size(), 1u);
  EXPECT_EQ(seen.parts[0].offset, 4095u);
  EXPECT_EQ(seen.parts[0].gpns, (Numbers{7, 1, 2, 2, 0xf'ffff'ffff'ffff, 3}));
  EXPECT_EQ(seen.parts[0].runs, (std::vector<Range>{{0x7fff, 1}, {0x1000, 8192}, {0x2000, 4096}}));
  EXPECT_EQ(seen.parts[0].invalid_gpn, 0xf'ffff'ffff'ffffu);
}

TEST_F(ModelRangesTest, WhatDoesNotFitIsRefusedAndChangesNothing) {
  Set(1, 4095, {0});
  EXPECT_TRUE(Set(2, 4095, {0}).refused);
  EXPECT_TRUE(Set(~uint64_t{0}, ~uint64_t{0}, {0}).refused);
  EXPECT_TRUE(Run({.kind = StepKind::kRangeSkip, .length = 4096}).refused);
  EXPECT_EQ(outcome_.lengths, Numbers{4095});
}

TEST_F(ModelRangesTest, CutsKeepTheRightBytes) {
  Set(4094, 4, {1, 0});
  Run({.kind = StepKind::kRangeSplit, .slot = 2, .length = 1});
  EXPECT_EQ(outcome_.lengths, Numbers{1});
  Run({.kind = StepKind::kRangeIterate, .object = 2});
  EXPECT_EQ(outcome_.lengths, Numbers{3});
  EXPECT_EQ(outcome_.parts[0].runs, (std::vector<Range>{{0x1fff, 1}, {0x0, 2}}));
}

TEST_F(ModelRangesTest, AReadCountsOverAllPagesUpToTheOneThatFails) {
  Set(4095, 4098, {1, 0, 3});
  Run({.kind = StepKind::kRangeRead});
  EXPECT_EQ(outcome_.kind, ErrorKind::kOutOfRange);
  EXPECT_EQ(outcome_.fault_address, 0x3000u);
  EXPECT_EQ(outcome_.transferred, 4097u);
  EXPECT_FALSE(outcome_.range);
  EXPECT_EQ(outcome_.text, "guest memory 'world': read error: failed to access memory at 0x3000");
  EXPECT_EQ(Delivered()[1], 1u);
  EXPECT_EQ(Delivered()[4096], 189u);
  EXPECT_EQ(Delivered()[4097], 0xa5u);
}

TEST_F(ModelRangesTest, ABufferOfAnotherLengthIsAnArgumentError) {
  Set(0, 10, {0xf'ffff'ffff'ffff});
  Run({.kind = StepKind::kRangeWrite, .choice = 2});
  EXPECT_EQ(outcome_.kind, ErrorKind::kInvalidArgument);
  EXPECT_FALSE(outcome_.fault_address);
  Run({.kind = StepKind::kRangeWrite});
  EXPECT_EQ(outcome_.kind, ErrorKind::kInvalidGpn);
}

TEST_F(ModelRangesTest, AStreamAdvancesThroughItsLimits) {
  Run({.kind = StepKind::kReaderOpen, .length = 10, .value = 0, .form = 1});
  EXPECT_EQ(Run({.kind = StepKind::kReaderLimit, .length = 4}).lengths, (Numbers{10, 4}));
  EXPECT_EQ(Run({.kind = StepKind::kReaderPlain, .size = 2}).number, 0x0300u);
  EXPECT_EQ(outcome_.lengths, (Numbers{8, 2}));
  Run({.kind = StepKind::kReaderArray, .length = 3, .size = 1});
  EXPECT_EQ(outcome_.text, "guest memory 'stream': read error: failed to access memory: 3 bytes wanted, 2 left");
  EXPECT_EQ(outcome_.lengths, (Numbers{8, 2}));
  EXPECT_EQ(Run({.kind = StepKind::kReaderAll}).data, (Bytes{6, 9}));
  EXPECT_EQ(Run({.kind = StepKind::kReaderLimit, .form = 1}).lengths, Numbers{6});
}

TEST_F(ModelRangesTest, AFailedStreamCallStaysWhereItWas) {
  Run({.kind = StepKind::kRangeAppend, .length = 3, .gpns = {0}});
  Run({.kind = StepKind::kRangeAppend, .length = 3, .gpns = {3}});
  Run({.kind = StepKind::kWriterOpen});
  Run({.kind = StepKind::kWriterFill, .length = 4, .value = 0x77});
  EXPECT_EQ(outcome_.kind, ErrorKind::kOutOfRange);
  EXPECT_EQ(outcome_.operation, Operation::kFill);
  EXPECT_EQ(outcome_.transferred, 3u);
  EXPECT_EQ(outcome_.lengths, Numbers{6});
  EXPECT_EQ(model_.MappedPage(0, 0)[2], 0x77u);
  EXPECT_EQ(Run({.kind = StepKind::kWriterFill, .length = 3}).lengths, Numbers{3});
}

}  // namespace
}  // namespace reference
