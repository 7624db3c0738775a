// Files of traces, of whichever sort, in either spelling: text or bytes.

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

#include "fuzz/trace_sorts.h"

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

// A trace of a file.
struct Loaded {
  std::string file;
  const Sort* sort;  // null: this program has not got it
  Bytes trace;

  std::string stem() const { return std::filesystem::path(file).stem().string(); }
};

// A text's first line says of which sort it is, else the folder of a fuzz target that has its own, or `wanted`.
inline std::string SortName(const std::string& file, std::string_view content, bool text, const std::string& wanted) {
  const auto is = [&](std::string_view header, std::string_view folder) {
    return text ? content.find(header) != content.npos : wanted.empty() && file.find(folder) != file.npos;
  };
  if (is("guestmem vmm", "vmm_fuzzer")) return "vmm";
  if (is("guestmem schedule", "concurrent_fuzzer")) return "schedule";
  return text || wanted.empty() ? "lockstep" : wanted;
}

// Says what is wrong with the file where it returns nullopt.
inline std::optional<Loaded> Load(const std::string& file, const std::string& wanted = "") {
  std::error_code error;
  std::ifstream stream(file, std::ios::binary);
  if (!stream || std::filesystem::is_directory(file, error)) {
    std::fprintf(stderr, "%s: not a readable file\n", file.c_str());
    return std::nullopt;
  }
  const std::string content{std::istreambuf_iterator<char>(stream), {}};
  const bool text = LooksLikeText(file, content);
  const std::string name = SortName(file, content, text, wanted);
  const auto sort = std::find_if(Sorts().begin(), Sorts().end(), [&](const Sort& each) { return each.name == name; });
  if (sort == Sorts().end()) return Loaded{file, nullptr, {}};
  // Safe because a char object may be read as unsigned char.
  if (!text) return Loaded{file, &*sort, sort->from_bytes({reinterpret_cast<const uint8_t*>(content.data()), content.size()})};
  auto parsed = sort->from_text(content);
  if (const auto* const refused = std::get_if<reference::trace::TextError>(&parsed)) {
    std::fprintf(stderr, "%s:%d: %s\n", file.c_str(), refused->line, refused->reason.c_str());
    return std::nullopt;
  }
  return Loaded{file, &*sort, std::get<Bytes>(std::move(parsed))};
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TRACE_FILES_H_
