// Locked pages stay as they are: every call of a shipped backing that takes pages away, against every place of a locked page in
// its range, every access type and every way to lock.

#include <gtest/gtest.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/lock.h"
#include "guestmem/shared_backing.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "host_state.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::File;
using test::Ok;
using Gpns = std::vector<uint64_t>;
using Protection = SparseMapping::Protection;

constexpr uint64_t kPages = 12;
constexpr uint64_t kFirst = 2, kCount = 8;  // the pages that are to be changed
constexpr AccessType kAccess[] = {AccessType::kRead, AccessType::kWrite, AccessType::kExecute};

// What can be seen of memory: each page's first and last byte, and whether it can be read and written; and the mappings behind it.
std::string Look(const GuestMemory& memory) {
  std::string seen;
  for (uint64_t page = 0; page < kPages; ++page) {
    const uint64_t gpa = page * kPageSize;
    seen += memory.ProbeWritable(gpa, 1).ok() ? 'w' : memory.ProbeReadable(gpa, 1).ok() ? 'r' : '-';
    seen += std::to_string(memory.ReadPlain<uint8_t>(gpa).value_or(0)) + ',';
    seen += std::to_string(memory.ReadPlain<uint8_t>(gpa + kPageSize - 1).value_or(0)) + ' ';
  }
  return seen;
}

// Memory of which every page is written and a call takes some away.
struct Ram {
  Ram() {
    EXPECT_TRUE(Ok(sparse->Allocate(0, kPages * kPageSize)));
    for (uint64_t page = 0; page < kPages; ++page) {
      EXPECT_TRUE(Ok(memory.FillAt(page * kPageSize, static_cast<std::byte>(0x51 + page), kPageSize)));
    }
  }
  const File file{kPages * kPageSize};
  const std::shared_ptr<SparseMapping> sparse = SparseMapping::Create(kPages * kPageSize).value();
  const std::shared_ptr<AccessBitmap> bits = AccessBitmap::Create("bits", kPages, true).value();
  const GuestMemory memory = GuestMemory::Create("ram", sparse).value();
};

// Its bits are a bitmap's, which locks.
class Guarded final : public SharedBacking<SparseMapping> {
 public:
  Guarded(std::shared_ptr<SparseMapping> ram, std::shared_ptr<AccessBitmap> bits) : SharedBacking(std::move(ram)), bits_(std::move(bits)) {}
  std::optional<BitmapInfo> access_bitmap() const override { return bits_->info(); }
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    Status status = SharedBacking::LockGpns(access, gpns);
    if (status.ok()) {
      status = bits_->Lock(gpns);
    }
    return status;
  }
  void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    EXPECT_TRUE(bits_->Unlock(gpns).ok());
    SharedBacking::UnlockGpns(access, gpns);
  }

 private:
  const std::shared_ptr<AccessBitmap> bits_;
};

struct Call {
  const char* name;
  Status (*run)(Ram& ram, uint64_t offset, uint64_t length);
  bool nodes = false;  // the kernel may have none
};
constexpr Call kCalls[] = {
    {"Allocate", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->Allocate(o, l); }},
    {"MapZero", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->MapZero(o, l); }},
    {"MapFile", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->MapFile(o, l, r.file.fd(), 0, true); }},
    {"ProtectNone", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->Protect(o, l, Protection::kNone); }},
    {"ProtectRead", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->Protect(o, l, Protection::kRead); }},
    {"ProtectReadWrite", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->Protect(o, l, Protection::kReadWrite); }},
    {"Decommit", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->Decommit(o, l); }},
    {"Unmap", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->Unmap(o, l); }},
    {"BindToNode", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->BindToNode(o, l, 0); }, true},
    {"WaitUnlocked", [](Ram& r, uint64_t o, uint64_t l) { return r.sparse->WaitUnlocked(o, l, {}); }},
    {"Revoke",
     [](Ram& r, uint64_t o, uint64_t l) { return r.bits->Revoke({o / kPageSize, l / kPageSize}, kReadAccess); }},
    {"WaitUnlockedOfTheBits",
     [](Ram& r, uint64_t o, uint64_t l) { return r.bits->WaitUnlocked({o / kPageSize, l / kPageSize}, {}); }},
};

// Which pages are locked: the first is the lowest in the changed range, if any is.
struct Place {
  const char* name;
  Gpns gpns;
  std::optional<uint64_t> lowest;
};
const Place kPlaces[] = {
    {"first", {kFirst}, kFirst},
    {"middle", {kFirst + 3}, kFirst + 3},
    {"last", {kFirst + kCount - 1}, kFirst + kCount - 1},
    {"several, the highest first", {kFirst + 6, kFirst + 6, kFirst + 2, kFirst + 4}, kFirst + 2},
    {"both sides of it", {kFirst - 1, kFirst + kCount}, std::nullopt},
    {"none", {}, std::nullopt},
};

// A lock, held until it is dropped.
using Held = std::unique_ptr<detail::Lock>;
template <typename Locked>
Held Hold(Result<Locked> locked) {
  EXPECT_TRUE(Ok(locked.status()));
  return std::make_unique<Locked>(*std::move(locked));
}
struct Way {
  const char* name;
  Held (*lock)(Ram& ram, AccessType access, const Gpns& gpns);
};
Held LockOf(const GuestMemory& memory, AccessType access, const Gpns& gpns) { return Hold(memory.LockGpns(access, false, gpns)); }
Gpns Shifted(Gpns gpns, uint64_t by) {
  for (uint64_t& gpn : gpns) gpn += by;
  return gpns;
}
std::shared_ptr<GuestMemoryAccess> Both(Ram& r) { return std::make_shared<Guarded>(r.sparse, r.bits); }
constexpr Way kWays[] = {
    {"LockGpns", [](Ram& r, AccessType a, const Gpns& g) { return LockOf(GuestMemory::Create("x", Both(r)).value(), a, g); }},
    {"LockRange",
     [](Ram& r, AccessType a, const Gpns& g) {
       const uint64_t length = g.empty() ? 0 : g.size() * kPageSize - 4000;  // the first and last in part
       return Hold(GuestMemory::Create("x", Both(r)).value().LockRange(a, *PagedRange::Create(2000, length, g)));
     }},
    {"through a wrapper",
     [](Ram& r, AccessType a, const Gpns& g) {
       return LockOf(GuestMemory::Create("x", std::make_shared<SharedBacking<>>(Both(r))).value(), a, g);
     }},
    {"through a view",
     [](Ram& r, AccessType a, const Gpns& g) {
       const GuestMemory memory = GuestMemory::Create("x", Both(r)).value();
       return LockOf(memory.LockableSubrange(kPageSize, (kPages - 1) * kPageSize).value(), a, Shifted(g, ~uint64_t{0}));
     }},
    {"in a second region",
     [](Ram& r, AccessType a, const Gpns& g) {
       const auto memory = GuestMemory::CreateMultiRegion("x", 16 * kPageSize, {nullptr, Both(r)}).value();
       return LockOf(memory, a, Shifted(g, 16));
     }},
};

// What BindToNode says where the kernel has no nodes.
bool HasNodes() {
  static const bool has = [] {
    const bool ok = Ram().sparse->BindToNode(0, kPageSize, 0).ok();
    if (!ok) std::puts("note: this kernel binds no memory to NUMA node 0; BindToNode is judged by its refusals alone");
    return ok;
  }();
  return has;
}

class ChangesOfLockedPages : public testing::TestWithParam<Call> {};

TEST_P(ChangesOfLockedPages, AreRefusedNamingTheLowestAndChangeNothing) {
  const Call& call = GetParam();
  for (const Way& way : kWays) {
    for (const Place& place : kPlaces) {
      for (const AccessType access : kAccess) {
        SCOPED_TRACE(std::string(way.name) + ", " + place.name + ", access " + std::to_string(static_cast<int>(access)));
        Ram ram;
        const std::string before = Look(ram.memory);
        Held held = way.lock(ram, access, place.gpns);
        const Status status = call.run(ram, kFirst * kPageSize, kCount * kPageSize);
        if (!place.lowest) {
          EXPECT_TRUE(status.ok() || (call.nodes && !HasNodes())) << status.ToString();
          continue;
        }
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.kind(), ErrorKind::kLocked);
        EXPECT_EQ(status.info().gpn, place.lowest);
        EXPECT_EQ(status.info().range, (AddressRange{kFirst * kPageSize, kCount * kPageSize}));
        EXPECT_EQ(Look(ram.memory), before);
        EXPECT_TRUE(ram.bits->IsAllowed(kFirst, AccessType::kRead));
        // Nothing at all is no page, locked or not; all of it has the same lowest one.
        EXPECT_TRUE(Ok(call.run(ram, *place.lowest * kPageSize, 0)));
        EXPECT_EQ(call.run(ram, 0, kPages * kPageSize).info().gpn, place.lowest);
        EXPECT_EQ(Look(ram.memory), before);
        held.reset();
        const Status after = call.run(ram, kFirst * kPageSize, kCount * kPageSize);
        EXPECT_TRUE(after.ok() || (call.nodes && !HasNodes())) << after.ToString();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, ChangesOfLockedPages, testing::ValuesIn(kCalls),
                         [](const auto& test) { return std::string(test.param.name); });

// Heap and shared memory have no call that takes a page away. Whoever gives them one lets it honour locks, and adds it above.
template <typename T>
concept TakesPages = requires(T t) { t.Unmap(0, 0); } || requires(T t) { t.Decommit(0, 0); } || requires(T t) { t.Allocate(0, 0); } ||
                     requires(T t) { t.MapZero(0, 0); } || requires(T t) { t.Protect(0, 0, Protection::kNone); } ||
                     requires(T t) { t.Discard(0, 0); };
static_assert(TakesPages<SparseMapping> && !TakesPages<SharedMemory> && !TakesPages<AlignedHeapMemory>);

// A region's calls, wherever in it the locked page lies; the lock is the guest's.
TEST(LockedPages, OfARegionInTheGuestStayAsTheyAre) {
  constexpr uint64_t kRegion = 16, kLength = 4;
  const File file(kLength * kPageSize);
  for (const AccessType access : kAccess) {
    for (uint64_t place = 0; place < kLength; ++place) {
      const auto guest = InProcessGuest::Create("vm", 32 * kPageSize).value();
      const GuestMemory memory = GuestMemory::Create("vm", guest).value();
      const auto [shown, region] = guest->NewRegion(kLength * kPageSize, "bar").value();
      ASSERT_TRUE(Ok(region->Map(0, file.fd(), 0, kLength * kPageSize, true)));
      ASSERT_TRUE(Ok(shown->MapToGuest(kRegion * kPageSize, true)));
      const Event event = Event::Create().value();
      {
        const Held held = LockOf(memory, access, {kRegion + place});
        for (const Status& status :
             {region->Map(0, file.fd(), 0, kLength * kPageSize, false), region->Unmap(0, kLength * kPageSize), shown->UnmapFromGuest(),
              guest->RegisterDoorbell((kRegion + place) * kPageSize, {.length = DoorbellLength::k4}, event).status()}) {
          ASSERT_FALSE(status.ok());
          EXPECT_EQ(status.kind(), ErrorKind::kLocked);
          EXPECT_EQ(status.info().gpn, kRegion + place);
        }
        for (uint64_t page = 0; page < kLength; ++page) {
          EXPECT_TRUE(Ok(memory.ProbeWritable((kRegion + page) * kPageSize, kPageSize)));
          EXPECT_EQ(memory.ReadPlain<uint8_t>((kRegion + page) * kPageSize).value(), File::Byte(page * kPageSize));
        }
      }
      EXPECT_TRUE(Ok(region->Unmap(0, kLength * kPageSize)));
      EXPECT_TRUE(Ok(shown->UnmapFromGuest()));
    }
  }
}

// Arguments are looked at first, and advice takes nothing away.
TEST(LockedPages, WrongArgumentsAreNoQuestionOfLocks) {
  Ram ram;
  const Held held = LockOf(ram.memory, AccessType::kWrite, {kFirst});
  for (const Call& call : kCalls) {
    const bool of_bits = std::string(call.name).find("Revoke") == 0 || std::string(call.name).find("OfTheBits") != std::string::npos;
    EXPECT_EQ(call.run(ram, 0, (kPages + 1) * kPageSize).kind(), ErrorKind::kInvalidArgument) << call.name;
    if (!of_bits) {
      EXPECT_EQ(call.run(ram, kFirst * kPageSize + 1, kPageSize).kind(), ErrorKind::kInvalidArgument) << call.name;
    }
  }
  EXPECT_EQ(ram.sparse->MapFile(0, kPages * kPageSize, ram.file.fd(), 1, true).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(ram.sparse->BindToNode(0, kPages * kPageSize, 1024).kind(), ErrorKind::kInvalidArgument);
  (void)ram.sparse->AdviseHugePages(0, kPages * kPageSize, SparseMapping::HugePages::kRefused);
  EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(kFirst * kPageSize).value(), 0x51 + kFirst);
}

TEST(LockedPages, SaysWhatIsLockedAndWhere) {
  Ram ram;
  const Held held = LockOf(ram.memory, AccessType::kRead, {5, 3});
  EXPECT_EQ(ram.sparse->Unmap(kPageSize, 8 * kPageSize).ToString(),
            "guest memory 'sparse mapping': revoke error: failed to access 0x1000-0x9000: there is a lock on page 0x3");
}

// A page that no lock has found in order may be populated, in whatever way: its lock is about to fail.
TEST(LockedPages, PopulatingAPageThatIsNotThereStaysAllowed) {
  const File file(kPageSize);
  const std::array<uint64_t, 2> gpns = {0, 1};
  for (const auto& populate : std::vector<std::function<Status(SparseMapping&)>>{
           [](SparseMapping& m) { return m.Allocate(0, kPageSize); },
           [](SparseMapping& m) { return m.MapZero(0, kPageSize); },
           [&](SparseMapping& m) { return m.MapFile(0, kPageSize, file.fd(), 0, true); },
           [](SparseMapping& m) { return m.Protect(0, kPageSize, Protection::kReadWrite); },
       }) {
    const auto ram = SparseMapping::Create(2 * kPageSize).value();
    ASSERT_TRUE(Ok(ram->LockGpns(AccessType::kRead, gpns)));
    ASSERT_TRUE(Ok(populate(*ram)));
    EXPECT_EQ(populate(*ram).info().gpn, 0u) << "now it is there";
    EXPECT_TRUE(Ok(ram->Allocate(kPageSize, kPageSize)));
    ram->UnlockGpns(AccessType::kRead, gpns);
    EXPECT_TRUE(Ok(populate(*ram)));
  }
}

// Two threads lock lazily populated pages; whoever meets a hole fills it. Neither may be refused because of the other's count.
TEST(LockedPages, LocksOfLazyMemoryDoNotRefuseEachOther) {
  class Lazy final : public SharedBacking<SparseMapping> {
   public:
    using SharedBacking::SharedBacking;
    PageFaultAction PageFault(const PageFaultInfo& fault) override {
      const std::lock_guard lock(filling_);
      const uint64_t page = fault.address / kPageSize;
      if (!there_[page]) {
        if (Status status = inner()->Allocate(page * kPageSize, kPageSize); !status.ok()) {
          return PageFaultAction::Fail(std::move(status));
        }
        there_[page] = true;
      }
      return PageFaultAction::Retry();
    }

   private:
    std::mutex filling_;
    std::array<bool, kPages> there_ = {};
  };
  for (int round = 0; round < 50; ++round) {
    const GuestMemory memory =
        GuestMemory::Create("lazy", std::make_shared<Lazy>(SparseMapping::Create(kPages * kPageSize).value())).value();
    const auto lock_all = [&](bool up) {
      Gpns gpns;
      for (uint64_t i = 0; i < kPages; ++i) gpns.push_back(up ? i : kPages - 1 - i);
      EXPECT_TRUE(Ok(memory.LockGpns(AccessType::kWrite, false, gpns).status()));
    };
    std::thread other(lock_all, true);
    lock_all(false);
    other.join();
  }
}

// One thread locks a page and uses it, another takes it away and gives it back: while it is locked, it is there.
TEST(LockedPages, AreThereWhileOthersTryToTakeThem) {
  Ram ram;
  std::atomic<bool> stop = false;
  std::thread changer([&] {
    while (!stop) {
      if (ram.sparse->Unmap(3 * kPageSize, kPageSize).ok()) {
        EXPECT_TRUE(Ok(ram.sparse->Allocate(3 * kPageSize, kPageSize)));
      }
    }
  });
  int locked = 0;
  for (int i = 0; i < 3000 || locked == 0; ++i) {
    const auto lock = ram.memory.LockGpns(AccessType::kWrite, false, Gpns{3});
    if (!lock.ok()) {
      EXPECT_EQ(lock.status().kind(), ErrorKind::kNotMapped);
      continue;
    }
    ++locked;
    ASSERT_TRUE(Ok(lock->spans()[0].Fill(static_cast<std::byte>(i))));
    ASSERT_EQ(lock->spans()[0].At(kPageSize - 1).load(), static_cast<uint8_t>(i)) << "replaced while it was locked";
  }
  stop = true;
  changer.join();
}

// The kernel was given the page, and every call then tried to take it away.
TEST(LockedPages, AreThereForTheKernelThatWasGivenThem) {
  Ram ram;
  const auto locked = ram.memory.LockGpns(AccessType::kWrite, true, Gpns{3}).value();
  for (const Call& call : kCalls) {
    (void)call.run(ram, 3 * kPageSize, kPageSize);
    ASSERT_EQ(preadv(ram.file.fd(), locked.iovecs().data(), 1, kPageSize), static_cast<ssize_t>(kPageSize)) << call.name;
    EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(3 * kPageSize + 5).value(), File::Byte(kPageSize + 5)) << call.name;
  }
}

// What a lock holds outlives every handle.
TEST(LockedPages, KeepTheMappingWithoutAHandle) {
  Held held;
  std::weak_ptr<SparseMapping> sparse;
  {
    Ram ram;
    sparse = ram.sparse;
    held = Hold(GuestMemory::Create("x", ram.sparse).value().LockGpns(AccessType::kWrite, false, Gpns{4}));
  }
  EXPECT_FALSE(sparse.expired());
  EXPECT_EQ(held->spans()[0].At(0).load(), 0x55);
  EXPECT_EQ(sparse.lock()->Unmap(0, kPages * kPageSize).info().gpn, 4u);
  held.reset();
  EXPECT_TRUE(sparse.expired());
}

}  // namespace
}  // namespace guestmem
