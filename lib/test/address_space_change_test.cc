// AddressSpace: accesses and locks that a change of the layout meets. The changes are made by handlers and fallbacks, so that they come
// at a known moment; proptest/space_stress_test.cc has threads.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "guestmem/address_space.h"
#include "guestmem/rcu.h"
#include "guestmem/shared_backing.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;
using test::Says;
using test::ScriptedBacking;

constexpr uint64_t kPage = kPageSize;
constexpr auto kOut = ErrorKind::kOutOfRange;

// [0, 2) of memory that is all there, and [2, 6) of `lazy_`, which has its first page only, with a handler of the test's.
class ChangedLayout : public testing::Test {
 protected:
  ChangedLayout() {
    std::memset(ram_->At(0), 0x11, 2 * kPage);
    std::memset(lazy_->At(0), 0x22, kPage);
    std::memset(other_->At(0), 0x33, 4 * kPage);
    EXPECT_TRUE(Ok(space_->Add({.gpa = 0, .size = 2 * kPage, .backing = ram_, .name = "ram"})));
    EXPECT_TRUE(Ok(space_->Add({.gpa = 2 * kPage, .size = 4 * kPage, .backing = lazy_, .name = "lazy"})));
    lazy_->handler = [this](const PageFaultInfo&) {
      at_fault_();
      if (populate_) {
        EXPECT_TRUE(Ok(lazy_->ram->Allocate(kPage, 3 * kPage)));
      }
      return PageFaultAction::Retry();
    };
  }
  Status Replace() {
    return space_->Change({SlotChange::Remove(2 * kPage), SlotChange::Add({.gpa = 2 * kPage, .size = 4 * kPage, .backing = other_})});
  }

  const std::shared_ptr<ScriptedBacking> ram_ = std::make_shared<ScriptedBacking>(2, 2), other_ = std::make_shared<ScriptedBacking>(4, 4);
  std::shared_ptr<ScriptedBacking> lazy_ = std::make_shared<ScriptedBacking>(4, 1);
  std::unique_ptr<AddressSpace> space_ = AddressSpace::Create("vm").value();
  GuestMemory memory_ = space_->memory();
  std::function<void()> at_fault_ = [] {};
  bool populate_ = false;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(6 * kPage, std::byte{0xee});
};

TEST_F(ChangedLayout, TheRestIsGoneWithTheSlot) {
  at_fault_ = [&] { EXPECT_TRUE(Ok(space_->Remove(2 * kPage))); };
  EXPECT_TRUE(Failed(memory_.ReadAt(kPage, std::span(bytes_).first(4 * kPage)), kOut, 3 * kPage, 2 * kPage));
  EXPECT_EQ(bytes_[kPage - 1], std::byte{0x11});
  EXPECT_EQ(bytes_[kPage], std::byte{0x22});
  EXPECT_EQ(bytes_[2 * kPage], std::byte{0xee});
  EXPECT_EQ(lazy_->faults.size(), 1u);
}

TEST_F(ChangedLayout, APlainAccessHasDoneNothing) {
  at_fault_ = [&] { EXPECT_TRUE(Ok(space_->Remove(2 * kPage))); };
  EXPECT_TRUE(Failed(memory_.WritePlain<uint64_t>(3 * kPage - 4, ~uint64_t{0}), kOut, 3 * kPage - 4));
  EXPECT_EQ(lazy_->Byte(kPage - 1), 0x22);
}

TEST_F(ChangedLayout, TheRestComesFromWhatIsThereNow) {
  at_fault_ = [&] { EXPECT_TRUE(Ok(Replace())); };
  ASSERT_TRUE(Ok(memory_.ReadAt(kPage, std::span(bytes_).first(5 * kPage))));
  EXPECT_EQ(bytes_[kPage], std::byte{0x22});
  EXPECT_EQ(bytes_[2 * kPage], std::byte{0x33});
  EXPECT_EQ(bytes_[5 * kPage - 1], std::byte{0x33});
}

TEST_F(ChangedLayout, AWholeObjectComesFromOneLayout) {
  at_fault_ = [&] { EXPECT_TRUE(Ok(Replace())); };
  EXPECT_EQ(memory_.ReadPlain<uint64_t>(3 * kPage - 4).value(), 0x3333333333333333u);
}

TEST_F(ChangedLayout, TheRestMayBeReadOnlyNow) {
  at_fault_ = [&] {
    EXPECT_TRUE(Ok(space_->Change({SlotChange::Remove(2 * kPage),
                                   SlotChange::Add({.gpa = 2 * kPage, .size = 4 * kPage, .backing = other_, .read_only = true})})));
  };
  EXPECT_TRUE(Failed(memory_.WriteAt(kPage, std::span(bytes_).first(4 * kPage)), ErrorKind::kAccessDenied, 3 * kPage, 2 * kPage));
}

TEST_F(ChangedLayout, AnotherSlotsChangeDoesNotDisturb) {
  populate_ = true;
  at_fault_ = [&] { EXPECT_TRUE(Ok(space_->Add({.gpa = 8 * kPage, .size = kPage, .backing = other_}))); };
  ASSERT_TRUE(Ok(memory_.WriteAt(0, bytes_)));
  EXPECT_EQ(lazy_->faults.size(), 1u);
  EXPECT_EQ(lazy_->Byte(4 * kPage - 1), 0xee);
}

TEST_F(ChangedLayout, WhatIsAskedIsTheBackingThatRefused) {
  // The handler removes its slot and says Fallback: the old backing's fallback, for the rest of the old piece.
  lazy_->handler = [&](const PageFaultInfo&) {
    EXPECT_TRUE(Ok(Replace()));
    return PageFaultAction::Fallback();
  };
  lazy_->on_read = [](uint64_t, std::span<std::byte> to) {
    std::fill(to.begin(), to.end(), std::byte{0x44});
    return Status();
  };
  ASSERT_TRUE(Ok(memory_.ReadAt(2 * kPage, std::span(bytes_).first(4 * kPage))));
  EXPECT_EQ(bytes_[kPage - 1], std::byte{0x22});
  EXPECT_EQ(bytes_[kPage], std::byte{0x44});
  EXPECT_EQ(bytes_[4 * kPage - 1], std::byte{0x44});
  ASSERT_EQ(lazy_->fallbacks.size(), 1u);
  EXPECT_EQ(lazy_->fallbacks[0], (AddressRange{kPage, 3 * kPage}));
}

TEST_F(ChangedLayout, AFailingHandlersErrorIsOfTheRemovedSlot) {
  lazy_->handler = [&](const PageFaultInfo& fault) {
    EXPECT_TRUE(Ok(space_->Remove(2 * kPage)));
    return PageFaultAction::Fail(BackendError(StatusCode::kAborted, "gone", fault.address));
  };
  EXPECT_TRUE(Failed(memory_.ReadAt(kPage, std::span(bytes_).first(4 * kPage)), ErrorKind::kBackend, 3 * kPage, 2 * kPage));
}

TEST_F(ChangedLayout, ABackingOutlivesTheCallThatRemovesIt) {
  const std::weak_ptr<ScriptedBacking> watched = lazy_;
  bool alive = false;
  lazy_->handler = [&](const PageFaultInfo&) {
    EXPECT_TRUE(Ok(space_->Remove(2 * kPage)));
    alive = !watched.expired();
    return PageFaultAction::Retry();
  };
  lazy_.reset();
  EXPECT_TRUE(Failed(memory_.ReadPlain<uint32_t>(3 * kPage).status(), kOut, 3 * kPage));
  EXPECT_TRUE(alive);
  EXPECT_TRUE(watched.expired());
}

TEST_F(ChangedLayout, AHandlerMayDropEverything) {
  const std::weak_ptr<ScriptedBacking> watched = lazy_;
  lazy_->handler = [&](const PageFaultInfo&) {
    EXPECT_TRUE(Ok(lazy_->ram->Allocate(0, 4 * kPage)));
    space_.reset();
    memory_ = GuestMemory();
    lazy_.reset();
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Ok(memory_.ReadAt(2 * kPage, std::span(bytes_).first(4 * kPage))));
  EXPECT_TRUE(watched.expired());
}

TEST_F(ChangedLayout, ASlotWithoutMappingIsItsFallbacks) {
  const auto registers = std::make_shared<ScriptedBacking>(1, 1);
  registers->mapped = false;
  registers->on_read = [&](uint64_t address, std::span<std::byte> to) {
    std::fill(to.begin(), to.end(), static_cast<std::byte>(address));
    return Status();
  };
  ASSERT_TRUE(Ok(space_->Add({.gpa = 6 * kPage, .size = kPage, .backing = registers})));
  EXPECT_EQ(memory_.ReadPlain<uint32_t>(6 * kPage + 5).value(), 0x05050505u);
  populate_ = true;
  std::vector<std::byte> bytes(2 * kPage);
  ASSERT_TRUE(Ok(memory_.ReadAt(5 * kPage, bytes)));
  EXPECT_EQ(bytes[kPage], std::byte{0});
  EXPECT_EQ(registers->fallbacks.back(), (AddressRange{0, kPage}));
  EXPECT_TRUE(Failed(memory_.WritePlain<uint32_t>(6 * kPage, 1), ErrorKind::kNoFallback, 6 * kPage));
  EXPECT_FALSE(memory_.supports_locking());
  EXPECT_TRUE(Ok(memory_.LockGpns(AccessType::kRead, false, std::array{uint64_t{0}, uint64_t{5}}).status()));
  EXPECT_TRUE(Failed(memory_.LockGpns(AccessType::kRead, false, std::array{uint64_t{0}, uint64_t{6}}).status(),
                     ErrorKind::kNotLockable, std::nullopt));
}

TEST_F(ChangedLayout, NothingIsAskedInASectionOfTheCallers) {
  const Rcu::Section section;
  EXPECT_TRUE(Ok(memory_.ReadPlain<uint32_t>(2 * kPage).status()));
  EXPECT_TRUE(Failed(memory_.ReadPlain<uint32_t>(3 * kPage).status(), ErrorKind::kInvalidArgument, 3 * kPage));
  EXPECT_EQ(lazy_->faults.size(), 0u);
}

TEST_F(ChangedLayout, WaitsForTheSectionsThatRun) {
  std::atomic<bool> inside{false}, leave{false}, removed{false};
  std::thread reader([&] {
    const Rcu::Section section;
    inside = true;
    while (!leave) {
      std::this_thread::yield();
    }
  });
  while (!inside) {
    std::this_thread::yield();
  }
  std::thread changer([&] {
    EXPECT_TRUE(Ok(space_->Remove(0)));
    removed = true;
  });
  while (memory_.ReadPlain<uint8_t>(0).ok()) {  // published
    std::this_thread::yield();
  }
  for (int i = 0; i < 1000; ++i) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(removed);
  leave = true;
  reader.join();
  changer.join();
}

TEST_F(ChangedLayout, LongAccessesGoOnInSectionsOfAMebibyte) {
  // 3 MiB in slots of 1 MiB and a half, each page with its number; then a page of the middle is missing.
  const auto large = std::make_shared<ScriptedBacking>(3 * 256, 3 * 256);
  for (uint64_t page = 0; page < 3 * 256; ++page) {
    std::memset(large->At(page * kPage), static_cast<int>(page % 251), kPage);
  }
  const uint64_t half = 384 * kPage;
  const uint64_t base = uint64_t{1} << 30;
  ASSERT_TRUE(Ok(space_->Change({SlotChange::Add({.gpa = base + half, .size = half, .backing = large, .backing_offset = half}),
                                 SlotChange::Add({.gpa = base, .size = half, .backing = large})})));
  std::vector<std::byte> bytes(2 * half);
  ASSERT_TRUE(Ok(memory_.ReadAt(base, bytes)));
  EXPECT_EQ(std::memcmp(bytes.data(), large->At(0), 2 * half), 0);
  ASSERT_TRUE(Ok(large->ram->Decommit(400 * kPage, kPage)));
  ASSERT_TRUE(Ok(large->ram->Protect(400 * kPage, kPage, SparseMapping::Protection::kNone)));
  EXPECT_TRUE(Failed(memory_.WriteAt(base, bytes), ErrorKind::kNotMapped, base + 400 * kPage, 400 * kPage));
  large->handler = [&](const PageFaultInfo&) {
    EXPECT_TRUE(Ok(space_->Remove(base + half)));
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Failed(memory_.WriteAt(base, bytes), kOut, base + 400 * kPage, 400 * kPage));
}

// ------------------------------------------------------------------ locks

// Counts what of it is locked, as a backing that moves pages would.
class Counting : public SharedBacking<SparseMapping> {
 public:
  explicit Counting(uint64_t pages) : SharedBacking(SparseMapping::Create(pages * kPage).value()) {}
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    ++calls;
    held += static_cast<int64_t>(gpns.size());
    return SharedBacking::LockGpns(access, gpns);
  }
  void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    held -= static_cast<int64_t>(gpns.size());
    SharedBacking::UnlockGpns(access, gpns);
  }
  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    EXPECT_EQ(held, 0) << "asked while locked";
    return handler ? handler(fault) : SharedBacking::PageFault(fault);
  }
  std::function<PageFaultAction(const PageFaultInfo&)> handler;
  int64_t held = 0;
  int calls = 0;
};

// [0, 4) of `a_` from its page 4 on, and [4, 8) of its first pages; [8, 9) of something else.
class SpaceLocks : public testing::Test {
 protected:
  SpaceLocks() {
    EXPECT_TRUE(Ok(a_->inner()->Allocate(0, 8 * kPage)));
    EXPECT_TRUE(Ok(space_->Change({SlotChange::Add({.gpa = 0, .size = 4 * kPage, .backing = a_, .backing_offset = 4 * kPage}),
                                   SlotChange::Add({.gpa = 4 * kPage, .size = 4 * kPage, .backing = a_}),
                                   SlotChange::Add({.gpa = 8 * kPage, .size = kPage, .backing = b_})})));
  }
  Result<LockedPages> Lock(std::vector<uint64_t> gpns, AccessType access = AccessType::kWrite) const {
    return memory_.LockGpns(access, true, gpns);
  }
  testing::AssertionResult IsLocked(uint64_t gpa, uint64_t gpn) const {
    const Status status = space_->Remove(gpa);
    if (status.ok() || status.kind() != ErrorKind::kLocked || status.info().gpn != gpn || status.info().range->start != gpa ||
        status.info().operation != Operation::kRemove) {
      return testing::AssertionFailure() << status.ToString();
    }
    return testing::AssertionSuccess();
  }

  const std::shared_ptr<Counting> a_ = std::make_shared<Counting>(8), b_ = std::make_shared<Counting>(1);
  const std::unique_ptr<AddressSpace> space_ = AddressSpace::Create("vm").value();
  const GuestMemory memory_ = space_->memory();
};

TEST_F(SpaceLocks, PinTheirSlots) {
  {
    const auto one = Lock({5, 6}).value();
    const auto two = Lock({7, 6, 6}, AccessType::kRead).value();
    EXPECT_TRUE(IsLocked(4 * kPage, 5));
    EXPECT_TRUE(Ok(space_->Remove(8 * kPage)));
    EXPECT_TRUE(Ok(space_->Remove(0)));
    const auto list = {SlotChange::Add({.gpa = 0, .size = kPage, .backing = a_}), SlotChange::Remove(4 * kPage)};
    const Status status = space_->Change(list);
    EXPECT_EQ(status.kind(), ErrorKind::kLocked);
    EXPECT_EQ(status.info().operation, Operation::kChange);
    EXPECT_TRUE(Failed(memory_.ReadPlain<uint8_t>(0).status(), kOut, 0));
  }
  EXPECT_EQ(a_->held, 0);
  EXPECT_TRUE(Ok(space_->Remove(4 * kPage)));
}

TEST_F(SpaceLocks, PinUntilTheLastIsGone) {
  auto one = std::make_optional(Lock({3}).value());
  auto two = std::make_optional(Lock({2, 3}).value());
  auto view = std::make_optional(memory_.Subrange(kPage, kPage).value().LockGpns(AccessType::kRead, false, std::array{uint64_t{0}}).value());
  EXPECT_TRUE(IsLocked(0, 1));
  view.reset();
  EXPECT_TRUE(IsLocked(0, 2));
  two.reset();
  EXPECT_TRUE(IsLocked(0, 3));
  one.reset();
  EXPECT_TRUE(Ok(space_->Remove(0)));
}

TEST_F(SpaceLocks, NeverCrossASlot) {
  // Pages 3 and 4 of the guest are neighbours, and page 7 and 0 of one backing.
  a_->calls = 0;
  const std::array<uint64_t, 4> gpns = {2, 3, 4, 5};
  const auto locked = memory_.LockRange(AccessType::kWrite, *PagedRange::Create(0, 4 * kPage, gpns)).value();
  EXPECT_EQ(a_->calls, 2);
  ASSERT_EQ(locked.spans().size(), 2u);
  EXPECT_EQ(locked.spans()[0].gpa(), 2 * kPage);
  EXPECT_EQ(locked.spans()[0].size(), 2 * kPage);
  EXPECT_EQ(locked.spans()[1].gpa(), 4 * kPage);
  EXPECT_EQ(locked.iovecs()[0].iov_base, a_->mapping() + 6 * kPage);
  EXPECT_EQ(locked.iovecs()[1].iov_base, a_->mapping());
  // One slot's pages that are neighbours in the backing, but in two slots.
  ASSERT_TRUE(Ok(space_->Change({SlotChange::Add({.gpa = 16 * kPage, .size = kPage, .backing = a_}),
                                 SlotChange::Add({.gpa = 17 * kPage, .size = kPage, .backing = a_, .backing_offset = kPage})})));
  const std::array<uint64_t, 2> two = {16, 17};
  const auto neighbours = memory_.LockRange(AccessType::kRead, *PagedRange::Create(0, 2 * kPage, two)).value();
  EXPECT_EQ(neighbours.spans().size(), 2u);
}

TEST_F(SpaceLocks, AreOfPagesThatAreThere) {
  EXPECT_TRUE(Failed(Lock({0, 9}).status(), kOut, 9 * kPage));
  EXPECT_EQ(Lock({0, ~uint64_t{0}}).status().kind(), ErrorKind::kInvalidGpn);
  EXPECT_TRUE(Failed(Lock({8}).status(), ErrorKind::kNotMapped, 8 * kPage));
  EXPECT_EQ(a_->held + b_->held, 0);
  EXPECT_TRUE(Ok(space_->Remove(0)));  // nothing is left counted
  EXPECT_TRUE(Ok(space_->Remove(8 * kPage)));
}

TEST_F(SpaceLocks, StartOverInTheLayoutOfNow) {
  // Its handler moves the slot away, so the page is not there any more.
  b_->handler = [&](const PageFaultInfo&) {
    EXPECT_TRUE(Ok(space_->Remove(8 * kPage)));
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Failed(Lock({0, 8, 1}).status(), kOut, 8 * kPage));
  EXPECT_EQ(a_->held + b_->held, 0);
  // Or puts another one in its place, of which all is there.
  ASSERT_TRUE(Ok(space_->Add({.gpa = 8 * kPage, .size = kPage, .backing = b_})));
  b_->handler = [&](const PageFaultInfo&) {
    EXPECT_TRUE(Ok(space_->Change({SlotChange::Remove(8 * kPage),
                                   SlotChange::Add({.gpa = 8 * kPage, .size = kPage, .backing = a_, .backing_offset = kPage})})));
    return PageFaultAction::Retry();
  };
  const auto locked = Lock({0, 8, 1}).value();
  EXPECT_EQ(locked.iovecs()[1].iov_base, a_->mapping() + kPage);
  EXPECT_TRUE(IsLocked(8 * kPage, 8));
}

TEST_F(SpaceLocks, AreRefusedOfAViewWhoseSlotIsGone) {
  const GuestMemory view = memory_.Subrange(0, 4 * kPage).value();
  ASSERT_TRUE(Ok(space_->Change({SlotChange::Remove(0), SlotChange::Add({.gpa = 0, .size = 4 * kPage, .backing = a_})})));
  EXPECT_TRUE(Failed(view.LockGpns(AccessType::kRead, false, std::array{uint64_t{1}}).status(), kOut, kPage));
}

TEST_F(SpaceLocks, KeepTheLayoutWhenTheSpaceIsGone) {
  auto space = AddressSpace::Create("short").value();
  ASSERT_TRUE(Ok(space->Add({.gpa = 0, .size = kPage, .backing = a_})));
  auto locked = std::make_optional(space->memory().LockGpns(AccessType::kWrite, false, std::array{uint64_t{0}}).value());
  space.reset();
  EXPECT_TRUE(Ok(locked->spans()[0].Fill(std::byte{1})));
  locked.reset();
  EXPECT_EQ(a_->held, 0);
}

// Lets another thread ask for a lock of a slot that it is told will go.
class Asker : public AddressSpaceListener {
 public:
  explicit Asker(const GuestMemory& memory) : memory_(memory) {}

  void Removing(const SlotInfo& slot) override {
    if (slot.gpa != 4 * kPage || std::exchange(asked_, true)) {
      return;
    }
    thread_ = std::thread([this] {
      started_ = true;
      status_ = memory_.LockGpns(AccessType::kRead, false, std::array{uint64_t{4}}).status();
      done_ = true;
    });
    while (!started_) {
      std::this_thread::yield();
    }
    for (int i = 0; i < 1000; ++i) {
      std::this_thread::yield();
    }
    EXPECT_FALSE(done_) << "the lock did not wait";
  }
  // What the lock came to.
  Status Answer() {
    thread_.join();
    return status_;
  }

 private:
  const GuestMemory memory_;
  bool asked_ = false;
  std::thread thread_;
  Status status_;
  std::atomic<bool> started_{false}, done_{false};
};

TEST_F(SpaceLocks, OfASlotThatGoesWaitUntilItIsGone) {
  Asker asker(memory_);
  const auto registration = space_->Register(asker).value();
  ASSERT_TRUE(Ok(space_->Remove(4 * kPage)));
  EXPECT_TRUE(Failed(asker.Answer(), kOut, 4 * kPage));
}

TEST_F(SpaceLocks, OfASlotThatWasToGoWaitUntilItStays) {
  class FailsOnce : public Asker {
   public:
    using Asker::Asker;
    Status Added(const SlotInfo& slot) override { return slot.gpa == 16 * kPage ? BackendError(StatusCode::kAborted, "no") : Status(); }
  } asker(memory_);
  const auto registration = space_->Register(asker).value();
  const auto list = {SlotChange::Remove(4 * kPage), SlotChange::Add({.gpa = 16 * kPage, .size = kPage, .backing = a_})};
  EXPECT_EQ(space_->Change(list).code(), StatusCode::kAborted);
  EXPECT_TRUE(Ok(asker.Answer()));
}

}  // namespace
}  // namespace guestmem
