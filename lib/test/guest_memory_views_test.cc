// Views: what Subrange gives, judged by the backing's own pages, bits and alignment, and reported in the view's
// coordinates.

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <memory>
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

TEST(Views, ShowTheirPartAndNothingElse) {
  auto backing = std::make_shared<ScriptedBacking>(2, 2);
  const GuestMemory view = Over(backing).Subrange(100, 50).value();
  EXPECT_TRUE(Ok(view.FillAt(0, std::byte{7}, 50)));
  for (uint64_t i = 0; i < 2 * kPageSize; ++i) {
    ASSERT_EQ(backing->Byte(i), i >= 100 && i < 150 ? 7 : 0) << i;
  }
  EXPECT_TRUE(Failed(view.FillAt(0, std::byte{8}, 51), ErrorKind::kOutOfRange, 0));
  EXPECT_TRUE(Failed(view.FillAt(50, std::byte{8}, 1), ErrorKind::kOutOfRange, 50));
  EXPECT_TRUE(Failed(view.ReadPlain<uint64_t>(43).status(), ErrorKind::kOutOfRange, 43));
  EXPECT_EQ(view.ReadPlain<uint64_t>(42).value(), 0x0707070707070707U);
  EXPECT_TRUE(Failed(view.ReadPlain<uint8_t>(kMax - 99).status(), ErrorKind::kOutOfRange, kMax - 99));
}

TEST(Views, MustLieInsideTheMemory) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(2, 2));
  constexpr uint64_t kEnd = 2 * kPageSize;
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, kEnd - 1, kEnd, kEnd + 1, uint64_t{1} << 63, kMax}) {
    for (const uint64_t length : {uint64_t{0}, uint64_t{1}, kEnd - 1, kEnd, kEnd + 1, uint64_t{1} << 63, kMax}) {
      const bool inside = offset <= kEnd && length <= kEnd - offset;
      const Status status = memory.Subrange(offset, length).status();
      EXPECT_EQ(status.ok(), inside) << offset << ' ' << length;
      if (!inside) {
        EXPECT_TRUE(Failed(status, ErrorKind::kOutOfRange, offset));
        EXPECT_EQ(status.info().operation, Operation::kSubrange);
        EXPECT_EQ(status.info().range, (AddressRange{offset, length}));
      }
    }
  }
  EXPECT_TRUE(
      Says(memory.Subrange(kEnd, 1).status(), "guest memory 'ram': subrange error: failed to access 0x2000-0x2001: "));
}

TEST(Views, OfZeroLengthRefuseEveryAccess) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(1, 1));
  for (const uint64_t offset : {uint64_t{0}, uint64_t{5}, kPageSize}) {
    const GuestMemory view = memory.Subrange(offset, 0).value();
    EXPECT_TRUE(Failed(view.ReadPlain<uint8_t>(0).status(), ErrorKind::kOutOfRange, 0));
    EXPECT_TRUE(Ok(view.FillAt(0, std::byte{1}, 0)));
    EXPECT_TRUE(Ok(view.Subrange(0, 0).status()));
    EXPECT_FALSE(view.Subrange(1, 0).ok());
  }
}

TEST(Views, Nest) {
  auto backing = std::make_shared<ScriptedBacking>(4, 4);
  backing->iova = 0x1000;
  const GuestMemory outer = Over(backing).Subrange(kPageSize - 10, 2 * kPageSize).value();
  const GuestMemory inner = outer.Subrange(15, 100).value();
  EXPECT_TRUE(Ok(inner.WritePlain<uint32_t>(3, 0x01020304)));
  EXPECT_EQ(backing->Byte(kPageSize - 10 + 15 + 3), 4);
  EXPECT_EQ(outer.ReadPlain<uint32_t>(18).value(), 0x01020304U);
  EXPECT_EQ(inner.Iova(3), 0x1000 + kPageSize - 10 + 15 + 3);
  ASSERT_TRUE(inner.FullMapping());
  EXPECT_EQ(inner.FullMapping()->base, backing->At(kPageSize + 5));
  EXPECT_EQ(inner.FullMapping()->size, 100U);
  EXPECT_FALSE(outer.Subrange(2 * kPageSize - 5, 6).ok());
}

TEST(Views, D14_AnUnalignedViewIsJudgedByTheBackingsPages) {
  for (const uint64_t offset : {uint64_t{1}, uint64_t{100}, kPageSize - 1, kPageSize, kPageSize + 1}) {
    for (const uint64_t refused : {1, 2}) {
      auto backing = std::make_shared<ScriptedBacking>(4, 4);
      backing->GiveBitmap(2);
      backing->Clear(AccessType::kWrite, refused);
      const GuestMemory view = Over(backing).Subrange(offset, 4 * kPageSize - offset).value();
      // Byte by byte, the way a plain access is checked; then by a bulk access over all of it.
      for (uint64_t gpa = 0; gpa < 4 * kPageSize - offset; gpa += 97) {
        const bool allowed = (offset + gpa) / kPageSize != refused;
        ASSERT_EQ(view.WritePlain<uint8_t>(gpa, 1).ok(), allowed) << offset << ' ' << gpa;
        ASSERT_EQ(view.FillAt(gpa, std::byte{1}, 1).ok(), allowed) << offset << ' ' << gpa;
      }
      const uint64_t start = offset > refused * kPageSize ? 0 : refused * kPageSize - offset;
      EXPECT_TRUE(Failed(view.FillAt(0, std::byte{1}, 4 * kPageSize - offset), ErrorKind::kAccessDenied, start));
      EXPECT_TRUE(Failed(view.ProbeWritable(0, 4 * kPageSize - offset), ErrorKind::kAccessDenied, start));
      for (uint64_t i = refused * kPageSize; i < (refused + 1) * kPageSize; ++i) {
        ASSERT_EQ(backing->Byte(i), 0) << "written through the view";
      }
    }
  }
}

TEST(Views, D14_APlainAccessThatStraddlesTheBackingsPagesNeedsBothBits) {
  auto backing = std::make_shared<ScriptedBacking>(2, 2);
  backing->GiveBitmap();
  backing->Clear(AccessType::kRead, 1);
  const GuestMemory view = Over(backing).Subrange(kPageSize - 100, 200).value();
  EXPECT_TRUE(view.ReadPlain<uint64_t>(92).ok());
  for (uint64_t gpa = 93; gpa < 100; ++gpa) {
    EXPECT_TRUE(Failed(view.ReadPlain<uint64_t>(gpa).status(), ErrorKind::kAccessDenied, 100));
  }
  EXPECT_TRUE(Failed(view.ReadPlain<uint64_t>(101).status(), ErrorKind::kAccessDenied, 101));
}

TEST(Views, D14_AlignmentIsTheBackings) {
  const GuestMemory view = Over(std::make_shared<ScriptedBacking>(1, 1)).Subrange(2, 100).value();
  EXPECT_TRUE(view.CompareExchange<uint32_t>(2, 0, 1).ok());
  EXPECT_TRUE(Failed(view.CompareExchange<uint32_t>(4, 0, 1).status(), ErrorKind::kMisaligned, 4));
  EXPECT_TRUE(view.CompareExchange<uint64_t>(6, 0, 1).ok());
  EXPECT_TRUE(Failed(view.CompareExchange<uint64_t>(8, 0, 1).status(), ErrorKind::kMisaligned, 8));
}

TEST(Views, AGpnIs4096BytesOfTheView) {
  auto backing = std::make_shared<ScriptedBacking>(3, 3);
  backing->GiveBitmap();
  backing->Clear(AccessType::kRead, 2);
  const GuestMemory view = Over(backing).Subrange(100, 2 * kPageSize + 50).value();
  EXPECT_TRUE(Ok(view.ProbeGpns(std::array<uint64_t, 1>{0})));
  EXPECT_TRUE(Failed(view.ProbeGpns(std::array<uint64_t, 1>{1}), ErrorKind::kAccessDenied, 2 * kPageSize - 100));
  EXPECT_TRUE(Failed(view.ProbeGpns(std::array<uint64_t, 1>{2}), ErrorKind::kOutOfRange, 2 * kPageSize));
}

TEST(Views, D18_FaultsAreReportedInTheCallersCoordinatesAndAskedInTheBackings) {
  auto backing = std::make_shared<ScriptedBacking>(4, 2);
  const GuestMemory view = Over(backing).Subrange(1000, 3 * kPageSize).value().Subrange(24, 2 * kPageSize).value();
  std::vector<std::byte> host(2 * kPageSize);
  const uint64_t hole = 2 * kPageSize - 1024;
  EXPECT_TRUE(Failed(view.ReadAt(6, std::span(host).first(7500)), ErrorKind::kNotMapped, hole, hole - 6));
  EXPECT_TRUE(Failed(view.WritePlain<uint64_t>(hole - 2, 0), ErrorKind::kNotMapped, hole));
  EXPECT_TRUE(Failed(view.ProbeReadable(6, 7500), ErrorKind::kNotMapped, hole));
  ASSERT_EQ(backing->faults.size(), 3U);
  EXPECT_EQ(backing->faults[0].address, 2 * kPageSize);
  EXPECT_EQ(backing->faults[0].length, 7500 - (hole - 6));
  EXPECT_EQ(backing->faults[1].address, 2 * kPageSize);
  EXPECT_EQ(backing->faults[1].length, 6U);
}

TEST(Views, D7_FallbackErrorsComeInTheCallersCoordinates) {
  auto backing = std::make_shared<ScriptedBacking>(4, 0);
  backing->mapped = false;
  backing->on_write = [](uint64_t address, std::span<const std::byte>) {
    return BackendError(StatusCode::kDataLoss, "gone", address + 20, 20);
  };
  const GuestMemory view = Over(backing).Subrange(1000, 5000).value();
  const std::vector<std::byte> host(50);
  EXPECT_TRUE(Failed(view.WriteAt(3, host), ErrorKind::kBackend, 23, 20));
  ASSERT_EQ(backing->fallbacks.size(), 1U);
  EXPECT_EQ(backing->fallbacks[0], (AddressRange{1003, 50}));
}

}  // namespace
}  // namespace guestmem
