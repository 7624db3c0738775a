// What the backings of a world stand on: memory whose bytes tell where they are, a file to map, host calls that fail when they are
// told to. Tests that are made of traces carry this text by the sections that the lines of dashes name.

#ifndef GUESTMEM_REFERENCE_SUPPORT_ARENA_H_
#define GUESTMEM_REFERENCE_SUPPORT_ARENA_H_

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "guestmem/backing.h"
#include "guestmem/detail/host_calls.h"
#include "guestmem/sparse_mapping.h"
#include "reference/setup.h"
#include "reference/world/backings.h"

namespace reference {

// ---- Had
template <typename T>
T Had(guestmem::Result<T> result, const char* what) {
  Require(result.ok(), what);
  return *std::move(result);
}

// ---- HostCalls
// Makes the library's host calls fail. One change of a mapping is one of them to a trace, also where the library needs a second
// one to put it in place.
struct HostCalls {
  static inline unsigned left = 0;  // until one fails; 0: none will
  static inline int error = 0;      // with this errno
  static inline bool in_second = false;      // a change that takes two fails at the second
  static inline bool takes_two = false;      // such a change is running
  static inline bool second_fails = false;
  static inline uint64_t failed = 0;  // so many have

  static void Arm(unsigned n, int with_errno) {
    left = n;
    error = with_errno;
    in_second = n % 2 == 0;
  }
  static bool Fail(guestmem::detail::HostCall call) {
    if (call == guestmem::detail::HostCall::kCountLocks) return false;  // unit tests fail these
    errno = error;
    bool fails = false;
    if (call == guestmem::detail::HostCall::kMremap) {
      fails = std::exchange(second_fails, false);
    } else if (left != 0) {
      const bool now = --left == 0;
      second_fails = now && in_second && takes_two;
      fails = now && !second_fails;
    }
    failed += fails ? 1 : 0;
    return fails;
  }
};

// ---- WorldFile
// The file of the world. One serves all worlds, and is written anew if the last one has used it.
class WorldFile {
 public:
  static WorldFile& Get() {
    static auto* const file = new WorldFile;
    return *file;
  }
  // To be mapped, so it may be stored to.
  int fd() {
    used_ = true;
    return fd_;
  }
  void Reset() {
    if (!std::exchange(used_, false)) return;
    Require(pwrite(fd_, bytes_.data(), bytes_.size(), 0) == static_cast<ssize_t>(bytes_.size()), "pwrite");
  }

 private:
  WorldFile() : fd_(memfd_create("world file", MFD_CLOEXEC)) {
    Require(fd_ >= 0, "memfd_create");
    for (uint64_t i = 0; i < bytes_.size(); ++i) bytes_[i] = FilePattern(i);
    Reset();
  }

  const int fd_;
  bool used_ = true;
  std::array<uint8_t, kFilePages * kPageSize> bytes_;
};

// ---- HostRefuses
// What this machine's kernel refuses to everybody counts as done, so that a trace means the same on every machine.
inline bool HostRefuses(bool nodes) {
  static const auto refuses = [](const char* what, auto call) {
    void* const page = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Require(page != MAP_FAILED, "mmap");
    const bool refused = call(page) != 0;
    munmap(page, kPageSize);
    if (refused) std::fprintf(stderr, "note: this machine refuses %s; steps that ask for it succeed unseen\n", what);
    return refused;
  };
  static const bool no_huge_pages = refuses("huge pages", [](void* page) { return madvise(page, kPageSize, MADV_HUGEPAGE); });
  static const bool no_nodes = refuses("binding memory to NUMA node 0", [](void* page) {
    const unsigned long first = 1;
    return static_cast<int>(syscall(SYS_mbind, page, kPageSize, MPOL_BIND, &first, 64, MPOL_MF_MOVE));
  });
  return nodes ? no_nodes : no_huge_pages;
}

// ---- ArenaBacking Contents
// kMaxPages pages of memory, of which the first `size` bytes are shown.
class ArenaBacking : public guestmem::GuestMemoryAccess {
 public:
  ArenaBacking(uint8_t index, uint64_t size) : size_(size), arena_(Had(guestmem::SparseMapping::Create(kMaxPages * kPageSize), "arena")) {
    Require(arena_->Allocate(0, kMaxPages * kPageSize).ok(), "arena");
    for (uint64_t i = 0; i < kMaxPages * kPageSize; ++i) arena_->mapping()[i] = std::byte{MappedPattern(index, i)};
  }
  std::byte* mapping() const override { return arena_->mapping(); }
  uint64_t max_address() const override { return size_; }

  // Where byte `address` is, shown or not.
  std::byte* At(uint64_t address) const { return arena_->mapping() + address; }
  std::span<const uint8_t> MappedPage(uint64_t page, bool) { return {reinterpret_cast<const uint8_t*>(At(page * kPageSize)), kPageSize}; }

 protected:
  uint64_t size_;
  const std::shared_ptr<guestmem::SparseMapping> arena_;
};

// All bytes, also those that the guest cannot see now.
inline std::vector<uint8_t> Contents(auto& backing) {
  std::vector<uint8_t> bytes;
  for (uint64_t page = 0; page < kMaxPages; ++page) {
    const std::span<const uint8_t> more = backing.MappedPage(page, true);
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_SUPPORT_ARENA_H_
