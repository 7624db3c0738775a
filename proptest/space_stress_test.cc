// Real threads against an address space whose layout changes all the time. Judged by what may never be seen, without a model.
// GUESTMEM_STRESS_ROUNDS sets the changes (ci/stress.sh).
//
// In each round two neighbouring slots are replaced in one change, by two backings that hold the round's number; what was removed is
// poisoned as soon as the change has returned. Judges: nobody reads poison, and nothing is stored into it; one access never sees
// two rounds; a view never shows another round than its slot's; what is locked stays, and is not poisoned; a listener's copy of
// the layout is the layout.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "guestmem/address_space.h"
#include "guestmem/sparse_mapping.h"

namespace {

using namespace guestmem;

constexpr uint64_t kPoison = 0xdddddddddddddddd;
constexpr uint64_t kWritten = 0x77777777'00000000;  // what writers store, over a number
constexpr uint64_t kLeft = 16 * kPageSize, kSize = 2 * kPageSize, kRight = kLeft + kSize, kAside = 64 * kPageSize;
constexpr uint64_t kScratch = 512;  // where in a slot writers store

uint64_t Rounds() {
  const char* text = std::getenv("GUESTMEM_STRESS_ROUNDS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 5'000;
}

class Ram final : public GuestMemoryAccess {
 public:
  Ram() : pages_(SparseMapping::Create(kSize).value()) {
    if (!pages_->Allocate(0, kSize).ok()) {
      std::abort();
    }
    Fill(kPoison);
  }
  std::byte* mapping() const override { return pages_->mapping(); }
  uint64_t max_address() const override { return kSize; }
  void Fill(uint64_t word) {
    for (uint64_t at = 0; at < kSize; at += 8) {
      __atomic_store_n(Word(at), word, __ATOMIC_RELAXED);
    }
  }
  bool IsPoisoned() const {
    for (uint64_t at = 0; at < kSize; at += 8) {
      if (__atomic_load_n(Word(at), __ATOMIC_RELAXED) != kPoison) {
        return false;
      }
    }
    return true;
  }

 private:
  uint64_t* Word(uint64_t at) const { return reinterpret_cast<uint64_t*>(pages_->mapping() + at); }
  const std::shared_ptr<SparseMapping> pages_;
};

class Copy final : public AddressSpaceListener {
 public:
  void Removing(const SlotInfo& slot) override { EXPECT_EQ(slots.erase(slot.gpa), 1u); }
  Status Added(const SlotInfo& slot) override {
    EXPECT_TRUE(slots.emplace(slot.gpa, slot.host).second);
    return {};
  }
  void Committed() override { ++commits; }
  std::map<uint64_t, std::byte*> slots;
  uint64_t commits = 0;
};

class SpaceStress : public testing::Test {
 protected:
  SpaceStress() {
    for (auto& pair : ram_) {
      pair = {std::make_shared<Ram>(), std::make_shared<Ram>()};
    }
    Put(0);
    EXPECT_TRUE(space_->Change({Slot(kLeft, ram_[0][0]), Slot(kRight, ram_[0][1])}).ok());
  }
  static SlotChange Slot(uint64_t gpa, std::shared_ptr<Ram> ram) {
    return SlotChange::Add({.gpa = gpa, .size = kSize, .backing = std::move(ram)});
  }
  void Put(uint64_t round) {
    for (const auto& ram : ram_[round % 2]) {
      ram->Fill(round);
    }
  }
  // One replacement; false: something of it is locked.
  bool Replace(uint64_t round) {
    for (const auto& ram : ram_[round % 2]) {
      stale_stores_ += !ram->IsPoisoned();
    }
    Put(round);
    const auto& next = ram_[round % 2];
    const Status status = space_->Change(
        {SlotChange::Remove(kLeft), Slot(kLeft, next[0]), SlotChange::Remove(kRight), Slot(kRight, next[1])});
    if (!status.ok()) {
      EXPECT_EQ(status.kind(), ErrorKind::kLocked) << status.ToString();
    }
    for (const auto& ram : ram_[(round + (status.ok() ? 1 : 0)) % 2]) {
      ram->Fill(kPoison);
    }
    return status.ok();
  }
  bool IsRound(uint64_t word) const { return word != kPoison && word <= Rounds(); }
  // Runs each role in a thread of its own, again and again, until the rounds are over.
  template <typename... Roles>
  void Run(Roles... roles) {
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    (threads.emplace_back([&stop, roles]() mutable {
      while (!stop.load(std::memory_order_relaxed)) {
        roles();
      }
    }), ...);
    uint64_t locked = 0;
    for (uint64_t round = 1; round <= Rounds();) {
      Replace(round) ? ++round : ++locked;
    }
    stop = true;
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(stale_stores_, 0u);
    EXPECT_EQ(stale_reads_, 0u);
    EXPECT_EQ(halves_, 0u);
    std::printf("%llu changes, %llu refused by locks\n", static_cast<unsigned long long>(Rounds()), static_cast<unsigned long long>(locked));
  }

  std::array<std::array<std::shared_ptr<Ram>, 2>, 2> ram_;
  const std::unique_ptr<AddressSpace> space_ = AddressSpace::Create("stress").value();
  const GuestMemory memory_ = space_->memory();
  uint64_t stale_stores_ = 0;
  std::atomic<uint64_t> stale_reads_{0}, halves_{0};
};

TEST_F(SpaceStress, NoAccessIsStaleOrSeesHalfAChange) {
  Copy copy;
  const auto registration = space_->Register(copy).value();
  const auto across = [this] {  // the last word of one slot and the first of the next
    std::array<uint64_t, 2> words;
    EXPECT_TRUE(memory_.ReadAt(kRight - 8, std::as_writable_bytes(std::span(words))).ok());
    stale_reads_ += !IsRound(words[0]) || !IsRound(words[1]);
    halves_ += words[0] != words[1];
  };
  const auto plain = [this] {
    const auto word = memory_.ReadPlain<uint64_t>(kLeft);
    EXPECT_TRUE(word.ok());
    stale_reads_ += word.ok() && !IsRound(*word);
  };
  const auto store = [this, n = uint64_t{0}]() mutable {
    EXPECT_TRUE(memory_.WritePlain<uint64_t>(kLeft + kScratch, kWritten + ++n).ok());
    const std::array<uint64_t, 8> words{kWritten + n};
    EXPECT_TRUE(memory_.WriteAt(kRight + kScratch, std::as_bytes(std::span(words))).ok());
    EXPECT_TRUE(memory_.CompareExchange<uint64_t>(kRight + 2 * kScratch, kWritten + n - 1, kWritten + n).ok());
  };
  Run(across, plain, store);
  EXPECT_EQ(copy.commits, Rounds() + 1);
  EXPECT_EQ(copy.slots.size(), 2u);
}

TEST_F(SpaceStress, AViewShowsItsSlotOrNothing) {
  const auto look = [this] {
    const auto view = memory_.Subrange(kLeft, kPageSize);
    ASSERT_TRUE(view.ok());
    const auto first = view->ReadPlain<uint64_t>(0);
    if (!first.ok()) {
      EXPECT_EQ(first.status().kind(), ErrorKind::kOutOfRange);
      return;
    }
    stale_reads_ += !IsRound(*first);
    for (int i = 0; i < 20; ++i) {
      const auto again = view->ReadPlain<uint64_t>(8);
      if (again.ok()) {
        halves_ += *again != *first;
      } else {
        EXPECT_EQ(again.status().kind(), ErrorKind::kOutOfRange);
      }
    }
  };
  const auto aside = [this, ram = std::make_shared<Ram>()] {  // somebody else changes the layout, too
    EXPECT_TRUE(space_->Add({.gpa = kAside, .size = kSize, .backing = ram}).ok());
    EXPECT_TRUE(space_->Remove(kAside).ok());
  };
  Run(look, look, aside);
}

TEST_F(SpaceStress, WhatIsLockedStays) {
  const auto hold = [this] {
    const std::array<uint64_t, 2> gpns = {kLeft / kPageSize, kRight / kPageSize};
    const auto locked = memory_.LockGpns(AccessType::kWrite, false, gpns);
    ASSERT_TRUE(locked.ok()) << locked.status().ToString();
    uint64_t first = 0;
    for (int i = 0; i < 10; ++i) {
      for (const GuestSpan span : locked->spans()) {
        uint64_t word = 0;
        EXPECT_TRUE(span.CopyTo(std::as_writable_bytes(std::span(&word, 1))).ok());
        stale_reads_ += !IsRound(word);
        halves_ += first != 0 && word != first;
        first = word;
      }
    }
    const uint64_t written = kWritten;
    EXPECT_TRUE(locked->spans()[0].CopyFrom(std::as_bytes(std::span(&written, 1)), kScratch).ok());
  };
  const auto between = [hold, n = 0]() mutable {  // leaves the changer its chance
    if (++n % 2 == 0) {
      hold();
    } else {
      for (int i = 0; i < 50; ++i) {
        std::this_thread::yield();
      }
    }
  };
  Run(between);
}

}  // namespace
