// What each linked object of objects_test offers, all of it header code that is compiled into that very object.

#ifndef GUESTMEM_LIB_TEST_OBJECTS_OBJECT_H_
#define GUESTMEM_LIB_TEST_OBJECTS_OBJECT_H_

#include <cstdint>

#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"

namespace guestmem::test {

// Bits of a set that says which accesses reported the fault that they should.
inline constexpr unsigned kTryRead = 1;
inline constexpr unsigned kTryWrite = 2;
inline constexpr unsigned kTryCompareExchange = 4;
inline constexpr unsigned kReadPlain = 8;
inline constexpr unsigned kWritePlain = 16;
inline constexpr unsigned kAllInline = 31;

// Makes every kind of inline access to memory that faults: `hole` directly, and address 0 of `memory`.
[[gnu::visibility("hidden"), gnu::noinline]] inline unsigned FaultInline(void* hole, const GuestMemory& memory) {
  unsigned reported = 0;
  uint64_t value = 1;
  bool swapped = false;
  reported |= TryRead(hole, value).has_value() ? kTryRead : 0;
  reported |= TryWrite(hole, value).has_value() ? kTryWrite : 0;
  reported |= TryCompareExchange(hole, value, uint64_t{2}, swapped).has_value() ? kTryCompareExchange : 0;
  const Result<uint32_t> read = memory.ReadPlain<uint32_t>(0);
  reported |= !read.ok() && read.status().kind() == ErrorKind::kNotMapped ? kReadPlain : 0;
  const Status write = memory.WritePlain<uint16_t>(0, 1);
  reported |= !write.ok() && write.kind() == ErrorKind::kNotMapped ? kWritePlain : 0;
  return reported;
}

using FaultFunction = unsigned (*)(void* hole, const GuestMemory* memory);

}  // namespace guestmem::test

// In the shared library.
extern "C" unsigned ObjectsLibFault(void* hole, const guestmem::GuestMemory* memory);

#endif  // GUESTMEM_LIB_TEST_OBJECTS_OBJECT_H_
