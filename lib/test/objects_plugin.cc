// The plugin that objects_test loads and unloads.

#include "objects_object.h"

extern "C" unsigned ObjectsPluginFault(void* hole, const guestmem::GuestMemory* memory) {
  return guestmem::test::FaultInline(hole, *memory);
}

namespace {

// An access before and after everything else in the object: the table is registered for all of its code's life.
struct Early {
  Early() { Check(); }
  ~Early() { Check(); }
  static void Check() {
    char value;
    if (guestmem::FaultHandlerIsInstalled() && !guestmem::TryRead(reinterpret_cast<const char*>(uintptr_t{1}), value)) {
      __builtin_abort();
    }
  }
} g_early;

}  // namespace
