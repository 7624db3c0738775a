// What the parts of trace_gtest.cc share: the trace as the model ran it, and how C++ is spelled.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_FACTS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_FACTS_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/lockstep/trace.h"

namespace reference::gtest {

using States = std::array<std::array<PageState, kMaxPages>, kMaxBackings>;  // by backing and page

// A step as the model did it.
struct Ran {
  std::string text;  // the op's, or what the step is for
  Step step;
  Outcome outcome;
  size_t members_before = 0;                                              // kRangeAppend: of the buffer
  States states = {};                                                     // afterwards
};

// The run, and what of the world a test of it must have.
struct Facts {
  explicit Facts(const Trace& trace);

  const World& world;
  std::vector<Ran> steps;  // the ops, then the unlocking of what is held
  std::vector<std::vector<uint8_t>> mapped, slow;  // afterwards, by backing
  States states = {};                              // afterwards
  std::set<uint64_t> seeds;                        // of DataPattern
  uint64_t longest = 0;                            // host buffer

  bool bitmaps = false, unmapped = false, iova = false, fickle = false, unlockable = false, managed = false;
  bool handler = false;   // PageFault
  bool fixes = false;     // the handler puts pages in order
  bool tracks = false;    // and must know what each page is
  std::set<CallKind> fallbacks;  // asked for
  bool locks = false, hooks = false, own = false;
  bool host_calls = false;
  bool file = false, bus = false;
  bool calls = false;  // the backing writes down what it is asked
};

// Lines of C++, indented by their braces.
class Source {
 public:
  void Line(std::initializer_list<std::string_view> parts);
  void Line(std::string_view line) { Line({line}); }
  void Blank();
  // Several lines, indented as they are.
  void Block(std::string_view lines);
  bool Mentions(std::string_view word) const { return text_.find(word) != std::string::npos; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  int depth_ = 0;
};

// A number as a literal, for comparisons of unsigned type: 7u, 0x800u; and for calls: 7, 0x800.
std::string Literal(uint64_t number);
std::string Number(uint64_t number);
std::string Quoted(std::string_view text);  // as a string literal
// "out_of_range" -> "kOutOfRange"
std::string Enumerator(std::string_view name);
// An expression of type Bytes for what `bytes` are. `offset`: where in a page they probably come from.
std::string BytesExpression(const Facts& facts, std::span<const uint8_t> bytes, uint64_t offset);
// What the emitted backing notes of a call.
std::string Noted(const Call& call);

// The parts of the test. trace_gtest_world.cc, trace_gtest_ops.cc
std::string BackingClass(const Facts& facts);
void BuildWorld(const Facts& facts, Source& out);
void CompareMemory(const Facts& facts, Source& out);
// What in the trace has no C++ yet; empty: nothing.
std::string Unspelled(const Facts& facts);
// The op's kind where it can't be spelled; else empty.
std::string Operations(const Facts& facts, Source& out);

}  // namespace reference::gtest

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_FACTS_H_
