// Writing the text spelling of a trace. Compact: what is at its default is left out, except what a reader would
// look for (the address, the length, the size, the values). trace_parse.cc reads it.

#include <charconv>

#include "reference/lockstep/op_fields.h"
#include "reference/lockstep/trace.h"
#include "reference/lockstep/trace_words.h"

namespace reference {
namespace {

// Up to the largest length of a buffer, decimal is what people read; beyond, hexadecimal.
constexpr uint64_t kLargestDecimal = 0xffff;

void Append(std::string& out, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) out += part;
}

std::string BitsText(bool read, bool write, bool execute) {
  return {read ? 'r' : '-', write ? 'w' : '-', execute ? 'x' : '-'};
}

template <class Answer>
void AppendScript(std::string& out, std::string_view name, const std::vector<Answer>& script) {
  if (script.empty()) return;
  out += name;
  for (size_t i = 0; i < script.size(); ++i) Append(out, {i == 0 ? " " : ", ", Name(script[i])});
  out += '\n';
}

std::string AddressText(const Address& at) {
  std::string out;
  switch (at.anchor) {
    case Anchor::kPage: out = "page"; break;
    case Anchor::kMiddle: out = "mid"; break;
    case Anchor::kEnd: out = "end"; break;
    case Anchor::k2To32: out = "2^32"; break;
    case Anchor::k2To63: out = "2^63"; break;
    case Anchor::k2To64: out = "2^64"; break;
  }
  if (HasIndex(at.anchor)) out += DecimalText(at.index);
  if (at.delta > 0) Append(out, {"+", DecimalText(static_cast<uint64_t>(at.delta))});
  if (at.delta < 0) Append(out, {"-", DecimalText(static_cast<uint64_t>(-at.delta))});
  return out;
}

// backing.page
std::string WithinText(uint8_t within) {
  Step step;
  step.within = within;
  return DecimalText(step.HostBacking()) + "." + DecimalText(step.HostAddress() / kPageSize);
}

void AppendField(std::string& out, const OpFields& uses, const Op& op, Field field, std::string_view name) {
  const auto print = [&](std::string_view value) { Append(out, {" ", name, "=", value}); };
  const auto print_unless_zero = [&](uint64_t value) {
    if (value != 0) print(DecimalText(value));
  };
  switch (field) {
    case kFieldTarget: print_unless_zero(op.target); break;
    case kFieldSlot: print(DecimalText(op.slot)); break;
    case kFieldBacking: print_unless_zero(op.backing); break;
    case kFieldPage: print(DecimalText(op.page)); break;
    case kFieldCount: print(DecimalText(op.count)); break;
    case kFieldAccess: print(Name(op.access)); break;
    case kFieldLength: print(NumberText(kLengths[op.length])); break;
    case kFieldSize: print(DecimalText(uint64_t{1} << op.size)); break;
    case kFieldSeen:
      if (op.seen) Append(out, {" ", name});
      break;
    case kFieldValue:
      if (!op.seen && op.within == 0) print(HexText(op.value));
      break;
    case kFieldDesired: print(HexText(op.desired)); break;
    case kFieldForm: print_unless_zero(op.form); break;
    case kFieldObject: print_unless_zero(op.object); break;
    case kFieldOffset: print(NumberText(kOffsets[op.offset])); break;
    case kFieldChoice:
      if (!uses.choice_names[0].empty()) print(uses.choice_names[op.choice]);
      else print_unless_zero(op.choice);
      break;
    case kFieldBytes: print(NumberText(kSizes[op.bytes])); break;
    case kFieldWithin:
      if (op.within != 0) print(WithinText(op.within));
      break;
    case kFieldAt:
    case kFieldGpns: break;  // not named
  }
}

}  // namespace

std::string DecimalText(uint64_t number) {
  char digits[20];
  return {digits, std::to_chars(digits, digits + sizeof digits, number).ptr};
}

std::string HexText(uint64_t number) {
  char digits[16];
  return std::string("0x").append(digits, std::to_chars(digits, digits + sizeof digits, number, 16).ptr);
}

std::string NumberText(uint64_t number) { return number <= kLargestDecimal ? DecimalText(number) : HexText(number); }

std::string BackingText(const Backing& backing, size_t index) {
  std::string out = "backing " + DecimalText(index);
  if (!backing.present) return out + " absent";
  Append(out, {" pages=", DecimalText(backing.pages)});
  if (backing.trim != 0) Append(out, {" trim=", DecimalText(backing.trim)});
  if (!backing.mapped) out += " unmapped";
  if (backing.has_iova) out += " iova";
  if (!backing.lockable) out += " unlockable";
  if (backing.fickle) out += " fickle";
  if (backing.wrapped) out += " wrapped";
  if (backing.sparse) out += " sparse";
  if (backing.has_bitmap) out += " bitmap";
  if (backing.managed) out += " managed";
  if (backing.bit_offset != 0) Append(out, {" offset=", DecimalText(backing.bit_offset)});
  const std::array<bool, kAccesses>& null = backing.null_bitmap;
  if (null[0] || null[1] || null[2]) Append(out, {" null=", BitsText(null[0], null[1], null[2])});
  if (backing.sharing != Sharing::kNone) Append(out, {" sharing=", Name(backing.sharing)});
  for (size_t i = 0; i < kMaxPages; ++i) {
    const PageSetup& page = backing.page[i];
    if (page == PageSetup{}) continue;
    Append(out, {" page", DecimalText(i), "=", Name(page.state)});
    if (page.readable && page.writable && page.executable) continue;
    Append(out, {":", BitsText(page.readable, page.writable, page.executable)});
  }
  return out;
}

std::string OpText(const Op& given) {
  const Op op = Normal(given);
  const OpFields& uses = FieldsOf(op.kind);
  std::string out(uses.name);
  if (uses.Uses(kFieldAt)) Append(out, {" ", AddressText(op.at)});
  for (const uint8_t i : op.gpns) Append(out, {" ", NumberText(kGpns[i])});
  for (const FieldName& field : kFieldNames) {
    if (uses.Uses(field.field)) AppendField(out, uses, op, field.field, field.name);
  }
  return out;
}

std::string ToText(const Trace& trace) {
  const World world = Normal(trace.world);
  std::string out(kTraceHeader);
  out += '\n';
  if (world.region_pages == 0) {
    out += "world single_region\n";
  } else {
    Append(out, {"world region_pages=", DecimalText(world.region_pages), "\n"});
  }
  for (size_t i = 0; i < world.backings.size(); ++i) Append(out, {BackingText(world.backings[i], i), "\n"});
  AppendScript(out, "handler", world.handler);
  AppendScript(out, "fallback", world.fallback);
  AppendScript(out, "lock", world.lock);
  AppendScript(out, "subrange", world.subrange);
  if (world.failing_host_call != 0) {
    Append(out, {"fail_host_call ", DecimalText(world.failing_host_call)});
    if (world.host_error != HostError::kNoMemory) Append(out, {" ", Name(world.host_error)});
    out += '\n';
  }
  out += "ops\n";
  for (const Op& op : trace.ops) Append(out, {OpText(op), "\n"});
  return out;
}

}  // namespace reference
