// TryCopy and TryFill, swept: every byte before a fault, every length and alignment, for each kernel path.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "child.h"
#include "guestmem/fault.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::Hole;
using test::kPage;
using test::Pages;

enum class Operation { kRead, kWrite, kFill };

constexpr size_t kAtOnce = 8 * 64;  // what a kernel loads before it stores, at most: eight of its widest vectors
constexpr size_t kSweep = kAtOnce + 4 * 64 + 68;  // beyond that, and once around its loop
constexpr size_t kAlignments = 64;
constexpr size_t kGuard = 192;
constexpr std::byte kUntouched{0xee};
constexpr uint8_t kFill = 0x5a;

// A byte that is different for neighbours, for addresses a vector or a page apart, and from kUntouched and kFill.
std::byte Pattern(size_t i) { return static_cast<std::byte>((i * 7 + i / 256 * 13 + i / kPage * 29) % 89); }

// Runs one access at a time and holds every byte near it to what it should be.
class Sweeper {
 public:
  Sweeper(Operation operation, const Pages& pages, size_t longest)
      : operation_(operation), pages_(pages), host_(longest + kAlignments + 2 * kGuard) {
    const size_t room = static_cast<size_t>(pages.hole() - pages.begin()) + pages.hidden();
    std::byte* const behind = pages.Behind(pages.begin());
    for (size_t i = 0; i < room; ++i) {
      behind[i] = operation == Operation::kRead ? Pattern(i) : kUntouched;
    }
    for (size_t i = 0; i < host_.size(); ++i) {
      host_[i] = operation == Operation::kRead ? kUntouched : Pattern(i);
    }
    limit_ = pages.begin() + room;
  }

  // The access [guest, guest + length), of which `moves` bytes are expected to be done. False: it failed the test.
  bool Run(std::byte* guest, size_t length, size_t alignment, size_t moves) {
    std::byte* const host = HostBuffer(alignment);
    const auto check = [&](size_t moved) {
      return operation_ == Operation::kRead ? CheckHost(guest, host, length, moved)
                                            : CheckGuest(guest, host, length, moved);
    };
    // The kernel by itself stops short, and says exactly where.
    const size_t kernel_moves = RunKernel(guest, host, length);
    const bool kernel_good = kernel_moves <= moves && moves - kernel_moves <= kAtOnce && check(kernel_moves);
    EXPECT_TRUE(kernel_good) << "the kernel says it moved " << kernel_moves << " bytes of " << moves;
    const std::optional<Fault> fault = operation_ == Operation::kRead ? TryCopy(GuestSide::kSource, host, guest, length)
                                       : operation_ == Operation::kWrite
                                           ? TryCopy(GuestSide::kDestination, guest, host, length)
                                           : TryFill(guest, std::byte{kFill}, length);
    const bool good = CheckFault(fault, guest, length, moves) && check(moves) && kernel_good;
    if (!good) {
      ADD_FAILURE() << "operation " << static_cast<int>(operation_) << ", kernels " << detail::g_trap_kernels.name
                    << ", guest page offset " << reinterpret_cast<uintptr_t>(guest) % kPage << ", distance to the hole "
                    << pages_.hole() - guest << ", length " << length << ", host alignment " << alignment;
    }
    return good;
  }

 private:
  std::byte* HostBuffer(size_t alignment) {
    const auto start = reinterpret_cast<uintptr_t>(host_.data()) + kGuard;
    return host_.data() + kGuard + (kAlignments - start % kAlignments) % kAlignments + alignment;
  }

  size_t RunKernel(std::byte* guest, std::byte* host, size_t length) const {
    const detail::TrapKernels& kernels = detail::g_trap_kernels;
    const detail::TrapResult result = operation_ == Operation::kRead    ? kernels.copy_from_guest(host, guest, length)
                                      : operation_ == Operation::kWrite ? kernels.copy_to_guest(guest, host, length)
                                                                        : kernels.fill_guest(guest, kFill, length);
    return result.info == 0 ? length : detail::MovedUpTo(result) - reinterpret_cast<uint64_t>(guest);
  }

  bool CheckFault(const std::optional<Fault>& fault, const std::byte* guest, size_t length, size_t moves) {
    EXPECT_EQ(fault.has_value(), moves < length);
    if (!fault || moves == length) {
      return !fault && moves == length;
    }
    const auto side = operation_ == Operation::kRead ? Fault::Side::kRead : Fault::Side::kWrite;
    EXPECT_EQ(fault->offset, moves);
    EXPECT_EQ(fault->address, reinterpret_cast<uint64_t>(guest) + moves);
    EXPECT_EQ(fault->side, side);
    EXPECT_EQ(fault->signal, pages_.signal());
    EXPECT_EQ(fault->code, pages_.code());
    return fault->offset == moves && fault->address == reinterpret_cast<uint64_t>(guest) + moves &&
           fault->side == side && fault->signal == pages_.signal() && fault->code == pages_.code();
  }

  static bool Untouched(const std::byte* from, const std::byte* to) {
    return std::all_of(from, to, [](std::byte b) { return b == kUntouched; });
  }

  bool CheckHost(const std::byte* guest, std::byte* host, size_t length, size_t moves) {
    const bool prefix = std::memcmp(host, pages_.Behind(guest), moves) == 0;
    const bool rest = Untouched(host + moves, host + length + kGuard / 2);
    const bool before = Untouched(host - kGuard / 2, host);
    EXPECT_TRUE(prefix) << "not the guest's bytes";
    EXPECT_TRUE(rest) << "stored in the host buffer at or above the fault, or behind the buffer";
    EXPECT_TRUE(before) << "stored in front of the host buffer";
    std::memset(host - kGuard / 2, static_cast<int>(kUntouched), length + kGuard);
    return prefix && rest && before;
  }

  bool CheckGuest(std::byte* guest, const std::byte* host, size_t length, size_t moves) {
    std::byte* const behind = pages_.Behind(guest);
    std::byte* const end = pages_.Behind(std::min(limit_, guest + length + kGuard));
    std::byte* const start = pages_.Behind(std::min(limit_, std::max(pages_.begin(), guest - kGuard)));
    const bool prefix = operation_ == Operation::kWrite
                            ? std::memcmp(behind, host, moves) == 0
                            : std::all_of(behind, behind + moves, [](std::byte b) { return b == std::byte{kFill}; });
    const bool rest = Untouched(std::min(behind + moves, end), end);
    const bool before = Untouched(start, std::min(behind, end));
    EXPECT_TRUE(prefix) << "not the bytes that were to be stored";
    EXPECT_TRUE(rest) << "stored in the guest at or above the fault, or behind the range";
    EXPECT_TRUE(before) << "stored in front of the guest range";
    std::memset(start, static_cast<int>(kUntouched), static_cast<size_t>(end - start));
    return prefix && rest && before;
  }

  const Operation operation_;
  const Pages& pages_;
  std::vector<std::byte> host_;
  std::byte* limit_;
};

// How much of an access reaches into the hole: every small amount, then those around multiples of the copy units.
std::vector<size_t> Beyond() {
  std::vector<size_t> lengths;
  for (size_t n = 1; n <= 36; ++n) {
    lengths.push_back(n);
  }
  for (const size_t n :
       {47, 63, 64, 65, 95, 96, 97, 127, 128, 129, 159, 192, 193, 255, 256, 257, 319, 511, 512, 513, 600}) {
    lengths.push_back(n);
  }
  return lengths;
}

void SweepEveryByteBefore(Hole hole, Operation operation) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(2, 2, hole);
  Sweeper sweeper(operation, pages, 2 * kSweep + 600);
  const std::vector<size_t> beyond = Beyond();
  for (size_t below = 0; below <= kSweep; ++below) {
    for (const size_t above : beyond) {
      ASSERT_TRUE(sweeper.Run(pages.hole() - below, below + above, (below * 5 + above * 3) % kAlignments, below));
    }
    if (operation == Operation::kFill) {
      continue;
    }
    for (size_t alignment = 0; alignment < kAlignments; ++alignment) {
      const size_t above = beyond[(below + alignment * 7) % beyond.size()];
      ASSERT_TRUE(sweeper.Run(pages.hole() - below, below + above, alignment, below));
    }
  }
  // Starts inside the hole, page start or not.
  for (size_t inside = 1; inside < kAlignments; ++inside) {
    for (const size_t length : beyond) {
      ASSERT_TRUE(sweeper.Run(pages.hole() + inside, length, inside, 0));
    }
  }
}

void SweepLarge(Hole hole, Operation operation) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(4, 2, hole);
  Sweeper sweeper(operation, pages, 4 * kPage);
  for (const size_t whole_pages : {size_t{1}, size_t{2}}) {
    for (size_t more = 0; more <= kSweep; ++more) {
      const size_t below = whole_pages * kPage + more;
      for (const size_t above : {size_t{1}, size_t{63}, size_t{1000}, kPage}) {
        ASSERT_TRUE(sweeper.Run(pages.hole() - below, below + above, (more + above) % kAlignments, below));
      }
    }
  }
}

TEST(TrapSweep, ReadBeforeAnInaccessiblePageMovesTheExactPrefix) {
  SweepEveryByteBefore(Hole::kInaccessible, Operation::kRead);
}
TEST(TrapSweep, ReadBeforeATruncationMovesTheExactPrefix) { SweepEveryByteBefore(Hole::kTruncated, Operation::kRead); }
TEST(TrapSweep, WriteBeforeAnInaccessiblePageMovesTheExactPrefix) {
  SweepEveryByteBefore(Hole::kInaccessible, Operation::kWrite);
}
TEST(TrapSweep, WriteBeforeAReadOnlyPageMovesTheExactPrefix) {
  SweepEveryByteBefore(Hole::kReadOnly, Operation::kWrite);
}
TEST(TrapSweep, WriteBeforeATruncationMovesTheExactPrefix) {
  SweepEveryByteBefore(Hole::kTruncated, Operation::kWrite);
}
TEST(TrapSweep, FillBeforeAnInaccessiblePageMovesTheExactPrefix) {
  SweepEveryByteBefore(Hole::kInaccessible, Operation::kFill);
}
TEST(TrapSweep, FillBeforeAReadOnlyPageMovesTheExactPrefix) { SweepEveryByteBefore(Hole::kReadOnly, Operation::kFill); }
TEST(TrapSweep, FillBeforeATruncationMovesTheExactPrefix) { SweepEveryByteBefore(Hole::kTruncated, Operation::kFill); }

TEST(TrapSweep, LargeTransfersFaultingOnALaterPageMoveTheExactPrefix) {
  for (const Hole hole : {Hole::kInaccessible, Hole::kReadOnly, Hole::kTruncated}) {
    for (const Operation operation : {Operation::kRead, Operation::kWrite, Operation::kFill}) {
      if (hole != Hole::kReadOnly || operation != Operation::kRead) {  // which does not fault
        SweepLarge(hole, operation);
      }
    }
  }
}

TEST(TrapSweep, AReadOnlyPageIsRead) {
  ASSERT_TRUE(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kReadOnly);
  Sweeper sweeper(Operation::kRead, pages, kPage);
  for (size_t below = 0; below <= kSweep; ++below) {
    ASSERT_TRUE(sweeper.Run(pages.hole() - below, below + 200, below % kAlignments, below + 200));
  }
}

constexpr size_t kLongest = 800;

TEST(TrapSweep, WithoutAFaultEveryLengthAtEveryAlignmentIsMovedAndNothingElse) {
  for (const Operation operation : {Operation::kRead, Operation::kWrite, Operation::kFill}) {
    const Pages pages(1, 1, Hole::kInaccessible);
    Sweeper sweeper(operation, pages, kLongest);
    for (size_t alignment = 0; alignment < kAlignments; ++alignment) {
      for (size_t length = 0; length <= kLongest; ++length) {
        ASSERT_TRUE(
            sweeper.Run(pages.begin() + 1024 + alignment, length, (alignment * 5 + length) % kAlignments, length));
      }
    }
  }
}

TEST(TrapSweep, WithoutAFaultEveryLengthUpToTheEndOfMemoryIsMoved) {
  for (const Operation operation : {Operation::kRead, Operation::kWrite, Operation::kFill}) {
    const Pages pages(1, 1, Hole::kInaccessible);
    Sweeper sweeper(operation, pages, kLongest);
    for (size_t length = 0; length <= kLongest; ++length) {
      for (const size_t alignment : {size_t{0}, size_t{1}, size_t{31}, length % kAlignments}) {
        ASSERT_TRUE(sweeper.Run(pages.hole() - length, length, alignment, length));
      }
    }
  }
}

TEST(TrapSweep, WithoutAFaultEveryLengthAcrossAPageBoundaryIsMovedAndNothingElse) {
  for (const Operation operation : {Operation::kRead, Operation::kWrite, Operation::kFill}) {
    const Pages pages(3, 1, Hole::kInaccessible);
    Sweeper sweeper(operation, pages, kLongest);
    std::byte* const boundary = pages.begin() + kPage;
    for (size_t below = 1; below <= kSweep; ++below) {
      for (size_t length = below; length <= std::min(kLongest, below + kSweep); ++length) {
        ASSERT_TRUE(sweeper.Run(boundary - below, length, (below + length * 3) % kAlignments, length));
      }
    }
  }
}

TEST(TrapSweep, ALengthOfZeroTouchesNothingAnywhere) {
  const uint64_t before = RecoveredFaults();
  std::byte host{kUntouched};
  EXPECT_FALSE(TryCopy(GuestSide::kSource, &host, nullptr, 0));
  EXPECT_FALSE(TryCopy(GuestSide::kDestination, nullptr, &host, 0));
  EXPECT_FALSE(TryFill(nullptr, std::byte{1}, 0));
  EXPECT_EQ(host, kUntouched);
  EXPECT_EQ(RecoveredFaults(), before);
}

TEST(TrapSweep, TheKernelsAreTheOnesAskedFor) {
  const char* const wish = std::getenv("GUESTMEM_KERNELS");
  if (wish != nullptr) {
    EXPECT_STREQ(detail::g_trap_kernels.name, wish);
  } else {
    const bool avx512 = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vbmi2");
    EXPECT_STREQ(detail::g_trap_kernels.name, avx512 ? "avx512" : __builtin_cpu_supports("avx2") ? "avx" : "sse2");
  }
}

TEST(TrapSweepWithOtherKernels, EverySweepHolds) { test::PassesWithOtherKernels("TrapSweep.*"); }

}  // namespace
}  // namespace guestmem
