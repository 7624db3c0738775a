#include "reference/trace/draw.h"

#include <algorithm>

namespace reference::trace {
namespace {

// A number beyond the values: it means one that makes sense in the world at hand.
uint8_t Beyond(uint64_t count, Random& random) { return static_cast<uint8_t>(count + random.Below(256 - count)); }

}  // namespace

uint8_t Draw::Item(const Field& field) {
  const uint64_t count = field.values_count();
  if (field.here != nullptr && !random.OnceIn(4)) return Beyond(count, random);
  return static_cast<uint8_t>(random.Below(random.OnceIn(2) ? count : std::min<uint64_t>(count, 4)));
}

// Mostly the usual value and those next to it, which are the plain ones, and what makes sense in the world; else any.
void Draw::Set(const Field& field, Record& record) {
  const uint64_t count = field.values_count(), few = std::min<uint64_t>(count, 9);
  const auto set = [&](uint64_t index) { SetIndexIn(field, record.bytes.data(), index); };
  if (count == 0) return set(random.OnceIn(2) ? random.Below(4) : random.Next());
  if (field.here != nullptr && !random.OnceIn(8)) {
    record.bytes[field.at] = Beyond(count, random);
    return;
  }
  switch (random.Below(6)) {
    case 0: return set(random.Below(count));
    case 1: return set((field.usual + random.Below(std::min<uint64_t>(count, 4))) % count);
    case 2: return set((field.usual + count - few / 2 + random.Below(few)) % count);
    default: return set(field.usual);
  }
}

void Draw::SetAll(Record& record) {
  for (const Field* const field : FieldsOf(record)) {
    if (field->list.items == nullptr) {
      Set(*field, record);
    } else {
      for (uint64_t items = field->usual + random.Below(4 - field->usual); items > 0; --items) record.list.push_back(Item(*field));
    }
  }
}

std::vector<const Field*> Draw::FieldsOf(const Record& record) const {
  std::vector<const Field*> fields;
  ForFields(schema_.section(record.kind), schema_.kind(record.kind), [&](const Field& field) {
    if (field.in_bytes()) fields.push_back(&field);
  });
  return fields;
}

Record Draw::OfKind(uint8_t kind) {
  Record record;
  record.kind = {static_cast<uint8_t>(schema_.sections.size() - 1), kind, true};
  SetAll(record);
  return record;
}

Record Draw::Operation() {
  if (!random.OnceIn(3)) return Often();
  return OfKind(kinds_.all()[random.Below(kinds_.all().size())]);
}
Record Draw::Often() { return OfKind(kinds_.often()[random.Below(kinds_.often().size())]); }

Record Draw::World() {
  Record record;
  record.kind.section = static_cast<uint8_t>(random.Below(schema_.sections.size() - 1));
  SetAll(record);
  return record;
}

Record Draw::Swarm() {
  Record record;
  record.swarm = true;
  for (size_t i = 1; i < schema_.record_bytes; ++i) record.bytes[i] = static_cast<uint8_t>(random.Next() >> 24);
  return record;
}

void Draw::ChangeList(const Field& field, Record& record) {
  if (record.list.empty() || random.OnceIn(3)) {
    record.list.push_back(Item(field));
  } else if (random.OnceIn(2)) {
    record.list.pop_back();
  } else {
    record.list[random.Below(record.list.size())] = Item(field);
  }
}

void Draw::ChangeField(Record& record) {
  const std::vector<const Field*> fields = FieldsOf(record);
  if (fields.empty()) return;
  const Field& field = *fields[random.Below(fields.size())];
  if (field.list.items != nullptr) return ChangeList(field, record);
  const uint64_t count = field.values_count();
  if (count <= 4 || random.OnceIn(2)) return Set(field, record);
  const uint64_t now = IndexIn(field, record.bytes.data());
  SetIndexIn(field, record.bytes.data(), (now + count - 2 + random.Below(5)) % count);
}

}  // namespace reference::trace
