#include "plan.h"

#include <algorithm>
#include <cstring>

namespace guestmem::hostile::detail {

const char* Name(AnswerKind kind) {
  switch (kind) {
    case AnswerKind::kNotMapped: return "not-mapped";
    case AnswerKind::kDenied: return "denied";
    case AnswerKind::kReadOnly: return "read-only";
    case AnswerKind::kBackend: return "backend-error";
    case AnswerKind::kNotLockable: return "not-lockable";
  }
  return "?";
}

void Copy(const Plan& from, Plan& to) {
  to.requests = from.requests;
  to.write_count = from.write_count;
  to.answer_count = from.answer_count;
  to.examples = from.examples;
  to.change = from.change;
  std::copy_n(from.answers.begin(), from.answer_count, to.answers.begin());
  std::copy_n(from.writes.begin(), from.write_count, to.writes.begin());
}

uint64_t Random::Next() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return state_ * 0x2545f4914f6cdd1d >> 16;
}

uint64_t Mix(uint64_t hash, std::span<const std::byte> bytes) {
  hash = Mix(hash, bytes.size());
  for (; bytes.size() >= sizeof(uint64_t); bytes = bytes.subspan(sizeof(uint64_t))) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof(word));
    hash = Mix(hash, word);
  }
  for (const std::byte byte : bytes) {
    hash = Mix(hash, std::to_integer<uint64_t>(byte));
  }
  return hash;
}

std::span<const Record> Decode(std::span<const uint8_t> input, std::array<Record, kMaxRecords>& records) {
  size_t count = 0;
  for (; count < kMaxRecords && input.size() >= kRecordBytes; input = input.subspan(kRecordBytes)) {
    Record& record = records[count++];
    record.kind = static_cast<Record::Kind>(input[0] % 8);
    record.form = static_cast<uint8_t>(input[0] / 8);
    record.request = input[1];
    std::memcpy(&record.where, &input[2], sizeof(record.where));
    std::memcpy(&record.value, &input[4], sizeof(record.value));
  }
  return {records.data(), count};
}

uint64_t Value(const Record& record, uint64_t original, size_t size, uint64_t memory_size, std::span<const uint64_t> interesting) {
  constexpr uint64_t kNear = 0x1000;
  const uint64_t v = record.value;
  const uint64_t mask = size < 8 ? (uint64_t{1} << 8 * size) - 1 : ~uint64_t{0};
  switch (record.form % 16) {
    case 0: return v;
    case 1: return v % 16;
    case 2: return v % memory_size;                             // an address in memory
    case 3: return v % memory_size & ~uint64_t{15};
    case 4: return memory_size - v % kNear;                     // at its end
    case 5: return memory_size / kNear * kNear + v % kNear;     // beyond
    case 6: return ~uint64_t{0} - v % kNear;                    // where an end wraps
    case 7: return (~uint64_t{0} - v % memory_size) & ~uint64_t{7};
    case 8: return (uint64_t{1} << v % 64) + (v >> 8) % 3 - 1;  // powers of two and their neighbours
    case 9: return original ^ uint64_t{1} << v % (8 * size);    // a flag
    case 10: return original + v % 16 + 1;                      // an index
    case 11: return original - v % 16 - 1;
    case 12: return interesting.empty() ? 0 : interesting[v % interesting.size()];
    case 13: return mask - v % 4;                               // a length
    case 14: return v % 2 == 0 ? 0 : v << 32 | v;
    default: return v % 0x2000;
  }
}

size_t Mutate(uint8_t* data, size_t size, size_t max_size, uint32_t seed) {
  Random random(seed);
  size = std::min(size, max_size) / kRecordBytes * kRecordBytes;
  const auto put = [&](size_t at) {
    for (size_t i = 0; i < kRecordBytes; ++i) {
      data[at + i] = static_cast<uint8_t>(random.Next());
    }
    if (random.Below(2) == 0) {  // small numbers are likelier to mean something
      data[at + 3] = data[at + 5] = data[at + 6] = data[at + 7] = 0;
      data[at + 2] %= 32;
    }
  };
  for (uint64_t rounds = 1 + random.Below(3); rounds != 0; --rounds) {
    const size_t records = size / kRecordBytes;
    const size_t at = records == 0 ? 0 : random.Below(records) * kRecordBytes;
    switch (records == 0 ? 0 : random.Below(8)) {
      case 0:
      case 1:  // a new one
        if (size + kRecordBytes <= max_size) {
          std::memmove(data + at + kRecordBytes, data + at, size - at);
          put(at);
          size += kRecordBytes;
        }
        break;
      case 2:  // one less
        std::memmove(data + at, data + at + kRecordBytes, size - at - kRecordBytes);
        size -= kRecordBytes;
        break;
      case 3: put(at); break;
      case 4: data[at] = static_cast<uint8_t>(random.Next()); break;
      case 5: data[at + 1 + random.Below(3)] = static_cast<uint8_t>(random.Next()); break;
      case 6: data[at + 4 + random.Below(4)] = static_cast<uint8_t>(random.Next()); break;
      default: std::memcpy(data + at, data + random.Below(records) * kRecordBytes, 4); break;  // another's place
    }
  }
  return size;
}

}  // namespace guestmem::hostile::detail
