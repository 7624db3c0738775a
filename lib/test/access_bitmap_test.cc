// AccessBitmap: which bits change, what refuses, what waits.

#include "guestmem/access_bitmap.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>

#include "guestmem/detail/host_calls.h"

namespace guestmem {
namespace {

using Deadline = std::chrono::steady_clock::time_point;

std::shared_ptr<AccessBitmap> Make(uint64_t pages, bool allowed = true) {
  return AccessBitmap::Create("bits", pages, allowed).value();
}

TEST(AccessBitmap, StartsAllSetOrAllClear) {
  for (const bool allowed : {true, false}) {
    const auto bits = Make(130, allowed);
    for (uint64_t page = 0; page < 130; ++page) {
      for (const AccessType access : {AccessType::kRead, AccessType::kWrite, AccessType::kExecute}) {
        EXPECT_EQ(bits->IsAllowed(page, access), allowed);
      }
    }
    EXPECT_FALSE(bits->IsAllowed(130, AccessType::kRead));
  }
}

// Every range of a bitmap of three words, each access alone: exactly its bits change, seen through info() as a backing
// would give them to the engine.
TEST(AccessBitmap, RevokeAndGrantChangeExactlyTheirBits) {
  constexpr uint64_t kPages = 150;
  const auto bits = Make(kPages);
  const BitmapInfo info = bits->info();
  ASSERT_EQ(info.bit_offset, 0);
  const std::array<const uint8_t*, 3> bitmaps = {info.read, info.write, info.execute};
  for (uint64_t first = 0; first < kPages; first += 7) {
    for (const uint64_t count : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{63}, uint64_t{64}, uint64_t{65}, kPages - first}) {
      if (first + count > kPages) {
        continue;
      }
      for (int access = 0; access < 3; ++access) {
        ASSERT_TRUE(bits->Revoke({first, count}, static_cast<AccessMask>(1 << access)).ok());
        for (int other = 0; other < 3; ++other) {
          for (uint64_t page = 0; page < kPages; ++page) {
            const bool clear = other == access && page >= first && page < first + count;
            ASSERT_EQ((bitmaps[static_cast<size_t>(other)][page / 8] >> (page % 8) & 1) == 0, clear) << page;
          }
        }
        ASSERT_TRUE(bits->Grant({first, count}, static_cast<AccessMask>(1 << access)).ok());
      }
    }
  }
}

TEST(AccessBitmap, RevokeOfALockedPageNamesTheLowestAndChangesNothing) {
  const auto bits = Make(16);
  const std::array<uint64_t, 3> locked = {9, 5, 5};
  ASSERT_TRUE(bits->Lock(locked).ok());
  const Status status = bits->Revoke({2, 10}, kReadAccess);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kLocked);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.info().gpn, 5u);
  EXPECT_EQ(status.ToString(),
            "guest memory 'bits': revoke error: failed to access 0x2000-0xc000: there is a lock on page 0x5");
  for (uint64_t page = 0; page < 16; ++page) {
    EXPECT_TRUE(bits->IsAllowed(page, AccessType::kRead));
  }
  EXPECT_TRUE(bits->Revoke({0, 5}, kReadAccess).ok());
  EXPECT_TRUE(bits->Grant({0, 16}, kAllAccess).ok());
}

TEST(AccessBitmap, APageListedTwiceIsUnlockedTwice) {
  const auto bits = Make(4);
  const std::array<uint64_t, 2> twice = {1, 1};
  const std::array<uint64_t, 1> once = {1};
  ASSERT_TRUE(bits->Lock(twice).ok());
  ASSERT_TRUE(bits->Unlock(once).ok());
  EXPECT_FALSE(bits->Revoke({1, 1}, kAllAccess).ok());
  ASSERT_TRUE(bits->Unlock(once).ok());
  EXPECT_TRUE(bits->Revoke({1, 1}, kAllAccess).ok());
}

TEST(AccessBitmap, MisuseIsRefusedAndChangesNothing) {
  const auto bits = Make(4);
  const std::array<uint64_t, 2> beyond = {0, 4};
  EXPECT_EQ(bits->Lock(beyond).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(bits->Revoke({0, 5}, kAllAccess).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(bits->Revoke({~uint64_t{0}, 2}, kAllAccess).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(bits->Grant({1, 4}, kAllAccess).kind(), ErrorKind::kInvalidArgument);
  const std::array<uint64_t, 1> held = {2};
  const std::array<uint64_t, 2> not_held = {2, 3};
  ASSERT_TRUE(bits->Lock(held).ok());
  EXPECT_EQ(bits->Unlock(not_held).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(bits->Revoke({2, 1}, kAllAccess).kind(), ErrorKind::kLocked) << "the failed unlock let page 2 go";
  ASSERT_TRUE(bits->Unlock(held).ok());
  EXPECT_TRUE(bits->Revoke({0, 4}, kAllAccess).ok()) << "the failed lock kept page 0";
  EXPECT_EQ(AccessBitmap::Create("x", uint64_t{1} << 51, true).status().kind(), ErrorKind::kInvalidArgument);
}

TEST(AccessBitmap, CreateReportsThatMemoryIsOut) {
  detail::SetHostCallFilter([](detail::HostCall call) { return call == detail::HostCall::kMmap; });
  const auto bits = AccessBitmap::Create("x", 100, true);
  detail::SetHostCallFilter(nullptr);
  EXPECT_EQ(bits.status().kind(), ErrorKind::kResourceExhausted);
}

TEST(AccessBitmap, WaitUnlockedEndsWithTheLastLock) {
  const auto bits = Make(4);
  const std::array<uint64_t, 1> page = {3};
  ASSERT_TRUE(bits->WaitUnlocked({0, 4}, Deadline{}).ok());
  ASSERT_TRUE(bits->Lock(page).ok());
  const Status late = bits->WaitUnlocked({0, 4}, Deadline{});
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.kind(), ErrorKind::kLocked);
  EXPECT_EQ(late.info().gpn, 3u);
  std::atomic<bool> unlocked = false;
  std::thread holder([&] {
    unlocked = true;
    EXPECT_TRUE(bits->Unlock(page).ok());
  });
  EXPECT_TRUE(bits->WaitUnlocked({0, 4}, Deadline::max()).ok());
  EXPECT_TRUE(unlocked.load());
  holder.join();
}

}  // namespace
}  // namespace guestmem
