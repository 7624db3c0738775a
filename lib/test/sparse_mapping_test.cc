// SparseMapping: reserve, allocate, map zero, protect, unmap; arguments; host calls that fail.

#include "guestmem/sparse_mapping.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "guestmem/detail/host_calls.h"
#include "guestmem/guest_memory.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;
using test::Says;
using Protection = SparseMapping::Protection;

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

// What each page does: '-' nothing, 'r' reads, 'w' reads and writes.
std::string Shape(const std::shared_ptr<SparseMapping>& mapping) {
  const GuestMemory memory = GuestMemory::Create("ram", mapping).value();
  std::string shape;
  for (uint64_t gpa = 0; gpa < mapping->max_address(); gpa += kPageSize) {
    const bool writes = memory.ProbeWritable(gpa, kPageSize).ok(), reads = memory.ProbeReadable(gpa, kPageSize).ok();
    shape += writes ? reads ? 'w' : '?' : reads ? 'r' : '-';
  }
  return shape;
}

std::shared_ptr<SparseMapping> Mapping(uint64_t pages) { return SparseMapping::Create(pages * kPageSize).value(); }

TEST(SparseMapping, ReservesWholePagesThatAllFault) {
  for (const auto& [asked, pages] : {std::pair<uint64_t, uint64_t>{1, 1}, {kPageSize, 1}, {kPageSize + 1, 2}}) {
    const std::shared_ptr<SparseMapping> mapping = SparseMapping::Create(asked).value();
    EXPECT_EQ(mapping->max_address(), pages * kPageSize);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(mapping->mapping()) % kPageSize, 0U);
    EXPECT_EQ(Shape(mapping), std::string(pages, '-'));
  }
}

TEST(SparseMapping, ReservesMoreThanAnyMachineHas) {
  const std::shared_ptr<SparseMapping> mapping = SparseMapping::Create(uint64_t{1} << 40).value();
  EXPECT_TRUE(Ok(mapping->Allocate((uint64_t{1} << 40) - kPageSize, kPageSize)));
  const GuestMemory memory = GuestMemory::Create("ram", mapping).value();
  EXPECT_TRUE(Ok(memory.WritePlain<uint64_t>((uint64_t{1} << 40) - 8, 1)));
}

TEST(SparseMapping, RefusesSizesThatAreNone) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1} << 47, (uint64_t{1} << 47) + 1, uint64_t{1} << 63, kMax}) {
    const Status status = SparseMapping::Create(size).status();
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument) << size;
    EXPECT_EQ(status.info().operation, Operation::kCreate);
    EXPECT_TRUE(Says(status, "sparse mapping"));
  }
}

TEST(SparseMapping, ReportsAnAddressSpaceThatIsTooSmall) {
  EXPECT_EQ(SparseMapping::Create((uint64_t{1} << 47) - kPageSize).status().kind(), ErrorKind::kResourceExhausted);
}

TEST(SparseMapping, AllocateGivesFreshZeroes) {
  const std::shared_ptr<SparseMapping> mapping = Mapping(4);
  ASSERT_TRUE(Ok(mapping->Allocate(kPageSize, 2 * kPageSize)));
  EXPECT_EQ(Shape(mapping), "-ww-");
  std::memset(mapping->mapping() + kPageSize, 7, 2 * kPageSize);
  ASSERT_TRUE(Ok(mapping->Allocate(2 * kPageSize, 2 * kPageSize)));  // over the second again
  EXPECT_EQ(Shape(mapping), "-www");
  EXPECT_EQ(mapping->mapping()[2 * kPageSize - 1], std::byte{7});
  EXPECT_EQ(mapping->mapping()[2 * kPageSize], std::byte{0});
}

TEST(SparseMapping, MapZeroReadsZeroesAndTakesNoWrites) {
  const std::shared_ptr<SparseMapping> mapping = Mapping(3);
  ASSERT_TRUE(Ok(mapping->Allocate(0, 3 * kPageSize)));
  std::memset(mapping->mapping(), 7, 3 * kPageSize);
  ASSERT_TRUE(Ok(mapping->MapZero(kPageSize, kPageSize)));
  EXPECT_EQ(Shape(mapping), "wrw");
  EXPECT_EQ(mapping->mapping()[kPageSize], std::byte{0});
  EXPECT_EQ(mapping->mapping()[2 * kPageSize], std::byte{7});
  const GuestMemory memory = GuestMemory::Create("ram", mapping).value();
  const Status status = memory.FillAt(0, std::byte{9}, 3 * kPageSize);
  EXPECT_TRUE(Failed(status, ErrorKind::kNotMapped, kPageSize, kPageSize));
  EXPECT_TRUE(Says(status, "read-only"));
}

TEST(SparseMapping, ProtectKeepsTheBytes) {
  const std::shared_ptr<SparseMapping> mapping = Mapping(2);
  ASSERT_TRUE(Ok(mapping->Allocate(0, 2 * kPageSize)));
  std::memset(mapping->mapping(), 7, 2 * kPageSize);
  ASSERT_TRUE(Ok(mapping->Protect(0, kPageSize, Protection::kRead)));
  EXPECT_EQ(Shape(mapping), "rw");
  ASSERT_TRUE(Ok(mapping->Protect(0, 2 * kPageSize, Protection::kNone)));
  EXPECT_EQ(Shape(mapping), "--");
  ASSERT_TRUE(Ok(mapping->Protect(0, 2 * kPageSize, Protection::kReadWrite)));
  EXPECT_EQ(Shape(mapping), "ww");
  EXPECT_EQ(std::vector<std::byte>(mapping->mapping(), mapping->mapping() + 2 * kPageSize),
            std::vector<std::byte>(2 * kPageSize, std::byte{7}));
}

TEST(SparseMapping, ProtectMakesZeroedMemoryOfAPageThatWasNotThere) {
  const std::shared_ptr<SparseMapping> mapping = Mapping(2);
  ASSERT_TRUE(Ok(mapping->Protect(0, kPageSize, Protection::kReadWrite)));
  EXPECT_EQ(Shape(mapping), "w-");
  EXPECT_EQ(mapping->mapping()[5], std::byte{0});
}

TEST(SparseMapping, UnmapForgetsTheBytes) {
  const std::shared_ptr<SparseMapping> mapping = Mapping(3);
  ASSERT_TRUE(Ok(mapping->Allocate(0, 3 * kPageSize)));
  std::memset(mapping->mapping(), 7, 3 * kPageSize);
  ASSERT_TRUE(Ok(mapping->Unmap(kPageSize, kPageSize)));
  EXPECT_EQ(Shape(mapping), "w-w");
  ASSERT_TRUE(Ok(mapping->Protect(kPageSize, kPageSize, Protection::kRead)));
  EXPECT_EQ(mapping->mapping()[kPageSize], std::byte{0});
  ASSERT_TRUE(Ok(mapping->Unmap(0, 3 * kPageSize)));
  EXPECT_EQ(Shape(mapping), "---");
  ASSERT_TRUE(Ok(mapping->Unmap(0, 3 * kPageSize)));  // twice
}

TEST(SparseMapping, TheLastOfOverlappingCallsWinsPageByPage) {
  const std::shared_ptr<SparseMapping> mapping = Mapping(6);
  ASSERT_TRUE(Ok(mapping->Allocate(0, 4 * kPageSize)));
  ASSERT_TRUE(Ok(mapping->MapZero(kPageSize, 4 * kPageSize)));
  ASSERT_TRUE(Ok(mapping->Unmap(2 * kPageSize, kPageSize)));
  ASSERT_TRUE(Ok(mapping->Protect(4 * kPageSize, kPageSize, Protection::kNone)));
  EXPECT_EQ(Shape(mapping), "wr-r--");
}

using Call = Status (*)(SparseMapping& mapping, uint64_t offset, uint64_t length);
constexpr Call kCalls[] = {
    [](SparseMapping& m, uint64_t offset, uint64_t length) { return m.Allocate(offset, length); },
    [](SparseMapping& m, uint64_t offset, uint64_t length) { return m.MapZero(offset, length); },
    [](SparseMapping& m, uint64_t offset, uint64_t length) { return m.Protect(offset, length, Protection::kRead); },
    [](SparseMapping& m, uint64_t offset, uint64_t length) { return m.Unmap(offset, length); },
};

TEST(SparseMapping, EveryCallRefusesWhatIsNotPagesInsideIt) {
  for (const Call call : kCalls) {
    const std::shared_ptr<SparseMapping> mapping = Mapping(4);
    ASSERT_TRUE(Ok(mapping->Allocate(0, kPageSize)));
    const AddressRange bad[] = {{1, kPageSize},
                                {0, kPageSize - 1},
                                {0, 5 * kPageSize},
                                {4 * kPageSize, kPageSize},
                                {5 * kPageSize, 0},
                                {kPageSize, kMax - kPageSize + 1},
                                {kMax - kPageSize + 1, kPageSize},
                                {kMax - kPageSize + 1, 2 * kPageSize}};
    for (const AddressRange& range : bad) {
      const Status status = call(*mapping, range.start, range.length);
      ASSERT_FALSE(status.ok()) << range.start << ' ' << range.length;
      EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument);
      EXPECT_EQ(status.info().range, range);
    }
    EXPECT_TRUE(Ok(call(*mapping, 4 * kPageSize, 0)));
    EXPECT_TRUE(Ok(call(*mapping, 0, 0)));
    EXPECT_EQ(Shape(mapping), "w---");
  }
}

TEST(SparseMapping, AHostCallThatFailsChangesNothing) {
  for (const Call call : kCalls) {
    const std::shared_ptr<SparseMapping> mapping = Mapping(2);
    ASSERT_TRUE(Ok(mapping->Allocate(0, kPageSize)));
    mapping->mapping()[3] = std::byte{7};
    detail::SetHostCallFilter([](detail::HostCall) { return true; });
    const Status status = call(*mapping, 0, 2 * kPageSize);
    detail::SetHostCallFilter(nullptr);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
    EXPECT_EQ(Shape(mapping), "w-");
    EXPECT_EQ(mapping->mapping()[3], std::byte{7});
  }
  detail::SetHostCallFilter([](detail::HostCall call) { return call == detail::HostCall::kMmap; });
  const Status status = SparseMapping::Create(kPageSize).status();
  detail::SetHostCallFilter(nullptr);
  EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
}

}  // namespace
}  // namespace guestmem
