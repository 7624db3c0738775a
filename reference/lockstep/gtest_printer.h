// The other side of operations.h: it writes each call as C++, and what the model says of it as expectations.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_GTEST_PRINTER_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_GTEST_PRINTER_H_

#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"
#include "reference/lockstep/trace.h"
#include "reference/model/model.h"
#include "reference/support/made.h"
#include "reference/test_source.h"

namespace reference {

// An expression of C++.
struct Term {
  std::string text;
  bool is_pointer = false;
};

// Host bytes: memory of the guest's, or a HostBuffer.
struct HostTerm {
  std::string name;
  bool own;
};

std::string Spell(const Term& term);
std::string Spell(const HostTerm& host);
std::string Spell(std::byte value);
std::string Spell(std::string_view text);
std::string Spell(const std::vector<uint64_t>& list);
std::string Spell(guestmem::AccessType access);
std::string Spell(PageState state);
std::string Spell(Promise promise);
std::string Spell(Inner inner);
std::string Spell(guestmem::GuestSide side);
std::string Spell(guestmem::SparseMapping::HugePages advice);
std::string Spell(guestmem::PageRange pages);
std::string Spell(const guestmem::CreateOptions& options);
std::string Spell(std::chrono::steady_clock::time_point);  // which is over
template <std::unsigned_integral T>
std::string Spell(T number) {
  if constexpr (std::is_same_v<T, bool>) return number ? "true" : "false";
  return gtest::Number(number);
}

class GtestPrinter {
 public:
  // `scripted`: the backings do more than be memory.
  GtestPrinter(const World& world, bool scripted);
  // The step, and what the model says of it; `text` says what it is for.
  void Run(std::string_view text, const Step& step);
  const Outcome& outcome() const { return outcome_; }
  // Whether a lock is held there.
  bool Holds(uint64_t object) const { return model_.Holds(object); }
  // TEST(Regression, `name`) with all that was run, and at its end what must have become of memory.
  std::string Test(std::string_view name);

  // ---- what calls are made on
  const World& world() const { return world_; }
  Term Memory(const Step& step) { return Slot(IsHeld(step.target) ? step.target : 0); }
  bool IsHeld(uint8_t slot) const { return held_[slot]; }
  Term Slot(uint8_t slot);
  Term BackingOf(size_t backing);
  Term Bits(uint8_t backing) { return {BackingOf(backing).text + "->bits()", true}; }
  Term Handed(size_t backing, size_t null);
  Term AllHanded(size_t null);
  Term Buffer(uint8_t object) { return Variable("RangeBuffer", "buffer", object); }
  Term ReaderOf(uint8_t object) { return Variable("Reader", "reader", object); }
  Term WriterOf(uint8_t object) { return Variable("Writer", "writer", object); }
  uint64_t Length(uint8_t) const { return outcome_.lengths[0]; }
  void WithView(uint8_t object, const auto& use) { use(Term{Buffer(object).text + (is_list_[object] ? ".list()" : ".range()")}); }
  size_t Spans(uint8_t object) const { return spans_[object].size(); }
  Term SpanOf(uint8_t object, size_t i) { return {LockOf(object).text + ".spans()[" + std::to_string(i) + "]"}; }
  uint64_t SizeOf(uint8_t object, size_t i) const { return spans_[object][i].length; }
  bool MayTouch(const Term&, uint64_t) const { return outcome_.number.has_value(); }
  Term Taken();
  template <typename T>
  Term Local(std::string_view type, std::string_view name, T value) {
    return MakeLocal(type, name, " = " + Spell(value));
  }
  template <typename T>
  Term Local(std::string_view type, std::string_view name) {
    return MakeLocal(type, name, "");
  }
  static Term Of(const auto& callee, const auto&... arguments) { return {Text(callee, arguments...)}; }
  HostTerm Host(const Step& step, uint64_t length, bool written, uint64_t misaligned, bool may_lie_within);
  HostTerm HostBeside(const Step& step, const Term& other, bool written);
  static Term Atomics(const HostTerm& host) { return {"AtomicsOf(" + Spell(host) + ")"}; }
  static Term DataOf(const HostTerm& host) { return {host.name + ".data()"}; }
  void Keep(const HostTerm& host) {
    if (host.own) ExpectHost(host.name + ".Seen()");
  }
  void KeepHost(const Term& writer) {
    if (!outcome_.data.empty()) ExpectHost(writer.text + ".host()->Seen()");
  }

  // ---- calls, by what they give
  void Do(const auto& callee, const auto&... arguments) { out_.Line({Text(callee, arguments...), ";"}); }
  void Status(const auto& callee, const auto&... arguments) { ExpectStatus(Text(callee, arguments...)); }
  void Value(const auto& callee, const auto&... arguments) {
    if (Result(Text(callee, arguments...))) Equal("*" + My("result"), Expected(outcome_.number));
  }
  void Array(const auto& callee, const auto&... arguments) {
    if (Result(Text(callee, arguments...))) Same(outcome_.data, 0, "AsBytes(*" + My("result") + ")");
  }
  void Exchanged(const auto& callee, const auto&... arguments) {
    if (!Result(Text(callee, arguments...))) return;
    True(My("result") + "->swapped", outcome_.swapped);
    Equal(My("result") + "->value", Expected(outcome_.number));
  }
  void Number(const auto& callee, const auto&... arguments) { Equal(Text(callee, arguments...), Expected(outcome_.number)); }
  void Flag(const auto& callee, const auto&... arguments) { True(Text(callee, arguments...), outcome_.number == uint64_t{1}); }
  bool Fits(const auto& callee, const auto&... arguments) {
    True(Text(callee, arguments...), !outcome_.refused);
    return !outcome_.refused;
  }
  void Parts(const auto& callee, const auto&... arguments) {
    Equal("Text(" + Text(callee, arguments...) + ")", gtest::Quoted(reference::Text(outcome_.parts)));
  }
  void Lengths(const auto& callee, const auto&... arguments) { ExpectLengths(Text(callee, arguments...)); }
  void Mapping(const auto& callee, const auto&... arguments) { ExpectMapping(Text(callee, arguments...)); }
  void Take(uint8_t slot, const auto& callee, const auto&... arguments) {
    if (Result(Text(callee, arguments...), "auto ")) out_.Line({Slot(slot).text, " = *std::move(", My("result"), ");"});
  }
  void Empty(uint8_t slot, const auto& callee) { out_.Line({Slot(slot).text, " = ", Text(callee), ";"}); }
  void Made(uint8_t slot, const auto& callee, const auto&... arguments) {
    if (Result(Text(callee, arguments...), "auto ")) KeepMade(slot);
  }
  void Unlock(uint8_t object);
  void Lock(const Step& step, bool for_kernel, const auto& callee, const auto&... arguments) {
    if (Result(Text(callee, arguments...), "auto ")) KeepLock(step.object, for_kernel);
  }
  void Files(const auto& callee, const auto&... arguments) { ExpectFiles(Text(callee, arguments...)); }
  void Tried(const Range& tried, const Term& guest, const auto& callee, const auto&... arguments) {
    ExpectFault(tried, guest, Text(callee, arguments...));
  }
  void Swapped(const Term& swapped) { True(swapped.text, outcome_.swapped); }
  void Seen(const Term& value) {
    if (outcome_.number) Equal(value.text, Expected(outcome_.number));
  }

 private:
  static std::string Text(const auto& callee, const auto&... arguments) {
    return CallText(callee.name, callee.type, callee.is_method, {Spell(arguments)...}, (IsPointer(arguments) || ...));
  }
  static bool IsPointer(const Term& term) { return term.is_pointer; }
  static bool IsPointer(const auto&) { return false; }
  static std::string CallText(std::string_view name, std::string_view type, bool is_method, std::vector<std::string> arguments, bool pointer);
  static std::string Expected(const std::optional<uint64_t>& number) { return number ? gtest::Literal(*number) : "std::nullopt"; }
  // `name` with the step's number, so that every step has its own.
  std::string My(std::string_view name) const { return std::string(name) + std::to_string(steps_); }
  // What outlives the step that names it first.
  Term Variable(std::string_view type, std::string_view name, uint64_t number);
  Term MakeLocal(std::string_view type, std::string_view name, const std::string& initializer);
  Term LockOf(uint8_t object) { return Variable("detail::Lock", "lock", object); }
  // Where a span of host memory begins.
  std::string HostPlace(const Span& span);

  void Equal(std::string_view actual, std::string_view expected);
  void True(std::string_view what, bool is);
  void Same(std::span<const uint8_t> expected, uint64_t offset, std::string_view actual);
  void ExpectHost(std::string_view seen);
  void ExpectStatus(const std::string& call);
  // A call that returns a Result, a variable `result`: whether there is a value to look at.
  bool Result(const std::string& call, std::string_view type = "const auto ");
  void ExpectLengths(const std::string& lengths);
  void ExpectMapping(const std::string& call);
  void ExpectFiles(const std::string& call);
  void ExpectFault(const Range& tried, const Term& guest, const std::string& call);
  void KeepMade(uint8_t slot);
  void KeepLock(uint8_t object, bool for_kernel);
  void ExpectCalls();
  void ExpectMadePages();
  void ForgetUnspecified();
  void AddNames(const Step& step);

  void BuildWorld(gtest::Source& out) const;
  void CompareMemory(gtest::Source& out) const;

  const World& world_;
  const bool scripted_;
  Model model_;
  Outcome outcome_;
  const Step* step_ = nullptr;
  size_t steps_ = 0;
  gtest::Source out_{1};
  std::map<std::string, std::string> variables_;  // and their types
  std::vector<bool> used_;                        // by backing: whether the test has such an object
  std::array<bool, kHandles> held_ = {true};
  std::array<bool, kObjects> is_list_ = {true, true, true, true};
  std::array<bool, kObjects> locked_ = {};
  std::array<std::vector<Span>, kObjects> spans_;
  struct MadeTerm {
    std::string name;
    bool populated;
  };
  std::vector<MadeTerm> made_;
  bool starved_ = false;
  std::set<uint64_t> seeds_;
  std::vector<gtest::NamedBytes> names_;
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_GTEST_PRINTER_H_
