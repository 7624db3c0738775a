// The byte spelling, and the normal form.

#include <algorithm>
#include <cstring>

#include "reference/trace/record.h"
#include "reference/trace/schema.h"

namespace reference::trace {
namespace {

uint64_t Mask(const Field& field) { return field.bits == 64 ? ~uint64_t{0} : (uint64_t{1} << field.bits) - 1; }

uint64_t Load(const uint8_t* bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

void Store(uint64_t value, uint8_t* bytes) {
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}

// How many items of a list a record has, which starts at `length`.
size_t ItemsIn(const uint8_t* length, size_t room) { return Reduce(*length, room + 1); }

// A list that following records of kMore add to.
struct Open {
  const Field* field = nullptr;
  void* object = nullptr;

  void Add(const uint8_t* length, size_t room) const {
    const size_t before = field->list.items(object).size();
    const size_t more = std::min(ItemsIn(length, room), field->most - std::min(before, field->most));
    field->list.resize(object, before + more);
    const std::span<uint8_t> items = field->list.items(object).subspan(before);
    for (size_t i = 0; i < more; ++i) items[i] = static_cast<uint8_t>(Reduce(length[1 + i], field->values_count()));
  }
};

// Whether the field is at its default there.
bool IsZero(const Field& field, const uint8_t* record) { return (Load(record + field.at) >> field.bit & Mask(field)) == 0; }

// The list among the fields, if there is one. A fresh object is as its constructor leaves it: at its defaults.
Open DecodeFields(const Section& section, const Kind& kind, const uint8_t* record, void* object, bool fresh) {
  Open open;
  ForFields(section, kind, [&](const Field& field) {
    if (field.list.items != nullptr) {
      field.list.resize(object, 0);
      open = {&field, object};
      open.Add(record + field.at, field.room);
    } else if (field.in_bytes() && !(fresh && IsZero(field, record))) {
      field.number.set(object, IndexIn(field, record));
    }
  });
  return open;
}

// Writes records of kMore for what the first one, with `room` items, has no room for.
void AppendRecord(const Schema& schema, const uint8_t* record, std::span<const uint8_t> items, size_t room, Bytes& out) {
  out.insert(out.end(), record, record + schema.record_bytes);
  for (items = items.subspan(std::min(room, items.size())); !items.empty();) {
    const std::span<const uint8_t> some = items.first(std::min(items.size(), schema.record_bytes - 2));
    out.push_back(kMore);
    out.push_back(static_cast<uint8_t>(some.size()));
    out.insert(out.end(), some.begin(), some.end());
    out.resize(out.size() + schema.record_bytes - 2 - some.size());
    items = items.subspan(some.size());
  }
}

void PutItems(const Field& field, std::span<const uint8_t> items, uint8_t* record) {
  const size_t here = std::min<size_t>(items.size(), field.room);
  record[field.at] = static_cast<uint8_t>(here);
  std::copy_n(items.begin(), here, record + field.at + 1);
}

// Whether it says anything: a record for it is needed.
bool EncodeObject(const Schema& schema, const Section& section, const void* object, Bytes& out) {
  const Kind& kind = KindOf(section, object);
  uint8_t record[kMostRecordBytes + 8] = {kind.number};
  std::span<const uint8_t> list;
  size_t room = 0;
  ForFields(section, kind, [&](const Field& field) {
    if (field.list.items != nullptr) {
      list = field.list.items(const_cast<void*>(object));  // Safe because nothing is written there.
      room = field.room;
      PutItems(field, list, record);
    } else if (field.in_bytes()) {
      SetIndexIn(field, record, field.number.get(object));
    }
  });
  const bool says = std::any_of(record + 1, record + schema.record_bytes, [](uint8_t byte) { return byte != 0; });
  AppendRecord(schema, record, list, room, out);
  return says;
}

void Clamp(const Section& section, void* trace) {
  if (section.place.resize == nullptr) return;
  const size_t size = section.place.size(trace), most = section.room == nullptr ? section.most : section.room(trace);
  if (size < section.least || size > most) section.place.resize(trace, std::clamp(size, section.least, most));
}

template <class Each>
void ForObjects(const Section& section, void* trace, Each each) {
  for (size_t i = 0; i < section.place.size(trace); ++i) each(section.place.at(trace, i));
}

}  // namespace

const Kind& KindOf(const Section& section, const void* object) {
  if (section.kind.get == nullptr) return section.kinds[0];
  const uint64_t number = section.kind.get(object);
  if (number < section.kinds.size() && section.kinds[number].number == number) return section.kinds[number];
  const auto kind = std::find_if(section.kinds.begin(), section.kinds.end(), [&](const Kind& k) { return k.number == number; });
  return kind == section.kinds.end() ? section.kinds[0] : *kind;
}

uint64_t IndexIn(const Field& field, const uint8_t* bytes) {
  const uint64_t raw = Load(bytes + field.at) >> field.bit & Mask(field);
  if (field.seldom && raw > Mask(field) / 2) return field.usual;
  const uint64_t count = field.values_count(), index = Reduce(raw, count);
  return field.usual == 0 ? index : (index + field.usual) % count;
}

void SetIndexIn(const Field& field, uint8_t* bytes, uint64_t index) {
  const uint64_t count = field.values_count();
  index = Reduce(index, count);
  const uint64_t raw = index >= field.usual ? index - field.usual : index + count - field.usual;
  Store((Load(bytes + field.at) & ~(Mask(field) << field.bit)) | raw << field.bit, bytes + field.at);
}

void Decode(const Schema& schema, std::span<const uint8_t> bytes, void* trace) {
  uint64_t seen = 0;  // sections, a bit each
  Open open;
  for (; bytes.size() >= schema.record_bytes; bytes = bytes.subspan(schema.record_bytes)) {
    uint8_t record[kMostRecordBytes + 8] = {};
    std::memcpy(record, bytes.data(), schema.record_bytes);
    if (record[0] == kMore) {
      if (open.field != nullptr) open.Add(record + 1, schema.record_bytes - 2);
      continue;
    }
    const KindAt at = (*schema.table)[record[0]];
    const Section& section = schema.section(at);
    const Place& place = section.place;
    size_t index = 0;
    open = {};
    if (place.resize != nullptr) {
      index = (seen >> at.section & 1) == 0 ? 0 : place.size(trace);
      if (index == section.most) continue;
      if (index == 0) place.resize(trace, 0);
      place.resize(trace, index + 1);
    }
    seen |= uint64_t{1} << at.section;
    void* const object = place.at(trace, index);
    const Kind& kind = section.kinds[at.kind];
    if (section.kind.set != nullptr) section.kind.set(object, kind.number);
    open = DecodeFields(section, kind, record, object, place.resize != nullptr);
  }
  for (const Section& section : schema.sections) {
    Clamp(section, trace);
    if (section.normal != nullptr) ForObjects(section, trace, [&](void* object) { section.normal(object, trace); });
  }
}

Bytes Encode(const Schema& schema, const void* trace) {
  Bytes bytes;
  for (const Section& section : schema.sections) {
    const size_t start = bytes.size(), size = section.place.size(trace);
    bool says = section.place.resize != nullptr && size > section.least;
    for (size_t i = 0; i < size; ++i) {
      // Safe because nothing is written there.
      says |= EncodeObject(schema, section, section.place.at(const_cast<void*>(trace), i), bytes);
    }
    if (!says && &section != &schema.ops()) bytes.resize(start);  // what no bytes mean
  }
  return bytes;
}

void NormaliseObject(const Section& section, void* object, const void* trace) {
  const Kind& kind = KindOf(section, object);
  std::array<uint64_t, 64> index;
  ForFields(section, kind, [&](const Field& field) {
    if (field.number.get != nullptr) index[static_cast<size_t>(&field - section.fields.data())] = field.number.get(object);
  });
  for (size_t i = 0; i < section.fields.size(); ++i) {  // those that share a member with one in use are set again below
    const Field& field = section.fields[i];
    if (field.number.get != nullptr) field.number.set(object, field.usual);
    if (field.list.items != nullptr && (kind.fields >> i & 1) == 0) field.list.resize(object, 0);
  }
  ForFields(section, kind, [&](const Field& field) {
    if (field.number.get != nullptr) {
      field.number.set(object, Reduce(index[static_cast<size_t>(&field - section.fields.data())], field.values_count()));
    } else if (field.list.items != nullptr) {
      if (field.list.items(object).size() > field.most) field.list.resize(object, field.most);
      for (uint8_t& item : field.list.items(object)) item = static_cast<uint8_t>(Reduce(item, field.values_count()));
    }
  });
  if (section.normal != nullptr) section.normal(object, trace);
}

void Normalise(const Schema& schema, void* trace) {
  for (const Section& section : schema.sections) {
    Clamp(section, trace);
    ForObjects(section, trace, [&](void* object) { NormaliseObject(section, object, trace); });
  }
}

std::vector<Record> Split(const Schema& schema, std::span<const uint8_t> bytes) {
  std::vector<Record> records;
  const auto add = [](Record& record, const uint8_t* length, size_t room) {
    record.list.insert(record.list.end(), length + 1, length + 1 + ItemsIn(length, room));
  };
  for (; bytes.size() >= schema.record_bytes; bytes = bytes.subspan(schema.record_bytes)) {
    if (bytes[0] == kMore) {
      if (!records.empty()) add(records.back(), bytes.data() + 1, schema.record_bytes - 2);
      continue;
    }
    Record& record = records.emplace_back();
    record.kind = (*schema.table)[bytes[0]];
    std::copy_n(bytes.begin(), schema.record_bytes, record.bytes.begin());
    ForFields(schema.section(record.kind), schema.kind(record.kind), [&](const Field& field) {
      if (field.list.items != nullptr) add(record, record.bytes.data() + field.at, field.room);
    });
  }
  return records;
}

Bytes Join(const Schema& schema, std::span<const Record> records) {
  Bytes bytes;
  for (const Record& record : records) {
    auto copy = record.bytes;
    size_t room = record.list.size();
    copy[0] = schema.kind(record.kind).number;
    ForFields(schema.section(record.kind), schema.kind(record.kind), [&](const Field& field) {
      if (field.list.items == nullptr) return;
      room = field.room;
      PutItems(field, record.list, copy.data());
    });
    AppendRecord(schema, copy.data(), record.list, room, bytes);
  }
  return bytes;
}

}  // namespace reference::trace
