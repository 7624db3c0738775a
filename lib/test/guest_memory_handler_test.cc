// What handlers and fallbacks are asked, what becomes of their answers, and what has been transferred at every point.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace guestmem {

bool operator==(const PageFaultInfo& a, const PageFaultInfo& b) {
  return a.address == b.address && a.length == b.length && a.access == b.access && a.bitmap_failure == b.bitmap_failure;
}
void PrintTo(const PageFaultInfo& fault, std::ostream* out) {
  *out << fault.address << '+' << fault.length << " access " << static_cast<int>(fault.access)
       << (fault.bitmap_failure ? " refused" : " faulted");
}

namespace {

using test::Failed;
using test::Ok;
using test::Says;
using test::ScriptedBacking;

using Faults = std::vector<PageFaultInfo>;
using Fallbacks = std::vector<AddressRange>;
constexpr std::byte kUntouched{0xee};
constexpr uint64_t kMiB = uint64_t{1} << 20;

struct Stage {
  Stage(uint64_t pages, uint64_t populated)
      : backing(std::make_shared<ScriptedBacking>(pages, populated)), host(pages * kPageSize, kUntouched) {
    if (populated != 0) {
      std::memset(backing->At(0), 0x11, populated * kPageSize);
    }
  }
  GuestMemory Memory() const { return GuestMemory::Create("ram", backing).value(); }

  // The host buffer holds `count` bytes 0x11, then what it held.
  bool HostHas(uint64_t count) const {
    return std::all_of(host.begin(), host.begin() + static_cast<ptrdiff_t>(count),
                       [](std::byte b) { return b == std::byte{0x11}; }) &&
           std::all_of(host.begin() + static_cast<ptrdiff_t>(count), host.end(),
                       [](std::byte b) { return b == kUntouched; });
  }
  // As SPEC 4 says of faults: exactly [start, start + count) of the guest's populated part is `value`.
  bool GuestHas(uint64_t start, uint64_t count, uint8_t value, uint64_t populated) const {
    for (uint64_t i = 0; i < populated; ++i) {
      if (backing->Byte(i) != (i >= start && i < start + count ? value : 0x11)) {
        return false;
      }
    }
    return true;
  }

  std::shared_ptr<ScriptedBacking> backing;
  std::vector<std::byte> host;
};

// --- the default handler ---

TEST(Faults, D9_AFailedTransferHasMovedTheExactPrefixAndCountsIt) {
  for (uint64_t start : {uint64_t{0}, uint64_t{1}, kPageSize - 200, kPageSize - 3, kPageSize - 1}) {
    Stage s(4, 1);
    const GuestMemory memory = s.Memory();
    const uint64_t moved = kPageSize - start, length = 3 * kPageSize;
    EXPECT_TRUE(Failed(memory.ReadAt(start, std::span(s.host).first(length)), ErrorKind::kNotMapped, kPageSize, moved));
    EXPECT_TRUE(s.HostHas(moved));
    EXPECT_TRUE(Failed(memory.FillAt(start, std::byte{0x22}, length), ErrorKind::kNotMapped, kPageSize, moved));
    EXPECT_TRUE(s.GuestHas(start, moved, 0x22, kPageSize));
    EXPECT_TRUE(
        Failed(memory.WriteAt(start, std::span(s.host).first(length)), ErrorKind::kNotMapped, kPageSize, moved));
    const uint64_t rest = length - moved;
    EXPECT_EQ(s.backing->faults, (Faults{{kPageSize, rest, AccessType::kRead, false},
                                         {kPageSize, rest, AccessType::kWrite, false},
                                         {kPageSize, rest, AccessType::kWrite, false}}));
  }
}

TEST(Faults, ARefusedPageStopsTheWholePieceBeforeAnythingMoves) {
  Stage s(8, 8);
  s.backing->GiveBitmap(6);
  s.backing->Clear(AccessType::kRead, 5);
  s.backing->Clear(AccessType::kWrite, 4);
  const GuestMemory memory = s.Memory();
  EXPECT_TRUE(
      Failed(memory.ReadAt(100, std::span(s.host).first(7 * kPageSize)), ErrorKind::kAccessDenied, 5 * kPageSize));
  EXPECT_TRUE(s.HostHas(0));
  EXPECT_TRUE(Failed(memory.FillAt(100, std::byte{1}, 7 * kPageSize), ErrorKind::kAccessDenied, 4 * kPageSize));
  EXPECT_TRUE(s.GuestHas(0, 0, 1, 8 * kPageSize));
  EXPECT_EQ(s.backing->faults, (Faults{{5 * kPageSize, 2 * kPageSize + 100, AccessType::kRead, true},
                                       {4 * kPageSize, 3 * kPageSize + 100, AccessType::kWrite, true}}));
  EXPECT_TRUE(Ok(memory.ReadAt(0, std::span(s.host).first(5 * kPageSize))));
  EXPECT_TRUE(Failed(memory.ReadAt(5 * kPageSize + 7, std::span(s.host).first(1)), ErrorKind::kAccessDenied,
                     5 * kPageSize + 7));
}

// --- Retry ---

TEST(Retry, D20_GoesOnWithTheRestSoThatLazyMemoryCostsOneCallAPage) {
  constexpr uint64_t kPages = 64;
  Stage s(kPages, 0);
  s.backing->handler = [&s](const PageFaultInfo& fault) {
    (void)s.backing->ram->Allocate(fault.address / kPageSize * kPageSize, kPageSize);
    std::memset(s.backing->At(fault.address / kPageSize * kPageSize), 0x11, kPageSize);
    if (fault.address != 0) {
      std::memset(s.backing->At(fault.address - kPageSize), 0x99, kPageSize);  // what was read is not read again
    }
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Ok(s.Memory().ReadAt(0, s.host)));
  EXPECT_TRUE(s.HostHas(kPages * kPageSize));
  ASSERT_EQ(s.backing->faults.size(), kPages);
  for (uint64_t page = 0; page < kPages; ++page) {
    EXPECT_EQ(s.backing->faults[page],
              (PageFaultInfo{page * kPageSize, (kPages - page) * kPageSize, AccessType::kRead, false}));
  }
}

TEST(Retry, D20_WritesAndFillsGoOnToo) {
  constexpr uint64_t kPages = 8;
  for (const bool fill : {false, true}) {
    Stage s(kPages, 0);
    s.backing->handler = [&s](const PageFaultInfo& fault) {
      (void)s.backing->ram->Allocate(fault.address / kPageSize * kPageSize, kPageSize);
      if (fault.address >= kPageSize) {
        *s.backing->At(fault.address - 1) = std::byte{0x99};  // what was stored is not stored again
      }
      return PageFaultAction::Retry();
    };
    const std::span<const std::byte> source = std::span(s.host).first(kPages * kPageSize - 10);
    EXPECT_TRUE(Ok(fill ? s.Memory().FillAt(10, std::byte{0xee}, source.size()) : s.Memory().WriteAt(10, source)));
    EXPECT_EQ(s.backing->faults.size(), kPages);
    for (uint64_t i = 0; i < kPages * kPageSize; ++i) {
      const bool last_of_page = i % kPageSize == kPageSize - 1 && i != kPages * kPageSize - 1;
      ASSERT_EQ(s.backing->Byte(i), i < 10 ? 0 : last_of_page ? 0x99 : 0xee) << i;
    }
  }
}

TEST(Retry, ChecksTheBitsOfTheRestAgain) {
  constexpr uint64_t kPages = 3 * kMiB / kPageSize;  // several read-side sections
  Stage s(kPages, 0);
  (void)s.backing->ram->Allocate(0, 100 * kPageSize);
  (void)s.backing->ram->Allocate(101 * kPageSize, (kPages - 101) * kPageSize);
  s.backing->GiveBitmap(1);
  s.backing->handler = [&s](const PageFaultInfo& fault) {
    if (fault.bitmap_failure) {
      return PageFaultAction::Fail(AccessDenied());
    }
    (void)s.backing->ram->Allocate(fault.address, kPageSize);
    s.backing->Clear(AccessType::kRead, 600);
    Rcu::Synchronize();  // bits cleared without it may be seen later, by the section that moves their page's bytes
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Failed(s.Memory().ReadAt(0, s.host), ErrorKind::kAccessDenied, 600 * kPageSize, 100 * kPageSize));
  EXPECT_EQ(s.backing->faults, (Faults{{100 * kPageSize, (kPages - 100) * kPageSize, AccessType::kRead, false},
                                       {600 * kPageSize, (kPages - 600) * kPageSize, AccessType::kRead, true}}));
  EXPECT_TRUE(std::all_of(s.host.begin() + 100 * kPageSize, s.host.end(), [](std::byte b) { return b == kUntouched; }));
}

TEST(Retry, AfterARefusalMovesEverythingOnce) {
  Stage s(4, 4);
  s.backing->GiveBitmap();
  s.backing->Clear(AccessType::kRead, 1);
  s.backing->Clear(AccessType::kRead, 3);
  s.backing->handler = [&s](const PageFaultInfo& fault) {
    s.backing->Set(AccessType::kRead, fault.address / kPageSize);
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Ok(s.Memory().ReadAt(0, s.host)));
  EXPECT_TRUE(s.HostHas(4 * kPageSize));
  EXPECT_EQ(s.backing->faults.size(), 2U);
}

TEST(Retry, TakesAPlainAccessWholeAgain) {
  Stage s(2, 1);
  s.backing->handler = [&s](const PageFaultInfo& fault) {
    (void)s.backing->ram->Allocate(fault.address, kPageSize);
    std::memset(s.backing->At(0), 0x22, kPageSize);
    return PageFaultAction::Retry();
  };
  EXPECT_EQ(s.Memory().ReadPlain<uint32_t>(kPageSize - 2).value(), 0x00002222U);
  EXPECT_EQ(s.backing->faults, (Faults{{kPageSize, 2, AccessType::kRead, false}}));
}

// SPEC 3, step 6: the next MiB's bits are checked again; and 4: transferred counts what was moved before.
class LaterSection : public testing::Test {
 protected:
  LaterSection() : s(2 * kMiB / kPageSize, 2 * kMiB / kPageSize) {
    // The write bits lie in the memory's own first page, so that filling it refuses its second MiB.
    s.backing->bitmap = BitmapInfo{};
    s.backing->bitmap->write = reinterpret_cast<const uint8_t*>(s.backing->At(0));
    std::memset(s.backing->At(0), 0xff, kPageSize);
  }
  Stage s;
};

TEST_F(LaterSection, ThatIsRefusedFailsWithTheEarlierOnesCounted) {
  EXPECT_TRUE(Failed(s.Memory().FillAt(0, std::byte{0}, 2 * kMiB), ErrorKind::kAccessDenied, kMiB, kMiB));
  EXPECT_EQ(s.backing->faults, (Faults{{kMiB, kMiB, AccessType::kWrite, true}}));
  EXPECT_TRUE(s.GuestHas(0, kMiB, 0, 2 * kMiB));
}

TEST_F(LaterSection, ThatIsRefusedBehindItsStartNamesThatPage) {
  // From byte 40 on the bits become clear: those of page 320 and up.
  EXPECT_TRUE(Failed(s.Memory().FillAt(40, std::byte{0}, 2 * kMiB - 40), ErrorKind::kAccessDenied, 320 * kPageSize, kMiB));
  EXPECT_EQ(s.backing->Byte(kMiB + 39), 0);
  EXPECT_EQ(s.backing->Byte(kMiB + 40), 0x11);
}

TEST_F(LaterSection, ThatIsRefusedGoesOnAfterRetryWithoutRepeatingTheEarlierOnes) {
  s.backing->handler = [this](const PageFaultInfo&) {
    std::memset(s.backing->At(0), 0xff, kPageSize);
    return s.backing->faults.size() > 4 ? PageFaultAction::Fail(AccessDenied()) : PageFaultAction::Retry();
  };
  EXPECT_TRUE(Ok(s.Memory().FillAt(0, std::byte{0}, 2 * kMiB)));
  EXPECT_EQ(s.backing->faults.size(), 1U);
  EXPECT_EQ(s.backing->Byte(0), 0xff) << "stored again what was transferred";
  EXPECT_EQ(s.backing->Byte(2 * kMiB - 1), 0);
}

TEST_F(LaterSection, ThatIsRefusedGivesTheFallbackTheRestOnly) {
  s.backing->handler = [](const PageFaultInfo&) { return PageFaultAction::Fallback(); };
  s.backing->on_fill = [](uint64_t, std::byte, uint64_t) { return Status(); };
  EXPECT_TRUE(Ok(s.Memory().FillAt(0, std::byte{0}, 2 * kMiB)));
  EXPECT_EQ(s.backing->fallbacks, (Fallbacks{{kMiB, kMiB}}));
}

// --- Fallback ---

TEST(Fallback, D20_GetsOnlyTheRestOnce) {
  Stage s(4, 1);
  s.backing->handler = [](const PageFaultInfo&) { return PageFaultAction::Fallback(); };
  s.backing->on_read = [](uint64_t, std::span<std::byte> destination) {
    std::memset(destination.data(), 0x11, destination.size());
    return Status();
  };
  s.backing->on_write = [](uint64_t, std::span<const std::byte> source) {
    return source.front() == std::byte{0x11} ? Status() : AccessDenied();
  };
  s.backing->on_fill = [](uint64_t, std::byte value, uint64_t) { return value == std::byte{7} ? Status() : AccessDenied(); };
  const GuestMemory memory = s.Memory();
  const uint64_t length = 2 * kPageSize;
  EXPECT_TRUE(Ok(memory.ReadAt(1000, std::span(s.host).first(length))));
  EXPECT_TRUE(s.HostHas(length));
  EXPECT_TRUE(Ok(memory.WriteAt(1000, std::span(s.host).first(length))));
  EXPECT_TRUE(Ok(memory.FillAt(1000, std::byte{7}, length)));
  const AddressRange rest{kPageSize, length - (kPageSize - 1000)};
  EXPECT_EQ(s.backing->fallbacks, (Fallbacks{rest, rest, rest}));
  EXPECT_EQ(s.backing->faults.size(), 3U);
}

TEST(Fallback, WithoutAMappingGetsEverythingOnceAndNoBitIsAsked) {
  Stage s(2, 0);
  s.backing->mapped = false;
  s.backing->GiveBitmap();
  s.backing->Clear(AccessType::kRead, 0);
  s.backing->on_read = [](uint64_t, std::span<std::byte> d) { return std::memset(d.data(), 0x11, d.size()), Status(); };
  const GuestMemory memory = s.Memory();
  EXPECT_TRUE(Ok(memory.ReadAt(10, std::span(s.host).first(5000))));
  EXPECT_TRUE(s.HostHas(5000));
  EXPECT_EQ(memory.ReadPlain<uint32_t>(6).value(), 0x11111111U);
  EXPECT_TRUE(Ok(memory.ProbeReadable(4000, 200)));
  EXPECT_EQ(s.backing->fallbacks, (Fallbacks{{10, 5000}, {6, 4}, {4000, 1}, {4096, 1}}));
  EXPECT_TRUE(s.backing->faults.empty());
}

TEST(Fallback, ThatTheBackingLacksIsNoFallback) {
  Stage s(2, 0);
  s.backing->handler = [](const PageFaultInfo&) { return PageFaultAction::Fallback(); };
  const GuestMemory memory = s.Memory();
  for (const Status& status : {memory.ReadAt(5, std::span(s.host).first(9)), memory.FillAt(5, std::byte{1}, 9),
                               memory.WriteAt(5, std::span(s.host).first(9)), memory.ReadPlain<uint8_t>(5).status(),
                               memory.CompareExchange<uint8_t>(5, 0, 1).status(), memory.ProbeReadable(5, 9),
                               memory.ProbeWritable(5, 9), memory.ProbeExecutable(5, 9)}) {
    EXPECT_TRUE(Failed(status, ErrorKind::kNoFallback, 5));
    EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  }
}

TEST(Fallback, TakesPlainAccessesAndCompareExchangesWhole) {
  Stage s(2, 1);
  s.backing->handler = [](const PageFaultInfo&) { return PageFaultAction::Fallback(); };
  s.backing->on_write = [](uint64_t, std::span<const std::byte>) { return Status(); };
  s.backing->on_compare_exchange = [](uint64_t, std::span<std::byte> current, std::span<const std::byte> desired) {
    const bool good = current[0] == std::byte{3} && desired[0] == std::byte{4};
    current[0] = std::byte{9};
    return good;
  };
  const GuestMemory memory = s.Memory();
  EXPECT_TRUE(Ok(memory.WritePlain<uint64_t>(kPageSize - 3, 1)));
  const auto result = memory.CompareExchange<uint32_t>(kPageSize, 3, 4);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->swapped);
  EXPECT_EQ(result->value, 9U);
  EXPECT_EQ(s.backing->fallbacks, (Fallbacks{{kPageSize - 3, 8}, {kPageSize, 4}}));
  EXPECT_TRUE(s.GuestHas(0, 0, 0, kPageSize));
}

TEST(Fallback, AWriteProbeIsACompareExchangeOfZeroWithZeroInEachPage) {
  Stage s(3, 0);
  s.backing->mapped = false;
  s.backing->on_compare_exchange = [](uint64_t, std::span<std::byte> current, std::span<const std::byte> desired) {
    return current[0] == std::byte{0} && desired[0] == std::byte{0} ? Result<bool>(false)
                                                                    : Result<bool>(AccessDenied());
  };
  EXPECT_TRUE(Ok(s.Memory().ProbeWritable(4090, 2 * kPageSize)));
  EXPECT_EQ(s.backing->fallbacks, (Fallbacks{{4090, 1}, {4096, 1}, {8192, 1}}));
}

TEST(Fallback, AFailureMayTellWhereAndHowMuchButOnlyInsideWhatItWasAsked) {
  struct Case {
    std::optional<uint64_t> address;
    uint64_t moved;
    uint64_t fault_address, transferred;
  };
  // Read of [1000, 9192) with a hole at 4096: the fallback is asked for [4096, 9192).
  constexpr uint64_t kMoved = kPageSize - 1000;
  for (const Case& c :
       {Case{std::nullopt, 0, 4096, kMoved}, Case{5000, 904, 5000, kMoved + 904}, Case{4096, 0, 4096, kMoved},
        Case{9191, 5096, 9191, kMoved + 5096}, Case{9192, 5097, 4096, kMoved}, Case{4095, 1, 4096, kMoved + 1},
        Case{0, ~uint64_t{0}, 4096, kMoved}}) {
    Stage s(4, 1);
    s.backing->handler = [](const PageFaultInfo&) { return PageFaultAction::Fallback(); };
    s.backing->on_read = [&c](uint64_t, std::span<std::byte>) {
      return BackendError(StatusCode::kUnavailable, "bus gone", c.address, c.moved);
    };
    const Status status = s.Memory().ReadAt(1000, std::span(s.host).first(8192));
    EXPECT_TRUE(Failed(status, ErrorKind::kBackend, c.fault_address, c.transferred));
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_TRUE(Says(status, "bus gone"));
  }
}

// --- handlers that use the memory they serve (D4) ---

TEST(Handlers, D4_MayAccessTheSameMemoryAndChangeItsBits) {
  Stage s(4, 2);
  s.backing->GiveBitmap();
  s.backing->Clear(AccessType::kWrite, 1);
  GuestMemory memory = s.Memory();
  s.backing->handler = [&](const PageFaultInfo& fault) {
    if (fault.bitmap_failure) {
      s.backing->Set(AccessType::kWrite, fault.address / kPageSize);
    } else {
      (void)s.backing->ram->Allocate(fault.address / kPageSize * kPageSize, kPageSize);
    }
    // One of its own that faults as well, while the outer access waits.
    if (fault.address / kPageSize == 2) {
      EXPECT_TRUE(Ok(memory.WritePlain<uint64_t>(3 * kPageSize, fault.address)));
    }
    EXPECT_EQ(memory.ReadPlain<uint8_t>(8).value(), fault.bitmap_failure ? 0x11 : 0x22);
    return PageFaultAction::Retry();
  };
  EXPECT_TRUE(Ok(memory.FillAt(0, std::byte{0x22}, 3 * kPageSize)));
  EXPECT_EQ(memory.ReadPlain<uint64_t>(3 * kPageSize).value(), 2 * kPageSize);
  EXPECT_EQ(s.backing->faults, (Faults{{kPageSize, 2 * kPageSize, AccessType::kWrite, true},
                                       {2 * kPageSize, kPageSize, AccessType::kWrite, false},
                                       {3 * kPageSize, 8, AccessType::kWrite, false}}));
}

}  // namespace
}  // namespace guestmem
