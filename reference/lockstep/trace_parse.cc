// Reading the text spelling of a trace. People write these by hand, so every refusal names the line, the word, and
// what would do instead.

#include <algorithm>
#include <charconv>
#include <optional>

#include "reference/lockstep/op_fields.h"
#include "reference/lockstep/trace.h"
#include "reference/lockstep/trace_words.h"

namespace reference {
namespace {

using Words = std::vector<std::string_view>;

constexpr std::string_view kAddressForms = "pageN, midN, endN (N up to 15), 2^32, 2^63 or 2^64, each with +D or -D (-128..127) if wanted";

Words Split(std::string_view text, std::string_view separators) {
  Words words;
  while (true) {
    const size_t start = text.find_first_not_of(separators);
    if (start == text.npos) return words;
    const size_t end = std::min(text.find_first_of(separators, start), text.size());
    words.push_back(text.substr(start, end - start));
    text.remove_prefix(end);
  }
}

// A word in an error: quoted, printable, short.
std::string Quoted(std::string_view word) {
  constexpr size_t kShown = 40;
  std::string out = "'";
  for (const char c : word.substr(0, kShown)) out += c >= ' ' && c <= '~' ? c : '?';
  return out + (word.size() > kShown ? "...'" : "'");
}

std::string Cat(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view part : parts) out += part;
  return out;
}

std::string Listed(const Words& words, std::string_view separator = ", ") {
  std::string out;
  for (const std::string_view word : words) {
    if (!out.empty()) out += separator;
    out += word;
  }
  return out;
}

// "key=value" or "key".
struct Pair {
  std::string_view key;
  std::optional<std::string_view> value;
};
Pair SplitPair(std::string_view word) {
  const size_t equals = word.find('=');
  if (equals == word.npos) return {word, std::nullopt};
  return {word.substr(0, equals), word.substr(equals + 1)};
}

class Parser {
 public:
  std::variant<Trace, TextError> Parse(std::string_view text);

 private:
  // All of these return false after Fail.
  bool Fail(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }
  bool Line(const Words& words);
  bool WorldLine(const Words& words);
  bool BackingLine(const Words& words);
  bool BackingWord(Backing& backing, const Pair& pair);
  bool Bits(std::string_view word, std::array<bool, kAccesses>& bits);
  bool PageWord(Backing& backing, const Pair& pair);
  template <class Answer>
  bool ScriptLine(const Words& words, size_t longest, int answers, std::vector<Answer>& script);
  bool OpLine(const Words& words);
  bool OpWord(Op& op, const OpFields& uses, const Pair& pair);
  bool OpField(Op& op, const OpFields& uses, Field field, std::string_view value);
  bool OpComplete(const Op& op, const OpFields& uses);

  bool Number(std::string_view what, std::string_view word, uint64_t least, uint64_t most, uint64_t& number);
  template <class Int>
  bool Small(std::string_view what, std::string_view word, uint64_t least, uint64_t most, Int& number);
  template <class Enum>
  bool Named(std::string_view what, std::string_view whats, std::string_view word, int count, Enum& value);
  bool AddressWord(std::string_view word, Address& at);
  bool Length(const OpFields& uses, std::string_view word, uint8_t& index);
  bool InList(std::string_view what, std::string_view word, std::span<const uint64_t> list, uint8_t& index);
  bool Within(std::string_view word, uint8_t& within);
  bool Gpn(std::string_view word, std::vector<uint8_t>& gpns);
  bool Choice(const OpFields& uses, std::string_view word, uint8_t& choice);
  bool Once(std::string_view key);

  Trace trace_;
  bool header_ = false;
  bool ops_ = false;
  bool region_pages_known_ = false;
  std::vector<std::string> keys_;  // of the backing's line
  uint32_t given_ = 0;             // fields of the op
  std::string reason_;
};

// ------------------------------------------------------------------ words

bool Parser::Number(std::string_view what, std::string_view word, uint64_t least, uint64_t most, uint64_t& number) {
  const bool hex = word.starts_with("0x");
  const std::string_view digits = hex ? word.substr(2) : word;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, hex ? 16 : 10);
  if (error == std::errc::result_out_of_range) {
    return Fail(Cat({what, " ", Quoted(word), " is too large: the largest is ", NumberText(most)}));
  }
  if (error != std::errc{} || end != digits.data() + digits.size()) {
    return Fail(Cat({what, " ", Quoted(word), " is not a number (decimal, or hexadecimal with 0x)"}));
  }
  if (number > most) return Fail(Cat({what, " ", word, " is too large: the largest is ", NumberText(most)}));
  if (number < least) return Fail(Cat({what, " ", word, " is too small: the smallest is ", NumberText(least)}));
  return true;
}

template <class Int>
bool Parser::Small(std::string_view what, std::string_view word, uint64_t least, uint64_t most, Int& number) {
  uint64_t wide = 0;
  if (!Number(what, word, least, most, wide)) return false;
  number = static_cast<Int>(wide);
  return true;
}

template <class Enum>
bool Parser::Named(std::string_view what, std::string_view whats, std::string_view word, int count, Enum& value) {
  Words names;
  for (int i = 0; i < count; ++i) {
    names.push_back(Name(static_cast<Enum>(i)));
    if (names.back() != word) continue;
    value = static_cast<Enum>(i);
    return true;
  }
  return Fail(Cat({"unknown ", what, " ", Quoted(word), "; ", whats, " are: ", Listed(names)}));
}

bool Parser::Once(std::string_view key) {
  if (std::find(keys_.begin(), keys_.end(), key) != keys_.end()) return Fail(Cat({Quoted(key), " is given twice"}));
  keys_.emplace_back(key);
  return true;
}

bool Parser::AddressWord(std::string_view word, Address& at) {
  const auto refuse = [&] { return Fail(Cat({Quoted(word), " is not an address: expected ", kAddressForms})); };
  static constexpr std::pair<std::string_view, Anchor> kForms[] = {
      {"page", Anchor::kPage}, {"mid", Anchor::kMiddle}, {"end", Anchor::kEnd},
      {"2^32", Anchor::k2To32}, {"2^63", Anchor::k2To63}, {"2^64", Anchor::k2To64}};
  const auto form = std::find_if(std::begin(kForms), std::end(kForms), [&](const auto& f) { return word.starts_with(f.first); });
  if (form == std::end(kForms)) return refuse();
  at.anchor = form->second;
  std::string_view rest = word.substr(form->first.size());
  const size_t sign = std::min(rest.find_first_of("+-"), rest.size());
  const std::string_view index = rest.substr(0, sign);
  rest.remove_prefix(sign);
  if (HasIndex(at.anchor) == index.empty() || index.find_first_not_of("0123456789") != index.npos) return refuse();
  if (!index.empty() && !Small("the address's index", index, 0, kMaxAddressIndex, at.index)) return false;
  if (rest.empty()) return true;
  int distance = 0;
  const bool minus = rest[0] == '-';
  if (!Small("the address's distance", rest.substr(1), 0, minus ? 128 : 127, distance)) return false;
  at.delta = static_cast<int8_t>(minus ? -distance : distance);
  return true;
}

bool Parser::InList(std::string_view what, std::string_view word, std::span<const uint64_t> list, uint8_t& index) {
  uint64_t number = 0;
  if (!Number(what, word, 0, ~uint64_t{0}, number)) return false;
  const auto found = std::find(list.begin(), list.end(), number);
  if (found == list.end()) return Fail(Cat({what, " ", word, " is not in the list of interesting ones (trace.h)"}));
  index = static_cast<uint8_t>(found - list.begin());
  return true;
}

// backing.page
bool Parser::Within(std::string_view word, uint8_t& within) {
  const size_t dot = word.find('.');
  if (dot == word.npos) return Fail(Cat({"within ", Quoted(word), " is not like 0.1: a backing, and a page of it"}));
  uint64_t backing = 0, page = 0;
  if (!Number("within's backing", word.substr(0, dot), 0, kMaxBackings - 1, backing)) return false;
  if (!Number("within's page", word.substr(dot + 1), 1, kMaxPages - 1, page)) return false;
  within = static_cast<uint8_t>(1 + backing * (kMaxPages - 1) + page - 1);
  return true;
}

bool Parser::Length(const OpFields& uses, std::string_view word, uint8_t& index) {
  uint64_t length = 0;
  if (!Number("length", word, 0, ~uint64_t{0}, length)) return false;
  const auto* const found = std::lower_bound(std::begin(kLengths), std::end(kLengths), length);
  if (found == std::end(kLengths) || *found != length) {  // the last one is 2^64 - 1, the first 0: there are neighbours
    return Fail(Cat({"length ", word, " is not in the list of interesting lengths; nearest are ", NumberText(found[-1]), " and ",
                     NumberText(*found)}));
  }
  index = static_cast<uint8_t>(found - std::begin(kLengths));
  if (index < uses.lengths) return true;
  return Fail(Cat({"length ", word, " is too large for a host buffer: ", uses.name, " takes up to ", NumberText(kLengths[uses.lengths - 1])}));
}

bool Parser::Gpn(std::string_view word, std::vector<uint8_t>& gpns) {
  uint64_t gpn = 0;
  if (!Number("GPN", word, 0, ~uint64_t{0}, gpn)) return false;
  const auto* const found = std::find(std::begin(kGpns), std::end(kGpns), gpn);
  if (found == std::end(kGpns)) {
    Words all;
    std::vector<std::string> texts;
    for (const uint64_t known : kGpns) texts.push_back(NumberText(known));
    all.assign(texts.begin(), texts.end());
    return Fail(Cat({"GPN ", word, " is not in the list of interesting GPNs: ", Listed(all)}));
  }
  if (gpns.size() == kMaxGpns) return Fail(Cat({"more than ", DecimalText(kMaxGpns), " GPNs"}));
  gpns.push_back(static_cast<uint8_t>(found - std::begin(kGpns)));
  return true;
}

bool Parser::Choice(const OpFields& uses, std::string_view word, uint8_t& choice) {
  if (uses.choice_names[0].empty()) return Small("choice", word, 0, uses.choices - 1u, choice);
  const Words names(uses.choice_names.begin(), uses.choice_names.begin() + uses.choices);
  const auto found = std::find(names.begin(), names.end(), word);
  if (found == names.end()) return Fail(Cat({"unknown choice ", Quoted(word), "; choices of ", uses.name, " are: ", Listed(names)}));
  choice = static_cast<uint8_t>(found - names.begin());
  return true;
}

// ------------------------------------------------------------------ the world

bool Parser::WorldLine(const Words& words) {
  constexpr std::string_view kExpected = "expected 'world single_region' or 'world region_pages=' 1, 2 or 4";
  if (!trace_.world.backings.empty()) return Fail("'world' comes before the backings");
  if (words.size() != 2) return Fail(std::string(kExpected));
  if (words[1] == "single_region") return true;
  const Pair pair = SplitPair(words[1]);
  if (pair.key != "region_pages" || !pair.value) return Fail(Cat({"unknown word ", Quoted(words[1]), "; ", kExpected}));
  uint8_t& pages = trace_.world.region_pages;
  if (!Small("region_pages", *pair.value, 1, kMaxPages, pages)) return false;
  if (std::find(std::begin(kRegionPages), std::end(kRegionPages), pages) == std::end(kRegionPages)) {
    return Fail(Cat({"region_pages ", *pair.value, " is not a power of two; ", kExpected}));
  }
  return true;
}

// rwx, with '-' for an access that is not meant.
bool Parser::Bits(std::string_view word, std::array<bool, kAccesses>& bits) {
  constexpr std::string_view kAll = "rwx";
  for (size_t i = 0; i < kAll.size(); ++i) {
    if (word.size() != kAll.size() || (word[i] != kAll[i] && word[i] != '-')) {
      return Fail(Cat({Quoted(word), " is not like rwx, with - for an access that is not meant"}));
    }
    bits[i] = word[i] != '-';
  }
  return true;
}

// pageN=state or pageN=state:rwx.
bool Parser::PageWord(Backing& backing, const Pair& pair) {
  size_t index = 0;
  if (!Small("the page's number", pair.key.substr(4), 0, kMaxPages - 1, index)) return false;
  PageSetup& page = backing.page[index];
  const size_t colon = std::min(pair.value->find(':'), pair.value->size());
  if (!Named("page state", "page states", pair.value->substr(0, colon), kPageStates, page.state)) return false;
  if (colon == pair.value->size()) return true;
  std::array<bool, kAccesses> bits = {};
  if (!Bits(pair.value->substr(colon + 1), bits)) return false;
  page.readable = bits[0];
  page.writable = bits[1];
  page.executable = bits[2];
  return true;
}

bool Parser::BackingWord(Backing& backing, const Pair& pair) {
  if (!Once(pair.key)) return false;
  if (!pair.value) {
    struct Flag {
      std::string_view name;
      bool Backing::*member;
      bool value;
    };
    static constexpr Flag kFlags[] = {{"absent", &Backing::present, false}, {"unmapped", &Backing::mapped, false},
                                      {"iova", &Backing::has_iova, true}, {"bitmap", &Backing::has_bitmap, true},
                                      {"unlockable", &Backing::lockable, false}, {"fickle", &Backing::fickle, true},
                                      {"wrapped", &Backing::wrapped, true}, {"managed", &Backing::managed, true},
                                      {"sparse", &Backing::sparse, true}};
    for (const Flag& flag : kFlags) {
      if (pair.key != flag.name) continue;
      backing.*flag.member = flag.value;
      return true;
    }
  } else {
    const uint64_t most = trace_.world.region_pages == 0 ? kMaxPages : trace_.world.region_pages;
    if (pair.key == "pages") return Small("pages", *pair.value, 1, most, backing.pages);
    if (pair.key == "trim") return Small("trim", *pair.value, 0, kPageSize - 1, backing.trim);
    if (pair.key == "offset") return Small("offset", *pair.value, 0, 7, backing.bit_offset);
    if (pair.key == "null") return Bits(*pair.value, backing.null_bitmap);
    if (pair.key == "sharing") return Named("sharing", "kinds of sharing", *pair.value, kSharings, backing.sharing);
    if (pair.key.starts_with("page")) return PageWord(backing, pair);
  }
  return Fail(Cat({"a backing has no ", Quoted(Cat({pair.key, pair.value ? "=" : ""})),
                   "; it has: absent, unmapped, iova, unlockable, fickle, wrapped, bitmap, managed, sparse, pages=, trim=, offset=, null=rwx, sharing=, page0=state:rwx to page3="}));
}

bool Parser::BackingLine(const Words& words) {
  World& world = trace_.world;
  size_t index = 0;
  if (words.size() < 2) return Fail("expected the backing's number after 'backing'");
  if (!Small("the backing's number", words[1], 0, kMaxBackings - 1, index)) return false;
  if (index < world.backings.size()) return Fail(Cat({"backing ", words[1], " is given twice"}));
  if (index > world.backings.size()) {
    return Fail(Cat({"backing ", words[1], " comes too early: next is backing ", DecimalText(world.backings.size())}));
  }
  if (index > 0 && world.region_pages == 0) {
    return Fail("a single_region world has one backing; 'world region_pages=' 1, 2 or 4 makes room for more");
  }
  Backing backing = Normal(Backing{}, world.region_pages);
  keys_.clear();
  for (size_t i = 2; i < words.size(); ++i) {
    if (!BackingWord(backing, SplitPair(words[i]))) return false;
  }
  if (!backing.present && world.region_pages == 0) return Fail("the backing of a single_region world can't be absent");
  const Backing normal = Normal(backing, world.region_pages);
  if (normal != backing) {
    return Fail(Cat({"part of this line has no effect; what has is: ", BackingText(normal, index)}));
  }
  world.backings.push_back(backing);
  return true;
}

template <class Answer>
bool Parser::ScriptLine(const Words& words, size_t longest, int answers, std::vector<Answer>& script) {
  if (!script.empty()) return Fail(Cat({Quoted(words[0]), " is given twice"}));
  if (words.size() - 1 > longest) return Fail(Cat({"more than ", DecimalText(longest), " answers"}));
  for (size_t i = 1; i < words.size(); ++i) {
    script.emplace_back();
    if (!Named("answer", "answers", words[i], answers, script.back())) return false;
  }
  return true;
}

// ------------------------------------------------------------------ ops

bool Parser::OpField(Op& op, const OpFields& uses, Field field, std::string_view value) {
  switch (field) {
    case kFieldTarget: return Small("target", value, 0, kHandles - 1, op.target);
    case kFieldSlot: return Small("slot", value, 1, kHandles - 1, op.slot);
    case kFieldBacking: return Small("backing", value, 0, kMaxBackings - 1, op.backing);
    case kFieldPage: return Small("page", value, 0, kMaxPages - 1, op.page);
    case kFieldCount: return Small("count", value, 0, kMaxPages, op.count);
    case kFieldAccess: return Named("access", "accesses", value, kAccesses, op.access);
    case kFieldLength: return Length(uses, value, op.length);
    case kFieldValue: return Number("value", value, 0, ~uint64_t{0}, op.value);
    case kFieldDesired: return Number("desired", value, 0, ~uint64_t{0}, op.desired);
    case kFieldChoice: return Choice(uses, value, op.choice);
    case kFieldForm: return Small("form", value, 0, 1, op.form);
    case kFieldObject: return Small("object", value, 0, kObjects - 1, op.object);
    case kFieldOffset: return InList("offset", value, kOffsets, op.offset);
    case kFieldBytes: return InList("bytes", value, kSizes, op.bytes);
    case kFieldWithin: return Within(value, op.within);
    case kFieldSize: break;
    case kFieldSeen:
    case kFieldAt:
    case kFieldGpns: return true;  // have no value
  }
  static constexpr std::string_view kSizes[] = {"1", "2", "4", "8"};
  const auto* const size = std::find(std::begin(kSizes), std::end(kSizes), value);
  if (size == std::end(kSizes)) return Fail(Cat({"size ", Quoted(value), " is not 1, 2, 4 or 8"}));
  op.size = static_cast<uint8_t>(size - std::begin(kSizes));
  return true;
}

bool Parser::OpWord(Op& op, const OpFields& uses, const Pair& pair) {
  Words names;
  for (const FieldName& field : kFieldNames) {
    if (!uses.Uses(field.field)) continue;
    names.push_back(field.name);
    if (field.name != pair.key) continue;
    if ((given_ & field.field) != 0) return Fail(Cat({Quoted(pair.key), " is given twice"}));
    given_ |= field.field;
    if (field.field == kFieldSeen) {
      if (pair.value) return Fail("'seen' takes no value");
      return op.seen = true;
    }
    if (!pair.value) return Fail(Cat({Quoted(pair.key), " needs a value: ", pair.key, "=..."}));
    return OpField(op, uses, field.field, *pair.value);
  }
  return Fail(Cat({uses.name, " has no field ", Quoted(pair.key), "; its fields are: ", Listed(names)}));
}

// What a reader must not have to guess has to be there, and numbers must fit the op.
bool Parser::OpComplete(const Op& op, const OpFields& uses) {
  for (const FieldName& field : kFieldNames) {
    const bool needed = field.field == kFieldLength || field.field == kFieldSize || field.field == kFieldOffset ||
                        field.field == kFieldBytes;
    if (needed && uses.Uses(field.field) && (given_ & field.field) == 0) return Fail(Cat({uses.name, " needs ", field.name, "="}));
  }
  if (op.seen && (given_ & kFieldValue) != 0) return Fail("'seen' stands in place of 'value'; drop one");
  for (const auto& [name, value] : {std::pair{"value", op.value}, std::pair{"desired", op.desired}}) {
    if ((value & ~ValueMask(op)) == 0) continue;
    return Fail(Cat({name, " ", HexText(value), " is too large: the largest here is ", HexText(ValueMask(op))}));
  }
  return true;
}

bool Parser::OpLine(const Words& words) {
  if (trace_.ops.size() == kMaxOps) return Fail(Cat({"more than ", DecimalText(kMaxOps), " operations"}));
  Op op;
  if (!Named("operation", "operations", words[0], static_cast<int>(kStepKinds), op.kind)) return false;
  const OpFields& uses = FieldsOf(op.kind);
  given_ = 0;
  size_t next = 1;
  if (uses.Uses(kFieldAt)) {
    if (words.size() < 2) return Fail(Cat({uses.name, " needs an address first: ", kAddressForms}));
    if (!AddressWord(words[next++], op.at)) return false;
  }
  for (; next < words.size(); ++next) {
    const bool number = words[next][0] >= '0' && words[next][0] <= '9';
    if (uses.Uses(kFieldGpns) && number) {
      if (!Gpn(words[next], op.gpns)) return false;
    } else if (!OpWord(op, uses, SplitPair(words[next]))) {
      return false;
    }
  }
  if (!OpComplete(op, uses)) return false;
  trace_.ops.push_back(Normal(op));
  return true;
}

// ------------------------------------------------------------------ lines

bool Parser::Line(const Words& words) {
  if (!header_) {
    header_ = words == Split(kTraceHeader, " ");
    return header_ || Fail(Cat({"expected the header '", kTraceHeader, "', found ", Quoted(Listed(words, " "))}));
  }
  if (ops_) return OpLine(words);
  World& world = trace_.world;
  if (words[0] == "backing") return BackingLine(words);
  if (words[0] == "ops") return words.size() == 1 ? (ops_ = true) : Fail("'ops' stands alone; operations follow on lines of their own");
  if (words[0] == "world") {
    if (region_pages_known_) return Fail("'world' is given twice");
    region_pages_known_ = true;
    return WorldLine(words);
  }
  if (words[0] == "handler") return ScriptLine(words, kMaxHandlerAnswers, kHandlerAnswers, world.handler);
  if (words[0] == "fallback") return ScriptLine(words, kMaxFallbackAnswers, kFallbackAnswers, world.fallback);
  if (words[0] == "lock") return ScriptLine(words, kMaxLockAnswers, kLockAnswers, world.lock);
  if (words[0] == "subrange") return ScriptLine(words, kMaxSubrangeAnswers, kSubrangeAnswers, world.subrange);
  if (words[0] == "fail_host_call") {
    if (world.failing_host_call != 0) return Fail("'fail_host_call' is given twice");
    if (words.size() != 2 && words.size() != 3) return Fail("expected a number after 'fail_host_call', and perhaps an errno");
    return Small("fail_host_call", words[1], 1, kMaxFailingHostCall, world.failing_host_call) &&
           (words.size() == 2 || Named("errno", "errnos", words[2], kHostErrors, world.host_error));
  }
  return Fail(Cat({"unknown line ", Quoted(words[0]), "; before the operations come: world, backing, handler, fallback, lock, subrange, fail_host_call, ops"}));
}

std::variant<Trace, TextError> Parser::Parse(std::string_view text) {
  int line = 0;
  while (!text.empty()) {
    ++line;
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view all = text.substr(0, end);
    const Words words = Split(all.substr(0, all.find('#')), " \t\r,");
    if (!words.empty() && !Line(words)) return TextError{line, reason_};
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  line = std::max(line, 1);
  if (!header_) return TextError{line, Cat({"expected the header '", kTraceHeader, "', found the end of the text"})};
  if (!ops_) return TextError{line, "expected an 'ops' line, found the end of the text"};
  trace_.world = Normal(trace_.world);
  return std::move(trace_);
}

}  // namespace

std::variant<Trace, TextError> FromText(std::string_view text) { return Parser().Parse(text); }

}  // namespace reference
