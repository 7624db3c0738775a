// The parts of a trace's text: what a test counts that asks whether everything a trace can say is ever said.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_PARTS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_PARTS_H_

#include <cctype>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "reference/lockstep/trace.h"

namespace reference {

// A line's words by their names: "read page0+8 length=16" has {"", "read"}, {"#1", "page0+8"}, {"length", "16"}.
inline std::map<std::string, std::string> WordsOf(const std::string& line) {
  std::map<std::string, std::string> words;
  std::istringstream in(line);
  std::string word;
  for (int place = 0; in >> word;) {
    if (word.ends_with(',')) word.pop_back();
    const size_t equals = word.find('=');
    if (equals != word.npos) {
      words[word.substr(0, equals)] = word.substr(equals + 1);
    } else {
      const bool first = place == 0, flag = !first && std::isalpha(static_cast<unsigned char>(word[0])) != 0 && word.find_first_of("0123456789") == word.npos;
      words[first ? "" : flag ? word : "#" + std::to_string(place)] = word;
      ++place;
    }
  }
  return words;
}

// What a trace's text says, without its numbers: "op read length=N", "op set_bit access=execute", "backing wrapped".
inline void AddParts(const Trace& trace, std::set<std::string>& parts) {
  std::istringstream text(ToText(trace));
  std::string line, room = "world ";
  while (std::getline(text, line)) {
    if (line.starts_with("guestmem")) continue;
    if (line == "ops") {
      room = "op ";
      continue;
    }
    const auto words = WordsOf(line);
    const std::string start = room + words.at("");
    parts.insert(start);
    for (const auto& [name, value] : words) {
      const size_t bits = value.find_first_not_of("rwx-") == value.npos ? 0 : value.find(':') == value.npos ? value.size() : value.find(':') + 1;
      for (size_t i = bits; i < value.size(); ++i) parts.insert(start + " " + name + " bit " + std::to_string(i - bits) + value[i]);
      std::string said = value.substr(0, bits == 0 ? 0 : value.find(':'));
      const bool number = said.find_first_of("0123456789") != said.npos;
      if (!name.empty()) parts.insert(start + " " + (name[0] == '#' ? "" : name) + "=" + (number ? "N" : said));
    }
  }
}

// Every byte string is a trace: random ones say, in time, everything.
inline std::set<std::string> EveryPart() {
  std::set<std::string> parts;
  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<uint8_t> bytes(20 * kRecordBytes);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() >> 24);
    AddParts(FromBytes(bytes), parts);
  }
  return parts;
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_PARTS_H_
