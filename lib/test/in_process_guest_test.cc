// InProcessGuest: what regions, ROMs and doorbells do to accesses through GuestMemory, and what their creation refuses.

#include "guestmem/in_process_guest.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "guestmem/guest_memory.h"
#include "host_state.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::File;
using test::kPage;

// Pages 0 to 3 are RAM, the rest is free.
struct Vm {
  Vm() : guest(InProcessGuest::Create("vm", 64 * kPage).value()) {
    EXPECT_TRUE(guest->AddRam(0, 4 * kPage).ok());
    memory = GuestMemory::Create("vm", guest).value();
  }
  uint8_t At(uint64_t gpa) const { return memory.ReadPlain<uint8_t>(gpa).value(); }
  ErrorKind ReadKind(uint64_t gpa) const { return memory.ReadPlain<uint8_t>(gpa).status().kind(); }
  ErrorKind WriteKind(uint64_t gpa) const { return memory.WritePlain<uint8_t>(gpa, 1).kind(); }
  bool Write(uint64_t gpa, std::vector<uint8_t> bytes) const {
    return memory.WriteAt(gpa, std::as_bytes(std::span(bytes))).ok();
  }

  std::shared_ptr<InProcessGuest> guest;
  GuestMemory memory;
};

void ExpectRefused(const Status& status, ErrorKind kind, const char* text) {
  ASSERT_FALSE(status.ok()) << text;
  EXPECT_EQ(status.kind(), kind) << status.ToString();
  EXPECT_NE(status.ToString().find(text), std::string::npos) << status.ToString();
}

TEST(InProcessGuest, RamIsWhereItWasAddedAndNowhereElse) {
  const Vm vm;
  EXPECT_TRUE(vm.memory.ProbeWritable(0, 4 * kPage).ok());
  EXPECT_EQ(vm.ReadKind(4 * kPage), ErrorKind::kNotMapped);
  EXPECT_EQ(vm.ReadKind(64 * kPage), ErrorKind::kOutOfRange);
  EXPECT_TRUE(vm.guest->AddRam(4 * kPage, kPage).ok());
  EXPECT_TRUE(vm.memory.ProbeWritable(0, 5 * kPage).ok());
}

TEST(InProcessGuest, WhatOverlapsIsRefusedByName) {
  const Vm vm;
  const auto region = vm.guest->NewRegion(4 * kPage, "bar").value();
  ASSERT_TRUE(region.guest->MapToGuest(8 * kPage, true).ok());
  ExpectRefused(vm.guest->AddRam(3 * kPage, 2 * kPage), ErrorKind::kInvalidArgument, "'vm' is there");
  ExpectRefused(vm.guest->AddRam(5 * kPage, 4 * kPage), ErrorKind::kInvalidArgument, "'bar' is there");
  ExpectRefused(vm.guest->AddRam(11 * kPage, 1 * kPage), ErrorKind::kInvalidArgument, "'bar' is there");
  ExpectRefused(vm.guest->AddRam(4 * kPage + 1, kPage), ErrorKind::kInvalidArgument, "whole number of pages");
  ExpectRefused(vm.guest->AddRam(4 * kPage, 0), ErrorKind::kInvalidArgument, "whole number of pages");
  ExpectRefused(vm.guest->AddRam(63 * kPage, 2 * kPage), ErrorKind::kInvalidArgument, "outside the guest's memory");
  ExpectRefused(vm.guest->AddRam(kPage, ~uint64_t{0} - kPage + 1), ErrorKind::kInvalidArgument, "outside the guest's memory");
  EXPECT_TRUE(vm.guest->AddRam(4 * kPage, 4 * kPage).ok());
  EXPECT_TRUE(vm.guest->AddRam(12 * kPage, kPage).ok());
}

TEST(MemoryMapper, ARegionIsFilledBeforeOrAfterItIsMapped) {
  const Vm vm;
  const File file(8 * kPage);
  const auto [guest, region] = vm.guest->NewRegion(4 * kPage, "bar").value();
  ASSERT_TRUE(region->Map(0, file.fd(), 2 * kPage, kPage, true).ok());
  EXPECT_EQ(vm.ReadKind(8 * kPage), ErrorKind::kNotMapped);
  ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
  EXPECT_EQ(vm.At(8 * kPage + 9), file.At(2 * kPage + 9));
  EXPECT_EQ(vm.ReadKind(9 * kPage), ErrorKind::kNotMapped);
  ASSERT_TRUE(region->Map(2 * kPage, file.fd(), 5 * kPage, 2 * kPage, true).ok());
  EXPECT_EQ(vm.At(11 * kPage + 9), file.At(6 * kPage + 9));
  ASSERT_TRUE(vm.Write(11 * kPage + 9, {0xee}));
  EXPECT_EQ(file.At(6 * kPage + 9), 0xee);
  ASSERT_TRUE(region->Unmap(0, 3 * kPage).ok());
  EXPECT_EQ(vm.ReadKind(8 * kPage), ErrorKind::kNotMapped);
  EXPECT_EQ(vm.ReadKind(10 * kPage), ErrorKind::kNotMapped);
  EXPECT_EQ(vm.At(11 * kPage + 9), 0xee);
}

TEST(MemoryMapper, ARegionMovesWithAllItHolds) {
  const Vm vm;
  const File file(2 * kPage);
  const auto [guest, region] = vm.guest->NewRegion(2 * kPage, "bar").value();
  ASSERT_TRUE(region->Map(kPage, file.fd(), 0, kPage, true).ok());
  ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
  ExpectRefused(guest->MapToGuest(20 * kPage, true), ErrorKind::kInvalidArgument, "in the guest already");
  ASSERT_TRUE(guest->UnmapFromGuest().ok());
  ASSERT_TRUE(guest->UnmapFromGuest().ok());
  EXPECT_EQ(vm.ReadKind(9 * kPage), ErrorKind::kNotMapped);
  ASSERT_TRUE(guest->MapToGuest(20 * kPage, false).ok());
  EXPECT_EQ(vm.At(21 * kPage + 3), file.At(3));
  EXPECT_EQ(vm.WriteKind(21 * kPage), ErrorKind::kNotMapped);
  EXPECT_TRUE(vm.guest->AddRam(8 * kPage, 2 * kPage).ok());  // the old place is free
}

TEST(MemoryMapper, NeitherHalfMakesAReadOnlyPieceWritable) {
  const Vm vm;
  const File file(kPage);
  const auto [guest, region] = vm.guest->NewRegion(2 * kPage, "bar").value();
  ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
  ASSERT_TRUE(region->Map(0, file.fd(), 0, kPage, false).ok());
  EXPECT_EQ(vm.WriteKind(8 * kPage), ErrorKind::kNotMapped);
  ASSERT_TRUE(guest->UnmapFromGuest().ok());
  ASSERT_TRUE(guest->MapToGuest(8 * kPage, false).ok());
  ASSERT_TRUE(region->Map(kPage, file.fd(), 0, kPage, true).ok());
  EXPECT_EQ(vm.WriteKind(9 * kPage), ErrorKind::kNotMapped);
}

// Every pair of a mapping and what comes over it, in a region of five pages; compared page by page after a move, which
// maps what the region remembers.
TEST(MemoryMapper, MappingsOverwriteAndSplitAsMmap) {
  constexpr uint64_t kPages = 5;
  const File file(32 * kPage);
  for (uint64_t first = 0; first < kPages * kPages; ++first) {
    for (uint64_t second = 0; second < kPages * kPages; ++second) {
      for (const bool unmap : {false, true}) {
        const uint64_t a = first / kPages, a_end = std::min(kPages, a + 1 + first % kPages);
        const uint64_t b = second / kPages, b_end = std::min(kPages, b + 1 + second % kPages);
        const Vm vm;
        const auto [guest, region] = vm.guest->NewRegion(kPages * kPage, "bar").value();
        ASSERT_TRUE(region->Map(a * kPage, file.fd(), 8 * kPage, (a_end - a) * kPage, true).ok());
        ASSERT_TRUE((unmap ? region->Unmap(b * kPage, (b_end - b) * kPage)
                           : region->Map(b * kPage, file.fd(), 16 * kPage, (b_end - b) * kPage, true))
                        .ok());
        ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
        for (uint64_t page = 0; page < kPages; ++page) {
          const bool in_b = page >= b && page < b_end, in_a = page >= a && page < a_end;
          const uint64_t gpa = (8 + page) * kPage + 5;
          if (in_b ? unmap : !in_a) {
            ASSERT_EQ(vm.ReadKind(gpa), ErrorKind::kNotMapped);
          } else {
            const uint64_t from = in_b ? 16 + page - b : 8 + page - a;
            ASSERT_EQ(vm.At(gpa), file.At(from * kPage + 5));
          }
        }
      }
    }
  }
}

// As a BAR of many windows: each piece is of a file that is open already.
TEST(MemoryMapper, ARegionOfManyPiecesOfAFileHasOneDescriptor) {
  constexpr uint64_t kPieces = 2000;
  const Vm vm;
  const File file(kPieces * kPage);
  const auto [guest, region] = vm.guest->NewRegion(2 * kPieces * kPage, "bar").value();
  const int before = test::HostState().files;
  for (uint64_t i = 0; i < kPieces; ++i) {
    ASSERT_TRUE(region->Map(2 * i * kPage, file.fd(), i * kPage, kPage, true).ok());
  }
  EXPECT_EQ(test::HostState().files, before + 1);
  ASSERT_TRUE(region->Unmap(0, 2 * kPieces * kPage).ok());
  EXPECT_EQ(test::HostState().files, before);
}

// A mapping that is refused splits what it would lie over, and takes that back: two pieces that follow one another in the file stay two.
TEST(MemoryMapper, PiecesOfOneFileKeepTheirRightsBesideARefusedMapping) {
  const Vm vm;
  const File file(4 * kPage);
  for (const bool first : {false, true}) {
    const auto [guest, region] = vm.guest->NewRegion(4 * kPage, "bar").value();
    ASSERT_TRUE(region->Map(0, file.fd(), 0, 2 * kPage, first).ok());
    ASSERT_TRUE(region->Map(2 * kPage, file.fd(), 2 * kPage, 2 * kPage, !first).ok());
    EXPECT_FALSE(region->Map(kPage, -1, 0, kPage, true).ok());
    EXPECT_FALSE(region->Map(2 * kPage, -1, 0, kPage, true).ok());
    ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
    for (uint64_t page = 0; page < 4; ++page) {
      EXPECT_EQ(vm.At((8 + page) * kPage), file.At(page * kPage));
      EXPECT_EQ(vm.Write((8 + page) * kPage + 8, {1}), (page < 2) == first) << page;
    }
    ASSERT_TRUE(guest->UnmapFromGuest().ok());
  }
}

TEST(MemoryMapper, WhatCannotBeMappedIsRefusedAtOnce) {
  const Vm vm;
  const File file(kPage);
  const auto [guest, region] = vm.guest->NewRegion(2 * kPage, "bar").value();
  ExpectRefused(region->Map(0, -1, 0, kPage, true), ErrorKind::kInvalidArgument, "guest memory 'bar'");
  ExpectRefused(region->Map(0, 0, uint64_t{1} << 62 | 1, kPage, true), ErrorKind::kInvalidArgument, "'bar'");
  ExpectRefused(region->Map(kPage, file.fd(), 0, 2 * kPage, true), ErrorKind::kInvalidArgument, "outside the region");
  ExpectRefused(region->Unmap(1, kPage), ErrorKind::kInvalidArgument, "whole number of pages");
  ExpectRefused(guest->MapToGuest(kPage, true), ErrorKind::kInvalidArgument, "'vm' is there");
  EXPECT_TRUE(region->Map(2 * kPage, file.fd(), 0, 0, true).ok());
  ExpectRefused(vm.guest->NewRegion(0, "none").status(), ErrorKind::kInvalidArgument, "'none'");
  ExpectRefused(vm.guest->NewRegion(kPage + 1, "odd").status(), ErrorKind::kInvalidArgument, "'odd'");
}

TEST(MemoryMapper, DroppingTheGuestsHalfTakesItOut) {
  const Vm vm;
  const File file(kPage);
  auto made = vm.guest->NewRegion(kPage, "bar").value();
  ASSERT_TRUE(made.region->Map(0, file.fd(), 0, kPage, true).ok());
  ASSERT_TRUE(made.guest->MapToGuest(8 * kPage, true).ok());
  made.guest.reset();
  EXPECT_EQ(vm.ReadKind(8 * kPage), ErrorKind::kNotMapped);
  EXPECT_TRUE(made.region->Unmap(0, kPage).ok());
  EXPECT_TRUE(vm.guest->AddRam(8 * kPage, kPage).ok());
}

TEST(RomMapper, PartsAppearWhereTheyAreMappedUntilDropped) {
  const Vm vm;
  std::vector<std::byte> image(3 * kPage - 100);
  for (size_t i = 0; i < image.size(); ++i) {
    image[i] = static_cast<std::byte>(i * 7 + i / kPage);
  }
  const auto rom = vm.guest->NewRom(image, "bios").value();
  EXPECT_EQ(rom->length(), image.size());
  auto all = rom->MapRom(16 * kPage, 0, 3 * kPage).value();
  const auto part = rom->MapRom(32 * kPage, 2 * kPage, kPage).value();
  std::vector<std::byte> seen(image.size());
  ASSERT_TRUE(vm.memory.ReadAt(16 * kPage, seen).ok());
  EXPECT_EQ(seen, image);
  EXPECT_EQ(vm.At(32 * kPage + 1), std::to_integer<uint8_t>(image[2 * kPage + 1]));
  EXPECT_EQ(vm.At(33 * kPage - 1), 0);  // behind the image
  const Status refused = vm.memory.WritePlain<uint32_t>(16 * kPage, 1);
  ExpectRefused(refused, ErrorKind::kNotMapped, "read-only");
  all.reset();
  EXPECT_EQ(vm.ReadKind(16 * kPage), ErrorKind::kNotMapped);
  EXPECT_EQ(vm.At(32 * kPage + 1), std::to_integer<uint8_t>(image[2 * kPage + 1]));
}

TEST(RomMapper, WhatIsNotInTheRomIsRefused) {
  const Vm vm;
  const std::vector<std::byte> image(2 * kPage);
  const auto rom = vm.guest->NewRom(image, "bios").value();
  ExpectRefused(rom->MapRom(16 * kPage, kPage, 2 * kPage).status(), ErrorKind::kInvalidArgument, "of the ROM");
  ExpectRefused(rom->MapRom(16 * kPage, 1, kPage).status(), ErrorKind::kInvalidArgument, "of the ROM");
  ExpectRefused(rom->MapRom(16 * kPage, ~uint64_t{0} - kPage + 1, kPage).status(), ErrorKind::kInvalidArgument, "of the ROM");
  ExpectRefused(rom->MapRom(kPage, 0, kPage).status(), ErrorKind::kInvalidArgument, "'vm' is there");
  ExpectRefused(vm.guest->NewRom({}, "none").status(), ErrorKind::kInvalidArgument, "'none'");
}

constexpr uint64_t kBell = 2 * kPage + 16;  // in RAM

// As the tables of these tests say it.
DoorbellMatch Match(std::optional<uint64_t> value, std::optional<uint8_t> length) {
  return {.value = value, .length = length ? std::optional(DoorbellLength{*length}) : std::nullopt};
}

struct Bells : Vm {
  std::unique_ptr<Doorbell> Register(uint64_t gpa, std::optional<uint64_t> value, std::optional<uint8_t> length) const {
    return guest->RegisterDoorbell(gpa, Match(value, length), event).value();
  }
  bool Rang() const { return event.TryWait().value(); }
  const Event event = Event::Create().value();
};

TEST(DoorbellRegistration, RingsForWritesThatMatchAndStoresNothing) {
  const struct {
    std::optional<uint64_t> value;
    std::optional<uint32_t> length;
    std::vector<uint8_t> written;
    bool rings;
  } cases[] = {
      {std::nullopt, std::nullopt, {1}, true},         {std::nullopt, std::nullopt, std::vector<uint8_t>(100, 3), true},
      {std::nullopt, 4, {1, 2, 3, 4}, true},           {std::nullopt, 4, {1, 2}, false},
      {std::nullopt, 2, {1, 2, 3, 4}, false},          {0x0201, 2, {1, 2}, true},
      {0x0201, 2, {2, 1}, false},                      {0x0201, std::nullopt, {1, 2, 0, 0}, true},
      {0x0201, std::nullopt, {1, 2, 3}, false},        {0x0807060504030201, 8, {1, 2, 3, 4, 5, 6, 7, 8}, true},
      {0x0807060504030201, std::nullopt, {1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
  };
  int number = 0;
  for (const auto& [value, length, written, rings] : cases) {
    SCOPED_TRACE(number++);
    const Bells vm;
    const auto bell = vm.Register(kBell, value, length);
    ASSERT_TRUE(vm.Write(kBell, written));
    EXPECT_EQ(vm.Rang(), rings);
    EXPECT_EQ(vm.At(kBell), rings ? 0 : written[0]);
    EXPECT_EQ(vm.At(kBell + written.size() - 1), rings ? 0 : written.back());
  }
}

TEST(DoorbellRegistration, PlainWritesAndFillsRing) {
  const Bells vm;
  const auto bell = vm.Register(kBell, 0x11111111, 4);
  ASSERT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 0x11111111).ok());
  EXPECT_TRUE(vm.Rang());
  ASSERT_TRUE(vm.memory.FillAt(kBell, std::byte{0x11}, 4).ok());
  EXPECT_TRUE(vm.Rang());
  ASSERT_TRUE(vm.memory.FillAt(kBell, std::byte{0x11}, 5).ok());
  EXPECT_FALSE(vm.Rang());
  EXPECT_EQ(vm.memory.ReadPlain<uint64_t>(kBell).value(), 0x1111111111U);
  ASSERT_TRUE(vm.memory.WritePlain<uint16_t>(kBell, 7).ok());
  ASSERT_TRUE(vm.memory.WritePlain<uint64_t>(kBell + 8, 9).ok());
  EXPECT_FALSE(vm.Rang());
}

TEST(DoorbellRegistration, AWriteThatOnlyCoversTheAddressDoesNotRing) {
  const Bells vm;
  const auto bell = vm.Register(kBell, std::nullopt, std::nullopt);
  ASSERT_TRUE(vm.Write(kBell - 1, {5, 6, 7}));
  ASSERT_TRUE(vm.Write(kPage + 8, std::vector<uint8_t>(2 * kPage, 0xdd)));  // from the page before to the one behind
  EXPECT_FALSE(vm.Rang());
  EXPECT_EQ(vm.At(kBell), 0xdd);
  EXPECT_EQ(vm.At(3 * kPage + 7), 0xdd);
}

TEST(DoorbellRegistration, ReadsAndCompareExchangesGoToTheMemoryBeneath) {
  const Bells vm;
  ASSERT_TRUE(vm.Write(kBell, {1, 0, 0, 0}));
  const auto bell = vm.Register(kBell, std::nullopt, std::nullopt);
  EXPECT_EQ(vm.At(kBell), 1);
  const auto swapped = vm.memory.CompareExchange<uint32_t>(kBell, 1, 2).value();
  EXPECT_TRUE(swapped.swapped);
  EXPECT_EQ(vm.At(kBell), 2);
  const auto kept = vm.memory.CompareExchange<uint64_t>(kBell, 1, 3).value();
  EXPECT_FALSE(kept.swapped);
  EXPECT_EQ(kept.value, 2U);
  EXPECT_TRUE(vm.memory.CompareExchange<uint16_t>(kBell + 2, 0, 3).value().swapped);
  EXPECT_TRUE(vm.memory.CompareExchange<uint8_t>(kBell + 2, 3, 4).value().swapped);
  EXPECT_TRUE(vm.memory.ProbeWritable(kPage, 2 * kPage).ok());
  EXPECT_FALSE(vm.Rang());
}

TEST(DoorbellRegistration, WhereThereIsNoMemoryBeneathOnlyMatchingWritesSucceed) {
  const Bells vm;
  const uint64_t mmio = 40 * kPage + 8;
  const auto bell = vm.Register(mmio, std::nullopt, 4);
  EXPECT_TRUE(vm.memory.WritePlain<uint32_t>(mmio, 1).ok());
  EXPECT_TRUE(vm.Rang());
  for (const Status& status : {vm.memory.WritePlain<uint16_t>(mmio, 1), vm.memory.FillAt(mmio, std::byte{1}, 64), vm.memory.WritePlain<uint8_t>(mmio, 1),
                               vm.memory.WritePlain<uint64_t>(mmio, 1),
                               vm.memory.CompareExchange<uint32_t>(mmio, 0, 1).status(), vm.memory.ProbeWritable(mmio, 4)}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), ErrorKind::kNotMapped) << status.ToString();
  }
  EXPECT_EQ(vm.ReadKind(mmio), ErrorKind::kNotMapped);
  EXPECT_FALSE(vm.Rang());
}

TEST(DoorbellRegistration, AMissThatRunsOutOfMemoryKeepsItsExactPrefix) {
  const Bells vm;
  const auto bell = vm.Register(kBell, std::nullopt, 4);
  const std::vector<std::byte> bytes(3 * kPage, std::byte{9});
  const Status status = vm.memory.WriteAt(2 * kPage + 100, bytes);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.info().fault_address, 4 * kPage);
  EXPECT_EQ(status.info().transferred, 2 * kPage - 100);
  EXPECT_EQ(vm.At(4 * kPage - 1), 9);
}

TEST(DoorbellRegistration, DroppingItEndsIt) {
  const Bells vm;
  auto first = vm.Register(kBell, std::nullopt, 4);
  auto second = vm.Register(kBell + 4, std::nullopt, 4);  // keeps the page's bit off
  first.reset();
  ASSERT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 7).ok());
  EXPECT_FALSE(vm.Rang());
  EXPECT_EQ(vm.memory.ReadPlain<uint32_t>(kBell).value(), 7U);
  ASSERT_TRUE(vm.memory.WritePlain<uint32_t>(kBell + 4, 7).ok());
  EXPECT_TRUE(vm.Rang());
  second.reset();
  ASSERT_TRUE(vm.memory.WritePlain<uint32_t>(kBell + 4, 8).ok());
  EXPECT_FALSE(vm.Rang());
  EXPECT_EQ(vm.memory.ReadPlain<uint32_t>(kBell + 4).value(), 8U);
  EXPECT_EQ(vm.guest->access_bitmap()->write[0], 0xff);  // the fast path is back
}

TEST(DoorbellRegistration, EveryMatchingRegistrationIsSignalled) {
  const Bells vm;
  const Event other = Event::Create().value();
  const auto any = vm.Register(kBell, std::nullopt, std::nullopt);
  const auto exact = vm.guest->RegisterDoorbell(kBell, {.value = 5, .length = DoorbellLength::k4}, other).value();
  ASSERT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 5).ok());
  EXPECT_TRUE(vm.Rang());
  EXPECT_TRUE(other.TryWait().value());
  ASSERT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 6).ok());
  EXPECT_TRUE(vm.Rang());
  EXPECT_FALSE(other.TryWait().value());
}

TEST(DoorbellRegistration, WhatNoWriteCanMatchIsRefused) {
  const Bells vm;
  const auto refuse = [&](uint64_t gpa, std::optional<uint64_t> value, std::optional<uint8_t> length) {
    return vm.guest->RegisterDoorbell(gpa, Match(value, length), vm.event).status();
  };
  ExpectRefused(refuse(kBell, std::nullopt, 3), ErrorKind::kInvalidArgument, "length");
  ExpectRefused(refuse(kBell, std::nullopt, 0), ErrorKind::kInvalidArgument, "length");
  ExpectRefused(refuse(kBell, 0x100, 1), ErrorKind::kInvalidArgument, "value");
  ExpectRefused(refuse(64 * kPage, std::nullopt, 1), ErrorKind::kOutOfRange, "outside");
  ExpectRefused(refuse(64 * kPage - 1, std::nullopt, 2), ErrorKind::kOutOfRange, "outside");
  ExpectRefused(refuse(~uint64_t{0}, std::nullopt, std::nullopt), ErrorKind::kOutOfRange, "outside");
  EXPECT_EQ(vm.guest->access_bitmap()->write[0], 0xff);
}

TEST(DoorbellRegistration, AnEventMayBeDroppedAfterRegistering) {
  const Vm vm;
  auto event = Event::Create().value();
  const Event kept = event.Clone().value();
  const auto bell = vm.guest->RegisterDoorbell(kBell, {.length = DoorbellLength::k1}, event).value();
  event = Event::Create().value();
  ASSERT_TRUE(vm.memory.WritePlain<uint8_t>(kBell, 1).ok());
  EXPECT_TRUE(kept.TryWait().value());
}

// Bells come and go under writers; a write while a bell is registered must not be stored, one while none is must be.
TEST(DoorbellRegistration, WritersSeeEachRegistrationAndEachEnd) {
  const Bells vm;
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      EXPECT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 7).ok());
      EXPECT_TRUE(vm.Write(kBell - 64, std::vector<uint8_t>(64, 1)));
    }
  });
  for (int i = 0; i < 500; ++i) {
    auto bell = vm.Register(kBell, 7, 4);
    ASSERT_TRUE(vm.memory.WriteAt(kBell + 8, std::as_bytes(std::span("zero"))).ok());
    EXPECT_TRUE(vm.memory.FillAt(kBell, std::byte{0}, 4).ok());  // a miss: stored
    EXPECT_EQ(vm.memory.ReadPlain<uint32_t>(kBell).value(), 0U);
    EXPECT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 7).ok());
    EXPECT_TRUE(vm.event.Wait().ok());
    EXPECT_EQ(vm.memory.ReadPlain<uint32_t>(kBell).value(), 0U);
    bell.reset();
    EXPECT_TRUE(vm.memory.WritePlain<uint32_t>(kBell, 7).ok());
    EXPECT_EQ(vm.memory.ReadPlain<uint32_t>(kBell).value(), 7U);
  }
  stop = true;
  writer.join();
}

TEST(InProcessGuest, LockedPagesAreNotTakenAwayNorRefused) {
  const Bells vm;
  const File file(2 * kPage);
  const auto [guest, region] = vm.guest->NewRegion(2 * kPage, "bar").value();
  ASSERT_TRUE(region->Map(0, file.fd(), 0, 2 * kPage, true).ok());
  ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
  {
    const uint64_t gpns[] = {2, 9};
    const auto lock = vm.memory.LockGpns(AccessType::kWrite, false, gpns);
    ASSERT_TRUE(lock.ok()) << lock.status().ToString();
    ExpectRefused(guest->UnmapFromGuest(), ErrorKind::kLocked, "there is a lock on page 0x9");
    ExpectRefused(region->Map(kPage, file.fd(), 0, kPage, true), ErrorKind::kLocked, "there is a lock on page 0x9");
    ExpectRefused(region->Unmap(0, 2 * kPage), ErrorKind::kLocked, "there is a lock on page 0x9");
    EXPECT_TRUE(region->Map(0, file.fd(), kPage, kPage, true).ok());  // the page beside it
    EXPECT_EQ(vm.At(9 * kPage + 7), file.At(kPage + 7));
    ExpectRefused(vm.guest->RegisterDoorbell(kBell, {.length = DoorbellLength::k4}, vm.event).status(), ErrorKind::kLocked, "page 0x2");
    ASSERT_TRUE(vm.Write(kBell, {1, 2, 3, 4}));
    EXPECT_FALSE(vm.Rang());
    EXPECT_EQ(vm.At(kBell), 1);
  }
  const auto bell = vm.Register(kBell, std::nullopt, 4);
  EXPECT_TRUE(guest->UnmapFromGuest().ok());
  const uint64_t with_bell[] = {2};
  EXPECT_TRUE(vm.memory.LockGpns(AccessType::kRead, false, with_bell).ok());
  EXPECT_EQ(vm.memory.LockGpns(AccessType::kWrite, false, with_bell).status().kind(), ErrorKind::kNotLockable);
}

TEST(InProcessGuest, WhatIsDroppedWhileLockedStays) {
  const Vm vm;
  const std::vector<std::byte> image(kPage);
  const auto rom = vm.guest->NewRom(image, "bios").value();
  auto part = rom->MapRom(16 * kPage, 0, kPage).value();
  {
    const uint64_t gpns[] = {16};
    const auto lock = vm.memory.LockGpns(AccessType::kRead, false, gpns);
    ASSERT_TRUE(lock.ok());
    part.reset();
  }
  EXPECT_EQ(vm.At(16 * kPage), 0);
  ExpectRefused(vm.guest->AddRam(16 * kPage, kPage), ErrorKind::kInvalidArgument, "'bios' is there");
}

TEST(DoorbellRegistration, AMissOnReadOnlyMemorySaysThatItIs) {
  const Bells vm;
  const std::vector<std::byte> image(kPage);
  const auto part = vm.guest->NewRom(image, "bios").value()->MapRom(16 * kPage, 0, kPage).value();
  const auto bell = vm.Register(16 * kPage, std::nullopt, 4);
  ExpectRefused(vm.memory.WritePlain<uint16_t>(16 * kPage, 1), ErrorKind::kNotMapped, "read-only");
  ExpectRefused(vm.memory.FillAt(16 * kPage, std::byte{1}, 100), ErrorKind::kNotMapped, "read-only");
}

TEST(InProcessGuest, GivesBackAllThatItTook) {
  const std::vector<std::byte> image(kPage);
  const File file(kPage);
  const test::HostState before;
  for (int i = 0; i < 2; ++i) {
    const Bells vm;
    const auto bell = vm.Register(kBell, std::nullopt, 1);
    const auto rom = vm.guest->NewRom(image, "bios").value()->MapRom(16 * kPage, 0, kPage).value();
    const auto [guest, region] = vm.guest->NewRegion(2 * kPage, "bar").value();
    ASSERT_TRUE(region->Map(0, file.fd(), 0, kPage, true).ok());
    ASSERT_TRUE(guest->MapToGuest(8 * kPage, true).ok());
  }
  EXPECT_EQ(test::HostState(), before);
}

}  // namespace
}  // namespace guestmem
