// SparseMapping: a reserved range of host virtual memory whose pages come and go.
//
// Reserving costs no memory, whatever the size. A page that is not populated faults when touched, which GuestMemory
// reports (or hands to a handler that populates it).
//
//   auto ram = guestmem::SparseMapping::Create(uint64_t{1} << 40).value();   // 1 TiB of address space
//   (void)ram->Allocate(0, 16 << 20);                                        // 16 MiB of it is memory
//   auto memory = guestmem::GuestMemory::Create("ram", ram).value();
//
// Offsets and lengths are bytes, page multiples, inside the mapping (else kInvalidArgument); length 0 does nothing. A file of huge pages
// (hugetlbfs, MFD_HUGETLB) is mapped by whole pages of its own, 2 MiB, say, and where it is mapped every call is by them.
// Overlapping calls behave as mmap: the last one wins, per page. A failed call (kResourceExhausted; kInvalidArgument, if
// what was handed in is to blame; kLocked) changed nothing.
// Locked pages (GuestMemory::LockGpns, LockRange) stay as they are: every call that would map something else there, protect, discard,
// unmap or move one is kLocked (ErrorInfo::gpn is the lowest). A page that was not there when it was locked is held by no
// lock: it may be populated. Advice and binding belong to what is mapped when they are
// given: call them after Allocate or MapFile, and again after the next.
// Kernel mappings, of which a process has vm.max_map_count (65,530 by default): neighbouring pages made alike are one,
// so populating page after page takes one or two, but page by page at random up to two a page. For a guest that chooses
// the order, allocate all at once, since what is not touched costs nothing, and let an AccessBitmap say what is there; or
// allocate 2 MiB at a time. Memory is made in place; a file is mapped elsewhere first, and takes as much address space again
// for that moment. (So does memory before Linux 6.12.)
// When not: to take memory away while accesses run, unnoticed by them. They fail as at any missing page; where
// they must not even begin, clear the access bits first (access_bitmap.h, rcu.h).
// Threads: every method from any thread; a page that is being changed may be seen as it was or as it will be. Calls that change
// pages, lock and unlock them take turns: none may be made on a thread that the kernel waits for while another one runs (a
// userfaultfd with UFFD_FEATURE_EVENT_REMOVE or _UNMAP), nor in a fork child of a process whose other threads were in one.
// Signal context: no.

#ifndef GUESTMEM_SPARSE_MAPPING_H_
#define GUESTMEM_SPARSE_MAPPING_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "guestmem/backing.h"
#include "guestmem/detail/page_locks.h"
#include "guestmem/status.h"

namespace guestmem {

namespace host {
class MappedParts;
}

class SparseMapping final : public GuestMemoryAccess {
 public:
  static constexpr bool kLinear = true;

  enum class Protection : uint8_t { kNone, kRead, kReadWrite };

  enum class HugePages : uint8_t { kAdvised, kRefused };

  enum class FileMapping : uint8_t {
    kShared,   // with all who map it: a store goes to the file
    kPrivate,  // a page is ours from the first store on (copy-on-write), which takes memory as Commit::kOvercommit; the file may be
               // one that was opened for reading only. Decommit makes it the file's again
  };

  // Whether memory is set aside when it is allocated.
  enum class Commit : uint8_t {
    // Not: any amount can be had, as of SharedMemory, and the kernel looks for a page when it is first touched. Where
    // it finds none it kills a process. (Under vm.overcommit_memory = 2 the kernel sets aside all the same.)
    kOvercommit,
    // As far as the kernel ever does (vm.overcommit_memory): what it can see that it will not have is refused now.
    kReserve,
  };

  // Reserves `size` bytes, rounded up to pages, at a multiple of 1 GiB if `size` is that much, else of 2 MiB if it is that
  // much, so that huge pages fit. Errors: kInvalidArgument (0, or 2^47 and more), kResourceExhausted.
  static Result<std::shared_ptr<SparseMapping>> Create(uint64_t size);

  ~SparseMapping() override;
  SparseMapping(const SparseMapping&) = delete;
  SparseMapping& operator=(const SparseMapping&) = delete;

  // Fresh zeroed memory, readable and writable; what was there is gone.
  Status Allocate(uint64_t offset, uint64_t length, Commit commit = Commit::kOvercommit);
  // Zeroes that can be read but not written; costs no memory.
  Status MapZero(uint64_t offset, uint64_t length);
  // Bytes [file_offset, file_offset + length) of an open file. Pages beyond the file's end fault. `fd` may be closed afterwards. Errors: also kInvalidArgument (file_offset, or for
  // a file of huge pages the host address or the length, is not a multiple of the file's page size; the descriptor is bad, does
  // not allow it, or is of nothing that can be mapped).
  Status MapFile(uint64_t offset, uint64_t length, int fd, uint64_t file_offset, bool writable,
                 FileMapping mapping = FileMapping::kShared);
  Status MapFile(uint64_t, uint64_t, detail::WiderThanInt auto, uint64_t, bool) = delete;
  Status MapFile(uint64_t, uint64_t, int, uint64_t, detail::NotBool auto) = delete;
  // Changes what may be done; keeps the bytes. A page never populated becomes zeroed memory, as Commit::kOvercommit. Errors: also
  // kInvalidArgument (to write a file opened for reading only).
  Status Protect(uint64_t offset, uint64_t length, Protection protection);
  // Gives the memory back, keeps the mapping: memory reads as zeroes again, a file's pages as the file has them.
  Status Decommit(uint64_t offset, uint64_t length);
  // Back to reserved: every access faults, the bytes are gone.
  Status Unmap(uint64_t offset, uint64_t length);

  // Asks for huge pages where they fit, or for none. Errors: also kInvalidArgument (this kernel has none).
  Status AdviseHugePages(uint64_t offset, uint64_t length, HugePages advice);
  // Takes memory from NUMA node `node` from now on, and moves what is populated there where that is possible.
  // Errors: also kInvalidArgument (no such node, or a kernel without NUMA support; the text tells them apart).
  Status BindToNode(uint64_t offset, uint64_t length, unsigned node);
  Status BindToNode(uint64_t, uint64_t, detail::WiderThanInt auto) = delete;

  // Waits until none of the pages is locked, for unplug. They may be locked again before the caller acts: the call that takes
  // them away then says so. A deadline that has passed asks without waiting. Errors: kLocked at the deadline.
  Status WaitUnlocked(uint64_t offset, uint64_t length, std::chrono::steady_clock::time_point deadline);

  std::byte* mapping() const override { return base_; }
  uint64_t max_address() const override { return size_; }
  // Counts the locks of each page. Errors: kInvalidArgument (beyond the last page), kResourceExhausted (memory; a page locked
  // 2^32 - 1 times).
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override { return locks_.Lock(gpns); }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override { (void)locks_.Unlock(gpns); }

 private:
  SparseMapping(std::byte* reserved, uint64_t reserved_size, std::byte* base, uint64_t size);
  Status Check(uint64_t offset, uint64_t length) const;
  Status CheckWholePages(uint64_t offset, uint64_t length) const;  // under the mutex of locks_
  template <typename Call, typename Changed>
  Status Change(uint64_t offset, uint64_t length, const char* name, Call call, Changed changed);
  template <typename Call>
  Status Remap(uint64_t offset, uint64_t length, const char* name, int protection, uint64_t page_size, Call call);

  // What base_ was aligned in. The rest of it stays inaccessible on both sides.
  std::byte* const reserved_;
  const uint64_t reserved_size_;
  std::byte* const base_;
  const uint64_t size_;
  detail::PageLocks locks_;  // whatever changes what stands behind a page holds its mutex
  const std::unique_ptr<host::MappedParts> parts_;  // under that mutex
};

}  // namespace guestmem

#endif  // GUESTMEM_SPARSE_MAPPING_H_
