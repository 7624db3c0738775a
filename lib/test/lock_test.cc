// Locked pages and ranges, used as a program would use them. The lockstep watches every rule; these are the things that no
// trace can show: the kernel on the other end of an iovec, ownership, moves, atomics.

#include "guestmem/lock.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

namespace guestmem {
namespace {

using Gpns = std::vector<uint64_t>;

Result<LockedRange> LockRange(const GuestMemory& memory, AccessType access, uint64_t offset, uint64_t length,
                              const Gpns& gpns) {
  return memory.LockRange(access, PagedRange::Create(offset, length, gpns).value());
}

// Memory that counts what is locked, and can refuse.
class Counting : public GuestMemoryAccess {
 public:
  explicit Counting(uint64_t pages) : ram_(SparseMapping::Create(pages * kPageSize).value()), locks_(pages) {
    EXPECT_TRUE(ram_->Allocate(0, pages * kPageSize).ok());
  }
  ~Counting() override {
    EXPECT_EQ(Locked(), 0) << "a lock outlived its memory";
    if (gone != nullptr) *gone = true;
  }

  std::byte* mapping() const override { return ram_->mapping(); }
  uint64_t max_address() const override { return ram_->max_address(); }
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override {
    if (refuse) return BackendError(StatusCode::kUnavailable, "busy");
    for (const uint64_t gpn : gpns) ++locks_[gpn];
    return {};
  }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override {
    for (const uint64_t gpn : gpns) {
      EXPECT_GT(locks_[gpn], 0) << "unlocked more often than locked";
      --locks_[gpn];
    }
  }

  int Locked() const { return std::accumulate(locks_.begin(), locks_.end(), 0); }
  SparseMapping& ram() { return *ram_; }

  bool refuse = false;
  bool* gone = nullptr;

 private:
  std::shared_ptr<SparseMapping> ram_;
  std::vector<int> locks_;
};

std::array<std::byte, 3 * kPageSize> Pattern() {
  std::array<std::byte, 3 * kPageSize> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256);
  return bytes;
}

TEST(LockedPages, TheKernelReadsAndWritesThroughTheirIovecs) {
  const int file = memfd_create("disk", MFD_CLOEXEC);
  ASSERT_GE(file, 0);
  const auto disk = Pattern();
  ASSERT_EQ(pwrite(file, disk.data(), disk.size(), 0), static_cast<ssize_t>(disk.size()));
  auto ram = std::make_shared<Counting>(8);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();

  // The guest's pages are scattered; one system call fills them.
  auto locked = memory.LockGpns(AccessType::kWrite, true, Gpns{5, 0, 3});
  ASSERT_TRUE(locked.ok()) << locked.status().ToString();
  ASSERT_EQ(preadv(file, locked->iovecs().data(), 3, 0), static_cast<ssize_t>(disk.size()));
  std::array<std::byte, kPageSize> page;
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(memory.ReadAt(Gpns{5, 0, 3}[i] * kPageSize, page).ok());
    EXPECT_EQ(std::memcmp(page.data(), disk.data() + i * kPageSize, kPageSize), 0) << "page " << i;
  }

  // And back, from a range that starts and ends inside a page.
  auto range = LockRange(memory, AccessType::kRead, 100, kPageSize, Gpns{0, 3});
  ASSERT_TRUE(range.ok());
  ASSERT_EQ(range->iovecs().size(), 2u);
  ASSERT_EQ(pwritev(file, range->iovecs().data(), 2, 4 * kPageSize), static_cast<ssize_t>(kPageSize));
  ASSERT_EQ(pread(file, page.data(), page.size(), 4 * kPageSize), static_cast<ssize_t>(kPageSize));
  EXPECT_EQ(std::memcmp(page.data(), disk.data() + kPageSize + 100, kPageSize), 0);
  close(file);
}

TEST(LockedPages, UnlockExactlyOnceThroughEveryMove) {
  auto ram = std::make_shared<Counting>(4);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  {
    LockedPages first = memory.LockGpns(AccessType::kRead, false, Gpns{0, 1, 1}).value();
    EXPECT_EQ(ram->Locked(), 3);
    LockedPages second = std::move(first);
    EXPECT_EQ(ram->Locked(), 3);
    EXPECT_TRUE(first.spans().empty());
    EXPECT_EQ(second.spans().size(), 3u);
    LockedPages other = memory.LockGpns(AccessType::kRead, false, Gpns{2}).value();
    EXPECT_EQ(ram->Locked(), 4);
    other = std::move(second);
    EXPECT_EQ(ram->Locked(), 3) << "what it held is unlocked";
    LockedPages& itself = other;
    other = std::move(itself);
    EXPECT_EQ(ram->Locked(), 3);
    other = LockedPages();
    EXPECT_EQ(ram->Locked(), 0);
  }
  EXPECT_EQ(ram->Locked(), 0);
  static_assert(!std::is_copy_constructible_v<LockedPages> && !std::is_copy_assignable_v<LockedRange>);
}

TEST(LockedPages, KeepTheirMemoryAlive) {
  bool gone = false;
  {
    LockedPages locked;
    {
      auto ram = std::make_shared<Counting>(2);
      ram->gone = &gone;
      const GuestMemory view = GuestMemory::Create("ram", ram).value().LockableSubrange(kPageSize, kPageSize).value();
      locked = view.LockGpns(AccessType::kWrite, false, Gpns{0}).value();
    }
    EXPECT_FALSE(gone);
    EXPECT_TRUE(locked.spans()[0].Fill(std::byte{0x5a}).ok());
    EXPECT_EQ(locked.spans()[0].At(kPageSize - 1).load(), 0x5a);
  }
  EXPECT_TRUE(gone);
}

TEST(GuestSpan, CopiesFillsAndCountsAtomically) {
  const GuestMemory memory = GuestMemory::Allocate(4 * kPageSize).value();
  const LockedRange range = LockRange(memory, AccessType::kWrite, 10, 2 * kPageSize, Gpns{1, 2, 3}).value();
  ASSERT_EQ(range.spans().size(), 1u);
  const GuestSpan span = range.spans()[0];
  EXPECT_EQ(span.size(), 2 * kPageSize);
  EXPECT_EQ(span.gpa(), kPageSize + 10);
  const auto bytes = Pattern();
  ASSERT_TRUE(span.CopyFrom(std::span(bytes).first(100), 50).ok());
  std::array<std::byte, 100> back;
  ASSERT_TRUE(span.CopyTo(back, 50).ok());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), bytes.begin()));
  ASSERT_TRUE(memory.ReadAt(kPageSize + 60, back).ok());
  EXPECT_TRUE(std::equal(back.begin(), back.end(), bytes.begin()));
  span.AtWritable(7)->store(40);
  span.AtWritable(7)->fetch_add(2);
  EXPECT_EQ(memory.ReadPlain<uint8_t>(kPageSize + 17).value(), 42);
  EXPECT_EQ(span.At(7).load(std::memory_order_acquire), 42);
}

// SPEC 7: what was not locked for writing takes no store, and needs none to be looked at.
TEST(GuestSpan, OfAReadOrExecuteLockNeverStores) {
  auto ram = std::make_shared<Counting>(2);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  ASSERT_TRUE(memory.FillAt(0, std::byte{7}, 2 * kPageSize).ok());
  ASSERT_TRUE(ram->ram().Protect(0, kPageSize, SparseMapping::Protection::kRead).ok());  // so that a store would be seen
  const std::array<std::byte, 16> bytes = {};
  for (const AccessType access : {AccessType::kRead, AccessType::kExecute}) {
    const LockedPages pages = memory.LockGpns(access, true, Gpns{0, 1}).value();
    const LockedRange range = LockRange(memory, access, 0, 2 * kPageSize, Gpns{0, 1}).value();
    for (const GuestSpan span : {pages.spans()[0], pages.spans()[1], range.spans()[0]}) {
      EXPECT_FALSE(span.writable());
      for (const Status& status : {span.CopyFrom(bytes), span.CopyFrom(bytes, 8), span.CopyFrom({}), span.Fill(std::byte{1}), span.Fill(std::byte{1}, 8, 8),
                                   span.Fill(std::byte{1}, 8, 0)}) {
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument);
        EXPECT_EQ(status.info().transferred, 0u);
        EXPECT_TRUE(status.ToString().ends_with("the span was not locked for writing")) << status.ToString();
      }
      EXPECT_FALSE(span.AtWritable(0));
      EXPECT_EQ(span.At(0).load(), 7);
      EXPECT_EQ(span.At(span.size() - 1).load(), 7);
      std::array<std::byte, 16> back;
      EXPECT_TRUE(span.CopyTo(back).ok());
    }
  }
  EXPECT_EQ(memory.ReadPlain<uint64_t>(kPageSize).value(), 0x0707070707070707u);
  const LockedPages written = memory.LockGpns(AccessType::kWrite, false, Gpns{1}).value();
  EXPECT_TRUE(written.spans()[0].writable());
  EXPECT_TRUE(written.spans()[0].AtWritable(0));
}
template <typename T>
concept CanStore = requires(T byte) { byte.store(1); } || requires(T byte) { byte.exchange(1); };
static_assert(CanStore<std::atomic_ref<uint8_t>> && !CanStore<GuestByte>);

TEST(GuestSpan, MisuseIsAnErrorAndMovesNothing) {
  const GuestMemory memory = GuestMemory::Allocate(kPageSize).value();
  const LockedPages locked = memory.LockGpns(AccessType::kWrite, false, Gpns{0}).value();
  const GuestSpan span = locked.spans()[0];
  std::array<std::byte, 16> buffer{std::byte{9}};
  for (const uint64_t offset : {kPageSize - 15, kPageSize, kPageSize + 1, ~uint64_t{0}, ~uint64_t{0} - 15}) {
    EXPECT_EQ(span.CopyTo(buffer, offset).kind(), ErrorKind::kInvalidArgument) << offset;
    EXPECT_EQ(span.CopyFrom(buffer, offset).kind(), ErrorKind::kInvalidArgument) << offset;
    EXPECT_EQ(span.Fill(std::byte{1}, offset, 16).kind(), ErrorKind::kInvalidArgument) << offset;
  }
  EXPECT_EQ(buffer[0], std::byte{9});
  EXPECT_EQ(memory.ReadPlain<uint64_t>(kPageSize - 8).value(), 0u);
  EXPECT_EQ(GuestSpan().CopyTo(buffer).kind(), ErrorKind::kInvalidArgument);
  EXPECT_TRUE(GuestSpan().CopyTo({}).ok());
}

TEST(GuestSpan, APageThatABackingTakesAwayAllTheSameIsAnErrorWithItsPrefix) {
  auto ram = std::make_shared<Counting>(2);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  const LockedRange range = LockRange(memory, AccessType::kWrite, 0, 2 * kPageSize, Gpns{0, 1}).value();
  ASSERT_TRUE(ram->ram().Unmap(kPageSize, kPageSize).ok());
  const Status status = range.spans()[0].Fill(std::byte{1}, kPageSize - 5, 10);
  EXPECT_EQ(status.kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(status.info().fault_address, kPageSize);
  EXPECT_EQ(status.info().transferred, 5u);
  EXPECT_EQ(memory.ReadPlain<uint8_t>(kPageSize - 1).value(), 1);
}

// D2: OpenVMM panics when the pages can be read but the write bitmap refuses.
TEST(D2_LockTakesTheAccessType, AWriteLockOfAReadOnlyPageIsAnError) {
  class ReadOnly : public Counting {
   public:
    using Counting::Counting;
    std::optional<BitmapInfo> access_bitmap() const override { return BitmapInfo{&all_, &first_, nullptr, 0}; }

   private:
    uint8_t all_ = 0xff, first_ = 0x01;
  };
  auto ram = std::make_shared<ReadOnly>(2);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  EXPECT_TRUE(LockRange(memory, AccessType::kRead, 0, 2 * kPageSize, Gpns{0, 1}).ok());
  const auto refused = LockRange(memory, AccessType::kWrite, 0, 2 * kPageSize, Gpns{0, 1});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().ToString(),
            "guest memory 'ram': lock error: failed to access memory at 0x1000: the page's access bit is clear");
  EXPECT_EQ(ram->Locked(), 0);
}

// D15: OpenVMM leaks the locks already taken when a multi-region lock fails half-way.
TEST(D15_AllOrNothing, ALockThatFailsInTheSecondRegionUnlocksTheFirst) {
  auto good = std::make_shared<Counting>(1), bad = std::make_shared<Counting>(1);
  const GuestMemory memory = GuestMemory::CreateMultiRegion("two", kPageSize, {good, bad}).value();
  bad->refuse = true;
  const auto refused = memory.LockGpns(AccessType::kWrite, true, Gpns{0, 1, 0});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().kind(), ErrorKind::kBackend);
  EXPECT_EQ(refused.status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(refused.status().info().fault_address, kPageSize);
  EXPECT_EQ(good->Locked() + bad->Locked(), 0);
  bad->refuse = false;
  ASSERT_TRUE(bad->ram().Unmap(0, kPageSize).ok());
  EXPECT_EQ(memory.LockGpns(AccessType::kWrite, true, Gpns{0, 1, 0}).status().kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(good->Locked() + bad->Locked(), 0);
}

// D17: OpenVMM hands out the whole last page of a backing that ends inside it.
TEST(D17_PartialLastPage, IsRefusedWholeAndCoveredWhereTheRangeUsesIt) {
  class Trimmed : public Counting {
   public:
    using Counting::Counting;
    uint64_t max_address() const override { return Counting::max_address() - 96; }
  };
  const GuestMemory memory = GuestMemory::Create("ram", std::make_shared<Trimmed>(2)).value();
  const auto whole = memory.LockGpns(AccessType::kRead, false, Gpns{0, 1});
  ASSERT_FALSE(whole.ok());
  EXPECT_EQ(whole.status().kind(), ErrorKind::kOutOfRange);
  const auto used = LockRange(memory, AccessType::kRead, 0, 2 * kPageSize - 96, Gpns{0, 1});
  ASSERT_TRUE(used.ok());
  EXPECT_EQ(used->spans()[0].size(), 2 * kPageSize - 96);
  EXPECT_FALSE(LockRange(memory, AccessType::kRead, 0, 2 * kPageSize - 95, Gpns{0, 1}).ok());
}

// The guest decides which pages are the same.
TEST(LockedRange, CopiesBetweenLockedPagesMayOverlap) {
  const GuestMemory memory = GuestMemory::Allocate(4 * kPageSize).value();
  const auto before = Pattern();
  ASSERT_TRUE(memory.WriteAt(0, before).ok());
  auto from = LockRange(memory, AccessType::kRead, 0, 2 * kPageSize, {0, 1}).value();
  auto to = LockRange(memory, AccessType::kWrite, 0, 2 * kPageSize, {1, 2}).value();
  const iovec there = to.iovecs()[0];
  ASSERT_TRUE(from.spans()[0].CopyTo({static_cast<std::byte*>(there.iov_base), there.iov_len}).ok());
  std::array<std::byte, 2 * kPageSize> after;
  ASSERT_TRUE(memory.ReadAt(kPageSize, after).ok());
  EXPECT_TRUE(std::equal(after.begin(), after.end(), before.begin()));
}

class OneCallAtATime final : public Counting {
 public:
  using Counting::Counting;
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    calls.emplace_back(gpns.begin(), gpns.end());
    if (list != nullptr) std::fill(list->begin(), list->end(), uint64_t{1} << 40);
    return Counting::LockGpns(access, gpns);
  }
  std::vector<Gpns> calls;
  Gpns* list = nullptr;  // overwritten while the lock is made
};

TEST(LockedPages, OneBackingInSeveralSlotsIsOneRun) {
  auto ram = std::make_shared<OneCallAtATime>(2);
  {
    const auto memory = GuestMemory::CreateMultiRegion("ram", 2 * kPageSize, {ram, nullptr, ram}).value();
    const auto locked = memory.LockGpns(AccessType::kRead, true, Gpns{1, 4, 5}).value();
    EXPECT_EQ(ram->calls, (std::vector<Gpns>{{1, 0, 1}}));
    EXPECT_EQ(locked.spans()[1].gpa(), 4 * kPageSize);
    EXPECT_EQ(locked.spans()[2].ToIovec().iov_base, ram->mapping() + kPageSize);
  }
  EXPECT_EQ(ram->Locked(), 0);
}

TEST(LockedRange, TheListIsReadOnce) {
  auto ram = std::make_shared<OneCallAtATime>(4);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  Gpns list = {2, 3, 0};
  ram->list = &list;
  const auto locked = LockRange(memory, AccessType::kRead, 100, 3 * kPageSize - 100, list).value();
  EXPECT_EQ(ram->calls, (std::vector<Gpns>{{2, 3, 0}}));
  ASSERT_EQ(locked.spans().size(), 2u);
  EXPECT_EQ(locked.spans()[0].gpa(), 2 * kPageSize + 100);
  EXPECT_EQ(locked.spans()[1].ToIovec().iov_base, ram->mapping());
}

// The list may be the guest's own memory.
TEST(LockedPages, TheListIsReadOnce) {
  auto ram = std::make_shared<OneCallAtATime>(4);
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  Gpns list = {2, 0, 3};
  ram->list = &list;
  const auto locked = memory.LockGpns(AccessType::kWrite, true, list).value();
  ASSERT_EQ(list[0], uint64_t{1} << 40);
  EXPECT_EQ(ram->calls, (std::vector<Gpns>{{2, 0, 3}}));
  const std::array<uint64_t, 3> pages = {2, 0, 3};
  for (size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(locked.spans()[i].gpa(), pages[i] * kPageSize);
    EXPECT_EQ(locked.iovecs()[i].iov_base, ram->mapping() + pages[i] * kPageSize);
  }
}

}  // namespace
}  // namespace guestmem
