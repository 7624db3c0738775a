// GuestMemory over one backing: creation, ranges, bulk and plain accesses, compare-exchange, probes. What a handler or
// fallback answers is in guest_memory_handler_test.cc.

#include "guestmem/guest_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "guestmem/detail/host_calls.h"
#include "guestmem/heap_memory.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;
using test::Says;
using test::ScriptedBacking;

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

// --- creation ---

TEST(Create, RefusesANullBacking) {
  const Status status = GuestMemory::Create("ram", nullptr).status();
  EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
  EXPECT_EQ(status.ToString(), "guest memory 'ram': create error: failed to access memory: the backing is null");
  EXPECT_EQ(status.info().operation, Operation::kCreate);
}

TEST(Create, RefusesASizeThatIsNotBelow2To63) {
  for (const uint64_t size : {uint64_t{1} << 63, (uint64_t{1} << 63) + 1, kMax}) {
    auto backing = std::make_shared<ScriptedBacking>(0, 0);
    backing->mapped = false;
    backing->size = size;
    const Status status = GuestMemory::Create("ram", backing).status();
    EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
    EXPECT_TRUE(Says(status, "2^63"));
  }
}

class UnalignedMapping : public GuestMemoryAccess {
 public:
  std::byte* mapping() const override { return reinterpret_cast<std::byte*>(uintptr_t{0x7000'0000'0800}); }
  uint64_t max_address() const override { return kPageSize; }
};

TEST(Create, RefusesAMappingThatIsNotPageAligned) {
  const Status status = GuestMemory::Create("ram", std::make_shared<UnalignedMapping>()).status();
  EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
  EXPECT_TRUE(Says(status, "not page-aligned"));
}

TEST(Create, RefusesABitOffsetOver7) {
  for (const int bit_offset : {0, 7, 8, 255}) {
    auto backing = std::make_shared<ScriptedBacking>(1, 1);
    backing->GiveBitmap(static_cast<uint8_t>(bit_offset));
    const Status status = GuestMemory::Create("ram", backing).status();
    if (bit_offset <= 7) {
      EXPECT_TRUE(Ok(status));
    } else {
      EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
      EXPECT_TRUE(Says(status, "bit_offset " + std::to_string(bit_offset)));
    }
  }
}

TEST(Create, TakesTheLargestSizeAndServesItsLastByteByFallback) {
  auto backing = std::make_shared<ScriptedBacking>(0, 0);
  backing->mapped = false;
  backing->size = (uint64_t{1} << 63) - 1;
  backing->on_fill = [](uint64_t, std::byte, uint64_t) { return Status(); };
  const GuestMemory memory = Over(backing);
  EXPECT_TRUE(Ok(memory.FillAt(backing->size - 1, std::byte{1}, 1)));
  EXPECT_TRUE(Failed(memory.FillAt(backing->size, std::byte{1}, 1), ErrorKind::kOutOfRange, backing->size));
  EXPECT_TRUE(Failed(memory.FillAt(kMax, std::byte{1}, 1), ErrorKind::kOutOfRange, kMax));
}

TEST(Create, KeepsTheBackingAliveAsLongAsAnyHandle) {
  auto backing = std::make_shared<ScriptedBacking>(1, 1);
  const std::weak_ptr<ScriptedBacking> watch = backing;
  GuestMemory memory = Over(std::move(backing));
  GuestMemory copy = memory;
  memory = GuestMemory();
  EXPECT_FALSE(watch.expired());
  EXPECT_TRUE(Ok(copy.WritePlain<uint8_t>(0, 1)));
  const GuestMemory view = copy.Subrange(16, 16).value();
  copy = GuestMemory();
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(view.ReadPlain<uint8_t>(0).value(), 0);
  (void)GuestMemory(view);
}

TEST(Empty, RefusesEverythingUnderItsName) {
  for (const GuestMemory& memory : {GuestMemory(), GuestMemory::Empty()}) {
    std::array<std::byte, 4> host{};
    EXPECT_TRUE(Failed(memory.ReadAt(0, host), ErrorKind::kOutOfRange, 0));
    EXPECT_TRUE(Failed(memory.WritePlain<uint8_t>(0, 1), ErrorKind::kOutOfRange, 0));
    EXPECT_TRUE(Failed(memory.CompareExchange<uint8_t>(0, 0, 1).status(), ErrorKind::kOutOfRange, 0));
    EXPECT_TRUE(Failed(memory.ProbeReadable(0, 1), ErrorKind::kOutOfRange, 0));
    EXPECT_TRUE(Says(memory.FillAt(8, std::byte{1}, 8), "guest memory 'empty': fill error: failed to access 0x8-0x10: "));
    EXPECT_FALSE(memory.FullMapping());
    EXPECT_FALSE(memory.Iova(0));
    EXPECT_FALSE(memory.Subrange(0, 0).ok());
    EXPECT_TRUE(Ok(memory.ReadAt(0, {})));
  }
}

TEST(Allocate, GivesZeroedMemoryRoundedUpToPages) {
  for (const auto& [asked, given] :
       {std::pair<uint64_t, uint64_t>{1, kPageSize}, {kPageSize, kPageSize}, {kPageSize + 1, 2 * kPageSize}}) {
    const GuestMemory memory = GuestMemory::Allocate(asked).value();
    ASSERT_TRUE(memory.FullMapping());
    EXPECT_EQ(memory.FullMapping()->size, given);
    std::vector<std::byte> host(given, std::byte{1});
    EXPECT_TRUE(Ok(memory.ReadAt(0, host)));
    EXPECT_EQ(host, std::vector<std::byte>(given));
    EXPECT_TRUE(Failed(memory.ReadPlain<uint8_t>(given).status(), ErrorKind::kOutOfRange, given));
  }
}

TEST(Allocate, ReportsWhatCannotBeHad) {
  EXPECT_TRUE(Ok(GuestMemory::Allocate(0).status()));
  EXPECT_EQ(GuestMemory::Allocate(uint64_t{1} << 63).status().kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(GuestMemory::Allocate(kMax).status().kind(), ErrorKind::kInvalidArgument);
  detail::SetHostCallFilter([](detail::HostCall call) { return call == detail::HostCall::kAllocate; });
  const Status status = GuestMemory::Allocate(kPageSize).status();
  detail::SetHostCallFilter(nullptr);
  EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
  EXPECT_TRUE(Says(status, "guest memory 'heap': create error: "));
}

TEST(FullMapping, IsThereOnlyForAMappedRegionWithoutBitmap) {
  auto backing = std::make_shared<ScriptedBacking>(2, 2);
  const GuestMemory plain = Over(backing);
  ASSERT_TRUE(plain.FullMapping());
  EXPECT_EQ(plain.FullMapping()->base, backing->At(0));
  EXPECT_EQ(plain.FullMapping()->size, 2 * kPageSize);
  backing->GiveBitmap();
  const GuestMemory guarded = Over(backing);
  EXPECT_FALSE(guarded.FullMapping());
  backing->bitmap.reset();
  backing->mapped = false;
  const GuestMemory slow = Over(backing);
  EXPECT_FALSE(slow.FullMapping());
}

TEST(Iova, IsTheBackingsBasePlusTheAddress) {
  auto backing = std::make_shared<ScriptedBacking>(2, 2);
  EXPECT_FALSE(Over(backing).Iova(0));
  backing->iova = 0x10'0000;
  const GuestMemory memory = Over(backing);
  EXPECT_EQ(memory.Iova(0), 0x10'0000U);
  EXPECT_EQ(memory.Iova(2 * kPageSize - 1), 0x10'1fffU);
  EXPECT_FALSE(memory.Iova(2 * kPageSize));
  EXPECT_FALSE(memory.Iova(kMax));
  EXPECT_EQ(memory.Subrange(100, 50).value().Iova(1), 0x10'0000U + 101);
  EXPECT_FALSE(memory.Subrange(100, 50).value().Iova(50));
}

// --- ranges ---

TEST(Ranges, D1_TheLastByteOfABackingIsAccessible) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(2, 2));
  constexpr uint64_t kEnd = 2 * kPageSize;
  EXPECT_TRUE(Ok(memory.WritePlain<uint8_t>(kEnd - 1, 0x5a)));
  EXPECT_EQ(memory.ReadPlain<uint8_t>(kEnd - 1).value(), 0x5a);
  EXPECT_TRUE(Ok(memory.FillAt(0, std::byte{1}, kEnd)));
  EXPECT_EQ(memory.ReadPlain<uint64_t>(kEnd - 8).value(), 0x0101010101010101U);
  EXPECT_TRUE(Failed(memory.ReadPlain<uint64_t>(kEnd - 7).status(), ErrorKind::kOutOfRange, kEnd - 7));
  EXPECT_TRUE(Failed(memory.FillAt(0, std::byte{2}, kEnd + 1), ErrorKind::kOutOfRange, 0));
  EXPECT_EQ(memory.ReadPlain<uint8_t>(0).value(), 1);
}

TEST(Ranges, NoAddressOrLengthGetsPastTheCheck) {
  auto backing = std::make_shared<ScriptedBacking>(2, 2);
  backing->size = kPageSize + 100;  // ends inside a page
  const GuestMemory memory = Over(backing);
  for (const uint64_t gpa : {uint64_t{0}, uint64_t{1}, kPageSize + 99, kPageSize + 100, 2 * kPageSize,
                             uint64_t{1} << 32, (uint64_t{1} << 63) - 1, uint64_t{1} << 63, kMax - 7, kMax}) {
    for (const uint64_t length :
         {uint64_t{1}, kPageSize + 99, kPageSize + 100, kPageSize + 101, uint64_t{1} << 63, kMax - 1, kMax}) {
      const bool inside = gpa < backing->size && length <= backing->size - gpa;
      const Status fill = memory.FillAt(gpa, std::byte{1}, length), probe = memory.ProbeWritable(gpa, length);
      EXPECT_EQ(fill.ok(), inside) << gpa << ' ' << length;
      EXPECT_EQ(probe.ok(), inside) << gpa << ' ' << length;
      if (!inside) {
        EXPECT_TRUE(Failed(fill, ErrorKind::kOutOfRange, gpa));
        EXPECT_EQ(fill.info().range, (AddressRange{gpa, length}));
        EXPECT_TRUE(Failed(probe, ErrorKind::kOutOfRange, gpa));
      }
    }
  }
  EXPECT_EQ(backing->Byte(kPageSize + 100), 0) << "behind the end";
}

TEST(Ranges, D8_ZeroLengthsSucceedAnywhereAndCallNothing) {
  auto backing = std::make_shared<ScriptedBacking>(1, 0);
  backing->GiveBitmap();
  backing->Clear(AccessType::kRead, 0);
  const GuestMemory memory = Over(backing);
  for (const uint64_t gpa : {uint64_t{0}, uint64_t{5}, kPageSize, kPageSize + 1, uint64_t{1} << 63, kMax}) {
    EXPECT_TRUE(Ok(memory.ReadAt(gpa, {})));
    EXPECT_TRUE(Ok(memory.WriteAt(gpa, {})));
    EXPECT_TRUE(Ok(memory.FillAt(gpa, std::byte{1}, 0)));
    EXPECT_TRUE(Ok(memory.ProbeReadable(gpa, 0)));
    EXPECT_TRUE(Ok(memory.ProbeWritable(gpa, 0)));
    EXPECT_TRUE(Ok(memory.ProbeExecutable(gpa, 0)));
  }
  EXPECT_TRUE(Ok(memory.ProbeGpns({})));
  EXPECT_TRUE(backing->faults.empty());
  EXPECT_TRUE(backing->fallbacks.empty());
}

TEST(Ranges, D22_ErrorTextsNear2To64DoNotWrap) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(1, 1));
  EXPECT_TRUE(Says(memory.FillAt(kMax - 15, std::byte{0}, 16), "failed to access 0xfffffffffffffff0+0x10: "));
  EXPECT_TRUE(Says(memory.FillAt(kMax - 15, std::byte{0}, 15), "failed to access 0xfffffffffffffff0-0xffffffffffffffff: "));
  EXPECT_TRUE(Says(memory.ReadPlain<uint64_t>(kMax).status(), "failed to access 0xffffffffffffffff+0x8: "));
}

// --- plain accesses ---

struct Descriptor {
  uint64_t address;
  uint32_t length, flags;
  bool operator==(const Descriptor&) const = default;
};

TEST(Plain, RoundTripsEverySizeAtEveryAlignment) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(2, 2));
  for (uint64_t gpa = kPageSize - 16; gpa < kPageSize + 8; ++gpa) {
    EXPECT_TRUE(Ok(memory.WritePlain<uint8_t>(gpa, 0x12)));
    EXPECT_EQ(memory.ReadPlain<uint8_t>(gpa).value(), 0x12);
    EXPECT_TRUE(Ok(memory.WritePlain<uint16_t>(gpa, 0x3456)));
    EXPECT_EQ(memory.ReadPlain<uint16_t>(gpa).value(), 0x3456);
    EXPECT_TRUE(Ok(memory.WritePlain<float>(gpa, 1.5F)));
    EXPECT_EQ(memory.ReadPlain<float>(gpa).value(), 1.5F);
    EXPECT_TRUE(Ok(memory.WritePlain<uint64_t>(gpa, 0x789abcdef0123456)));
    EXPECT_EQ(memory.ReadPlain<uint64_t>(gpa).value(), 0x789abcdef0123456U);
    EXPECT_TRUE(Ok(memory.WritePlain<Descriptor>(gpa, {gpa, 7, 1})));
    EXPECT_EQ(memory.ReadPlain<Descriptor>(gpa).value(), (Descriptor{gpa, 7, 1}));
  }
}

template <typename Word>
struct Made {
  explicit Made(Word word) : word(word) {}
  Word word;
};

TEST(Plain, ATypeNeedsNoDefault) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(1, 1));
  using Big = std::array<uint64_t, 3>;
  EXPECT_TRUE(Ok(memory.WritePlain<Made<Big>>(0, Made<Big>({1, 2, 3}))));
  EXPECT_EQ(memory.ReadPlain<Made<Big>>(0).value().word, (Big{1, 2, 3}));
  EXPECT_EQ(memory.ReadPlain<Made<uint64_t>>(8).value().word, 2U);
  EXPECT_EQ(memory.CompareExchange<Made<uint64_t>>(8, Made(uint64_t{2}), Made(uint64_t{5})).value().value.word, 2U);
  EXPECT_EQ(memory.ReadPlain<Made<uint64_t>>(8).value().word, 5U);
  EXPECT_TRUE(Failed(memory.ReadPlain<Made<Big>>(kPageSize).status(), ErrorKind::kOutOfRange, kPageSize));
}

TEST(Plain, AFaultMovesNothingEvenWhenStraddling) {
  auto backing = std::make_shared<ScriptedBacking>(2, 1);
  const GuestMemory memory = Over(backing);
  ASSERT_TRUE(Ok(memory.FillAt(0, std::byte{0xee}, kPageSize)));
  const Status write = memory.WritePlain<uint64_t>(kPageSize - 3, 0);
  EXPECT_TRUE(Failed(write, ErrorKind::kNotMapped, kPageSize));
  EXPECT_EQ(memory.ReadPlain<uint32_t>(kPageSize - 4).value(), 0xeeeeeeeeU);
  EXPECT_TRUE(Failed(memory.ReadPlain<uint64_t>(kPageSize - 3).status(), ErrorKind::kNotMapped, kPageSize));
  ASSERT_EQ(backing->faults.size(), 2U);
  EXPECT_EQ(backing->faults[0].address, kPageSize);
  EXPECT_EQ(backing->faults[0].length, 5U);
  EXPECT_FALSE(backing->faults[0].bitmap_failure);
}

TEST(Plain, ARefusalOfEitherPageMovesNothing) {
  for (const uint64_t refused : {0, 1}) {
    auto backing = std::make_shared<ScriptedBacking>(2, 2);
    backing->GiveBitmap(3);
    backing->Clear(AccessType::kWrite, refused);
    const GuestMemory memory = Over(backing);
    const uint64_t at = refused == 0 ? kPageSize - 3 : kPageSize;
    EXPECT_TRUE(Failed(memory.WritePlain<uint64_t>(kPageSize - 3, kMax), ErrorKind::kAccessDenied, at));
    EXPECT_EQ(memory.ReadPlain<uint64_t>(kPageSize - 3).value(), 0U);
    ASSERT_EQ(backing->faults.size(), 1U);
    EXPECT_TRUE(backing->faults[0].bitmap_failure);
    EXPECT_EQ(backing->faults[0].access, AccessType::kWrite);
  }
}

TEST(Plain, AWriteToAReadOnlyMappingSaysSo) {
  auto backing = std::make_shared<ScriptedBacking>(1, 1);
  ASSERT_TRUE(Ok(backing->ram->Protect(0, kPageSize, SparseMapping::Protection::kRead)));
  const GuestMemory memory = Over(backing);
  for (const Status& status : {memory.WritePlain<uint32_t>(8, 1), memory.FillAt(8, std::byte{1}, 100),
                               memory.CompareExchange<uint32_t>(8, 0, 1).status(), memory.ProbeWritable(8, 1)}) {
    EXPECT_TRUE(Failed(status, ErrorKind::kNotMapped, 8));
    EXPECT_TRUE(Says(status, "read-only"));
  }
  EXPECT_TRUE(Ok(memory.ProbeReadable(8, 1)));
  EXPECT_FALSE(Says(memory.Subrange(0, 8).value().ReadPlain<uint64_t>(1).status(), "read-only"));
}

// --- compare-exchange ---

TEST(CompareExchange, SwapsOnEqualityAndReturnsTheValueSeen) {
  const GuestMemory memory = GuestMemory::Allocate(kPageSize).value();
  ASSERT_TRUE(Ok(memory.WritePlain<uint32_t>(8, 5)));
  auto result = memory.CompareExchange<uint32_t>(8, 4, 9);
  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(result->swapped);
  EXPECT_EQ(result->value, 5U);
  result = memory.CompareExchange<uint32_t>(8, 5, 9);
  EXPECT_TRUE(result->swapped);
  EXPECT_EQ(result->value, 5U);
  EXPECT_EQ(memory.ReadPlain<uint64_t>(8).value(), 9U);
}

template <typename T>
void ExpectMisalignedEverywhereElse() {
  const GuestMemory memory = GuestMemory::Allocate(2 * kPageSize).value();
  for (uint64_t gpa = kPageSize - 16; gpa < kPageSize + 16; ++gpa) {
    const Result<CompareExchangeResult<T>> result = memory.CompareExchange<T>(gpa, 0, 0);
    if (gpa % sizeof(T) == 0) {
      EXPECT_TRUE(result.ok() && result->swapped) << gpa;
    } else {
      EXPECT_TRUE(Failed(result.status(), ErrorKind::kMisaligned, gpa));
      EXPECT_EQ(result.status().info().operation, Operation::kCompareExchange);
    }
  }
}

TEST(CompareExchange, TakesTwoValuesOfOnePossibleSize) {
  const auto backing = std::make_shared<ScriptedBacking>(1, 1);
  const GuestMemory memory = Over(backing);
  std::array<std::byte, 16> current{}, desired;
  desired.fill(std::byte{1});
  for (size_t first = 0; first <= current.size(); ++first) {
    for (size_t second = 0; second <= desired.size(); ++second) {
      const bool possible = first == second && (first == 1 || first == 2 || first == 4 || first == 8);
      const Result<bool> result = memory.CompareExchangeBytes(16, std::span(current).first(first), std::span(desired).first(second));
      EXPECT_TRUE(possible ? Ok(result.status()) : Failed(result.status(), ErrorKind::kInvalidArgument, std::nullopt)) << first << " " << second;
      EXPECT_EQ(backing->Byte(16), possible ? 1 : 0) << first << " " << second;
      EXPECT_TRUE(Ok(memory.FillAt(16, std::byte{0}, 16)));
      current = {};
    }
  }
}

TEST(CompareExchange, D3_AnUnalignedAddressIsMisaligned) {
  ExpectMisalignedEverywhereElse<uint8_t>();
  ExpectMisalignedEverywhereElse<uint16_t>();
  ExpectMisalignedEverywhereElse<uint32_t>();
  ExpectMisalignedEverywhereElse<uint64_t>();
}

TEST(CompareExchange, D3_IsMisalignedBeforeAnyBitOrPageIsAskedButAfterTheRange) {
  auto backing = std::make_shared<ScriptedBacking>(1, 0);
  backing->GiveBitmap();
  backing->Clear(AccessType::kWrite, 0);
  const GuestMemory memory = Over(backing);
  EXPECT_TRUE(Failed(memory.CompareExchange<uint32_t>(2, 0, 1).status(), ErrorKind::kMisaligned, 2));
  EXPECT_TRUE(
      Failed(memory.CompareExchange<uint32_t>(kPageSize - 2, 0, 1).status(), ErrorKind::kOutOfRange, kPageSize - 2));
  EXPECT_TRUE(backing->faults.empty());
}

TEST(CompareExchange, NeedsTheWriteBitOnly) {
  auto backing = std::make_shared<ScriptedBacking>(2, 2);
  backing->GiveBitmap();
  backing->Clear(AccessType::kRead, 0);
  backing->Clear(AccessType::kWrite, 1);
  const GuestMemory memory = Over(backing);
  EXPECT_TRUE(memory.CompareExchange<uint64_t>(0, 0, 1).value().swapped);
  EXPECT_TRUE(Failed(memory.CompareExchange<uint64_t>(kPageSize, 0, 1).status(), ErrorKind::kAccessDenied, kPageSize));
}

// --- probes ---

TEST(Probes, TouchEveryPageAndChangeNothing) {
  auto backing = std::make_shared<ScriptedBacking>(4, 3);
  const GuestMemory memory = Over(backing);
  ASSERT_TRUE(Ok(memory.FillAt(0, std::byte{0xa5}, 3 * kPageSize)));
  for (const auto probe : {&GuestMemory::ProbeReadable, &GuestMemory::ProbeWritable, &GuestMemory::ProbeExecutable}) {
    EXPECT_TRUE(Ok((memory.*probe)(100, 3 * kPageSize - 100)));
    EXPECT_TRUE(Failed((memory.*probe)(100, 3 * kPageSize), ErrorKind::kNotMapped, 3 * kPageSize));
    EXPECT_TRUE(Failed((memory.*probe)(3 * kPageSize + 5, 1), ErrorKind::kNotMapped, 3 * kPageSize + 5));
  }
  for (uint64_t gpa = 0; gpa < 3 * kPageSize; ++gpa) {
    ASSERT_EQ(backing->Byte(gpa), 0xa5);
  }
}

TEST(Handles, WhatWasMovedFromIsTheEmptyMemory) {
  GuestMemory from = Over(std::make_shared<ScriptedBacking>(2, 2));
  GuestMemory to = std::move(from);
  to = GuestMemory();  // the last that had it
  EXPECT_EQ(from.ReadPlain<uint8_t>(0).status().ToString(),
            "guest memory 'empty': read error: failed to access 0x0-0x1: the range is not inside memory");
  GuestMemory& same = to;
  to = Over(std::make_shared<ScriptedBacking>(1, 1));
  to = std::move(same);
  EXPECT_TRUE(to.ReadPlain<uint8_t>(0).ok());
}

TEST(Probes, D11_OnlyTheExecuteProbeAsksTheExecuteBits) {
  auto backing = std::make_shared<ScriptedBacking>(3, 3);
  backing->GiveBitmap(5);
  backing->Clear(AccessType::kExecute, 1);
  backing->Clear(AccessType::kRead, 2);
  const GuestMemory memory = Over(backing);
  EXPECT_TRUE(Failed(memory.ProbeExecutable(0, 2 * kPageSize), ErrorKind::kAccessDenied, kPageSize));
  EXPECT_TRUE(Ok(memory.ProbeExecutable(2 * kPageSize, kPageSize)));
  EXPECT_TRUE(Ok(memory.ProbeReadable(0, 2 * kPageSize)));
  EXPECT_TRUE(Ok(memory.ProbeWritable(0, 3 * kPageSize)));
  ASSERT_EQ(backing->faults.size(), 1U);
  EXPECT_EQ(backing->faults[0].access, AccessType::kExecute);
}

TEST(Probes, OfGpnsStopAtTheFirstThatFails) {
  const GuestMemory memory = Over(std::make_shared<ScriptedBacking>(3, 2));
  constexpr uint64_t kInvalid = (uint64_t{1} << 52) - 1;
  EXPECT_TRUE(Ok(memory.ProbeGpns(std::array<uint64_t, 3>{1, 0, 1})));
  const Status invalid = memory.ProbeGpns(std::array<uint64_t, 3>{0, kInvalid, 2});
  EXPECT_TRUE(Failed(invalid, ErrorKind::kInvalidGpn, std::nullopt));
  EXPECT_EQ(invalid.info().gpn, kInvalid);
  EXPECT_EQ(memory.ProbeGpns(std::array<uint64_t, 1>{kMax}).kind(), ErrorKind::kInvalidGpn);
  EXPECT_TRUE(Failed(memory.ProbeGpns(std::array<uint64_t, 2>{2, kInvalid}), ErrorKind::kNotMapped, 2 * kPageSize));
  const uint64_t last = kInvalid - 1;
  EXPECT_TRUE(Failed(memory.ProbeGpns({&last, 1}), ErrorKind::kOutOfRange, last * kPageSize));
}

}  // namespace
}  // namespace guestmem
