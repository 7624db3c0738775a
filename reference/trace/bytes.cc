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

// How many items of a list a record has, which starts at `length`; where it has no room for so many, a few.
size_t ItemsIn(const uint8_t* length, size_t room, size_t usual) {
  constexpr size_t kFew = 4;
  return ((*length <= room ? *length : *length % std::min(kFew, room + 1)) + usual) % (room + 1);
}

// What a field's number in a record means. `trace`: null where nobody knows it.
uint64_t Meaning(const Field& field, uint64_t raw, const void* trace) {
  const uint64_t count = field.values_count();
  if (field.seldom && raw > Mask(field) / 2) return field.usual;
  const uint64_t index = trace != nullptr && field.here != nullptr && raw >= count ? raw % field.here(trace) : Reduce(raw, count);
  return field.usual == 0 ? index : (index + field.usual) % count;
}
uint8_t ItemMeaning(const Field& field, uint8_t raw, const void* trace) {
  const uint64_t count = field.values_count();
  return static_cast<uint8_t>(field.here != nullptr && raw >= count ? raw % field.here(trace) : Reduce(raw, count));
}

// A list that following records of kMore add to.
struct Open {
  const Field* field = nullptr;
  void* object = nullptr;
  const void* trace = nullptr;

  void Add(const uint8_t* length, size_t room, size_t usual) const {
    const size_t before = field->list.items(object).size();
    const size_t more = std::min(ItemsIn(length, room, usual), field->most - std::min(before, field->most));
    field->list.resize(object, before + more);
    const std::span<uint8_t> items = field->list.items(object).subspan(before);
    for (size_t i = 0; i < more; ++i) items[i] = ItemMeaning(*field, length[1 + i], trace);
  }
};

// The list among the fields, if there is one. A fresh object is as its constructor leaves it: at its defaults.
Open DecodeFields(const Section& section, const Kind& kind, const uint8_t* record, void* object, bool fresh, const void* trace) {
  Open open;
  ForFields(section, kind, [&](const Field& field) {
    if (field.list.items != nullptr) {
      field.list.resize(object, 0);
      open = {&field, object, trace};
      open.Add(record + field.at, field.room, field.usual);
    } else if (field.number.get != nullptr) {
      const uint64_t raw = Load(record + field.at) >> field.bit & Mask(field);
      if (raw != 0 || !fresh) field.number.set(object, Meaning(field, raw, trace));
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
  record[field.at] = static_cast<uint8_t>((here + field.room + 1 - field.usual) % (field.room + size_t{1}));
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

// The index itself if it is one of `values`, else another of them.
uint64_t Among(uint64_t values, uint64_t index) {
  if (index >= 64 || (values >> index & 1) != 0) return index;
  for (index %= static_cast<uint64_t>(std::popcount(values)); index > 0; --index) values &= values - 1;
  return static_cast<uint64_t>(std::countr_zero(values));
}

void KeepTo(const Only& only, void* trace) {
  const Place& place = only.section->place;
  if (only.field == nullptr) {
    if (place.size(trace) < only.least) place.resize(trace, only.least);
    return;
  }
  ForObjects(*only.section, trace, [&](void* object) {
    const Field& field = *only.field;
    if (field.list.items == nullptr) {
      const uint64_t index = field.number.get(object), meant = Among(only.values, index);
      if (meant != index) field.number.set(object, meant);
      return;
    }
    const size_t size = field.list.items(object).size();
    if (size < only.least) {
      field.list.resize(object, only.least);
      std::ranges::fill(field.list.items(object).subspan(size), only.missing);
    }
    for (uint8_t& item : field.list.items(object)) item = static_cast<uint8_t>(Among(only.values, item));
  });
}

}  // namespace

KindSet::KindSet(const Schema& schema, const Profile& profile) : schema_(schema), profile_(profile) { Take({}); }

void KindSet::LeaveOut(std::span<const uint8_t> left_out) {
  Take(left_out);
  if (all_count_ == 0) Take({});
}

void KindSet::Take(std::span<const uint8_t> left_out) {
  all_count_ = often_count_ = 0;
  in_ = {};
  const std::span<const Kind> kinds = schema_.ops().kinds;
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    if ((kinds[kind].group & profile_.groups) == 0 || (kind / 8 < left_out.size() && (left_out[kind / 8] >> kind % 8 & 1) != 0)) continue;
    in_[kind / 64] |= uint64_t{1} << kind % 64;
    all_[all_count_++] = static_cast<uint8_t>(kind);
    if ((kinds[kind].group & profile_.often) != 0) often_[often_count_++] = static_cast<uint8_t>(kind);
  }
  if (often_count_ == 0) {
    often_ = all_;
    often_count_ = all_count_;
  }
}

KindAt KindSet::Meant(uint8_t number) const {
  KindAt at = (*schema_.table)[number];
  if (&schema_.section(at) != &schema_.ops() || (at.known && (in_[at.kind / 64] >> at.kind % 64 & 1) != 0)) return at;
  at.kind = often_[number % often_count_];
  return at;
}

const Kind& KindOf(const Section& section, const void* object) {
  if (section.kind.get == nullptr) return section.kinds[0];
  const uint64_t number = section.kind.get(object);
  if (number < section.kinds.size() && section.kinds[number].number == number) return section.kinds[number];
  const auto kind = std::find_if(section.kinds.begin(), section.kinds.end(), [&](const Kind& k) { return k.number == number; });
  return kind == section.kinds.end() ? section.kinds[0] : *kind;
}

uint64_t IndexIn(const Field& field, const uint8_t* bytes) {
  return Meaning(field, Load(bytes + field.at) >> field.bit & Mask(field), nullptr);
}

void SetIndexIn(const Field& field, uint8_t* bytes, uint64_t index) {
  const uint64_t count = field.values_count();
  index = Reduce(index, count);
  const uint64_t raw = index >= field.usual ? index - field.usual : index + count - field.usual;
  Store((Load(bytes + field.at) & ~(Mask(field) << field.bit)) | raw << field.bit, bytes + field.at);
}

namespace {

// The records of the operations, or those of the world.
void DecodeSome(const Schema& schema, std::span<const uint8_t> bytes, void* trace, KindSet& kinds, bool ops) {
  uint64_t seen = 0;  // sections, a bit each
  Open open;
  for (; bytes.size() >= schema.record_bytes; bytes = bytes.subspan(schema.record_bytes)) {
    const uint8_t number = bytes[0];
    if (number == kSwarm) {
      if (ops) kinds.LeaveOut(bytes.subspan(1, schema.record_bytes - 1));
      continue;
    }
    if (number == kMore) {
      if (open.field != nullptr) open.Add(bytes.data() + 1, schema.record_bytes - 2, 0);
      continue;
    }
    open = {};
    const KindAt at = kinds.Meant(number);
    const Section& section = schema.section(at);
    if ((&section == &schema.ops()) != ops) continue;
    uint8_t record[kMostRecordBytes + 8] = {};
    std::memcpy(record, bytes.data(), schema.record_bytes);
    const Place& place = section.place;
    size_t index = 0;
    if (place.resize != nullptr) {
      index = (seen >> at.section & 1) == 0 ? 0 : place.size(trace);
      if (index == section.most) continue;
      if (index == 0) {
        place.resize(trace, 0);
        place.reserve(trace, std::min(section.most, bytes.size() / schema.record_bytes));
      }
      place.resize(trace, index + 1);
    }
    seen |= uint64_t{1} << at.section;
    void* const object = place.at(trace, index);
    const Kind& kind = section.kinds[at.kind];
    if (section.kind.set != nullptr) section.kind.set(object, kind.number);
    open = DecodeFields(section, kind, record, object, place.resize != nullptr, trace);
  }
}

}  // namespace

// The world first: what numbers of operations mean depends on it.
void Decode(const Schema& schema, std::span<const uint8_t> bytes, void* trace, const Profile& profile) {
  KindSet kinds(schema, profile);
  for (const bool ops : {false, true}) {
    DecodeSome(schema, bytes, trace, kinds, ops);
    if (!ops) {
      for (const Only& only : profile.world) KeepTo(only, trace);
    }
    for (const Section& section : schema.sections) {
      if ((&section == &schema.ops()) != ops) continue;
      Clamp(section, trace);
      if (section.normal != nullptr) ForObjects(section, trace, [&](void* object) { section.normal(object, trace); });
    }
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

std::vector<Record> Split(const Schema& schema, std::span<const uint8_t> bytes, const Profile& profile) {
  std::vector<Record> records;
  KindSet kinds(schema, profile);
  const auto add = [](Record& record, const uint8_t* length, size_t room, size_t usual) {
    record.list.insert(record.list.end(), length + 1, length + 1 + ItemsIn(length, room, usual));
  };
  for (; bytes.size() >= schema.record_bytes; bytes = bytes.subspan(schema.record_bytes)) {
    if (bytes[0] == kMore) {
      if (!records.empty()) add(records.back(), bytes.data() + 1, schema.record_bytes - 2, 0);
      continue;
    }
    Record& record = records.emplace_back();
    std::copy_n(bytes.begin(), schema.record_bytes, record.bytes.begin());
    record.swarm = bytes[0] == kSwarm;
    if (record.swarm) {
      kinds.LeaveOut(bytes.subspan(1, schema.record_bytes - 1));
      continue;
    }
    record.kind = kinds.Meant(bytes[0]);
    ForFields(schema.section(record.kind), schema.kind(record.kind), [&](const Field& field) {
      if (field.list.items != nullptr) add(record, record.bytes.data() + field.at, field.room, field.usual);
    });
  }
  return records;
}

Bytes Join(const Schema& schema, std::span<const Record> records) {
  Bytes bytes;
  for (const Record& record : records) {
    auto copy = record.bytes;
    size_t room = 0;
    copy[0] = record.swarm ? kSwarm : schema.kind(record.kind).number;
    if (!record.swarm) {
      ForFields(schema.section(record.kind), schema.kind(record.kind), [&](const Field& field) {
        if (field.list.items == nullptr) return;
        room = field.room;
        PutItems(field, record.list, copy.data());
      });
    }
    AppendRecord(schema, copy.data(), room == 0 ? std::span<const uint8_t>() : record.list, room, bytes);
  }
  return bytes;
}

}  // namespace reference::trace
