// Locked pages and ranges.

#include "reference/lockstep/trace_gtest_steps.h"

namespace reference::gtest {

bool Steps::LockStep() {
  switch (step().kind) {
    case StepKind::kLockGpns:
    case StepKind::kLockRange:
    case StepKind::kUnlock: Lock(); return true;
    case StepKind::kLockedCopy: LockedCopy(); return true;
    default: return false;
  }
}

void Steps::Lock() {
  const uint8_t object = step().object;
  std::string& held = held_[object];
  if (!held.empty()) {
    out_.Line({held, " = {};"});
    held.clear();
  }
  if (step().kind == StepKind::kUnlock) {
    return;
  }
  Gpns();
  const bool range = step().kind == StepKind::kLockRange;
  if (range) {
    out_.Line({"const std::optional<PagedRange> ", My("paged"), " = PagedRange::Create(", Number(step().offset), ", ",
               Length(), ", ", My("gpns"), ");"});
    if (outcome().refused) {
      True(My("paged") + ".has_value()", false);
      return;
    }
    out_.Line({"ASSERT_TRUE(", My("paged"), ".has_value());"});
  }
  const std::string call =
      range ? ".LockRange(" + AccessWord() + ", *" + My("paged") + ")"
            : ".LockGpns(" + AccessWord() + (step().form == 1 ? ", true, " : ", false, ") + My("gpns") + ")";
  if (!CallResult(range ? "LockedRange" : "LockedPages", Handle() + call, true)) {
    return;
  }
  held = Object(range ? "locked_range" : "pages");
  held_for_writing_[object] = step().access == Access::kWrite;
  spans_[object] = outcome().spans;
  out_.Line({held, " = *std::move(", My("result"), ");"});
  const bool for_kernel = range || step().form == 1;
  out_.Line({"ASSERT_EQ(", held, ".spans().size(), ", Literal(outcome().spans.size()), ");"});
  out_.Line({"ASSERT_EQ(", held, ".iovecs().size(), ", for_kernel ? held + ".spans().size()" : "0u", ");"});
  for (size_t i = 0; i < outcome().spans.size(); ++i) {
    const Span& span = outcome().spans[i];
    const std::string index = "[" + std::to_string(i) + "].";
    const std::string vector = held + (for_kernel ? ".iovecs()" + index : ".spans()" + index + "ToIovec().");
    Equal(vector + "iov_base", HostPlace(span));
    Equal(vector + "iov_len", Literal(span.length));
    Equal(held + ".spans()" + index + "gpa()", Literal(span.gpa));
  }
}

void Steps::LockedCopy() {
  const uint8_t object = step().object;
  if (held_[object].empty() || spans_[object].empty()) {
    return;
  }
  const size_t index = step().count % spans_[object].size();
  const std::string span = held_[object] + ".spans()[" + std::to_string(index) + "].";
  const std::string offset = Number(step().offset);
  if (step().choice == 3) {
    if (outcome().number) {
      const bool writes = held_for_writing_[object];
      True(span + "AtWritable(" + offset + ").has_value()", writes);
      Equal(span + (writes ? "AtWritable(" + offset + ")->exchange(" + Byte() + ")" : "At(" + offset + ").load()"),
            Literal(*outcome().number));
    }
    return;
  }
  if (step().choice == 2) {
    const bool whole = step().offset == 0 && step().length == spans_[object][index].length;
    Call(span + "Fill(" + FillByte() + (whole ? ")" : ", " + offset + ", " + Length() + ")"));
    return;
  }
  const std::string copy = span + (step().choice == 0 ? "CopyTo(" : "CopyFrom(");
  if (step().form == 1 && outcome().data.empty()) {  // between two spans
    const std::string next = held_[object] + ".spans()[" + std::to_string((index + 1) % spans_[object].size()) + "].ToIovec().iov_base";
    Call(copy + "{static_cast<std::byte*>(" + next + "), " + Length() + "}, " + offset + ")");
    return;
  }
  MakeHost(step().length, step().choice == 1);
  Call(copy + My("host") + ".bytes(), " + offset + ")");
  ExpectHost(My("host"));
}

}  // namespace reference::gtest
