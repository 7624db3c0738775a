// Failure loops over operator new: for every public call, let the first allocation fail, then the second, and so on until the call
// makes fewer; once alone, and once with all that follow. Each time: no exception, the error that there would have been or
// kResourceExhausted, nothing leaked, nothing changed, and the same call works afterwards.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "failure_world.h"
#include "guestmem/address_space.h"
#include "guestmem/fault.h"
#include "guestmem/rcu.h"
#include "guestmem/shared_backing.h"

namespace {

// Atomic because gtest and the library have threads of their own; only one of them is armed.
std::atomic<long> g_live{0};
thread_local int g_left = -1;  // allocations until one fails; -1: none will
thread_local bool g_forever = false;
thread_local bool g_failed = false;

void* Allocate(size_t size, size_t alignment) {
  if (g_left >= 0 && guestmem::test::g_paused == 0) {
    if (g_left == 0) {
      g_left = g_forever ? 0 : -1;
      g_failed = true;
      return nullptr;
    }
    --g_left;
  }
  void* const memory = alignment == 0 ? std::malloc(size == 0 ? 1 : size)
                                      : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  g_live += memory != nullptr;
  return memory;
}

void* AllocateOrThrow(size_t size, size_t alignment) {
  void* const memory = Allocate(size, alignment);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

void Deallocate(void* memory) {
  g_live -= memory != nullptr;
  std::free(memory);
}

size_t Bytes(std::align_val_t alignment) { return static_cast<size_t>(alignment); }

}  // namespace

void* operator new(size_t n) { return AllocateOrThrow(n, 0); }
void* operator new[](size_t n) { return AllocateOrThrow(n, 0); }
void* operator new(size_t n, const std::nothrow_t&) noexcept { return Allocate(n, 0); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return Allocate(n, 0); }
void* operator new(size_t n, std::align_val_t a) { return AllocateOrThrow(n, Bytes(a)); }
void* operator new[](size_t n, std::align_val_t a) { return AllocateOrThrow(n, Bytes(a)); }
void* operator new(size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return Allocate(n, Bytes(a)); }
void* operator new[](size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return Allocate(n, Bytes(a)); }
void operator delete(void* p) noexcept { Deallocate(p); }
void operator delete[](void* p) noexcept { Deallocate(p); }
void operator delete(void* p, size_t) noexcept { Deallocate(p); }
void operator delete[](void* p, size_t) noexcept { Deallocate(p); }
void operator delete(void* p, std::align_val_t) noexcept { Deallocate(p); }
void operator delete[](void* p, std::align_val_t) noexcept { Deallocate(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { Deallocate(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { Deallocate(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { Deallocate(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { Deallocate(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { Deallocate(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { Deallocate(p); }

namespace guestmem {
namespace {

using test::HostState;
using test::Keep;
using test::kGpns;
using test::kPage;
using test::kSize;
using test::Paused;
using test::Range;
using test::World;

// While it lives, the n-th allocation of this thread fails, and `forever` all that follow.
class FailNth {
 public:
  FailNth(int n, bool forever) {
    g_forever = forever;
    g_failed = false;
    g_left = n - 1;
  }
  ~FailNth() { g_left = -1; }
  bool happened() const { return g_failed; }
};

struct Call {
  const char* name;
  std::optional<ErrorKind> expected;  // none: it succeeds
  std::function<Status(World&)> call;
};
void PrintTo(const Call& call, std::ostream* out) { *out << call.name; }

constexpr uint64_t kBeyond = uint64_t{1} << 40;
constexpr char kLongName[] = "a name that is longer than what an error keeps without memory";
constexpr auto kOut = ErrorKind::kOutOfRange;
constexpr auto kMisuse = ErrorKind::kInvalidArgument;
std::array<std::byte, 3 * kPage> g_bytes;
std::array<std::atomic<uint8_t>, 64> g_atomic;

// Of a test, so not in the way of what is tested.
template <typename Make>
auto Prepared(Make make) {
  const Paused paused;
  return make();
}

// Memory without a page, whose handler is a function.
class Handled final : public SharedBacking<SparseMapping> {
 public:
  using Handler = PageFaultAction (*)(const PageFaultInfo&);
  explicit Handled(Handler handler) : SharedBacking(SparseMapping::Create(2 * kPage).value()), handler_(handler) {}
  PageFaultAction PageFault(const PageFaultInfo& fault) override { return handler_(fault); }

 private:
  const Handler handler_;
};

// The status of a read that the handler was asked about.
Status ReadOf(Handled::Handler handler) {
  const GuestMemory memory = Prepared([&] { return GuestMemory::Create("ram", std::make_shared<Handled>(handler)).value(); });
  return memory.ReadAt(kPage - 8, std::span(g_bytes).first(16));
}

// An address space of a slot at 0 and one behind it, which is locked.
struct SmallSpace {
  explicit SmallSpace(World& w) {
    World::Require(space->Add({.gpa = 0, .size = kPage, .backing = w.ram, .name = kLongName}));
    World::Require(space->Add({.gpa = kPage, .size = 2 * kPage, .backing = w.ram, .backing_offset = kPage}));
    lock = space->memory().LockGpns(AccessType::kRead, false, std::array{uint64_t{2}}).value();
  }
  // What was said must be so.
  Status Has(uint64_t gpa, bool expected, Status status) const {
    const Paused paused;
    EXPECT_EQ(space->memory().ReadPlain<uint8_t>(gpa).ok(), status.ok() ? expected : !expected);
    return status;
  }
  const std::unique_ptr<AddressSpace> space = AddressSpace::Create("small").value();
  AddressSpaceListener listener;
  AddressSpace::Registration registration;
  LockedPages lock;
};
SmallSpace& SpaceOf(World& w) {
  const Paused paused;
  if (w.kept == nullptr) {
    w.kept = std::make_shared<SmallSpace>(w);
  }
  return *static_cast<SmallSpace*>(w.kept.get());
}

std::vector<Call> Calls() {
  std::vector<Call> calls;
  for (const test::Scenario& scenario : test::kScenarios) {
    calls.push_back({scenario.name, std::nullopt, scenario.call});
  }
  const std::vector<Call> more = {
      // Making things, with a name that does not fit where short ones are kept.
      {"CreateByALongName", {}, [](World& w) { return Keep(w, GuestMemory::Create(kLongName, w.ram)); }},
      {"CreateMultiRegionByALongName", {},
       [](World& w) {
         const auto backings = Prepared([&] { return std::vector<std::shared_ptr<GuestMemoryAccess>>{w.ram, nullptr, w.ram}; });
         return Keep(w, GuestMemory::CreateMultiRegion(kLongName, 8 * kPage, backings));
       }},
      {"CreateOfNothing", kMisuse, [](World&) { return GuestMemory::Create("none", nullptr).status(); }},
      {"CreateMultiRegionMisaligned", kMisuse, [](World&) { return GuestMemory::CreateMultiRegion("two", 5, {}).status(); }},
      {"CreateMultiRegionTooMany", kMisuse,
       [](World&) {
         const auto backings = Prepared([] { return std::vector<std::shared_ptr<GuestMemoryAccess>>(3); });
         return GuestMemory::CreateMultiRegion("three", uint64_t{1} << 62, backings).status();
       }},
      {"AllocateTooMuch", kMisuse, [](World&) { return GuestMemory::Allocate(~uint64_t{0}).status(); }},
      {"DefaultAndEmpty", {},
       [](World&) {
         GuestMemory memory, other = GuestMemory::Empty();
         memory = std::move(other);
         return other.ReadAt(0, {});
       }},
      {"EmptyRefuses", kOut, [](World&) { return GuestMemory().ReadPlain<uint8_t>(0).status(); }},
      {"CopyAndMove", {},
       [](World& w) {
         GuestMemory copy = w.memory;
         GuestMemory moved = std::move(copy);
         copy = moved;
         return copy.ProbeReadable(0, 1);
       }},
      {"SparseMappingTooLarge", kMisuse, [](World&) { return SparseMapping::Create(~uint64_t{0}).status(); }},
      {"SharedMemoryTooLarge", kMisuse, [](World&) { return SharedMemory::Create(~uint64_t{0}).status(); }},
      {"HeapTooLarge", kMisuse, [](World&) { return AlignedHeapMemory::Create(~uint64_t{0}).status(); }},
      {"AccessBitmapByALongName", {}, [](World& w) { return Keep(w, AccessBitmap::Create(kLongName, 1000, true)); }},
      {"AccessBitmapTooLarge", kMisuse, [](World&) { return AccessBitmap::Create("bits", ~uint64_t{0}, true).status(); }},
      {"InProcessGuestByALongName", {}, [](World& w) { return Keep(w, InProcessGuest::Create(kLongName, kPage)); }},
      {"NewRegionByALongName", {}, [](World& w) { return Keep(w, w.guest->NewRegion(kPage, kLongName)); }},
      {"NewRomByALongName", {}, [](World& w) { return Keep(w, w.guest->NewRom(w.image, kLongName)); }},
      {"MisuseByALongName", kMisuse, [](World&) { return AccessBitmap::Create(kLongName, ~uint64_t{0}, true).status(); }},
      {"CreateOfNothingByALongName", kMisuse, [](World&) { return GuestMemory::Create(kLongName, nullptr).status(); }},
      {"NewRegionOfNothingByALongName", kMisuse, [](World& w) { return w.guest->NewRegion(0, kLongName).status(); }},
      {"InProcessGuestOfNothing", kMisuse, [](World&) { return InProcessGuest::Create("none", 0).status(); }},
      {"NewRomOfNothing", kMisuse, [](World& w) { return w.guest->NewRom({}, "none").status(); }},
      {"InstallFaultHandler", {}, [](World&) { return InstallFaultHandler(); }},
      {"WrapABacking", {},
       [](World& w) {
         SharedBacking<SparseMapping> wrapped(w.ram);
         return wrapped.sharing().status();
       }},
      {"Sharing", {},
       [](World& w) {
         if (w.kept == nullptr) {
           const Paused paused;
           w.kept = std::make_shared<GuestMemory>(GuestMemory::Create("shared", SharedMemory::Create(kPage).value()).value());
         }
         return static_cast<GuestMemory*>(w.kept.get())->sharing().status();
       }},
      // Accesses that fail.
      {"ReadAtBeyond", kOut, [](World& w) { return w.memory.ReadAt(kBeyond, g_bytes); }},
      {"WriteAtBeyond", kOut, [](World& w) { return w.memory.WriteAt(kBeyond, g_bytes); }},
      {"FillAtBeyond", kOut, [](World& w) { return w.memory.FillAt(kBeyond, std::byte{1}, 9); }},
      {"ReadToAtomicBeyond", kOut, [](World& w) { return w.memory.ReadToAtomic(kBeyond, g_atomic); }},
      {"WriteFromAtomicBeyond", kOut, [](World& w) { return w.memory.WriteFromAtomic(kBeyond, g_atomic); }},
      {"ReadPlainBeyond", kOut, [](World& w) { return w.memory.ReadPlain<uint32_t>(kBeyond).status(); }},
      {"WritePlainBeyond", kOut, [](World& w) { return w.memory.WritePlain<uint32_t>(kBeyond, 1); }},
      {"CompareExchangeMisaligned", ErrorKind::kMisaligned,
       [](World& w) { return w.memory.CompareExchange<uint32_t>(2, 0, 1).status(); }},
      {"CompareExchangeOfThree", kMisuse,
       [](World& w) { return w.memory.CompareExchangeBytes(0, std::span(g_bytes).first(3), std::span(g_bytes).first(3)).status(); }},
      {"ProbesBeyond", kOut,
       [](World& w) {
         const Status status = w.memory.ProbeWritable(kBeyond, 1);
         return status.kind() == kOut && w.memory.ProbeExecutable(kBeyond, 1).kind() == kOut ? w.memory.ProbeReadable(kBeyond, 1)
                                                                                          : status;
       }},
      {"ProbeGpnsInvalid", ErrorKind::kInvalidGpn,
       [](World& w) { return w.memory.ProbeGpns(std::array{uint64_t{0}, ~uint64_t{0}}); }},
      {"ReadRangeOfAnotherLength", kMisuse, [](World& w) { return w.memory.ReadRange(Range(), g_bytes); }},
      {"WriteRangeBeyond", kOut,
       [](World& w) {
         static constexpr uint64_t gpns[] = {0, kBeyond / kPage};
         return w.memory.WriteRange(*PagedRange::Create(kPage - 8, 16, gpns), std::span(g_bytes).first(16));
       }},
      {"FillRangesInvalid", ErrorKind::kInvalidGpn,
       [](World& w) {
         static constexpr uint64_t gpns[] = {~uint64_t{0}};
         const std::array members = {*PagedRange::Create(0, 16, gpns)};
         return w.memory.FillRange(*PagedRanges::Create(members), std::byte{7});
       }},
      {"ReadOfAHole", ErrorKind::kNotMapped,
       [](World& w) { return w.vm.ReadAt(kPage, g_bytes); }},
      {"WriteOfARom", ErrorKind::kNotMapped,
       [](World& w) {
         const auto mapped = Prepared([&] { return w.rom->MapRom(8 * kPage, 0, kPage).value(); });
         return w.vm.WritePlain<uint64_t>(8 * kPage, 1);
       }},
      {"HandlersOwnKind", ErrorKind::kLocked,
       [](World&) {
         return ReadOf([](const PageFaultInfo&) {
           return PageFaultAction::Fail(MakeStatus({.kind = ErrorKind::kLocked, .gpn = 1}, "a text that takes memory of its own"));
         });
       }},
      {"HandlersOwnError", ErrorKind::kBackend,
       [](World&) {
         return ReadOf([](const PageFaultInfo&) { return PageFaultAction::Fail(BackendError(StatusCode::kAborted, kLongName)); });
       }},
      {"NoFallback", ErrorKind::kNoFallback,
       [](World&) { return ReadOf([](const PageFaultInfo&) { return PageFaultAction::Fallback(); }); }},
      // Views and locks.
      {"Subrange", {}, [](World& w) { return Keep(w, w.memory.Subrange(8, 8)); }},
      {"SubrangeOfASubrange", {},
       [](World& w) {
         auto view = w.memory.Subrange(8, 80);
         return view.ok() ? Keep(w, view.value().Subrange(8, 8)) : view.status();
       }},
      {"LockableSubrange", {}, [](World& w) { return Keep(w, w.memory.LockableSubrange(kPage, kPage)); }},
      {"SubrangeBeyond", kOut, [](World& w) { return w.memory.Subrange(kBeyond, 8).status(); }},
      {"LockableSubrangeInsideAPage", ErrorKind::kNotLockable,
       [](World& w) {
         const Status status = w.memory.LockableSubrange(8, 8).status();
         // Making the view comes first.
         return status.kind() == ErrorKind::kResourceExhausted ? MakeStatus({.kind = ErrorKind::kNotLockable}) : status;
       }},
      {"LockGpnsBeyond", kOut,
       [](World& w) { return w.memory.LockGpns(AccessType::kRead, true, std::array{kBeyond / kPage}).status(); }},
      {"LockGpnsInvalid", ErrorKind::kInvalidGpn,
       [](World& w) { return w.memory.LockGpns(AccessType::kRead, true, std::array{~uint64_t{0}}).status(); }},
      {"LockOfAHole", ErrorKind::kNotMapped,
       [](World& w) { return w.vm.LockGpns(AccessType::kRead, true, std::array{uint64_t{0}, uint64_t{2}}).status(); }},
      {"LockOfEmpty", ErrorKind::kNotLockable,
       [](World&) { return GuestMemory().LockGpns(AccessType::kRead, true, kGpns).status(); }},
      {"LockedSpanBeyond", kMisuse,
       [](World& w) {
         const auto locked = w.memory.LockGpns(AccessType::kWrite, true, kGpns);
         return locked.ok() ? locked->spans()[0].CopyTo(std::span(g_bytes).first(16), kPage) : locked.status();
       }},
      {"LockedSpans", {},
       [](World& w) {
         const auto locked = w.memory.LockRange(AccessType::kWrite, Range());
         return locked.ok() ? locked->spans()[0].Fill(std::byte{7}) : locked.status();
       }},
      // Streams.
      {"SpanReaderPastItsEnd", kOut, [](World&) { return SpanReader(std::span<const std::byte>(g_bytes)).Skip(kBeyond); }},
      {"SpanWriterPastItsEnd", kOut, [](World&) { return SpanWriter(std::span(g_bytes)).Zero(kBeyond); }},
      {"PagedReaderPastItsEnd", kOut, [](World& w) { return PagedReader(w.memory, Range()).Read(g_bytes); }},
      {"PagedWriterPastItsEnd", kOut, [](World& w) { return PagedWriter(w.memory, Range()).Write(g_bytes); }},
      {"LimitPastItsEnd", kOut,
       [](World& w) {
         PagedReader reader(w.memory, Range());
         LimitedReader limited(reader, 4);
         return limited.ReadArray<uint64_t>(99).status();
       }},
      {"ReadArrayOfMoreThanThereIs", kOut,
       [](World& w) { return PagedReader(w.memory, Range()).ReadArray<uint64_t>(~uint64_t{0}).status(); }},
      // What the made things do.
      {"MisusesOfSparseMapping", kMisuse, [](World& w) { return w.ram->Allocate(1, 1); }},
      {"NoSuchNode", kMisuse, [](World& w) { return w.ram->BindToNode(0, kPage, 1u << 20); }},
      {"MapABadDescriptor", kMisuse, 
       [](World& w) {
         const Status status = w.ram->MapFile(0, kPage, -1, 0, true);
         // Noting what is to be there comes first.
         return status.kind() == ErrorKind::kResourceExhausted ? MakeStatus({.kind = kMisuse}) : status;
       }},
      {"RevokeBeyond", kMisuse,
       [](World& w) {
         w.kept = Prepared([] { return AccessBitmap::Create("bits", 8, true).value(); });
         return std::static_pointer_cast<AccessBitmap>(w.kept)->Revoke({8, 1}, kAllAccess);
       }},
      {"LockAndUnlockBits", {},
       [](World& w) {
         w.kept = Prepared([] { return AccessBitmap::Create("bits", 8, true).value(); });
         auto& bits = *static_cast<AccessBitmap*>(w.kept.get());
         Status status = bits.Lock(kGpns);
         return status.ok() ? bits.Unlock(kGpns) : status;
       }},
      {"RevokeLocked", ErrorKind::kLocked,
       [](World& w) {
         w.kept = Prepared([] {
           auto bits = AccessBitmap::Create("bits", 8, true).value();
           EXPECT_TRUE(bits->Lock(kGpns).ok());
           return bits;
         });
         return static_cast<AccessBitmap*>(w.kept.get())->Revoke({0, 8}, kAllAccess);
       }},
      {"AddRamOverSomething", kMisuse, [](World& w) { return w.guest->AddRam(16 * kPage, kPage); }},
      {"RegisterDoorbellBeyond", kOut, [](World& w) { return w.guest->RegisterDoorbell(kBeyond, {}, w.event).status(); }},
      {"DoorbellOfNoLength", kMisuse,
       [](World& w) { return w.guest->RegisterDoorbell(8, {.length = DoorbellLength{3}}, w.event).status(); }},
      {"RegisterDoorbellOnALockedPage", ErrorKind::kLocked,
       [](World& w) {
         const auto locked =
             Prepared([&] { return w.vm.LockGpns(AccessType::kRead, false, std::array{uint64_t{0}}).value(); });
         Status status = w.guest->RegisterDoorbell(8, {}, w.event).status();
         // Making the doorbell comes first.
         return status.kind() == ErrorKind::kResourceExhausted ? MakeStatus({.kind = ErrorKind::kLocked}) : status;
       }},
      {"MapOverAPiece", {}, [](World& w) { return w.shown.region->Map(kPage, w.file.fd(), 0, kPage, false); }},
      {"EventOfSomethingElse", kMisuse, [](World&) { return Event::FromFd(-1).Wait(); }},
      {"SynchronizeAndSection", {},
       [](World&) {
         Rcu::Synchronize();
         const Rcu::Section section;
         return Status();
       }},
      // Address spaces.
      {"AddressSpaceByALongName", {}, [](World& w) { return Keep(w, AddressSpace::Create(kLongName)); }},
      {"SpaceAdd", {},
       [](World& w) {
         SmallSpace& s = SpaceOf(w);
         return s.Has(8 * kPage, true, s.space->Add({.gpa = 8 * kPage, .size = kPage, .backing = w.ram, .name = kLongName}));
       }},
      {"SpaceRemove", {}, [](World& w) { return SpaceOf(w).Has(0, false, SpaceOf(w).space->Remove(0)); }},
      {"SpaceChange", {},
       [](World& w) {
         SmallSpace& s = SpaceOf(w);
         const auto list = Prepared([&] {
           return std::vector{SlotChange::Remove(0), SlotChange::Add({.gpa = 8 * kPage, .size = kPage, .backing = w.ram})};
         });
         return s.Has(8 * kPage, true, s.Has(0, false, s.space->Change(list)));
       }},
      {"SpaceRegister", {},
       [](World& w) {
         SmallSpace& s = SpaceOf(w);
         auto registration = s.space->Register(s.listener);
         return registration.ok() ? (s.registration = *std::move(registration), Status()) : registration.status();
       }},
      {"SpacePopulated", {}, [](World& w) { return SpaceOf(w).space->Populated({0, ~uint64_t{0}}).status(); }},
      {"SpaceSharing", {}, [](World& w) { return SpaceOf(w).space->memory().sharing().status(); }},
      {"SpaceSubrange", {}, [](World& w) { return SpaceOf(w).space->memory().Subrange(kPage, 16).status(); }},
      {"SpaceSubrangeOfAView", {},
       [](World& w) {
         const GuestMemory view = Prepared([&] { return SpaceOf(w).space->memory().Subrange(kPage, 16).value(); });
         return view.Subrange(8, 8).status();
       }},
      {"SpaceLock", {}, [](World& w) { return SpaceOf(w).space->memory().LockGpns(AccessType::kWrite, true, kGpns).status(); }},
      {"SpaceLockRange", {}, [](World& w) { return SpaceOf(w).space->memory().LockRange(AccessType::kRead, Range()).status(); }},
      {"SpaceRemoveLocked", ErrorKind::kLocked,
       [](World& w) {
         const Status status = SpaceOf(w).space->Remove(kPage);
         // Making the layout without it comes first.
         return status.kind() == ErrorKind::kResourceExhausted ? MakeStatus({.kind = ErrorKind::kLocked}) : status;
       }},
      {"SpaceAddMisaligned", kMisuse, [](World& w) { return SpaceOf(w).space->Add({.gpa = 1, .size = kPage, .backing = w.ram}); }},
      {"SpaceReadBeyond", kOut, [](World& w) { return SpaceOf(w).space->memory().ReadAt(2 * kPage, g_bytes); }},
      {"SpaceOverlap", {},
       [](World& w) { return SpaceOf(w).space->memory().ReadAt(kPage + 100, {w.ram->mapping() + kPage + 50, kPage}); }},
      // Errors themselves.
      {"Text", kOut,
       [](World& w) {
         const Status status = Prepared([&] { return w.memory.ReadAt(kBeyond, g_bytes); });
         const std::string text = status.ToString();
         const Paused paused;
         EXPECT_TRUE(text == "(out of memory)" || text == status.ToString()) << text;
         return status;
       }},
      {"CopiesOfErrors", kOut,
       [](World& w) {
         const Status status = w.memory.ReadAt(kBeyond, g_bytes);
         const ErrorInfo info = status.info();
         Status copy = status;
         return info.kind == kOut ? copy : Status();
       }},
  };
  calls.insert(calls.end(), more.begin(), more.end());
  return calls;
}

// The call's status, and whether an exception came out of it.
struct Outcome {
  Status status;
  bool threw = false;
  bool failed = false;  // an allocation
};

Outcome Run(const Call& call, World& world, int n, bool forever) {
  Outcome outcome;
  const FailNth failing(n, forever);
  try {
    outcome.status = call.call(world);
  } catch (...) {
    outcome.threw = true;
  }
  outcome.failed = failing.happened();
  return outcome;
}

class NoMemory : public testing::TestWithParam<std::tuple<Call, bool>> {};

// False: the call made fewer than `n` allocations.
bool FailsAt(int n, const Call& call, bool forever) {
  SCOPED_TRACE(n);
  const HostState outside;
  const long live = g_live;
  bool failed = false;
  {
    World world;
    const HostState before;
    const long live_before = g_live;
    Outcome outcome = Run(call, world, n, forever);
    failed = outcome.failed;
    const std::optional<ErrorKind> kind = outcome.status.ok() ? std::nullopt : std::optional(outcome.status.kind());
    if (kind && !call.expected) {
      outcome.status = {};  // its description
      world.kept.reset();
      EXPECT_EQ(g_live, live_before) << "memory leaked";
      EXPECT_EQ(HostState(), before) << "leaked";
    }
    EXPECT_FALSE(outcome.threw);
    if (call.expected || !failed) {
      EXPECT_EQ(kind, call.expected) << outcome.status.ToString();
    } else if (kind) {
      EXPECT_EQ(*kind, ErrorKind::kResourceExhausted);
    }
    if (kind) {
      world.kept.reset();
      world.ExpectUnchanged();
      const Status again = call.call(world);
      EXPECT_EQ(again.ok() ? std::nullopt : std::optional(again.kind()), call.expected) << "not as it was: " << again.ToString();
    }
  }
  EXPECT_EQ(g_live, live) << "memory leaked";
  EXPECT_EQ(HostState(), outside) << "leaked";
  return failed;
}

TEST_P(NoMemory, EveryAllocationMayFail) {
  const auto& [call, forever] = GetParam();
  for (int warm = 0; warm < 2; ++warm) {  // what a process makes once
    World world;
    (void)call.call(world);
  }
  int n = 1;
  while (FailsAt(n, call, forever)) {
    ASSERT_LT(++n, 100);
  }
}

INSTANTIATE_TEST_SUITE_P(Public, NoMemory, testing::Combine(testing::ValuesIn(Calls()), testing::Bool()), [](const auto& test) {
  return std::string(std::get<0>(test.param).name) + (std::get<1>(test.param) ? "FromThenOn" : "Once");
});

// The loops above mean something only if calls allocate at all.
TEST(NoMemory, TheLoopsSeeAllocations) {
  World world;
  const FailNth failing(1, false);
  const auto view = world.memory.Subrange(0, 8);
  ASSERT_TRUE(failing.happened());
  EXPECT_EQ(view.status().kind(), ErrorKind::kResourceExhausted);
}

TEST(NoMemory, AnErrorThatCannotBeDescribedKeepsItsKindAndCode) {
  World world;
  const Status own = BackendError(StatusCode::kAborted, "no");
  const FailNth failing(1, true);
  const Status range = world.memory.ReadAt(kBeyond, g_bytes);
  const Status backend = BackendError(StatusCode::kUnavailable, kLongName);
  const Status made = MakeStatus({.kind = ErrorKind::kLocked, .gpn = 5});
  ASSERT_TRUE(failing.happened());
  const Paused paused;
  EXPECT_EQ(range.kind(), ErrorKind::kOutOfRange);
  EXPECT_EQ(range.code(), StatusCode::kOutOfRange);
  EXPECT_EQ(range.ToString(), "the range is not inside memory");
  EXPECT_FALSE(range.info().range || range.info().fault_address);
  EXPECT_EQ(range.info().operation, Operation::kNone);
  EXPECT_EQ(backend.kind(), ErrorKind::kBackend);
  EXPECT_EQ(backend.code(), StatusCode::kUnavailable);
  EXPECT_EQ(made.kind(), ErrorKind::kLocked);
  EXPECT_EQ(made.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(made.ToString(), "there is a lock");
}

}  // namespace
}  // namespace guestmem
