// SparseMapping: a reserved range of host virtual memory whose pages come and go.
//
// Reserving costs no memory, whatever the size. A page that is not populated faults when touched, which GuestMemory
// reports (or hands to a handler that populates it).
//
//   auto ram = guestmem::SparseMapping::Create(uint64_t{1} << 40).value();   // 1 TiB of address space
//   (void)ram->Allocate(0, 16 << 20);                                        // 16 MiB of it is memory
//   auto memory = guestmem::GuestMemory::Create("ram", ram).value();
//
// Offsets and lengths are bytes, page multiples, inside the mapping (else kInvalidArgument); length 0 does nothing.
// Overlapping calls behave as mmap: the last one wins, per page. A failed call (kResourceExhausted) changed nothing.
// Threads: every method from any thread; a page that is being changed may be seen as it was or as it will be.
// Signal context: no.

#ifndef GUESTMEM_SPARSE_MAPPING_H_
#define GUESTMEM_SPARSE_MAPPING_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "guestmem/backing.h"
#include "guestmem/status.h"

namespace guestmem {

class SparseMapping final : public GuestMemoryAccess {
 public:
  static constexpr bool kLinear = true;

  enum class Protection : uint8_t { kNone, kRead, kReadWrite };

  // Reserves `size` bytes, rounded up to pages. Errors: kInvalidArgument (0, or 2^47 and more), kResourceExhausted.
  static Result<std::shared_ptr<SparseMapping>> Create(uint64_t size);

  ~SparseMapping() override;
  SparseMapping(const SparseMapping&) = delete;
  SparseMapping& operator=(const SparseMapping&) = delete;

  // Fresh zeroed memory, readable and writable; what was there is gone.
  Status Allocate(uint64_t offset, uint64_t length);
  // Zeroes that can be read but not written; costs no memory.
  Status MapZero(uint64_t offset, uint64_t length);
  // Changes what may be done; keeps the bytes. A page never populated becomes zeroed memory.
  Status Protect(uint64_t offset, uint64_t length, Protection protection);
  // Back to reserved: every access faults, the bytes are gone.
  Status Unmap(uint64_t offset, uint64_t length);

  std::byte* mapping() const override { return base_; }
  uint64_t max_address() const override { return size_; }

 private:
  SparseMapping(std::byte* base, uint64_t size) : base_(base), size_(size) {}
  Status Check(uint64_t offset, uint64_t length) const;
  Status Remap(uint64_t offset, uint64_t length, int protection, int flags);

  std::byte* const base_;
  const uint64_t size_;
};

}  // namespace guestmem

#endif  // GUESTMEM_SPARSE_MAPPING_H_
