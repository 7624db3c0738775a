// The text spelling, written. Compact: what is at its default is left out, except what a reader would look for.

#include <charconv>

#include "reference/trace/schema.h"
#include "reference/trace/words.h"

namespace reference::trace {
namespace {

// Up to here decimal is what people read; beyond, hexadecimal.
constexpr uint64_t kLargestDecimal = 0xffff;

std::string ListText(const Field& field, const void* object) {
  std::string out;
  const std::span<const uint8_t> items = field.list.items(const_cast<void*>(object));  // Safe because nothing is written there.
  for (size_t i = 0; i < items.size();) {
    size_t end = i + 1;
    while (field.runs && end < items.size() && items[end] == items[i]) ++end;
    out += (i == 0 ? "" : " ") + ValueText(field, items[i]);
    if (end - i > 1) out += "*" + std::to_string(end - i);
    i = end;
  }
  return out;
}

// Empty: left out.
std::string FieldText(const Field& field, const void* object) {
  if (field.spelt == Spelt::kHidden || field.spelt == Spelt::kPrefix) return "";
  const auto keyed = [&](std::string value) {
    if (value.empty()) return value;
    return field.spelt == Spelt::kBare ? " " + value : " " + std::string(field.key) + "=" + value;
  };
  if (field.list.items != nullptr) return keyed(ListText(field, object));
  if (field.spelling.write != nullptr) return keyed(field.spelling.write(object));
  const uint64_t index = field.number.get(object);
  if (field.spelt == Spelt::kFlag) return index == 0 ? "" : " " + std::string(field.key);
  const bool left_out = index == field.usual && (field.spelt == Spelt::kKeyed || field.spelt == Spelt::kBare);
  return left_out ? "" : keyed(ValueText(field, index));
}

}  // namespace

std::string NumberText(uint64_t number) {
  if (number > kLargestDecimal) return HexText(number);
  return std::to_string(number);
}

std::string HexText(uint64_t number) {
  char digits[16];
  return std::string("0x").append(digits, std::to_chars(digits, digits + sizeof digits, number, 16).ptr);
}

std::string ValueText(const Field& field, uint64_t index) {
  if (!field.names.empty()) return std::string(field.names[Reduce(index, field.names.size())]);
  if (!field.values.empty()) return NumberText(field.values[Reduce(index, field.values.size())]);
  return field.count == 0 ? HexText(index) : NumberText(field.first + index);
}

std::string LineText(const Section& section, const void* object, size_t index) {
  const Kind& kind = KindOf(section, object);
  std::string before, out(kind.name);
  if (section.numbered) out += " " + std::to_string(index);
  for (size_t i = 0; i < section.fields.size(); ++i) {
    const Field& field = section.fields[i];
    if ((kind.fields >> i & 1) == 0) continue;
    if (field.spelt == Spelt::kPrefix) before += ValueText(field, field.number.get(object)) + " ";
    out += FieldText(field, object);
  }
  return before + out;
}

std::string Text(const Schema& schema, const void* trace) {
  std::string out = std::string(schema.header) + "\n";
  for (const Section& section : schema.sections) {
    if (&section == &schema.ops()) out += "ops\n";
    for (size_t i = 0; i < section.place.size(trace); ++i) {
      const std::string line = LineText(section, section.place.at(const_cast<void*>(trace), i), i);  // Safe because nothing is written there.
      if (section.place.resize != nullptr || line != section.kinds[0].name) out += line + "\n";
    }
  }
  return out;
}

}  // namespace reference::trace
