#include "reference/lockstep/trace_gtest_steps.h"

#include <algorithm>

#include "reference/lockstep/trace_rows.h"
#include "reference/trace/words.h"

namespace reference::gtest {
namespace {

constexpr std::string_view kCodes[] = {
    "kOk",       "kCancelled",     "kUnknown",          "kInvalidArgument",   "kDeadlineExceeded",
    "kNotFound", "kAlreadyExists", "kPermissionDenied", "kResourceExhausted", "kFailedPrecondition",
    "kAborted",  "kOutOfRange",    "kUnimplemented",    "kInternal"};

}  // namespace

std::string Operations(const Facts& facts, Source& out) { return Steps(facts, out).Run(); }

std::string Steps::Run() {
  Declare();
  for (const Ran& ran : facts_.steps) {
    ++number_;
    ran_ = &ran;
    out_.Blank();
    out_.Line({"// ", ran.text});
    if (!RunStep()) {
      return std::string(Name(ran.step.kind));
    }
    Calls();
    MadePages();
    ForgetUnspecified();
  }
  const bool starves = std::any_of(facts_.steps.begin(), facts_.steps.end(),
                                   [](const Ran& ran) { return ran.step.kind == StepKind::kStarve; });
  if (starves) {
    out_.Line("detail::SetErrorMemory(true);  // for whoever runs next in this process");
  }
  return "";
}

bool Steps::RunStep() {
  return RangeStep() || StreamStep() || HostStep() || MadeStep() || LockStep() || AccessStep() || HandleStep();
}

std::string Steps::Slot(uint8_t slot) const {
  const bool made = facts_.Fills(slot, StepKind::kMake) || facts_.Fills(slot, StepKind::kCreate);
  return slot == 0 ? "memory" : (made ? "memory" : "view") + std::to_string(slot);
}
std::string Steps::Length() const { return trace::NumberText(step().length); }
std::string Steps::AccessWord() const { return "AccessType::" + Enumerator(Name(step().access)); }

bool Steps::Has(std::initializer_list<StepKind> kinds, uint8_t object) const {
  for (const Ran& ran : facts_.steps) {
    for (const StepKind kind : kinds) {
      if (ran.step.kind == kind && ran.step.object == object) {
        return true;
      }
    }
  }
  return false;
}

// What outlives the step that makes it, and may be made anew by another.
void Steps::Declare() {
  for (uint8_t slot = 1; slot < kHandles; ++slot) {
    bool filled = false;
    for (const Ran& ran : facts_.steps) {
      const bool bitmap = ran.step.kind == StepKind::kMake && static_cast<Made>(ran.step.choice) == Made::kBitmap;
      filled |= HasField(ran.step.kind, "slot") && ran.step.kind != StepKind::kRangeSplit &&
                ran.step.slot == slot && ran.outcome.ok && !bitmap;
    }
    if (filled) {
      out_.Line({"GuestMemory ", Slot(slot), ";"});
    }
  }
  for (uint8_t object = 0; object < kObjects; ++object) {
    bool range = Has({StepKind::kRangeSet}, object), used = false;
    for (const Ran& ran : facts_.steps) {
      const bool split_to = ran.step.kind == StepKind::kRangeSplit && ran.step.slot == object;
      const bool is_range_step = ran.step.kind >= StepKind::kRangeSet && ran.step.kind <= StepKind::kRangeFill;
      const bool opens =
          (ran.step.kind == StepKind::kReaderOpen || ran.step.kind == StepKind::kWriterOpen) && ran.step.form == 0;
      used |= (is_range_step || opens) && ran.step.object == object;
      used |= split_to;
      range |= split_to;
    }
    if (used) {
      out_.Line({"[[maybe_unused]] PagedRanges list", std::to_string(object), ";"});
    }
    if (range) {
      out_.Line({"[[maybe_unused]] PagedRange range", std::to_string(object), ";"});
    }
    if (Has({StepKind::kLockGpns}, object)) {
      out_.Line({"LockedPages pages", std::to_string(object), ";"});
    }
    if (Has({StepKind::kLockRange}, object)) {
      out_.Line({"LockedRange locked_range", std::to_string(object), ";"});
    }
  }
}

// ------------------------------------------------------------------ calls, and what they must give

void Steps::Equal(std::string_view actual, std::string_view expected) {
  out_.Line({"EXPECT_EQ(", actual, ", ", expected, ");"});
}

void Steps::True(std::string_view what, bool is) { out_.Line({is ? "EXPECT_TRUE(" : "EXPECT_FALSE(", what, ");"}); }

void Steps::ExpectStatus(const std::string& status, bool asserted) {
  const Outcome& o = outcome();
  if (o.ok) {
    out_.Line({asserted ? "ASSERT_TRUE(" : "EXPECT_TRUE(", status, ".ok()) << ", status, ".ToString();"});
    return;
  }
  ExpectedError error = {
      Enumerator(Name(o.kind)), Enumerator(Name(o.operation)), {}, o.fault_address, o.gpn, o.transferred};
  if (o.range) {
    error.range = {o.range->start, o.range->length};
  }
  ExpectError(status, error, out_);
  Equal(status + ".code()", "StatusCode::" + std::string(kCodes[o.code]));
  if (o.operation == Operation::kNone) {
    return;  // its text is free
  }
  if (o.text.starts_with("guest memory 'stream'")) {
    Equal(status + ".ToString()", Quoted(o.text));
  } else {
    out_.Line({"EXPECT_THAT(", status, ".ToString(), testing::StartsWith(", Quoted(o.text + ": "), "));"});
  }
}

void Steps::Call(const std::string& call) {
  out_.Line({"const Status ", My("status"), " = ", call, ";"});
  ExpectStatus(My("status"));
}

bool Steps::CallResult(const std::string& type, const std::string& call, bool moved_from, std::string_view name,
                       bool ok) {
  out_.Line({moved_from ? "Result<" : "const Result<", type, "> ", My(name), " = ", call, ";"});
  if (ok) {
    out_.Line({"ASSERT_TRUE(", My(name), ".ok()) << ", My(name), ".status().ToString();"});
    return true;
  }
  out_.Line({"const Status ", My("status"), " = ", My(name), ".status();"});
  ExpectStatus(My("status"));
  return false;
}

void Steps::Calls() {
  if (!facts_.calls) {
    return;
  }
  std::string list;
  for (const reference::Call& call : outcome().calls) {
    list += (list.empty() ? "" : ", ") + Quoted(Noted(call));
  }
  out_.Line(list.empty() ? std::string("EXPECT_THAT(calls.TakeAll(), testing::IsEmpty());")
                         : "EXPECT_THAT(calls.TakeAll(), testing::ElementsAre(" + list + "));");
}

void Steps::MadePages() {
  for (const auto& [made, page, bytes] : ran_->made) {
    const std::string mapping = "made" + std::to_string(made) + (page == 0 ? "" : " + " + Number(page * kPageSize));
    True("Same(" + Bytes(bytes, 0) + ", std::span(" + mapping + ", kPageSize))");
  }
}

std::string Steps::HostPlace(const Span& span) {
  const std::string mapping = span.backing < kMaxBackings ? "backing" + std::to_string(span.backing) + "->ram->mapping()"
                                                          : "made" + std::to_string(span.backing - kMaxBackings);
  return mapping + (span.address == 0 ? "" : " + " + Number(span.address));
}

void Steps::ForgetUnspecified() {
  if (!ran_->forgotten.empty()) {
    out_.Line("// What the failure has left in two ranges that overlap is nobody's promise: from here on it is zero.");
  }
  for (const Span& span : ran_->forgotten) {
    out_.Line({"std::memset(backing", std::to_string(span.backing), "->ram->mapping() + ", Number(span.address),
               ", 0, ", Number(span.length), ");"});
  }
}

void Steps::Gpns() {
  std::string list;
  for (const uint64_t gpn : step().gpns) {
    list += (list.empty() ? "" : ", ") + Number(gpn);
  }
  out_.Line({"const std::vector<uint64_t> ", My("gpns"), " = {", list, "};"});
}

void Steps::MakeHost(uint64_t length, bool written) {
  if (Within()) {
    out_.Line({"const std::span<std::byte> ", My("host"), "(backing", std::to_string(step().HostBacking()),
               "->ram->mapping() + ", Number(step().HostAddress() + step().choice), ", ", trace::NumberText(length), ");"});
    return;
  }
  const std::string misaligned =
      (step().kind == StepKind::kRead || step().kind == StepKind::kWrite) && step().choice != 0 ? ", " + Number(step().choice) : "";
  out_.Line({"HostBuffer ", My("host"), "(",
             written ? "Data(" + Number(step().value) + ", " + trace::NumberText(length) + ")" : trace::NumberText(length),
             misaligned, ");"});
}

bool Steps::Within() const { return step().within != 0 && outcome().data.empty(); }

std::string Steps::Host() const {
  if (Within()) {
    return step().form == 1 ? "std::span(reinterpret_cast<std::atomic<uint8_t>*>(" + My("host") + ".data()), " +
                                  My("host") + ".size())"
                            : My("host");
  }
  return My("host") + (step().form == 1 ? ".atomics()" : ".bytes()");
}

void Steps::ExpectHost(const std::string& host) {
  if (Within()) {
    return;
  }
  const std::span<const uint8_t> all = outcome().data;
  True(host + ".Holds(" + Bytes(all.subspan(kGuardBytes, all.size() - 2 * kGuardBytes), step().gpa % kPageSize) + ")");
}

// ------------------------------------------------------------------ on a handle

bool Steps::AccessStep() {
  const bool write = step().kind == StepKind::kWrite;
  switch (step().kind) {
    case StepKind::kRead:
    case StepKind::kWrite: {
      MakeHost(step().length, write);
      const std::string method = step().form == 1 ? (write ? "WriteFromAtomic" : "ReadToAtomic")
                                 : write          ? "WriteAt"
                                                  : "ReadAt";
      Call(Handle() + "." + method + "(" + Gpa() + ", " + Host() + ")");
      ExpectHost(My("host"));
      return true;
    }
    case StepKind::kFill: Call(Handle() + ".FillAt(" + Gpa() + ", " + FillByte() + ", " + Length() + ")"); return true;
    case StepKind::kReadPlain:
      if (CallResult(Type(step().size), Handle() + ".ReadPlain<" + Type(step().size) + ">(" + Gpa() + ")")) {
        Equal("*" + My("result"), Literal(*outcome().number));
      }
      return true;
    case StepKind::kWritePlain:
      Call(Handle() + ".WritePlain<" + Type(step().size) + ">(" + Gpa() + ", " + Number(step().value) + ")");
      return true;
    case StepKind::kCompareExchange: CompareExchange(); return true;
    case StepKind::kProbeReadable: Call(Handle() + ".ProbeReadable(" + Gpa() + ", " + Length() + ")"); return true;
    case StepKind::kProbeWritable: Call(Handle() + ".ProbeWritable(" + Gpa() + ", " + Length() + ")"); return true;
    case StepKind::kProbeExecutable: Call(Handle() + ".ProbeExecutable(" + Gpa() + ", " + Length() + ")"); return true;
    case StepKind::kProbeGpns:
      Gpns();
      Call(Handle() + ".ProbeGpns(" + My("gpns") + ")");
      return true;
    default: return false;
  }
}

void Steps::CompareExchange() {
  const std::string type = Type(step().size);
  if (step().choice != 0) {
    const uint64_t size = step().choice == 1 ? step().size : 3;
    out_.Line(
        {"std::array<std::byte, ", std::to_string(size + (step().choice == 1 ? 1 : 0)), "> ", My("current"), " = {};"});
    out_.Line({"const std::array<std::byte, ", std::to_string(size), "> ", My("desired"), " = {};"});
    CallResult("bool", Handle() + ".CompareExchangeBytes(" + Gpa() + ", " + My("current") + ", " + My("desired") + ")");
    return;
  }
  if (step().form == 1) {
    out_.Line({type, " ", My("current"), " = ", Number(step().value), ";"});
    out_.Line({"const ", type, " ", My("desired"), " = ", Number(step().desired), ";"});
    if (CallResult("bool", Handle() + ".CompareExchangeBytes(" + Gpa() + ", std::as_writable_bytes(std::span(&" +
                               My("current") + ", 1)), std::as_bytes(std::span(&" + My("desired") + ", 1)))")) {
      True("*" + My("result"), outcome().swapped);
      Equal(My("current"), Literal(*outcome().number));
    }
    return;
  }
  if (CallResult("CompareExchangeResult<" + type + ">", Handle() + ".CompareExchange<" + type + ">(" + Gpa() + ", " +
                                                            Number(step().value) + ", " + Number(step().desired) +
                                                            ")")) {
    True(My("result") + "->swapped", outcome().swapped);
    Equal(My("result") + "->value", Literal(*outcome().number));
  }
}

bool Steps::HandleStep() {
  switch (step().kind) {
    case StepKind::kFullMapping:
      out_.Line({"const std::optional<HostMapping> ", My("mapping"), " = ", Handle(), ".FullMapping();"});
      if (outcome().number) {
        out_.Line({"ASSERT_TRUE(", My("mapping"), ".has_value());"});
        Equal(My("mapping") + "->size", Literal(*outcome().number));
        for (const Span& span : outcome().spans) {
          Equal("static_cast<void*>(" + My("mapping") + "->base)", HostPlace(span));
        }
      } else {
        True(My("mapping") + ".has_value()", false);
      }
      return true;
    case StepKind::kIova:
      Equal(Handle() + ".Iova(" + Gpa() + ")", outcome().number ? Literal(*outcome().number) : "std::nullopt");
      return true;
    case StepKind::kSubrange:
    case StepKind::kLockableSubrange: {
      const std::string call = step().kind == StepKind::kSubrange
                                   ? ".Subrange(" + Gpa() + ", " + Length() + (step().form == 1 ? ", true)" : ")")
                                   : ".LockableSubrange(" + Gpa() + ", " + Length() + ")";
      if (CallResult("GuestMemory", Handle() + call, true)) {
        TakeHandle(step().slot);
      }
      return true;
    }
    case StepKind::kSupportsLocking:
      True(Handle() + ".supports_locking()", outcome().number == uint64_t{1});
      return true;
    default: return false;
  }
}

}  // namespace reference::gtest
