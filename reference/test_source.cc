#include "reference/test_source.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <iterator>

namespace reference::gtest {

extern const char kCarriedText[];  // of those headers, by CMake

namespace {

constexpr size_t kColumns = 120;

unsigned char Char(char c) { return static_cast<unsigned char>(c); }
bool IsWord(char c) { return std::isalnum(Char(c)) != 0; }

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

std::string Number(uint64_t number) {
  char text[24];
  std::snprintf(text, sizeof text, number < 10 ? "%llu" : "0x%llx", static_cast<unsigned long long>(number));
  return text;
}

std::string Literal(uint64_t number) { return Number(number) + "u"; }

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

std::string Enumerator(std::string_view name) {
  std::string out = "k";
  bool upper = true;
  for (const char c : name) {
    if (IsWord(c)) {
      out += static_cast<char>(upper ? std::toupper(Char(c)) : std::tolower(Char(c)));
    }
    upper = !IsWord(c);
  }
  return out;
}

void ExpectError(const std::string& status, const ExpectedError& error, Source& out) {
  const std::string info = status + ".info().";
  const auto equal = [&](std::string_view field, const std::string& expected) {
    out.Line({"EXPECT_EQ(", info, field, ", ", expected, ");"});
  };
  const auto address = [](const std::optional<uint64_t>& number) { return number ? Literal(*number) : "std::nullopt"; };
  out.Line({"ASSERT_FALSE(", status, ".ok());"});
  equal("kind", "ErrorKind::" + error.kind);
  equal("operation", "Operation::" + error.operation);
  equal("range", error.range
                     ? "(AddressRange{" + Literal(error.range->first) + ", " + Literal(error.range->second) + "})"
                     : "std::nullopt");
  equal("fault_address", address(error.fault_address));
  equal("gpn", address(error.gpn));
  equal("transferred", Literal(error.transferred));
}

std::string TestName(std::string_view name) {
  constexpr std::string_view kSuite = "regression_";
  if (name.starts_with(kSuite)) {
    name.remove_prefix(kSuite.size());
  }
  std::string out;
  bool upper = true;
  for (const char c : name) {
    if (IsWord(c)) {
      out += upper ? static_cast<char>(std::toupper(Char(c))) : c;
    }
    upper = !IsWord(c);
  }
  return out.empty() || std::isdigit(Char(out[0])) != 0 ? "Trace" + out : out;
}

// ------------------------------------------------------------------ the file

namespace {

// The sections of the headers that tests carry: each has its names behind dashes, and ends where the next one starts.
const std::vector<Helper>& Carried() {
  static const auto* const sections = [] {
    auto* all = new std::vector<Helper>;
    constexpr std::string_view kSection = "\n// ---- ";
    const std::string_view text = kCarriedText;
    for (size_t at = text.find(kSection); at != text.npos; at = text.find(kSection, at + 1)) {
      const size_t name = at + kSection.size(), start = text.find('\n', name) + 1;
      const size_t end = std::min(text.find("\n// ----", start), text.find("\n}  // namespace", start));
      all->push_back({text.substr(name, start - 1 - name), text.substr(start, end - start + 1)});
    }
    return all;
  }();
  return *sections;
}

struct Include {
  std::string_view word, header;
};
constexpr Include kSystem[] = {
    {"F_GET_SEALS", "fcntl.h"}, {" open(", "fcntl.h"},
    {"MPOL_", "linux/mempolicy.h"},    {"pollfd", "poll.h"},
    {"siginfo_t", "signal.h"},  {"memfd_create", "sys/mman.h"}, {"mmap(", "sys/mman.h"}, {"SYS_", "sys/syscall.h"},
    {"ucontext_t", "ucontext.h"},
    {"pwrite(", "unistd.h"},    {"pread(", "unistd.h"},         {"close(", "unistd.h"},
    {"dup(", "unistd.h"},
};
constexpr Include kStandard[] = {
    {"std::copy(", "algorithm"},    {"std::copy_n(", "algorithm"},
    {"std::find", "algorithm"},     {"std::min", "algorithm"},
    {"std::max_element(", "algorithm"}, {"_of(", "algorithm"},
    {"std::mismatch(", "algorithm"},
    {"std::array", "array"},
    {"std::atomic", "atomic"},      {"errno", "cerrno"},
    {"std::byte", "cstddef"},       {"uint", "cstdint"},
    {"std::fprintf", "cstdio"},     {"std::_Exit", "cstdlib"},
    {"std::abort(", "cstdlib"},
    {"std::mem", "cstring"},        {"initializer_list", "initializer_list"},
    {"std::make_shared", "memory"}, {"std::shared_ptr", "memory"},
    {"std::unique_ptr", "memory"},  {"std::optional", "optional"},
    {"std::span", "span"},          {"std::ostringstream", "sstream"},
    {"std::string", "string"},      {"std::string_view", "string_view"},
    {"std::is_same", "type_traits"}, {"std::move(", "utility"},
    {"std::exchange(", "utility"},  {"std::pair<", "utility"},
    {"std::variant", "variant"},    {"std::vector", "vector"},
};
constexpr Include kPublic[] = {
    {"AccessBitmap", "guestmem/access_bitmap.h"},
    {"AddressSpace", "guestmem/address_space.h"},
    {"detail::HostCall", "guestmem/detail/host_calls.h"},
    {"detail::SetErrorMemory", "guestmem/detail/host_calls.h"},
    {"Doorbell>", "guestmem/doorbell.h"},
    {"Event>", "guestmem/event.h"},
    {"Fault>", "guestmem/fault.h"},
    {"TryHandleFault", "guestmem/fault.h"},
    {"TryCopy(", "guestmem/fault.h"},
    {"GuestMemory", "guestmem/guest_memory.h"},
    {"TakeInnerBuffer", "guestmem/heap_memory.h"},
    {"InProcessGuest", "guestmem/in_process_guest.h"},
    {"detail::Lock", "guestmem/lock.h"},
    {"GuestSpan", "guestmem/lock.h"},
    {"MemoryRegion", "guestmem/memory_mapper.h"},
    {"PagedRange", "guestmem/paged_range.h"},
    {"RomMapp", "guestmem/rom_mapper.h"},
    {"SharedBacking", "guestmem/shared_backing.h"},
    {"SharedMemory", "guestmem/shared_memory.h"},
    {"SharedFile", "guestmem/sharing.h"},
    {"SparseMapping", "guestmem/sparse_mapping.h"},
    {"Reader", "guestmem/stream.h"},
    {"Writer", "guestmem/stream.h"},
};

// Whether `code` has one of `names`, which spaces part, as a word.
bool Names(const std::string& code, std::string_view names) {
  const auto is_word = [](char c) { return IsWord(c) || c == '_'; };
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(' '));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    for (size_t at = code.find(name); at != code.npos; at = code.find(name, at + 1)) {
      const size_t end = at + name.size();
      if ((at == 0 || !is_word(code[at - 1])) && (!is_word(name.back()) || end == code.size() || !is_word(code[end]))) return true;
    }
  }
  return false;
}

// The text of those that `code` uses.
std::string Needed(std::span<const Helper> helpers, const std::string& code) {
  std::string text;
  for (size_t i = helpers.size(); i > 0; --i) {
    if (Names(code, helpers[i - 1].name) || Names(text, helpers[i - 1].name)) text = std::string(helpers[i - 1].text) + text;
  }
  return text;
}

// A name for a text, the same for the same (FNV-1a): what is in its namespace is the same everywhere.
std::string NameOf(std::string_view text) {
  uint64_t hash = 2166136261;
  for (const char c : text) hash = (hash ^ Char(c)) * 16777619 % (uint64_t{1} << 32);
  char name[24];
  std::snprintf(name, sizeof name, "support_%08x", static_cast<unsigned>(hash));
  return name;
}

std::string Includes(std::span<const Include> table, const std::string& code, char open, char close) {
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

std::string Assemble(const TestFile& file) {
  const std::string code = Needed(file.helpers, file.code) + file.code;
  const std::string carried = Needed(Carried(), code), all = carried + code, support = NameOf(carried);
  std::string out = "// Made by `" + std::string(file.tool) + "` from the trace below. What is expected is what " +
                    std::string(file.judge) + " does.\n//\n" + Comment(file.trace) + "\n";
  out += Includes(kSystem, all, '<', '>') + Includes(kStandard, all, '<', '>');
  out += "#include <gmock/gmock.h>\n#include <gtest/gtest.h>\n\n" + Includes(kPublic, all, '"', '"');
  // Many such files can be one translation unit: what tests use is there once, and each has a namespace of its own.
  out += "#ifndef GUESTMEM_" + support + "  // what the test uses of the harness\n#define GUESTMEM_" + support +
         "\nnamespace guestmem::" + support + " {\n\n" + carried + "}  // namespace guestmem::" + support + "\n#endif\n\n";
  out += "namespace guestmem::regression_" + file.test + " {\nnamespace {\n\nusing namespace " + support + ";\n\n" + code;
  return out + "\n}  // namespace\n}  // namespace guestmem::regression_" + file.test + "\n";
}

}  // namespace reference::gtest
