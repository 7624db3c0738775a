// SparseMapping and the kernel's limits: how many of its mappings the calls leave, that memory is made in place, and that a call
// which a limit stops has changed nothing.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/sparse_mapping.h"
#include "host_state.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Ok;
using Commit = SparseMapping::Commit;
using Protection = SparseMapping::Protection;

// The kernel's mappings that lie in this one.
uint64_t MappingsOf(const SparseMapping& ram) {
  const auto base = reinterpret_cast<uintptr_t>(ram.mapping());
  uint64_t count = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t start = 0, end = 0;
    const bool read = std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &start, &end) == 2;
    count += read && start < base + ram.max_address() && base < end ? 1 : 0;
  }
  return count;
}

// What each page does: '-' nothing, 'r' reads, 'w' reads and writes.
std::string Shape(const std::shared_ptr<SparseMapping>& ram) {
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  std::string shape;
  for (uint64_t gpa = 0; gpa < ram->max_address(); gpa += kPageSize) {
    shape += memory.ProbeWritable(gpa, kPageSize).ok() ? 'w' : memory.ProbeReadable(gpa, kPageSize).ok() ? 'r' : '-';
  }
  return shape;
}

// Calls of every kind in any order leave no more mappings than there are runs of pages that are alike.
TEST(SparseMappingLimits, AnyOrderOfCallsLeavesAMappingARunOfPagesThatAreAlike) {
  constexpr uint64_t kPages = 64, kCalls = 6000;
  enum Kind { kOvercommitted, kCommitted, kOfFile };
  struct Page {
    Kind kind = kOvercommitted;
    Protection protection = Protection::kNone;
    bool operator==(const Page&) const = default;
  };
  const test::File file(kPages * kPageSize);
  const auto ram = SparseMapping::Create(kPages * kPageSize).value();
  std::vector<Page> pages(kPages);
  std::mt19937 random(7);
  const auto below = [&](uint64_t bound) { return random() % bound; };
  for (uint64_t i = 0; i < kCalls; ++i) {
    const uint64_t first = below(kPages), count = 1 + below(std::min<uint64_t>(kPages - first, 9)), offset = first * kPageSize,
                   length = count * kPageSize;
    const auto protection = static_cast<Protection>(below(3));
    const uint64_t call = below(7);
    const bool reserve = below(2) == 0;
    Status status;
    std::function<void(Page&)> change = [](Page&) {};
    if (call == 0) {
      status = ram->Allocate(offset, length, reserve ? Commit::kReserve : Commit::kOvercommit);
      change = [&](Page& page) { page = {reserve ? kCommitted : kOvercommitted, Protection::kReadWrite}; };
    } else if (call == 1) {
      status = ram->MapZero(offset, length);
      change = [](Page& page) { page = {kOvercommitted, Protection::kRead}; };
    } else if (call == 2) {
      status = ram->MapFile(offset, length, file.fd(), offset, reserve);
      change = [&](Page& page) { page = {kOfFile, reserve ? Protection::kReadWrite : Protection::kRead}; };
    } else if (call == 3 || call == 4) {
      status = ram->Protect(offset, length, protection);
      change = [&](Page& page) { page.protection = protection; };
    } else if (call == 5) {
      status = ram->Decommit(offset, length);
    } else {
      status = ram->Unmap(offset, length);
      change = [](Page& page) { page = {}; };
    }
    ASSERT_TRUE(Ok(status));
    std::for_each_n(pages.begin() + static_cast<int64_t>(first), count, change);
    if (i % 50 == 0 || i + 1 == kCalls) {
      uint64_t runs = 1;
      for (uint64_t page = 1; page < kPages; ++page) {
        runs += pages[page] == pages[page - 1] ? 0 : 1;
      }
      ASSERT_LE(MappingsOf(*ram), runs) << "after " << i + 1 << " calls";
    }
  }
  ASSERT_TRUE(Ok(ram->Unmap(0, kPages * kPageSize)));
  EXPECT_EQ(MappingsOf(*ram), 1U);
}

// As a guest touches them that goes through its memory.
TEST(SparseMappingLimits, MemoryMadePieceAfterPieceIsOneMapping) {
  constexpr uint64_t kPieces = 500;
  for (const uint64_t piece : {kPageSize, 4 * kPageSize, uint64_t{1} << 21}) {
    for (const Commit commit : {Commit::kOvercommit, Commit::kReserve}) {
      for (const bool up : {true, false}) {
        const auto ram = SparseMapping::Create(kPieces * piece).value();
        for (uint64_t i = 0; i < kPieces; ++i) {
          const uint64_t offset = (up ? i : kPieces - 1 - i) * piece;
          ASSERT_TRUE(Ok(ram->Allocate(offset, piece, commit)));
          ram->mapping()[offset] = std::byte{1};
        }
        EXPECT_LE(MappingsOf(*ram), 2U) << piece << ' ' << up;
        EXPECT_EQ(ram->mapping()[(kPieces - 1) * piece], std::byte{1});
      }
    }
  }
}

// A handler that makes page after page: of a bitmap, or of holes.
struct Lazy : SharedBacking<SparseMapping> {
  static constexpr uint64_t kPages = uint64_t{1} << 18;  // 1 GiB

  explicit Lazy(std::shared_ptr<AccessBitmap> bits)
      : SharedBacking(SparseMapping::Create(kPages * kPageSize).value()), bits(std::move(bits)) {}
  std::optional<BitmapInfo> access_bitmap() const override {
    return bits == nullptr ? std::nullopt : std::optional(bits->info());
  }
  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    ++asked;
    const Status status = fault.bitmap_failure ? bits->Grant({fault.address / kPageSize, 1}, kAllAccess)
                                               : inner()->Allocate(fault.address / kPageSize * kPageSize, kPageSize);
    return status.ok() ? PageFaultAction::Retry() : PageFaultAction::Fail(status);
  }

  const std::shared_ptr<AccessBitmap> bits;
  uint64_t asked = 0;
};

TEST(SparseMappingLimits, AGibibytePopulatedPageByPageTakesTwoMappings) {
  const test::HostState before;
  {
    const auto lazy = std::make_shared<Lazy>(nullptr);
    const GuestMemory memory = GuestMemory::Create("lazy", lazy).value();
    ASSERT_TRUE(Ok(memory.ProbeReadable(0, Lazy::kPages / 2 * kPageSize)));  // one access
    for (uint64_t page = Lazy::kPages / 2; page < Lazy::kPages; ++page) {    // one each
      ASSERT_TRUE(Ok(memory.ReadPlain<uint8_t>(page * kPageSize).status()));
    }
    EXPECT_EQ(lazy->asked, Lazy::kPages);
    EXPECT_LE(MappingsOf(*lazy->inner()), 2U);
  }
  EXPECT_EQ(test::HostState(), before);
}

TEST(SparseMappingLimits, AGibibyteGrantedPageByPageTakesOneMapping) {
  const auto lazy = std::make_shared<Lazy>(AccessBitmap::Create("bits", Lazy::kPages, false).value());
  ASSERT_TRUE(Ok(lazy->inner()->Allocate(0, Lazy::kPages * kPageSize)));
  const GuestMemory memory = GuestMemory::Create("lazy", lazy).value();
  ASSERT_TRUE(Ok(memory.ProbeReadable(0, Lazy::kPages / 2 * kPageSize)));
  for (uint64_t page = Lazy::kPages / 2; page < Lazy::kPages; ++page) {
    ASSERT_TRUE(Ok(memory.ReadPlain<uint8_t>(page * kPageSize).status()));
  }
  EXPECT_EQ(lazy->asked, Lazy::kPages);
  EXPECT_EQ(MappingsOf(*lazy->inner()), 1U);
}

// Over half of the address space: there is no room for it a second time.
TEST(SparseMappingLimits, MemoryIsMadeWhereItBelongs) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  GTEST_SKIP() << "a sanitizer has most of the address space";
#endif
  utsname kernel;
  unsigned major = 0, minor = 0;
  ASSERT_EQ(uname(&kernel), 0);
  ASSERT_EQ(std::sscanf(kernel.release, "%u.%u", &major, &minor), 2);
  if (major < 6 || (major == 6 && minor < 12)) {
    GTEST_SKIP() << "before Linux 6.12 memory is made elsewhere, then moved";
  }
  constexpr uint64_t kSize = uint64_t{80} << 40;
  const auto ram = SparseMapping::Create(kSize).value();
  ASSERT_TRUE(Ok(ram->Allocate(kPageSize, kPageSize)));
  const Status status = ram->Allocate(0, kSize);
  if (std::ifstream("/proc/sys/vm/overcommit_memory").get() == '2') {
    GTEST_SKIP() << "vm.overcommit_memory = 2: the kernel sets aside all that is asked for";
  }
  ASSERT_TRUE(Ok(status));
  ram->mapping()[kSize - 1] = std::byte{7};
  EXPECT_EQ(MappingsOf(*ram), 1U);
}

TEST(SparseMappingLimits, AProtectionThatThePagesFurtherOnDoNotTakeChangesNoneBefore) {
  const test::File file(kPageSize);
  const int read_only = open(("/proc/self/fd/" + std::to_string(file.fd())).c_str(), O_RDONLY | O_CLOEXEC);
  const auto ram = SparseMapping::Create(8 * kPageSize).value();
  ASSERT_TRUE(Ok(ram->MapZero(0, kPageSize)));
  ASSERT_TRUE(Ok(ram->Allocate(2 * kPageSize, 2 * kPageSize, Commit::kReserve)));
  ASSERT_TRUE(Ok(ram->Protect(3 * kPageSize, kPageSize, Protection::kRead)));
  ASSERT_TRUE(Ok(ram->MapFile(5 * kPageSize, kPageSize, read_only, 0, false)));
  close(read_only);
  EXPECT_EQ(Shape(ram), "r-wr-r--");
  EXPECT_EQ(ram->Protect(0, 7 * kPageSize, Protection::kReadWrite).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(Shape(ram), "r-wr-r--");
}

// Takes all kernel mappings that the process may still have.
class NoMoreMappings {
 public:
  // False: there are more than this test cares to fill.
  bool Take() {
    // Heap for what comes then: it could not grow.
    std::vector<std::unique_ptr<char[]>> heap(100);
    for (auto& piece : heap) {
      piece = std::make_unique<char[]>(10'000);
    }
    for (uint64_t page = 1; page < kPages; page += 2) {
      if (page > taken_ || page < kOpened) {
        if (!rows_->Protect(page * kPageSize, kPageSize, Protection::kRead).ok()) {
          return true;
        }
        taken_ = std::max(taken_, page);
      }
    }
    return false;
  }
  // Leaves room for a few. (Not by Unmap: mmap refuses a process that has one too many already.)
  void Open() { ASSERT_TRUE(Ok(rows_->Protect(0, kOpened * kPageSize, Protection::kNone))); }

 private:
  static constexpr uint64_t kPages = 200'000, kOpened = 64;
  const std::shared_ptr<SparseMapping> rows_ = SparseMapping::Create(kPages * kPageSize).value();
  uint64_t taken_ = 0;
};

TEST(SparseMappingLimits, WhereTheKernelHasNoMoreMappingsACallThatFailsChangedNothing) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  GTEST_SKIP() << "a sanitizer's run-time does not survive a process without mappings to have";
#endif
  using Call = std::function<Status(SparseMapping&, uint64_t, uint64_t)>;
  const test::File file(16 * kPageSize);
  const std::pair<const char*, Call> calls[] = {
      {"Allocate", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Allocate(o, l); }},
      {"Allocate reserved", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Allocate(o, l, Commit::kReserve); }},
      {"MapZero", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.MapZero(o, l); }},
      {"MapFile", [&](SparseMapping& m, uint64_t o, uint64_t l) { return m.MapFile(o, l, file.fd(), 0, true); }},
      {"Protect none", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Protect(o, l, Protection::kNone); }},
      {"Protect read", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Protect(o, l, Protection::kRead); }},
      {"Protect", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Protect(o, l, Protection::kReadWrite); }},
      {"Unmap", [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Unmap(o, l); }},
  };
  // Parts of three pages each, so that an edge in the middle of one takes another mapping.
  const auto ram = SparseMapping::Create(16 * kPageSize).value();
  const auto make = [&] {
    ASSERT_TRUE(Ok(ram->Allocate(3 * kPageSize, 3 * kPageSize)));
    ASSERT_TRUE(Ok(ram->MapZero(6 * kPageSize, 3 * kPageSize)));
    ASSERT_TRUE(Ok(ram->MapFile(9 * kPageSize, 3 * kPageSize, file.fd(), 0, true)));
  };
  const std::string before = "---wwwrrrwww----";
  NoMoreMappings limit;
  int refused = 0;
  for (const auto& [name, call] : calls) {
    for (const auto& [first, pages] : {std::pair<uint64_t, uint64_t>{4, 1}, {1, 4}, {1, 6}, {3, 5}, {4, 7}, {2, 9}, {7, 1}, {10, 1}, {9, 5}}) {
      make();
      ASSERT_EQ(Shape(ram), before);
      if (!limit.Take()) {
        GTEST_SKIP() << "vm.max_map_count is larger than this test cares to fill";
      }
      if (const Status status = call(*ram, first * kPageSize, pages * kPageSize); !status.ok()) {
        ++refused;
        EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted) << name << ' ' << status.ToString();
        EXPECT_EQ(Shape(ram), before) << name << ' ' << first << ' ' << pages;
      }
      limit.Open();
      ASSERT_TRUE(Ok(ram->Unmap(0, 16 * kPageSize)));
    }
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace guestmem
