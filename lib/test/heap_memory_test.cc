// AlignedHeapMemory: size, alignment, zeroes, errors.

#include "guestmem/heap_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "guestmem/detail/host_calls.h"
#include "guestmem/guest_memory.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Ok;
using test::Says;

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(AlignedHeapMemory, IsPageAlignedZeroedAndRoundedUp) {
  for (const auto& [asked, given] : {std::pair<uint64_t, uint64_t>{1, kPageSize},
                                     {kPageSize - 1, kPageSize},
                                     {kPageSize, kPageSize},
                                     {kPageSize + 1, 2 * kPageSize},
                                     {uint64_t{1} << 20, uint64_t{1} << 20}}) {
    const std::shared_ptr<AlignedHeapMemory> memory = AlignedHeapMemory::Create(asked).value();
    EXPECT_EQ(memory->max_address(), given);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->mapping()) % kPageSize, 0U);
    EXPECT_TRUE(
        std::all_of(memory->mapping(), memory->mapping() + given, [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n(memory->mapping(), given, std::byte{0xff});  // dirty, so that the next one's zeroes are its own
  }
}

TEST(AlignedHeapMemory, MayBeEmpty) {
  const std::shared_ptr<AlignedHeapMemory> memory = AlignedHeapMemory::Create(0).value();
  EXPECT_EQ(memory->max_address(), 0U);
  EXPECT_EQ(GuestMemory::Create("rom", memory).value().ReadPlain<uint8_t>(0).status().kind(), ErrorKind::kOutOfRange);
}

TEST(AlignedHeapMemory, RefusesASizeThatIsNotBelow2To63) {
  for (const uint64_t size : {(uint64_t{1} << 63) - kPageSize + 1, uint64_t{1} << 63, kMax - kPageSize + 1, kMax}) {
    const Status status = AlignedHeapMemory::Create(size).status();
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument) << size;
    EXPECT_EQ(status.info().range, (AddressRange{0, size}));
    EXPECT_TRUE(Says(status, "guest memory 'heap': create error: failed to access 0x0-"));
  }
}

TEST(AlignedHeapMemory, ReportsMemoryThatCannotBeHad) {
  detail::SetHostCallFilter([](detail::HostCall call) { return call == detail::HostCall::kAllocate; });
  for (const uint64_t size : {kPageSize, (uint64_t{1} << 63) - kPageSize}) {  // the second: as large as is allowed
    const Status status = AlignedHeapMemory::Create(size).status();
    EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  }
  detail::SetHostCallFilter(nullptr);
}

TEST(AlignedHeapMemory, HasNoBitmapNoIovaAndTheDefaultAnswers) {
  const std::shared_ptr<AlignedHeapMemory> memory = AlignedHeapMemory::Create(kPageSize).value();
  EXPECT_FALSE(memory->access_bitmap());
  EXPECT_FALSE(memory->base_iova());
  std::byte byte{};
  EXPECT_EQ(memory->ReadFallback(0, {&byte, 1}).kind(), ErrorKind::kNoFallback);
  EXPECT_EQ(memory->PageFault({0, 1, AccessType::kRead, true}).status().kind(), ErrorKind::kAccessDenied);
  EXPECT_EQ(memory->PageFault({0, 1, AccessType::kRead, false}).status().kind(), ErrorKind::kNotMapped);
}

}  // namespace
}  // namespace guestmem
