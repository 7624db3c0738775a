// Both spellings.
//
//   guestmem vmm 1
//   guest pages=8 trim=1
//   add_ram page=0 length=8192
//   register slot=0 page=1 at=8 size=4 form=1
//   write page=1 at=8 size=4 value=257        # fields at their default are left out
//
//   bytes: the world, a byte a field, as the distance from its default (so that zeroes are the default); then for each op its kind and its fields' indices, in the order of Field

#include "reference/vmm/trace.h"

#include <algorithm>
#include <iterator>

#include "reference/words.h"

namespace reference::vmm {
namespace {

constexpr std::string_view kHeader = "guestmem vmm 1";

constexpr uint64_t kNearEnd = 0 - kPageBytes;  // the last page of 2^64 bytes
constexpr uint64_t kSlotValues[] = {0, 1, 2};
// The guest's, the one behind it, and pages at 2^32, at the first invalid GPN, and at the end of 2^64.
constexpr uint64_t kPages[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 20, (uint64_t{1} << 52) - 1, (uint64_t{1} << 52) - 2};
constexpr uint64_t kAts[] = {0, 8, 16, 1, 4, 2048, 4088, 4092, 4095};
constexpr uint64_t kLengths[] = {4096, 8192, 12288, 16384, 32768, 0, 1, 4097, kNearEnd};
// The first four are those that plain accesses take; a whole guest is the most.
constexpr uint64_t kSizes[] = {1, 2, 4, 8, 0, 3, 7, 9, 100, 2048, 4096, 4104, 8192, 12289, 32768};
// What fills look like, what only some lengths can hold, and bytes that all differ.
constexpr uint64_t kValues[] = {0, 1, 0xff, 0x0101, 0x100, 0x01010101, 0x0101010101010101, 0x8877665544332211, ~uint64_t{0}};
constexpr uint64_t kOffsets[] = {0, 4096, 8192, 12288, 1, uint64_t{1} << 62, (uint64_t{1} << 63) - 4096, kNearEnd};
constexpr uint64_t kFileValues[] = {0, 1, 2, 3};
constexpr uint64_t kForms[] = {0, 1, 2, 3};
constexpr uint64_t kFails[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

struct FieldInfo {
  std::string_view key;
  std::span<const uint64_t> values;
};
constexpr FieldInfo kFieldInfos[kFields] = {
    {"slot", kSlotValues}, {"other", kSlotValues}, {"page", kPages},   {"at", kAts},           {"length", kLengths}, {"size", kSizes},
    {"value", kValues},    {"offset", kOffsets},   {"from", kOffsets}, {"file", kFileValues}, {"form", kForms},     {"fail", kFails},
};

constexpr unsigned Of(auto... fields) { return ((1U << fields) | ...); }
struct KindInfo {
  std::string_view name;
  unsigned uses;  // a bit a field
};
constexpr KindInfo kKindInfos[kOpKinds] = {
    {"add_ram", Of(kPage, kAt, kLength, kFail)},
    {"new_region", Of(kSlot, kLength, kFail)},
    {"region_map", Of(kSlot, kOffset, kLength, kFile, kFrom, kForm, kFail)},
    {"region_unmap", Of(kSlot, kOffset, kLength, kFail)},
    {"map_to_guest", Of(kSlot, kPage, kAt, kForm, kFail)},
    {"unmap_from_guest", Of(kSlot, kFail)},
    {"drop_guest_half", Of(kSlot, kFail)},
    {"drop_region_half", Of(kSlot)},
    {"new_rom", Of(kSlot, kLength, kFail)},
    {"map_rom", Of(kSlot, kOther, kPage, kAt, kOffset, kLength, kFail)},
    {"drop_part", Of(kSlot, kFail)},
    {"drop_rom", Of(kSlot)},
    {"register", Of(kSlot, kOther, kPage, kAt, kSize, kValue, kForm, kFail)},
    {"drop_bell", Of(kSlot)},
    {"new_event", Of(kSlot, kFail)},
    {"clone_event", Of(kSlot, kFail)},
    {"signal", Of(kSlot, kForm)},
    {"take", Of(kSlot, kForm, kFail)},
    {"read", Of(kPage, kAt, kSize, kForm)},
    {"write", Of(kPage, kAt, kSize, kValue, kForm)},
    {"compare_exchange", Of(kPage, kAt, kSize, kValue)},
    {"probe", Of(kPage, kAt, kSize, kForm)},
    {"lock", Of(kSlot, kPage, kForm, kFail)},
    {"unlock", Of(kSlot)},
};

struct WorldField {
  std::string_view key;
  uint8_t World::*member;
  uint8_t low, high;
};
constexpr WorldField kWorldFields[kWorldBytes] = {
    {"pages", &World::pages, 1, kMaxPages},
    {"trim", &World::trim, 0, 1},
    {"guest_first", &World::guest_first, 0, 1},
    {"fail", &World::fail, 0, 3},
};

// Fields that the kind has no use for are 0, which makes both spellings lossless.
Op Normal(Op op) {
  op.kind = static_cast<OpKind>(static_cast<uint8_t>(op.kind) % kOpKinds);
  for (int i = 0; i < kFields; ++i) {
    const auto field = static_cast<Field>(i);
    // Half of the values of kFail's byte let the op alone.
    const bool none = !Uses(op.kind, field) || (field == kFail && op.index[field] >= 128);
    op.index[field] = none ? 0 : static_cast<uint8_t>(op.index[field] % ValuesOf(field).size());
  }
  return op;
}

std::string ParseWorld(const Words& words, World& world) {
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = std::min(words[i].find('='), words[i].size());
    const auto field = std::find_if(std::begin(kWorldFields), std::end(kWorldFields),
                                    [&](const WorldField& f) { return f.key == words[i].substr(0, equals); });
    if (field == std::end(kWorldFields) || equals == words[i].size()) {
      return Quoted(words[i]) + " is no field of guest: pages, trim, guest_first, fail, each with =NUMBER";
    }
    const auto number = Number(words[i].substr(equals + 1), field->low, field->high);
    if (!number) {
      return std::string(field->key) + " wants a number from " + std::to_string(field->low) + " to " + std::to_string(field->high);
    }
    world.*field->member = static_cast<uint8_t>(*number);
  }
  return "";
}

std::string ParseOp(const Words& words, std::vector<Op>& ops) {
  const auto kind = std::find_if(std::begin(kKindInfos), std::end(kKindInfos), [&](const KindInfo& k) { return k.name == words[0]; });
  if (kind == std::end(kKindInfos)) {
    return Quoted(words[0]) + " is no op";
  }
  if (ops.size() == kMaxOps) {
    return "at most " + std::to_string(kMaxOps) + " ops";
  }
  Op op;
  op.kind = static_cast<OpKind>(kind - std::begin(kKindInfos));
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = std::min(words[i].find('='), words[i].size());
    const auto info = std::find_if(std::begin(kFieldInfos), std::end(kFieldInfos),
                                   [&](const FieldInfo& f) { return f.key == words[i].substr(0, equals); });
    const auto field = static_cast<Field>(info - std::begin(kFieldInfos));
    if (info == std::end(kFieldInfos) || equals == words[i].size() || !Uses(op.kind, field)) {
      return Quoted(words[i]) + " is no field of " + std::string(kind->name) + ", which are KEY=NUMBER";
    }
    const auto number = Number(words[i].substr(equals + 1), 0, ~uint64_t{0});
    const auto value = number ? std::find(info->values.begin(), info->values.end(), *number) : info->values.end();
    if (value == info->values.end()) {
      std::string known;
      for (const uint64_t each : info->values) {
        known += " " + std::to_string(each);
      }
      return std::string(info->key) + " is one of" + known;
    }
    op.index[field] = static_cast<uint8_t>(value - info->values.begin());
  }
  ops.push_back(op);
  return "";
}

}  // namespace

std::span<const uint64_t> ValuesOf(Field field) { return kFieldInfos[field].values; }
bool Uses(OpKind kind, Field field) { return (kKindInfos[static_cast<size_t>(kind)].uses >> field & 1) != 0; }

Trace FromBytes(std::span<const uint8_t> bytes) {
  std::array<uint8_t, kWorldBytes> header = {};
  const size_t given = std::min(bytes.size(), header.size());
  std::copy_n(bytes.begin(), given, header.begin());
  Trace trace;
  for (size_t i = 0; i < kWorldBytes; ++i) {
    const auto& [key, member, low, high] = kWorldFields[i];
    trace.world.*member = static_cast<uint8_t>(low + (World().*member - low + header[i]) % (high - low + 1));
  }
  for (bytes = bytes.subspan(given); bytes.size() >= kOpBytes && trace.ops.size() < kMaxOps; bytes = bytes.subspan(kOpBytes)) {
    Op op;
    op.kind = static_cast<OpKind>(bytes[0]);
    std::copy_n(bytes.begin() + 1, kFields, op.index.begin());
    trace.ops.push_back(Normal(op));
  }
  return trace;
}

std::vector<uint8_t> ToBytes(const Trace& trace) {
  std::vector<uint8_t> bytes;
  for (const auto& [key, member, low, high] : kWorldFields) {
    bytes.push_back(static_cast<uint8_t>((trace.world.*member + (high - low + 1) - World().*member) % (high - low + 1)));
  }
  for (const Op& op : trace.ops) {
    bytes.push_back(static_cast<uint8_t>(op.kind));
    bytes.insert(bytes.end(), op.index.begin(), op.index.end());
  }
  return bytes;
}

std::string OpText(const Op& op) {
  std::string out(kKindInfos[static_cast<size_t>(op.kind)].name);
  for (int i = 0; i < kFields; ++i) {
    if (op.index[i] != 0) {
      out += " " + std::string(kFieldInfos[i].key) + "=" + std::to_string(op[static_cast<Field>(i)]);
    }
  }
  return out;
}

std::string ToText(const Trace& trace) {
  std::string out = std::string(kHeader) + "\nguest";
  for (const WorldField& field : kWorldFields) {
    out += " " + std::string(field.key) + "=" + std::to_string(trace.world.*field.member);
  }
  out += "\n";
  for (const Op& op : trace.ops) {
    out += OpText(op) + "\n";
  }
  return out;
}

std::variant<Trace, TextError> FromText(std::string_view text) {
  Trace trace;
  bool header = false;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end).substr(0, text.substr(0, end).find('#'));
    text.remove_prefix(std::min(end + 1, text.size()));
    const Words words = Split(line, ' ');
    if (words.empty()) {
      continue;
    }
    std::string reason;
    if (!header) {
      header = line == kHeader;
      reason = header ? "" : "the first line must be '" + std::string(kHeader) + "'";
    } else {
      reason = words[0] == "guest" ? ParseWorld(words, trace.world) : ParseOp(words, trace.ops);
    }
    if (!reason.empty()) {
      return TextError{number, std::move(reason)};
    }
  }
  return header ? std::variant<Trace, TextError>(std::move(trace)) : TextError{0, "empty: no header"};
}

}  // namespace reference::vmm
