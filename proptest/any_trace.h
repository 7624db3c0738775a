// Traces of any sort, drawn from its rows.

#ifndef GUESTMEM_PROPTEST_ANY_TRACE_H_
#define GUESTMEM_PROPTEST_ANY_TRACE_H_

#include <vector>

#include <rapidcheck.h>

#include "reference/trace/schema.h"

namespace proptest {

// Every second byte is 0, its field at its default: operations then meet in the first pages and objects, and few host calls fail.
// Bytes shrink to zero, and a container to fewer of them: of records. One record in five is of the world.
template <class Trace>
rc::Gen<Trace> AnyTrace(const reference::trace::Schema& schema) {
  using reference::trace::Bytes;
  std::vector<uint8_t> world, ops;
  for (const auto& section : schema.sections) {
    for (const auto& kind : section.kinds) (&section == &schema.ops() ? ops : world).push_back(kind.number);
  }
  const auto kind = rc::gen::weightedOneOf<uint8_t>({{4, rc::gen::elementOf(ops)}, {1, rc::gen::elementOf(world)}});
  const auto field = rc::gen::weightedOneOf<uint8_t>({{1, rc::gen::just<uint8_t>(0)}, {1, rc::gen::resize(100, rc::gen::arbitrary<uint8_t>())}});
  const auto record = rc::gen::map(rc::gen::pair(kind, rc::gen::container<Bytes>(schema.record_bytes - 1, field)), [](auto made) {
    made.second.insert(made.second.begin(), made.first);
    return made.second;
  });
  return rc::gen::map(rc::gen::container<std::vector<Bytes>>(record), [&schema](const std::vector<Bytes>& records) {
    Bytes bytes;
    for (const Bytes& each : records) bytes.insert(bytes.end(), each.begin(), each.end());
    return reference::trace::FromBytes<Trace>(schema, bytes);
  });
}

}  // namespace proptest

#endif  // GUESTMEM_PROPTEST_ANY_TRACE_H_
