// The library's calls to the operating system, and the seam by which a harness makes the n-th of them fail.

#ifndef GUESTMEM_DETAIL_HOST_CALLS_H_
#define GUESTMEM_DETAIL_HOST_CALLS_H_

#include <cstddef>
#include <cstdint>

namespace guestmem::detail {

enum class HostCall : uint8_t {
  kMmap,
  kMprotect,
  kMemfdCreate,
  kFtruncate,
  kEventfd,
  kAllocate,
  kMremap,     // the second half of putting a file, or on older kernels memory, in a mapping's place
  kMadvise,
  kMbind,
  kSeal,       // fcntl(F_ADD_SEALS)
  kDuplicate,  // of a file descriptor
  kRead,       // of an eventfd
  kCountLocks,  // memory for the counts of locked pages; how often it is asked for is the library's own affair
};

// Asked before each host call that can fail; true makes the call fail, unmade, with the errno that the filter has set
// (ENOMEM if it set none). Null (the default) lets all through. For harnesses; not for production.
using HostCallFilter = bool (*)(HostCall call);
void SetHostCallFilter(HostCallFilter filter);

// What every file's pages are from now on, in bytes, as far as the library asks; 0 (the default): what they are. For machines without
// huge pages to try: a file of small ones takes all that one of huge ones would. For harnesses; not for production.
void SetFilePageSize(uint64_t bytes);

// Whether there is memory to describe errors with (the default). Without, each keeps its kind and code and says no more. For
// harnesses; not for production.
void SetErrorMemory(bool available);

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_HOST_CALLS_H_
