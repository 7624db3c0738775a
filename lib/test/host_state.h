// What a process holds of its host: file descriptors and mappings, counted before and after; and files to map.

#ifndef GUESTMEM_LIB_TEST_HOST_STATE_H_
#define GUESTMEM_LIB_TEST_HOST_STATE_H_

#include <dirent.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "guestmem/detail/host_side.h"

namespace guestmem::test {

// The open file descriptors, and the bytes of address space mapped. Without the C heap, whose leaks LeakSanitizer sees; and
// in a sanitizer build only what is of a memfd, because its run-time maps as it likes.
struct HostState {
  int files = 0;
  uint64_t mapped = 0;
  bool operator==(const HostState&) const = default;

  HostState() {
    DIR* const folder = opendir("/proc/self/fd");
    while (readdir(folder) != nullptr) {
      ++files;
    }
    closedir(folder);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      uint64_t start = 0, end = 0;
      if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64, &start, &end) == 2 && Counts(line)) {
        mapped += end - start;
      }
    }
  }

 private:
  static bool Counts(const std::string& line) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
    return line.find("memfd:") != line.npos;
#else
    return line.find("[heap]") == line.npos;
#endif
  }
};

inline std::ostream& operator<<(std::ostream& out, const HostState& state) {
  return out << state.files << " files, " << state.mapped << " bytes mapped";
}

// The VmFlags line of the mapping that `address` lies in.
inline std::string FlagsOfMapping(const void* address) {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    uint64_t start = 0, end = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2) {
      inside = wanted >= start && wanted < end;
    } else if (inside && line.starts_with("VmFlags:")) {
      return line;
    }
  }
  return "";
}

// A file of `size` bytes whose bytes tell their offset.
class File {
 public:
  explicit File(uint64_t size) : fd_(memfd_create("test file", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    std::vector<uint8_t> bytes(size);
    for (uint64_t i = 0; i < size; ++i) {
      bytes[i] = Byte(i);
    }
    if (fd_ < 0 || pwrite(fd_, bytes.data(), size, 0) != static_cast<ssize_t>(size)) {
      std::abort();
    }
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int fd() const { return fd_; }
  // As written at the beginning, and as it is now.
  static uint8_t Byte(uint64_t offset) { return static_cast<uint8_t>(offset * 7 + offset / 4096 * 31 + 3); }
  uint8_t At(uint64_t offset) const {
    uint8_t byte = 0;
    if (pread(fd_, &byte, 1, static_cast<off_t>(offset)) != 1) {
      std::abort();
    }
    return byte;
  }

 private:
  const int fd_;
};

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_HOST_STATE_H_
