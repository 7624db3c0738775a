// Files of a trace, of whichever kind, in either spelling: text or bytes.

#ifndef GUESTMEM_FUZZ_TRACE_FILES_H_
#define GUESTMEM_FUZZ_TRACE_FILES_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
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

// A text may start with comments; its first other line is the header.
inline bool LooksLikeText(const std::string& file, std::string_view content) {
  if (std::filesystem::path(file).extension() == ".trace") {
    return true;
  }
  while (!content.empty()) {
    const size_t start = content.find_first_not_of(" \t\r\n");
    if (start == content.npos) {
      return false;
    }
    content.remove_prefix(start);
    if (content[0] != '#') {
      return content.starts_with("guestmem ");
    }
    content.remove_prefix(std::min(content.find('\n'), content.size()));
  }
  return false;
}

// Says what is wrong with the file where it returns nullopt.
template <typename Trace, typename TextError>
std::optional<Trace> Load(const std::string& file, Trace from_bytes(std::span<const uint8_t>),
                          std::variant<Trace, TextError> from_text(std::string_view)) {
  std::error_code error;
  std::ifstream stream(file, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file, error)) {
    std::fprintf(stderr, "%s: not a readable file\n", file.c_str());
    return std::nullopt;
  }
  const std::string content{std::istreambuf_iterator<char>(stream), {}};
  if (!LooksLikeText(file, content)) {
    // Safe because a char object may be read as unsigned char.
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
