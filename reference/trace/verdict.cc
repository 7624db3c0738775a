#include "reference/trace/verdict.h"

#include <algorithm>

#include "reference/trace/words.h"

namespace reference::trace {
namespace {

// Sixteen bytes round the first difference.
std::string Window(std::span<const uint8_t> bytes, size_t difference) {
  const size_t begin = difference / 16 * 16, end = std::min(begin + 16, bytes.size());
  std::string text = "[" + HexText(begin) + ".." + HexText(end) + " of " + HexText(bytes.size()) + "]";
  for (size_t i = begin; i < end; ++i) {
    const std::string byte = HexText(bytes[i] + 0x100U).substr(3);
    text += i == difference ? " >" + byte + "<" : " " + byte;
  }
  return text;
}

std::string About(const std::string& field) {
  const std::string what = field.substr(0, field.find(" of "));
  return what.substr(0, what.find_last_not_of("0123456789") + 1);
}

}  // namespace

Divergence BytesDiffer(std::string field, std::span<const uint8_t> expected, std::span<const uint8_t> actual) {
  const auto difference = static_cast<size_t>(std::ranges::mismatch(expected, actual).in1 - expected.begin());
  return {0, std::move(field), Window(expected, difference), Window(actual, difference)};
}

std::string Report(const Schema& schema, const void* trace, const Divergence& divergence) {
  const Place& ops = schema.ops().place;
  const size_t size = ops.size(trace);
  std::string text = Text(schema, trace) + "\n";
  if (divergence.step < size) {
    // Safe because nothing is written there.
    text += "diverged at op " + std::to_string(divergence.step + 1) + " of " + std::to_string(size) + ": " +
            LineText(schema.ops(), ops.at(const_cast<void*>(trace), divergence.step)) + "\n";
  } else {
    text += "diverged in the comparison after the last op\n";
  }
  return text + "  field:    " + divergence.field + "\n  expected: " + divergence.expected + "\n  actual:   " + divergence.actual + "\n";
}

bool SameField(const Divergence& a, const Divergence& b) { return About(a.field) == About(b.field); }

}  // namespace reference::trace
