#include "reference/model/failures.h"

#include <array>
#include <charconv>
#include <string>

namespace reference {
namespace {

// By ErrorKind; a backend's own code replaces the last.
constexpr std::array<int, 11> kCodes = {11, 7, 9, 9, 9, 12, 3, 3, 3, 8, 0};
// By Operation.
constexpr std::array<const char*, 9> kNames = {"create", "read", "write", "fill", "compare exchange", "lock", "subrange", "probe", "revoke"};

void AppendHex(std::string& text, uint64_t value) {
  std::array<char, 16> digits;
  text += "0x";
  text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr);
}

}  // namespace

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
