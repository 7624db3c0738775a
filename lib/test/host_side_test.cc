// Every access tells the sanitizers about its host buffer. Linked with an engine that is built as for all of them at once, whose
// functions are here: what is told is compared with what was moved, for each call that takes a buffer.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/backing.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/lock.h"
#include "guestmem/paged_range.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/stream.h"

namespace {

// How often each byte of the buffer under test was told of.
struct Told {
  std::vector<uint8_t> asan_load, asan_store, tsan_read, tsan_write, msan_check, msan_unpoison;
  bool outside = false;  // something in the buffer's guard
} g_told;
const std::byte* g_buffer = nullptr;
size_t g_size = 0;
constexpr size_t kGuard = 64;

void Tell(std::vector<uint8_t> Told::* what, const volatile void* start, size_t length) {
  const auto at = reinterpret_cast<uintptr_t>(start), begin = reinterpret_cast<uintptr_t>(g_buffer);
  if (length == 0 || at + length <= begin - kGuard || at >= begin + g_size + kGuard) {
    return;  // not the buffer under test
  }
  if (at < begin || at + length > begin + g_size) {
    g_told.outside = true;
    return;
  }
  for (size_t i = 0; i < length; ++i) {
    (g_told.*what)[at - begin + i] = 1;
  }
}

}  // namespace

extern "C" {
void __asan_loadN(const void* start, size_t length) { Tell(&Told::asan_load, start, length); }
void __asan_storeN(void* start, size_t length) { Tell(&Told::asan_store, start, length); }
void __tsan_read_range(const void* start, size_t length) { Tell(&Told::tsan_read, start, length); }
void __tsan_write_range(void* start, size_t length) { Tell(&Told::tsan_write, start, length); }
void __msan_check_mem_is_initialized(const volatile void* start, size_t length) { Tell(&Told::msan_check, start, length); }
void __msan_unpoison(const volatile void* start, size_t length) { Tell(&Told::msan_unpoison, start, length); }
}

namespace guestmem {
namespace {

constexpr uint64_t kRegion = uint64_t{4} << 20;
constexpr uint64_t kHole = uint64_t{3} << 20;           // faults from here on
constexpr uint64_t kLazy = kHole - 16 * kPageSize;      // between: pages that come when they are asked for

class Ram final : public GuestMemoryAccess {
 public:
  Ram(bool bitmap, bool hole) : pages_(SparseMapping::Create(kRegion).value()) {
    EXPECT_TRUE(pages_->Allocate(0, hole ? kLazy : kRegion).ok());
    if (bitmap) {
      bits_ = AccessBitmap::Create("ram", kRegion / kPageSize, true).value();
    }
  }
  std::byte* mapping() const override { return pages_->mapping(); }
  uint64_t max_address() const override { return kRegion; }
  std::optional<BitmapInfo> access_bitmap() const override {
    return bits_ == nullptr ? std::nullopt : std::optional(bits_->info());
  }
  PageFaultAction PageFault(const PageFaultInfo& info) override {
    const uint64_t page = info.address / kPageSize * kPageSize;
    return page >= kLazy && page < kHole && pages_->Allocate(page, kPageSize).ok() ? PageFaultAction::Retry()
                                                                                  : PageFaultAction::Fail(NotMapped());
  }
  bool supports_locking() const override { return true; }
  Status LockGpns(AccessType, std::span<const uint64_t>) override { return {}; }
  void UnlockGpns(AccessType, std::span<const uint64_t>) override {}

 private:
  std::shared_ptr<SparseMapping> pages_;
  std::shared_ptr<AccessBitmap> bits_;
};

struct World {
  explicit World(bool bitmap) : first(std::make_shared<Ram>(bitmap, true)) {
    one = GuestMemory::Create("one", first).value();
    view = one.Subrange(kPageSize / 2, kRegion - kPageSize).value();
    // The hole's region stands behind the other, so that a range may run into it.
    two = GuestMemory::CreateMultiRegion("two", kRegion, {std::make_shared<Ram>(bitmap, false), first}).value();
  }
  std::shared_ptr<Ram> first;
  GuestMemory one, two;
  GuestMemory view;  // its pages are halves of two of the backing's: a hole may begin in the middle of a listed page
};

enum class Direction { kIntoBuffer, kOutOfBuffer };
using Buffer = std::span<std::byte>;

// A call with a host buffer. Its status tells how many bytes it moved.
struct Form {
  const char* name;
  Direction direction;
  bool shared;  // other threads access the buffer atomically
  std::function<Status(const GuestMemory&, uint64_t gpa, Buffer)> run;
};
constexpr Direction kInto = Direction::kIntoBuffer, kOut = Direction::kOutOfBuffer;

std::span<std::atomic<uint8_t>> Atomics(Buffer buffer) {
  return {reinterpret_cast<std::atomic<uint8_t>*>(buffer.data()), buffer.size()};
}

// The pages of a range as a guest would list them: in one list, or in a list of two.
class Listed {
 public:
  Listed(uint64_t gpa, Buffer buffer) {
    const uint64_t length = buffer.size();
    for (uint64_t gpn = gpa / kPageSize; gpn * kPageSize < gpa + length; ++gpn) {
      gpns_.push_back(gpn);
    }
    one_ = PagedRange::Create(gpa % kPageSize, length, gpns_).value();
    two_ = {one_.Subrange(0, length / 2).value(), one_.Subrange(length / 2, length - length / 2).value()};
  }
  const PagedRange& one() const { return one_; }
  PagedRanges two() const { return PagedRanges::Create(two_).value(); }

 private:
  std::vector<uint64_t> gpns_;
  PagedRange one_;
  std::vector<PagedRange> two_;
};

using M = const GuestMemory&;
const Form kForms[] = {
    {"ReadAt", kInto, false, [](M m, uint64_t a, Buffer b) { return m.ReadAt(a, b); }},
    {"WriteAt", kOut, false, [](M m, uint64_t a, Buffer b) { return m.WriteAt(a, b); }},
    {"ReadToAtomic", kInto, true, [](M m, uint64_t a, Buffer b) { return m.ReadToAtomic(a, Atomics(b)); }},
    {"WriteFromAtomic", kOut, true, [](M m, uint64_t a, Buffer b) { return m.WriteFromAtomic(a, Atomics(b)); }},
    {"ReadRange, a list", kInto, false, [](M m, uint64_t a, Buffer b) { return m.ReadRange(Listed(a, b).one(), b); }},
    {"WriteRange, a list", kOut, false, [](M m, uint64_t a, Buffer b) { return m.WriteRange(Listed(a, b).one(), b); }},
    {"ReadRangeToAtomic, a list", kInto, true, [](M m, uint64_t a, Buffer b) { return m.ReadRangeToAtomic(Listed(a, b).one(), Atomics(b)); }},
    {"WriteRangeFromAtomic, a list", kOut, true,
     [](M m, uint64_t a, Buffer b) { return m.WriteRangeFromAtomic(Listed(a, b).one(), Atomics(b)); }},
    {"ReadRange, two lists", kInto, false, [](M m, uint64_t a, Buffer b) { const Listed list(a, b); return m.ReadRange(list.two(), b); }},
    {"WriteRange, two lists", kOut, false, [](M m, uint64_t a, Buffer b) { const Listed list(a, b); return m.WriteRange(list.two(), b); }},
    {"ReadRangeToAtomic, two lists", kInto, true,
     [](M m, uint64_t a, Buffer b) { const Listed list(a, b); return m.ReadRangeToAtomic(list.two(), Atomics(b)); }},
    {"WriteRangeFromAtomic, two lists", kOut, true,
     [](M m, uint64_t a, Buffer b) { const Listed list(a, b); return m.WriteRangeFromAtomic(list.two(), Atomics(b)); }},
    {"PagedReader", kInto, false, [](M m, uint64_t a, Buffer b) { const Listed list(a, b); return PagedReader(m, list.one()).Read(b); }},
    {"PagedWriter", kOut, false, [](M m, uint64_t a, Buffer b) { const Listed list(a, b); return PagedWriter(m, list.one()).Write(b); }},
};

// Where a call goes, and how much of it is done there.
struct Place {
  const char* name;
  GuestMemory World::* memory;
  uint64_t address;
  size_t length, moved;
};
constexpr Place kPlaces[] = {
    {"in a page", &World::one, 100, 64, 64},
    {"across pages", &World::one, 4000, 5000, 5000},
    {"longer than a section", &World::one, 77, (3 << 19) + 5, (3 << 19) + 5},
    {"over pages that come when asked for", &World::one, kLazy - 5000, 5 * kPageSize, 5 * kPageSize},
    {"into a hole", &World::one, kHole - 6000, 10000, 6000},
    {"from a page's end into a hole", &World::one, kHole - 100, 200, 100},
    {"in a hole", &World::one, kHole + 5, 100, 0},
    {"in the second region", &World::two, kRegion + 100, 64, 64},
    {"into the second region", &World::two, kRegion - 300, 5000, 5000},
    {"into the hole of the second region", &World::two, kRegion + kHole - 6000, 10000, 6000},
    {"in the pages of a view", &World::view, 100, 5000, 5000},
    {"into a hole of a view", &World::view, kHole - kPageSize / 2 - 6000, 10000, 6000},
};

// What was told of [0, moved) and of the rest of the buffer must be what `wanted` says.
enum class Wanted { kNothing, kMoved, kMovedAtLeast };
std::string Wrong(const std::vector<uint8_t>& told, Wanted wanted, size_t moved) {
  const auto end = told.begin() + static_cast<std::ptrdiff_t>(moved);
  const auto is_told = [](uint8_t byte) { return byte != 0; };
  if (wanted != Wanted::kNothing && !std::all_of(told.begin(), end, is_told)) {
    return "not of all that was moved";
  }
  if (wanted == Wanted::kNothing ? std::any_of(told.begin(), told.end(), is_told)
                                 : wanted == Wanted::kMoved && std::any_of(end, told.end(), is_told)) {
    return "of what was not moved";
  }
  return "";
}

void Expect(Direction direction, bool shared, size_t moved) {
  const bool into = direction == kInto;
  const auto expected = [&](bool of_this_direction, Wanted wanted) { return of_this_direction ? wanted : Wanted::kNothing; };
  EXPECT_FALSE(g_told.outside) << "of bytes beside the buffer";
  // The whole buffer may be looked at before; what was changed is known afterwards.
  EXPECT_EQ(Wrong(g_told.asan_store, expected(into, Wanted::kMovedAtLeast), moved), "");
  EXPECT_EQ(Wrong(g_told.asan_load, expected(!into, Wanted::kMovedAtLeast), moved), "");
  EXPECT_EQ(Wrong(g_told.tsan_write, expected(into && !shared, Wanted::kMoved), moved), "");
  EXPECT_EQ(Wrong(g_told.tsan_read, expected(!into && !shared, Wanted::kMovedAtLeast), moved), "");
  EXPECT_EQ(Wrong(g_told.msan_unpoison, expected(into, Wanted::kMoved), moved), "");
  EXPECT_EQ(Wrong(g_told.msan_check, expected(!into, Wanted::kMovedAtLeast), moved), "");
}

// A buffer between two guards, of which all that is told is kept.
class Watched {
 public:
  explicit Watched(size_t length) : bytes_(length + 2 * kGuard) {
    g_told = {};
    for (auto* told : {&g_told.asan_load, &g_told.asan_store, &g_told.tsan_read, &g_told.tsan_write, &g_told.msan_check, &g_told.msan_unpoison}) {
      told->assign(length, 0);
    }
    g_buffer = bytes_.data() + kGuard;
    g_size = length;
  }
  ~Watched() { g_buffer = nullptr; }
  Buffer buffer() { return std::span(bytes_).subspan(kGuard, g_size); }

 private:
  std::vector<std::byte> bytes_;
};

TEST(HostSide, EveryCallWithABufferTellsEverySanitizerWhatItMoves) {
  for (const bool bitmap : {false, true}) {
    for (const Form& form : kForms) {
      for (const Place& place : kPlaces) {
        SCOPED_TRACE(std::string(form.name) + (bitmap ? " with bitmap, " : ", ") + place.name);
        World world(bitmap);
        Watched watched(place.length);
        const Status status = form.run(world.*place.memory, place.address, watched.buffer());
        ASSERT_EQ(status.ok(), place.moved == place.length) << status.ToString();
        if (!status.ok()) {
          ASSERT_EQ(status.info().transferred, place.moved);
        }
        Expect(form.direction, form.shared, place.moved);
      }
    }
  }
}

TEST(HostSide, TryCallsTellEverySanitizerWhatTheyMove) {
  struct {
    const char* name;
    uint64_t address;
    size_t length, moved;
  } const places[] = {{"in a page", 100, 64, 64}, {"across pages", 4000, 5000, 5000}, {"into a hole", kLazy - 6000, 10000, 6000},
                      {"in a hole", kLazy + 5, 100, 0}};
  for (const bool shared : {false, true}) {
    for (const Direction direction : {kInto, kOut}) {
      for (const auto& place : places) {
        SCOPED_TRACE(std::string(place.name) + (shared ? ", shared" : "") + (direction == kInto ? ", read" : ", write"));
        World world(false);
        Watched watched(place.length);
        std::byte* const guest = world.first->mapping() + place.address;
        std::byte* const host = watched.buffer().data();
        const auto copy = shared ? TryCopyShared : TryCopy;
        const auto fault = direction == kInto ? copy(GuestSide::kSource, host, guest, place.length)
                                              : copy(GuestSide::kDestination, guest, host, place.length);
        ASSERT_EQ(fault ? fault->offset : place.length, place.moved);
        Expect(direction, shared, place.moved);
      }
    }
  }
}

TEST(HostSide, SpansOfALockTellEverySanitizerWhatTheyMove) {
  World world(true);
  constexpr size_t kLength = 5000;
  const auto lock = world.one.LockRange(AccessType::kWrite, Listed(100, std::span<std::byte>(static_cast<std::byte*>(nullptr), kLength)).one());
  ASSERT_TRUE(lock.ok()) << lock.status().ToString();
  const GuestSpan span = lock->spans()[0];
  {
    Watched watched(kLength);
    ASSERT_TRUE(span.CopyTo(watched.buffer()).ok());
    Expect(kInto, false, kLength);
  }
  Watched watched(kLength);
  ASSERT_TRUE(span.CopyFrom(watched.buffer()).ok());
  Expect(kOut, false, kLength);
}

}  // namespace
}  // namespace guestmem
