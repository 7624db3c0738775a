#include "reference/model/outcome.h"

#include <array>
#include <charconv>
#include <utility>

namespace reference {
namespace {

// By ErrorKind; a backend's own code replaces the last.
constexpr std::array<int, 11> kCodes = {11, 7, 9, 9, 9, 12, 3, 3, 3, 8, 0};
// By Operation.
constexpr std::array<const char*, 10> kNames = {"create", "read", "write", "fill", "compare exchange", "lock", "subrange", "probe", "revoke", "none"};

const Outcome kFresh;

void AppendHex(std::string& text, uint64_t value) {
  std::array<char, 16> digits;
  text += "0x";
  text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr);
}

}  // namespace

uint8_t ByteOf(uint64_t value, uint64_t i) {
  for (; i > 0; --i) value /= 256;
  return static_cast<uint8_t>(value % 256);
}

uint64_t LittleEndian(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i) value = value * 256 + bytes[i - 1];
  return value;
}

uint64_t LowBytes(uint64_t value, uint64_t size) {
  if (size == 8) return value;
  uint64_t beyond = 1;
  for (uint64_t i = 0; i < size; ++i) beyond *= 256;
  return value % beyond;
}

void Clear(Outcome& outcome) {
  // Named one by one so that a field that is added is missed by the compiler already.
  auto& [ok, kind, operation, range, fault_address, gpn, transferred, code, text, data, swapped, number, calls, refused, lengths, parts, spans,
         files, wrong_call] = outcome;
  ok = kFresh.ok;
  kind = kFresh.kind;
  operation = kFresh.operation;
  range.reset();
  fault_address.reset();
  gpn.reset();
  transferred = kFresh.transferred;
  code = kFresh.code;
  text.clear();
  data.clear();
  swapped = kFresh.swapped;
  number.reset();
  calls.clear();
  refused = kFresh.refused;
  lengths.clear();
  parts.clear();
  spans.clear();
  files.clear();
  wrong_call.clear();
}

bool Fail(Outcome& outcome, ErrorKind kind, std::optional<uint64_t> fault_address, uint64_t transferred, int backend_code) {
  outcome.ok = false;
  outcome.kind = kind;
  outcome.code = kind == ErrorKind::kBackend ? backend_code : kCodes[static_cast<size_t>(kind)];
  outcome.fault_address = fault_address;
  outcome.transferred = transferred;
  return false;
}

void Describe(Outcome& outcome, const char* name) {
  std::string& text = outcome.text;
  text.append("guest memory '").append(name).append("': ").append(kNames[static_cast<size_t>(outcome.operation)]);
  text += " error: failed to access ";
  if (outcome.range) {
    const bool end_fits = outcome.range->length <= kMaxUint64 - outcome.range->start;
    AppendHex(text, outcome.range->start);
    text += end_fits ? "-" : "+";
    AppendHex(text, end_fits ? outcome.range->start + outcome.range->length : outcome.range->length);
  } else {
    text += "memory";
  }
  if (outcome.fault_address && !(outcome.range && outcome.range->start == *outcome.fault_address)) {
    text += " at ";
    AppendHex(text, *outcome.fault_address);
  }
}

}  // namespace reference
