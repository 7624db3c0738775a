// Bytes by where they come from. Tests that are made of traces say with these what they expect, and carry this text by the sections
// that the lines of dashes name.

#ifndef GUESTMEM_REFERENCE_SUPPORT_BYTES_H_
#define GUESTMEM_REFERENCE_SUPPORT_BYTES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "reference/world/backings.h"

namespace reference {

// ---- Bytes BytesOf Initial Slow FileBytes Data Repeat Join Put Difference
using Bytes = std::vector<uint8_t>;

// `length` bytes from `offset` on, where `at` tells each.
inline Bytes BytesOf(uint64_t offset, uint64_t length, auto at) {
  Bytes bytes;
  for (uint64_t i = offset; i < offset + length; ++i) bytes.push_back(at(i));
  return bytes;
}

// What memory holds at first: each byte tells where it is.
inline Bytes Initial(uint64_t backing, uint64_t offset, uint64_t length) {
  return BytesOf(offset, length, [&](uint64_t i) { return MappedPattern(backing, i); });
}

// What the fallbacks work on, at first.
inline Bytes Slow(uint64_t backing, uint64_t offset, uint64_t length) {
  return BytesOf(offset, length, [&](uint64_t i) { return SlowPattern(backing, i); });
}

// What the file holds at first.
inline Bytes FileBytes(uint64_t offset, uint64_t length) { return BytesOf(offset, length, FilePattern); }

// Bytes to write: `length` of those that `seed` gives, without the first `skip`.
inline Bytes Data(uint64_t seed, uint64_t length, uint64_t skip = 0) {
  return BytesOf(skip, length, [&](uint64_t i) { return DataPattern(seed, i); });
}

inline Bytes Repeat(uint64_t length, uint8_t value) { return Bytes(length, value); }

inline Bytes Join(std::initializer_list<Bytes> parts) {
  Bytes bytes;
  for (const Bytes& part : parts) bytes.insert(bytes.end(), part.begin(), part.end());
  return bytes;
}

inline void Put(Bytes& bytes, uint64_t offset, const Bytes& part) {
  std::copy(part.begin(), part.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
}

// Empty: they are the same.
inline std::string Difference(std::span<const uint8_t> expected, std::span<const uint8_t> actual) {
  if (expected.size() != actual.size()) return std::to_string(actual.size()) + " bytes, not " + std::to_string(expected.size());
  const auto at = std::mismatch(expected.begin(), expected.end(), actual.begin());
  if (at.first == expected.end()) return "";
  return "byte " + std::to_string(at.first - expected.begin()) + " is " + std::to_string(*at.second) + ", not " + std::to_string(*at.first);
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_SUPPORT_BYTES_H_
