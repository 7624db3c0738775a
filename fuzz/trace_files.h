// Files of a small trace (schedule/, vmm/), in either spelling: text, which starts with "guestmem " or a comment, or bytes.

#ifndef GUESTMEM_FUZZ_TRACE_FILES_H_
#define GUESTMEM_FUZZ_TRACE_FILES_H_

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace fuzz {

inline bool Write(const std::string& file, const std::vector<uint8_t>& bytes) {
  std::ofstream stream(file, std::ios::binary);
  // Safe because a char object may hold any byte.
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!stream.flush()) {
    std::fprintf(stderr, "%s: cannot be written\n", file.c_str());
    return false;
  }
  return true;
}

template <typename Trace, typename TextError>
std::optional<Trace> Load(const std::string& file, Trace from_bytes(std::span<const uint8_t>),
                          std::variant<Trace, TextError> from_text(std::string_view)) {
  std::ifstream stream(file, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) {
    std::fprintf(stderr, "%s: not a readable file\n", file.c_str());
    return std::nullopt;
  }
  if (!content.starts_with("guestmem ") && !content.starts_with("#")) {
    return from_bytes({reinterpret_cast<const uint8_t*>(content.data()), content.size()});
  }
  auto parsed = from_text(content);
  if (const auto* refused = std::get_if<TextError>(&parsed)) {
    std::fprintf(stderr, "%s:%d: %s\n", file.c_str(), refused->line, refused->reason.c_str());
    return std::nullopt;
  }
  return std::get<Trace>(std::move(parsed));
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TRACE_FILES_H_
