// Every fallible call to the operating system goes through here (guestmem/detail/host_calls.h says why).

#ifndef GUESTMEM_SRC_HOST_HOST_CALLS_H_
#define GUESTMEM_SRC_HOST_HOST_CALLS_H_

#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "guestmem/detail/host_calls.h"

namespace guestmem::host {

// As the system calls; null or -1 on failure, with errno set.
void* Map(void* address, size_t length, int protection, int flags, int file, off_t offset,
          detail::HostCall call = detail::HostCall::kMmap);
int Protect(void* address, size_t length, int protection);
int Advise(void* address, size_t length, int advice);
// Gives back what the pages hold; of mlocked ones too, from Linux 5.18 on.
int Discard(void* address, size_t length);
// Binds what is mapped there to one NUMA node and moves what is populated; `node` is below kMaxNodes.
inline constexpr unsigned kMaxNodes = 1024;
int BindToNode(void* address, size_t length, unsigned node);
// Cannot fail on a range we own; not filtered.
void Unmap(void* address, size_t length);

// Whether a load from this page would succeed now, without making it and its fault. Not filtered.
bool CanRead(const void* address);

// Puts a new mapping in the place of what [address, address + length) holds, or changes nothing. Made elsewhere and then
// moved, because mmap(MAP_FIXED) takes the old mapping away before it asks the file, which may refuse: that would leave a hole for
// anyone's next mmap.
bool Replace(void* address, size_t length, int protection, int flags, int file, off_t offset);
// The same for private memory without a file, in place, so that neighbours become one mapping and no second address space is
// needed. Before Linux 6.12 the kernel took the old mapping away before it refused memory that a store could ask for, because too
// much is committed: there, that kind is made elsewhere too.
bool ReplaceByMemory(void* address, size_t length, int protection, int flags);

// The size of a file's pages, of which a mapping has only whole ones. More than kPageSize for files of huge pages (hugetlbfs).
uint64_t FilePageSize(int file);

// File descriptors, closed on exec; -1 on failure, with errno set. `page_size`: a power of two; over kPageSize, huge pages.
int MakeMemfd(const char* name, uint64_t page_size);
int Resize(int file, uint64_t size);
int Seal(int file, int seals);
int MakeEventfd();
int Duplicate(int file);
// Whether both show one regular file, opened alike: either may be mapped in the other's place. Not filtered.
bool AreOneFile(int a, int b);
// Takes the count of an eventfd: 1 taken, 0 it was zero and `wait` is false, -1 failure.
int TakeEvent(int file, bool wait);
// Not filtered.
void Close(int file);

// Memory from the heap, or null; for sizes that a guest or a backing's size decides.
void* Allocate(size_t size);
void* AllocateZeroed(size_t alignment, size_t size, detail::HostCall call = detail::HostCall::kAllocate);
void Free(void* memory);
// Asks the filter about an allocation of such a size that the C++ library will make. False: act as if it had failed.
bool MayAllocate();

// Undoes what was done so far if the scope is left before it is kept, by an error or by an exception.
template <typename Call>
class Rollback {
 public:
  explicit Rollback(Call undo) : undo_(std::move(undo)) {}
  ~Rollback() {
    if (!kept_) {
      undo_();
    }
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  void Keep() { kept_ = true; }

 private:
  Call undo_;
  bool kept_ = false;
};

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_HOST_CALLS_H_
