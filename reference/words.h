// Words and numbers of a trace's text, for the small traces (schedule/, vmm/).

#ifndef GUESTMEM_REFERENCE_WORDS_H_
#define GUESTMEM_REFERENCE_WORDS_H_

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace reference {

using Words = std::vector<std::string_view>;

inline Words Split(std::string_view text, char separator) {
  Words parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end != 0) {
      parts.push_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

inline std::optional<uint64_t> Number(std::string_view text, uint64_t low, uint64_t high) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < low || number > high) {
    return std::nullopt;
  }
  return number;
}

inline std::string Quoted(std::string_view word) { return "'" + std::string(word.substr(0, 40)) + "'"; }

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_WORDS_H_
