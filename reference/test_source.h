// A GoogleTest written as C++ text: lines, the names of bytes, what a Status must be, and the frame of the file. For
// what turns traces into tests (lockstep/, vmm/).

#ifndef GUESTMEM_REFERENCE_TEST_SOURCE_H_
#define GUESTMEM_REFERENCE_TEST_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace reference::gtest {

// Lines of C++, indented by their braces.
class Source {
 public:
  explicit Source(int depth = 0) : depth_(depth) {}
  void Line(std::initializer_list<std::string_view> parts);
  void Line(std::string_view line) { Line({line}); }
  void Blank();
  // Several lines, indented as they are.
  void Block(std::string_view lines);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  int depth_;
};

// A number as a literal, for comparisons of unsigned type: 7u, 0x800u; and for calls: 7, 0x800.
std::string Literal(uint64_t number);
std::string Number(uint64_t number);
std::string Quoted(std::string_view text);  // as a string literal
// "out_of_range", "out of range" -> "kOutOfRange"
std::string Enumerator(std::string_view name);

// Bytes that a test has a name for: `bytes` from `offset` on, `length` of them, are what spell(offset, length) says.
struct NamedBytes {
  std::vector<uint8_t> bytes;
  uint64_t offsets;  // those below may be spelled
  bool placed;       // likely are those at the same place in a page; false: that at 0
  std::function<std::string(uint64_t offset, const std::string& length)> spell;
};
// An expression of type Bytes for what `bytes` are. `offset`: where in a page they probably come from.
std::string BytesExpression(std::span<const NamedBytes> names, std::span<const uint8_t> bytes, uint64_t offset);
// Turns `expected`, a variable of type Bytes that holds `before`, into `now`.
void PutChanges(std::span<const NamedBytes> names, const std::string& expected, std::span<const uint8_t> before,
                std::span<const uint8_t> now, Source& out);

// What a caller sees of an error; kind and operation as enumerators of guestmem/status.h.
struct ExpectedError {
  std::string kind, operation;
  std::optional<std::pair<uint64_t, uint64_t>> range;  // start, length
  std::optional<uint64_t> fault_address, gpn;
  uint64_t transferred = 0;
};
void ExpectError(const std::string& status, const ExpectedError& error, Source& out);

// A helper of the test; there if what comes after it has one of its names. In the order of use.
struct Helper {
  std::string_view name;  // or several, parted by spaces
  std::string_view text;
};

struct TestFile {
  std::string_view tool;            // that makes it
  std::string_view judge;           // whose expectations they are
  std::string trace;                // as text
  std::string test;                 // its name: TestName's
  std::string code;                 // classes, and TEST(Regression, `test`)
  std::span<const Helper> helpers;  // beside what reference/world and reference/support have
};
// "s4_fault at-first" -> "S4FaultAtFirst"
std::string TestName(std::string_view name);
// The whole file: the trace as a comment, what must be included, the helpers that are needed, the code.
std::string Assemble(const TestFile& file);

}  // namespace reference::gtest

#endif  // GUESTMEM_REFERENCE_TEST_SOURCE_H_
