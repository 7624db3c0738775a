// AddressSpace: slots, what their layout makes of accesses, views, and what describes the layout. What happens to accesses that a
// change meets is in address_space_change_test.cc; listeners and locks have files of their own.

#include "guestmem/address_space.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "guestmem/heap_memory.h"
#include "guestmem/rcu.h"
#include "guestmem/shared_memory.h"
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

// `pages` of memory, each filled with `first` + its number.
std::shared_ptr<ScriptedBacking> Numbered(uint64_t pages, int first) {
  auto backing = std::make_shared<ScriptedBacking>(pages, pages);
  for (uint64_t page = 0; page < pages; ++page) {
    std::memset(backing->At(page * kPage), first + static_cast<int>(page), kPage);
  }
  return backing;
}

std::unique_ptr<AddressSpace> NewSpace() { return AddressSpace::Create("vm").value(); }

std::vector<uint8_t> Read(const GuestMemory& memory, uint64_t gpa, uint64_t length) {
  std::vector<uint8_t> bytes(length);
  const Status status = memory.ReadAt(gpa, std::as_writable_bytes(std::span(bytes)));
  EXPECT_TRUE(Ok(status));
  return bytes;
}

Status ReadStatus(const GuestMemory& memory, uint64_t gpa, uint64_t length) {
  std::vector<std::byte> bytes(length);
  return memory.ReadAt(gpa, bytes);
}

TEST(AddressSpace, WithoutSlotsRefusesEverything) {
  const auto space = NewSpace();
  const GuestMemory memory = space->memory();
  for (const uint64_t gpa : {uint64_t{0}, kPage, uint64_t{1} << 62, ~uint64_t{0}}) {
    EXPECT_TRUE(Failed(ReadStatus(memory, gpa, 1), kOut, gpa));
    EXPECT_TRUE(Failed(memory.WritePlain<uint32_t>(gpa, 1), kOut, gpa));
    EXPECT_TRUE(Ok(ReadStatus(memory, gpa, 0)));
  }
  EXPECT_FALSE(memory.supports_locking());
  EXPECT_TRUE(Says(ReadStatus(memory, 5, 1), "guest memory 'vm': read error"));
}

// Three slots: [1, 3), [3, 4) and, after a hole, [6, 7).
class ThreeSlots : public testing::Test {
 protected:
  ThreeSlots() {
    EXPECT_TRUE(Ok(space_->Add({.gpa = 3 * kPage, .size = kPage, .backing = b_, .backing_offset = kPage, .name = "b"})));
    EXPECT_TRUE(Ok(space_->Add({.gpa = 6 * kPage, .size = kPage, .backing = a_, .backing_offset = kPage, .name = "c"})));
    EXPECT_TRUE(Ok(space_->Add({.gpa = 1 * kPage, .size = 2 * kPage, .backing = a_, .name = "a"})));
  }
  // The byte at each address, as the layout says; nothing: no slot.
  std::optional<uint8_t> Expected(uint64_t gpa) const {
    static constexpr int kPages[] = {-1, 0x10, 0x11, 0x41, -1, -1, 0x11, -1};
    return gpa < 8 * kPage && kPages[gpa / kPage] >= 0 ? std::optional(static_cast<uint8_t>(kPages[gpa / kPage])) : std::nullopt;
  }

  const std::shared_ptr<ScriptedBacking> a_ = Numbered(2, 0x10), b_ = Numbered(2, 0x40);
  const std::unique_ptr<AddressSpace> space_ = NewSpace();
  const GuestMemory memory_ = space_->memory();
};

TEST_F(ThreeSlots, BulkAccessesRunFromOneIntoTheNextAndStopAtHoles) {
  for (uint64_t page = 0; page <= 8; ++page) {
    for (const int64_t before : {-9, -8, -1, 0, 1}) {
      for (const uint64_t length : {uint64_t{1}, uint64_t{8}, uint64_t{10}, kPage, kPage + 8, 2 * kPage + 16}) {
        const uint64_t gpa = page * kPage + static_cast<uint64_t>(before);
        bool covered = true;
        std::vector<uint8_t> expected;
        for (uint64_t i = 0; i < length; ++i) {
          covered = covered && Expected(gpa + i);
          expected.push_back(Expected(gpa + i).value_or(0));
        }
        SCOPED_TRACE(testing::Message() << gpa << "+" << length);
        if (covered) {
          EXPECT_EQ(Read(memory_, gpa, length), expected);
          EXPECT_TRUE(Ok(memory_.ProbeWritable(gpa, length)));
          EXPECT_TRUE(Ok(memory_.WriteAt(gpa, std::as_bytes(std::span(expected)))));
        } else {
          EXPECT_TRUE(Failed(ReadStatus(memory_, gpa, length), kOut, gpa));
          EXPECT_TRUE(Failed(memory_.FillAt(gpa, std::byte{9}, length), kOut, gpa));
          EXPECT_TRUE(Failed(memory_.ProbeReadable(gpa, length), kOut, gpa));
        }
      }
    }
  }
}

TEST_F(ThreeSlots, PlainAccessesLieInOneSlot) {
  for (uint64_t page = 0; page <= 8; ++page) {
    for (uint64_t gpa = page * kPage - 9; gpa != page * kPage + 2; ++gpa) {
      const bool inside = Expected(gpa) && Expected(gpa + 7) && (gpa / kPage == (gpa + 7) / kPage || page == 2);
      const auto read = memory_.ReadPlain<uint64_t>(gpa);
      EXPECT_EQ(read.ok(), inside) << gpa;
      if (inside) {
        EXPECT_EQ(static_cast<uint8_t>(*read), Expected(gpa));
        EXPECT_EQ(*read >> 56, Expected(gpa + 7));
      } else {
        EXPECT_TRUE(Failed(read.status(), kOut, gpa));
        EXPECT_TRUE(Failed(memory_.WritePlain<uint64_t>(gpa, 1), kOut, gpa));
        EXPECT_TRUE(Failed(memory_.CompareExchange<uint64_t>(gpa, 1, 2).status(), kOut, gpa));
      }
    }
  }
  EXPECT_TRUE(Failed(memory_.CompareExchange<uint64_t>(kPage + 4, 1, 2).status(), ErrorKind::kMisaligned, kPage + 4));
}

TEST_F(ThreeSlots, ABackingInTwoSlotsIsOneMemory) {
  ASSERT_TRUE(Ok(memory_.WritePlain<uint32_t>(2 * kPage + 16, 0xabcdef)));
  EXPECT_EQ(memory_.ReadPlain<uint32_t>(6 * kPage + 16).value(), 0xabcdefu);
}

TEST_F(ThreeSlots, AddRefusesWhatIsNoSlot) {
  const auto unmapped = std::make_shared<ScriptedBacking>(2, 2);
  const auto odd = std::make_shared<ScriptedBacking>(2, 2);
  odd->size = kPage + 1;
  const auto offset = std::make_shared<ScriptedBacking>(1, 1);
  offset->GiveBitmap(8);
  const uint64_t end = uint64_t{1} << 63;
  const struct {
    NewSlot slot;
    const char* text;
  } kCases[] = {
      {{.gpa = 8 * kPage, .size = kPage}, "the backing is null"},
      {{.gpa = 8 * kPage + 1, .size = kPage, .backing = b_}, "multiples of 4096"},
      {{.gpa = 8 * kPage, .size = kPage - 1, .backing = b_}, "multiples of 4096"},
      {{.gpa = 8 * kPage, .size = kPage, .backing = b_, .backing_offset = 8}, "multiples of 4096"},
      {{.gpa = 8 * kPage, .size = 0, .backing = b_}, "no bytes"},
      {{.gpa = end, .size = kPage, .backing = b_}, "below 2^63"},
      {{.gpa = end - kPage, .size = 2 * kPage, .backing = b_}, "below 2^63"},
      {{.gpa = 0 - kPage, .size = kPage, .backing = b_}, "below 2^63"},
      {{.gpa = 0, .size = 0 - kPage, .backing = b_}, "below 2^63"},
      {{.gpa = 8 * kPage, .size = 3 * kPage, .backing = b_}, "beyond the backing's size 0x2000"},
      {{.gpa = 8 * kPage, .size = 2 * kPage, .backing = b_, .backing_offset = kPage}, "beyond the backing's size 0x2000"},
      {{.gpa = 8 * kPage, .size = kPage, .backing = b_, .backing_offset = 0 - kPage}, "beyond the backing's size 0x2000"},
      {{.gpa = 8 * kPage, .size = 2 * kPage, .backing = odd}, "beyond the backing's size 0x1001"},
      {{.gpa = 8 * kPage, .size = kPage, .backing = offset}, "bit_offset"},
      {{.gpa = 0, .size = 2 * kPage, .backing = b_}, "the slot 'a' is there"},
      {{.gpa = 2 * kPage, .size = kPage, .backing = b_}, "the slot 'a' is there"},
      {{.gpa = 3 * kPage, .size = kPage, .backing = b_}, "the slot 'b' is there"},
      {{.gpa = 5 * kPage, .size = 2 * kPage, .backing = b_}, "the slot 'c' is there"},
  };
  for (const auto& [slot, text] : kCases) {
    const Status status = space_->Add(slot);
    ASSERT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt)) << text;
    EXPECT_TRUE(Says(status, text));
    EXPECT_EQ(status.info().operation, Operation::kAdd);
    EXPECT_EQ(status.info().range, (AddressRange{slot.gpa, slot.size}));
  }
  EXPECT_TRUE(Ok(space_->Add({.gpa = end - kPage, .size = kPage, .backing = b_})));
  EXPECT_TRUE(Ok(space_->Add({.gpa = 4 * kPage, .size = kPage, .backing = odd})));
  EXPECT_EQ(Read(memory_, end - 1, 1), std::vector<uint8_t>{0x40});
  EXPECT_TRUE(Failed(ReadStatus(memory_, end - 1, 2), kOut, end - 1));
}

TEST_F(ThreeSlots, RemoveTakesTheSlotThatStartsThere) {
  for (const uint64_t gpa : {uint64_t{0}, 2 * kPage, kPage + 1, 4 * kPage, ~uint64_t{0}}) {
    const Status status = space_->Remove(gpa);
    ASSERT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
    EXPECT_EQ(status.info().operation, Operation::kRemove);
    EXPECT_EQ(status.info().range, (AddressRange{gpa, 0}));
  }
  ASSERT_TRUE(Ok(space_->Remove(kPage)));
  EXPECT_TRUE(Failed(ReadStatus(memory_, kPage, 1), kOut, kPage));
  EXPECT_TRUE(Failed(ReadStatus(memory_, 3 * kPage - 1, 1), kOut, 3 * kPage - 1));
  EXPECT_EQ(Read(memory_, 3 * kPage, 1), std::vector<uint8_t>{0x41});
  EXPECT_TRUE(Failed(space_->Remove(kPage), ErrorKind::kInvalidArgument, std::nullopt));
}

TEST_F(ThreeSlots, ChangeIsAllOrNothingAndRemovesFirst) {
  const auto step = [](uint64_t gpa, std::shared_ptr<ScriptedBacking> backing) {
    return SlotChange::Add({.gpa = gpa, .size = kPage, .backing = std::move(backing), .name = "new"});
  };
  EXPECT_TRUE(Ok(space_->Change({})));
  // Each fails at its last step.
  const std::vector<SlotChange> failing[] = {
      {step(8 * kPage, b_), step(6 * kPage, b_)},
      {step(8 * kPage, b_), step(8 * kPage, b_)},
      {SlotChange::Remove(3 * kPage), SlotChange::Remove(3 * kPage)},
      {SlotChange::Remove(3 * kPage), SlotChange::Remove(4 * kPage)},
      {SlotChange::Remove(3 * kPage), step(8 * kPage, nullptr)},
  };
  for (const auto& changes : failing) {
    EXPECT_TRUE(Failed(space_->Change(changes), ErrorKind::kInvalidArgument, std::nullopt));
    EXPECT_EQ(Read(memory_, 3 * kPage, 1), std::vector<uint8_t>{0x41});
    EXPECT_TRUE(Failed(ReadStatus(memory_, 8 * kPage, 1), kOut, 8 * kPage));
  }
  EXPECT_TRUE(Ok(space_->Change({step(3 * kPage, a_), SlotChange::Remove(3 * kPage), step(4 * kPage, b_)})));
  EXPECT_EQ(Read(memory_, 4 * kPage - 1, 2), (std::vector<uint8_t>{0x10, 0x40}));
}

TEST_F(ThreeSlots, ReadOnlySlotsTakeNoStores) {
  int asked = 0;
  b_->handler = [&](const PageFaultInfo&) { return ++asked, PageFaultAction::Fail(NotMapped()); };
  ASSERT_TRUE(Ok(space_->Change(
      {SlotChange::Remove(3 * kPage), SlotChange::Add({.gpa = 3 * kPage, .size = kPage, .backing = b_, .read_only = true})})));
  const GuestMemory view = memory_.Subrange(3 * kPage, kPage).value();
  const std::pair<GuestMemory, uint64_t> kBoth[] = {{memory_, 3 * kPage}, {view, 0}};
  for (const auto& [memory, gpa] : kBoth) {
    const std::array<std::byte, 16> bytes{};
    for (const Status& status :
         {memory.WriteAt(gpa, bytes), memory.WritePlain<uint32_t>(gpa, 1), memory.FillAt(gpa, std::byte{1}, 8),
          memory.CompareExchange<uint32_t>(gpa, 1, 2).status(), memory.ProbeWritable(gpa, 8),
          memory.LockGpns(AccessType::kWrite, false, std::array{gpa / kPage}).status()}) {
      EXPECT_TRUE(Failed(status, ErrorKind::kAccessDenied, gpa));
      EXPECT_TRUE(Says(status, "the slot is read-only"));
    }
    EXPECT_EQ(Read(memory, gpa, 1), std::vector<uint8_t>{0x40});
    EXPECT_TRUE(Ok(memory.LockGpns(AccessType::kRead, false, std::array{gpa / kPage}).status()));
    EXPECT_TRUE(Failed(memory.CompareExchange<uint32_t>(gpa + 2, 1, 2).status(), ErrorKind::kMisaligned, gpa + 2));
  }
  // A bulk write stops where it begins.
  const std::vector<std::byte> bytes(kPage + 65, std::byte{7});
  EXPECT_TRUE(Failed(memory_.WriteAt(3 * kPage - 64, bytes), ErrorKind::kOutOfRange, 3 * kPage - 64));
  EXPECT_TRUE(Failed(memory_.WriteAt(3 * kPage - 64, std::span(bytes).first(128)), ErrorKind::kAccessDenied, 3 * kPage, 64));
  EXPECT_EQ(Read(memory_, 3 * kPage - 1, 2), (std::vector<uint8_t>{7, 0x40}));
  EXPECT_EQ(asked, 0);
}

TEST_F(ThreeSlots, BitsAndAlignmentAreTheBackings) {
  const auto guarded = std::make_shared<ScriptedBacking>(3, 3);
  guarded->GiveBitmap(5);
  guarded->Clear(AccessType::kWrite, 2);
  ASSERT_TRUE(Ok(space_->Add({.gpa = 4 * kPage, .size = 2 * kPage, .backing = guarded, .backing_offset = kPage})));
  const std::vector<std::byte> bytes(3 * kPage);
  // From the slot before it: all of this piece is checked before any of it moves.
  EXPECT_TRUE(Failed(memory_.WriteAt(3 * kPage, bytes), ErrorKind::kAccessDenied, 5 * kPage, kPage));
  EXPECT_TRUE(Failed(memory_.WritePlain<uint64_t>(5 * kPage - 4, 1), ErrorKind::kAccessDenied, 5 * kPage));
  EXPECT_TRUE(Ok(memory_.WriteAt(4 * kPage, std::span(bytes).first(kPage))));
  EXPECT_EQ(guarded->faults[0].address, 2 * kPage);
}

TEST_F(ThreeSlots, AViewBelongsToItsSlot) {
  const GuestMemory view = memory_.Subrange(kPage + 8, 2 * kPage - 16).value();
  const GuestMemory inner = view.Subrange(kPage, 16).value();
  EXPECT_EQ(Read(view, kPage - 9, 2), (std::vector<uint8_t>{0x10, 0x11}));
  EXPECT_EQ(Read(inner, 15, 1), std::vector<uint8_t>{0x11});
  EXPECT_TRUE(Failed(ReadStatus(view, 2 * kPage - 20, 8), kOut, 2 * kPage - 20));
  EXPECT_TRUE(Failed(ReadStatus(inner, 16, 1), kOut, 16));
  EXPECT_TRUE(Failed(view.CompareExchange<uint32_t>(2, 0, 0).status(), ErrorKind::kMisaligned, 2));
  // A change of others does not touch it; one of its own slot does, though the same bytes are there again.
  ASSERT_TRUE(Ok(space_->Remove(3 * kPage)));
  EXPECT_TRUE(Ok(ReadStatus(view, 0, 8)));
  ASSERT_TRUE(Ok(space_->Change({SlotChange::Remove(kPage), SlotChange::Add({.gpa = kPage, .size = 2 * kPage, .backing = a_})})));
  for (const GuestMemory& gone : {view, inner}) {
    EXPECT_TRUE(Failed(ReadStatus(gone, 4, 8), kOut, 4));
    EXPECT_TRUE(Failed(gone.WritePlain<uint16_t>(4, 8), kOut, 4));
    EXPECT_TRUE(Failed(gone.ProbeReadable(4, 1), kOut, 4));
    EXPECT_TRUE(Failed(gone.Subrange(0, 8).status(), kOut, 0));
    EXPECT_FALSE(gone.supports_locking());
    EXPECT_FALSE(gone.Iova(0));
    EXPECT_TRUE(gone.sharing().value().empty());
    EXPECT_TRUE(Ok(ReadStatus(gone, 4, 0)));
  }
  EXPECT_TRUE(Ok(ReadStatus(memory_, kPage, 8)));
}

TEST_F(ThreeSlots, ViewsLieInOneSlot) {
  EXPECT_TRUE(Ok(memory_.Subrange(kPage, 2 * kPage).status()));
  EXPECT_TRUE(Failed(memory_.Subrange(kPage, 2 * kPage + 1).status(), kOut, kPage));
  EXPECT_TRUE(Ok(memory_.Subrange(4 * kPage, 0).status()));  // at an end
  EXPECT_TRUE(Failed(memory_.Subrange(4 * kPage + 1, 0).status(), kOut, 4 * kPage + 1));
  EXPECT_TRUE(Ok(memory_.LockableSubrange(3 * kPage, kPage).status()));
  EXPECT_TRUE(Failed(memory_.LockableSubrange(3 * kPage + 8, 16).status(), ErrorKind::kNotLockable, std::nullopt));
}

TEST(AddressSpace, AViewKeepsTheBackingButNotTheSlot) {
  auto space = NewSpace();
  auto backing = Numbered(1, 0x70);
  const std::weak_ptr<ScriptedBacking> watched = backing;
  ASSERT_TRUE(Ok(space->Add({.gpa = 0, .size = kPage, .backing = std::move(backing)})));
  auto view = std::make_optional(space->memory().Subrange(0, 16).value());
  ASSERT_TRUE(Ok(space->Remove(0)));
  EXPECT_FALSE(watched.expired());
  EXPECT_TRUE(Failed(ReadStatus(*view, 0, 1), kOut, 0));
  view.reset();
  EXPECT_TRUE(watched.expired());
}

TEST(AddressSpace, WhatIsRemovedIsFreedAtOnce) {
  auto space = NewSpace();
  auto backing = Numbered(1, 0x70);
  const std::weak_ptr<ScriptedBacking> watched = backing;
  const GuestMemory memory = space->memory();
  ASSERT_TRUE(Ok(space->Add({.gpa = 0, .size = kPage, .backing = std::move(backing)})));
  ASSERT_TRUE(Ok(space->Remove(0)));
  EXPECT_TRUE(watched.expired());
}

TEST(AddressSpace, HandlesKeepTheLastLayout) {
  auto space = NewSpace();
  ASSERT_TRUE(Ok(space->Add({.gpa = kPage, .size = kPage, .backing = Numbered(1, 0x70)})));
  const GuestMemory memory = space->memory();
  const GuestMemory view = memory.Subrange(kPage, 8).value();
  space.reset();
  EXPECT_EQ(Read(memory, kPage, 1), std::vector<uint8_t>{0x70});
  EXPECT_EQ(Read(view, 0, 1), std::vector<uint8_t>{0x70});
}

TEST(AddressSpace, DescribesTheLayoutOfNow) {
  const auto space = NewSpace();
  const GuestMemory memory = space->memory();
  const auto file = SharedMemory::Create(4 * kPage).value();
  const auto iova = Numbered(1, 0);
  iova->iova = 0x80000;
  const auto registers = std::make_shared<ScriptedBacking>(1, 1);
  registers->mapped = false;
  ASSERT_TRUE(Ok(space->Change({SlotChange::Add({.gpa = 8 * kPage, .size = 2 * kPage, .backing = file, .backing_offset = kPage, .name = "f"}),
                                SlotChange::Add({.gpa = 2 * kPage, .size = kPage, .backing = iova, .read_only = true, .name = "i"}),
                                SlotChange::Add({.gpa = 4 * kPage, .size = kPage, .backing = registers})})));
  EXPECT_FALSE(memory.FullMapping());
  EXPECT_FALSE(memory.InnerBuffer());
  EXPECT_EQ(memory.Iova(2 * kPage + 5), 0x80005u);
  EXPECT_FALSE(memory.Iova(8 * kPage));
  const SharedFile whole = file->sharing().value()[0];
  const std::vector<SharedFile> shared = {{whole.fd, kPage, 8 * kPage, 2 * kPage}};
  EXPECT_EQ(memory.sharing().value(), shared);
  EXPECT_EQ(memory.Subrange(9 * kPage, 16).value().sharing().value(), (std::vector<SharedFile>{{whole.fd, 2 * kPage, 0, 16}}));

  const auto parts = space->Populated({0, ~uint64_t{0}}).value();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].gpa, 2 * kPage);
  EXPECT_EQ(parts[0].host, iova->mapping());
  EXPECT_TRUE(parts[0].read_only);
  EXPECT_EQ(parts[0].fd, -1);
  EXPECT_EQ(parts[0].name, "i");
  EXPECT_EQ(parts[1].gpa, 8 * kPage);
  EXPECT_EQ(parts[1].size, 2 * kPage);
  EXPECT_EQ(parts[1].host, file->mapping() + kPage);
  EXPECT_EQ(parts[1].fd, whole.fd);
  EXPECT_EQ(parts[1].file_offset, kPage);
  // Cut to what was asked for.
  const auto cut = space->Populated({9 * kPage + 1, 7}).value();
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(cut[0].gpa, 9 * kPage + 1);
  EXPECT_EQ(cut[0].size, 7u);
  EXPECT_EQ(cut[0].host, file->mapping() + 2 * kPage + 1);
  EXPECT_EQ(cut[0].file_offset, 2 * kPage + 1);
  EXPECT_TRUE(space->Populated({3 * kPage, 5 * kPage}).value().empty());
  EXPECT_TRUE(space->Populated({~uint64_t{0}, ~uint64_t{0}}).value().empty());

  ASSERT_TRUE(Ok(space->Remove(2 * kPage)));
  EXPECT_FALSE(memory.Iova(2 * kPage));
}

TEST(AddressSpace, FindsEachSlotWhereverTheyLie) {
  // Neighbours, single pages far apart, clusters, powers of two: what the table is built of in different ways.
  std::mt19937_64 random(17);
  const auto backing = std::make_shared<ScriptedBacking>(16, 16);
  for (int round = 0; round < 60; ++round) {
    const auto space = NewSpace();
    const GuestMemory memory = space->memory();
    std::vector<AddressRange> slots;
    uint64_t cluster = 0;
    for (int i = 0; i < 40; ++i) {
      const auto bits = round % 4 == 0 ? 5 : round % 4 == 1 ? random() % 51 : random() % 12;
      cluster = random() % 8 == 0 ? (random() & ((uint64_t{1} << 51) - 1)) : cluster;
      const uint64_t pages = 1 + random() % (round % 4 == 3 ? 1 : 16);
      const uint64_t page = round % 4 == 3 ? uint64_t{1} << (i % 50) : cluster + (random() & ((uint64_t{1} << bits) - 1));
      const AddressRange range{page * kPage, pages * kPage};
      bool free = range.start < (uint64_t{1} << 63) - range.length;
      for (const AddressRange& other : slots) {
        free = free && (range.start + range.length <= other.start || other.start + other.length <= range.start);
      }
      ASSERT_EQ(space->Add({.gpa = range.start, .size = range.length, .backing = backing}).ok(), free);
      if (free) {
        slots.push_back(range);
      }
    }
    const auto check = [&](uint64_t gpa) {
      bool inside = false;
      for (const AddressRange& slot : slots) {
        inside = inside || gpa - slot.start < slot.length;
      }
      EXPECT_EQ(memory.ReadPlain<uint8_t>(gpa).ok(), inside) << round << ' ' << gpa;
    };
    for (const AddressRange& slot : slots) {
      for (const uint64_t gpa : {slot.start, slot.start + slot.length}) {
        check(gpa - 1);
        check(gpa);
      }
      check(slot.start ^ uint64_t{1} << random() % 64);
    }
    check(0);
    check(~uint64_t{0});
  }
}

TEST(AddressSpace, HostBuffersMayOverlap) {
  const auto space = NewSpace();
  const auto ram = Numbered(4, 0x20);
  ASSERT_TRUE(Ok(space->Change({SlotChange::Add({.gpa = 0, .size = 2 * kPage, .backing = ram}),
                                SlotChange::Add({.gpa = 2 * kPage, .size = 2 * kPage, .backing = ram, .backing_offset = 2 * kPage})})));
  const GuestMemory memory = space->memory();
  for (uint64_t i = 0; i < 4 * kPage; ++i) {
    *ram->At(i) = static_cast<std::byte>(i * 7 + i / 256);
  }
  std::vector<std::byte> expected(ram->At(0), ram->At(0) + 4 * kPage);
  std::memmove(expected.data() + 64, expected.data(), kPage);
  ASSERT_TRUE(Ok(memory.WriteAt(64, {ram->At(0), kPage})));
  EXPECT_EQ(std::memcmp(expected.data(), ram->At(0), 4 * kPage), 0);
  std::memmove(expected.data() + 2 * kPage + 100, expected.data() + 2 * kPage, kPage);
  ASSERT_TRUE(Ok(memory.ReadAt(2 * kPage, {ram->At(2 * kPage + 100), kPage})));
  EXPECT_EQ(std::memcmp(expected.data(), ram->At(0), 4 * kPage), 0);
  // A failure leaves nothing to count on.
  EXPECT_TRUE(Failed(memory.WriteAt(3 * kPage, {ram->At(3 * kPage - 64), kPage + 64}), kOut, 3 * kPage));
}

TEST(AddressSpaceDeathTest, ChangesInsideASectionAreFatal) {
  const auto space = NewSpace();
  const auto backing = Numbered(1, 0);
  EXPECT_DEATH(
      {
        const Rcu::Section section;
        (void)space->Add({.gpa = 0, .size = kPage, .backing = backing});
      },
      "inside a read-side section");
  EXPECT_DEATH(
      {
        const Rcu::Section section;
        (void)space->Change({});
      },
      "inside a read-side section");
}

}  // namespace
}  // namespace guestmem
