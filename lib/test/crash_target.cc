// A fuzz target that must crash when told to: shows that fuzzers see and save genuine crashes past the fault handler.
// Built with -fsanitize=fuzzer and judged by crash_target_check.sh.
//
//   first byte 'W'  a recovered fault, then a wild store of ordinary code
//   first byte 'H'  a recovered fault, then a fault of the host buffer during ReadAt
//   anything else   a recovered fault

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using guestmem::kPageSize;
  static const std::shared_ptr<guestmem::SparseMapping> ram = guestmem::SparseMapping::Create(2 * kPageSize).value();
  static const guestmem::GuestMemory memory = guestmem::GuestMemory::Create("ram", ram).value();
  static void* const hole = mmap(nullptr, kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  const uint64_t recovered = guestmem::RecoveredFaults();
  const guestmem::Result<uint64_t> value = memory.ReadPlain<uint64_t>(kPageSize);
  if (value.ok() || value.status().kind() != guestmem::ErrorKind::kNotMapped ||
      guestmem::RecoveredFaults() != recovered + 1 || hole == MAP_FAILED) {
    std::abort();
  }
  switch (size == 0 ? 0 : data[0]) {
    case 'W':
      *static_cast<volatile uint8_t*>(hole) = 1;
      break;
    case 'H':
      (void)ram->Allocate(0, kPageSize);
      (void)memory.ReadAt(0, {static_cast<std::byte*>(hole), 64});
      break;
    default:
      break;
  }
  return 0;
}
