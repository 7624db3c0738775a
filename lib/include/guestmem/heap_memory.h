// AlignedHeapMemory: page-aligned, zeroed memory from the heap, for tests, ROMs and small devices.
//
// When not: guest RAM of a real size (use SparseMapping, whose pages cost nothing until touched).
// Locks (GuestMemory::LockGpns) need no counting: no call takes a page away.
// Threads: immutable after creation but for its bytes, which are guest memory.

#ifndef GUESTMEM_HEAP_MEMORY_H_
#define GUESTMEM_HEAP_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "guestmem/backing.h"
#include "guestmem/status.h"

namespace guestmem {

class AlignedHeapMemory final : public GuestMemoryAccess {
 public:
  static constexpr bool kLinear = true;

  // `size` bytes, rounded up to pages; 0 is allowed.
  // Errors: kInvalidArgument (2^63 or more after rounding), kResourceExhausted.
  static Result<std::shared_ptr<AlignedHeapMemory>> Create(uint64_t size);

  ~AlignedHeapMemory() override;
  AlignedHeapMemory(const AlignedHeapMemory&) = delete;
  AlignedHeapMemory& operator=(const AlignedHeapMemory&) = delete;

  std::byte* mapping() const override { return base_; }
  uint64_t max_address() const override { return size_; }

 private:
  AlignedHeapMemory(std::byte* base, uint64_t size) : base_(base), size_(size) {}

  std::byte* const base_;
  const uint64_t size_;
};

}  // namespace guestmem

#endif  // GUESTMEM_HEAP_MEMORY_H_
