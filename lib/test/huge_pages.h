// Huge pages of the machine for a test, set aside for as long as one lives.

#ifndef GUESTMEM_LIB_TEST_HUGE_PAGES_H_
#define GUESTMEM_LIB_TEST_HUGE_PAGES_H_

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace guestmem::test {

inline constexpr uint64_t kHugePage = uint64_t{2} << 20;

// At least `count` free huge pages of 2 MiB, if the machine has them or lets us set them aside: that takes root, and memory that
// is not in pieces. One process at a time; what was set aside is given back even if it crashes.
class HugePages {
 public:
  explicit HugePages(uint64_t count) : lock_(open(kCount, O_RDONLY | O_CLOEXEC)) {
    flock(lock_, LOCK_EX);
    const uint64_t before = Read("nr_hugepages"), free = Free();
    if (free < count && pipe2(alive_, O_CLOEXEC) == 0 && (keeper_ = fork()) == 0) {
      KeepThenSet(before);
    }
    if (keeper_ > 0) {
      std::ofstream(kCount) << before + count - free;
    }
    if (Free() < count) {
      why_not_ = "no " + std::to_string(count) + " huge pages of 2 MiB are free here, and none could be set aside";
    }
  }
  ~HugePages() {
    if (keeper_ > 0) {
      close(alive_[1]);
      close(alive_[0]);
      waitpid(keeper_, nullptr, 0);
    }
    close(lock_);
  }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  const std::string& why_not() const { return why_not_; }  // empty: they are there
  // Free, and not promised to any mapping.
  static uint64_t Free() { return Read("free_hugepages") - Read("resv_hugepages"); }

 private:
  static constexpr char kCount[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

  static uint64_t Read(const char* name) {
    uint64_t value = 0;
    std::ifstream(std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + name) >> value;
    return value;
  }
  // A child of one thread: waits until its parent has let go or died.
  [[noreturn]] void KeepThenSet(uint64_t count) {
    close(alive_[1]);
    char byte;
    while (read(alive_[0], &byte, 1) > 0) {
    }
    std::ofstream(kCount) << count;
    _exit(0);
  }

  const int lock_;
  int alive_[2] = {-1, -1};
  pid_t keeper_ = -1;
  std::string why_not_;
};

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_HUGE_PAGES_H_
