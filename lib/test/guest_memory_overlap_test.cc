// A host buffer that overlaps the guest range: memmove on success, transferred 0 on failure (SPEC 4).

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "guestmem/guest_memory.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;
using test::ScriptedBacking;

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(Overlap, IsMemmoveInBothDirections) {
  for (const size_t length : {size_t{1}, size_t{8}, size_t{100}, size_t{5000}, size_t{kMiB} + 5000}) {
    for (const int64_t shift : {int64_t{-4096}, int64_t{-100}, int64_t{-1}, int64_t{0}, int64_t{1}, int64_t{31},
                                int64_t{100}, int64_t{4097}}) {
      for (const bool write : {false, true}) {
        const auto ram = std::make_shared<ScriptedBacking>(2 * kMiB / kPageSize, 2 * kMiB / kPageSize);
        std::vector<std::byte> expected(2 * kMiB);
        for (size_t i = 0; i < expected.size(); ++i) {
          expected[i] = *ram->At(i) = static_cast<std::byte>(i * 7 + i / 251);
        }
        const uint64_t gpa = 8192, buffer = static_cast<uint64_t>(int64_t{gpa} + shift);
        std::memmove(&expected[write ? gpa : buffer], &expected[write ? buffer : gpa], length);
        const std::span<std::byte> host(ram->At(buffer), length);
        EXPECT_TRUE(Ok(write ? Over(ram).WriteAt(gpa, host) : Over(ram).ReadAt(gpa, host)));
        EXPECT_EQ(std::memcmp(expected.data(), ram->At(0), expected.size()), 0)
            << length << ' ' << shift << ' ' << write;
      }
    }
  }
}

TEST(Overlap, ThatFailsHasTransferredZero) {
  const auto ram = std::make_shared<ScriptedBacking>(4, 2);
  const GuestMemory memory = Over(ram);
  constexpr uint64_t kStart = kPageSize, kLength = kPageSize + 100;  // ends in the hole
  for (const uint64_t buffer : {uint64_t{0}, uint64_t{1}, kPageSize - 100}) {
    const std::span<std::byte> host(ram->At(buffer), kLength);
    const std::vector<std::byte> before(ram->At(0), ram->At(2 * kPageSize));
    EXPECT_TRUE(Failed(memory.ReadAt(kStart, host), ErrorKind::kNotMapped, 2 * kPageSize, 0));
    EXPECT_TRUE(std::equal(before.begin(), before.end(), ram->At(0))) << "a failed read has stored what was never read";
    EXPECT_TRUE(Failed(memory.WriteAt(kStart, host), ErrorKind::kNotMapped, 2 * kPageSize, 0));
  }
}

TEST(Overlap, ABufferThatOnlyTouchesTheRangeIsNone) {
  const auto ram = std::make_shared<ScriptedBacking>(4, 2);
  const GuestMemory memory = Over(ram);
  const uint64_t gpa = kPageSize + 100, length = kPageSize;
  const std::span<std::byte> host(ram->At(gpa - length), length);
  EXPECT_TRUE(Failed(memory.ReadAt(gpa, host), ErrorKind::kNotMapped, 2 * kPageSize, kPageSize - 100));
}

// Pieces are checked one by one, but the promise is about the whole host buffer and the whole range.
TEST(Overlap, WithAnotherRegionsPieceThatFailsHasTransferredZero) {
  const auto first = std::make_shared<ScriptedBacking>(2, 2), second = std::make_shared<ScriptedBacking>(2, 2);
  second->GiveBitmap();
  second->Clear(AccessType::kRead, 0);
  const GuestMemory memory = GuestMemory::CreateMultiRegion("ram", 2 * kPageSize, {first, second}).value();
  // [4096, 12288): the first region's second page, then the second region's first, which is refused. The first page of
  // the host buffer is the memory of the second piece.
  const std::span<std::byte> host(second->At(0), 2 * kPageSize);
  EXPECT_TRUE(Failed(memory.ReadAt(kPageSize, host), ErrorKind::kAccessDenied, 2 * kPageSize, 0));
}

TEST(Overlap, OfALaterPieceIsMemmoveToo) {
  const auto first = std::make_shared<ScriptedBacking>(4, 4), second = std::make_shared<ScriptedBacking>(4, 4);
  const GuestMemory memory = GuestMemory::CreateMultiRegion("ram", 4 * kPageSize, {first, second}).value();
  for (uint64_t i = 0; i < 4 * kPageSize; ++i) {
    *first->At(i) = static_cast<std::byte>(i % 13);
    *second->At(i) = static_cast<std::byte>(i % 251);
  }
  // The last page of the first region and three of the second, in that order, to where the second's begins.
  std::vector<std::byte> expected(second->At(0), second->At(0) + 4 * kPageSize);
  std::memcpy(expected.data(), first->At(3 * kPageSize), kPageSize);
  std::memmove(expected.data() + kPageSize, expected.data(), 3 * kPageSize);
  EXPECT_TRUE(Ok(memory.ReadAt(3 * kPageSize, std::span(second->At(0), 4 * kPageSize))));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), second->At(0)));
}

}  // namespace
}  // namespace guestmem
