// A libFuzzer mutator that knows traces, of whichever sort: it inserts, deletes, doubles, swaps and changes records, of the world and of
// operations, field by field, and splices two traces at operations. Every other mutation is still libFuzzer's own, on the bytes. Whether
// it is worth having, ci/mutants.sh --mutators measures: 16 seeded bugs from nothing, one seed, took 233 s with the one before it and 389 s
// without (15 and 14 killed).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <span>
#include <vector>

#include "reference/schedule/choices.h"
#include "reference/trace/record.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) __attribute__((weak));  // other engines lack it

namespace fuzz {
const reference::trace::Schema& TargetRows();  // the target's
}  // namespace fuzz

namespace {

using reference::trace::Field;
using reference::trace::KindAt;
using reference::trace::Record;
using reference::trace::Schema;
using Records = std::vector<Record>;

class Random {
 public:
  GUESTMEM_WRAPS explicit Random(unsigned int seed) : state_(seed * uint64_t{0x9e3779b97f4a7c15} + 1) {}
  GUESTMEM_WRAPS uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * uint64_t{0x2545f4914f6cdd1d};
  }
  size_t Below(size_t end) { return static_cast<size_t>((Next() >> 16) % end); }
  bool OnceIn(size_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

const Schema& Rows() { return fuzz::TargetRows(); }

// Mostly the first values of a row, which are the plain ones; numbers close to an edge; any.
uint64_t RandomIndex(const Field& field, Random& random) {
  const uint64_t count = field.values_count();
  if (count == 0) return random.OnceIn(2) ? random.Below(4) : random.Next();
  switch (random.Below(4)) {
    case 0: return field.usual;
    case 1: return random.Below(std::min<uint64_t>(count, 4));
    case 2: return (field.usual + count - std::min<uint64_t>(count, 9) / 2 + random.Below(std::min<uint64_t>(count, 9))) % count;
    default: return random.Below(count);
  }
}

void ChangeList(const Field& field, Record& record, Random& random) {
  if (record.list.empty() || random.OnceIn(3)) {
    record.list.push_back(static_cast<uint8_t>(RandomIndex(field, random)));
  } else if (random.OnceIn(2)) {
    record.list.pop_back();
  } else {
    record.list[random.Below(record.list.size())] = static_cast<uint8_t>(RandomIndex(field, random));
  }
}

// Another value for a field: near the one it has, or any.
void ChangeField(const Field& field, Record& record, Random& random) {
  if (field.list.items != nullptr) return ChangeList(field, record, random);
  const uint64_t count = field.values_count(), now = IndexIn(field, record.bytes.data());
  const bool near = count > 4 && random.OnceIn(2);
  SetIndexIn(field, record.bytes.data(), near ? (now + count - 2 + random.Below(5)) % count : RandomIndex(field, random));
}

std::vector<const Field*> FieldsOf(KindAt kind) {
  std::vector<const Field*> fields;
  ForFields(Rows().section(kind), Rows().kind(kind), [&](const Field& field) {
    if (field.in_bytes()) fields.push_back(&field);
  });
  return fields;
}

// An operation three times in four, else a line of the world; fields of a list get three items at most.
Record RandomRecord(Random& random) {
  const size_t sections = Rows().sections.size();
  Record record;
  record.kind.section = static_cast<uint8_t>(sections == 1 || !random.OnceIn(4) ? sections - 1 : random.Below(sections - 1));
  record.kind.kind = static_cast<uint8_t>(random.Below(Rows().section(record.kind).kinds.size()));
  for (const Field* const field : FieldsOf(record.kind)) {
    if (field->list.items == nullptr) SetIndexIn(*field, record.bytes.data(), RandomIndex(*field, random));
    else for (size_t items = random.Below(4); items > 0; --items) record.list.push_back(static_cast<uint8_t>(RandomIndex(*field, random)));
  }
  return record;
}

void ChangeTrace(Records& records, Random& random) {
  const auto at = [&](size_t i) { return records.begin() + static_cast<ptrdiff_t>(i); };
  if (records.empty() || random.OnceIn(5)) {
    records.insert(at(random.Below(records.size() + 1)), RandomRecord(random));
    return;
  }
  const size_t i = random.Below(records.size());
  switch (random.Below(8)) {
    case 0: records.erase(at(i)); break;
    case 1: {
      const Record copy = records[i];
      records.insert(at(random.Below(records.size() + 1)), copy);
      break;
    }
    case 2: std::swap(records[i], records[random.Below(records.size())]); break;
    case 3: records[i].kind = RandomRecord(random).kind; break;  // the fields that fit
    default: {
      const std::vector<const Field*> fields = FieldsOf(records[i].kind);
      if (!fields.empty()) ChangeField(*fields[random.Below(fields.size())], records[i], random);
    }
  }
}

size_t Store(const Records& records, uint8_t* out, size_t max_size) {
  const std::vector<uint8_t> bytes = Join(Rows(), records);
  const size_t size = std::min(bytes.size(), max_size);
  std::copy_n(bytes.begin(), size, out);
  return size;
}

bool Plain() {
  static const bool plain = std::getenv("GUESTMEM_PLAIN_MUTATOR") != nullptr;  // ci/mutants.sh --mutators
  return plain;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  Random random(seed);
  if (Plain() || max_size < Rows().record_bytes || random.OnceIn(2)) return LLVMFuzzerMutate(data, size, max_size);
  Records records = Split(Rows(), {data, size});
  for (size_t times = 1 + random.Below(3); times > 0; --times) ChangeTrace(records, random);
  return Store(records, data, max_size);
}

// The first up to a place, then the second from another on: the world is whose comes last.
extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* data1, size_t size1, const uint8_t* data2, size_t size2, uint8_t* out,
                                            size_t max_size, unsigned int seed) {
  if (Plain()) return 0;
  Random random(seed);
  Records records = Split(Rows(), {data1, size1});
  const Records other = Split(Rows(), {data2, size2});
  records.resize(random.Below(records.size() + 1));
  records.insert(records.end(), other.begin() + static_cast<ptrdiff_t>(random.Below(other.size() + 1)), other.end());
  return Store(records, out, max_size);
}
