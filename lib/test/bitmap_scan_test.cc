// The scan of many access bits at once, held to a loop over single bits. Nothing past a bitmap's last byte may be read,
// so each bitmap ends where memory does.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"
#include "pages.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;

// Reserved memory of so many pages, nothing of which is there, with write bits whose last byte is the last one before a
// page that faults.
class EdgeBacking : public GuestMemoryAccess {
 public:
  EdgeBacking(uint64_t pages, uint8_t bit_offset)
      : ram_(SparseMapping::Create(pages * kPageSize).value()),
        bytes_((bit_offset + pages + 7) / 8),
        memory_(bytes_ / test::kPage + 1, 1, test::Hole::kInaccessible),
        pages_(pages),
        bit_offset_(bit_offset),
        start_(reinterpret_cast<uint8_t*>(memory_.hole()) - bytes_) {
    std::memset(start_, 0xff, bytes_);
    // Bits that are no page's are clear: they must not be taken for one.
    start_[0] &= static_cast<uint8_t>(0xff << bit_offset);
    for (uint64_t page = pages; (bit_offset + page) / 8 < bytes_; ++page) {
      Clear(page);
    }
  }
  std::byte* mapping() const override { return ram_->mapping(); }
  uint64_t max_address() const override { return pages_ * kPageSize; }
  std::optional<BitmapInfo> access_bitmap() const override { return BitmapInfo{nullptr, start_, nullptr, bit_offset_}; }

  const uint8_t* start() const { return start_; }
  void Set(uint64_t page) { start_[(bit_offset_ + page) / 8] |= Mask(page); }
  void Clear(uint64_t page) { start_[(bit_offset_ + page) / 8] &= static_cast<uint8_t>(~Mask(page)); }
  bool Get(uint64_t page) const { return (start_[(bit_offset_ + page) / 8] & Mask(page)) != 0; }

 private:
  uint8_t Mask(uint64_t page) const { return static_cast<uint8_t>(1U << ((bit_offset_ + page) % 8)); }

  const std::shared_ptr<SparseMapping> ram_;
  const uint64_t bytes_;
  const test::Pages memory_;
  const uint64_t pages_;
  const uint8_t bit_offset_;
  uint8_t* const start_;
};

GuestMemory Over(std::shared_ptr<EdgeBacking> backing) {
  return GuestMemory::Create("ram", std::move(backing)).value();
}

// Where the bits refuse; the range's end if they don't. Then the mapping, of which nothing is there, has refused the
// start.
uint64_t FirstRefused(const GuestMemory& memory, uint64_t offset, uint64_t length) {
  const Status status = memory.FillAt(offset, std::byte{1}, length);
  if (status.kind() == ErrorKind::kAccessDenied) {
    return *status.info().fault_address;
  }
  EXPECT_TRUE(Failed(status, ErrorKind::kNotMapped, offset));
  return offset + length;
}

uint64_t ExpectedFirstRefused(const EdgeBacking& bitmap, uint64_t offset, uint64_t length) {
  for (uint64_t page = offset / kPageSize; page * kPageSize < offset + length; ++page) {
    if (!bitmap.Get(page)) {
      return std::max(offset, page * kPageSize);
    }
  }
  return offset + length;
}

// Sizes that make every alignment of the bitmap's start, with none, one and two whole words to scan.
std::vector<uint64_t> PageCounts() {
  std::vector<uint64_t> counts;
  for (uint64_t n = 1; n <= 20; ++n) {
    counts.push_back(n);
  }
  for (const uint64_t n : {56, 63, 64, 65, 71, 72, 80, 88, 96, 104, 112, 120, 127, 128, 129, 135, 136, 191, 193}) {
    counts.push_back(n);
  }
  return counts;
}

TEST(BitmapScan, FindsTheFirstClearBitForEveryStartAlignmentOffsetAndClearBit) {
  std::vector<bool> alignments(8);
  for (const uint64_t pages : PageCounts()) {
    for (uint8_t bit_offset = 0; bit_offset < 8; ++bit_offset) {
      const auto backing = std::make_shared<EdgeBacking>(pages, bit_offset);
      EdgeBacking& bitmap = *backing;
      const GuestMemory memory = Over(backing);
      alignments[reinterpret_cast<uintptr_t>(bitmap.start()) % 8] = true;
      for (uint64_t clear = 0; clear <= pages; ++clear) {  // the last: none
        if (clear < pages) {
          bitmap.Clear(clear);
        }
        // Where all the rest is allowed a fault must say so, which is slow: a few starts behind the clear bit will do.
        for (uint64_t first = 0; first < std::min(pages, clear + 9); ++first) {
          const uint64_t offset = first * kPageSize, length = bitmap.max_address() - offset;
          ASSERT_EQ(FirstRefused(memory, offset, length), ExpectedFirstRefused(bitmap, offset, length))
              << pages << " pages, bit offset " << int{bit_offset} << ", first " << first << ", clear " << clear;
        }
        if (clear < pages) {
          bitmap.Set(clear);
        }
      }
    }
  }
  EXPECT_EQ(std::count(alignments.begin(), alignments.end(), true), 8);
}

TEST(BitmapScan, StopsAtTheEndOfTheRange) {
  constexpr uint64_t kPages = 140;
  for (uint8_t bit_offset = 0; bit_offset < 8; ++bit_offset) {
    const auto backing = std::make_shared<EdgeBacking>(kPages, bit_offset);
    EdgeBacking& bitmap = *backing;
    const GuestMemory memory = Over(backing);
    for (uint64_t clear = 60; clear < kPages; ++clear) {
      bitmap.Clear(clear);
      for (uint64_t first = clear % 3; first < clear; first += 7) {
        const uint64_t offset = first * kPageSize + 5;
        // Ends on the clear page, and before it in the same byte, the same word and the word before.
        for (const uint64_t distance : {0, 1, 2, 3, 4, 5, 6, 7, 20, 59}) {
          const uint64_t end = std::max((clear - distance) * kPageSize, offset + 1);
          ASSERT_EQ(FirstRefused(memory, offset, end - offset), end)
              << "bit offset " << int{bit_offset} << ", first " << first << ", clear " << clear << ", end " << end;
        }
        ASSERT_EQ(FirstRefused(memory, offset, clear * kPageSize + 1 - offset), clear * kPageSize);
      }
      bitmap.Set(clear);
    }
  }
}

TEST(BitmapScan, OfSeveralClearBitsFindsTheFirst) {
  constexpr uint64_t kPages = 200;
  for (uint8_t bit_offset = 0; bit_offset < 8; ++bit_offset) {
    const auto backing = std::make_shared<EdgeBacking>(kPages, bit_offset);
    EdgeBacking& bitmap = *backing;
    const GuestMemory memory = Over(backing);
    for (const uint64_t step : {1, 2, 3, 7, 8, 9, 31, 64, 65}) {
      for (uint64_t page = step; page < kPages; page += step) {
        bitmap.Clear(page);
      }
      for (uint64_t first = 0; first < kPages; ++first) {
        const uint64_t offset = first * kPageSize + 1, length = bitmap.max_address() - offset;
        ASSERT_EQ(FirstRefused(memory, offset, length), ExpectedFirstRefused(bitmap, offset, length));
      }
      for (uint64_t page = step; page < kPages; page += step) {
        bitmap.Set(page);
      }
    }
  }
}

TEST(BitmapScan, StartsAndEndsInsidePagesOfTheBackingInAView) {
  const auto backing = std::make_shared<EdgeBacking>(100, 3);
  const uint64_t start = 10 * kPageSize + 100, size = backing->max_address() - start;
  const GuestMemory view = Over(backing).Subrange(start, size).value();
  backing->Clear(80);
  EXPECT_EQ(FirstRefused(view, 0, size), 70 * kPageSize - 100);
  EXPECT_EQ(FirstRefused(view, 0, 70 * kPageSize - 100), 70 * kPageSize - 100);
  EXPECT_EQ(FirstRefused(view, 70 * kPageSize + 7, 1), 70 * kPageSize + 7);
  EXPECT_EQ(FirstRefused(view, 71 * kPageSize - 100, 1), 71 * kPageSize - 100 + 1);
  EXPECT_TRUE(Failed(view.ProbeReadable(0, size), ErrorKind::kNotMapped, 0)) << "there are no bits for reading";
}

TEST(BitmapScan, OfAGuestsWholeMemoryFindsTheOnePage) {
  constexpr uint64_t kSize = uint64_t{1} << 30, kPages = kSize / kPageSize;
  for (const uint8_t bit_offset : std::initializer_list<uint8_t>{0, 1, 7}) {
    const auto backing = std::make_shared<EdgeBacking>(kPages, bit_offset);
    const GuestMemory memory = Over(backing);
    for (const uint64_t page :
         {uint64_t{0}, uint64_t{1}, uint64_t{63}, uint64_t{64}, kPages / 2 + 5, kPages - 65, kPages - 2, kPages - 1}) {
      backing->Clear(page);
      EXPECT_EQ(FirstRefused(memory, 0, kSize), page * kPageSize);
      EXPECT_TRUE(Failed(memory.ProbeWritable(0, kSize), ErrorKind::kAccessDenied, page * kPageSize));
      backing->Set(page);
    }
    EXPECT_EQ(FirstRefused(memory, 5, kSize - 5), kSize);
  }
}

}  // namespace
}  // namespace guestmem
