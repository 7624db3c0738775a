// SharedMemory: one file, seen by a second process; and what nobody can do to it.

#include "guestmem/shared_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "child.h"
#include "guestmem/guest_memory.h"
#include "host_state.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::kPage;

constexpr uint64_t kSize = 5 * kPage;

// The other process: gets a descriptor and what sharing() said, maps it, reads what the guest wrote, answers.
void MapAndAnswer() {
  const auto number = [](const char* name) { return std::strtoull(std::getenv(name), nullptr, 10); };
  const uint64_t size = number("SIZE");
  void* const mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, static_cast<int>(number("FD")),
                            static_cast<off_t>(number("OFFSET")));
  CHILD_CHECK(mapped != MAP_FAILED);
  auto* const bytes = static_cast<char*>(mapped);
  CHILD_CHECK(std::strcmp(bytes + kPage - 3, "guest to device") == 0);
  std::strcpy(bytes + size - 32, "device to guest");
  test::Say("answered");
}

TEST(SharedMemory, ASecondProcessMapsItAndBothSeeTheBytes) {
  const auto ram = SharedMemory::Create(kSize).value();
  const auto memory = GuestMemory::Create("ram", ram).value();
  const std::string text = "guest to device";
  ASSERT_TRUE(memory.WriteAt(kPage - 3, std::as_bytes(std::span(text.c_str(), text.size() + 1))).ok());

  const auto files = ram->sharing().value();
  ASSERT_EQ(files.size(), 1U);
  EXPECT_EQ(files[0], (SharedFile{ram->fd(), 0, 0, kSize}));
  const int inherited = dup(files[0].fd);  // unlike the original it stays open on exec
  ASSERT_GE(inherited, 0);
  const test::ChildResult child =
      test::RunSelf({"--child", "MapAndAnswer"}, {"FD=" + std::to_string(inherited), "SIZE=" + std::to_string(files[0].size),
                                                  "OFFSET=" + std::to_string(files[0].file_offset)});
  close(inherited);
  ASSERT_TRUE(child.Exited(0)) << child;
  EXPECT_TRUE(child.Says("answered"));
  char answer[16];
  ASSERT_TRUE(memory.ReadAt(kSize - 32, std::as_writable_bytes(std::span(answer))).ok());
  EXPECT_STREQ(answer, "device to guest");
}

TEST(SharedMemory, NobodyCanShrinkGrowOrSealIt) {
  const auto ram = SharedMemory::Create(kSize).value();
  EXPECT_NE(ftruncate(ram->fd(), 0), 0);
  EXPECT_NE(ftruncate(ram->fd(), kSize - kPage), 0);
  EXPECT_NE(ftruncate(ram->fd(), kSize + kPage), 0);
  EXPECT_NE(fcntl(ram->fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  EXPECT_EQ(fcntl(ram->fd(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  const auto memory = GuestMemory::Create("ram", ram).value();
  EXPECT_TRUE(memory.ProbeWritable(0, kSize).ok());
}

TEST(SharedMemory, ItsDescriptorIsNotInherited) {
  const auto ram = SharedMemory::Create(kPage).value();
  EXPECT_EQ(fcntl(ram->fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(SharedMemory, IsZeroedRoundedUpAndAligned) {
  for (const uint64_t size : {uint64_t{1}, kPage + 1, uint64_t{2} << 20, (uint64_t{1} << 30) + 1}) {
    const auto ram = SharedMemory::Create(size).value();
    const uint64_t rounded = (size + kPage - 1) / kPage * kPage;
    EXPECT_EQ(ram->size(), rounded);
    EXPECT_EQ(ram->max_address(), rounded);
    EXPECT_EQ(ram->sharing().value()[0].size, rounded);
    const uint64_t alignment = size > uint64_t{1} << 30 ? uint64_t{1} << 30 : size >= uint64_t{2} << 20 ? uint64_t{2} << 20 : kPage;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(ram->mapping()) % alignment, 0U);
    const auto memory = GuestMemory::Create("ram", ram).value();
    EXPECT_EQ(memory.ReadPlain<uint64_t>(rounded - 8).value(), 0U);
  }
}

TEST(SharedMemory, SizesThatNoAddressSpaceHoldsAreRefused) {
  for (const uint64_t size : {uint64_t{0}, (uint64_t{1} << 47) - kPage + 1, ~uint64_t{0}}) {
    const auto refused = SharedMemory::Create(size);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(refused.status().ToString().find("guest memory 'shared memory': create error"), std::string::npos);
  }
}

TEST(SharedMemory, GivesBackItsMappingAndItsFile) {
  const test::HostState before;
  for (int i = 0; i < 3; ++i) {
    (void)SharedMemory::Create(kSize).value();
  }
  EXPECT_EQ(test::HostState(), before);
}

}  // namespace
}  // namespace guestmem

int main(int argc, char** argv) {
  using namespace guestmem;
  return test::TestMain(argc, argv, {{"MapAndAnswer", MapAndAnswer}});
}
