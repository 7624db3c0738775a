#include "reference/lockstep/trace_gtest.h"

#include <algorithm>
#include <iterator>

#include "reference/lockstep/trace_gtest_facts.h"

namespace reference {
namespace gtest {

extern const char kCarriedText[];  // made from those headers by CMake

namespace {

// In the order of use.
constexpr Helper kHelpers[] = {
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
    {"HostBuffer",
     R"(// Host bytes between two guards, all 0xa5 at first; `misaligned` by so many from the start of a cache line.
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
  std::ostringstream text, runs, runs_again;
  text << std::hex << range.offset() << "+" << range.length() << " of pages";
  for (const uint64_t gpn : range.gpns()) {
    text << " " << gpn;
  }
  const auto show = [](std::ostringstream& out, const auto& part) {
    if (part.invalid_gpn) {
      out << std::hex << " invalid " << *part.invalid_gpn;
    } else {
      out << std::hex << " " << part.range.start << "+" << part.range.length;
    }
  };
  const auto all = range.ranges();
  for (const auto& part : all) {
    show(runs, part);
  }
  for (auto part = all.begin(); part != all.end(); part++) {  // the same walk in an iterator's other spelling
    show(runs_again, *part);
  }
  EXPECT_EQ(runs.str(), runs_again.str());
  return text.str() + ":" + runs.str();
}

)"},
    {"ShowAll(", R"(// A list of paged ranges, each as Show has it.
std::vector<std::string> ShowAll(const PagedRanges& ranges) {
  std::vector<std::string> all;
  for (const PagedRange& part : ranges) {
    all.push_back(Show(part));
  }
  size_t i = 0;
  for (auto part = ranges.begin(); part != ranges.end(); part++, ++i) {  // the same walk in an iterator's other spelling
    EXPECT_TRUE(i < all.size() && Show(*part) == all[i]);
  }
  return all;
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
?calls_.handler?  Answers<HandlerAnswer> handler;
?calls_.fallback?  Answers<FallbackAnswer> fallback;
?calls_.lock?  Answers<LockAnswer> lock;
?calls_.subrange?  Answers<SubrangeAnswer> subrange;
};

)"},
    {"FailHostCall", R"(// Host calls until one fails, and that one; 0: none will.
unsigned g_calls_to_failure = 0;
?g_host_error?int g_host_error = 0;  // with this errno
?g_two_host_calls?bool g_two_host_calls = false;  // while a mapping is changed, which counts as one: then the second one fails
bool FailHostCall(detail::HostCall call) {
  if (call == detail::HostCall::kCountLocks) return false;  // not counted
?g_host_error?  errno = g_host_error;
?g_two_host_calls?  static bool second_fails = false;
?g_two_host_calls?  if (call == detail::HostCall::kMremap) return std::exchange(second_fails, false);
?g_two_host_calls?  const bool now = g_calls_to_failure != 0 && --g_calls_to_failure == 0;
?g_two_host_calls?  second_fails = now && g_two_host_calls;
?g_two_host_calls?  return now && !second_fails;
?!g_two_host_calls?  // The second half of putting a mapping in place doesn't count.
?!g_two_host_calls?  return call != detail::HostCall::kMremap && g_calls_to_failure != 0 && --g_calls_to_failure == 0;
}

)"},
    {"Bare", R"(// No mapping, and every other method as it is inherited.
class Bare final : public GuestMemoryAccess {
 public:
  explicit Bare(uint64_t size) : size_(size) {}
  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return size_; }

 private:
  const uint64_t size_;
};

)"},
    {"Guarded", R"(// A mapping that an access bitmap guards.
class Guarded final : public SharedBacking<SparseMapping> {
 public:
  Guarded(std::shared_ptr<SparseMapping> inner, std::shared_ptr<AccessBitmap> bits)
      : SharedBacking(std::move(inner)), bits_(std::move(bits)) {}
  std::optional<BitmapInfo> access_bitmap() const override { return bits_->info(); }

 private:
  const std::shared_ptr<AccessBitmap> bits_;
};

)"},
};

// The sections of the headers that tests carry (see reference/world/answers.h), then the above.
const std::vector<Helper>& Helpers() {
  static const auto* const helpers = [] {
    auto* all = new std::vector<Helper>;
    constexpr std::string_view kSection = "\n// ---- ";
    const std::string_view text = kCarriedText;
    for (size_t at = text.find(kSection); at != text.npos; at = text.find(kSection, at + 1)) {
      const size_t name = at + kSection.size(), start = text.find('\n', name) + 1;
      const size_t end = std::min(text.find("\n// ----", start), text.find("\n}  // namespace", start));
      all->push_back({text.substr(name, start - 1 - name), text.substr(start, end - start + 1)});
    }
    all->insert(all->end(), std::begin(kHelpers), std::end(kHelpers));
    return all;
  }();
  return *helpers;
}

}  // namespace
}  // namespace gtest

TestSource ToTestSource(const Trace& trace, std::string_view name) {
  const gtest::Facts facts(trace);
  const std::string test = gtest::TestName(name);
  gtest::Source body;
  body.Line({"TEST(Regression, ", test, ") {"});
  gtest::BuildWorld(facts, body);
  const std::string unknown = gtest::Operations(facts, body);
  const std::string problem =
      unknown.empty() ? "" : "no C++ is known for " + unknown + " (reference/lockstep/trace_gtest_steps.cc)";
  gtest::CompareMemory(facts, body);
  body.Line("}");
  std::string code = gtest::BackingClass(facts) + body.text();
  if (!problem.empty()) {
    code = "TEST(Regression, " + test + ") { GTEST_SKIP() << " + gtest::Quoted(problem) + "; }\n";
  }
  return {gtest::Assemble({"trace test", "the model in reference/model", ToText(trace), test, code, gtest::Helpers()}),
          problem};
}

}  // namespace reference
