// Backings that do, from within a call, what they may: drop the handle that is being used, and with it the last that keeps them, or
// locks; and accesses in a section of the caller's own, where no backing may be asked.

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/lock.h"
#include "guestmem/paged_range.h"
#include "guestmem/rcu.h"
#include "guestmem/sparse_mapping.h"

namespace guestmem {
namespace {

constexpr uint64_t kPages = 4;
constexpr uint64_t kGpns[] = {0, 3, 1};

// Memory without a page at first: its handler brings the one that is asked for. Each callback runs `on_call` first.
class Calling final : public GuestMemoryAccess {
 public:
  explicit Calling(bool mapped = true) : mapped_(mapped) {}
  ~Calling() override { ++destroyed; }

  std::byte* mapping() const override { return mapped_ ? ram_->mapping() : nullptr; }
  uint64_t max_address() const override { return kPages * kPageSize; }
  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    (void)Called();
    return ram_->Allocate(fault.address / kPageSize * kPageSize, kPageSize).ok() ? PageFaultAction::Retry()
                                                                                : PageFaultAction::Fail(NotMapped());
  }
  Status ReadFallback(uint64_t, std::span<std::byte> destination) override {
    std::memset(destination.data(), 0, destination.size());
    return Called();
  }
  Status WriteFallback(uint64_t, std::span<const std::byte>) override { return Called(); }
  Status FillFallback(uint64_t, std::byte, uint64_t) override { return Called(); }
  Result<bool> CompareExchangeFallback(uint64_t, std::span<std::byte>, std::span<const std::byte>) override {
    (void)Called();
    return true;
  }
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override {
    locked += gpns.size();
    return Called();
  }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override {
    locked -= gpns.size();
    (void)Called();
  }
  Result<std::optional<GuestMemory>> Subrange(uint64_t, uint64_t, bool) override {
    (void)Called();
    return std::optional<GuestMemory>();
  }
  Result<std::vector<SharedFile>> sharing() const override {
    (void)const_cast<Calling*>(this)->Called();
    return std::vector<SharedFile>();
  }

  static inline int destroyed = 0;
  static inline size_t locked = 0;
  int calls = 0;
  std::function<void()> on_call;

 private:
  Status Called() {
    ++calls;
    EXPECT_FALSE(Rcu::InSection());
    if (on_call) {
      std::exchange(on_call, nullptr)();
    }
    return {};
  }

  const bool mapped_;
  const std::shared_ptr<SparseMapping> ram_ = SparseMapping::Create(kPages * kPageSize).value();
};

struct Access {
  const char* name;
  std::function<Status(const GuestMemory&)> call;
};
void PrintTo(const Access& access, std::ostream* out) { *out << access.name; }

std::array<std::byte, 2 * kPageSize> g_host;
std::array<std::atomic<uint8_t>, 64> g_shared;

PagedRange Range() { return *PagedRange::Create(8, 2 * kPageSize, kGpns); }
PagedRanges Ranges() {
  static const std::array halves = {*Range().Subrange(0, kPageSize), *Range().Subrange(kPageSize, kPageSize)};
  return *PagedRanges::Create(halves);
}

const Access kAccesses[] = {
    {"ReadAt", [](const GuestMemory& m) { return m.ReadAt(8, g_host); }},
    {"WriteAt", [](const GuestMemory& m) { return m.WriteAt(8, g_host); }},
    {"FillAt", [](const GuestMemory& m) { return m.FillAt(8, std::byte{1}, 2 * kPageSize); }},
    {"ReadToAtomic", [](const GuestMemory& m) { return m.ReadToAtomic(8, g_shared); }},
    {"WriteFromAtomic", [](const GuestMemory& m) { return m.WriteFromAtomic(8, g_shared); }},
    {"ReadPlain", [](const GuestMemory& m) { return m.ReadPlain<uint32_t>(8).status(); }},
    {"WritePlain", [](const GuestMemory& m) { return m.WritePlain<uint32_t>(8, 1); }},
    {"CompareExchange", [](const GuestMemory& m) { return m.CompareExchange<uint32_t>(8, 0, 1).status(); }},
    {"CompareExchangeBytes",
     [](const GuestMemory& m) {
       return m.CompareExchangeBytes(8, std::span(g_host).first(4), std::span<const std::byte>(g_host).first(4)).status();
     }},
    {"ReadRange", [](const GuestMemory& m) { return m.ReadRange(Range(), g_host); }},
    {"WriteRange", [](const GuestMemory& m) { return m.WriteRange(Range(), g_host); }},
    {"FillRange", [](const GuestMemory& m) { return m.FillRange(Range(), std::byte{1}); }},
    {"ReadRanges", [](const GuestMemory& m) { return m.ReadRange(Ranges(), g_host); }},
    {"WriteRanges", [](const GuestMemory& m) { return m.WriteRange(Ranges(), g_host); }},
    {"FillRanges", [](const GuestMemory& m) { return m.FillRange(Ranges(), std::byte{1}); }},
    {"ProbeReadable", [](const GuestMemory& m) { return m.ProbeReadable(8, 2 * kPageSize); }},
    {"ProbeWritable", [](const GuestMemory& m) { return m.ProbeWritable(8, 2 * kPageSize); }},
    {"ProbeGpns", [](const GuestMemory& m) { return m.ProbeGpns(kGpns); }},
};

const Access kOthers[] = {
    {"ProbeExecutable", [](const GuestMemory& m) { return m.ProbeExecutable(8, 2 * kPageSize); }},
    {"LockGpns", [](const GuestMemory& m) { return m.LockGpns(AccessType::kWrite, true, kGpns).status(); }},
    {"LockRange", [](const GuestMemory& m) { return m.LockRange(AccessType::kRead, Range()).status(); }},
    {"Subrange", [](const GuestMemory& m) { return m.Subrange(8, 8).status(); }},
    {"LockableSubrange", [](const GuestMemory& m) { return m.LockableSubrange(0, 8).status(); }},
    {"Sharing", [](const GuestMemory& m) { return m.sharing().status(); }},
};

// The first callback of the access drops the only handle, which is what the access was called on.
void DropsItsOwnHandle(const Access& access, bool mapped, bool regions) {
  SCOPED_TRACE(access.name);
  auto backing = std::make_shared<Calling>(mapped);
  Calling& called = *backing;
  std::unique_ptr<GuestMemory> memory;
  called.on_call = [&] { memory.reset(); };
  if (regions) {
    const auto other = std::make_shared<Calling>(mapped);
    memory = std::make_unique<GuestMemory>(
        GuestMemory::CreateMultiRegion("regions", 2 * kPages * kPageSize, {std::move(backing), other}).value());
  } else {
    memory = std::make_unique<GuestMemory>(GuestMemory::Create("a name that is kept elsewhere", std::move(backing)).value());
  }
  Calling::destroyed = 0;
  const Status status = access.call(*memory);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(memory, nullptr) << "nothing was called";
  EXPECT_EQ(Calling::destroyed, regions ? 2 : 1) << "kept beyond the call, or not until its end";
  EXPECT_EQ(Calling::locked, 0U);
}

TEST(Reentry, ACallbackMayDropTheLastHandleOfTheMemoryItIsCalledFrom) {
  for (const bool regions : {false, true}) {
    for (const Access& access : kAccesses) {
      DropsItsOwnHandle(access, true, regions);
      DropsItsOwnHandle(access, false, regions);
    }
    for (const Access& access : kOthers) {
      DropsItsOwnHandle(access, true, regions);
    }
  }
}

// The same where the access fails afterwards: the error is told in full.
TEST(Reentry, AnAccessWhoseHandleIsGoneStillSaysWhatFailed) {
  auto backing = std::make_shared<Calling>();
  Calling& called = *backing;
  auto memory = std::make_unique<GuestMemory>(
      GuestMemory::CreateMultiRegion("a name that is kept elsewhere", kPages * kPageSize, {std::move(backing)}).value());
  called.on_call = [&] { memory.reset(); };
  static constexpr uint64_t gpns[] = {0, kPages};
  const Status status = memory->ReadRange(*PagedRange::Create(kPageSize - 8, 16, gpns), std::span(g_host).first(16));
  ASSERT_EQ(memory, nullptr);
  ASSERT_EQ(status.kind(), ErrorKind::kOutOfRange);
  EXPECT_EQ(status.info().fault_address, kPages * kPageSize);
  EXPECT_EQ(status.info().transferred, 8U);
  EXPECT_EQ(status.ToString().find("guest memory 'a name that is kept elsewhere': read error"), 0U) << status.ToString();
}

TEST(Reentry, UnlockingMayDropOtherLocksAndTheLastHandle) {
  auto backing = std::make_shared<Calling>();
  Calling& called = *backing;
  auto memory = std::make_unique<GuestMemory>(GuestMemory::Create("ram", std::move(backing)).value());
  auto first = std::make_unique<LockedPages>(memory->LockGpns(AccessType::kWrite, true, kGpns).value());
  auto second = std::make_unique<LockedPages>(memory->LockGpns(AccessType::kWrite, true, kGpns).value());
  Calling::destroyed = 0;
  called.on_call = [&] {
    memory.reset();
    second.reset();
    first.reset();  // the one that is being dropped
  };
  first.reset();
  EXPECT_EQ(Calling::locked, 0U);
  EXPECT_EQ(Calling::destroyed, 1);
}

TEST(Reentry, InACallersOwnSectionNoBackingIsAskedAndTheErrorSaysSo) {
  for (const bool mapped : {true, false}) {
    const auto backing = std::make_shared<Calling>(mapped);
    const GuestMemory memory = GuestMemory::Create("ram", backing).value();
    const auto refused = [&](const Access& access) {
      SCOPED_TRACE(access.name);
      const Rcu::Section section;
      const Status status = access.call(memory);
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument);
      EXPECT_EQ(status.info().transferred, 0U);
      EXPECT_NE(status.ToString().find("the backing must be asked"), std::string::npos) << status.ToString();
    };
    for (const Access& access : kAccesses) {
      refused(access);
    }
    EXPECT_EQ(backing->calls, 0);
    if (mapped) {
      refused(kOthers[0]);
      refused(kOthers[1]);
      refused(kOthers[2]);
      EXPECT_EQ(Calling::locked, 0U);
      ASSERT_TRUE(memory.ProbeGpns(kGpns).ok());
      const Rcu::Section section;
      EXPECT_TRUE(memory.WritePlain<uint64_t>(8, 1).ok()) << "what needs no handler works";
    }
  }
}

}  // namespace
}  // namespace guestmem
