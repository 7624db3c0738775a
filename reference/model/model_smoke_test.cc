// Watches the gold standard: every expected number here was worked out by hand from the contract. The model's
// first bytes, also by hand: mapped byte 4 of backing 0 is 4*7+1 = 29, byte 4094 is 182, 4095 is 189, 4096 is 209.

#include <gtest/gtest.h>

#include <algorithm>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

// Safe because every field of Step that a test leaves out has a default, of its own or its type's.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace reference {
namespace {

using Bytes = std::vector<uint8_t>;

World OneRegion() {
  World world;
  world.backings.resize(1);
  return world;
}

class ModelTest : public testing::Test {
 protected:
  const Outcome& Run(const Step& step) {
    model_.Run(step, outcome_);
    return outcome_;
  }
  uint8_t Mapped(uint64_t address) { return model_.MappedPage(0, address / 4096)[address % 4096]; }
  uint8_t Slow(uint64_t address) { return model_.SlowPage(0, address / 4096)[address % 4096]; }
  Bytes Delivered() { return Bytes(outcome_.data.begin() + 16, outcome_.data.end() - 16); }
  bool GuardsHold() {
    const auto untouched = [](uint8_t byte) { return byte == 0xa5; };
    return std::all_of(outcome_.data.begin(), outcome_.data.begin() + 16, untouched) &&
           std::all_of(outcome_.data.end() - 16, outcome_.data.end(), untouched);
  }
  Model model_;
  Outcome outcome_;
};

TEST_F(ModelTest, PlainReadMayCrossPages) {
  model_.Start(OneRegion());
  Run({.kind = StepKind::kReadPlain, .gpa = 4095, .size = 2});
  EXPECT_TRUE(outcome_.ok);
  EXPECT_EQ(outcome_.number, 53693u);  // 189 + 209 * 256
  EXPECT_TRUE(outcome_.calls.empty());
}

TEST_F(ModelTest, BulkFaultMovesExactlyThePrefix) {
  World world = OneRegion();
  world.backings[0].page[1].state = PageState::kHole;
  model_.Start(world);
  Run({.kind = StepKind::kRead, .gpa = 4094, .length = 4});
  EXPECT_FALSE(outcome_.ok);
  EXPECT_EQ(outcome_.kind, ErrorKind::kNotMapped);
  EXPECT_EQ(outcome_.code, 9);
  EXPECT_EQ(outcome_.operation, Operation::kRead);
  EXPECT_EQ(outcome_.range, (Range{4094, 4}));
  EXPECT_EQ(outcome_.fault_address, 4096u);
  EXPECT_EQ(outcome_.transferred, 2u);
  EXPECT_EQ(outcome_.text, "guest memory 'world': read error: failed to access 0xffe-0x1002 at 0x1000");
  EXPECT_EQ(Delivered(), (Bytes{182, 189, 0xa5, 0xa5}));
  EXPECT_TRUE(GuardsHold());
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kPageFault, 0, 4096, 2, Access::kRead, false, 0, 0}}));
}

TEST_F(ModelTest, RefusedPageStopsBeforeAnythingMoves) {
  World world = OneRegion();
  world.backings[0].has_bitmap = true;
  world.backings[0].page[1].writable = false;
  model_.Start(world);
  Run({.kind = StepKind::kWrite, .gpa = 4094, .length = 4, .value = 0x0102030405060708});
  EXPECT_EQ(outcome_.kind, ErrorKind::kAccessDenied);
  EXPECT_EQ(outcome_.code, 7);
  EXPECT_EQ(outcome_.fault_address, 4096u);
  EXPECT_EQ(outcome_.transferred, 0u);
  EXPECT_EQ(Delivered(), (Bytes{8, 10, 12, 14}));
  EXPECT_EQ(Mapped(4094), 182);
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kPageFault, 0, 4096, 2, Access::kWrite, true, 0, 0}}));
  EXPECT_TRUE(Run({.kind = StepKind::kRead, .gpa = 4094, .length = 4}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kSetBit, .page = 1, .choice = 1, .access = Access::kWrite}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kWrite, .gpa = 4094, .length = 4, .value = 0x0102030405060708}).ok);
  EXPECT_EQ(Mapped(4097), 14);
}

TEST_F(ModelTest, FallbackGetsTheRest) {
  World world = OneRegion();
  world.backings[0].page[1].state = PageState::kReadOnly;
  world.handler = {HandlerAnswer::kFallback};
  model_.Start(world);
  EXPECT_TRUE(Run({.kind = StepKind::kFill, .gpa = 4094, .length = 4, .value = 0x1177}).ok);
  EXPECT_EQ(Mapped(4095), 0x77);
  EXPECT_EQ(Mapped(4096), 209);
  EXPECT_EQ(Slow(4096), 0x77);
  EXPECT_EQ(Slow(4097), 0x77);
  EXPECT_EQ(Slow(4098), 90);
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kPageFault, 0, 4096, 2, Access::kWrite, false, 0, 0},
                                               {CallKind::kFillFallback, 0, 4096, 2, Access::kRead, false, 0x77, 0}}));
}

TEST_F(ModelTest, FailingFallbackOfAnObjectIsHandedAllOfIt) {
  World world = OneRegion();
  world.backings[0].page[1].state = PageState::kHole;
  world.handler = {HandlerAnswer::kFallback, HandlerAnswer::kFallback};
  world.fallback = {FallbackAnswer::kFailMoved, FallbackAnswer::kFailOutside};
  model_.Start(world);
  const Step step = {.kind = StepKind::kWritePlain, .gpa = 4094, .size = 4, .value = 0x44332211};
  Run(step);
  EXPECT_EQ(outcome_.kind, ErrorKind::kBackend);
  EXPECT_EQ(outcome_.code, 10);
  EXPECT_EQ(outcome_.fault_address, 4097u);
  EXPECT_EQ(outcome_.transferred, 3u);
  EXPECT_EQ(Mapped(4094), 182);
  EXPECT_EQ(Slow(4094), 0x11);
  EXPECT_EQ(Slow(4096), 0x33);
  EXPECT_EQ(Slow(4097), 85);
  EXPECT_EQ(outcome_.calls[1], (Call{CallKind::kWriteFallback, 0, 4094, 4, Access::kRead, false, 0, 0}));
  Run(step);
  EXPECT_EQ(outcome_.fault_address, 4094u);
  EXPECT_EQ(outcome_.transferred, 0u);
}

TEST_F(ModelTest, RetryResumesBulkAndRestartsObjects) {
  World world = OneRegion();
  world.backings[0].has_bitmap = true;
  world.backings[0].page[1].state = PageState::kHole;
  world.handler = {HandlerAnswer::kDefault, HandlerAnswer::kRefuseRetry};  // page 1 begins with the second
  model_.Start(world);
  EXPECT_TRUE(Run({.kind = StepKind::kRead, .gpa = 4095, .length = 2}).ok);
  EXPECT_EQ(Delivered(), (Bytes{189, 209}));
  EXPECT_EQ(model_.State(0, 1), PageState::kRam);
  EXPECT_FALSE(model_.Bit(0, 0, Access::kRead));

  model_.Start(world);
  Run({.kind = StepKind::kReadPlain, .gpa = 4095, .size = 2});
  EXPECT_EQ(outcome_.kind, ErrorKind::kAccessDenied);
  EXPECT_EQ(outcome_.fault_address, 4095u);
  EXPECT_EQ(outcome_.text, "guest memory 'world': read error: failed to access 0xfff-0x1001");
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kPageFault, 0, 4096, 1, Access::kRead, false, 0, 0},
                                               {CallKind::kPageFault, 0, 4095, 2, Access::kRead, true, 0, 0}}));
}

TEST_F(ModelTest, ViewsAreJudgedByTheBackingAndAnswerInTheirOwnCoordinates) {
  World world = OneRegion();
  world.backings[0].page[1].state = PageState::kBus;
  world.backings[0].has_iova = true;
  model_.Start(world);
  EXPECT_TRUE(Run({.kind = StepKind::kSubrange, .slot = 1, .gpa = 2, .length = 5000}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kSubrange, .target = 1, .slot = 2, .gpa = 4000, .length = 1000}).ok);
  EXPECT_FALSE(Run({.kind = StepKind::kSubrange, .target = 1, .slot = 3, .gpa = 4000, .length = 1001}).ok);
  EXPECT_EQ(outcome_.kind, ErrorKind::kOutOfRange);
  EXPECT_TRUE(Run({.kind = StepKind::kSubrange, .target = 1, .slot = 3, .gpa = 5000}).ok);

  Run({.kind = StepKind::kRead, .target = 2, .gpa = 50, .length = 100});
  EXPECT_EQ(outcome_.fault_address, 94u);  // 4096 - 4002
  EXPECT_EQ(outcome_.transferred, 44u);
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kPageFault, 0, 4096, 56, Access::kRead, false, 0, 0}}));
  EXPECT_EQ(Run({.kind = StepKind::kIova, .target = 2, .gpa = 999}).number, 0x70001389u);  // 4002 + 999 = 0x1389
  EXPECT_EQ(Run({.kind = StepKind::kIova, .target = 2, .gpa = 1000}).number, std::nullopt);
  EXPECT_EQ(Run({.kind = StepKind::kFullMapping, .target = 2}).number, 1000u);

  Run({.kind = StepKind::kCompareExchange, .target = 1, .gpa = 4, .size = 4});
  EXPECT_EQ(outcome_.kind, ErrorKind::kMisaligned);
  EXPECT_EQ(outcome_.fault_address, 4u);
  const Step step = {.kind = StepKind::kCompareExchange, .target = 1, .gpa = 2, .size = 4, .value = 0xff'322b241d, .desired = 7};
  EXPECT_TRUE(Run(step).swapped);  // bytes 4..7: 29, 36, 43, 50
  EXPECT_EQ(outcome_.number, 0x322b241du);
  EXPECT_FALSE(Run(step).swapped);
  EXPECT_TRUE(outcome_.ok);
  EXPECT_EQ(outcome_.number, 7u);
}

TEST_F(ModelTest, RangeChecksDoNotWrap) {
  World world = OneRegion();
  world.backings[0].trim = 1;
  model_.Start(world);
  Run({.kind = StepKind::kFill, .gpa = 0xffff'ffff'ffff'fff8, .length = 16});
  EXPECT_EQ(outcome_.kind, ErrorKind::kOutOfRange);
  EXPECT_EQ(outcome_.code, 11);
  EXPECT_EQ(outcome_.text, "guest memory 'world': fill error: failed to access 0xfffffffffffffff8+0x10");
  Run({.kind = StepKind::kProbeReadable, .gpa = 1, .length = 0xffff'ffff'ffff'ffff});
  EXPECT_EQ(outcome_.text, "guest memory 'world': probe error: failed to access 0x1+0xffffffffffffffff");
  EXPECT_TRUE(Run({.kind = StepKind::kFill, .gpa = 0xffff'ffff'ffff'ffff}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kRead, .gpa = 12286, .length = 1}).ok);
  EXPECT_FALSE(Run({.kind = StepKind::kRead, .gpa = 12286, .length = 2}).ok);
  EXPECT_EQ(outcome_.fault_address, 12286u);
}

TEST_F(ModelTest, BulkRunsFromRegionToRegionInPieces) {
  World world;
  world.region_pages = 1;
  world.backings.resize(4);
  for (Backing& backing : world.backings) backing.pages = 1;
  world.backings[2].present = false;
  model_.Start(world);
  EXPECT_TRUE(Run({.kind = StepKind::kRead, .gpa = 4095, .length = 2}).ok);
  EXPECT_EQ(Delivered(), (Bytes{189, 102}));
  EXPECT_EQ(Run({.kind = StepKind::kReadPlain, .gpa = 4095, .size = 2}).kind, ErrorKind::kOutOfRange);
  EXPECT_FALSE(Run({.kind = StepKind::kRead, .gpa = 8191, .length = 2}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kRead, .gpa = 16383, .length = 1}).ok);
  EXPECT_FALSE(Run({.kind = StepKind::kSubrange, .gpa = 4095, .length = 2}).ok);
  EXPECT_EQ(Run({.kind = StepKind::kFullMapping}).number, std::nullopt);

  EXPECT_TRUE(Run({.kind = StepKind::kUnmap, .backing = 5, .page = 0, .count = 1}).ok);
  Run({.kind = StepKind::kFill, .gpa = 4090, .length = 10});
  EXPECT_EQ(outcome_.fault_address, 4096u);
  EXPECT_EQ(outcome_.transferred, 6u);
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kPageFault, 1, 0, 4, Access::kWrite, false, 0, 0}}));
}

TEST_F(ModelTest, ProbesFallBackByteByByte) {
  World world = OneRegion();
  world.backings[0].mapped = false;
  model_.Start(world);
  EXPECT_TRUE(Run({.kind = StepKind::kProbeWritable, .gpa = 4000, .length = 4100}).ok);
  EXPECT_EQ(outcome_.calls, (std::vector<Call>{{CallKind::kCompareExchangeFallback, 0, 4000, 1, Access::kRead, false, 0, 0},
                                               {CallKind::kCompareExchangeFallback, 0, 4096, 1, Access::kRead, false, 0, 0}}));
  Run({.kind = StepKind::kProbeExecutable, .gpa = 4000, .length = 4100});
  EXPECT_EQ(outcome_.kind, ErrorKind::kNoFallback);
  EXPECT_EQ(outcome_.fault_address, 4000u);
  EXPECT_TRUE(outcome_.calls.empty());
}

TEST_F(ModelTest, ProbeGpnsProbesInOrderAndReportsInvalidOnesWhenReached) {
  World world = OneRegion();
  world.backings[0].page[1].state = PageState::kHole;
  world.handler = {HandlerAnswer::kFixRetry};
  model_.Start(world);
  Run({.kind = StepKind::kProbeGpns, .gpns = {1, 0xf'ffff'ffff'ffff}});
  EXPECT_EQ(model_.State(0, 1), PageState::kRam);
  EXPECT_EQ(outcome_.kind, ErrorKind::kInvalidGpn);
  EXPECT_EQ(outcome_.gpn, 0xf'ffff'ffff'ffffu);
  EXPECT_EQ(outcome_.fault_address, std::nullopt);
  EXPECT_EQ(outcome_.calls.size(), 1u);
  EXPECT_EQ(outcome_.text, "guest memory 'world': probe error: failed to access memory");
  Run({.kind = StepKind::kProbeGpns, .gpns = {0xf'ffff'ffff'fffe}});
  EXPECT_EQ(outcome_.kind, ErrorKind::kOutOfRange);
  EXPECT_EQ(outcome_.text, "guest memory 'world': probe error: failed to access memory at 0xffffffffffffe000");
}

TEST_F(ModelTest, HostCallsAreCountedAndTheChosenOneFails) {
  World world = OneRegion();
  world.failing_host_call = 3;
  world.handler = {HandlerAnswer::kFixAllRetry};
  model_.Start(world);
  EXPECT_EQ(Run({.kind = StepKind::kUnmap, .page = 3, .count = 2}).kind, ErrorKind::kInvalidArgument);
  EXPECT_TRUE(Run({.kind = StepKind::kUnmap, .page = 1, .count = 2}).ok);
  Run({.kind = StepKind::kFill, .gpa = 4095, .length = 8000, .value = 9});
  EXPECT_EQ(outcome_.kind, ErrorKind::kBackend);
  EXPECT_EQ(outcome_.code, 8);
  EXPECT_EQ(outcome_.transferred, 1u);
  EXPECT_EQ(model_.State(0, 1), PageState::kRam);
  EXPECT_EQ(model_.State(0, 2), PageState::kHole);
  EXPECT_EQ(Mapped(4096), 0);

  model_.Start(world);
  EXPECT_TRUE(Run({.kind = StepKind::kMapZero, .page = 0, .count = 1}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kProtect, .page = 1, .count = 1, .choice = 0}).ok);
  Run({.kind = StepKind::kProtect, .page = 1, .count = 2, .choice = 2});
  EXPECT_EQ(outcome_.kind, ErrorKind::kResourceExhausted);
  EXPECT_EQ(outcome_.text, "guest memory 'sparse mapping': create error: failed to access 0x1000-0x3000");
  EXPECT_EQ(model_.State(0, 1), PageState::kHole);
  EXPECT_TRUE(Run({.kind = StepKind::kProtect, .page = 1, .count = 1, .choice = 1}).ok);
  EXPECT_EQ(Run({.kind = StepKind::kReadPlain, .gpa = 4095, .size = 2}).number, 53504u);  // 0 + 209 * 256
}

TEST_F(ModelTest, PagesThatShowOneFilePageAreOne) {
  model_.Start(OneRegion());
  EXPECT_TRUE(Run({.kind = StepKind::kMapFile, .page = 0, .count = 1, .choice = 2, .form = 1}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kMapFile, .page = 1, .count = 1, .choice = 2, .form = 0}).ok);
  EXPECT_EQ(Mapped(7), FilePattern(2 * kPageSize + 7));
  EXPECT_TRUE(Run({.kind = StepKind::kFill, .gpa = 7, .length = 1, .value = 9}).ok);
  EXPECT_EQ(Mapped(kPageSize + 7), 9);
  EXPECT_EQ(Run({.kind = StepKind::kFill, .gpa = kPageSize + 7, .length = 1, .value = 8}).kind, ErrorKind::kNotMapped);
  EXPECT_TRUE(Run({.kind = StepKind::kAllocate, .page = 0, .count = 1}).ok);
  EXPECT_EQ(Mapped(7), 0);
  EXPECT_EQ(Mapped(kPageSize + 7), 9);
  model_.Start(OneRegion());
  EXPECT_TRUE(Run({.kind = StepKind::kMapFile, .page = 0, .count = 1, .choice = 2}).ok);
  EXPECT_EQ(Mapped(7), FilePattern(2 * kPageSize + 7));  // every world has a file of its own
}

TEST_F(ModelTest, TheFilesLastPageIsMissing) {
  model_.Start(OneRegion());
  EXPECT_TRUE(Run({.kind = StepKind::kMapFile, .page = 0, .count = 2, .choice = 2, .form = 1}).ok);
  EXPECT_EQ(model_.State(0, 0), PageState::kRam);
  EXPECT_EQ(model_.State(0, 1), PageState::kBus);
  EXPECT_EQ(Mapped(kPageSize), 0);
}

TEST_F(ModelTest, DecommitZeroesWhatIsNotTheFiles) {
  model_.Start(OneRegion());
  EXPECT_TRUE(Run({.kind = StepKind::kMapFile, .page = 1, .count = 1, .choice = 0}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kDecommit, .page = 0, .count = 2}).ok);
  EXPECT_EQ(Mapped(5), 0);
  EXPECT_EQ(Mapped(kPageSize + 5), FilePattern(5));
  EXPECT_EQ(Mapped(2 * kPageSize + 5), MappedPattern(0, 2 * kPageSize + 5));
  EXPECT_EQ(Run({.kind = StepKind::kDecommit, .page = 3, .count = 2}).kind, ErrorKind::kInvalidArgument);
}

// Start restores the pages that were stored to, and no others.
TEST_F(ModelTest, StartForgetsWhatAnyStepHasStored) {
  const World plain = OneRegion();
  World slow = OneRegion();
  slow.backings[0].mapped = false;
  World bus = OneRegion();
  bus.backings[0].page[2].state = PageState::kBus;
  const std::vector<std::pair<World, Step>> stores = {
      {plain, {.kind = StepKind::kWrite, .gpa = 4090, .length = 4110}},
      {plain, {.kind = StepKind::kFill, .gpa = 8191, .length = 2}},
      {plain, {.kind = StepKind::kWritePlain, .gpa = 4095, .size = 8}},
      {plain, {.kind = StepKind::kCompareExchange, .gpa = 0, .size = 1, .value = MappedPattern(0, 0), .desired = 9}},
      {plain, {.kind = StepKind::kRead, .gpa = 4090, .length = 12, .within = 1}},
      {plain, {.kind = StepKind::kTry, .length = 5000, .value = 3, .page = 1, .choice = 2}},
      {plain, {.kind = StepKind::kLockedCopy, .length = 1, .value = 9, .choice = 1}},
      {plain, {.kind = StepKind::kLockedCopy, .value = 9, .choice = 3}},
      {plain, {.kind = StepKind::kAllocate, .page = 0, .count = 4}},
      {plain, {.kind = StepKind::kDecommit, .page = 0, .count = 4}},
      {plain, {.kind = StepKind::kUnmap, .page = 3, .count = 1}},
      {slow, {.kind = StepKind::kWrite, .gpa = 4090, .length = 4110}},
      {slow, {.kind = StepKind::kFill, .gpa = 8191, .length = 2}},
      {slow, {.kind = StepKind::kWritePlain, .gpa = 4095, .size = 8}},
      {slow, {.kind = StepKind::kCompareExchange, .gpa = 0, .size = 1, .value = SlowPattern(0, 0), .desired = 9}},
      {bus, {.kind = StepKind::kIova}},
  };
  for (const auto& [world, step] : stores) {
    model_.Start(world);
    Run({.kind = StepKind::kLockGpns, .gpns = {0}, .access = Access::kWrite});
    Run(step);
    bool same = true;
    for (uint64_t i = 0; i < kMaxPages * kPageSize; ++i) same = same && Mapped(i) == MappedPattern(0, i) && Slow(i) == SlowPattern(0, i);
    EXPECT_FALSE(same) << "step " << static_cast<int>(step.kind) << " stores nothing";
    model_.Become(0, 77, 0);
    model_.Start(plain);
    for (uint64_t i = 0; i < kMaxPages * kPageSize; ++i) {
      ASSERT_EQ(Mapped(i), MappedPattern(0, i)) << "step " << static_cast<int>(step.kind) << ", byte " << i;
      ASSERT_EQ(Slow(i), SlowPattern(0, i)) << "step " << static_cast<int>(step.kind) << ", byte " << i;
    }
  }
}

TEST_F(ModelTest, AFileIsAsNewAfterStart) {
  for (int run = 0; run < 2; ++run) {
    model_.Start(OneRegion());
    Run({.kind = StepKind::kMapFile, .page = 1, .count = 1, .choice = 0, .form = 1});
    EXPECT_EQ(Mapped(kPageSize + 5), FilePattern(5)) << run;
    Run({.kind = StepKind::kFill, .gpa = kPageSize, .length = 4096, .value = 1});
    EXPECT_EQ(Mapped(kPageSize + 5), 1) << run;
  }
}

TEST(DataPatternTest, AllOfThemAreEachOfThem) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{0x1122'3344'5566'7788}, ~uint64_t{0}}) {
    for (const size_t length : {0, 1, 7, 8, 9, 255, 256, 257, 4097}) {
      Bytes bytes(length + 1, 0xa5);
      PutDataPattern(value, std::span(bytes).first(length));
      for (size_t i = 0; i < length; ++i) ASSERT_EQ(bytes[i], DataPattern(value, i)) << value << ", byte " << i;
      EXPECT_EQ(bytes[length], 0xa5);
    }
  }
}

TEST(ClearTest, LeavesNothing) {
  Outcome outcome;
  outcome.ok = false;
  outcome.swapped = outcome.refused = true;
  outcome.kind = ErrorKind::kBackend;
  outcome.operation = Operation::kRevoke;
  outcome.range = Range{1, 2};
  outcome.fault_address = outcome.gpn = outcome.number = 3;
  outcome.transferred = 4;
  outcome.code = 5;
  outcome.text = "text";
  outcome.data = {6};
  outcome.calls.emplace_back();
  outcome.lengths = {7};
  outcome.parts.emplace_back();
  outcome.spans.emplace_back();
  outcome.files.emplace_back();
  Clear(outcome);
  EXPECT_EQ(outcome, Outcome());
}

}  // namespace
}  // namespace reference
