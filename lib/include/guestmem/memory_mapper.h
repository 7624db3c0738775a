// MemoryMapper: memory that a device adds to a running guest (a PCI BAR over a file, shared memory of a GPU).
//
//   auto bar = mapper->NewRegion(1 << 20, "bar 2").value();
//   (void)bar.region->Map(0, file, 0, 1 << 20, true);      // what the region holds
//   (void)bar.guest->MapToGuest(gpa, true);                // where the guest sees it; again elsewhere after UnmapFromGuest
//
// The two halves are independent: mappings in a region come and go while the guest sees it, and a region may be filled
// before it is mapped. What no mapping covers is not there (kNotMapped).
//
// Implementations: InProcessGuest (in_process_guest.h); a hypervisor's own.
// Threads: all methods from any thread. Signal context: no. Units: bytes, page multiples.

#ifndef GUESTMEM_MEMORY_MAPPER_H_
#define GUESTMEM_MEMORY_MAPPER_H_

#include <cstdint>
#include <memory>
#include <string_view>

#include "guestmem/status.h"

namespace guestmem {

// Where the guest sees a region. Dropping it takes it out of the guest; where UnmapFromGuest would fail, it stays.
class MappableGuestMemory {
 public:
  virtual ~MappableGuestMemory();

  // Shows the region at [gpa, gpa + length). Not `writable`: the guest cannot store to it, whatever its mappings allow.
  // Errors: kInvalidArgument (unaligned; not in the guest's memory; something else is there; it is mapped already: unmap it
  // first), kResourceExhausted. After a failure nothing has changed.
  virtual Status MapToGuest(uint64_t gpa, bool writable) = 0;
  Status MapToGuest(uint64_t, detail::NotBool auto) = delete;

  // Takes the region out of the guest; nothing if it is not there. When it returns no access reaches the region's bytes
  // any more. Errors: kLocked (a page is, by GuestMemory::LockGpns), kResourceExhausted; then it is still there.
  virtual Status UnmapFromGuest() = 0;
};

// What a region holds.
class MappedMemoryRegion {
 public:
  virtual ~MappedMemoryRegion();

  // Bytes [file_offset, file_offset + length) of `fd` at `offset` of the region, as mmap: overwrites, and splits what it
  // overlaps in part. Pages beyond the file's end are not there (kNotMapped). `fd` may be closed afterwards. Length 0 does
  // nothing. Errors: kInvalidArgument (unaligned; beyond the region; a file that does not allow it, or whose offsets end
  // at 2^63), kLocked (a page of the range is), kResourceExhausted. After a failure nothing has changed.
  virtual Status Map(uint64_t offset, int fd, uint64_t file_offset, uint64_t length, bool writable) = 0;
  Status Map(uint64_t, detail::WiderThanInt auto, uint64_t, uint64_t, bool) = delete;
  Status Map(uint64_t, int, uint64_t, uint64_t, detail::NotBool auto) = delete;

  // Takes away what is mapped in the range, which may be nothing. Errors: as Map.
  virtual Status Unmap(uint64_t offset, uint64_t length) = 0;
};

struct NewMemoryRegion {
  std::unique_ptr<MappableGuestMemory> guest;
  std::shared_ptr<MappedMemoryRegion> region;
};

class MemoryMapper {
 public:
  virtual ~MemoryMapper();

  // An empty region, nowhere in the guest. `name` appears in errors. Errors: kInvalidArgument (0, or not a page multiple),
  // kResourceExhausted.
  virtual Result<NewMemoryRegion> NewRegion(uint64_t length, std::string_view name) = 0;
};

}  // namespace guestmem

#endif  // GUESTMEM_MEMORY_MAPPER_H_
