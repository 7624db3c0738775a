// The same accesses, compiled into the program and into the plugin: inline ones, bulk ones, and some that fault in each.

#ifndef GUESTMEM_LIB_TEST_CONSUMER_USE_H_
#define GUESTMEM_LIB_TEST_CONSUMER_USE_H_

#include <array>
#include <cstdint>
#include <cstdio>

#include "guestmem/guest_memory.h"

// What is wrong, or null. The first page is memory, the second is not there.
inline const char* Use(const guestmem::GuestMemory& memory, uint32_t value) {
  if (!memory.WritePlain<uint32_t>(64, value).ok() || memory.ReadPlain<uint32_t>(64).value_or(0) != value) {
    return "a plain access does not come back";
  }
  if (memory.ReadPlain<uint32_t>(4096 + 64).status().kind() != guestmem::ErrorKind::kNotMapped ||
      memory.WritePlain<uint8_t>(4096, 1).kind() != guestmem::ErrorKind::kNotMapped) {
    return "a fault of inline code is not reported";
  }
  std::array<std::byte, 200> bytes{};
  const guestmem::Status status = memory.ReadAt(4096 - 100, bytes);
  if (status.ok() || status.info().transferred != 100) {
    return "a fault of a bulk access is not reported";
  }
  return nullptr;
}

#endif  // GUESTMEM_LIB_TEST_CONSUMER_USE_H_
