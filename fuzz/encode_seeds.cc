// Writes the seeds, which are texts, as the bytes that fuzzers read. What `trace encode` does, for builds where Abseil, which that tool
// needs, has no place: other C++ libraries, MSan, fuzzing services.

#include <cstdio>

#include "fuzz/trace_files.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: encode_seeds DIRECTORY FILE...\n");
    return 2;
  }
  for (int i = 2; i < argc; ++i) {
    const auto loaded = fuzz::Load(argv[i]);
    if (!loaded || loaded->sort == nullptr || !fuzz::Write(argv[1] + ("/" + loaded->stem()), loaded->trace)) return 2;
  }
  return 0;
}
