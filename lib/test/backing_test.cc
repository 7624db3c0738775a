// The interface of backings: its defaults, wrappers that forward all of it, views of a backing's own, files, inner buffers.

#include "guestmem/backing.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"

namespace guestmem {
namespace {

using Files = std::vector<SharedFile>;

class Minimal : public GuestMemoryAccess {
 public:
  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return kPageSize; }
};

TEST(GuestMemoryAccess, HasADefaultForAllButTwoMethods) {
  Minimal minimal;
  EXPECT_FALSE(minimal.access_bitmap());
  EXPECT_EQ(minimal.PageFault({0, 1, AccessType::kRead, true}).status().kind(), ErrorKind::kAccessDenied);
  EXPECT_EQ(minimal.PageFault({0, 1, AccessType::kRead, false}).status().kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(minimal.ReadFallback(0, {}).kind(), ErrorKind::kNoFallback);
  EXPECT_EQ(minimal.WriteFallback(0, {}).kind(), ErrorKind::kNoFallback);
  EXPECT_EQ(minimal.FillFallback(0, std::byte{}, 0).kind(), ErrorKind::kNoFallback);
  EXPECT_EQ(minimal.CompareExchangeFallback(0, {}, {}).status().kind(), ErrorKind::kNoFallback);
  EXPECT_FALSE(minimal.supports_locking()) << "lockable where mapped";
  EXPECT_TRUE(minimal.LockGpns(AccessType::kWrite, {}).ok());
  minimal.UnlockGpns(AccessType::kWrite, {});
  EXPECT_TRUE(minimal.ExposeVa(0, 1).ok());
  EXPECT_FALSE(minimal.Subrange(0, 1, true).value().has_value());
  EXPECT_FALSE(minimal.base_iova());
  EXPECT_TRUE(minimal.sharing().value().empty());
  EXPECT_TRUE(AlignedHeapMemory::Create(1).value()->supports_locking());
}

static_assert(LinearGuestMemory<AlignedHeapMemory> && LinearGuestMemory<SparseMapping>);
static_assert(LinearGuestMemory<SharedMemory>);
static_assert(!LinearGuestMemory<Minimal> && !LinearGuestMemory<int>);
static_assert(LinearGuestMemory<SharedBacking<SparseMapping>> && !LinearGuestMemory<SharedBacking<Minimal>>);

// The functions in an object's virtual table (Itanium C++ ABI: the object starts with a pointer to them).
std::vector<void*> VirtualFunctions(const GuestMemoryAccess& object, size_t count) {
  void* const* table;
  std::memcpy(&table, static_cast<const void*>(&object), sizeof table);
  return {table, table + count};
}

// How many GuestMemoryAccess has: a method that a derived class adds comes right behind them.
struct OneMore : Minimal {
  virtual void Last() {}
};
size_t VirtualFunctionCount() {
  void (OneMore::*last)() = &OneMore::Last;
  uintptr_t encoded;  // the ABI: 1 + the offset in the virtual table
  std::memcpy(&encoded, &last, sizeof encoded);
  return (encoded - 1) / sizeof(void*);
}

// D13: locking, unlocking and exposure through OpenVMM's shared-pointer wrappers don't reach the backing.
TEST(D13_WrappersForward, EveryVirtualFunctionThatThereIs) {
  const size_t count = VirtualFunctionCount();
  ASSERT_GE(count, 17u) << "2 destructors and 15 methods when this was written";
  const Minimal minimal;  // has the defaults
  const SharedBacking<> wrapper(std::make_shared<Minimal>());
  const std::vector<void*> defaults = VirtualFunctions(minimal, count);
  const std::vector<void*> forwards = VirtualFunctions(wrapper, count);
  for (size_t i = 0; i < count; ++i) {
    EXPECT_NE(defaults[i], forwards[i]) << "SharedBacking doesn't forward virtual function " << i << " of GuestMemoryAccess";
  }
  // The comparison would notice: a class that overrides nothing shares all but its destructors.
  const std::vector<void*> inherited = VirtualFunctions(OneMore(), count);
  size_t same = 0;
  for (size_t i = 0; i < count; ++i) same += defaults[i] == inherited[i];
  EXPECT_GE(same, count - 2);
}

// Answers everything in its own way, and remembers the last call.
class Odd : public Minimal {
 public:
  std::byte* mapping() const override { return reinterpret_cast<std::byte*>(uintptr_t{0x10000}); }
  uint64_t max_address() const override { return 0x5000; }
  std::optional<BitmapInfo> access_bitmap() const override { return BitmapInfo{nullptr, nullptr, nullptr, 5}; }
  PageFaultAction PageFault(const PageFaultInfo& fault) override { return last = fault.address, PageFaultAction::Retry(); }
  Status ReadFallback(uint64_t address, std::span<std::byte>) override { return last = address, Status(); }
  Status WriteFallback(uint64_t address, std::span<const std::byte>) override { return last = address, Status(); }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return last = address + std::to_integer<uint64_t>(value) + length, Status();
  }
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte>, std::span<const std::byte>) override {
    return last = address, true;
  }
  bool supports_locking() const override { return false; }
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override { return last = gpns[0], Status(); }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override { last = gpns[0]; }
  Status ExposeVa(uint64_t address, uint64_t length) override { return last = address + length, AccessDenied(); }
  Result<std::optional<GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool preemptive) override {
    last = offset + length + preemptive;
    return std::optional(GuestMemory::Empty());
  }
  std::optional<uint64_t> base_iova() const override { return 0x77; }
  Result<Files> sharing() const override { return Files{{3, 4, 5, 6}}; }

  uint64_t last = 0;
};

TEST(D13_WrappersForward, ArgumentsAndAnswersOfEveryMethod) {
  auto odd = std::make_shared<Odd>();
  SharedBacking<Odd> shared(odd);
  GuestMemoryAccess& wrapper = shared;
  EXPECT_EQ(shared.inner(), odd);
  EXPECT_EQ(wrapper.mapping(), odd->mapping());
  EXPECT_EQ(wrapper.max_address(), 0x5000u);
  EXPECT_EQ(wrapper.access_bitmap()->bit_offset, 5);
  EXPECT_EQ(wrapper.PageFault({11, 1, AccessType::kRead, true}).kind(), PageFaultAction::Kind::kRetry);
  EXPECT_EQ(odd->last, 11u);
  EXPECT_TRUE(wrapper.ReadFallback(12, {}).ok());
  EXPECT_EQ(odd->last, 12u);
  EXPECT_TRUE(wrapper.WriteFallback(13, {}).ok());
  EXPECT_EQ(odd->last, 13u);
  EXPECT_TRUE(wrapper.FillFallback(100, std::byte{20}, 3).ok());
  EXPECT_EQ(odd->last, 123u);
  EXPECT_TRUE(wrapper.CompareExchangeFallback(14, {}, {}).value());
  EXPECT_EQ(odd->last, 14u);
  EXPECT_FALSE(wrapper.supports_locking());
  const std::array<uint64_t, 1> page = {15}, other = {16};
  EXPECT_TRUE(wrapper.LockGpns(AccessType::kRead, page).ok());
  EXPECT_EQ(odd->last, 15u);
  wrapper.UnlockGpns(AccessType::kRead, other);
  EXPECT_EQ(odd->last, 16u);
  EXPECT_EQ(wrapper.ExposeVa(200, 17).kind(), ErrorKind::kAccessDenied);
  EXPECT_EQ(odd->last, 217u);
  EXPECT_TRUE(wrapper.Subrange(300, 10, true).value().has_value());
  EXPECT_EQ(odd->last, 311u);
  EXPECT_EQ(wrapper.base_iova(), 0x77u);
  EXPECT_EQ(wrapper.sharing().value(), (Files{{3, 4, 5, 6}}));
}

TEST(Sharing, IsClippedAndMovedToTheMemorysCoordinates) {
  class Filed : public Minimal {
   public:
    explicit Filed(int fd) : fd_(fd) {}
    uint64_t max_address() const override { return 4 * kPageSize; }
    Result<Files> sharing() const override {
      return Files{{fd_, 0x100000, 0, kPageSize}, {fd_, 0x200000, 2 * kPageSize, ~uint64_t{0}}, {fd_, 0, ~uint64_t{0}, ~uint64_t{0}}, {fd_, 7, kPageSize, 0}};
    }

   private:
    int fd_;
  };
  const GuestMemory memory =
      GuestMemory::CreateMultiRegion("two", 4 * kPageSize, {nullptr, std::make_shared<Filed>(8), std::make_shared<Filed>(9)})
          .value();
  EXPECT_EQ(memory.sharing().value(), (Files{{8, 0x100000, 4 * kPageSize, kPageSize},
                                     {8, 0x200000, 6 * kPageSize, 2 * kPageSize},
                                     {9, 0x100000, 8 * kPageSize, kPageSize},
                                     {9, 0x200000, 10 * kPageSize, 2 * kPageSize}}));
  EXPECT_EQ(memory.Subrange(4 * kPageSize + 100, 2 * kPageSize).value().sharing().value(),
            (Files{{8, 0x100064, 0, kPageSize - 100}, {8, 0x200000, 2 * kPageSize - 100, 100}}));
  EXPECT_TRUE(GuestMemory::Empty().sharing().value().empty());
}

TEST(OwnViews, AreHandedOutIfTheyHaveTheSizeThatWasAskedFor) {
  class Viewing : public Minimal {
   public:
    Result<std::optional<GuestMemory>> Subrange(uint64_t, uint64_t, bool) override {
      return std::optional(GuestMemory::Allocate(2 * kPageSize).value());
    }
    uint64_t max_address() const override { return 16 * kPageSize; }
  };
  const GuestMemory memory = GuestMemory::Create("ram", std::make_shared<Viewing>()).value();
  const auto fits = memory.Subrange(kPageSize, 2 * kPageSize);
  ASSERT_TRUE(fits.ok());
  EXPECT_EQ(fits->ReadPlain<uint64_t>(0).value(), 0u);
  const auto refused = memory.Subrange(kPageSize, kPageSize);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kInternal);
  EXPECT_EQ(refused.status().ToString(),
            "guest memory 'ram': subrange error: failed to access 0x1000-0x2000: the backing's own view is not of the size "
            "that was asked for");
}

TEST(InnerBuffer, IsThereForAllocatedMemoryAlone) {
  GuestMemory memory = GuestMemory::Allocate(100).value();
  ASSERT_TRUE(memory.InnerBuffer());
  EXPECT_EQ(memory.InnerBuffer()->size(), kPageSize);
  (*memory.InnerBuffer())[5].store(7);
  EXPECT_EQ(memory.ReadPlain<uint8_t>(5).value(), 7);
  const GuestMemory view = memory.Subrange(0, 10).value();
  EXPECT_FALSE(view.InnerBuffer());
  GuestMemory other = GuestMemory::Create("heap", AlignedHeapMemory::Create(100).value()).value();
  EXPECT_FALSE(other.InnerBuffer());
  EXPECT_FALSE(other.InnerBufferMutable());
  EXPECT_FALSE(std::move(other).TakeInnerBuffer());
  const GuestMemory empty = GuestMemory::Empty();
  EXPECT_FALSE(empty.InnerBuffer());
}

TEST(InnerBuffer, IsMutableAndTakenOutOnlyWhileUnshared) {
  GuestMemory memory = GuestMemory::Allocate(kPageSize).value();
  ASSERT_TRUE(memory.InnerBufferMutable());
  (*memory.InnerBufferMutable())[9] = std::byte{3};
  const auto refuses = [&] { return !memory.InnerBufferMutable() && !std::move(memory).TakeInnerBuffer(); };
  {
    const GuestMemory copy = memory;
    EXPECT_TRUE(refuses());
  }
  {
    const GuestMemory view = memory.Subrange(0, 1).value();
    EXPECT_TRUE(refuses());
  }
  {
    const std::array<uint64_t, 1> page = {0};
    const LockedPages lock = memory.LockGpns(AccessType::kRead, false, page).value();
    EXPECT_TRUE(refuses());
  }
  const std::shared_ptr<AlignedHeapMemory> heap = std::move(memory).TakeInnerBuffer();
  ASSERT_NE(heap, nullptr);
  EXPECT_EQ(heap.use_count(), 1);
  EXPECT_EQ(heap->mapping()[9], std::byte{3});
  EXPECT_EQ(memory.ReadPlain<uint8_t>(0).status().kind(), ErrorKind::kOutOfRange) << "the handle is empty now";
}

}  // namespace
}  // namespace guestmem
