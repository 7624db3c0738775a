// Pages for tests: populated ones followed by ones that fault, and a second mapping that looks behind them.

#ifndef GUESTMEM_LIB_TEST_PAGES_H_
#define GUESTMEM_LIB_TEST_PAGES_H_

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace guestmem::test {

inline constexpr size_t kPage = 4096;

// What makes the pages behind the populated ones fault.
enum class Hole {
  kInaccessible,  // PROT_NONE
  kReadOnly,      // faults for writes
  kTruncated,     // a shared mapping beyond the end of its file
};

class Pages {
 public:
  Pages(size_t populated, size_t holes, Hole hole) : populated_(populated), total_(populated + holes), hole_(hole) {
    const int file = memfd_create("pages", MFD_CLOEXEC);
    Require(file >= 0 && ftruncate(file, static_cast<off_t>(total_ * kPage)) == 0);
    base_ = Map(file);
    alias_ = Map(file);
    if (hole == Hole::kTruncated) {
      base_[populated_ * kPage] = std::byte{1};  // was there once
      Require(ftruncate(file, static_cast<off_t>(populated_ * kPage)) == 0);
    } else {
      const int protection = hole == Hole::kReadOnly ? PROT_READ : PROT_NONE;
      Require(mprotect(base_ + populated_ * kPage, holes * kPage, protection) == 0);
    }
    close(file);
  }
  ~Pages() {
    munmap(base_, total_ * kPage);
    munmap(alias_, total_ * kPage);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  std::byte* begin() const { return base_; }
  // The first byte that faults.
  std::byte* hole() const { return base_ + populated_ * kPage; }
  // The same memory through the mapping that does not fault.
  std::byte* Behind(const std::byte* address) const { return alias_ + (address - base_); }
  // The bytes from hole() on that exist and Behind can show.
  size_t hidden() const { return hole_ == Hole::kTruncated ? 0 : (total_ - populated_) * kPage; }

  int signal() const { return hole_ == Hole::kTruncated ? SIGBUS : SIGSEGV; }
  int code() const { return hole_ == Hole::kTruncated ? int{BUS_ADRERR} : int{SEGV_ACCERR}; }

 private:
  static void Require(bool done) {
    if (!done) {
      std::abort();
    }
  }
  std::byte* Map(int file) const {
    void* const mapped = mmap(nullptr, total_ * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    Require(mapped != MAP_FAILED);
    return static_cast<std::byte*>(mapped);
  }

  const size_t populated_;
  const size_t total_;
  const Hole hole_;
  std::byte* base_;
  std::byte* alias_;
};

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_PAGES_H_
