// Files of traces, of whichever sort, in either spelling: text or bytes.

#ifndef GUESTMEM_FUZZ_TRACE_FILES_H_
#define GUESTMEM_FUZZ_TRACE_FILES_H_

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "fuzz/profiles.h"
#include "fuzz/trace_sorts.h"

namespace fuzz {

inline bool Write(const std::string& file, const std::vector<uint8_t>& bytes) {
  FILE* const stream = std::fopen(file.c_str(), "wb");
  bool good = stream != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), stream) == bytes.size();
  good = good && std::fflush(stream) == 0;
  if (!good) {
    std::fprintf(stderr, "%s: cannot be written: %s\n", file.c_str(), std::strerror(errno));
  }
  if (stream != nullptr) {
    std::fclose(stream);
  }
  return good;
}

// Says what is wrong with the file where it returns nullopt.
inline std::optional<std::string> Read(const std::string& file) {
  FILE* const stream = std::fopen(file.c_str(), "rb");
  std::string content;
  char part[4096];
  for (size_t n = 1; stream != nullptr && n != 0;) {
    n = std::fread(part, 1, sizeof part, stream);
    content.append(part, n);
  }
  const bool good = stream != nullptr && std::ferror(stream) == 0;
  if (!good) {
    std::fprintf(stderr, "%s: cannot be read: %s\n", file.c_str(), std::strerror(errno));
  }
  if (stream != nullptr) {
    std::fclose(stream);
  }
  return good ? std::optional(std::move(content)) : std::nullopt;
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
  if (is("guestmem vmm", "vmm_fuzzer") || is("guestmem vmm", "space_fuzzer")) return "vmm";
  if (is("guestmem schedule", "concurrent_fuzzer")) return "schedule";
  return text || wanted.empty() ? "lockstep" : wanted;
}

// Corpora and what campaigns save are in folders of their targets' names.
inline std::string TargetOf(const std::string& file) {
  for (std::filesystem::path path = std::filesystem::absolute(file).parent_path(); path.has_relative_path(); path = path.parent_path()) {
    if (Profiles().contains(path.filename().string())) return path.filename().string();
  }
  return "";
}

// Says what is wrong with the file where it returns nullopt. `wanted`, `target`: of bytes; empty: the path says it.
inline std::optional<Loaded> Load(const std::string& file, const std::string& wanted = "", std::string target = "") {
  const std::optional<std::string> read = Read(file);
  if (!read) return std::nullopt;
  const std::string& content = *read;
  const bool text = LooksLikeText(file, content);
  const std::string name = SortName(file, content, text, wanted);
  const auto sort = std::find_if(Sorts().begin(), Sorts().end(), [&](const Sort& each) { return each.name == name; });
  if (sort == Sorts().end()) return Loaded{file, nullptr, {}};
  // Safe because a char object may be read as unsigned char.
  if (!text && target.empty()) target = TargetOf(file);
  if (!text && target.empty()) target = sort->only_target;
  if (!text && target.empty()) {
    std::fprintf(stderr, "%s: taken as it comes, since no folder of its path is a target's; --target=NAME decodes it as that target does\n", file.c_str());
  }
  if (!text) return Loaded{file, &*sort, sort->from_bytes({reinterpret_cast<const uint8_t*>(content.data()), content.size()}, target)};
  auto parsed = sort->from_text(content);
  if (const auto* const refused = std::get_if<TextError>(&parsed)) {
    std::fprintf(stderr, "%s:%d: %s\n", file.c_str(), refused->line, refused->reason.c_str());
    return std::nullopt;
  }
  return Loaded{file, &*sort, std::get<Bytes>(std::move(parsed))};
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TRACE_FILES_H_
