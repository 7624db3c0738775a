// A record by itself: what the minimiser, the mutator and the statistics change and count, without knowing the sort's structs.

#ifndef GUESTMEM_REFERENCE_TRACE_RECORD_H_
#define GUESTMEM_REFERENCE_TRACE_RECORD_H_

#include <array>
#include <span>
#include <vector>

#include "reference/trace/schema.h"

namespace reference::trace {

struct Record {
  KindAt kind = {};
  bool swarm = false;  // of kSwarm: the other bytes say which kinds are left out
  std::array<uint8_t, kMostRecordBytes + 8> bytes = {};  // with room for a load of 8 bytes at any place
  Bytes list = {};                                       // the items, those of following records included
};

// A field's index in a record, not for lists.
uint64_t IndexIn(const Field& field, const uint8_t* bytes);
void SetIndexIn(const Field& field, uint8_t* bytes, uint64_t index);

// Of the kinds that the profile means.
std::vector<Record> Split(const Schema& schema, std::span<const uint8_t> bytes, const Profile& profile = {});
Bytes Join(const Schema& schema, std::span<const Record> records);

// each(field) of the kind's fields, in order.
template <class Each>
void ForFields(const Section& section, const Kind& kind, Each each) {
  for (uint64_t left = kind.fields; left != 0; left &= left - 1) each(section.fields[static_cast<size_t>(std::countr_zero(left))]);
}

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_RECORD_H_
