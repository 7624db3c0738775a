#include "reference/lockstep/trace_gtest.h"

#include <algorithm>
#include <cctype>

#include "reference/lockstep/op_fields.h"
#include "reference/lockstep/trace_gtest_facts.h"
#include "reference/lockstep/trace_words.h"
#include "reference/model/model.h"

namespace reference {
namespace gtest {
namespace {

constexpr size_t kColumns = 120;

bool IsFix(HandlerAnswer answer) {
  return answer == HandlerAnswer::kFixRetry || answer == HandlerAnswer::kFixAllRetry ||
         answer == HandlerAnswer::kRefuseRetry || answer == HandlerAnswer::kVanishRetry ||
         answer == HandlerAnswer::kRefuseLastRetry;
}

bool IsFallback(CallKind kind) {
  return kind == CallKind::kReadFallback || kind == CallKind::kWriteFallback || kind == CallKind::kFillFallback ||
         kind == CallKind::kCompareExchangeFallback;
}

States StatesOf(const Model& model, const World& world) {
  States states = {};
  for (size_t backing = 0; backing < world.backings.size(); ++backing) {
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      states[backing][page] = model.State(backing, page);
    }
  }
  return states;
}

void RunOn(Model& model, const World& world, Ran& ran) {
  if (ran.step.kind == StepKind::kRangeAppend) {
    Step look = ran.step;
    look.kind = StepKind::kRangeIterate;  // changes nothing
    model.Run(look, ran.outcome);
    ran.members_before = ran.outcome.parts.size();
  }
  model.Run(ran.step, ran.outcome);
  ran.states = StatesOf(model, world);
}

// Where a line too long may end: behind a comma or before <<, not inside a string. 0: nowhere.
size_t BreakBefore(std::string_view line, size_t columns, size_t indent) {
  bool quoted = false;
  size_t best = 0;
  for (size_t i = 0; i + 1 < std::min(line.size(), columns); ++i) {
    quoted ^= line[i] == '"' && (i == 0 || line[i - 1] != '\\');
    if (!quoted && i > indent && line[i + 1] == ' ' && (line[i] == ',' || line[i] == '=')) {
      best = i + 1;
    }
  }
  return best;
}

}  // namespace

Facts::Facts(const Trace& trace) : world(trace.world) {
  Model model;
  model.Start(world);
  uint64_t seen = 0;
  for (const Op& op : trace.ops) {
    steps.push_back({OpText(op), Resolve(world, op, seen), {}, 0, {}});
    RunOn(model, world, steps.back());
    seen = steps.back().outcome.number.value_or(seen);
  }
  for (uint8_t object = 0; object < kObjects; ++object) {
    if (model.Holds(object)) {
      Step unlock;
      unlock.kind = StepKind::kUnlock;
      unlock.object = object;
      steps.push_back({"what is still locked is unlocked", unlock, {}, 0, {}});
      RunOn(model, world, steps.back());
    }
  }
  states = StatesOf(model, world);
  for (const Ran& ran : steps) {
    const OpFields& uses = FieldsOf(ran.step.kind);
    if (uses.Uses(kFieldValue)) {
      seeds.insert(ran.step.value);
    }
    longest = std::max<uint64_t>(longest, ran.outcome.data.size());
    locks |= ran.step.kind == StepKind::kLockGpns || ran.step.kind == StepKind::kLockRange;
    hooks |= ran.step.kind == StepKind::kSubrange || ran.step.kind == StepKind::kLockableSubrange;
    file |= ran.step.kind == StepKind::kMapFile || ran.step.kind == StepKind::kMapFileBytes;
    for (const Call& call : ran.outcome.calls) {
      handler |= call.kind == CallKind::kPageFault;
      if (IsFallback(call.kind)) {
        fallbacks.insert(call.kind);
      }
    }
  }
  handler |= !world.handler.empty();
  fixes = std::any_of(world.handler.begin(), world.handler.end(), IsFix);
  for (const Ran& ran : steps) {
    tracks |= fixes && (ran.step.kind == StepKind::kMapFileBytes || ran.step.kind == StepKind::kUnmapBytes ||
                        (FieldsOf(ran.step.kind).Uses(kFieldPage) && ran.step.kind != StepKind::kSetBit));
  }
  tracks |= std::find(world.handler.begin(), world.handler.end(), HandlerAnswer::kVanishRetry) != world.handler.end();
  own = std::find(world.subrange.begin(), world.subrange.end(), SubrangeAnswer::kOwn) != world.subrange.end() ||
        std::find(world.subrange.begin(), world.subrange.end(), SubrangeAnswer::kWrongSize) != world.subrange.end();
  const bool answers = std::find(world.handler.begin(), world.handler.end(), HandlerAnswer::kFallback) != world.handler.end();
  for (size_t i = 0; i < world.backings.size(); ++i) {
    const Backing& backing = world.backings[i];
    bitmaps |= backing.present && backing.has_bitmap;
    unmapped |= backing.present && !backing.mapped;
    iova |= backing.has_iova;
    managed |= backing.present && backing.managed;
    unlockable |= backing.present && !backing.lockable;
    fickle |= backing.fickle;
    for (uint64_t page = 0; page < backing.pages; ++page) {
      bus |= backing.present && backing.page[page].state == PageState::kBus;
      tracks |= fixes && backing.page[page].state != PageState::kRam;
    }
    mapped.emplace_back();
    slow.emplace_back();
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      const std::span<const uint8_t> seen_there = model.MappedPage(i, page), slow_there = model.SlowPage(i, page);
      mapped.back().insert(mapped.back().end(), seen_there.begin(), seen_there.end());
      slow.back().insert(slow.back().end(), slow_there.begin(), slow_there.end());
    }
  }
  // An engine that is wrong may ask for one that the model does not.
  if (unmapped || own || answers || !world.fallback.empty()) {
    fallbacks.insert({CallKind::kReadFallback, CallKind::kWriteFallback, CallKind::kFillFallback, CallKind::kCompareExchangeFallback});
  }
  host_calls = world.failing_host_call != 0;
  calls = handler || !fallbacks.empty() || locks || hooks;
}

std::string Unspelled(const Facts& facts) {
  for (const Backing& backing : facts.world.backings) {
    if (backing.present && backing.sharing != Sharing::kNone) {
      return "a backing with files of its own";
    }
  }
  for (const Ran& ran : facts.steps) {
    const bool within = ran.step.within != 0 && ran.outcome.data.empty();
    if (within && (!ran.outcome.ok || facts.host_calls || ran.step.kind == StepKind::kRangeRead || ran.step.kind == StepKind::kRangeWrite)) {
      return "a host buffer inside guest memory whose access fails";
    }
  }
  return "";
}

void Source::Line(std::initializer_list<std::string_view> parts) {
  std::string line;
  for (const std::string_view part : parts) {
    line += part;
  }
  if (line.starts_with("}")) {
    depth_ -= 1;
  }
  const bool label = line.starts_with("public:") || line.starts_with("private:");
  std::string_view rest = line;
  std::string indent(static_cast<size_t>(depth_) * 2 - (label ? 1 : 0), ' ');
  const size_t start = line.find_first_not_of(' ');
  while (indent.size() + rest.size() > kColumns && !line.starts_with("//")) {
    const size_t end = BreakBefore(rest, kColumns - indent.size(), start);
    if (end == 0) {
      break;
    }
    text_ += indent + std::string(rest.substr(0, end)) + "\n";
    rest.remove_prefix(end + 1);
    indent = std::string(static_cast<size_t>(depth_) * 2 + 4, ' ');
  }
  text_ += indent + std::string(rest) + "\n";
  depth_ += line.ends_with("{") ? 1 : 0;
}

void Source::Blank() { text_ += "\n"; }

void Source::Block(std::string_view lines) { text_ += lines; }

std::string Literal(uint64_t number) { return (number < 10 ? DecimalText(number) : HexText(number)) + "u"; }

std::string Number(uint64_t number) { return number < 10 ? DecimalText(number) : HexText(number); }

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

std::string Enumerator(std::string_view name) {
  std::string out = "k";
  bool upper = true;
  for (const char c : name) {
    if (c != '_') {
      out += upper ? static_cast<char>(std::toupper(c)) : c;
    }
    upper = c == '_';
  }
  return out;
}

std::string Noted(const Call& call) {
  std::string text(Name(call.kind));
  std::vector<uint64_t> numbers = {call.address, call.length};
  switch (call.kind) {
    case CallKind::kLockGpns:
    case CallKind::kUnlockGpns:
      text += " to " + std::string(Name(call.access));
      numbers = call.gpns;
      break;
    case CallKind::kPageFault: text += " on " + std::string(Name(call.access)) + (call.bitmap_failure ? " by the bitmap" : ""); break;
    case CallKind::kFillFallback:
    case CallKind::kSubrange: numbers.push_back(call.value); break;
    case CallKind::kCompareExchangeFallback:
      numbers.push_back(call.value);
      numbers.push_back(call.desired);
      break;
    default: break;
  }
  text += " of backing " + DecimalText(call.backing) + ":";
  for (const uint64_t number : numbers) {
    text += " " + HexText(number);
  }
  return text;
}

namespace {

// "s4_fault at-first" -> "S4FaultAtFirst"
std::string TestName(std::string_view name) {
  constexpr std::string_view kSuite = "regression_";
  if (name.starts_with(kSuite)) {
    name.remove_prefix(kSuite.size());
  }
  std::string out;
  bool upper = true;
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      out += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    }
    upper = std::isalnum(static_cast<unsigned char>(c)) == 0;
  }
  return out.empty() || std::isdigit(static_cast<unsigned char>(out[0])) != 0 ? "Trace" + out : out;
}

// A helper of the test; there if what comes after it names it. In the order of use. A line that starts with ?WORD? is
// there if WORD is named too.
struct Helper {
  std::string_view name;
  std::string_view text;
};
constexpr Helper kHelpers[] = {
    {"Bytes", "using Bytes = std::vector<uint8_t>;\n\n"},
    {"InitialByte(", R"(// What memory holds at first: each byte tells where it is.
uint8_t InitialByte(uint64_t backing, uint64_t offset) {
  return static_cast<uint8_t>(offset * 7 + offset / 256 * 13 + backing * 101 + 1);
}
)"},
    {"Initial(", R"(Bytes Initial(uint64_t backing, uint64_t offset, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = 0; i < length; ++i) {
    bytes.push_back(InitialByte(backing, offset + i));
  }
  return bytes;
}

)"},
    {"Slow(", R"(// What the fallbacks work on, at first.
Bytes Slow(uint64_t backing, uint64_t offset, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = offset; i < offset + length; ++i) {
    bytes.push_back(static_cast<uint8_t>(i * 5 + i / 256 * 29 + backing * 67 + 128));
  }
  return bytes;
}

)"},
    {"File(", R"(// What the file holds at first.
Bytes File(uint64_t offset, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = offset; i < offset + length; ++i) {
    bytes.push_back(static_cast<uint8_t>(i * 11 + i / 256 * 17 + 64));
  }
  return bytes;
}

)"},
    {"Data(", R"(// Bytes to write: `length` of those that `seed` gives, without the first `skip`.
Bytes Data(uint64_t seed, uint64_t length, uint64_t skip = 0) {
  Bytes bytes;
  for (uint64_t i = skip; i < skip + length; ++i) {
    bytes.push_back(static_cast<uint8_t>((seed >> (i % 8 * 8)) + i * 3));
  }
  return bytes;
}

)"},
    {"Repeat(", "Bytes Repeat(uint64_t length, uint8_t value) { return Bytes(length, value); }\n\n"},
    {"Join(", R"(Bytes Join(std::initializer_list<Bytes> parts) {
  Bytes bytes;
  for (const Bytes& part : parts) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  return bytes;
}

)"},
    {"Put(", R"(void Put(Bytes& bytes, uint64_t offset, const Bytes& part) {
  std::copy(part.begin(), part.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
}

)"},
    {"Same(", R"(testing::AssertionResult Same(std::span<const uint8_t> expected, std::span<const uint8_t> actual) {
  if (expected.size() != actual.size()) {
    return testing::AssertionFailure() << actual.size() << " bytes, not " << expected.size();
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] != actual[i]) {
      return testing::AssertionFailure() << "byte " << i << " is " << int{actual[i]} << ", not " << int{expected[i]};
    }
  }
  return testing::AssertionSuccess();
}

)"},
    {"HostBuffer", R"(// Host bytes between two guards, all 0xa5 at first; `misaligned` by so many from the start of a cache line.
class HostBuffer {
 public:
  explicit HostBuffer(uint64_t size, uint64_t misaligned = 0) : start_(kGuard + misaligned), size_(size) {
    storage_.fill(0xa5);
  }
?(Data(?  explicit HostBuffer(const Bytes& bytes, uint64_t misaligned = 0) : HostBuffer(bytes.size(), misaligned) {
?(Data(?    std::copy(bytes.begin(), bytes.end(), storage_.begin() + static_cast<ptrdiff_t>(start_));
?(Data(?  }
  std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(storage_).subspan(start_, size_)); }
?atomics()?  // Safe because an atomic byte has a byte's representation.
?atomics()?  std::span<std::atomic<uint8_t>> atomics() {
?atomics()?    return {reinterpret_cast<std::atomic<uint8_t>*>(storage_.data() + start_), size_};
?atomics()?  }
  // Whether the bytes are `expected` and nothing was stored around them.
  testing::AssertionResult Holds(const Bytes& expected) const {
    Bytes all(storage_.size(), 0xa5);
    std::copy(expected.begin(), expected.end(), all.begin() + static_cast<ptrdiff_t>(start_));
    return expected.size() == size_ ? Same(all, storage_) : testing::AssertionFailure() << "another size";
  }

 private:
  static constexpr uint64_t kGuard = 16;
  const uint64_t start_, size_;
  alignas(64) std::array<uint8_t, 17 * 1024 + 128> storage_;
};

)"},
    {"Show(", R"(// A paged range and its addresses, as text.
std::string Show(const PagedRange& range) {
  std::ostringstream text;
  text << std::hex << range.offset() << "+" << range.length() << " of pages";
  for (const uint64_t gpn : range.gpns()) {
    text << " " << gpn;
  }
  text << ":";
  for (const auto& [run, invalid_gpn] : range.ranges()) {
    if (invalid_gpn) {
      text << " invalid " << *invalid_gpn;
    } else {
      text << " " << run.start << "+" << run.length;
    }
  }
  return text.str();
}

)"},
    {"ForeignError(", R"(// What no backing makes up by itself: the error of another memory.
Status ForeignError(uint64_t address) {
  std::byte byte;
  return GuestMemory::Empty().ReadAt(address, std::span(&byte, 1));
}

)"},
    {"AccessName(", R"(std::string AccessName(AccessType access) {
  return access == AccessType::kRead ? "read" : access == AccessType::kWrite ? "write" : "execute";
}

)"},
    {"Calls", R"(// What the backings were asked. TakeAll: since it was last called.
struct Calls {
  void Note(const std::string& what, std::span<const uint64_t> numbers) {
    std::ostringstream text;
    text << what << ":";
    for (const uint64_t number : numbers) {
      text << " 0x" << std::hex << number;
    }
    noted.push_back(text.str());
  }
  std::vector<std::string> TakeAll() { return std::exchange(noted, {}); }

  std::vector<std::string> noted;
?calls_.handler?  int handler = 0;  // how often the handler was asked; the others likewise
?calls_.fallback?  int fallback = 0;
?calls_.lock?  int lock = 0;
?calls_.subrange?  int subrange = 0;
};

)"},
    {"FailHostCall", R"(// Host calls until one fails, and that one; 0: none will. The second half of putting a mapping in place doesn't count.
unsigned g_calls_to_failure = 0;
?g_host_error?int g_host_error = 0;  // with this errno
bool FailHostCall(detail::HostCall call) {
?g_host_error?  errno = g_host_error;
  return call != detail::HostCall::kMremap && g_calls_to_failure != 0 && --g_calls_to_failure == 0;
}

)"},
};

struct Include {
  std::string_view word, header;
};
constexpr Include kSystem[] = {
    {"memfd_create", "sys/mman.h"}, {"pwrite(", "unistd.h"},
};
constexpr Include kStandard[] = {
    {"std::copy(", "algorithm"},  {"std::array", "array"},       {"std::atomic", "atomic"},     {"errno", "cerrno"},          {"std::byte", "cstddef"},
    {"uint", "cstdint"},          {"std::mem", "cstring"},       {"initializer_list", "initializer_list"},
    {"std::make_shared", "memory"}, {"std::optional", "optional"}, {"std::span", "span"},         {"std::ostringstream", "sstream"},
    {"std::string", "string"},    {"std::move(", "utility"},      {"std::exchange(", "utility"}, {"std::pair<", "utility"},
    {"std::vector", "vector"},
};
constexpr Include kOwn[] = {
    {"AccessBitmap", "guestmem/access_bitmap.h"},         {"detail::HostCall", "guestmem/detail/host_calls.h"}, {"std::optional<Fault>", "guestmem/fault.h"},
    {"GuestMemory::", "guestmem/guest_memory.h"},
    {"Locked", "guestmem/lock.h"},                        {"PagedRange", "guestmem/paged_range.h"},
    {"SharedBacking", "guestmem/shared_backing.h"},       {"SparseMapping", "guestmem/sparse_mapping.h"},       {"Reader ", "guestmem/stream.h"},
    {"Writer ", "guestmem/stream.h"},
};

// Whether `code` has `name`, not as the end of another.
bool Names(const std::string& code, std::string_view name) {
  for (size_t at = code.find(name); at != code.npos; at = code.find(name, at + 1)) {
    if (at == 0 || (std::isalnum(static_cast<unsigned char>(code[at - 1])) == 0 && code[at - 1] != '_')) {
      return true;
    }
  }
  return false;
}

std::string Needed(std::string_view helper, const std::string& code) {
  std::string out;
  while (!helper.empty()) {
    std::string_view line = helper.substr(0, helper.find('\n') + 1);
    helper.remove_prefix(line.size());
    const size_t end = line[0] == '?' ? line.find('?', 1) : 0;
    if (end == 0 || code.find(line.substr(1, end - 1)) != code.npos) {
      out += line.substr(end == 0 ? 0 : end + 1);
    }
  }
  return out;
}

template <size_t N>
std::string Includes(const Include (&table)[N], const std::string& code, char open, char close) {
  std::string out;
  for (const auto& [word, header] : table) {
    const std::string line = "#include " + std::string(1, open) + std::string(header) + close + "\n";
    if (code.find(word) != code.npos && out.find(line) == out.npos) {
      out += line;
    }
  }
  return out.empty() ? out : out + "\n";
}

std::string Comment(const std::string& trace) {
  std::string out;
  for (size_t start = 0; start < trace.size();) {
    const size_t end = trace.find('\n', start);
    out += "//   " + trace.substr(start, end - start) + "\n";
    start = end + 1;
  }
  return out;
}

}  // namespace
}  // namespace gtest

TestSource ToTestSource(const Trace& trace, std::string_view name) {
  const gtest::Facts facts(trace);
  const std::string test = gtest::TestName(name);
  gtest::Source body;
  body.Line({"TEST(Regression, ", test, ") {"});
  gtest::BuildWorld(facts, body);
  std::string unknown = gtest::Operations(facts, body);
  unknown = unknown.empty() ? gtest::Unspelled(facts) : unknown;
  const std::string problem = unknown.empty() ? "" : "no C++ is known for " + unknown + " (reference/lockstep/trace_gtest_ops.cc)";
  gtest::CompareMemory(facts, body);
  body.Line("}");
  std::string code = gtest::BackingClass(facts) + body.text();
  if (!problem.empty()) {
    code = "TEST(Regression, " + test + ") { GTEST_SKIP() << " + gtest::Quoted(problem) + "; }\n";
  }
  for (size_t i = std::size(gtest::kHelpers); i > 0; --i) {
    const gtest::Helper& helper = gtest::kHelpers[i - 1];
    if (gtest::Names(code, helper.name)) {
      code = gtest::Needed(helper.text, code) + code;
    }
  }
  std::string out = "// Made by `trace test` from the trace below. What is expected is what the model in reference/model does.\n//\n" +
                    gtest::Comment(ToText(trace)) + "\n";
  out += gtest::Includes(gtest::kSystem, code, '<', '>') + gtest::Includes(gtest::kStandard, code, '<', '>');
  out += "#include <gmock/gmock.h>\n#include <gtest/gtest.h>\n\n" + gtest::Includes(gtest::kOwn, code, '"', '"');
  // A namespace of its own, so that many such files can be one translation unit.
  out += "namespace guestmem::regression_" + test + " {\nnamespace {\n\n" + code;
  out += "\n}  // namespace\n}  // namespace guestmem::regression_" + test + "\n";
  return {out, problem};
}

}  // namespace reference
