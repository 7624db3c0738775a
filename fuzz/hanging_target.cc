// A target that never ends: for the test that the replay main names an input that hangs.

#include <unistd.h>

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) {
  for (;;) pause();
}
