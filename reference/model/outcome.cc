#include "reference/model/outcome.h"

#include <array>
#include <charconv>

namespace reference {

void Clear(Outcome& outcome) {
  static const Outcome kFresh;
  outcome = kFresh;
}

namespace model {
namespace {

// By ErrorKind; a backend's own code replaces the last.
constexpr std::array<int, 11> kCodes = {11, 7, 9, 9, 9, 12, 3, 3, 3, 8, 0};
// By Operation.
constexpr std::array<const char*, 10> kNames = {"create", "read", "write", "fill", "compare exchange", "lock", "subrange", "probe", "revoke", "none"};

std::string Hex(uint64_t value) {
  std::array<char, 16> digits;
  return "0x" + std::string(digits.begin(), std::to_chars(digits.begin(), digits.end(), value, 16).ptr);
}

std::string TextOf(const Error& error) {
  if (error.name == nullptr) return "";
  std::string text = std::string("guest memory '") + error.name + "': " + kNames[static_cast<size_t>(error.operation)] + " error: failed to access ";
  if (!error.range) {
    text += "memory";
  } else if (const auto [start, length] = *error.range; length <= kMaxUint64 - start) {
    text += Hex(start) + "-" + Hex(start + length);
  } else {
    text += Hex(start) + "+" + Hex(length);
  }
  if (error.fault_address && !(error.range && error.range->start == *error.fault_address)) text += " at " + Hex(*error.fault_address);
  return text + error.cause;
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
  std::array<uint8_t, 8> bytes = {};
  for (uint64_t i = 0; i < size; ++i) bytes[i] = ByteOf(value, i);
  return LittleEndian(bytes);
}

Status Told(Status status, Operation operation, std::optional<Range> range, const char* name) {
  if (!status) return kOk;
  status->operation = operation;
  status->range = range;
  status->name = name;
  return status;
}

void Show(const Error& error, Outcome& outcome) {
  outcome.ok = false;
  outcome.kind = error.kind;
  outcome.operation = error.operation;
  outcome.range = error.range;
  outcome.fault_address = error.fault_address;
  outcome.gpn = error.gpn;
  outcome.transferred = error.transferred;
  outcome.code = error.kind == ErrorKind::kBackend ? error.code : kCodes[static_cast<size_t>(error.kind)];
  outcome.text = TextOf(error);
}

std::span<uint8_t> HostBuffer(Outcome& outcome, uint64_t length) {
  outcome.data.assign(kGuardBytes + length + kGuardBytes, kUntouched);
  return std::span(outcome.data).subspan(kGuardBytes, length);
}

}  // namespace model
}  // namespace reference
