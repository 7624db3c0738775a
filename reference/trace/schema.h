// What a sort of trace is made of, in rows: sections (the lines of its text), kinds (a line's name and its number in bytes) and
// fields (a number, its values, its place in the bytes). Both spellings, the normal form, the minimiser, the mutator and the
// statistics are loops over these rows, written once here for all sorts; a sort of trace is a struct and its rows.
//
// Bytes: records of Schema::record_bytes, the first byte of each the number of its kind. Every byte string is a legal trace: what is
// missing is at its default, records and fields may come in any order, a partial last record is dropped. Zero bytes of a record are
// its fields' defaults, and an operation of zeros does something. Numbers that no kind or value has mean one that makes sense here: a kind
// that the profile has often, a page that the world has. A list that is longer than its record goes on in records of kind kMore. A record
// of kind kSwarm says which kinds of operations the records behind it do without.
//
// Text: a header, a line for each object of the world, the line `ops`, a line for each operation.
//
// The rows reach into a sort's own structs through pointers to void, so that the code here is compiled once: a schema's functions
// take a pointer to the struct that its rows are about, and nothing else. Knows nothing of any sort, nor of lib/.

#ifndef GUESTMEM_REFERENCE_TRACE_SCHEMA_H_
#define GUESTMEM_REFERENCE_TRACE_SCHEMA_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace reference::trace {

using Bytes = std::vector<uint8_t>;

inline constexpr size_t kMostRecordBytes = 40;
inline constexpr uint8_t kMore = 0xff;
inline constexpr uint8_t kSwarm = 0xfe;

// Kinds of operations have no order: their numbers are the wire's.
#define GUESTMEM_WITHOUT_ORDER(Enum)       \
  bool operator<(Enum, Enum) = delete;  \
  bool operator<=(Enum, Enum) = delete; \
  bool operator>(Enum, Enum) = delete;  \
  bool operator>=(Enum, Enum) = delete

// ------------------------------------------------------------------ how rows reach the numbers of an object

// A number, as an index from 0 on.
struct Number {
  uint64_t (*get)(const void* object) = nullptr;
  void (*set)(void* object, uint64_t index) = nullptr;
};

// A list of bytes, each an index.
struct List {
  std::span<uint8_t> (*items)(void* object) = nullptr;
  void (*resize)(void* object, size_t size) = nullptr;
};

// The objects of a section. Without `resize` there is one, a part of the trace.
struct Place {
  size_t (*size)(const void* trace) = nullptr;
  void* (*at)(void* trace, size_t i) = nullptr;
  void (*resize)(void* trace, size_t size) = nullptr;
  void (*reserve)(void* trace, size_t size) = nullptr;
};

// kMember: a pointer to a member, or a captureless function of an Object& that returns a reference. Safe because a row is only ever
// used on the objects of its section, and those are of type Object.
template <class Object, auto kMember>
auto& Reach(const void* object) {
  return std::invoke(kMember, *static_cast<Object*>(const_cast<void*>(object)));
}

// kFirst: the number that index 0 stands for.
template <class Object, auto kMember, int kFirst = 0>
constexpr Number NumberOf() {
  using Type = std::remove_reference_t<decltype(Reach<Object, kMember>(nullptr))>;
  if constexpr (kFirst == 0) {
    return {[](const void* object) { return static_cast<uint64_t>(Reach<Object, kMember>(object)); },
            [](void* object, uint64_t index) { Reach<Object, kMember>(object) = static_cast<Type>(index); }};
  } else {
    return {[](const void* object) { return static_cast<uint64_t>(static_cast<int64_t>(Reach<Object, kMember>(object)) - kFirst); },
            [](void* object, uint64_t index) { Reach<Object, kMember>(object) = static_cast<Type>(static_cast<int64_t>(index) + kFirst); }};
  }
}

template <class Object, auto kMember>
constexpr List ListOf() {
  static_assert(sizeof(*Reach<Object, kMember>(nullptr).data()) == 1);
  // Safe because any object may be accessed as unsigned char.
  return {[](void* object) {
            auto& list = Reach<Object, kMember>(object);
            return std::span(reinterpret_cast<uint8_t*>(list.data()), list.size());
          },
          [](void* object, size_t size) { Reach<Object, kMember>(object).resize(size); }};
}

template <class Trace, auto kMember>
constexpr Place OneOf() {
  return {[](const void*) { return size_t{1}; }, [](void* trace, size_t) -> void* { return &Reach<Trace, kMember>(trace); }};
}
template <class Trace>
constexpr Place Itself() {
  return {[](const void*) { return size_t{1}; }, [](void* trace, size_t) -> void* { return trace; }};
}
template <class Trace, auto kMember>
constexpr Place ManyOf() {
  return {[](const void* trace) { return Reach<Trace, kMember>(trace).size(); },
          [](void* trace, size_t i) -> void* { return &Reach<Trace, kMember>(trace)[i]; },
          [](void* trace, size_t size) { Reach<Trace, kMember>(trace).resize(size); },
          [](void* trace, size_t size) { Reach<Trace, kMember>(trace).reserve(size); }};
}

// ------------------------------------------------------------------ the rows

enum class Spelt : uint8_t {
  kKeyed,   // key=VALUE; left out at its default
  kShown,   // key=VALUE, always
  kNeeded,  // key=VALUE, always; a text without it is refused
  kFlag,    // key, where the number is 1
  kBare,    // VALUE, first; needed, where `what` says what; lists: their items
  kPrefix,  // VALUE, before the line's name
  kHidden,  // not in texts: a part of a field with a spelling of its own
};

// How a field is spelt that is no single number.
struct Spelling {
  std::string (*write)(const void* object) = nullptr;                    // empty: left out
  std::string (*read)(std::string_view word, void* object) = nullptr;  // why it refuses; empty: taken
};

struct Field {
  std::string_view key = {};
  uint8_t at = 0, bit = 0, bits = 8;  // where in a record, little endian; of a list: its length's byte, before the items
  Number number = {};                 // one of these three
  List list = {};
  Spelling spelling = {};
  Spelt spelt = Spelt::kKeyed;
  std::span<const uint64_t> values = {};          // the numbers that its indices stand for,
  std::span<const std::string_view> names = {};   // or their names,
  uint64_t count = 0;                             // or how many numbers from `first` on; 0: all of 64 bits, in hexadecimal
  uint64_t first = 0;
  uint64_t usual = 0;   // the index that zero bytes mean, a text leaves out, and minimising leads to; of a list: how many items zeros mean
  bool seldom = false;  // half of the values of its byte mean the usual one
  bool runs = false;    // a list's equal items are spelt ITEM*COUNT
  uint64_t (*here)(const void* trace) = nullptr;  // numbers beyond the values mean one of so many, from `usual` on
  uint8_t room = 0;     // of a list: items in a record; the others follow in records of kMore
  size_t most = 0;      // of a list: items
  std::string_view what = {};  // in refusals: an item of a list; what a bare field wants

  constexpr bool in_bytes() const { return number.get != nullptr || list.items != nullptr; }
  constexpr uint64_t values_count() const { return !values.empty() ? values.size() : !names.empty() ? names.size() : count; }
};

// A set of fields, a bit each.
constexpr uint64_t Of(auto... fields) { return ((uint64_t{1} << fields) | ... | 0); }

struct Kind {
  uint8_t number;  // in bytes, for ever: below kSwarm
  std::string_view name;
  uint64_t fields;
  uint32_t group = 1;  // of an operation: the bit of what it is about
};

struct Section {
  std::span<const Field> fields;
  std::span<const Kind> kinds;  // several: `kind` says an object's
  Place place;
  Number kind = {};
  size_t least = 0, most = 1;                                     // objects, where place.resize
  size_t (*room)(const void* trace) = nullptr;                    // fewer, in this trace
  void (*normal)(void* object, const void* trace) = nullptr;      // brings into order what fields alone can't
  std::string (*refuse)(std::span<const std::string_view> words, const void* trace) = nullptr;  // before a line is read
  bool searched = false;  // minimising leaves it to whoever judges
  bool numbered = false;  // a line says which object it is, from 0 on, after its name
};

// Which kind of which section a record is, by its first byte. Numbers that no kind has are of operations.
struct KindAt {
  uint8_t section = 0, kind = 0;
  bool known = false;
};
using Table = std::array<KindAt, 256>;

struct Schema {
  std::string_view header;  // a text's first line
  size_t record_bytes;
  std::span<const Section> sections;  // the last one: the operations
  const Table* table;

  const Section& ops() const { return sections.back(); }
  const Section& section(KindAt at) const { return sections[at.section]; }
  const Kind& kind(KindAt at) const { return section(at).kinds[at.kind]; }
};

template <size_t N>
constexpr Table TableOf(const Section (&sections)[N]) {
  Table table = {};
  std::array<bool, 256> known = {};
  for (size_t s = 0; s < N; ++s) {
    for (size_t k = 0; k < sections[s].kinds.size(); ++k) {
      const uint8_t number = sections[s].kinds[k].number;
      if (known[number] || number >= kSwarm) throw "a number that is taken";
      known[number] = true;
      table[number] = {static_cast<uint8_t>(s), static_cast<uint8_t>(k), true};
    }
  }
  if (!known[0]) throw "zeros mean nothing";
  for (size_t byte = 0; byte < 256; ++byte) {
    if (!known[byte]) table[byte] = {N - 1, 0, false};
  }
  return table;
}

// Whether each kind's fields have places of their own inside a record, and bits enough.
template <size_t N>
constexpr bool Fits(const Section (&sections)[N], size_t record_bytes) {
  for (const Section& section : sections) {
    for (const Kind& kind : section.kinds) {
      std::array<bool, kMostRecordBytes * 8> taken = {};
      for (size_t i = 0; i < section.fields.size(); ++i) {
        const Field& field = section.fields[i];
        if ((kind.fields >> i & 1) == 0 || !field.in_bytes()) continue;
        const bool list = field.list.items != nullptr;
        const size_t bits = list ? (1 + field.room) * size_t{8} : field.bits, start = field.at * size_t{8} + field.bit;
        const uint64_t count = field.values_count();
        if (field.at == 0 || start + bits > record_bytes * 8 || (list && (field.room == 0 || field.most == 0 || count > 256))) return false;
        if (!list && (count == 0 ? bits != 64 : bits < 64 && count > uint64_t{1} << bits)) return false;
        for (size_t bit = start; bit < start + bits; ++bit) {
          if (taken[bit]) return false;
          taken[bit] = true;
        }
      }
    }
  }
  return record_bytes <= kMostRecordBytes;
}

// ------------------------------------------------------------------ profiles

// What the worlds of a profile have: which values of a field, or how many objects or items at least.
struct Only {
  const Section* section;
  const Field* field;     // null: it is about the section's objects
  uint64_t values = ~uint64_t{0};  // the indices, a bit each; of a list: of its items
  size_t least = 0;       // objects, or items of the list;
  uint8_t missing = 0;    // those items that are missing are this
};
// Of a section, whose lines have this name, without a key; else of its field of this key, or of its list of such items.
consteval Only OnlyOf(std::span<const Section> sections, std::string_view line, std::string_view key, uint64_t values, size_t least = 0,
                      uint8_t missing = 0) {
  for (const Section& section : sections) {
    if (section.kinds[0].name != line) continue;
    if (key.empty() && section.place.resize != nullptr) return {&section, nullptr, values, least};
    for (const Field& field : section.fields) {
      if (field.in_bytes() && (field.key.empty() ? field.what : field.key) == key) return {&section, &field, values, least, missing};
    }
  }
  throw "no such field";
}

// What a fuzz target is about: operations of these groups, in worlds that have this. Every byte string is a trace of every profile;
// the canonical bytes of a trace that fits a profile mean that trace there, too.
struct Profile {
  uint32_t groups = ~uint32_t{0};
  uint32_t often = ~uint32_t{0};     // those of them that numbers without a kind mean
  std::span<const Only> world = {};  // kept to in this order
};

// The kinds of operations, by their places in the section, that a profile and a record of kSwarm leave.
class KindSet {
 public:
  KindSet(const Schema& schema, const Profile& profile);
  // `left_out`: a bit a kind. Where none would stay, all do.
  void LeaveOut(std::span<const uint8_t> left_out);
  // What a record's first byte means.
  KindAt Meant(uint8_t number) const;
  std::span<const uint8_t> all() const { return std::span(all_).first(all_count_); }
  std::span<const uint8_t> often() const { return std::span(often_).first(often_count_); }

 private:
  void Take(std::span<const uint8_t> left_out);

  const Schema& schema_;
  const Profile& profile_;
  size_t all_count_ = 0, often_count_ = 0;
  std::array<uint8_t, 256> all_, often_;
  std::array<uint64_t, 4> in_ = {};
};

// ------------------------------------------------------------------ what they are good for. `trace`: the sort's own struct

// `trace` is as its constructor leaves it.
void Decode(const Schema& schema, std::span<const uint8_t> bytes, void* trace, const Profile& profile = {});
// The canonical bytes: decoding them gives the trace again, where it is normal.
Bytes Encode(const Schema& schema, const void* trace);
// The one spelling of everything that means the same. Decode and Parse return only such traces.
void Normalise(const Schema& schema, void* trace);
void NormaliseObject(const Section& section, void* object, const void* trace);

struct TextError {
  int line = 0;        // 1-based
  std::string reason;  // names the offending word and what would do
};
std::string Text(const Schema& schema, const void* trace);
std::string LineText(const Section& section, const void* object, size_t index = 0);
std::optional<TextError> Parse(const Schema& schema, std::string_view text, void* trace);

template <class Trace>
Trace FromBytes(const Schema& schema, std::span<const uint8_t> bytes, const Profile& profile = {}) {
  Trace trace;
  Decode(schema, bytes, &trace, profile);
  return trace;
}
template <class Trace>
std::variant<Trace, TextError> FromText(const Schema& schema, std::string_view text) {
  Trace trace;
  if (std::optional<TextError> error = Parse(schema, text, &trace)) return *std::move(error);
  return trace;
}

// "16", "0x10000": decimal while short enough to be read.
std::string NumberText(uint64_t number);

// A value below `count` (0: any); those that are, stay.
constexpr uint64_t Reduce(uint64_t value, uint64_t count) {
  if (count == 0) return value;
  const uint64_t mask = std::bit_ceil(count) - 1;
  value &= mask;
  return value < count ? value : value & mask >> 1;
}

const Kind& KindOf(const Section& section, const void* object);

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_SCHEMA_H_
