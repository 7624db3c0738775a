// Files of huge pages: everything goes by their pages, and what does not is refused before anything has changed. With the machine's own
// huge pages where it lets us have them, and with a file of small ones that plays one of them everywhere.

#include "huge_pages.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "guestmem/detail/host_calls.h"
#include "guestmem/guest_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "host_state.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::HugePages;
using test::kHugePage;
using test::Ok;
using test::Says;
using Protection = SparseMapping::Protection;

// A file of two pages of 2 MiB, of the machine's or played.
class HugeFile : public testing::TestWithParam<bool> {
 protected:
  static constexpr uint64_t kFile = 2 * kHugePage;

  void SetUp() override {
    if (GetParam()) {
      pages_ = std::make_unique<HugePages>(4);
      if (!pages_->why_not().empty()) {
        GTEST_SKIP() << pages_->why_not();
      }
    } else {
      detail::SetFilePageSize(kHugePage);
    }
    fd_ = memfd_create("huge file", GetParam() ? MFD_CLOEXEC | MFD_HUGETLB : MFD_CLOEXEC);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(ftruncate(fd_, kFile), 0);
  }
  void TearDown() override {
    detail::SetFilePageSize(0);
    if (fd_ >= 0) {
      close(fd_);
    }
  }

  std::unique_ptr<HugePages> pages_;
  int fd_ = -1;
};

INSTANTIATE_TEST_SUITE_P(Pages, HugeFile, testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "OfTheMachine" : "Played"); });

// Memory of which each byte tells its page, around it everything that the process has mapped.
struct Ram {
  explicit Ram(uint64_t size) : mapping(SparseMapping::Create(size).value()), memory(GuestMemory::Create("ram", mapping).value()) {
    EXPECT_TRUE(Ok(mapping->Allocate(0, size)));
    for (uint64_t at = 0; at < size; at += kPageSize) {
      EXPECT_TRUE(Ok(memory.WritePlain<uint64_t>(at, at + 1)));
    }
  }
  void ExpectBytes(uint64_t start, uint64_t end) const {
    for (uint64_t at = start; at < end; at += kPageSize) {
      ASSERT_EQ(memory.ReadPlain<uint64_t>(at).value_or(0), at + 1);
    }
  }
  const std::shared_ptr<SparseMapping> mapping;
  const GuestMemory memory;
};

std::string Maps() {
  const auto counts = [](const std::string& line) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
    return line.find("memfd:") != line.npos;  // the run-time maps as it likes
#else
    return line.find("[heap]") == line.npos;
#endif
  };
  std::ifstream maps("/proc/self/maps");
  std::string text, line;
  while (std::getline(maps, line)) {
    text += counts(line) ? line + "\n" : "";
  }
  return text;
}

void ExpectRefused(const Status& status) {
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument) << status.ToString();
  EXPECT_TRUE(Says(status, "the file's pages of 2097152 bytes"));
}

TEST_P(HugeFile, IsMappedByItsPagesOrNotAtAll) {
  const Ram ram(3 * kHugePage + 2 * kPageSize);
  const uint64_t free = HugePages::Free();
  const std::string before = Maps();
  const struct {
    uint64_t offset, length, file_offset;
  } cases[] = {{0, kPageSize, 0},
               {0, kHugePage - kPageSize, 0},
               {0, kHugePage + kPageSize, 0},
               {kPageSize, kHugePage, 0},
               {kHugePage - kPageSize, kHugePage, 0},
               {0, kHugePage, kPageSize},
               {0, kHugePage, kHugePage - kPageSize},
               {3 * kHugePage, kPageSize, 0},                      // near the end of the reservation
               {3 * kHugePage, 2 * kPageSize, 0},
               {2 * kHugePage + 2 * kPageSize, kHugePage, 0}};
  for (const auto& [offset, length, file_offset] : cases) {
    ExpectRefused(ram.mapping->MapFile(offset, length, fd_, file_offset, true));
    ASSERT_EQ(Maps(), before) << offset << ' ' << length << ' ' << file_offset;
  }
  EXPECT_EQ(HugePages::Free(), free);
  ram.ExpectBytes(0, ram.mapping->max_address());
  ASSERT_TRUE(Ok(ram.mapping->MapFile(kHugePage, kHugePage, fd_, kHugePage, true)));
  EXPECT_TRUE(Ok(ram.memory.FillAt(kHugePage, std::byte{7}, kHugePage)));
  ram.ExpectBytes(0, kHugePage);
  ram.ExpectBytes(2 * kHugePage, ram.mapping->max_address());
}

TEST_P(HugeFile, InAMappingWithoutRoomForAHugePageIsRefused) {
  const Ram ram(kHugePage - kPageSize);
  const std::string before = Maps();
  for (uint64_t offset = 0; offset < ram.mapping->max_address(); offset += 64 * kPageSize) {
    ExpectRefused(ram.mapping->MapFile(offset, kPageSize, fd_, 0, true));
  }
  EXPECT_EQ(Maps(), before);
}

using Change = std::function<Status(SparseMapping&, uint64_t, uint64_t, int)>;
const std::pair<const char*, Change> kChanges[] = {
    {"Allocate", [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.Allocate(o, l); }},
    {"MapZero", [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.MapZero(o, l); }},
    {"MapFile", [](SparseMapping& m, uint64_t o, uint64_t l, int fd) { return m.MapFile(o, l, fd, 0, true); }},
    {"Protect", [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.Protect(o, l, Protection::kNone); }},
    {"Decommit", [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.Decommit(o, l); }},
    {"Unmap", [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.Unmap(o, l); }},
    {"AdviseHugePages",
     [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.AdviseHugePages(o, l, SparseMapping::HugePages::kRefused); }},
    {"BindToNode", [](SparseMapping& m, uint64_t o, uint64_t l, int) { return m.BindToNode(o, l, 0); }},
};

TEST_P(HugeFile, WhereItIsMappedEveryCallGoesByItsPages) {
  const Ram ram(4 * kHugePage);
  ASSERT_TRUE(Ok(ram.mapping->MapFile(kHugePage, 2 * kHugePage, fd_, 0, true)));
  ASSERT_TRUE(Ok(ram.memory.FillAt(kHugePage, std::byte{7}, 2 * kHugePage)));
  const test::File small(kPageSize);
  const AddressRange cuts[] = {{kHugePage, kPageSize},
                               {0, kHugePage + kPageSize},  // what comes before must stay, too
                               {2 * kHugePage - kPageSize, kPageSize},
                               {2 * kHugePage - kPageSize, 2 * kHugePage + kPageSize},
                               {2 * kHugePage, kHugePage - kPageSize},
                               {3 * kHugePage - kPageSize, 2 * kPageSize},
                               {kHugePage + kPageSize, kHugePage}};
  const std::string before = Maps();
  for (const auto& [name, change] : kChanges) {
    for (const AddressRange& cut : cuts) {
      detail::SetFilePageSize(kPageSize);  // of `small`
      const Status status = change(*ram.mapping, cut.start, cut.length, small.fd());
      detail::SetFilePageSize(GetParam() ? 0 : kHugePage);
      ExpectRefused(status);
      ASSERT_EQ(Maps(), before) << name << ' ' << cut.start << ' ' << cut.length;
    }
  }
  ram.ExpectBytes(0, kHugePage);
  ram.ExpectBytes(3 * kHugePage, 4 * kHugePage);
  std::vector<std::byte> bytes(2 * kHugePage);
  ASSERT_TRUE(Ok(ram.memory.ReadAt(kHugePage, bytes)));
  EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size(), std::byte{7}));
  // By whole pages of the file everything goes, also together with what is no file's.
  EXPECT_TRUE(Ok(ram.mapping->Protect(kHugePage - kPageSize, kHugePage + kPageSize, Protection::kRead)));
  EXPECT_FALSE(ram.memory.WritePlain<uint8_t>(kHugePage, 1).ok());
  EXPECT_TRUE(Ok(ram.memory.WritePlain<uint8_t>(2 * kHugePage, 8)));
  EXPECT_TRUE(Ok(ram.mapping->Decommit(kHugePage, kHugePage)));
  EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(kHugePage).value(), 7);  // the file has it
  EXPECT_TRUE(Ok(ram.mapping->Unmap(kHugePage, kHugePage)));
  EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(2 * kHugePage).value(), 8);
  EXPECT_TRUE(Ok(ram.mapping->Allocate(2 * kHugePage, kHugePage)));
  EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(2 * kHugePage).value(), 0);
  // No trace is left: small pages again.
  EXPECT_TRUE(Ok(ram.mapping->Unmap(2 * kHugePage + kPageSize, kPageSize)));
  EXPECT_TRUE(Ok(ram.mapping->MapZero(kHugePage + kPageSize, kHugePage)));
}

TEST_P(HugeFile, MappedPrivatelyGoesByItsPagesToo) {
  const Ram ram(3 * kHugePage);
  constexpr auto kPrivate = SparseMapping::FileMapping::kPrivate;
  ExpectRefused(ram.mapping->MapFile(0, kPageSize, fd_, 0, true, kPrivate));
  ASSERT_TRUE(Ok(ram.mapping->MapFile(kHugePage, kHugePage, fd_, 0, true, kPrivate)));
  ASSERT_TRUE(Ok(ram.memory.FillAt(kHugePage, std::byte{7}, kHugePage)));
  ExpectRefused(ram.mapping->Decommit(kHugePage, kPageSize));
  EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(kHugePage).value(), 7);
  ASSERT_TRUE(Ok(ram.mapping->Decommit(kHugePage, kHugePage)));
  EXPECT_EQ(ram.memory.ReadPlain<uint8_t>(kHugePage).value(), 0);  // the file's
  ram.ExpectBytes(0, kHugePage);
  ram.ExpectBytes(2 * kHugePage, 3 * kHugePage);
}

TEST_P(HugeFile, InARegionGoesByItsPages) {
  const auto guest = InProcessGuest::Create("vm", 8 * kHugePage).value();
  const GuestMemory vm = GuestMemory::Create("vm", guest).value();
  const NewMemoryRegion region = guest->NewRegion(3 * kHugePage + kPageSize, "region").value();
  const uint64_t free = HugePages::Free();
  for (const auto& [offset, file_offset, length] :
       {std::tuple<uint64_t, uint64_t, uint64_t>{0, 0, kPageSize}, {0, kPageSize, kHugePage}, {kPageSize, 0, kHugePage},
        {3 * kHugePage, 0, kPageSize}}) {
    ExpectRefused(region.region->Map(offset, fd_, file_offset, length, true));
  }
  EXPECT_EQ(HugePages::Free(), free);
  ASSERT_TRUE(Ok(region.region->Map(kHugePage, fd_, 0, 2 * kHugePage, true)));
  const auto cuts_nothing = [&] {
    ExpectRefused(region.region->Unmap(kHugePage, kPageSize));
    ExpectRefused(region.region->Unmap(0, 2 * kHugePage - kPageSize));
    ExpectRefused(region.region->Unmap(3 * kHugePage - kPageSize, 2 * kPageSize));
    const test::File small(kPageSize);
    detail::SetFilePageSize(kPageSize);
    ExpectRefused(region.region->Map(2 * kHugePage + kPageSize, small.fd(), 0, kPageSize, true));
    detail::SetFilePageSize(GetParam() ? 0 : kHugePage);
  };
  cuts_nothing();
  const std::string before = Maps();
  ExpectRefused(region.guest->MapToGuest(kPageSize, true));
  EXPECT_EQ(Maps(), before);
  ASSERT_TRUE(Ok(region.guest->MapToGuest(2 * kHugePage, true)));
  ASSERT_TRUE(Ok(vm.FillAt(3 * kHugePage, std::byte{7}, 2 * kHugePage)));
  cuts_nothing();
  EXPECT_EQ(vm.ReadPlain<uint8_t>(3 * kHugePage).value(), 7);
  EXPECT_EQ(vm.ReadPlain<uint8_t>(5 * kHugePage - 1).value(), 7);
  EXPECT_TRUE(Ok(region.region->Unmap(kHugePage, kHugePage)));
  EXPECT_EQ(vm.ReadPlain<uint8_t>(3 * kHugePage).status().kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(vm.ReadPlain<uint8_t>(4 * kHugePage).value(), 7);
  EXPECT_TRUE(Ok(region.guest->UnmapFromGuest()));
}

TEST(HugeSharedMemory, IsMadeOfHugePages) {
  const HugePages pages(2);
  if (!pages.why_not().empty()) {
    GTEST_SKIP() << pages.why_not();
  }
  const test::HostState before;
  const uint64_t free = HugePages::Free();
  {
    const auto ram = SharedMemory::Create(kHugePage + 1, {.page_size = kHugePage}).value();
    EXPECT_EQ(ram->size(), 2 * kHugePage);
    EXPECT_EQ(HugePages::Free(), free - 2) << "not reserved at creation";
    struct stat file;
    ASSERT_EQ(fstat(ram->fd(), &file), 0);
    EXPECT_EQ(static_cast<uint64_t>(file.st_blksize), kHugePage);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(ram->mapping()) % kHugePage, 0U);
    const GuestMemory memory = GuestMemory::Create("ram", ram).value();
    EXPECT_TRUE(Ok(memory.FillAt(0, std::byte{7}, ram->size())));
    EXPECT_NE(ftruncate(ram->fd(), kHugePage), 0) << "not sealed";
    // Another device's view of it, by the same pages.
    const auto other = SparseMapping::Create(2 * kHugePage).value();
    ExpectRefused(other->MapFile(0, kPageSize, ram->fd(), 0, false));
    ASSERT_TRUE(Ok(other->MapFile(0, kHugePage, ram->fd(), kHugePage, false)));
    EXPECT_EQ(other->mapping()[kHugePage - 1], std::byte{7});
  }
  EXPECT_EQ(HugePages::Free(), free);
  EXPECT_EQ(test::HostState(), before);
}

TEST(HugeSharedMemory, MoreThanTheMachineHasIsRefusedAndNothingIsLeft) {
  const test::HostState before;
  const uint64_t free = HugePages::Free();
  const Status status = SharedMemory::Create(uint64_t{1} << 44, {.page_size = kHugePage}).status();
  EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted) << status.ToString();
  EXPECT_EQ(test::HostState(), before);
  EXPECT_EQ(HugePages::Free(), free);
}

TEST(HugeSharedMemory, PageSizesThatAreNoneAreRefused) {
  const test::HostState before;
  for (const uint64_t page : {uint64_t{0}, uint64_t{1}, uint64_t{2048}, kPageSize + 1, 3 * kPageSize, kHugePage * 3, uint64_t{1} << 13,
                              uint64_t{1} << 46, uint64_t{1} << 63}) {
    const Status status = SharedMemory::Create(kHugePage, {.page_size = page}).status();
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument) << page << ": " << status.ToString();
  }
  EXPECT_EQ(test::HostState(), before);
}

}  // namespace
}  // namespace guestmem
