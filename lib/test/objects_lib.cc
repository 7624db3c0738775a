// The shared library that objects_test is linked to.

#include "objects_object.h"

unsigned ObjectsLibFault(void* hole, const guestmem::GuestMemory* memory) {
  return guestmem::test::FaultInline(hole, *memory);
}
