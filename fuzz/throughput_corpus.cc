// What one execution of any target costs on its own checked-in inputs, for ci/throughput.sh: libFuzzer as it is, but every
// "mutation" is a file of the folder that GUESTMEM_THROUGHPUT_INPUTS names.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

namespace {

using Input = std::vector<uint8_t>;

const std::vector<Input>& Inputs() {
  static const auto* const inputs = [] {
    const char* const folder = std::getenv("GUESTMEM_THROUGHPUT_INPUTS");
    std::vector<std::filesystem::path> paths;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder != nullptr ? folder : "", error)) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    auto* read = new std::vector<Input>;
    for (const auto& path : paths) {
      std::ifstream file(path, std::ios::binary);
      read->emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return read;
  }();
  return *inputs;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (Inputs().empty()) {
    std::fprintf(stderr, "GUESTMEM_THROUGHPUT_INPUTS names no folder with inputs\n");
    std::exit(2);
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t, size_t max_size, unsigned int seed) {
  const Input& input = Inputs()[seed % Inputs().size()];
  const size_t size = std::min(input.size(), max_size);
  std::copy_n(input.begin(), size, data);
  return size;
}
