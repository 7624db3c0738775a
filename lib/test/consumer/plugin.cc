#include "use.h"

extern "C" __attribute__((visibility("default"))) const char* UseInPlugin(const guestmem::GuestMemory* memory) {
  return Use(*memory, 0x22222222);
}
