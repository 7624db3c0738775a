// Random records, by rows: what the mutator puts in, and what random traces are made of.

#ifndef GUESTMEM_REFERENCE_TRACE_DRAW_H_
#define GUESTMEM_REFERENCE_TRACE_DRAW_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "reference/trace/record.h"
#include "reference/trace/schema.h"

// On a function whose unsigned arithmetic is meant modulo 2^64: -fsanitize=integer leaves it alone.
#if defined(__clang__)
#define GUESTMEM_WRAPS __attribute__((no_sanitize("unsigned-integer-overflow", "unsigned-shift-base")))
#else
#define GUESTMEM_WRAPS
#endif

namespace reference::trace {

class Random {  // xorshift64* (Vigna 2016)
 public:
  GUESTMEM_WRAPS explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 | 1) {}
  GUESTMEM_WRAPS uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  uint64_t Below(uint64_t end) { return (Next() >> 32) % end; }
  bool OnceIn(uint64_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

class Draw {
 public:
  // Both must stay.
  Draw(const Schema& schema, const Profile& profile, uint64_t seed) : random(seed), schema_(schema), kinds_(schema, profile) {}

  Record Often();      // an operation of a kind that the profile has often
  Record Operation();  // two in three of those
  Record World();      // a line of it. Precondition: there is a section before the operations
  Record Swarm();      // leaves out about half of the kinds of operations
  // Another value for one of the record's fields: near the one it has, or any.
  void ChangeField(Record& record);

  Random random;

 private:
  std::vector<const Field*> FieldsOf(const Record& record) const;
  Record OfKind(uint8_t kind);
  uint8_t Item(const Field& field);
  void Set(const Field& field, Record& record);
  void SetAll(Record& record);  // lists get three items at most
  void ChangeList(const Field& field, Record& record);

  const Schema& schema_;
  const KindSet kinds_;
};

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_DRAW_H_
