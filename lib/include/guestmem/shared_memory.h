// SharedMemory: guest memory in a memfd, for device processes that map the same bytes.
//
//   auto ram = guestmem::SharedMemory::Create(uint64_t{4} << 30).value();
//   auto memory = guestmem::GuestMemory::Create("ram", ram).value();
//   send(socket, ram->sharing());   // fd by SCM_RIGHTS; the other process: mmap(MAP_SHARED, fd, file_offset)
//   auto huge = guestmem::SharedMemory::Create(uint64_t{4} << 30, {.page_size = 2 << 20});   // on huge pages of 2 MiB
//
// The file is sealed: a holder of the descriptor cannot shrink it (which would make this process's accesses fault), grow it, or
// add seals. It can still punch holes (the bytes there become zero). Memory is taken when a page is first touched
// (huge pages: at creation).
//
// When not: memory that only this process uses (SparseMapping costs less); memory that must be taken away from a device:
// clearing access bits does not reach a process that has mapped the file.
//
// Locks (GuestMemory::LockGpns) need no counting: no call takes a page away. A hole that another process punches does.
//
// Threads: immutable after creation but for its bytes. Signal context: no. Units: bytes.

#ifndef GUESTMEM_SHARED_MEMORY_H_
#define GUESTMEM_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "guestmem/backing.h"
#include "guestmem/sharing.h"
#include "guestmem/status.h"

namespace guestmem {

struct SharedMemoryOptions {
  // Bytes in a page of the file: a power of two. Over 4096, huge pages, which the host's administrator has set aside
  // (/proc/sys/vm/nr_hugepages). They are reserved at creation, so that no touch finds none.
  uint64_t page_size = kPageSize;
};

class SharedMemory final : public GuestMemoryAccess {
 public:
  static constexpr bool kLinear = true;

  // `size` bytes, rounded up to pages of that size, zeroed, mapped at a multiple of 1 GiB or 2 MiB where it is that large.
  // Errors: kInvalidArgument (0, or 2^47 and more; huge pages of a size that this machine does not have), kResourceExhausted (address
  // space, file descriptors, huge pages).
  static Result<std::shared_ptr<SharedMemory>> Create(uint64_t size, SharedMemoryOptions options = {});

  ~SharedMemory() override;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // The memfd, owned by this object and closed on exec: duplicate it to keep it longer or to hand it to a child.
  int fd() const { return fd_; }
  uint64_t size() const { return size_; }

  // The one file behind all of it. Errors: kResourceExhausted.
  Result<std::vector<SharedFile>> sharing() const override;

  std::byte* mapping() const override { return base_; }
  uint64_t max_address() const override { return size_; }

 private:
  SharedMemory(int fd, std::byte* reserved, uint64_t reserved_size, std::byte* base, uint64_t size)
      : fd_(fd), reserved_(reserved), reserved_size_(reserved_size), base_(base), size_(size) {}

  const int fd_;
  std::byte* const reserved_;  // base_ was aligned in it
  const uint64_t reserved_size_;
  std::byte* const base_;
  const uint64_t size_;
};

}  // namespace guestmem

#endif  // GUESTMEM_SHARED_MEMORY_H_
