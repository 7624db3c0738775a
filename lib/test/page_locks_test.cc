// PageLocks: how often each page is locked, what memory that takes, and what waits for what.

#include "guestmem/detail/page_locks.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <thread>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/detail/host_calls.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"
#include "host_state.h"
#include "status_matchers.h"

namespace guestmem::detail {

class PageLocksPeer {
 public:
  static bool MutexIsFree(PageLocks& locks) {
    const std::unique_lock lock(locks.mutex_, std::try_to_lock);
    return lock.owns_lock();
  }
  // As if a page that is locked had been locked `times` times more.
  static void LockOften(PageLocks& locks, uint64_t gpn, uint32_t times) {
    locks.GroupOf(gpn)->counts[gpn % PageLocks::kGroupPages] += times;
  }
  static uint64_t Groups(const PageLocks& locks) { return locks.groups_; }
};

}  // namespace guestmem::detail

namespace guestmem {
namespace {

using detail::PageLocks;
using detail::PageLocksPeer;
using test::HostState;
using test::Ok;
using Gpns = std::vector<uint64_t>;

constexpr uint64_t kPages = 1000;

Status Change(PageLocks& locks, PageRange pages, int* done = nullptr) {
  return locks.IfUnlocked(pages, [&] {
    if (done != nullptr) ++*done;
    return Status();
  });
}

// Every page of three groups and every range around it: the lowest locked page stops a change, and nothing else does.
TEST(PageLocks, TheLowestLockedPageOfTheRangeStopsAChange) {
  PageLocks locks("pages", kPages);
  for (uint64_t page = 120; page < 400; page += 7) {
    const Gpns gpns = {page, 999, page + 3};
    ASSERT_TRUE(Ok(locks.Lock(gpns)));
    for (const auto& [pages, lowest] : {std::pair<PageRange, uint64_t>{{0, kPages}, page}, {{page, 1}, page}, {{page, 4}, page},
                                        {{page - 50, 51}, page}, {{page + 1, 3}, page + 3}, {{page + 1, kPages - page - 1}, page + 3},
                                        {{page + 4, kPages - page - 4}, 999}}) {
      int done = 0;
      const Status status = Change(locks, pages, &done);
      ASSERT_FALSE(status.ok()) << pages.first << '+' << pages.count;
      EXPECT_EQ(done, 0);
      EXPECT_EQ(status.kind(), ErrorKind::kLocked);
      EXPECT_EQ(status.info().gpn, lowest);
      EXPECT_EQ(status.info().range, (AddressRange{pages.first * kPageSize, pages.count * kPageSize}));
      EXPECT_EQ(locks.WaitUnlocked(pages, {}).info().gpn, lowest);
    }
    for (const PageRange free : {PageRange{0, page}, {page, 0}, {page + 1, 2}, {page + 4, 999 - page - 4}}) {
      int done = 0;
      EXPECT_TRUE(Ok(Change(locks, free, &done)));
      EXPECT_EQ(done, 1);
      EXPECT_TRUE(Ok(locks.WaitUnlocked(free, {})));
    }
    ASSERT_TRUE(Ok(locks.Unlock(gpns)));
    EXPECT_TRUE(Ok(Change(locks, {0, kPages})));
  }
}

TEST(PageLocks, APageIsLockedAsOftenAsItIsListed) {
  PageLocks locks("pages", kPages);
  const Gpns thrice = {300, 300, 4, 300}, once = {300};
  ASSERT_TRUE(Ok(locks.Lock(thrice)));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Change(locks, {5, kPages - 5}).info().gpn, 300u);
    ASSERT_TRUE(Ok(locks.Unlock(once)));
  }
  EXPECT_TRUE(Ok(Change(locks, {5, kPages - 5})));
  EXPECT_EQ(locks.Unlock(once).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(Change(locks, {0, kPages}).info().gpn, 4u);
}

TEST(PageLocks, MisuseChangesNothing) {
  PageLocks locks("pages", kPages);
  const Gpns held = {7, 500};
  ASSERT_TRUE(Ok(locks.Lock(held)));
  for (const Gpns& gpns : {Gpns{0, kPages}, Gpns{0, ~uint64_t{0}}, Gpns{200, 7, uint64_t{1} << 52}}) {
    EXPECT_EQ(locks.Lock(gpns).kind(), ErrorKind::kInvalidArgument);
  }
  for (const Gpns& gpns : {Gpns{7, 7}, Gpns{7, 500, 8}, Gpns{500, 7, kPages}, Gpns{500, 7, 300}, Gpns{~uint64_t{0}}}) {
    EXPECT_EQ(locks.Unlock(gpns).kind(), ErrorKind::kInvalidArgument);
  }
  for (const PageRange pages : {PageRange{0, kPages + 1}, {kPages + 1, 0}, {1, ~uint64_t{0}}, {~uint64_t{0}, 2}}) {
    EXPECT_EQ(Change(locks, pages).kind(), ErrorKind::kInvalidArgument);
    EXPECT_EQ(locks.WaitUnlocked(pages, {}).kind(), ErrorKind::kInvalidArgument);
  }
  EXPECT_EQ(PageLocksPeer::Groups(locks), 2u) << "a failed lock kept a page";
  EXPECT_EQ(Change(locks, {0, kPages}).info().gpn, 7u);
  EXPECT_EQ(Change(locks, {8, kPages - 8}).info().gpn, 500u);
  EXPECT_TRUE(Ok(locks.Unlock(held)));
  EXPECT_TRUE(Ok(Change(locks, {0, kPages})));
}

TEST(PageLocks, TakeMemoryOnlyForWhatIsLocked) {
  constexpr uint64_t kMany = uint64_t{1} << 30;  // of a mapping of 4 TiB
  const HostState before;
  {
    PageLocks locks("pages", kMany);
    EXPECT_TRUE(Ok(Change(locks, {0, kMany})));
    EXPECT_EQ(HostState(), before);
    const Gpns ends = {kMany - 1, 0};
    ASSERT_TRUE(Ok(locks.Lock(ends)));
    EXPECT_EQ(PageLocksPeer::Groups(locks), 2u);
    EXPECT_EQ(Change(locks, {kMany - 500, 500}).info().gpn, kMany - 1);
    ASSERT_TRUE(Ok(locks.Unlock(ends)));
    EXPECT_EQ(PageLocksPeer::Groups(locks), 0u);
    ASSERT_TRUE(Ok(locks.Lock(ends)));  // what is locked when the counts go, goes with them: LeakSanitizer
  }
  EXPECT_EQ(HostState(), before);
}

int g_asked = 0;
int g_fails = 0;

TEST(PageLocks, MemoryThatCannotBeHadChangesNothing) {
  const HostState before;
  for (g_fails = 1; g_fails <= 4; ++g_fails) {
    PageLocks locks("pages", kPages);
    const Gpns gpns = {3, 3, 400, 800};
    g_asked = 0;
    detail::SetHostCallFilter([](detail::HostCall call) {
      EXPECT_EQ(call, detail::HostCall::kCountLocks);
      return ++g_asked == g_fails;
    });
    const Status status = locks.Lock(gpns);
    detail::SetHostCallFilter(nullptr);
    EXPECT_EQ(g_asked, g_fails);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
    EXPECT_EQ(HostState(), before);
    EXPECT_EQ(PageLocksPeer::Groups(locks), 0u);
    EXPECT_TRUE(Ok(Change(locks, {0, kPages})));
    EXPECT_TRUE(Ok(locks.Lock(gpns)));
    EXPECT_EQ(Change(locks, {0, kPages}).info().gpn, 3u);
  }
}

// 2^32 - 1 locks of a page are counted; one more is refused, and takes nothing with it.
TEST(PageLocks, CountsDoNotWrap) {
  PageLocks locks("pages", kPages);
  const Gpns page = {5}, mixed = {9, 300, 5, 9};
  ASSERT_TRUE(Ok(locks.Lock(page)));
  PageLocksPeer::LockOften(locks, 5, std::numeric_limits<uint32_t>::max() - 2);
  ASSERT_TRUE(Ok(locks.Lock(page)));
  for (const Gpns& gpns : {page, mixed}) {
    const Status status = locks.Lock(gpns);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
  }
  EXPECT_EQ(Change(locks, {0, kPages}).info().gpn, 5u);
  EXPECT_TRUE(Ok(Change(locks, {6, kPages - 6})));
  EXPECT_EQ(PageLocksPeer::Groups(locks), 1u);
  ASSERT_TRUE(Ok(locks.Unlock(page)));
  EXPECT_TRUE(Ok(locks.Lock(mixed)));
}

TEST(PageLocks, CountsThatAreFullAreToldToTheCallerOfALock) {
  class Full : public GuestMemoryAccess {
   public:
    std::byte* mapping() const override { return ram_->mapping(); }
    uint64_t max_address() const override { return kPageSize; }
    Status LockGpns(AccessType, std::span<const uint64_t> gpns) override { return locks_.Lock(gpns); }
    void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override { EXPECT_TRUE(locks_.Unlock(gpns).ok()); }
    Full() {
      EXPECT_TRUE(ram_->Allocate(0, kPageSize).ok());
      EXPECT_TRUE(locks_.Lock(std::array<uint64_t, 1>{0}).ok());
      PageLocksPeer::LockOften(locks_, 0, std::numeric_limits<uint32_t>::max() - 2);
    }

   private:
    const std::shared_ptr<SparseMapping> ram_ = SparseMapping::Create(kPageSize).value();
    PageLocks locks_{"full", 1};
  };
  const GuestMemory memory = GuestMemory::Create("ram", std::make_shared<Full>()).value();
  const LockedPages last = memory.LockGpns(AccessType::kRead, false, Gpns{0}).value();
  const Status status = memory.LockGpns(AccessType::kRead, false, Gpns{0}).status();
  EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
  EXPECT_EQ(status.ToString(), "guest memory 'ram': lock error: failed to access memory at 0x0: out of memory");
}

// A lock cannot begin between the look at the counts and the change that it allows.
TEST(PageLocks, AChangeIsMadeUnderTheMutexThatLocksCountUnder) {
  PageLocks locks("pages", kPages);
  const auto is_free = [&] {
    bool free = false;
    std::thread([&] { free = PageLocksPeer::MutexIsFree(locks); }).join();
    return free;
  };
  bool free_meanwhile = true;
  EXPECT_TRUE(Ok(locks.IfUnlocked({0, 1}, [&] {
    free_meanwhile = is_free();
    return Status();
  })));
  EXPECT_FALSE(free_meanwhile);
  EXPECT_TRUE(is_free());
}

TEST(PageLocks, AnErrorOfTheChangeIsHandedOn) {
  PageLocks locks("pages", kPages);
  const Status status = locks.IfUnlocked({0, 1}, [] { return BackendError(StatusCode::kAborted, "no"); });
  EXPECT_EQ(status.code(), StatusCode::kAborted);
}

}  // namespace
}  // namespace guestmem
