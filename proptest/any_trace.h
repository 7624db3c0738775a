// Traces of any sort, drawn from its rows.

#ifndef GUESTMEM_PROPTEST_ANY_TRACE_H_
#define GUESTMEM_PROPTEST_ANY_TRACE_H_

#include <cstdint>
#include <vector>

#include <rapidcheck.h>

#include "reference/trace/schema.h"

namespace proptest {

using reference::trace::Bytes;

inline std::vector<uint8_t> NumbersOf(std::span<const reference::trace::Section> sections) {
  std::vector<uint8_t> numbers;
  for (const auto& section : sections) {
    for (const auto& kind : section.kinds) numbers.push_back(kind.number);
  }
  return numbers;
}

// Half of the bytes are 0, their fields at their defaults, and half of the others are small: operations then meet in the first pages
// and objects, lists are short and their items exist, and few host calls fail. Bytes shrink to zero.
inline rc::Gen<Bytes> RecordOf(const reference::trace::Schema& schema, rc::Gen<uint8_t> kind) {
  const auto field = rc::gen::resize(100, rc::gen::weightedOneOf<uint8_t>({{2, rc::gen::just<uint8_t>(0)},
                                                                          {1, rc::gen::inRange<uint8_t>(0, 4)},
                                                                          {1, rc::gen::arbitrary<uint8_t>()}}));
  return rc::gen::map(rc::gen::pair(std::move(kind), rc::gen::container<Bytes>(schema.record_bytes - 1, field)), [](auto made) {
    made.second.insert(made.second.begin(), made.first);
    return made.second;
  });
}

template <class Trace>
rc::Gen<Trace> TraceOf(const reference::trace::Schema& schema, rc::Gen<std::vector<Bytes>> records) {
  return rc::gen::map(std::move(records), [&schema](const std::vector<Bytes>& all) {
    Bytes bytes;
    for (const Bytes& each : all) bytes.insert(bytes.end(), each.begin(), each.end());
    return reference::trace::FromBytes<Trace>(schema, bytes);
  });
}

inline rc::Gen<uint8_t> AnyOp(const reference::trace::Schema& schema) { return rc::gen::elementOf(NumbersOf({&schema.ops(), 1})); }
inline rc::Gen<Bytes> WorldRecord(const reference::trace::Schema& schema) {
  return RecordOf(schema, rc::gen::elementOf(NumbersOf(schema.sections.first(schema.sections.size() - 1))));
}

// One record in five is of the world, the others are of the kinds `op`. A container shrinks to fewer of them.
template <class Trace>
rc::Gen<Trace> AnyTrace(const reference::trace::Schema& schema, rc::Gen<uint8_t> op) {
  return TraceOf<Trace>(schema, rc::gen::container<std::vector<Bytes>>(
                                    rc::gen::weightedOneOf<Bytes>({{4, RecordOf(schema, std::move(op))}, {1, WorldRecord(schema)}})));
}

}  // namespace proptest

#endif  // GUESTMEM_PROPTEST_ANY_TRACE_H_
