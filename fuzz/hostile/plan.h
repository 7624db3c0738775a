// What a hostile guest does in one run, by address: which example each request is, what else is written before it, which pages
// are away, and at most one change before an access. It stands in memory that a child process shares, so it is of fixed size.

#ifndef GUESTMEM_FUZZ_HOSTILE_PLAN_H_
#define GUESTMEM_FUZZ_HOSTILE_PLAN_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace guestmem::hostile::detail {

inline constexpr size_t kMaxRequests = 16;
inline constexpr size_t kMaxWrites = 2048;
inline constexpr size_t kMaxAnswers = 16;
inline constexpr uint64_t kWordBytes = 8;

// `length` bytes from `gpa` on: `size` bytes, repeated.
struct Write {
  uint64_t gpa = 0;
  uint32_t length = 0;
  uint8_t request = 0;
  uint8_t size = 1;
  std::array<std::byte, kWordBytes> bytes = {};

  void PutInto(std::byte* to) const {
    if (size == 1) {
      std::memset(to, std::to_integer<int>(bytes[0]), length);
    } else {
      for (uint32_t i = 0; i < length; i += size) {
        std::memcpy(to + i, bytes.data(), std::min<uint32_t>(size, length - i));
      }
    }
  }
  bool operator==(const Write&) const = default;
};

// How accesses to a page are answered from some access of a request on, until that request's kick returns.
enum class AnswerKind : uint8_t {
  kNotMapped,    // the page is away
  kDenied,       // its bits are clear for both
  kReadOnly,     // its bit is clear for stores
  kBackend,      // an error of the backing's own, after half of the bytes were moved
  kNotLockable,  // it cannot be locked; accesses go through
};
inline constexpr size_t kAnswerKinds = 5;
const char* Name(AnswerKind kind);

struct Answer {
  uint64_t page = 0;
  uint32_t after = 0;  // accesses of the request
  uint8_t request = 0;
  AnswerKind kind = AnswerKind::kNotMapped;
};

struct Change {
  bool present = false;
  uint32_t access = 0;  // of the request's kick: it is made just before this one
  Write write;
};

struct Plan {
  uint32_t requests = 0;
  uint32_t write_count = 0;
  uint32_t answer_count = 0;
  std::array<uint8_t, kMaxRequests> examples = {};
  Change change;
  std::array<Answer, kMaxAnswers> answers;
  std::array<Write, kMaxWrites> writes;  // grows from the front; beyond, a run goes on and the plan does not know it

  Plan() {}  // the arrays are not cleared: there is one of these for each run
  void Clear() { requests = write_count = answer_count = 0, change.present = false; }
  void Add(const Write& write) {
    if (write_count < kMaxWrites) {
      writes[write_count++] = write;
    }
  }
};

void Copy(const Plan& from, Plan& to);

// One line of an input: what deviates. Eight bytes of the input each.
struct Record {
  enum class Kind : uint8_t { kRequest, kField, kField2, kPoke, kAnswer, kChange, kDraw, kDraw2 };

  Kind kind;
  uint8_t form;  // of the value
  uint8_t request;
  uint16_t where;
  uint32_t value;
};
inline constexpr size_t kRecordBytes = 8;
inline constexpr size_t kMaxRecords = 64;

std::span<const Record> Decode(std::span<const uint8_t> input, std::array<Record, kMaxRecords>& records);

// The value that a record stands for, where `original` would be of `size` bytes in memory of `memory_size`. Biased to what a
// device might get wrong.
uint64_t Value(const Record& record, uint64_t original, size_t size, uint64_t memory_size, std::span<const uint64_t> interesting);

// Changes an input in place, by records. Returns its new size.
size_t Mutate(uint8_t* data, size_t size, size_t max_size, uint32_t seed);

// A small generator: what is random here depends on the seed alone.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t Next();
  uint64_t Below(uint64_t n) { return Next() % n; }

 private:
  uint64_t state_;
};
inline uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9fb21c651e98df25;
  return hash ^ hash >> 32;
}
uint64_t Mix(uint64_t hash, std::span<const std::byte> bytes);

// The text of a finding, and back. Parsing returns what is wrong, empty if nothing is.
std::string ToText(const Plan& plan, std::span<const std::string> examples, std::string_view comment);
std::string FromText(std::string_view text, std::span<const std::string> examples, uint64_t memory_size, Plan& plan);
std::string WriteText(const Write& write);

}  // namespace guestmem::hostile::detail

#endif  // GUESTMEM_FUZZ_HOSTILE_PLAN_H_
