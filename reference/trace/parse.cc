// The text spelling, read. People write these by hand, so every refusal names the line, the word, and what would do instead.

#include <algorithm>
#include <charconv>

#include "reference/trace/schema.h"
#include "reference/trace/words.h"

namespace reference::trace {
namespace {

constexpr size_t kMostListed = 24;  // values in a refusal

// "access": accesses, "bytes": bytes, "key": keys
std::string Plural(std::string_view word) {
  return std::string(word) + (word.ends_with("ss") ? "es" : word.ends_with('s') ? "" : "s");
}

std::string_view What(const Field& field) { return field.key.empty() ? field.what : field.key; }

std::string NotListed(const Field& field, const Kind& kind, std::string_view word, uint64_t number) {
  const uint64_t most = *std::max_element(field.values.begin(), field.values.end());
  if (number > most) return Cat({What(field), " ", word, " is too large: ", kind.name, " takes up to ", NumberText(most)});
  const std::string known = Cat({What(field), " ", word, " is not in the list of interesting ", Plural(What(field))});
  if (field.values.size() <= kMostListed) {
    std::string all;
    for (const uint64_t value : field.values) all += (all.empty() ? "" : ", ") + NumberText(value);
    return Cat({known, ": ", all});
  }
  uint64_t below = *std::min_element(field.values.begin(), field.values.end()), above = most;
  for (const uint64_t value : field.values) {
    if (value < number) below = std::max(below, value);
    if (value > number) above = std::min(above, value);
  }
  return Cat({known, "; nearest are ", NumberText(below), " and ", NumberText(above)});
}

// Returns why it refuses, as all of these.
std::string ReadValue(const Field& field, const Kind& kind, std::string_view word, uint64_t& index) {
  if (!field.names.empty()) return ReadName(What(field), word, field.names, index);
  const bool listed = !field.values.empty();
  const uint64_t least = listed ? 0 : field.first, most = listed || field.count == 0 ? ~uint64_t{0} : field.first + field.count - 1;
  uint64_t number = 0;
  if (std::string reason = ReadNumber(What(field), word, least, most, number); !reason.empty()) return reason;
  index = number - least;
  if (!listed) return "";
  const auto found = std::find(field.values.begin(), field.values.end(), number);
  index = static_cast<uint64_t>(found - field.values.begin());
  return found == field.values.end() ? NotListed(field, kind, word, number) : "";
}

std::string ReadItem(const Field& field, const Kind& kind, std::string_view word, void* object) {
  uint64_t index = 0, count = 1;
  const size_t star = field.runs ? std::min(word.find('*'), word.size()) : word.size();
  std::string reason = ReadValue(field, kind, word.substr(0, star), index);
  if (reason.empty() && star != word.size()) {
    reason = ReadNumber(Cat({What(field), "'s count"}), word.substr(star + 1), 1, field.most, count);
  }
  if (!reason.empty()) return reason;
  const size_t size = field.list.items(object).size();
  if (size + count > field.most) return Cat({"more than ", NumberText(field.most), " ", Plural(What(field))});
  field.list.resize(object, size + count);
  std::ranges::fill(field.list.items(object).subspan(size), static_cast<uint8_t>(index));
  return "";
}

class Line {
 public:
  Line(const Section& section, const Kind& kind, void* object) : section_(section), kind_(kind), object_(object) {}

  std::string Read(std::span<const std::string_view> words) {
    for (const Field& field : Fields()) {  // those that come first, and have to
      if (field.spelt != Spelt::kBare || field.list.items != nullptr) continue;
      if (words.empty() && field.what.empty()) continue;
      if (words.empty()) return Cat({kind_.name, " needs ", field.what});
      if (std::string reason = Set(field, words[0]); !reason.empty()) return reason;
      words = words.subspan(1);
    }
    for (const std::string_view word : words) {
      if (std::string reason = ReadWord(word); !reason.empty()) return reason;
    }
    for (const Field& field : Fields()) {
      if (field.spelt == Spelt::kNeeded && !Given(field)) return Cat({kind_.name, " needs ", field.key, "="});
    }
    return "";
  }

  std::string Set(const Field& field, std::string_view word) {
    if (field.spelling.read != nullptr) return field.spelling.read(word, object_);
    uint64_t index = 0;
    std::string reason = ReadValue(field, kind_, word, index);
    if (reason.empty()) field.number.set(object_, index);
    return reason;
  }

  // What the object says once it is in order has to be what its line said.
  std::string TakesEffect(const void* trace, size_t index) const {
    const std::string said = LineText(section_, object_, index);
    std::vector<uint64_t> before;
    for (const Field& field : Fields()) before.push_back(Wide(field) ? field.number.get(object_) : 0);
    if (section_.normal != nullptr) section_.normal(object_, trace);
    const std::string normal = LineText(section_, object_, index);
    if (said == normal) return "";
    size_t i = 0;
    for (const Field& field : Fields()) {
      const uint64_t number = before[i++];
      if (!Wide(field) || field.number.get(object_) == number) continue;
      field.number.set(object_, ~uint64_t{0});
      section_.normal(object_, trace);
      const uint64_t most = field.number.get(object_);
      if (most != 0) return Cat({field.key, " ", HexText(number), " is too large: the largest here is ", HexText(most)});
    }
    return Cat({"part of this line has no effect; what has is: ", normal});
  }

 private:
  static bool Wide(const Field& field) { return field.number.get != nullptr && field.values_count() == 0; }
  bool Given(const Field& field) const { return (given_ >> (&field - section_.fields.data()) & 1) != 0; }

  std::vector<std::reference_wrapper<const Field>> Fields() const {
    std::vector<std::reference_wrapper<const Field>> fields;
    for (size_t i = 0; i < section_.fields.size(); ++i) {
      if ((kind_.fields >> i & 1) != 0) fields.push_back(section_.fields[i]);
    }
    return fields;
  }

  std::string ReadWord(std::string_view word) {
    const size_t equals = word.find('=');
    const std::string_view key = word.substr(0, equals);
    std::string known;
    for (const Field& field : Fields()) {
      const bool number = word[0] >= '0' && word[0] <= '9';
      if (field.list.items != nullptr && equals == word.npos && (number || !field.names.empty())) {
        return ReadItem(field, kind_, word, object_);
      }
      if (field.key.empty() || field.spelt == Spelt::kHidden || field.spelt == Spelt::kBare || field.spelt == Spelt::kPrefix) continue;
      known += (known.empty() ? "" : ", ") + std::string(field.key) + (field.spelt == Spelt::kFlag ? "" : "=");
      if (key != field.key) continue;
      if (Given(field)) return Cat({Quoted(key), " is given twice"});
      given_ |= uint64_t{1} << (&field - section_.fields.data());
      if (field.spelt != Spelt::kFlag) {
        return equals == word.npos ? Cat({Quoted(key), " needs a value: ", key, "=..."}) : Set(field, word.substr(equals + 1));
      }
      if (equals != word.npos) return Cat({Quoted(key), " takes no value"});
      field.number.set(object_, 1);
      return "";
    }
    return Cat({kind_.name, " has no field ", Quoted(key), known.empty() ? "" : "; its fields are: ", known});
  }

  const Section& section_;
  const Kind& kind_;
  void* const object_;
  uint64_t given_ = 0;
};

class Parser {
 public:
  Parser(const Schema& schema, void* trace) : schema_(schema), trace_(trace) {}

  std::optional<TextError> Parse(std::string_view text) {
    int line = 0;
    while (!text.empty()) {
      ++line;
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view all = text.substr(0, end);
      const Words words = Split(all.substr(0, all.find('#')), " \t\r,");
      if (!words.empty()) {
        if (std::string reason = ReadLine(words); !reason.empty()) return TextError{line, std::move(reason)};
      }
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    line = std::max(line, 1);
    if (!header_) return TextError{line, Cat({"expected the header '", schema_.header, "', found the end of the text"})};
    if (!ops_) return TextError{line, "expected an 'ops' line, found the end of the text"};
    Normalise(schema_, trace_);
    return std::nullopt;
  }

 private:
  std::string ReadLine(const Words& words) {
    if (!header_) {
      header_ = words == Split(schema_.header, " ");
      return header_ ? "" : Cat({"expected the header '", schema_.header, "', found ", Quoted(Listed(words, " "))});
    }
    if (ops_) return OpLine(words);
    if (words[0] == "ops") {
      ops_ = true;
      return words.size() == 1 ? "" : "'ops' stands alone; operations follow on lines of their own";
    }
    Words known;
    for (const Section& section : schema_.sections.first(schema_.sections.size() - 1)) {
      known.push_back(section.kinds[0].name);
      if (words[0] == known.back()) return WorldLine(section, words);
    }
    known.push_back("ops");
    return Cat({"unknown line ", Quoted(words[0]), "; before the operations come: ", Listed(known)});
  }

  std::string WorldLine(const Section& section, const Words& words) {
    if (section.refuse != nullptr) {
      if (std::string reason = section.refuse(words, trace_); !reason.empty()) return reason;
    }
    const uint64_t bit = uint64_t{1} << (&section - schema_.sections.data());
    const bool first = (seen_ & bit) == 0;
    seen_ |= bit;
    if (section.place.resize == nullptr && !first) return Cat({Quoted(words[0]), " is given twice"});
    void* const object = Next(section, first);
    if (object == nullptr) return Cat({"more than ", NumberText(section.most), " ", words[0], " lines"});
    const size_t index = section.place.size(trace_) - 1;
    if (section.numbered) {
      if (std::string reason = IsNumber(words, index); !reason.empty()) return reason;
    }
    if (section.normal != nullptr) section.normal(object, trace_);  // what it is in this world before it is told
    Line line(section, section.kinds[0], object);
    std::string reason = line.Read(std::span(words).subspan(section.numbered ? 2 : 1));
    return reason.empty() ? line.TakesEffect(trace_, index) : reason;
  }

  std::string OpLine(std::span<const std::string_view> words) {
    const Section& section = schema_.ops();
    void* const object = Next(section, section.place.size(trace_) == 0);
    if (object == nullptr) return Cat({"more than ", NumberText(section.most), " operations"});
    std::vector<std::string_view> names;
    for (const Kind& kind : section.kinds) names.push_back(kind.name);
    const auto prefix = std::ranges::find(section.fields, Spelt::kPrefix, &Field::spelt);
    if (prefix != section.fields.end()) {
      std::string reason = words.size() < 2 ? Cat({"expected ", prefix->what, " and an operation, found ", Quoted(words[0])})
                                            : Line(section, section.kinds[0], object).Set(*prefix, words[0]);
      if (!reason.empty()) return reason;
      words = words.subspan(1);
    }
    uint64_t found = 0;
    if (std::string reason = ReadName("operation", words[0], names, found); !reason.empty()) return reason;
    section.kind.set(object, section.kinds[found].number);
    Line line(section, section.kinds[found], object);
    std::string reason = line.Read(words.subspan(1));
    return reason.empty() ? line.TakesEffect(trace_, 0) : reason;
  }

  static std::string IsNumber(const Words& words, size_t index) {
    if (words.size() < 2) return Cat({"expected the ", words[0], "'s number after ", Quoted(words[0])});
    uint64_t number = 0;
    if (std::string reason = ReadNumber(Cat({"the ", words[0], "'s number"}), words[1], 0, ~uint64_t{0}, number); !reason.empty()) return reason;
    if (number < index) return Cat({words[0], " ", words[1], " is given twice"});
    return number == index ? "" : Cat({words[0], " ", words[1], " comes too early: next is ", words[0], " ", std::to_string(index)});
  }

  // Room for one more; null: there is none.
  void* Next(const Section& section, bool first) {
    const Place& place = section.place;
    if (place.resize == nullptr) return place.at(trace_, 0);
    const size_t size = first ? 0 : place.size(trace_);
    if (size == section.most) return nullptr;
    place.resize(trace_, size);
    place.resize(trace_, size + 1);
    return place.at(trace_, size);
  }

  const Schema& schema_;
  void* const trace_;
  bool header_ = false, ops_ = false;
  uint64_t seen_ = 0;  // sections, a bit each
};

}  // namespace

std::optional<TextError> Parse(const Schema& schema, std::string_view text, void* trace) { return Parser(schema, trace).Parse(text); }

Words Split(std::string_view text, std::string_view separators) {
  Words words;
  while (true) {
    const size_t start = text.find_first_not_of(separators);
    if (start == text.npos) return words;
    const size_t end = std::min(text.find_first_of(separators, start), text.size());
    words.push_back(text.substr(start, end - start));
    text.remove_prefix(end);
  }
}

std::string Cat(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view part : parts) out += part;
  return out;
}

std::string Listed(const Words& words, std::string_view separator) {
  std::string out;
  for (const std::string_view word : words) {
    if (!out.empty()) out += separator;
    out += word;
  }
  return out;
}

std::string Quoted(std::string_view word) {
  constexpr size_t kShown = 40;
  std::string out = "'";
  for (const char c : word.substr(0, kShown)) out += c >= ' ' && c <= '~' ? c : '?';
  return out + (word.size() > kShown ? "...'" : "'");
}

std::string ReadNumber(std::string_view what, std::string_view word, uint64_t least, uint64_t most, uint64_t& number) {
  const bool hex = word.starts_with("0x");
  const std::string_view digits = hex ? word.substr(2) : word;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, hex ? 16 : 10);
  if (error == std::errc::result_out_of_range) return Cat({what, " ", Quoted(word), " is too large: the largest is ", NumberText(most)});
  if (error != std::errc{} || end != digits.data() + digits.size()) {
    return Cat({what, " ", Quoted(word), " is not a number (decimal, or hexadecimal with 0x)"});
  }
  if (number > most) return Cat({what, " ", word, " is too large: the largest is ", NumberText(most)});
  return number < least ? Cat({what, " ", word, " is too small: the smallest is ", NumberText(least)}) : "";
}

std::string ReadName(std::string_view what, std::string_view word, std::span<const std::string_view> names, uint64_t& index) {
  const auto found = std::ranges::find(names, word);
  index = static_cast<uint64_t>(found - names.begin());
  if (found != names.end()) return "";
  return Cat({"unknown ", what, " ", Quoted(word), "; ", Plural(what), " are: ", Listed(Words(names.begin(), names.end()))});
}

}  // namespace reference::trace
