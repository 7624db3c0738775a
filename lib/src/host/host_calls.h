// Every fallible call to the operating system goes through here (guestmem/detail/host_calls.h says why).

#ifndef GUESTMEM_SRC_HOST_HOST_CALLS_H_
#define GUESTMEM_SRC_HOST_HOST_CALLS_H_

#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>

#include "guestmem/detail/host_calls.h"

namespace guestmem::host {

// As the system calls; null or -1 on failure, with errno set.
void* Map(void* address, size_t length, int protection, int flags, int file, off_t offset);
int Protect(void* address, size_t length, int protection);
// Cannot fail on a range we own; not filtered.
void Unmap(void* address, size_t length);

// Zeroed memory from the heap, or null; for sizes that a guest or a backing's size decides.
void* AllocateZeroed(size_t alignment, size_t size);
void Free(void* memory);
// Asks the filter about an allocation of such a size that the C++ library will make. False: act as if it had failed.
bool MayAllocate();

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_HOST_CALLS_H_
