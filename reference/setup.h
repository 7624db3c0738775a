// What the harness itself needs of the machine. Where the machine has no more memory, mappings, files or processes, that says
// nothing about the engine: the process ends with a status of its own and the reason, never as a crash or a divergence.

#ifndef GUESTMEM_REFERENCE_SETUP_H_
#define GUESTMEM_REFERENCE_SETUP_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace reference {

// ---- CannotSetUp
inline constexpr int kCannotSetUp = 3;  // the exit status

[[noreturn]] inline void CannotSetUp(const char* what, const char* reason) {
  std::fflush(stdout);
  std::fprintf(stderr, "could not set up: %s: %s\n", what, reason);
  std::_Exit(kCannotSetUp);
}

// ---- Require
inline void Require(bool done, const char* what) {
  if (!done) {
    CannotSetUp(what, std::strerror(errno));
  }
}

// ----
// What a step may ask of the machine and the machine refuses now; empty: nothing. `bytes`: the largest mapping that the step makes.
inline std::string MachineRefuses(uint64_t bytes) {
  constexpr size_t kPage = 4096, kPieces = 16;
  const auto refused = [](const char* what) { return std::string(what) + ": " + std::strerror(errno); };
  const int file = memfd_create("probe", MFD_CLOEXEC);
  if (file < 0) {
    return refused("a file descriptor");
  }
  close(file);
  void* const pieces = mmap(nullptr, kPieces * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pieces == MAP_FAILED) {
    return refused("a mapping");
  }
  std::string why;
  for (size_t i = 0; i < kPieces && why.empty(); i += 2) {
    if (mprotect(static_cast<std::byte*>(pieces) + i * kPage, kPage, PROT_NONE) != 0) {
      why = refused("one more mapping");
    }
  }
  munmap(pieces, kPieces * kPage);
  if (!why.empty() || bytes == 0) {
    return why;
  }
  void* const reserved = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) {
    return refused("address space");
  }
  munmap(reserved, bytes);
  return {};
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_SETUP_H_
