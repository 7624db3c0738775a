// GuestMemory over several regions: creation, which region an address is in, and accesses that run from one into the
// next.

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "guestmem/guest_memory.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;
using test::Says;
using test::ScriptedBacking;

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kRegion = 4 * kPageSize;

using Backings = std::vector<std::shared_ptr<GuestMemoryAccess>>;

GuestMemory Regions(Backings backings) {
  return GuestMemory::CreateMultiRegion("ram", kRegion, std::move(backings)).value();
}
std::shared_ptr<ScriptedBacking> Ram(uint64_t pages, uint64_t populated) {
  return std::make_shared<ScriptedBacking>(pages, populated);
}

TEST(CreateMultiRegion, RefusesARegionSizeThatIsNoPowerOfTwo) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{0x3000}, kMax}) {
    const Status status = GuestMemory::CreateMultiRegion("ram", size, {}).status();
    EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
    EXPECT_TRUE(Says(status, "power of two"));
    EXPECT_EQ(status.info().operation, Operation::kCreate);
  }
  EXPECT_TRUE(Says(GuestMemory::CreateMultiRegion("ram", 0x3000, {}).status(), "0x3000"));
}

TEST(CreateMultiRegion, RefusesARegionSmallerThanAPage) {
  for (const uint64_t size : {1, 2048}) {
    const Status status = GuestMemory::CreateMultiRegion("ram", size, {}).status();
    EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
    EXPECT_TRUE(Says(status, "smaller than a page"));
  }
  EXPECT_TRUE(Ok(GuestMemory::CreateMultiRegion("ram", kPageSize, {}).status()));
}

TEST(CreateMultiRegion, RefusesTooManyRegionsAndSaysHowManyThereMayBe) {
  constexpr uint64_t kHuge = uint64_t{1} << 61;
  EXPECT_TRUE(Ok(GuestMemory::CreateMultiRegion("ram", kHuge, Backings(4)).status()));
  const Status status = GuestMemory::CreateMultiRegion("ram", kHuge, Backings(8)).status();
  EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
  EXPECT_TRUE(Says(status, "too many regions"));
  EXPECT_TRUE(Says(status, "8"));
  EXPECT_TRUE(Says(status, "at most 4"));
  EXPECT_FALSE(GuestMemory::CreateMultiRegion("ram", kHuge, Backings(5)).ok());
  EXPECT_TRUE(Ok(GuestMemory::CreateMultiRegion("ram", uint64_t{1} << 63, Backings(1)).status()));
  EXPECT_FALSE(GuestMemory::CreateMultiRegion("ram", uint64_t{1} << 63, Backings(2)).ok());
}

TEST(CreateMultiRegion, RefusesABackingLargerThanTheRegion) {
  const Status status = GuestMemory::CreateMultiRegion("ram", kRegion, {nullptr, Ram(5, 0)}).status();
  EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
  EXPECT_TRUE(Says(status, "0x5000"));
  EXPECT_TRUE(Says(status, "0x4000"));
}

TEST(CreateMultiRegion, HoldsEachBackingToItsPromises) {
  const auto broken = Ram(1, 1);
  broken->GiveBitmap(8);
  EXPECT_TRUE(Says(GuestMemory::CreateMultiRegion("ram", kRegion, {Ram(1, 1), broken}).status(), "bit_offset 8"));
}

TEST(CreateMultiRegion, OfNothingIsOneEmptySlot) {
  const GuestMemory memory = Regions({});
  EXPECT_TRUE(Failed(memory.ReadPlain<uint8_t>(0).status(), ErrorKind::kOutOfRange, 0));
  EXPECT_TRUE(Failed(memory.ReadPlain<uint8_t>(kRegion).status(), ErrorKind::kOutOfRange, kRegion));
  EXPECT_FALSE(memory.Subrange(0, 0).ok());
}

TEST(Regions, EachServesItsOwnAddresses) {
  const auto a = Ram(4, 4), b = Ram(2, 2), c = Ram(4, 4);
  a->iova = 0x10000;
  c->iova = 0x90000;
  const GuestMemory memory = Regions({a, b, nullptr, nullptr, c});
  EXPECT_TRUE(Ok(memory.WritePlain<uint8_t>(kRegion - 1, 1)));
  EXPECT_TRUE(Ok(memory.WritePlain<uint8_t>(kRegion, 2)));
  EXPECT_TRUE(Ok(memory.WritePlain<uint8_t>(4 * kRegion, 3)));
  EXPECT_EQ(a->Byte(kRegion - 1), 1);
  EXPECT_EQ(b->Byte(0), 2);
  EXPECT_EQ(c->Byte(0), 3);
  // Empty slots, a backing's end before its region's, slots that rounding up added, and what is behind all of them.
  for (const uint64_t gpa : {2 * kRegion, 4 * kRegion - 1, kRegion + 2 * kPageSize, 2 * kRegion - 1, 5 * kRegion,
                             8 * kRegion - 1, 8 * kRegion, uint64_t{1} << 62, kMax}) {
    EXPECT_TRUE(Failed(memory.WritePlain<uint8_t>(gpa, 9), ErrorKind::kOutOfRange, gpa));
    EXPECT_TRUE(Failed(memory.FillAt(gpa, std::byte{9}, 1), ErrorKind::kOutOfRange, gpa));
    EXPECT_FALSE(memory.Iova(gpa));
  }
  EXPECT_EQ(memory.Iova(5), 0x10005U);
  EXPECT_FALSE(memory.Iova(kRegion));
  EXPECT_EQ(memory.Iova(4 * kRegion + 7), 0x90007U);
  EXPECT_FALSE(memory.FullMapping());
}

TEST(Regions, D1_ABackingMayFillItsRegionExactly) {
  const auto last = Ram(4, 4);
  const GuestMemory memory = Regions({Ram(4, 4), last});
  EXPECT_TRUE(Ok(memory.WritePlain<uint64_t>(2 * kRegion - 8, 1)));
  EXPECT_TRUE(Ok(memory.FillAt(kRegion, std::byte{7}, kRegion)));
  EXPECT_EQ(last->Byte(kRegion - 1), 7);
  EXPECT_TRUE(Failed(memory.WritePlain<uint64_t>(2 * kRegion - 7, 1), ErrorKind::kOutOfRange, 2 * kRegion - 7));
}

TEST(Regions, D24_ABulkAccessRunsFromOneIntoTheNext) {
  const auto a = Ram(4, 4), b = Ram(4, 4), c = Ram(1, 1);
  const GuestMemory memory = Regions({a, b, c});
  std::vector<std::byte> out(kRegion + 200), in(out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<std::byte>(i * 7 + i / 256);
  }
  EXPECT_TRUE(Ok(memory.WriteAt(kRegion - 100, out)));
  EXPECT_TRUE(Ok(memory.ReadAt(kRegion - 100, in)));
  EXPECT_EQ(in, out);
  EXPECT_EQ(std::memcmp(a->At(kRegion - 100), out.data(), 100), 0);
  EXPECT_EQ(std::memcmp(b->At(0), out.data() + 100, kRegion), 0);
  EXPECT_EQ(std::memcmp(c->At(0), out.data() + 100 + kRegion, 100), 0);
  EXPECT_EQ(c->Byte(100), 0);
  EXPECT_TRUE(Ok(memory.FillAt(5, std::byte{1}, 2 * kRegion)));
  EXPECT_EQ(a->Byte(4), 0);
  EXPECT_EQ(c->Byte(4), 1);
  EXPECT_EQ(c->Byte(5), static_cast<uint8_t>(out[100 + kRegion + 5]));
  EXPECT_TRUE(Ok(memory.ProbeWritable(0, 2 * kRegion + kPageSize)));
  EXPECT_TRUE(a->faults.empty() && b->faults.empty() && c->faults.empty());
}

TEST(Regions, D24_TheWholeRangeIsCheckedBeforeAnythingMoves) {
  const auto a = Ram(4, 4), b = Ram(2, 2);
  const GuestMemory memory = Regions({a, b, Ram(4, 4)});
  // Out of b's end, although the region after it has memory again.
  EXPECT_TRUE(Failed(memory.FillAt(kRegion - 4, std::byte{1}, 4 + kRegion + 1), ErrorKind::kOutOfRange, kRegion - 4));
  EXPECT_TRUE(Failed(memory.FillAt(kRegion - 4, std::byte{1}, 4 + 2 * kPageSize + 1), ErrorKind::kOutOfRange, kRegion - 4));
  EXPECT_TRUE(Failed(memory.FillAt(0, std::byte{1}, kMax), ErrorKind::kOutOfRange, 0));
  EXPECT_EQ(a->Byte(kRegion - 1), 0);
  EXPECT_TRUE(Ok(memory.FillAt(kRegion - 4, std::byte{1}, 4 + 2 * kPageSize)));
}

TEST(Regions, D24_PlainAccessesCompareExchangesAndViewsStayInOne) {
  const GuestMemory memory = Regions({Ram(4, 4), Ram(4, 4)});
  EXPECT_TRUE(Failed(memory.WritePlain<uint32_t>(kRegion - 2, 1), ErrorKind::kOutOfRange, kRegion - 2));
  EXPECT_TRUE(Failed(memory.ReadPlain<uint32_t>(kRegion - 2).status(), ErrorKind::kOutOfRange, kRegion - 2));
  EXPECT_TRUE(
      Failed(memory.CompareExchange<uint32_t>(kRegion - 2, 0, 1).status(), ErrorKind::kOutOfRange, kRegion - 2));
  EXPECT_TRUE(Failed(memory.Subrange(kRegion - 2, 4).status(), ErrorKind::kOutOfRange, kRegion - 2));
  EXPECT_TRUE(Ok(memory.Subrange(kRegion - 2, 2).status()));
  EXPECT_EQ(memory.Subrange(kRegion, kRegion).value().ReadPlain<uint8_t>(0).value(), 0);
}

TEST(Regions, AZeroLengthViewIsInsideOrAtTheEndOfABacking) {
  const GuestMemory memory = Regions({nullptr, Ram(2, 0), nullptr, Ram(4, 0)});
  const auto allowed = [&memory](uint64_t offset) { return memory.Subrange(offset, 0).ok(); };
  EXPECT_FALSE(allowed(0));
  EXPECT_FALSE(allowed(kRegion - 1));
  EXPECT_TRUE(allowed(kRegion));
  EXPECT_TRUE(allowed(kRegion + 2 * kPageSize));
  EXPECT_FALSE(allowed(kRegion + 2 * kPageSize + 1));
  EXPECT_FALSE(allowed(2 * kRegion));
  EXPECT_TRUE(allowed(3 * kRegion));
  EXPECT_TRUE(allowed(4 * kRegion));  // the last one's end, where no region starts
  EXPECT_FALSE(allowed(4 * kRegion + 1));
  EXPECT_FALSE(allowed(kMax));
}

TEST(Regions, D6_AndD18_HandlersAreAskedInTheirBackingsCoordinates) {
  const auto a = Ram(4, 4), b = Ram(4, 1);
  const GuestMemory memory = Regions({a, b});
  std::vector<std::byte> host(2 * kRegion, std::byte{0xee});
  // The first region's piece and a page of the second have been moved: one prefix over all.
  const uint64_t hole = kRegion + kPageSize;
  EXPECT_TRUE(Failed(memory.ReadAt(100, std::span(host).first(kRegion + 3 * kPageSize)), ErrorKind::kNotMapped, hole,
                     hole - 100));
  EXPECT_EQ(host[hole - 100 - 1], std::byte{0});
  EXPECT_EQ(host[hole - 100], std::byte{0xee});
  ASSERT_EQ(b->faults.size(), 1U);
  EXPECT_EQ(b->faults[0].address, kPageSize);
  EXPECT_EQ(b->faults[0].length, 2 * kPageSize + 100);
  EXPECT_TRUE(Failed(memory.WritePlain<uint64_t>(hole - 4, 0), ErrorKind::kNotMapped, hole));
  EXPECT_EQ(b->faults[1].address, kPageSize);
  EXPECT_TRUE(a->faults.empty());
  b->handler = [&b](const PageFaultInfo& fault) {
    (void)b->ram->Allocate(fault.address / kPageSize * kPageSize, kPageSize);
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Ok(memory.FillAt(0, std::byte{3}, 2 * kRegion)));
  EXPECT_EQ(b->Byte(kRegion - 1), 3);
}

TEST(Regions, EachPieceIsCheckedWhenItsTurnComes) {
  const auto a = Ram(4, 4), b = Ram(4, 4);
  b->GiveBitmap(7);
  b->Clear(AccessType::kWrite, 2);
  const GuestMemory memory = Regions({a, b});
  EXPECT_TRUE(
      Failed(memory.FillAt(10, std::byte{1}, 2 * kRegion - 10), ErrorKind::kAccessDenied, kRegion + 2 * kPageSize, kRegion - 10));
  EXPECT_EQ(a->Byte(kRegion - 1), 1);
  EXPECT_EQ(b->Byte(0), 0);
  ASSERT_EQ(b->faults.size(), 1U);
  EXPECT_EQ(b->faults[0].address, 2 * kPageSize);
  EXPECT_EQ(b->faults[0].length, 2 * kPageSize);
}

TEST(Regions, D7_FallbacksGetTheirPieceAndTheirErrorsComeInTheCallersCoordinates) {
  const auto a = Ram(4, 4), b = Ram(4, 0);
  b->mapped = false;
  b->on_fill = [](uint64_t address, std::byte, uint64_t) {
    return BackendError(StatusCode::kDataLoss, "gone", address + 9, 9);
  };
  const GuestMemory memory = Regions({a, b});
  EXPECT_TRUE(Failed(memory.FillAt(kRegion - 5, std::byte{1}, 100), ErrorKind::kBackend, kRegion + 9, 5 + 9));
  ASSERT_EQ(b->fallbacks.size(), 1U);
  EXPECT_EQ(b->fallbacks[0], (AddressRange{0, 95}));
  EXPECT_EQ(a->Byte(kRegion - 1), 1);
  const GuestMemory view = memory.Subrange(kRegion + 50, 100).value();
  EXPECT_TRUE(Failed(view.FillAt(1, std::byte{1}, 20), ErrorKind::kBackend, 10, 9));
  EXPECT_EQ(b->fallbacks[1], (AddressRange{51, 20}));
}

TEST(Regions, D8_ZeroLengthsSucceedInEmptySlotsToo) {
  const GuestMemory memory = Regions({nullptr, Ram(1, 0)});
  for (const uint64_t gpa : {uint64_t{0}, kRegion + 1, kRegion + kPageSize, 2 * kRegion, kMax}) {
    EXPECT_TRUE(Ok(memory.FillAt(gpa, std::byte{1}, 0)));
    EXPECT_TRUE(Ok(memory.ProbeReadable(gpa, 0)));
  }
}

}  // namespace
}  // namespace guestmem
