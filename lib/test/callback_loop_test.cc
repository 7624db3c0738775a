// Failure loops over a backing's callbacks: for every public call that reaches one (handler, fallbacks, ExposeVa, LockGpns,
// Subrange), let the first callback fail, then the second, and so on until the call succeeds. Each time: the callback's own
// status in the caller's words, exactly the bytes before the failure moved, no lock left; and the same call works afterwards.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/lock.h"
#include "guestmem/paged_range.h"
#include "guestmem/stream.h"

namespace guestmem {
namespace {

constexpr uint64_t kPages = 2;                       // of a backing
constexpr uint64_t kSize = 2 * kPages * kPageSize;   // of the memory
constexpr uint64_t kStart = 100, kLength = kSize - 200;
constexpr uint64_t kGpns[] = {1, 3, 0, 2};

int g_calls = 0;
int g_failing = 0;  // which callback fails; 0: none
int g_locked = 0;   // pages that backings hold locked

bool FailsNow() { return ++g_calls == g_failing; }
Status NoLuck() { return BackendError(StatusCode::kUnavailable, "no luck"); }

// Heap memory that either has no mapping, and is reached through fallbacks, or refuses each page until its handler was asked.
class Grudging final : public GuestMemoryAccess {
 public:
  explicit Grudging(bool mapped) : mapped_(mapped) {}

  std::byte* mapping() const override { return mapped_ ? bytes->mapping() : nullptr; }
  uint64_t max_address() const override { return kPages * kPageSize; }
  std::optional<BitmapInfo> access_bitmap() const override { return bits_->info(); }
  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    if (FailsNow()) {
      return PageFaultAction::Fail(NoLuck());
    }
    EXPECT_TRUE(bits_->Grant({fault.address / kPageSize, 1}, kAllAccess).ok());
    return PageFaultAction::Retry();
  }
  Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    return FailsNow() ? NoLuck() : (std::memcpy(destination.data(), At(address), destination.size()), Status());
  }
  Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
    return FailsNow() ? NoLuck() : (std::memcpy(At(address), source.data(), source.size()), Status());
  }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return FailsNow() ? NoLuck() : (std::memset(At(address), std::to_integer<int>(value), length), Status());
  }
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                       std::span<const std::byte> desired) override {
    if (FailsNow()) {
      return NoLuck();
    }
    const bool equal = std::memcmp(At(address), current.data(), current.size()) == 0;
    std::memcpy(current.data(), At(address), current.size());
    if (equal) {
      std::memcpy(At(address), desired.data(), desired.size());
    }
    return equal;
  }
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override {
    if (FailsNow()) {
      return NoLuck();
    }
    g_locked += static_cast<int>(gpns.size());
    return {};
  }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override { g_locked -= static_cast<int>(gpns.size()); }
  Status ExposeVa(uint64_t, uint64_t) override { return FailsNow() ? NoLuck() : Status(); }
  Result<std::optional<GuestMemory>> Subrange(uint64_t, uint64_t, bool) override {
    return FailsNow() ? Result<std::optional<GuestMemory>>(NoLuck()) : Result<std::optional<GuestMemory>>(std::nullopt);
  }

  const std::shared_ptr<AlignedHeapMemory> bytes = AlignedHeapMemory::Create(kPages * kPageSize).value();

 private:
  std::byte* At(uint64_t address) const { return bytes->mapping() + address; }

  const bool mapped_;
  const std::shared_ptr<AccessBitmap> bits_ = AccessBitmap::Create("grudging", kPages, false).value();
};

uint8_t Before(uint64_t address) { return static_cast<uint8_t>(1 + address % 127); }
uint8_t Written(uint64_t i) { return static_cast<uint8_t>(128 + i % 127); }

// Two backings side by side; in `mixed`, the first has no mapping.
struct World {
  explicit World(bool mixed) {
    backings = {std::make_shared<Grudging>(!mixed), std::make_shared<Grudging>(true)};
    memory = GuestMemory::CreateMultiRegion("ram", kPages * kPageSize, {backings[0], backings[1]}).value();
    for (uint64_t gpa = 0; gpa < kSize; ++gpa) {
      Byte(gpa) = Before(gpa);
    }
    for (uint64_t i = 0; i < kLength; ++i) {
      source[i] = static_cast<std::byte>(Written(i));
    }
  }
  uint8_t& Byte(uint64_t gpa) const {
    return reinterpret_cast<uint8_t*>(backings[gpa / (kPages * kPageSize)]->bytes->mapping())[gpa % (kPages * kPageSize)];
  }
  std::span<std::atomic<uint8_t>> Atomic() {
    // Safe because an atomic byte has a byte's representation.
    return {reinterpret_cast<std::atomic<uint8_t>*>(buffer.data()), buffer.size()};
  }

  std::array<std::shared_ptr<Grudging>, 2> backings;
  GuestMemory memory;
  std::vector<std::byte> buffer = std::vector<std::byte>(kLength, std::byte{0});
  std::vector<std::byte> source = std::vector<std::byte>(kLength);
};

PagedRange Range() { return PagedRange::Create(kStart, kLength, kGpns).value(); }
std::array<PagedRange, 2> Halves() { return {Range().Subrange(0, 5000).value(), Range().Subrange(5000, kLength - 5000).value()}; }

enum class Moves { kNothing, kToHost, kToGuest };

struct Scenario {
  const char* name;
  const char* operation;
  Moves moves;
  bool by_range;  // along kGpns; else from kStart on
  std::function<Status(World&)> call;
  int callbacks;  // at least, in the mixed world
};
void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

template <typename T>
Status StatusOf(const Result<T>& result) { return result.status(); }

const Scenario kScenarios[] = {
    {"ReadAt", "read", Moves::kToHost, false, [](World& w) { return w.memory.ReadAt(kStart, w.buffer); }, 3},
    {"WriteAt", "write", Moves::kToGuest, false, [](World& w) { return w.memory.WriteAt(kStart, w.source); }, 3},
    {"FillAt", "fill", Moves::kToGuest, false,
     [](World& w) {
       std::fill(w.source.begin(), w.source.end(), std::byte{0xee});
       return w.memory.FillAt(kStart, std::byte{0xee}, kLength);
     },
     3},
    {"ReadToAtomic", "read", Moves::kToHost, false, [](World& w) { return w.memory.ReadToAtomic(kStart, w.Atomic()); }, 3},
    {"WriteFromAtomic", "write", Moves::kToGuest, false,
     [](World& w) {
       w.buffer = w.source;
       return w.memory.WriteFromAtomic(kStart, w.Atomic());
     },
     3},
    {"ReadRange", "read", Moves::kToHost, true, [](World& w) { return w.memory.ReadRange(Range(), w.buffer); }, 4},
    {"WriteRange", "write", Moves::kToGuest, true, [](World& w) { return w.memory.WriteRange(Range(), w.source); }, 4},
    {"ZeroRange", "fill", Moves::kToGuest, true,
     [](World& w) {
       std::fill(w.source.begin(), w.source.end(), std::byte{0});
       return w.memory.ZeroRange(Range());
     },
     4},
    {"ReadRangeToAtomic", "read", Moves::kToHost, true, [](World& w) { return w.memory.ReadRangeToAtomic(Range(), w.Atomic()); }, 4},
    {"WriteRangeFromAtomic", "write", Moves::kToGuest, true,
     [](World& w) {
       w.buffer = w.source;
       return w.memory.WriteRangeFromAtomic(Range(), w.Atomic());
     },
     4},
    {"ReadRanges", "read", Moves::kToHost, true,
     [](World& w) {
       const auto halves = Halves();
       return w.memory.ReadRange(PagedRanges::Create(halves).value(), w.buffer);
     },
     4},
    {"WriteRanges", "write", Moves::kToGuest, true,
     [](World& w) {
       const auto halves = Halves();
       return w.memory.WriteRange(PagedRanges::Create(halves).value(), w.source);
     },
     4},
    {"ReadPlain", "read", Moves::kNothing, false, [](World& w) { return StatusOf(w.memory.ReadPlain<uint32_t>(64)); }, 1},
    {"ReadPlainOverTwoPages", "read", Moves::kNothing, false,
     [](World& w) { return StatusOf(w.memory.ReadPlain<uint64_t>(3 * kPageSize - 3)); },
     2},
    {"WritePlain", "write", Moves::kNothing, false, [](World& w) { return w.memory.WritePlain<uint64_t>(64, 0x4847464544434241); }, 1},
    {"WritePlainOverTwoPages", "write", Moves::kNothing, false,
     [](World& w) { return w.memory.WritePlain<uint64_t>(3 * kPageSize - 3, 1); },
     2},
    {"CompareExchangeByFallback", "compare exchange", Moves::kNothing, false,
     [](World& w) { return StatusOf(w.memory.CompareExchange<uint8_t>(0, Before(0), 9)); },
     1},
    {"CompareExchange", "compare exchange", Moves::kNothing, false,
     [](World& w) { return StatusOf(w.memory.CompareExchange<uint8_t>(2 * kPageSize, Before(2 * kPageSize), 9)); },
     1},
    {"ProbeReadable", "probe", Moves::kNothing, false, [](World& w) { return w.memory.ProbeReadable(kStart, kLength); }, 4},
    {"ProbeWritable", "probe", Moves::kNothing, false, [](World& w) { return w.memory.ProbeWritable(kStart, kLength); }, 4},
    {"ProbeExecutable", "probe", Moves::kNothing, false,
     [](World& w) { return w.memory.ProbeExecutable(2 * kPageSize, 2 * kPageSize); },
     2},
    {"ProbeGpns", "probe", Moves::kNothing, false, [](World& w) { return w.memory.ProbeGpns(kGpns); }, 4},
    {"Subrange", "subrange", Moves::kNothing, false, [](World& w) { return StatusOf(w.memory.Subrange(64, 64)); }, 1},
};

// Only where every backing has a mapping.
const Scenario kLocks[] = {
    {"LockGpns", "lock", Moves::kNothing, false,
     [](World& w) { return StatusOf(w.memory.LockGpns(AccessType::kWrite, false, kGpns)); },
     8},
    {"LockGpnsForTheKernel", "lock", Moves::kNothing, false,
     [](World& w) { return StatusOf(w.memory.LockGpns(AccessType::kRead, true, kGpns)); },
     12},
    {"LockRange", "lock", Moves::kNothing, true, [](World& w) { return StatusOf(w.memory.LockRange(AccessType::kWrite, Range())); }, 12},
    {"LockableSubrange", "subrange", Moves::kNothing, false,
     [](World& w) { return StatusOf(w.memory.LockableSubrange(kPageSize, kPageSize)); },
     1},
};

uint64_t AddressOf(const Scenario& scenario, uint64_t i) {
  const uint64_t at = kStart + i;
  return scenario.by_range ? kGpns[at / kPageSize] * kPageSize + at % kPageSize : at;
}

// SPEC 4, for callbacks that move nothing when they fail: exactly the first `moved` bytes are on the other side.
void ExpectMoved(const Scenario& scenario, const World& world, uint64_t moved) {
  std::vector<uint8_t> guest(kSize), host(kLength, 0);
  for (uint64_t gpa = 0; gpa < kSize; ++gpa) {
    guest[gpa] = Before(gpa);
  }
  for (uint64_t i = 0; i < moved; ++i) {
    uint8_t& byte = guest[AddressOf(scenario, i)];
    if (scenario.moves == Moves::kToGuest) {
      byte = std::to_integer<uint8_t>(world.source[i]);
    } else {
      host[i] = byte;
    }
  }
  for (uint64_t gpa = 0; gpa < kSize; ++gpa) {
    ASSERT_EQ(world.Byte(gpa), guest[gpa]) << "at " << gpa << ", " << moved << " moved";
  }
  if (scenario.moves == Moves::kToHost) {
    EXPECT_EQ(std::memcmp(world.buffer.data(), host.data(), kLength), 0) << moved << " moved";
  }
}

// Runs the call with its n-th callback failing. False: it made fewer.
bool FailsAt(int n, const Scenario& scenario, bool mixed) {
  World world(mixed);
  g_calls = 0;
  g_failing = n;
  const Status status = scenario.call(world);
  const bool happened = g_calls >= n;
  g_failing = 0;
  EXPECT_EQ(g_locked, 0) << "a lock is left";
  if (!happened) {
    EXPECT_TRUE(status.ok()) << status.ToString();
    if (scenario.moves != Moves::kNothing) {
      ExpectMoved(scenario, world, kLength);
    }
    return false;
  }
  EXPECT_EQ(g_calls, n) << "went on after a failure";
  EXPECT_FALSE(status.ok()) << "the failure was swallowed";
  if (!status.ok()) {
    EXPECT_EQ(status.kind(), ErrorKind::kBackend);
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    const std::string text = status.ToString(), start = std::string("guest memory 'ram': ") + scenario.operation + " error: ";
    EXPECT_TRUE(text.starts_with(start) && text.ends_with(": no luck")) << text;
    ExpectMoved(scenario, world, status.info().transferred);
    // In one piece with several pages, a refused one may lie behind others that were not touched for its sake.
    const uint64_t next = AddressOf(scenario, status.info().transferred);
    EXPECT_TRUE(scenario.moves == Moves::kNothing ||
                (scenario.by_range ? status.info().fault_address == next : status.info().fault_address >= next))
        << text;
  }
  EXPECT_TRUE(scenario.call(world).ok()) << "not as it was";
  return true;
}

class CallbackLoop : public testing::TestWithParam<Scenario> {
 protected:
  static int FailEach(bool mixed) {
    int n = 1;
    while (n < 100 && FailsAt(n, GetParam(), mixed)) {
      ++n;
    }
    return n - 1;
  }
};

TEST_P(CallbackLoop, EveryCallbackMayFail) { EXPECT_GE(FailEach(true), GetParam().callbacks); }

INSTANTIATE_TEST_SUITE_P(Access, CallbackLoop, testing::ValuesIn(kScenarios),
                         [](const auto& test) { return std::string(test.param.name); });

class LockLoop : public CallbackLoop {};

TEST_P(LockLoop, EveryCallbackMayFail) { EXPECT_GE(FailEach(false), GetParam().callbacks); }

INSTANTIATE_TEST_SUITE_P(Locks, LockLoop, testing::ValuesIn(kLocks), [](const auto& test) { return std::string(test.param.name); });

// A stream that fails stays where it was, however many pieces it had moved.
TEST(CallbackLoop, AFailedStreamCallKeepsItsPosition) {
  for (int n = 1;; ++n) {
    World world(true);
    PagedReader reader(world.memory, Range());
    PagedWriter writer(world.memory, Range());
    ASSERT_TRUE(reader.Skip(10).ok());
    g_calls = 0;
    g_failing = n;
    const bool read = reader.Read(std::span(world.buffer).first(kLength - 10)).ok();
    const bool written = read && writer.Write(world.source).ok();
    const bool happened = g_calls >= n;
    g_failing = 0;
    EXPECT_EQ(reader.remaining(), read ? 0 : kLength - 10);
    EXPECT_EQ(writer.remaining(), written ? 0 : kLength);
    EXPECT_EQ(read && written, !happened);
    if (!happened) {
      EXPECT_GE(n, 7);
      break;
    }
  }
}

}  // namespace
}  // namespace guestmem
