#include "guestmem/sparse_mapping.h"
#include "use.h"

extern "C" __attribute__((visibility("default"))) const char* UseInPlugin(const guestmem::GuestMemory* memory) {
  return Use(*memory, 0x22222222);
}

extern "C" __attribute__((visibility("default"))) const char* UseOwnMemory() {
  auto ram = guestmem::SparseMapping::Create(2 * guestmem::kPageSize);
  if (!ram.ok() || !(*ram)->Allocate(0, guestmem::kPageSize).ok()) {
    return "no memory";
  }
  const auto memory = guestmem::GuestMemory::Create("plugin", *ram);
  return memory.ok() ? Use(*memory, 0x44444444) : "no memory";
}
