// Locks and views in the gold standard: every expected number was worked out by hand from the contract.

#include <gtest/gtest.h>

#include "reference/model/model.h"

namespace reference {
namespace {

using Gpns = std::vector<uint64_t>;

class ModelLocksTest : public testing::Test {
 protected:
  // Two regions of two pages.
  ModelLocksTest() {
    world_.region_pages = 2;
    world_.backings.resize(2);
    for (Backing& backing : world_.backings) backing.pages = 2;
  }
  const Outcome& Lock(Gpns gpns, Access access = Access::kRead, bool expose = false) {
    Step step;
    step.kind = StepKind::kLockGpns;
    step.gpns = std::move(gpns);
    step.access = access;
    step.form = expose ? 1 : 0;
    return Run(step);
  }
  const Outcome& Run(const Step& step) {
    model_.Run(step, outcome_);
    return outcome_;
  }
  std::vector<CallKind> Kinds() const {
    std::vector<CallKind> kinds;
    for (const Call& call : outcome_.calls) kinds.push_back(call.kind);
    return kinds;
  }

  World world_;
  Model model_;
  Outcome outcome_;
};

constexpr CallKind kLock = CallKind::kLockGpns, kUnlock = CallKind::kUnlockGpns, kExpose = CallKind::kExposeVa,
                   kFault = CallKind::kPageFault;

TEST_F(ModelLocksTest, RunsAreNeighbouringEntriesOfOneBacking) {
  model_.Start(world_);
  EXPECT_TRUE(Lock({1, 0, 3, 1}, Access::kWrite, true).ok);
  EXPECT_EQ(Kinds(), (std::vector{kLock, kLock, kLock, kExpose, kExpose, kExpose, kExpose}));
  EXPECT_EQ(outcome_.calls[0].gpns, (Gpns{1, 0}));
  EXPECT_EQ(outcome_.calls[1].gpns, (Gpns{1})) << "page 3 is page 1 of backing 1";
  EXPECT_EQ(outcome_.calls[2].gpns, (Gpns{1}));
  EXPECT_EQ(outcome_.spans, (std::vector<Span>{{0, 4096, 4096, 4096}, {0, 0, 4096, 0}, {1, 4096, 4096, 12288}, {0, 4096, 4096, 4096}}));
  Step unlock;
  unlock.kind = StepKind::kUnlock;
  Run(unlock);
  EXPECT_EQ(Kinds(), (std::vector{kUnlock, kUnlock, kUnlock}));
  EXPECT_EQ(outcome_.calls[1].backing, 1);
  EXPECT_EQ(outcome_.calls[2].gpns, (Gpns{1, 0})) << "in the order of locking";
  EXPECT_TRUE(Run(unlock).calls.empty());
}

TEST_F(ModelLocksTest, AFailingLockUndoesTheEarlierOnesInReverse) {
  world_.lock = {LockAnswer::kOk, LockAnswer::kFailAt, LockAnswer::kOk};  // page 1 of backing 0 begins with the second
  model_.Start(world_);
  EXPECT_FALSE(Lock({0, 3, 1}).ok);
  EXPECT_EQ(outcome_.kind, ErrorKind::kBackend);
  EXPECT_EQ(outcome_.fault_address, 4096u + 2048);
  EXPECT_EQ(outcome_.operation, Operation::kLock);
  EXPECT_FALSE(outcome_.range);
  EXPECT_EQ(outcome_.text, "guest memory 'world': lock error: failed to access memory at 0x1800");
  EXPECT_EQ(Kinds(), (std::vector{kLock, kLock, kLock, kUnlock, kUnlock}));
  EXPECT_EQ(outcome_.calls[3].backing, 1);
  EXPECT_EQ(outcome_.calls[4].backing, 0);
  EXPECT_FALSE(model_.Holds(0));
}

TEST_F(ModelLocksTest, ARefusedProbeUnlocksThenAsksThenStartsOver) {
  world_.backings[1].page[0].state = PageState::kHole;
  world_.handler = {HandlerAnswer::kFixRetry};
  model_.Start(world_);
  EXPECT_TRUE(Lock({0, 2}).ok);
  EXPECT_EQ(Kinds(), (std::vector{kLock, kLock, kUnlock, kUnlock, kFault, kLock, kLock}));
  EXPECT_EQ(outcome_.calls[4].length, 4096u);
}

TEST_F(ModelLocksTest, ARangeUsesAndMergesOnlyItsBytes) {
  model_.Start(world_);
  Step step;
  step.kind = StepKind::kLockRange;
  step.offset = 4000;
  step.length = 4096 + 100;  // 96 of page 0, page 1, 4 of page 2, which is backing 1's
  step.gpns = {0, 1, 2, ~uint64_t{0}};
  EXPECT_TRUE(Run(step).ok);
  EXPECT_EQ(outcome_.spans, (std::vector<Span>{{0, 4000, 96 + 4096, 4000}, {1, 0, 4, 8192}}));
  EXPECT_EQ(outcome_.calls.back(), (Call{.kind = kExpose, .backing = 1, .address = 0, .length = 4}));
}

TEST_F(ModelLocksTest, NothingIsCalledBeforeAllChecksHavePassed) {
  world_.backings[1].trim = 1;
  world_.failing_host_call = 3;
  model_.Start(world_);
  EXPECT_EQ(Lock({0, (uint64_t{1} << 52) - 1}).kind, ErrorKind::kInvalidGpn);
  EXPECT_EQ(outcome_.gpn, (uint64_t{1} << 52) - 1);
  EXPECT_TRUE(outcome_.calls.empty());
  EXPECT_EQ(Lock({0, 3}).kind, ErrorKind::kOutOfRange) << "its last byte is not there";
  EXPECT_EQ(outcome_.fault_address, 3u * 4096);
  EXPECT_TRUE(outcome_.calls.empty());
  EXPECT_EQ(Lock({~uint64_t{0}}).kind, ErrorKind::kResourceExhausted) << "the list is copied before it is looked at";
  EXPECT_TRUE(outcome_.calls.empty());
  EXPECT_TRUE(Lock({0}).ok);
}

TEST_F(ModelLocksTest, AViewOfTheBackingsOwnHasItsSlowBytesAndName) {
  world_.subrange = {SubrangeAnswer::kWrongSize, SubrangeAnswer::kOwn};
  model_.Start(world_);
  Step view;
  view.kind = StepKind::kSubrange;
  view.gpa = 4096;
  view.length = 4096;
  EXPECT_TRUE(Run(view).ok);
  Step read;
  read.kind = StepKind::kReadPlain;
  read.target = 1;
  read.size = 1;
  EXPECT_EQ(Run(read).number, SlowPattern(0, 4096));
  read.gpa = 4096;
  EXPECT_EQ(Run(read).text, "guest memory 'own': read error: failed to access 0x1000-0x1001");
  view.gpa = 0;
  EXPECT_EQ(Run(view).code, 13);
}

TEST_F(ModelLocksTest, LockedPagesOfASparseMappingStay) {
  world_.region_pages = 0;
  world_.backings.resize(1);
  world_.backings[0].pages = 4;
  world_.backings[0].sparse = true;
  model_.Start(world_);
  EXPECT_TRUE(Lock({3, 1}, Access::kWrite, true).ok);
  EXPECT_TRUE(outcome_.calls.empty()) << "nobody records what it is called with";
  for (const StepKind kind : {StepKind::kAllocate, StepKind::kMapZero, StepKind::kProtect, StepKind::kUnmap, StepKind::kMapFile,
                              StepKind::kDecommit, StepKind::kBindToNode}) {
    EXPECT_EQ(Run({.kind = kind, .page = 0, .count = 4}).kind, ErrorKind::kLocked);
    EXPECT_EQ(outcome_.gpn, 1u);
    EXPECT_EQ(outcome_.operation, Operation::kRevoke);
    EXPECT_EQ(outcome_.range, (Range{0, 4 * kPageSize}));
    EXPECT_EQ(outcome_.text, "guest memory 'sparse mapping': revoke error: failed to access 0x0-0x4000");
    EXPECT_EQ(Run({.kind = kind, .page = 2, .count = 2}).gpn, 3u);
    EXPECT_EQ(model_.State(0, 1), PageState::kRam);
    EXPECT_EQ(model_.MappedPage(0, 1)[0], MappedPattern(0, kPageSize));
  }
  EXPECT_TRUE(Run({.kind = StepKind::kAdviseHugePages, .page = 0, .count = 4}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kUnmap, .page = 2, .count = 1}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kUnlock}).ok);
  EXPECT_TRUE(Run({.kind = StepKind::kUnmap, .page = 0, .count = 4}).ok);
}

}  // namespace
}  // namespace reference
