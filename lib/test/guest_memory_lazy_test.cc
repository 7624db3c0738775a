// Memory that a handler makes page by page: what a Retry costs does not grow with the access, and what was revoked meanwhile is
// still seen before anything moves.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <functional>
#include <memory>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/sparse_mapping.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;

constexpr uint64_t kBitsInAPage = kPageSize * 8;
constexpr uint64_t kBitPages = 8;  // host pages of a bitmap
constexpr uint64_t kPages = kBitPages * kBitsInAPage;
constexpr uint64_t kStep = 512;  // of so many pages one is missing
constexpr uint64_t kSectionPages = 256;

// A bitmap that counts how many of its host pages are read between two calls of Close: each is inaccessible until it is.
class CountedBits {
 public:
  CountedBits() : bytes_(static_cast<uint8_t*>(mmap(nullptr, kBitPages * kPageSize, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    current_ = this;
    struct sigaction open = {};
    open.sa_sigaction = [](int number, siginfo_t* info, void* context) {
      auto* const page = reinterpret_cast<uint8_t*>(reinterpret_cast<uintptr_t>(info->si_addr) / kPageSize * kPageSize);
      if (page >= current_->bytes_ && page < current_->bytes_ + kBitPages * kPageSize) {
        ++current_->reads_;
        mprotect(page, kPageSize, PROT_READ | PROT_WRITE);
      } else if (!TryHandleFault(number, info, context)) {
        signal(SIGSEGV, SIG_DFL);
      }
    };
    open.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &open, &before_);
  }
  ~CountedBits() {
    sigaction(SIGSEGV, &before_, nullptr);
    munmap(bytes_, kBitPages * kPageSize);
  }

  uint8_t* bytes() { return bytes_; }
  void Set(uint64_t page) { bytes_[page / 8] = static_cast<uint8_t>(bytes_[page / 8] | 1U << page % 8); }
  void Clear(uint64_t page) { bytes_[page / 8] = static_cast<uint8_t>(bytes_[page / 8] & ~(1U << page % 8)); }
  void Close() { mprotect(bytes_, kBitPages * kPageSize, PROT_NONE); }
  uint64_t reads() const { return reads_; }

 private:
  static inline CountedBits* current_ = nullptr;
  uint8_t* const bytes_;
  uint64_t reads_ = 0;
  struct sigaction before_ = {};
};

// Zeroes with those bits and a handler.
class Lazy : public SharedBacking<SparseMapping> {
 public:
  explicit Lazy(uint64_t pages) : SharedBacking(SparseMapping::Create(pages * kPageSize).value()) {
    EXPECT_TRUE(Ok(inner()->MapZero(0, pages * kPageSize)));
  }
  std::optional<BitmapInfo> access_bitmap() const override { return BitmapInfo{bits, bits, bits, 0}; }
  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    asked.push_back(fault.address / kPageSize);
    return handler(fault);
  }

  const uint8_t* bits = nullptr;
  std::vector<uint64_t> asked;
  std::function<PageFaultAction(const PageFaultInfo&)> handler;
};

TEST(LazyMemory, ARetryAfterABitWasGrantedReadsNoEarlierBitsAgain) {
  CountedBits bits;
  const auto lazy = std::make_shared<Lazy>(kPages);
  for (uint64_t i = 0; i < kBitPages * kPageSize; ++i) {
    bits.bytes()[i] = 0xff;
  }
  for (uint64_t page = kStep - 1; page < kPages; page += kStep) {
    bits.Clear(page);
  }
  lazy->bits = bits.bytes();
  lazy->handler = [&](const PageFaultInfo& fault) {
    bits.Set(fault.address / kPageSize);
    bits.Close();
    return PageFaultAction::Retry();
  };
  const GuestMemory memory = GuestMemory::Create("lazy", lazy, {.install_fault_handler = false}).value();
  const uint64_t before = bits.reads();
  EXPECT_TRUE(Ok(memory.ProbeReadable(0, kPages * kPageSize)));
  EXPECT_EQ(lazy->asked.size(), kPages / kStep);
  // Of the section that the access begins with, of the page asked for, of the one found next; and all once more, as they are moved.
  EXPECT_LE(bits.reads() - before, 3 * lazy->asked.size() + kBitPages);
}

TEST(LazyMemory, ARetryAfterAPageWasMappedReadsNoLaterBitsAgain) {
  CountedBits bits;
  const auto lazy = std::make_shared<Lazy>(kPages);
  for (uint64_t i = 0; i < kBitPages * kPageSize; ++i) {
    bits.bytes()[i] = 0xff;
  }
  for (uint64_t page = kStep - 1; page < kPages; page += kStep) {
    EXPECT_TRUE(Ok(lazy->inner()->Protect(page * kPageSize, kPageSize, SparseMapping::Protection::kNone)));
  }
  lazy->bits = bits.bytes();
  lazy->handler = [&](const PageFaultInfo& fault) {
    EXPECT_FALSE(fault.bitmap_failure);
    EXPECT_TRUE(Ok(lazy->inner()->Protect(fault.address, kPageSize, SparseMapping::Protection::kRead)));
    bits.Close();
    return PageFaultAction::Retry();
  };
  const GuestMemory memory = GuestMemory::Create("lazy", lazy, {.install_fault_handler = false}).value();
  const uint64_t before = bits.reads();
  EXPECT_TRUE(Ok(memory.ProbeReadable(0, kPages * kPageSize)));
  EXPECT_EQ(lazy->asked.size(), kPages / kStep);
  EXPECT_LE(bits.reads() - before, 3 * lazy->asked.size() + kBitPages);
}

// Pages that were found in order and are revoked by the handler of a later one, beyond the section that the access begins with.
TEST(LazyMemory, WhatTheHandlerRevokesIsAskedForBeforeAnythingMoves) {
  constexpr uint64_t kRevoked = 2 * kSectionPages + 3, kMissing = 3 * kSectionPages + 5, kAll = 4 * kSectionPages;
  const auto lazy = std::make_shared<Lazy>(kAll);
  const auto bits = AccessBitmap::Create("bits", kAll, true).value();
  ASSERT_TRUE(Ok(bits->Revoke({kMissing, 1}, kReadAccess)));
  lazy->bits = bits->info().read;
  lazy->handler = [&](const PageFaultInfo& fault) {
    if (fault.address / kPageSize != kMissing) {
      return PageFaultAction::Fail(AccessDenied());
    }
    EXPECT_TRUE(Ok(bits->Grant({kMissing, 1}, kReadAccess)));
    EXPECT_TRUE(Ok(bits->Revoke({kRevoked, 1}, kReadAccess)));
    return PageFaultAction::Retry();
  };
  const GuestMemory memory = GuestMemory::Create("lazy", lazy).value();
  std::vector<std::byte> buffer(kAll * kPageSize);
  EXPECT_TRUE(Failed(memory.ReadAt(0, buffer), ErrorKind::kAccessDenied, kRevoked * kPageSize, 0));
  EXPECT_EQ(lazy->asked, (std::vector<uint64_t>{kMissing, kRevoked}));
}

// The same for a fault: what was found in order beyond the page that was missing.
TEST(LazyMemory, WhatTheHandlerOfAFaultRevokesIsAskedForBeforeAnythingMoreMoves) {
  constexpr uint64_t kMissing = 5, kRevoked = 2 * kSectionPages + 3, kAll = 3 * kSectionPages;
  const auto lazy = std::make_shared<Lazy>(kAll);
  const auto bits = AccessBitmap::Create("bits", kAll, true).value();
  ASSERT_TRUE(Ok(lazy->inner()->Unmap(kMissing * kPageSize, kPageSize)));
  lazy->bits = bits->info().read;
  lazy->handler = [&](const PageFaultInfo& fault) {
    if (fault.bitmap_failure) {
      return PageFaultAction::Fail(AccessDenied());
    }
    EXPECT_TRUE(Ok(lazy->inner()->MapZero(fault.address, kPageSize)));
    EXPECT_TRUE(Ok(bits->Revoke({kRevoked, 1}, kReadAccess)));
    return PageFaultAction::Retry();
  };
  const GuestMemory memory = GuestMemory::Create("lazy", lazy).value();
  std::vector<std::byte> buffer(kAll * kPageSize);
  EXPECT_TRUE(Failed(memory.ReadAt(0, buffer), ErrorKind::kAccessDenied, kRevoked * kPageSize, kMissing * kPageSize));
  EXPECT_EQ(lazy->asked, (std::vector<uint64_t>{kMissing, kRevoked}));
}

}  // namespace
}  // namespace guestmem
