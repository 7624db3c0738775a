// Lazy memory: a page gets memory when it is first touched, by code of yours.
//
// The mapping is reserved address space, so the first access to a page faults. The engine recovers from the fault and calls
// PageFault, which makes the page ready (here: allocates it; elsewhere: reads it from a snapshot or from the network) and
// answers Retry. The access goes on where it stopped; what had been transferred is not transferred again.
//
// Prints:
//   wrote 9000 bytes at 0x1ffffffa
//   4 of 262144 pages have memory

#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include <guestmem/guest_memory.h>
#include <guestmem/shared_backing.h>
#include <guestmem/sparse_mapping.h>

namespace {

using guestmem::kPageSize;

// SharedBacking forwards every method to the mapping; this overrides one.
class LazyMemory final : public guestmem::SharedBacking<guestmem::SparseMapping> {
 public:
  using SharedBacking::SharedBacking;

  // May block: it runs outside the engine's read-side sections, with none of its locks held. Any thread may be here.
  guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override {
    const uint64_t page = fault.address / kPageSize;
    const std::lock_guard lock(mutex_);
    // Another thread may have been first. Allocating again would drop what it has written since.
    if (!populated_.contains(page)) {
      if (guestmem::Status status = inner()->Allocate(page * kPageSize, kPageSize); !status.ok()) {
        return guestmem::PageFaultAction::Fail(std::move(status));
      }
      populated_.insert(page);
    }
    return guestmem::PageFaultAction::Retry();
  }

  size_t populated() const {
    const std::lock_guard lock(mutex_);
    return populated_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::set<uint64_t> populated_;  // guarded by mutex_
};

}  // namespace

int main() {
  constexpr uint64_t kSize = uint64_t{1} << 30;
  auto lazy = std::make_shared<LazyMemory>(guestmem::SparseMapping::Create(kSize).value());
  auto memory = guestmem::GuestMemory::Create("lazy", lazy).value();

  const std::vector<std::byte> bytes(9000, std::byte{42});
  const uint64_t gpa = kSize / 2 - 6;  // six bytes of one page, all of the next two, and part of a fourth
  if (guestmem::Status status = memory.WriteAt(gpa, bytes); !status.ok()) {
    std::puts(status.ToString().c_str());
    return 1;
  }
  std::printf("wrote %zu bytes at %#llx\n", bytes.size(), static_cast<unsigned long long>(gpa));
  std::printf("%zu of %llu pages have memory\n", lazy->populated(), static_cast<unsigned long long>(kSize / kPageSize));
  return 0;
}
