// Memory that steps make, access bitmaps and overlapping buffers in the gold standard: every expected number was worked out by
// hand from the contract.

#include <gtest/gtest.h>

#include "reference/model/model.h"

namespace reference {
namespace {

class ModelMadeTest : public testing::Test {
 protected:
  ModelMadeTest() { world_.backings.resize(1); }
  const Outcome& Run(const Step& step) {
    model_.Run(step, outcome_);
    return outcome_;
  }
  const Outcome& Make(Made made, uint64_t bytes, uint8_t form = 0, uint64_t value = 0) {
    return Run({.kind = StepKind::kMake, .slot = 1, .value = value, .choice = static_cast<uint8_t>(made), .form = form, .bytes = bytes});
  }
  const Outcome& Create(uint64_t region_size, Promise broken = Promise::kNone) {
    return Run({.kind = StepKind::kCreate, .slot = 1, .choice = static_cast<uint8_t>(broken), .form = 1, .bytes = region_size});
  }
  const Outcome& Read(uint64_t gpa, uint64_t length) { return Run({.kind = StepKind::kRead, .target = 1, .gpa = gpa, .length = length}); }
  const Outcome& InnerBuffer(uint8_t choice) { return Run({.kind = StepKind::kInnerBuffer, .target = 1, .value = 7, .choice = choice}); }

  World world_;
  Model model_;
  Outcome outcome_;
};

TEST_F(ModelMadeTest, HeapIsZeroedAndRoundedUp) {
  model_.Start(world_);
  EXPECT_TRUE(Make(Made::kHeap, 4097).ok);
  EXPECT_EQ(Run({.kind = StepKind::kFullMapping, .target = 1}).number, 8192u);
  EXPECT_TRUE(Read(0, 8192).ok);
  EXPECT_EQ(outcome_.data[kGuardBytes + 8191], 0);
  EXPECT_EQ(Read(8191, 2).kind, ErrorKind::kOutOfRange);
  EXPECT_EQ(outcome_.text, "guest memory 'heap': read error: failed to access 0x1fff-0x2001");
  EXPECT_EQ(Make(Made::kHeap, (uint64_t{1} << 63) - 4095).text, "guest memory 'heap': create error: failed to access 0x0-0x7ffffffffffff001");
  EXPECT_TRUE(Read(0, 8192).ok) << "a failure leaves the handle as it was";
}

TEST_F(ModelMadeTest, ReservedMemoryRefusesOnePageAndHasNone) {
  model_.Start(world_);
  EXPECT_TRUE(Make(Made::kSparse, uint64_t{1} << 21, 1, 100).ok);
  EXPECT_EQ(Read(99 * kPageSize, 4097).fault_address, 100 * kPageSize);
  EXPECT_EQ(outcome_.kind, ErrorKind::kAccessDenied);
  EXPECT_EQ(Read(101 * kPageSize + 1, 4097).fault_address, 101 * kPageSize + 1);
  EXPECT_EQ(outcome_.kind, ErrorKind::kNotMapped);
  EXPECT_TRUE(outcome_.calls.empty());
  EXPECT_EQ(Make(Made::kSparse, 0).kind, ErrorKind::kInvalidArgument);
  EXPECT_EQ(Make(Made::kSparse, (uint64_t{1} << 47) - 4095).kind, ErrorKind::kInvalidArgument);
  EXPECT_EQ(Make(Made::kSparse, (uint64_t{1} << 47) - 4096).kind, ErrorKind::kResourceExhausted);
}

TEST_F(ModelMadeTest, SharedMemoryTakesFiveHostCalls) {
  world_.failing_host_call = 5;
  world_.host_error = HostError::kNotPermitted;
  model_.Start(world_);
  EXPECT_EQ(Make(Made::kShared, 4096).kind, ErrorKind::kInvalidArgument);
  EXPECT_TRUE(Make(Made::kShared, 4096).ok);
  Run({.kind = StepKind::kSharing, .target = 1});
  EXPECT_EQ(outcome_.files, (std::vector<File>{{kMaxBackings, 0, 0, 4096}}));
  EXPECT_EQ(outcome_.data.size(), 16u);
}

TEST_F(ModelMadeTest, InnerBufferIsTheOwnersAloneWhileUnshared) {
  model_.Start(world_);
  EXPECT_FALSE(InnerBuffer(0).number) << "not of the world";
  Make(Made::kHeap, 4096);
  EXPECT_EQ(InnerBuffer(1).number, 4096u);
  EXPECT_EQ(Run({.kind = StepKind::kReadPlain, .target = 1, .size = 1}).number, 7u);
  Run({.kind = StepKind::kSubrange, .target = 1, .slot = 2, .length = 1});
  EXPECT_FALSE(InnerBuffer(1).number);
  EXPECT_EQ(InnerBuffer(0).number, 4096u);
  Run({.kind = StepKind::kMake, .slot = 2});
  EXPECT_EQ(InnerBuffer(2).number, 4096u);
  EXPECT_EQ(Read(0, 1).text, "guest memory 'empty': read error: failed to access 0x0-0x1");
}

TEST_F(ModelMadeTest, RegionsArePowersOfTwoBelowHalfOfAll) {
  world_.region_pages = 4;
  world_.backings.resize(3);  // four regions
  model_.Start(world_);
  for (const uint64_t size : {uint64_t{0}, uint64_t{2048}, uint64_t{12288}, uint64_t{8192}, uint64_t{1} << 62}) {
    EXPECT_EQ(Create(size).kind, ErrorKind::kInvalidArgument) << size;
  }
  EXPECT_EQ(Create(16384, Promise::kSize).kind, ErrorKind::kInvalidArgument);
  EXPECT_EQ(Create(16384, Promise::kMapping).kind, ErrorKind::kInvalidArgument);
  EXPECT_TRUE(Create(16384, Promise::kBitOffset).ok) << "it has no bitmap";
  EXPECT_TRUE(Create(uint64_t{1} << 61).ok);
  EXPECT_TRUE(Read(uint64_t{1} << 62, 12288).ok) << "backing 2";
}

TEST_F(ModelMadeTest, RevokeOfALockedPageChangesNothing) {
  world_.backings[0].has_bitmap = world_.backings[0].managed = true;
  model_.Start(world_);
  EXPECT_TRUE(Run({.kind = StepKind::kLockGpns, .gpns = {2, 1}}).ok);
  EXPECT_EQ(Run({.kind = StepKind::kRevoke, .page = 0, .count = 3, .choice = 7}).gpn, 1u);
  EXPECT_EQ(outcome_.text, "guest memory 'bitmap': revoke error: failed to access 0x0-0x3000");
  EXPECT_TRUE(model_.Bit(0, 0, Access::kRead));
  EXPECT_EQ(Run({.kind = StepKind::kHold, .gpns = {2, 2}, .form = 1}).kind, ErrorKind::kInvalidArgument);
  EXPECT_EQ(Run({.kind = StepKind::kWaitUnlocked, .page = 2, .count = 1}).kind, ErrorKind::kLocked);
  EXPECT_TRUE(Run({.kind = StepKind::kUnlock}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kRevoke, .page = 0, .count = 1, .choice = 2}).ok);
  EXPECT_FALSE(model_.Bit(0, 0, Access::kWrite));
  EXPECT_TRUE(model_.Bit(0, 0, Access::kRead));
  EXPECT_EQ(Run({.kind = StepKind::kGrant, .page = 3, .count = 1, .choice = 2}).kind, ErrorKind::kInvalidArgument);
}

TEST_F(ModelMadeTest, AnOverlappingReadMovesWhatWasThere) {
  model_.Start(world_);
  EXPECT_TRUE(Run({.kind = StepKind::kRead, .gpa = 4096 - 8, .length = 64, .within = 1}).ok);
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(model_.MappedPage(0, 1)[i], MappedPattern(0, 4096 - 8 + i)) << i;
  EXPECT_EQ(model_.MappedPage(0, 1)[64], MappedPattern(0, 4096 + 64));
}

TEST_F(ModelMadeTest, AnOverlappingFailureCountsNothing) {
  world_.backings[0].page[2].state = PageState::kHole;
  model_.Start(world_);
  EXPECT_EQ(Run({.kind = StepKind::kWrite, .gpa = 4096 + 8, .length = 4096, .within = 1}).transferred, 0u);
  EXPECT_EQ(outcome_.fault_address, 8192u);
  EXPECT_EQ(model_.Unspecified().size(), 2u);
  EXPECT_EQ(Run({.kind = StepKind::kWrite, .gpa = 8192 - 64, .length = 128, .within = 1}).transferred, 64u);
  EXPECT_TRUE(model_.Unspecified().empty());
}

}  // namespace
}  // namespace reference
