// Paged ranges against a plain vector of byte addresses, and the accesses over them against a plain vector of bytes.

#include "guestmem/paged_range.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

namespace {

uint64_t g_allocations = 0;

}  // namespace

// Count, so that a test can see that a call allocates nothing.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++g_allocations;
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(size_t size) {
  if (void* const memory = operator new(size, std::nothrow)) {
    return memory;
  }
  throw std::bad_alloc();
}
// Not inline: gcc would see free where it has not seen malloc.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace guestmem {
namespace {

using Bytes = std::vector<std::byte>;
using Gpns = std::vector<uint64_t>;
constexpr uint64_t kMax = ~uint64_t{0};

// The address of each byte of a range of valid pages.
std::vector<uint64_t> AddressesOf(const PagedRange& range) {
  std::vector<uint64_t> addresses;
  for (const auto& [run, invalid_gpn] : range.ranges()) {
    EXPECT_FALSE(invalid_gpn);
    EXPECT_NE(run.length, 0u);
    EXPECT_TRUE(addresses.empty() || run.start != addresses.back() + 1 || run.start % kPageSize != 0) << "two runs that should be one";
    for (uint64_t i = 0; i < run.length; ++i) {
      addresses.push_back(run.start + i);
    }
  }
  EXPECT_EQ(addresses.size(), range.length());
  return addresses;
}

std::vector<uint64_t> AddressesOf(const PagedRanges& ranges) {
  std::vector<uint64_t> addresses;
  for (const PagedRange& part : ranges) {
    EXPECT_FALSE(part.empty());
    const auto more = AddressesOf(part);
    addresses.insert(addresses.end(), more.begin(), more.end());
  }
  EXPECT_EQ(addresses.size(), ranges.length());
  return addresses;
}

std::vector<uint64_t> Part(const std::vector<uint64_t>& whole, uint64_t offset, uint64_t length) {
  return {whole.begin() + static_cast<ptrdiff_t>(offset), whole.begin() + static_cast<ptrdiff_t>(offset + length)};
}

std::vector<ContiguousRange> RunsOf(const PagedRange& range) {
  std::vector<ContiguousRange> runs;
  for (const ContiguousRange& run : range.ranges()) {
    runs.push_back(run);
  }
  return runs;
}

class Random {
 public:
  uint64_t Below(uint64_t end) { return end == 0 ? 0 : engine_() % end; }
  // Edges more often than the rest; sometimes one more than there is.
  uint64_t UpTo(uint64_t most) {
    switch (Below(5)) {
      case 0: return 0;
      case 1: return most;
      case 2: return most + 1;
      default: return Below(most + 1);
    }
  }

 private:
  std::mt19937_64 engine_{12};
};

// One random cut of `range`, and the same of `addresses`.
template <typename Range>
void CutBoth(Random& random, Range& range, std::vector<uint64_t>& addresses) {
  const uint64_t length = addresses.size();
  ASSERT_EQ(range.length(), length);
  const uint64_t a = random.UpTo(length);
  const uint64_t b = random.UpTo(length - std::min(a, length));
  switch (random.Below(4)) {
    case 0:
      ASSERT_EQ(range.Skip(a), a <= length);
      if (a <= length) addresses = Part(addresses, a, length - a);
      break;
    case 1:
      ASSERT_EQ(range.Truncate(a), a <= length);
      if (a <= length) addresses.resize(a);
      break;
    case 2: {
      const auto part = range.Subrange(a, b);
      ASSERT_EQ(part.has_value(), a <= length && b <= length - a);
      if (part) {
        range = *part;
        addresses = Part(addresses, a, b);
      }
      break;
    }
    default: {
      const auto parts = range.Split(a);
      ASSERT_EQ(parts.has_value(), a <= length);
      if (parts) {
        ASSERT_EQ(AddressesOf(parts->first), Part(addresses, 0, a));
        range = parts->second;
        addresses = Part(addresses, a, length - a);
      }
    }
  }
  ASSERT_EQ(AddressesOf(range), addresses);
}

TEST(PagedRange, CutsLikeAVectorOfAddresses) {
  Random random;
  for (int round = 0; round < 3000; ++round) {
    Gpns gpns(random.Below(5));
    std::vector<uint64_t> addresses;
    for (uint64_t& gpn : gpns) {
      gpn = random.Below(4) == 0 ? kFirstInvalidGpn - 1 - random.Below(3) : random.Below(4);
      for (uint64_t i = 0; i < kPageSize; ++i) addresses.push_back(gpn * kPageSize + i);
    }
    const uint64_t offset = random.UpTo(addresses.size());
    const uint64_t length = random.UpTo(addresses.size() - std::min<uint64_t>(offset, addresses.size()));
    auto range = PagedRange::Create(offset, length, gpns);
    ASSERT_EQ(range.has_value(), offset <= addresses.size() && length <= addresses.size() - offset);
    if (!range) continue;
    addresses = Part(addresses, offset, length);
    ASSERT_EQ(AddressesOf(*range), addresses);
    for (int cut = 0; cut < 5; ++cut) {
      ASSERT_NO_FATAL_FAILURE(CutBoth(random, *range, addresses));
      ASSERT_EQ(range->gpns().size(), (range->offset() + range->length() + kPageSize - 1) / kPageSize);
    }
  }
}

TEST(PagedRanges, CutLikeAVectorOfAddresses) {
  Random random;
  const Gpns gpns = {3, 4, 1, 1, 2};
  for (int round = 0; round < 2000; ++round) {
    std::vector<PagedRange> members;
    std::vector<uint64_t> addresses;
    for (uint64_t i = random.Below(5); i > 0; --i) {
      const uint64_t offset = random.Below(gpns.size() * kPageSize);
      members.push_back(*PagedRange::Create(offset, random.Below(3) == 0 ? 0 : random.Below(gpns.size() * kPageSize - offset), gpns));
      const auto more = AddressesOf(members.back());
      addresses.insert(addresses.end(), more.begin(), more.end());
    }
    auto ranges = PagedRanges::Create(members);
    ASSERT_TRUE(ranges);
    ASSERT_EQ(AddressesOf(*ranges), addresses);
    for (int cut = 0; cut < 5; ++cut) ASSERT_NO_FATAL_FAILURE(CutBoth(random, *ranges, addresses));
  }
}

// A list that nobody reads, of as many pages as asked for.
std::span<const uint64_t> UnreadList(uint64_t pages) {
  static constexpr uint64_t kOne = 0;
  return {&kOne, static_cast<size_t>(pages)};
}

TEST(PagedRange, D5_ArithmeticHoldsForAnyNumber) {
  const Gpns two = {1, 2};
  EXPECT_FALSE(PagedRange::Create(kMax, kMax, two));
  EXPECT_FALSE(PagedRange::Create(kMax, 0, two));
  EXPECT_FALSE(PagedRange::Create(kMax, 1, two)) << "the sum wraps to 0";
  EXPECT_FALSE(PagedRange::Create(1, kMax, two));
  EXPECT_FALSE(PagedRange::Create(kPageSize, kMax - kPageSize + 1, std::span(two).first(1)));
  // Lists of 2^64 bytes and more.
  const auto most = PagedRange::Create(0, kMax, UnreadList(uint64_t{1} << 52));
  ASSERT_TRUE(most);
  EXPECT_EQ(most->gpns().size(), uint64_t{1} << 52);
  EXPECT_FALSE(PagedRange::Create(1, kMax, UnreadList((uint64_t{1} << 52) - 1)));
  const auto shifted = PagedRange::Create(kPageSize - 1, kMax, UnreadList(uint64_t{1} << 53));
  ASSERT_TRUE(shifted);
  EXPECT_EQ(shifted->gpns().size(), (uint64_t{1} << 52) + 1);
  const auto last = shifted->Subrange(kMax - 1, 1);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->offset(), kPageSize - 3);
  EXPECT_FALSE(shifted->Subrange(kMax, 1));
  EXPECT_FALSE(shifted->Subrange(1, kMax));
}

TEST(PagedRange, D5_TheLastPageIsNoNeighbourOfTheFirst) {
  const Gpns wrapping = {kMax, 0};
  EXPECT_EQ(RunsOf(*PagedRange::Create(0, 2 * kPageSize, wrapping)), (std::vector<ContiguousRange>{{{}, kMax}}));
  const Gpns edge = {kFirstInvalidGpn - 2, kFirstInvalidGpn - 1, kFirstInvalidGpn};
  EXPECT_EQ(RunsOf(*PagedRange::Create(1, 3 * kPageSize - 1, edge)),
            (std::vector<ContiguousRange>{{{(kFirstInvalidGpn - 2) * kPageSize + 1, 2 * kPageSize - 1}, {}}, {{}, kFirstInvalidGpn}}));
}

TEST(PagedRanges, TotalBeyond64BitsIsRefused) {
  const PagedRange half = *PagedRange::Create(0, uint64_t{1} << 63, UnreadList(uint64_t{1} << 51));
  const PagedRange less = *half.Subrange(0, half.length() - 1);
  const std::vector<PagedRange> halves = {half, half};
  EXPECT_FALSE(PagedRanges::Create(halves));
  const std::vector<PagedRange> fitting = {half, less};
  EXPECT_EQ(PagedRanges::Create(fitting)->length(), kMax);
}

TEST(PagedRange, D16_AnInvalidGpnIsReportedOnceAndEndsTheIteration) {
  const Gpns gpns = {5, kFirstInvalidGpn, kFirstInvalidGpn + 1, 6};
  EXPECT_EQ(RunsOf(*PagedRange::Create(0, 4 * kPageSize, gpns)),
            (std::vector<ContiguousRange>{{{5 * kPageSize, kPageSize}, {}}, {{}, kFirstInvalidGpn}}));
  EXPECT_EQ(RunsOf(*PagedRange::Create(4097, 1, gpns)), (std::vector<ContiguousRange>{{{}, kFirstInvalidGpn}}));
}

TEST(PagedRange, D22_AnEmptyRangeListsNoPage) {
  const Gpns gpns = {kMax, 1};
  const auto empty = PagedRange::Create(17, 0, gpns);
  ASSERT_TRUE(empty);
  EXPECT_TRUE(empty->gpns().empty());
  EXPECT_EQ(empty->offset(), 0u);
  EXPECT_TRUE(RunsOf(*empty).empty());
  const auto behind = PagedRange::Create(2 * kPageSize, 0, gpns);
  EXPECT_TRUE(behind && behind->empty());
  EXPECT_FALSE(PagedRange::Create(2 * kPageSize + 1, 0, gpns));
  const GuestMemory memory = GuestMemory::Allocate(kPageSize).value();
  EXPECT_TRUE(memory.ReadRange(*empty, std::span<std::byte>()).ok());
  EXPECT_TRUE(memory.ZeroRange(PagedRange()).ok());
  PagedRange all = *PagedRange::Create(17, 9, gpns);
  ASSERT_TRUE(all.Skip(9));
  EXPECT_TRUE(memory.FillRange(all, std::byte{1}).ok());
}

// ------------------------------------------------------------------ accesses

class RangeAccess : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 8;

  RangeAccess() {
    EXPECT_TRUE(mapping_->Allocate(0, kPages * kPageSize).ok());
    for (uint64_t i = 0; i < kPages * kPageSize; ++i) {
      bytes_.push_back(static_cast<std::byte>(i * 7 + i / kPageSize));
    }
    EXPECT_TRUE(memory_.WriteAt(0, bytes_).ok());
  }
  Bytes Guest() {
    Bytes guest(bytes_.size());
    EXPECT_TRUE(memory_.ReadAt(0, guest).ok());
    return guest;
  }

  std::shared_ptr<SparseMapping> mapping_ = SparseMapping::Create(kPages * kPageSize).value();
  GuestMemory memory_ = GuestMemory::Create("ram", mapping_).value();
  Bytes bytes_;  // what is in it
};

TEST_F(RangeAccess, ReadsWritesAndFillsWhatAVectorOfBytesSays) {
  Random random;
  for (int round = 0; round < 2000; ++round) {
    Gpns gpns(1 + random.Below(5));
    for (uint64_t& gpn : gpns) gpn = random.Below(kPages);
    const uint64_t offset = random.Below(gpns.size() * kPageSize);
    const uint64_t length = random.Below(gpns.size() * kPageSize - offset + 1);
    const PagedRange range = *PagedRange::Create(offset, length, gpns);
    const std::array<PagedRange, 3> members = {*range.Subrange(0, length / 3), PagedRange(), *range.Subrange(length / 3, length - length / 3)};
    const PagedRanges list = *PagedRanges::Create(members);
    const auto addresses = AddressesOf(range);

    Bytes wanted(length), seen(length), seen_in_list(length);
    for (uint64_t i = 0; i < length; ++i) wanted[i] = bytes_[addresses[i]];
    ASSERT_TRUE(memory_.ReadRange(range, seen).ok());
    ASSERT_EQ(seen, wanted);
    // Safe because an atomic byte has a byte's representation.
    const std::span atomics(reinterpret_cast<std::atomic<uint8_t>*>(seen_in_list.data()), length);
    ASSERT_TRUE(memory_.ReadRangeToAtomic(list, atomics).ok());
    ASSERT_EQ(seen_in_list, wanted);

    for (std::byte& byte : seen) byte = static_cast<std::byte>(random.Below(256));
    const bool fill = random.Below(4) == 0;
    Status status = fill                    ? memory_.FillRange(list, std::byte{0x5a})
                    : random.Below(2) == 0 ? memory_.WriteRange(range, seen)
                                           : memory_.WriteRange(list, seen);
    ASSERT_TRUE(status.ok());
    for (uint64_t i = 0; i < length; ++i) bytes_[addresses[i]] = fill ? std::byte{0x5a} : seen[i];
  }
  EXPECT_EQ(Guest(), bytes_);
}

TEST_F(RangeAccess, AllocatesNothing) {
  const Gpns gpns = {7, 0, 5, 2, 6};
  const PagedRange range = *PagedRange::Create(100, 4 * kPageSize, gpns);
  Bytes buffer(range.length());
  const uint64_t before = g_allocations;
  const Status read = memory_.ReadRange(range, buffer);
  const Status write = memory_.WriteRange(range, buffer);
  const Status zero = memory_.ZeroRange(range);
  EXPECT_EQ(g_allocations, before);
  EXPECT_TRUE(read.ok() && write.ok() && zero.ok());
}

TEST_F(RangeAccess, D12_ALengthMismatchIsAnArgumentErrorBeforeAnythingElse) {
  const Gpns gpns = {1, kMax};
  const PagedRange range = *PagedRange::Create(0, kPageSize + 1, gpns);
  for (const uint64_t length : {range.length() - 1, range.length() + 1, uint64_t{0}}) {
    Bytes buffer(length, std::byte{0xa5});
    for (const Status& status : {memory_.ReadRange(range, buffer), memory_.WriteRange(range, buffer)}) {
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument);
      EXPECT_FALSE(status.info().fault_address || status.info().range || status.info().gpn);
      EXPECT_EQ(status.info().transferred, 0u);
    }
    EXPECT_EQ(buffer, Bytes(length, std::byte{0xa5}));
  }
  EXPECT_EQ(memory_.ReadRange(PagedRange(), std::span(bytes_).first(1)).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(memory_.ReadRange(PagedRanges(), std::span(bytes_).first(1)).kind(), ErrorKind::kInvalidArgument);
}

TEST_F(RangeAccess, D16_AnInvalidGpnIsReportedWhenItIsReached) {
  const Gpns gpns = {1, kFirstInvalidGpn, 2};
  const PagedRange range = *PagedRange::Create(4, 3 * kPageSize - 4, gpns);
  Bytes buffer(range.length(), std::byte{0xa5});
  const Status status = memory_.ReadRange(range, buffer);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kInvalidGpn);
  EXPECT_EQ(status.info().gpn, kFirstInvalidGpn);
  EXPECT_FALSE(status.info().fault_address);
  EXPECT_EQ(status.info().transferred, kPageSize - 4);
  EXPECT_TRUE(std::equal(buffer.begin(), buffer.begin() + kPageSize - 4, bytes_.begin() + kPageSize + 4));
  EXPECT_TRUE(std::all_of(buffer.begin() + kPageSize - 4, buffer.end(), [](std::byte b) { return b == std::byte{0xa5}; }));
  EXPECT_EQ(status.ToString(), "guest memory 'ram': read error: failed to access memory: invalid guest page number 0xfffffffffffff");
}

TEST_F(RangeAccess, EveryPrefixBeforeAFaultIsExact) {
  ASSERT_TRUE(mapping_->Protect(3 * kPageSize, kPageSize, SparseMapping::Protection::kNone).ok());
  const Gpns gpns = {6, 1, 3, 2};
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{4096}, uint64_t{8000}, uint64_t{8191}, uint64_t{8192}}) {
    const PagedRange range = *PagedRange::Create(offset, 4 * kPageSize - offset, gpns);
    Bytes buffer(range.length(), std::byte{0xa5});
    for (const Status& status : {memory_.WriteRange(range, buffer), memory_.FillRange(range, std::byte{0xa5}), memory_.ReadRange(range, buffer)}) {
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.kind(), ErrorKind::kNotMapped);
      EXPECT_EQ(status.info().transferred, 2 * kPageSize - offset);
      EXPECT_EQ(status.info().fault_address, 3 * kPageSize);
      EXPECT_FALSE(status.info().range);
    }
  }
}

TEST_F(RangeAccess, AnOverlapAnywhereInAFailedCallCountsNothing) {
  const Gpns gpns = {0, 1, 100};
  const PagedRange range = *PagedRange::Create(0, 3 * kPageSize, gpns);
  const std::span<std::byte> inside(mapping_->mapping() + 4 * kPageSize, 3 * kPageSize);
  EXPECT_EQ(memory_.ReadRange(range, inside).info().transferred, 2 * kPageSize) << "no overlap";
  const std::span<std::byte> overlapping(mapping_->mapping() + 100, 3 * kPageSize);
  const Status status = memory_.ReadRange(range, overlapping);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kOutOfRange);
  EXPECT_EQ(status.info().transferred, 0u);
}

}  // namespace
}  // namespace guestmem
