// The operations of a generated test: each as the call that a program would make, and what the model says of it.

#include <optional>

#include "reference/lockstep/op_fields.h"
#include "reference/lockstep/trace_gtest_facts.h"
#include "reference/lockstep/trace_words.h"

namespace reference::gtest {
namespace {

constexpr std::string_view kCodes[] = {"kOk", "kCancelled", "kUnknown", "kInvalidArgument", "kDeadlineExceeded", "kNotFound",
                                       "kAlreadyExists", "kPermissionDenied", "kResourceExhausted", "kFailedPrecondition",
                                       "kAborted", "kOutOfRange", "kUnimplemented", "kInternal"};

bool IsReaderStep(StepKind kind) { return kind >= StepKind::kReaderOpen && kind <= StepKind::kReaderAll; }

std::string Type(uint8_t size) { return "uint" + std::to_string(size * 8) + "_t"; }

class Steps {
 public:
  Steps(const Facts& facts, Source& out) : facts_(facts), out_(out) {}

  std::string Run() {
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
    }
    return "";
  }

 private:
  const Step& step() const { return ran_->step; }
  const Outcome& outcome() const { return ran_->outcome; }
  // `name` with the step's number, so that every step has its own.
  std::string My(std::string_view name) const { return std::string(name) + std::to_string(number_); }
  std::string Object(std::string_view name) const { return std::string(name) + std::to_string(step().object); }
  std::string Handle() const { return step().target != 0 && views_[step().target] ? "view" + std::to_string(step().target) : "memory"; }
  std::string Gpa() const { return Number(step().gpa); }
  std::string Length() const { return NumberText(step().length); }
  std::string AccessWord() const { return "AccessType::" + Enumerator(Name(step().access)); }
  std::string Byte() const { return Number(step().value & 0xff); }
  std::string Buffer(uint8_t object) const { return (is_list_[object] ? "list" : "range") + std::to_string(object); }
  std::string Buffer() const { return Buffer(step().object); }
  template <typename T>
  void Equal(std::string_view actual, T expected) {
    out_.Line({"EXPECT_EQ(", actual, ", ", expected, ");"});
  }
  void True(std::string_view what, bool is = true) { out_.Line({is ? "EXPECT_TRUE(" : "EXPECT_FALSE(", what, ");"}); }

  bool Has(std::initializer_list<StepKind> kinds, int object = -1) const {
    for (const Ran& ran : facts_.steps) {
      for (const StepKind kind : kinds) {
        if (ran.step.kind == kind && (object < 0 || ran.step.object == object)) {
          return true;
        }
      }
    }
    return false;
  }

  // What outlives the step that makes it, and may be made anew by another.
  void Declare() {
    for (uint8_t slot = 1; slot < kHandles; ++slot) {
      bool made = false;
      for (const Ran& ran : facts_.steps) {
        made |= (ran.step.kind == StepKind::kSubrange || ran.step.kind == StepKind::kLockableSubrange) && ran.step.slot == slot &&
                ran.outcome.ok;
      }
      if (made) {
        out_.Line({"GuestMemory view", std::to_string(slot), ";"});
      }
    }
    for (int object = 0; object < static_cast<int>(kObjects); ++object) {
      bool range = Has({StepKind::kRangeSet}, object), used = false;
      for (const Ran& ran : facts_.steps) {
        const bool split_to = ran.step.kind == StepKind::kRangeSplit && ran.step.slot == object;
        const bool is_range_step = ran.step.kind >= StepKind::kRangeSet && ran.step.kind <= StepKind::kRangeFill;
        const bool opens = (ran.step.kind == StepKind::kReaderOpen || ran.step.kind == StepKind::kWriterOpen) && ran.step.form == 0;
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

  // What `status` must be. `asserted`: what follows needs it to be OK.
  void ExpectStatus(const std::string& status, bool asserted = false) {
    const Outcome& o = outcome();
    if (o.ok) {
      out_.Line({asserted ? "ASSERT_TRUE(" : "EXPECT_TRUE(", status, ".ok()) << ", status, ".ToString();"});
      return;
    }
    const std::string info = status + ".info().";
    out_.Line({"ASSERT_FALSE(", status, ".ok());"});
    Equal(info + "kind", "ErrorKind::" + Enumerator(Name(o.kind)));
    Equal(info + "operation", "Operation::" + Enumerator(Name(o.operation)));
    Equal(info + "range", o.range ? "(AddressRange{" + Literal(o.range->start) + ", " + Literal(o.range->length) + "})" : "std::nullopt");
    Equal(info + "fault_address", o.fault_address ? Literal(*o.fault_address) : "std::nullopt");
    Equal(info + "gpn", o.gpn ? Literal(*o.gpn) : "std::nullopt");
    Equal(info + "transferred", Literal(o.transferred));
    Equal(status + ".code()", "StatusCode::" + std::string(kCodes[o.code]));
    if (o.text.starts_with("guest memory 'stream'")) {
      Equal(status + ".ToString()", Quoted(o.text));
    } else {
      out_.Line({"EXPECT_THAT(", status, ".ToString(), testing::StartsWith(", Quoted(o.text + ": "), "));"});
    }
  }

  // A call that returns a Status.
  void Call(const std::string& call) {
    out_.Line({"const Status ", My("status"), " = ", call, ";"});
    ExpectStatus(My("status"));
  }

  // A call that returns a Result: its name, and whether there is a value to look at.
  bool CallResult(const std::string& type, const std::string& call, bool moved_from = false) {
    out_.Line({moved_from ? "Result<" : "const Result<", type, "> ", My("result"), " = ", call, ";"});
    if (!outcome().ok) {
      out_.Line({"const Status ", My("status"), " = ", My("result"), ".status();"});
      ExpectStatus(My("status"));
      return false;
    }
    ExpectStatus(My("result") + ".status()", true);
    return true;
  }

  void Calls() {
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

  // The host buffer, made for `length` bytes or of what is to be written.
  void MakeHost(uint64_t length, bool written) {
    if (Within()) {
      out_.Line({"const std::span<std::byte> ", My("host"), "(backing", std::to_string(step().HostBacking()), "->ram->mapping() + ",
                 Number(step().HostAddress() + step().choice), ", ", NumberText(length), ");"});
      return;
    }
    const std::string misaligned = FieldsOf(step().kind).choices == kMisalignments && step().choice != 0 ? ", " + Number(step().choice) : "";
    out_.Line({"HostBuffer ", My("host"), "(", written ? "Data(" + Number(step().value) + ", " + NumberText(length) + ")" : NumberText(length),
               misaligned, ");"});
  }
  // Whether the host buffer is guest memory itself.
  bool Within() const { return step().within != 0 && outcome().data.empty(); }
  std::string Host() const {
    if (Within()) {
      return step().form == 1 ? "std::span(reinterpret_cast<std::atomic<uint8_t>*>(" + My("host") + ".data()), " + My("host") + ".size())" : My("host");
    }
    return My("host") + (step().form == 1 ? ".atomics()" : ".bytes()");
  }
  void ExpectHost(const std::string& host) {
    if (Within()) {
      return;
    }
    const std::span<const uint8_t> all = outcome().data;
    True(host + ".Holds(" + BytesExpression(facts_, all.subspan(kGuardBytes, all.size() - 2 * kGuardBytes), step().gpa % kPageSize) + ")");
  }

  bool RunStep() {
    const StepKind kind = step().kind;
    if (kind >= StepKind::kRangeSet && kind <= StepKind::kRangeFill) {
      RangeStep();
      return true;
    }
    if (kind >= StepKind::kReaderOpen && kind <= StepKind::kWriterPlain) {
      StreamStep();
      return true;
    }
    if (MappingStep()) {
      return true;
    }
    switch (kind) {
      case StepKind::kRead:
      case StepKind::kWrite: {
        const bool write = kind == StepKind::kWrite;
        MakeHost(step().length, write);
        const std::string method = step().form == 1 ? (write ? "WriteFromAtomic" : "ReadToAtomic") : write ? "WriteAt" : "ReadAt";
        Call(Handle() + "." + method + "(" + Gpa() + ", " + Host() + ")");
        ExpectHost(My("host"));
        return true;
      }
      case StepKind::kFill: Call(Handle() + ".FillAt(" + Gpa() + ", " + Byte() + ", " + Length() + ")"); return true;
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
      case StepKind::kFullMapping:
        out_.Line({"const std::optional<HostMapping> ", My("mapping"), " = ", Handle(), ".FullMapping();"});
        if (outcome().number) {
          out_.Line({"ASSERT_TRUE(", My("mapping"), ".has_value());"});
          Equal(My("mapping") + "->size", Literal(*outcome().number));
        } else {
          True(My("mapping") + ".has_value()", false);
        }
        return true;
      case StepKind::kIova:
        Equal(Handle() + ".Iova(" + Gpa() + ")", outcome().number ? Literal(*outcome().number) : "std::nullopt");
        return true;
      case StepKind::kSubrange:
      case StepKind::kLockableSubrange: {
        const std::string call = kind == StepKind::kSubrange ? ".Subrange(" + Gpa() + ", " + Length() + (step().form == 1 ? ", true)" : ")")
                                                             : ".LockableSubrange(" + Gpa() + ", " + Length() + ")";
        if (CallResult("GuestMemory", Handle() + call, true)) {
          out_.Line({"view", std::to_string(step().slot), " = *std::move(", My("result"), ");"});
          views_[step().slot] = true;
        }
        return true;
      }
      case StepKind::kLockGpns:
      case StepKind::kLockRange:
      case StepKind::kUnlock: Lock(); return true;
      case StepKind::kLockedCopy: LockedCopy(); return true;
      case StepKind::kTry: Try(); return true;
      case StepKind::kSupportsLocking: True(Handle() + ".supports_locking()", outcome().number == uint64_t{1}); return true;
      default: return false;
    }
  }

  void Gpns() {
    std::string list;
    for (const uint64_t gpn : step().gpns) {
      list += (list.empty() ? "" : ", ") + Number(gpn);
    }
    out_.Line({"const std::vector<uint64_t> ", My("gpns"), " = {", list, "};"});
  }

  void CompareExchange() {
    const std::string type = Type(step().size);
    if (step().choice != 0) {
      const uint64_t size = step().choice == 1 ? step().size : 3;
      out_.Line({"std::array<std::byte, ", std::to_string(size + (step().choice == 1 ? 1 : 0)), "> ", My("current"), " = {};"});
      out_.Line({"const std::array<std::byte, ", std::to_string(size), "> ", My("desired"), " = {};"});
      CallResult("bool", Handle() + ".CompareExchangeBytes(" + Gpa() + ", " + My("current") + ", " + My("desired") + ")");
      return;
    }
    if (step().form == 1) {
      out_.Line({type, " ", My("current"), " = ", Number(step().value), ";"});
      out_.Line({"const ", type, " ", My("desired"), " = ", Number(step().desired), ";"});
      if (CallResult("bool", Handle() + ".CompareExchangeBytes(" + Gpa() + ", std::as_writable_bytes(std::span(&" + My("current") +
                                 ", 1)), std::as_bytes(std::span(&" + My("desired") + ", 1)))")) {
        True("*" + My("result"), outcome().swapped);
        Equal(My("current"), Literal(*outcome().number));
      }
      return;
    }
    if (CallResult("CompareExchangeResult<" + type + ">", Handle() + ".CompareExchange<" + type + ">(" + Gpa() + ", " +
                                                              Number(step().value) + ", " + Number(step().desired) + ")")) {
      True(My("result") + "->swapped", outcome().swapped);
      Equal(My("result") + "->value", Literal(*outcome().number));
    }
  }

  // What the host does to a backing. False: not such a step.
  bool MappingStep() {
    const std::string self = "backing" + std::to_string(step().backing);
    const std::string range = Number(step().page * kPageSize) + ", " + Number(step().count * kPageSize);
    constexpr std::string_view kProtections[] = {"kNone", "kRead", "kReadWrite"};
    const Backing& backing = facts_.world.backings[step().backing];
    switch (step().kind) {
      case StepKind::kSetBit:
        if (backing.present && backing.has_bitmap && step().page < backing.pages) {
          out_.Line({self, "->SetBit(", Number(step().page), ", ", AccessWord(), ", ", (step().choice & 1) != 0 ? "true" : "false", ");"});
        }
        return true;
      case StepKind::kAllocate: Change(self, "Allocate(" + range + ")"); return true;
      case StepKind::kMapZero: Change(self, "MapZero(" + range + ")"); return true;
      case StepKind::kUnmap: Change(self, "Unmap(" + range + ")"); return true;
      case StepKind::kDecommit: Change(self, "Decommit(" + range + ")"); return true;
      case StepKind::kProtect:
        Change(self, "Protect(" + range + ", SparseMapping::Protection::" + std::string(kProtections[step().choice % 3]) + ")");
        return true;
      case StepKind::kMapFile:
        Change(self, "MapFile(" + range + ", file, " + Number(step().choice * kPageSize) + (step().form == 1 ? ", true)" : ", false)"));
        return true;
      case StepKind::kUnmapBytes: Change(self, "Unmap(" + Number(step().offset) + ", " + Length() + ")"); return true;
      case StepKind::kMapFileBytes: Change(self, "MapFile(0, " + Length() + ", file, " + Number(step().offset) + ", false)"); return true;
      case StepKind::kAdviseHugePages:
        Advise(self, "AdviseHugePages(" + range + ", SparseMapping::HugePages::" + (step().choice == 0 ? "kAdvised)" : "kRefused)"));
        return true;
      case StepKind::kBindToNode: Advise(self, "BindToNode(" + range + (step().choice == 0 ? ", 0)" : step().choice == 1 ? ", 1023)" : ", 1024)")); return true;
      case StepKind::kRevoke:
      case StepKind::kGrant:
      case StepKind::kWaitUnlocked:
      case StepKind::kHold: ChangeBitmap(self, backing); return true;
      default: return false;
    }
  }

  // Not every machine takes this advice.
  void Advise(const std::string& self, const std::string& call) {
    if (outcome().ok && facts_.world.backings[step().backing].present) {
      out_.Line({"(void)", self, "->ram->", call, ";"});
    } else {
      Change(self, call);
    }
  }

  void ChangeBitmap(const std::string& self, const Backing& backing) {
    if (!backing.present || !backing.managed) {
      return;
    }
    const std::string pages = "{" + Number(step().page) + ", " + Number(step().count) + "}";
    const std::string mask = ", " + std::to_string(step().choice) + ")";
    switch (step().kind) {
      case StepKind::kRevoke: Call(self + "->bits->Revoke(" + pages + mask); break;
      case StepKind::kGrant: Call(self + "->bits->Grant(" + pages + mask); break;
      case StepKind::kWaitUnlocked: Call(self + "->bits->WaitUnlocked(" + pages + ", {})"); break;
      default:
        Gpns();
        Call(self + "->bits->" + (step().form == 0 ? "Lock(" : "Unlock(") + My("gpns") + ")");
        break;
    }
  }

  void Change(const std::string& self, const std::string& call) {
    if (!facts_.world.backings[step().backing].present) {
      out_.Line("// (of a backing that is absent: nobody sees it)");
      return;
    }
    Call(self + "->ram->" + call);
    for (uint64_t page = 0; facts_.tracks && outcome().ok && page < kMaxPages; ++page) {
      out_.Line({self, "->page[", std::to_string(page), "] = Backing::Page::", Enumerator(Name(ran_->states[step().backing][page])), ";"});
    }
  }

  // The primitives, on a backing's mapping.
  void Try() {
    constexpr std::string_view kAccesses[] = {"TryCopy(GuestSide::kSource", "TryCopy(GuestSide::kDestination", "TryFill(",
                                              "TryRead(", "TryWrite(", "TryCompareExchange("};
    const uint64_t start = step().page * kPageSize + step().offset;
    const uint64_t length = step().choice < 3 ? step().length : step().size;
    const bool fits = start <= kMaxPages * kPageSize && start >= step().offset && length <= kMaxPages * kPageSize - start;
    if (!facts_.world.backings[step().backing].present || !fits || (step().choice == 5 && step().offset % step().size != 0)) {
      out_.Line("// (beyond the mapping, or not aligned: not tried)");
      return;
    }
    const std::string guest = "backing" + std::to_string(step().backing) + "->ram->mapping() + " + Number(start);
    std::string call(kAccesses[step().choice]);
    if (step().choice < 2) {
      MakeHost(length, step().choice == 1);
      const std::string host = My("host") + ".bytes().data()";
      call += ", " + (step().choice == 0 ? host + ", " + guest : guest + ", " + host) + ", " + Length() + ")";
      call.insert(7, step().form == 1 ? "Shared" : "");
    } else if (step().choice == 2) {
      call += guest + ", " + Byte() + ", " + Length() + ")";
    } else {
      out_.Line({Type(step().size), " ", My("value"), " = ", Number(step().value), ";"});
      call += guest + ", " + My("value");
      if (step().choice == 5) {
        out_.Line({"const ", Type(step().size), " ", My("desired"), " = ", Number(step().desired), ";"});
        out_.Line({"bool ", My("swapped"), " = false;"});
        call += ", " + My("desired") + ", " + My("swapped");
      }
      call += ")";
    }
    out_.Line({"const std::optional<Fault> ", My("fault"), " = ", call, ";"});
    if (outcome().ok) {
      True(My("fault") + ".has_value()", false);
    } else {
      out_.Line({"ASSERT_TRUE(", My("fault"), ".has_value());"});
      Equal(My("fault") + "->offset", Literal(*outcome().fault_address - start));
      True(My("fault") + "->side == Fault::Side::" + Enumerator(Name(outcome().operation)));
    }
    if (step().choice < 2) {
      ExpectHost(My("host"));
    } else if (outcome().number) {
      Equal(My("value"), Literal(*outcome().number));
    }
    if (step().choice == 5) {
      True(My("swapped"), outcome().swapped);
    }
  }

  void Lock() {
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
      out_.Line({"const std::optional<PagedRange> ", My("made"), " = PagedRange::Create(", Number(step().offset), ", ", Length(), ", ",
                 My("gpns"), ");"});
      if (outcome().refused) {
        True(My("made") + ".has_value()", false);
        return;
      }
      out_.Line({"ASSERT_TRUE(", My("made"), ".has_value());"});
    }
    const std::string call = range ? ".LockRange(" + AccessWord() + ", *" + My("made") + ")"
                                   : ".LockGpns(" + AccessWord() + (step().form == 1 ? ", true, " : ", false, ") + My("gpns") + ")";
    if (!CallResult(range ? "LockedRange" : "LockedPages", Handle() + call, true)) {
      return;
    }
    held = Object(range ? "locked_range" : "pages");
    spans_[object] = outcome().spans.size();
    out_.Line({held, " = *std::move(", My("result"), ");"});
    const bool for_kernel = range || step().form == 1;
    out_.Line({"ASSERT_EQ(", held, ".spans().size(), ", Literal(outcome().spans.size()), ");"});
    out_.Line({"ASSERT_EQ(", held, ".iovecs().size(), ", for_kernel ? held + ".spans().size()" : "0u", ");"});
    for (size_t i = 0; i < outcome().spans.size(); ++i) {
      const Span& span = outcome().spans[i];
      const std::string index = "[" + std::to_string(i) + "].";
      const std::string vector = held + (for_kernel ? ".iovecs()" + index : ".spans()" + index + "ToIovec().");
      Equal(vector + "iov_base", "backing" + std::to_string(span.backing) + "->ram->mapping() + " + Number(span.address));
      Equal(vector + "iov_len", Literal(span.length));
      Equal(held + ".spans()" + index + "gpa()", Literal(span.gpa));
    }
  }

  void LockedCopy() {
    const uint8_t object = step().object;
    if (held_[object].empty() || spans_[object] == 0) {
      return;
    }
    const std::string span = held_[object] + ".spans()[" + std::to_string(step().count % spans_[object]) + "].";
    const std::string offset = Number(step().offset);
    if (step().choice == 3) {
      if (outcome().number) {
        Equal(span + "At(" + offset + ").exchange(" + Byte() + ")", Literal(*outcome().number));
      }
      return;
    }
    if (step().choice == 2) {
      Call(span + "Fill(" + Byte() + ", " + offset + ", " + Length() + ")");
      return;
    }
    MakeHost(step().length, step().choice == 1);
    Call(span + (step().choice == 0 ? "CopyTo(" : "CopyFrom(") + My("host") + ".bytes(), " + offset + ")");
    ExpectHost(My("host"));
  }

  void RangeStep() {
    const uint8_t object = step().object;
    const StepKind kind = step().kind;
    if (kind == StepKind::kRangeSet || kind == StepKind::kRangeAppend) {
      MakeRange(kind == StepKind::kRangeAppend);
    } else if (kind == StepKind::kRangeSkip || kind == StepKind::kRangeTruncate) {
      True(Buffer() + (kind == StepKind::kRangeSkip ? ".Skip(" : ".Truncate(") + Length() + ")", !outcome().refused);
    } else if (kind == StepKind::kRangeSubrange || kind == StepKind::kRangeSplit) {
      const bool split = kind == StepKind::kRangeSplit;
      out_.Line({"const auto ", My("part"), " = ", Buffer(), split ? ".Split(" : ".Subrange(" + Number(step().offset) + ", ", Length(), ");"});
      if (outcome().refused) {
        True(My("part") + ".has_value()", false);
      } else {
        out_.Line({"ASSERT_TRUE(", My("part"), ".has_value());"});
        out_.Line({Buffer(), " = ", split ? My("part") + "->first;" : "*" + My("part") + ";"});
      }
      if (split && !outcome().refused) {
        is_list_[step().slot] = is_list_[object];
        out_.Line({Buffer(step().slot), " = ", My("part"), "->second;"});
      }
    } else if (kind == StepKind::kRangeIterate) {
      Iterate();
    } else {
      AccessRange();
    }
    Equal(Buffer() + ".length()", Literal(outcome().lengths[0]));
  }

  void MakeRange(bool append) {
    const uint8_t object = step().object;
    if (append && ran_->members_before == kMembers) {
      out_.Line("// (a member too many: not added)");
      return;
    }
    Gpns();
    out_.Line({"const std::optional<PagedRange> ", My("made"), " = PagedRange::Create(", Number(step().offset), ", ", Length(), ", ",
               My("gpns"), ");"});
    if (outcome().refused) {
      True(My("made") + ".has_value()", false);
      return;
    }
    out_.Line({"ASSERT_TRUE(", My("made"), ".has_value());"});
    if (!append) {
      is_list_[object] = false;
      out_.Line({Buffer(), " = *", My("made"), ";"});
      return;
    }
    out_.Line({"std::vector<PagedRange> ", My("members"), ";"});
    if (is_list_[object]) {
      out_.Line({"for (const PagedRange& part : ", Buffer(), ") {"});
      out_.Line({My("members"), ".push_back(part);"});
      out_.Line({My("members"), ".emplace_back();  // empty ones mean nothing"});
      out_.Line("}");
    } else {
      out_.Line({My("members"), " = {", Buffer(), ", PagedRange()};  // empty ones mean nothing"});
    }
    out_.Line({My("members"), ".push_back(*", My("made"), ");"});
    out_.Line({My("members"), ".emplace_back();"});
    is_list_[object] = true;
    out_.Line({Buffer(), " = PagedRanges::Create(", My("members"), ").value();"});
  }

  static std::string Shown(const RangePart& part) {
    const auto plain = [](uint64_t number) { return HexPlain(number); };
    std::string text = plain(part.offset) + "+" + plain(part.length) + " of pages";
    for (const uint64_t gpn : part.gpns) {
      text += " " + plain(gpn);
    }
    text += ":";
    for (const Range& run : part.runs) {
      text += " " + plain(run.start) + "+" + plain(run.length);
    }
    return text + (part.invalid_gpn ? " invalid " + plain(*part.invalid_gpn) : "");
  }
  static std::string HexPlain(uint64_t number) {
    std::string digits;
    do {
      digits.insert(digits.begin(), "0123456789abcdef"[number % 16]);
      number /= 16;
    } while (number != 0);
    return digits;
  }

  void Iterate() {
    const auto& parts = outcome().parts;
    if (!is_list_[step().object]) {
      if (parts.empty()) {
        True(Buffer() + ".empty()");
      } else {
        Equal("Show(" + Buffer() + ")", Quoted(Shown(parts[0])));
      }
      return;
    }
    std::string list;
    for (const RangePart& part : parts) {
      list += (list.empty() ? "" : ", ") + Quoted(Shown(part));
    }
    out_.Line({"std::vector<std::string> ", My("parts"), ";"});
    out_.Line({"for (const PagedRange& part : ", Buffer(), ") {"});
    out_.Line({My("parts"), ".push_back(Show(part));"});
    out_.Line("}");
    out_.Line({"EXPECT_THAT(", My("parts"), ", testing::ElementsAre(", list, "));"});
  }

  void AccessRange() {
    if (step().kind == StepKind::kRangeFill) {
      Call(Handle() + (step().form == 1 ? ".ZeroRange(" + Buffer() + ")" : ".FillRange(" + Buffer() + ", " + Byte() + ")"));
      return;
    }
    const bool write = step().kind == StepKind::kRangeWrite;
    MakeHost(outcome().data.size() - 2 * kGuardBytes, write);
    const std::string method = write ? (step().form == 1 ? ".WriteRangeFromAtomic(" : ".WriteRange(")
                                     : (step().form == 1 ? ".ReadRangeToAtomic(" : ".ReadRange(");
    Call(Handle() + method + Buffer() + ", " + Host() + ")");
    ExpectHost(My("host"));
  }

  // A stream and the limits around it, by their names; the outermost is last.
  struct Chain {
    std::vector<std::string> streams;
    std::string host;  // the buffer under a writer of host bytes
  };

  void StreamStep() {
    const bool reader = IsReaderStep(step().kind);
    Chain& chain = (reader ? readers_ : writers_)[step().object];
    const std::string word = reader ? "Reader" : "Writer", name = reader ? "reader" : "writer";
    if (step().kind == StepKind::kReaderOpen || step().kind == StepKind::kWriterOpen) {
      Open(chain, word, My(name));
    } else if (chain.streams.empty()) {
      const std::string nothing = My(reader ? "nothing_to_read" : "nothing_to_write");
      out_.Line({"Span", word, " ", nothing, "(std::span<", reader ? "const " : "", "std::byte>{});"});
      chain.streams = {nothing};
    }
    const std::string last = chain.streams.back();
    switch (step().kind) {
      case StepKind::kReaderLimit:
      case StepKind::kWriterLimit:
        if (step().form == 1) {
          if (chain.streams.size() > 1) {
            chain.streams.pop_back();
          }
        } else if (!outcome().refused) {
          out_.Line({"Limited", word, " ", My("limit"), "(", last, ", ", Length(), ");"});
          chain.streams.push_back(My("limit"));
        }
        break;
      case StepKind::kReaderRead:
        MakeHost(step().length, false);
        Call(last + ".Read(" + My("host") + ".bytes())");
        ExpectHost(My("host"));
        break;
      case StepKind::kReaderSkip: Call(last + ".Skip(" + Length() + ")"); break;
      case StepKind::kReaderPlain:
        if (CallResult(Type(step().size), last + ".ReadPlain<" + Type(step().size) + ">()")) {
          Equal("*" + My("result"), Literal(*outcome().number));
        }
        break;
      case StepKind::kReaderArray: Array(Type(step().size), last + ".ReadArray<" + Type(step().size) + ">(" + Length() + ")"); break;
      case StepKind::kReaderAll: Array("std::byte", last + ".ReadAll()"); break;
      case StepKind::kWriterWrite:
        MakeHost(step().length, true);
        Call(last + ".Write(" + My("host") + ".bytes())");
        break;
      case StepKind::kWriterFill: Call(last + ".Fill(" + Byte() + ", " + Length() + ")"); break;
      case StepKind::kWriterPlain: Call(last + ".WritePlain<" + Type(step().size) + ">(" + Number(step().value) + ")"); break;
      default: break;
    }
    for (size_t i = 0; i < outcome().lengths.size(); ++i) {
      Equal(chain.streams[i] + ".remaining()", Literal(outcome().lengths[i]));
    }
    if (!chain.host.empty()) {
      ExpectHost(chain.host);
    }
  }

  void Open(Chain& chain, const std::string& word, const std::string& name) {
    chain = {{name}, ""};
    if (step().form == 0) {
      out_.Line({is_list_[step().object] ? "PagedRanges" : "Paged", word, " ", name, "(", Handle(), ", ", Buffer(), ");"});
      return;
    }
    const bool reader = word == "Reader";
    MakeHost(step().length, reader);
    out_.Line({"Span", word, " ", name, "(", My("host"), ".bytes());"});
    chain.host = reader ? "" : My("host");
  }

  void Array(const std::string& type, const std::string& call) {
    if (!CallResult("std::vector<" + type + ">", call)) {
      return;
    }
    out_.Line({"const auto ", My("bytes"), " = std::as_bytes(std::span(*", My("result"), "));"});
    out_.Line({"EXPECT_TRUE(Same(", BytesExpression(facts_, outcome().data, 0), ", Bytes(reinterpret_cast<const uint8_t*>(", My("bytes"),
               ".data()), reinterpret_cast<const uint8_t*>(", My("bytes"), ".data()) + ", My("bytes"), ".size())));"});
  }

  const Facts& facts_;
  Source& out_;
  const Ran* ran_ = nullptr;
  size_t number_ = 0;
  std::array<bool, kHandles> views_ = {};
  std::array<bool, kObjects> is_list_ = {true, true, true, true};
  std::array<std::string, kObjects> held_;
  std::array<size_t, kObjects> spans_ = {};
  std::array<Chain, kObjects> readers_, writers_;
};

}  // namespace

std::string Operations(const Facts& facts, Source& out) { return Steps(facts, out).Run(); }

}  // namespace reference::gtest
