#include "guestmem/heap_memory.h"

#include "host/host_calls.h"
#include "host/host_error.h"

namespace guestmem {

Result<std::shared_ptr<AlignedHeapMemory>> AlignedHeapMemory::Create(uint64_t size) {
  static constexpr char kName[] = "heap";
  constexpr uint64_t kTooLarge = uint64_t{1} << 63;
  if (size > kTooLarge - kPageSize) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {0, size}, "the size must be below 2^63 bytes");
  }
  const uint64_t rounded = (size + kPageSize - 1) / kPageSize * kPageSize;
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<AlignedHeapMemory>> {
    std::byte* base = nullptr;
    if (rounded != 0) {
      base = static_cast<std::byte*>(host::AllocateZeroed(kPageSize, rounded));
      if (base == nullptr) {
        return host::CreateError(kName, ErrorKind::kResourceExhausted, {0, size});
      }
    }
    host::Rollback undo([&] { host::Free(base); });
    std::unique_ptr<AlignedHeapMemory> heap(new AlignedHeapMemory(base, rounded));
    undo.Keep();
    return std::shared_ptr<AlignedHeapMemory>(std::move(heap));
  });
}

AlignedHeapMemory::~AlignedHeapMemory() { host::Free(base_); }

}  // namespace guestmem
