// What a plugin of the object matrix offers to its program, which may know nothing of the library.

#ifndef GUESTMEM_LIB_TEST_OBJECTS_INTERFACE_H_
#define GUESTMEM_LIB_TEST_OBJECTS_INTERFACE_H_

#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

// All from object.h.
struct ObjectFunctions {
  unsigned (*use)(std::byte* good, std::byte* hole, int install);
  int (*handle)(int signal, siginfo_t* info, void* context);
  void (*loop)(std::byte* hole, std::atomic<uint64_t>* faults);
};

#endif  // GUESTMEM_LIB_TEST_OBJECTS_INTERFACE_H_
