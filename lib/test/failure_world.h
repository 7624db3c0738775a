// What the failure loops have in common: a world that calls work on, and the calls that need something of the host.

#ifndef GUESTMEM_LIB_TEST_FAILURE_WORLD_H_
#define GUESTMEM_LIB_TEST_FAILURE_WORLD_H_

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/paged_range.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/stream.h"
#include "host_state.h"
#include "pages.h"

namespace guestmem::test {

// While one lives, nothing fails: what a scenario itself does is not what is tested.
inline int g_paused = 0;
struct Paused {
  Paused() { ++g_paused; }
  ~Paused() { --g_paused; }
};

// What calls work on, and what they make.
struct World {
  static constexpr uint64_t kSize = 4 * kPage;
  World() {
    Require(ram->Allocate(0, kSize));
    Require(memory.FillAt(0, std::byte{7}, kSize));
    Require(guest->AddRam(0, kPage));
    Require(vm.FillAt(0, std::byte{7}, kPage));
    Require(region.region->Map(0, file.fd(), 0, kPage, true));
    Require(region.region->Map(2 * kPage, file.fd(), kPage, kPage, true));
    Require(shown.region->Map(0, file.fd(), 0, 2 * kPage, true));
    Require(shown.guest->MapToGuest(16 * kPage, true));
    // What the counts of locks take once stays: page_locks_test.cc.
    for (const GuestMemory& lockable : {memory, vm}) {
      Require(lockable.LockGpns(AccessType::kRead, false, std::array<uint64_t, 1>{0}).status());
    }
    event.Signal();
  }
  static void Require(const Status& status) { ASSERT_TRUE(status.ok()) << status.ToString(); }

  // SPEC 4: whatever failed, memory is what it was.
  void ExpectUnchanged() const {
    for (uint64_t gpa = 0; gpa < kSize; gpa += kPage / 2) {
      EXPECT_EQ(memory.ReadPlain<uint8_t>(gpa).value_or(0), 7);
    }
    EXPECT_TRUE(memory.ProbeWritable(0, kSize).ok());
    EXPECT_TRUE(vm.ProbeWritable(0, kPage).ok());
    EXPECT_EQ(vm.ReadPlain<uint8_t>(0).value_or(0), 7);
    EXPECT_EQ(vm.ProbeReadable(kPage, 1).kind(), ErrorKind::kNotMapped);
    EXPECT_EQ(vm.ProbeReadable(8 * kPage, 1).kind(), ErrorKind::kNotMapped);
    EXPECT_EQ(vm.ReadPlain<uint8_t>(16 * kPage + 3).value_or(0), file.At(3));
    EXPECT_EQ(vm.ReadPlain<uint8_t>(17 * kPage + 3).value_or(0), file.At(kPage + 3));
    EXPECT_EQ(guest->access_bitmap()->write[0] & guest->access_bitmap()->write[1], 0xff);
  }

  const File file{2 * kPage}, other_file{2 * kPage};
  const std::shared_ptr<SparseMapping> ram = SparseMapping::Create(kSize).value();
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  const std::shared_ptr<InProcessGuest> guest = InProcessGuest::Create("vm", 32 * kPage).value();
  const GuestMemory vm = GuestMemory::Create("vm", guest).value();
  const NewMemoryRegion region = guest->NewRegion(3 * kPage, "region").value();
  const NewMemoryRegion shown = guest->NewRegion(2 * kPage, "shown").value();
  const std::shared_ptr<RomMapper> rom = guest->NewRom(std::vector<std::byte>(kPage), "rom").value();
  Event event = Event::Create().value();
  const std::vector<std::byte> image = std::vector<std::byte>(kPage);
  std::shared_ptr<void> kept;
};

// What the call made lives as long as the world: dropping it here would make host calls too.
template <typename T>
Status Keep(World& world, Result<T> result) {
  const Paused paused;
  Status status = result.status();
  if (status.ok()) {
    world.kept = std::make_shared<Result<T>>(std::move(result));
  }
  return status;
}

struct Scenario {
  const char* name;
  std::function<Status(World&)> call;
  int host_calls;  // at least: else the loop says nothing
};
inline void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

inline constexpr uint64_t kSize = World::kSize;
inline constexpr uint64_t kGpns[] = {2, 0, 1};

inline PagedRange Range() { return PagedRange::Create(100, 2 * kPage, kGpns).value(); }

inline const Scenario kScenarios[] = {
    {"SparseMappingCreate", [](World& w) { return Keep(w, SparseMapping::Create(3 << 20)); }, 1},
    {"Allocate", [](World& w) { return w.ram->Allocate(kPage, 2 * kPage); }, 1},
    {"MapZero", [](World& w) { return w.ram->MapZero(kPage, 2 * kPage); }, 1},
    {"MapFile", [](World& w) { return w.ram->MapFile(kPage, 2 * kPage, w.file.fd(), 0, true); }, 2},
    {"Protect", [](World& w) { return w.ram->Protect(0, kSize, SparseMapping::Protection::kRead); }, 1},
    {"Decommit", [](World& w) { return w.ram->Decommit(0, kSize); }, 1},
    {"Unmap", [](World& w) { return w.ram->Unmap(0, kSize); }, 1},
    {"AlignedHeapMemoryCreate", [](World& w) { return Keep(w, AlignedHeapMemory::Create(kSize)); }, 1},
    {"SharedMemoryCreate", [](World& w) { return Keep(w, SharedMemory::Create(3 << 20)); }, 5},
    {"GuestMemoryAllocate", [](World& w) { return Keep(w, GuestMemory::Allocate(kSize)); }, 1},
    {"GuestMemoryOfTwoBackings",
     [](World& w) {
       auto first = SharedMemory::Create(kPage);
       if (!first.ok()) {
         return first.status();
       }
       auto second = AlignedHeapMemory::Create(kPage);
       if (!second.ok()) {
         return second.status();
       }
       const auto backings = [&] {
         const Paused paused;
         return std::vector<std::shared_ptr<GuestMemoryAccess>>{*first, *second};
       }();
       return Keep(w, GuestMemory::CreateMultiRegion("two", kPage, backings));
     },
     6},
    {"ReadOverItself",
     [](World& w) { return w.memory.ReadAt(100, {w.ram->mapping() + 50, 3 * kPage}); },
     1},
    {"WriteOverItself",
     [](World& w) { return w.memory.WriteAt(100, {w.ram->mapping() + 50, 3 * kPage}); },
     1},
    {"CopyOfALockedSpanOverItself",
     [](World& w) {
       auto locked = w.memory.LockRange(AccessType::kWrite, Range());
       return locked.ok() ? locked->spans()[1].CopyTo({w.ram->mapping() + 50, locked->spans()[1].size()}) : locked.status();
     },
     2},
    {"ReadArray",
     [](World& w) {
       PagedReader reader(w.memory, Range());
       const Status status = reader.ReadArray<uint32_t>(1000).status();
       EXPECT_EQ(reader.remaining(), status.ok() ? 2 * kPage - 4000 : 2 * kPage);
       return status;
     },
     1},
    {"ReadAll", [](World& w) { return PagedReader(w.memory, Range()).ReadAll().status(); }, 1},
    {"LockGpns", [](World& w) { return Keep(w, w.memory.LockGpns(AccessType::kWrite, true, kGpns)); }, 1},
    {"LockRange", [](World& w) { return Keep(w, w.memory.LockRange(AccessType::kRead, Range())); }, 1},
    {"LockGpnsOfTheGuest",
     [](World& w) { return Keep(w, w.vm.LockGpns(AccessType::kRead, false, std::array<uint64_t, 2>{0, 16})); },
     1},
    {"AccessBitmapCreate", [](World& w) { return Keep(w, AccessBitmap::Create("bits", 1000, true)); }, 1},
    {"EventCreate", [](World& w) { return Keep(w, Event::Create()); }, 1},
    {"EventClone", [](World& w) { return Keep(w, w.event.Clone()); }, 1},
    {"EventWait", [](World& w) { return w.event.Wait(); }, 1},
    {"EventTryWait", [](World& w) { return Keep(w, w.event.TryWait()); }, 1},
    {"InProcessGuestCreate", [](World& w) { return Keep(w, InProcessGuest::Create("other", 1 << 30)); }, 2},
    {"AddRam", [](World& w) { return w.guest->AddRam(8 * kPage, kPage); }, 1},
    {"NewRom", [](World& w) { return Keep(w, w.guest->NewRom(w.image, "other")); }, 5},
    {"MapRom", [](World& w) { return Keep(w, w.rom->MapRom(8 * kPage, 0, kPage)); }, 2},
    {"MapToGuest", [](World& w) { return w.region.guest->MapToGuest(8 * kPage, true); }, 4},
    {"UnmapFromGuest", [](World& w) { return w.shown.guest->UnmapFromGuest(); }, 1},
    {"RegionMap", [](World& w) { return w.region.region->Map(kPage, w.other_file.fd(), 0, 2 * kPage, true); }, 4},
    {"RegionMapInGuest", [](World& w) { return w.shown.region->Map(0, w.other_file.fd(), kPage, kPage, true); }, 6},
    {"RegionMapOfAFileThatItHas", [](World& w) { return w.shown.region->Map(0, w.file.fd(), kPage, kPage, true); }, 5},
    {"RegionUnmapInGuest", [](World& w) { return w.shown.region->Unmap(0, kPage); }, 1},
    {"RegisterDoorbell",
     [](World& w) { return Keep(w, w.guest->RegisterDoorbell(8, {.length = DoorbellLength::k4}, w.event)); },
     1},
};

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_FAILURE_WORLD_H_
