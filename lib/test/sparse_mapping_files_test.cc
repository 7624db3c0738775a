// SparseMapping: what each call makes of the pages, seen through GuestMemory; what it refuses, and that a refusal changes
// nothing. The lockstep watches the same calls in any order; here are the ones it cannot make.

#include "guestmem/sparse_mapping.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "guestmem/guest_memory.h"
#include "host_state.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::File;
using test::kPage;

constexpr uint64_t kMebibyte = uint64_t{1} << 20;
constexpr uint64_t kGibibyte = uint64_t{1} << 30;

struct Ram {
  explicit Ram(uint64_t size)
      : mapping(SparseMapping::Create(size).value()), memory(GuestMemory::Create("ram", mapping).value()) {}
  uint8_t At(uint64_t gpa) const { return memory.ReadPlain<uint8_t>(gpa).value(); }
  ErrorKind ReadKind(uint64_t gpa) const { return memory.ReadPlain<uint8_t>(gpa).status().kind(); }
  ErrorKind WriteKind(uint64_t gpa) const { return memory.WritePlain<uint8_t>(gpa, 1).kind(); }

  std::shared_ptr<SparseMapping> mapping;
  GuestMemory memory;
};

TEST(SparseMapping, IsAlignedForTheLargestHugePageThatFits) {
  const struct {
    uint64_t size, alignment;
  } cases[] = {{1, kPage}, {2 * kMebibyte - kPage, kPage}, {2 * kMebibyte - 1, 2 * kMebibyte}, {2 * kMebibyte, 2 * kMebibyte},
               {5 * kMebibyte, 2 * kMebibyte}, {kGibibyte - kPage, 2 * kMebibyte}, {kGibibyte, kGibibyte}, {uint64_t{1} << 40, kGibibyte}};
  for (const auto& [size, alignment] : cases) {
    for (int i = 0; i < 3; ++i) {
      const auto mapping = SparseMapping::Create(size).value();
      EXPECT_EQ(reinterpret_cast<uintptr_t>(mapping->mapping()) % alignment, 0U) << size;
      EXPECT_EQ(mapping->max_address(), (size + kPage - 1) / kPage * kPage);
    }
  }
}

TEST(SparseMapping, GivesBackAllThatItReserved) {
  const test::HostState before;
  for (const uint64_t size : {kPage, 3 * kMebibyte, kGibibyte}) {
    const Ram ram(size);
    EXPECT_TRUE(ram.mapping->Allocate(0, kPage).ok());
  }
  EXPECT_EQ(test::HostState(), before);
}

TEST(SparseMapping, SizesThatNoAddressSpaceHoldsAreRefused) {
  for (const uint64_t size : {uint64_t{0}, (uint64_t{1} << 47) - kPage + 1, uint64_t{1} << 63, ~uint64_t{0}}) {
    const auto refused = SparseMapping::Create(size);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().kind(), ErrorKind::kInvalidArgument);
  }
  EXPECT_EQ(SparseMapping::Create((uint64_t{1} << 47) - kPage).status().kind(), ErrorKind::kResourceExhausted);
}

TEST(SparseMapping, AFileIsReadAndWrittenThroughItsPages) {
  const File file(3 * kPage);
  const Ram ram(8 * kPage);
  ASSERT_TRUE(ram.mapping->MapFile(2 * kPage, 2 * kPage, file.fd(), kPage, true).ok());
  EXPECT_EQ(ram.At(2 * kPage + 5), file.At(kPage + 5));
  ASSERT_TRUE(ram.memory.WritePlain<uint8_t>(3 * kPage + 7, 0xee).ok());
  EXPECT_EQ(file.At(2 * kPage + 7), 0xee);
  EXPECT_EQ(ram.ReadKind(kPage), ErrorKind::kNotMapped);
  EXPECT_EQ(ram.ReadKind(4 * kPage), ErrorKind::kNotMapped);
}

TEST(SparseMapping, AStoreToAPrivateMappingStaysOutOfTheFile) {
  const File file(2 * kPage);
  const int read_only = open(("/proc/self/fd/" + std::to_string(file.fd())).c_str(), O_RDONLY | O_CLOEXEC);
  const Ram ram(4 * kPage);
  ASSERT_TRUE(ram.mapping->MapFile(kPage, 2 * kPage, read_only, 0, true, SparseMapping::FileMapping::kPrivate).ok());
  close(read_only);
  ASSERT_TRUE(ram.memory.WritePlain<uint8_t>(kPage + 5, 0xee).ok());
  EXPECT_EQ(ram.At(kPage + 5), 0xee);
  EXPECT_EQ(ram.At(kPage + 6), file.At(6));
  EXPECT_EQ(file.At(5), File::Byte(5));
  ASSERT_TRUE(ram.mapping->Decommit(kPage, 2 * kPage).ok());
  EXPECT_EQ(ram.At(kPage + 5), file.At(5));
  ASSERT_TRUE(ram.mapping->MapFile(0, kPage, file.fd(), kPage, false, SparseMapping::FileMapping::kPrivate).ok());
  EXPECT_EQ(ram.WriteKind(0), ErrorKind::kNotMapped);
  ASSERT_TRUE(ram.mapping->Protect(0, kPage, SparseMapping::Protection::kReadWrite).ok());
  EXPECT_TRUE(ram.memory.WritePlain<uint8_t>(7, 1).ok());
  EXPECT_EQ(file.At(kPage + 7), File::Byte(kPage + 7));
}

TEST(SparseMapping, PagesBehindTheEndOfAFileAreNotMapped) {
  const File file(kPage);
  const Ram ram(4 * kPage);
  ASSERT_TRUE(ram.mapping->MapFile(0, 3 * kPage, file.fd(), 0, true).ok());
  std::array<std::byte, 2 * kPage> buffer;
  const Status status = ram.memory.ReadAt(100, buffer);
  EXPECT_EQ(status.kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(status.info().fault_address, kPage);
  EXPECT_EQ(status.info().transferred, kPage - 100);
  const Status store = ram.memory.WritePlain<uint32_t>(kPage, 1);  // a bus error, no refusal of stores
  EXPECT_TRUE(store.ToString().ends_with(": the page is not mapped")) << store.ToString();
}

TEST(SparseMapping, AFileMappedForReadingTakesNoStoreUntilProtectedForIt) {
  const File file(kPage);
  const Ram ram(kPage);
  ASSERT_TRUE(ram.mapping->MapFile(0, kPage, file.fd(), 0, false).ok());
  EXPECT_EQ(ram.WriteKind(0), ErrorKind::kNotMapped);
  ASSERT_TRUE(ram.mapping->Protect(0, kPage, SparseMapping::Protection::kReadWrite).ok());
  EXPECT_TRUE(ram.memory.WritePlain<uint8_t>(0, 1).ok());
  EXPECT_EQ(file.At(0), 1);
}

TEST(SparseMapping, DecommitZeroesMemoryAndKeepsAFile) {
  const File file(kPage);
  const Ram ram(3 * kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, kPage).ok());
  ASSERT_TRUE(ram.mapping->MapFile(kPage, kPage, file.fd(), 0, true).ok());
  ASSERT_TRUE(ram.memory.FillAt(0, std::byte{0xaa}, 2 * kPage).ok());
  ASSERT_TRUE(ram.mapping->Decommit(0, 3 * kPage).ok());
  EXPECT_EQ(ram.At(17), 0);
  EXPECT_EQ(ram.At(kPage + 17), 0xaa);
  EXPECT_EQ(ram.ReadKind(2 * kPage), ErrorKind::kNotMapped);
  EXPECT_TRUE(ram.memory.WritePlain<uint8_t>(17, 3).ok());  // the mapping stayed
}

TEST(SparseMapping, DecommitGivesTheMemoryBack) {
  const Ram ram(16 * kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, 16 * kPage).ok());
  ASSERT_TRUE(ram.memory.FillAt(0, std::byte{1}, 16 * kPage).ok());
  std::array<unsigned char, 16> resident;
  const auto count = [&] {
    EXPECT_EQ(mincore(ram.mapping->mapping(), 16 * kPage, resident.data()), 0);
    int pages = 0;
    for (const unsigned char page : resident) {
      pages += page & 1;
    }
    return pages;
  };
  EXPECT_EQ(count(), 16);
  ASSERT_TRUE(ram.mapping->Decommit(4 * kPage, 8 * kPage).ok());
  EXPECT_EQ(count(), 8);
}

TEST(SparseMapping, DecommitGivesBackLockedInMemoryToo) {
  const Ram ram(3 * kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, 3 * kPage).ok());
  ASSERT_TRUE(ram.memory.FillAt(0, std::byte{7}, 3 * kPage).ok());
  if (mlock(ram.mapping->mapping() + kPage, kPage) != 0) {
    GTEST_SKIP() << "mlock: " << std::strerror(errno);
  }
  const Status status = ram.mapping->Decommit(0, 3 * kPage);
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (uint64_t page = 0; page < 3; ++page) {
    EXPECT_EQ(ram.At(page * kPage), 0) << page;
  }
}

using Change = Status (*)(SparseMapping&, uint64_t offset, uint64_t length);
constexpr Change kChanges[] = {
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Allocate(o, l); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.MapZero(o, l); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.MapFile(o, l, 0, 0, false); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Protect(o, l, SparseMapping::Protection::kNone); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Decommit(o, l); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.Unmap(o, l); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.AdviseHugePages(o, l, SparseMapping::HugePages::kAdvised); },
    [](SparseMapping& m, uint64_t o, uint64_t l) { return m.BindToNode(o, l, 0); },
};

TEST(SparseMapping, EveryCallChecksItsRange) {
  const Ram ram(4 * kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, 4 * kPage).ok());
  ASSERT_TRUE(ram.memory.FillAt(0, std::byte{7}, 4 * kPage).ok());
  for (const Change change : kChanges) {
    const struct {
      uint64_t offset, length;
    } cases[] = {{0, 5 * kPage}, {4 * kPage, kPage}, {1, kPage}, {0, 1}, {0, ~uint64_t{0} - kPage + 1}, {~uint64_t{0} - kPage + 1, kPage},
                 {kPage, ~uint64_t{0} - kPage + 1}};
    for (const auto& [offset, length] : cases) {
      const Status status = change(*ram.mapping, offset, length);
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument);
      EXPECT_EQ(status.info().operation, Operation::kCreate);
      EXPECT_EQ(status.info().range, (AddressRange{offset, length}));
    }
    EXPECT_TRUE(change(*ram.mapping, 0, 0).ok());
    EXPECT_TRUE(change(*ram.mapping, 4 * kPage, 0).ok());
  }
  for (uint64_t gpa = 0; gpa < 4 * kPage; gpa += 64) {
    EXPECT_EQ(ram.At(gpa), 7);
  }
}

TEST(SparseMapping, AFileThatCannotBeMappedChangesNothing) {
  const Ram ram(2 * kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, 2 * kPage).ok());
  ASSERT_TRUE(ram.memory.FillAt(0, std::byte{7}, 2 * kPage).ok());
  const File file(2 * kPage);
  const int read_only = open(("/proc/self/fd/" + std::to_string(file.fd())).c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(read_only, 0);
  const File sealed(2 * kPage);
  ASSERT_EQ(fcntl(sealed.fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0) << std::strerror(errno);
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  const struct {
    int fd;
    uint64_t file_offset;
    const char* text;
  } cases[] = {{-1, 0, "Bad file descriptor"},     {read_only, 0, "Permission denied"},
               {sealed.fd(), 0, "Operation not permitted"}, {sockets[0], 0, "No such device"},
               {file.fd(), 1, "the file offset"},  {file.fd(), uint64_t{1} << 63, "the file offset"},
               {file.fd(), (uint64_t{1} << 63) - kPage, "the file offset"}};
  const test::HostState before;
  for (const auto& [fd, file_offset, text] : cases) {
    const Status status = ram.mapping->MapFile(0, 2 * kPage, fd, file_offset, true);
    ASSERT_FALSE(status.ok()) << text;
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument) << status.ToString();
    EXPECT_NE(status.ToString().find(text), std::string::npos) << status.ToString();
    EXPECT_EQ(ram.At(5), 7);
    EXPECT_EQ(ram.At(kPage + 5), 7);
  }
  EXPECT_EQ(test::HostState(), before);
  for (const int fd : {read_only, sockets[0], sockets[1]}) {
    close(fd);
  }
}

TEST(SparseMapping, AFileOpenedForReadingCannotBeProtectedForWriting) {
  const File file(kPage);
  const int read_only = open(("/proc/self/fd/" + std::to_string(file.fd())).c_str(), O_RDONLY | O_CLOEXEC);
  const Ram ram(kPage);
  ASSERT_TRUE(ram.mapping->MapFile(0, kPage, read_only, 0, false).ok());
  close(read_only);
  EXPECT_EQ(ram.mapping->Protect(0, kPage, SparseMapping::Protection::kReadWrite).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(ram.At(9), file.At(9));
}

TEST(SparseMapping, MoreMemoryThanTheMachineHasIsRefusedAndChangesNothing) {
  constexpr uint64_t kSize = uint64_t{1} << 42;  // 4 TiB: over the overcommit heuristic, and within every sanitizer's address space
  const Ram ram(kSize);
  ASSERT_TRUE(ram.mapping->Allocate(kPage, kPage).ok());
  ASSERT_TRUE(ram.memory.WritePlain<uint8_t>(kPage, 7).ok());
  const Status status = ram.mapping->Allocate(0, kSize, SparseMapping::Commit::kReserve);
  if (status.ok()) {
    GTEST_SKIP() << "this machine has 4 TiB, or overcommits without limit (vm.overcommit_memory = 1)";
  }
  EXPECT_EQ(status.kind(), ErrorKind::kResourceExhausted);
  EXPECT_EQ(ram.At(kPage), 7);
  EXPECT_EQ(ram.ReadKind(0), ErrorKind::kNotMapped);
  // Nobody else's mapping may land in the reservation.
  for (int i = 0; i < 8; ++i) {
    void* const other = mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const auto* const base = static_cast<const void*>(ram.mapping->mapping());
    EXPECT_FALSE(other >= base && other < ram.mapping->mapping() + kSize);
    munmap(other, kPage);
  }
}

TEST(SparseMapping, HugePageAdviceReachesTheKernel) {
  const Ram ram(4 * kMebibyte);
  ASSERT_TRUE(ram.mapping->Allocate(0, 4 * kMebibyte).ok());
  const Status status = ram.mapping->AdviseHugePages(0, 4 * kMebibyte, SparseMapping::HugePages::kAdvised);
  if (!status.ok() && status.ToString().find("no transparent huge pages") != std::string::npos) {
    GTEST_SKIP() << status.ToString();
  }
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_NE(test::FlagsOfMapping(ram.mapping->mapping()).find(" hg"), std::string::npos);
  ASSERT_TRUE(ram.mapping->AdviseHugePages(0, 4 * kMebibyte, SparseMapping::HugePages::kRefused).ok());
  EXPECT_NE(test::FlagsOfMapping(ram.mapping->mapping()).find(" nh"), std::string::npos);
}

TEST(SparseMapping, BoundMemoryComesFromItsNode) {
  constexpr unsigned long kNodeOfAddress = 1 | 2;  // MPOL_F_NODE | MPOL_F_ADDR
  const Ram ram(4 * kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, 4 * kPage).ok());
  const Status status = ram.mapping->BindToNode(0, 4 * kPage, 0);
  if (!status.ok() && status.ToString().find("no NUMA support") != std::string::npos) {
    GTEST_SKIP() << status.ToString();
  }
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_TRUE(ram.memory.FillAt(0, std::byte{1}, 4 * kPage).ok());
  int node = -1;
  ASSERT_EQ(syscall(SYS_get_mempolicy, &node, nullptr, 0, ram.mapping->mapping() + kPage, kNodeOfAddress), 0);
  EXPECT_EQ(node, 0);
}

TEST(SparseMapping, ANodeThatIsNotThereIsRefused) {
  const Ram ram(kPage);
  ASSERT_TRUE(ram.mapping->Allocate(0, kPage).ok());
  for (const unsigned node : {1023U, 1024U, ~0U}) {
    const Status status = ram.mapping->BindToNode(0, kPage, node);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument) << status.ToString();
  }
}

}  // namespace
}  // namespace guestmem
