#include "reference/lockstep/gtest_printer.h"

#include <algorithm>
#include <utility>

#include "reference/lockstep/operations.h"
#include "reference/lockstep/trace_rows.h"
#include "reference/support/bytes.h"

namespace reference {

using gtest::Enumerator;
using gtest::Literal;
using gtest::Quoted;
using gtest::Source;

namespace {

constexpr std::string_view kCodes[] = {
    "kOk",       "kCancelled",     "kUnknown",          "kInvalidArgument",   "kDeadlineExceeded",
    "kNotFound", "kAlreadyExists", "kPermissionDenied", "kResourceExhausted", "kFailedPrecondition",
    "kAborted",  "kOutOfRange",    "kUnimplemented",    "kInternal"};
constexpr uint64_t kSize = kMaxPages * kPageSize;

std::string Numbered(std::string_view name, uint64_t number) { return std::string(name) + std::to_string(number); }
std::string HandedText(const World& world, size_t i) {
  const Backing& backing = world.backings[i];
  const std::string name = Numbered("backing", i);
  return !backing.present ? "nullptr" : backing.wrapped || backing.sparse ? "ScriptedBacking::Handed(" + name + ")" : name;
}
std::string List(size_t count, auto text) {
  std::string list;
  for (size_t i = 0; i < count; ++i) list += (i == 0 ? "" : ", ") + text(i);
  return list;
}
// Those of the fields that differ from what they are at first.
std::string BackingText(const Backing& backing) {
  std::string text;
  const auto add = [&](bool differs, std::string_view field, const std::string& value) {
    if (differs) text += (text.empty() ? "." : ", .") + std::string(field) + " = " + value;
  };
  const auto flag = [&](bool value, std::string_view field, bool usual) { add(value != usual, field, Spell(value)); };
  constexpr std::string_view kSharings[] = {"kNone", "kWhole", "kParts", "kWild"};
  const Backing usual;
  flag(backing.present, "present", true);
  flag(backing.mapped, "mapped", true);
  add(backing.pages != usual.pages, "pages", std::to_string(backing.pages));
  add(backing.trim != 0, "trim", std::to_string(backing.trim));
  flag(backing.has_bitmap, "has_bitmap", false);
  add(backing.bit_offset != 0, "bit_offset", std::to_string(backing.bit_offset));
  add(backing.null_bitmap != usual.null_bitmap, "null_bitmap", "{" + List(3, [&](size_t i) { return Spell(backing.null_bitmap[i]); }) + "}");
  flag(backing.has_iova, "has_iova", false);
  flag(backing.lockable, "lockable", true);
  flag(backing.fickle, "fickle", false);
  flag(backing.wrapped, "wrapped", false);
  flag(backing.managed, "managed", false);
  flag(backing.sparse, "sparse", false);
  add(backing.sharing != Sharing::kNone, "sharing", "Sharing::" + std::string(kSharings[static_cast<size_t>(backing.sharing)]));
  add(backing.page != usual.page, "page", "{" + List(backing.pages, [&](size_t i) {
        const PageSetup& page = backing.page[i];
        const bool all = page.readable && page.writable && page.executable;
        return "PageSetup{" + (page == PageSetup() ? "" : Spell(page.state)) +
               (all ? "" : ", " + Spell(page.readable) + ", " + Spell(page.writable) + ", " + Spell(page.executable)) + "}";
      }) + "}");
  return text;
}

template <uint8_t (*kPattern)(uint64_t, uint64_t)>
Bytes First(uint64_t backing) {
  return BytesOf(0, kSize, [&](uint64_t i) { return kPattern(backing, i); });
}
Bytes Pages(uint64_t backing, auto page) {
  Bytes bytes;
  for (uint64_t i = 0; i < kMaxPages; ++i) {
    const std::span<const uint8_t> more = page(backing, i);
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

}  // namespace

// ------------------------------------------------------------------ spellings

std::string Spell(const Term& term) { return term.text; }
std::string Spell(const HostTerm& host) { return host.name + (host.own ? ".bytes()" : ""); }
std::string Spell(std::byte value) { return "std::byte{" + gtest::Number(std::to_integer<uint64_t>(value)) + "}"; }
std::string Spell(std::string_view text) { return Quoted(text); }
std::string Spell(const std::vector<uint64_t>& list) {
  return "std::vector<uint64_t>{" + List(list.size(), [&](size_t i) { return gtest::Number(list[i]); }) + "}";
}
std::string Spell(guestmem::AccessType access) { return "AccessType::" + Enumerator(Name(static_cast<Access>(access))); }
std::string Spell(PageState state) { return "PageState::" + Enumerator(Name(state)); }
std::string Spell(Promise promise) {
  constexpr std::string_view kNames[] = {"kNone", "kNull", "kSize", "kMapping", "kBitOffset"};
  return "Promise::" + std::string(kNames[static_cast<size_t>(promise)]);
}
std::string Spell(Inner inner) {
  constexpr std::string_view kNames[] = {"kShared", "kMutable", "kTake"};
  return "Inner::" + std::string(kNames[static_cast<size_t>(inner)]);
}
std::string Spell(guestmem::GuestSide side) { return side == guestmem::GuestSide::kSource ? "GuestSide::kSource" : "GuestSide::kDestination"; }
std::string Spell(guestmem::SparseMapping::HugePages advice) {
  return advice == guestmem::SparseMapping::HugePages::kAdvised ? "SparseMapping::HugePages::kAdvised" : "SparseMapping::HugePages::kRefused";
}
std::string Spell(guestmem::PageRange pages) { return "PageRange{" + gtest::Number(pages.first) + ", " + gtest::Number(pages.count) + "}"; }
std::string Spell(const guestmem::CreateOptions& options) {
  return options.install_fault_handler ? "CreateOptions()" : "CreateOptions{.install_fault_handler = false}";
}
std::string Spell(std::chrono::steady_clock::time_point) { return "{}"; }

std::string GtestPrinter::CallText(std::string_view name, std::string_view type, bool is_method, std::vector<std::string> arguments, bool pointer) {
  std::string text(name);
  if (is_method) {
    text = arguments[0] + (pointer ? "->" : ".") + text;
    arguments.erase(arguments.begin());
  }
  if (!type.empty()) text += "<" + std::string(type) + ">";
  return text + "(" + List(arguments.size(), [&](size_t i) { return arguments[i]; }) + ")";
}

// ------------------------------------------------------------------ the run

GtestPrinter::GtestPrinter(const World& world, bool scripted) : world_(world), scripted_(scripted), used_(world.backings.size()) {
  model_.Start(world);
  const auto add = [&](Bytes bytes, const std::string& call) {
    names_.push_back({std::move(bytes), kSize, true, [call](uint64_t offset, const std::string& n) { return call + gtest::Number(offset) + ", " + n + ")"; }});
  };
  for (size_t i = 0; i < world.backings.size(); ++i) {
    used_[i] = world.backings[i].present;
    add(First<MappedPattern>(i), "Initial(" + std::to_string(i) + ", ");
    if (scripted) add(First<SlowPattern>(i), "Slow(" + std::to_string(i) + ", ");
  }
  if (scripted) add(BytesOf(0, kSize, FilePattern), "FileBytes(");
}

void GtestPrinter::Run(std::string_view text, const Step& step) {
  step_ = &step;
  ++steps_;
  AddNames(step);
  model_.Run(step, outcome_);
  out_.Blank();
  out_.Line({"// ", text});
  Perform(*this, step);
  if (step.kind == StepKind::kRangeSet || step.kind == StepKind::kRangeAppend) {
    is_list_[step.object] = outcome_.refused ? is_list_[step.object] : step.kind == StepKind::kRangeAppend;
  } else if (step.kind == StepKind::kRangeSplit && !outcome_.refused) {
    is_list_[step.slot] = is_list_[step.object];
  }
  starved_ |= step.kind == StepKind::kStarve;
  ExpectCalls();
  ExpectMadePages();
  ForgetUnspecified();
}

// What a step writes has a name of its own.
void GtestPrinter::AddNames(const Step& step) {
  constexpr uint64_t kDataPeriod = 256, kLongest = kSize + 1;
  if (!HasField(step.kind, "value") || !seeds_.insert(step.value).second) return;
  names_.insert(names_.begin(), {Data(step.value, kDataPeriod + kLongest), kDataPeriod, false, [seed = step.value](uint64_t skip, const std::string& n) {
                                   return "Data(" + gtest::Number(seed) + ", " + n + (skip == 0 ? ")" : ", " + gtest::Number(skip) + ")");
                                 }});
}

void GtestPrinter::ExpectCalls() {
  if (!scripted_) return;
  const auto& calls = outcome_.calls;
  out_.Line({"EXPECT_THAT(TakeCalls(script), ",
             calls.empty() ? "testing::IsEmpty());"
                           : "testing::ElementsAre(" + List(calls.size(), [&](size_t i) { return Quoted(reference::Text(calls[i])); }) + "));"});
}

void GtestPrinter::ExpectMadePages() {
  std::vector<std::pair<uint64_t, uint64_t>> done;
  for (const auto& [backing, page] : model_.TouchedPages()) {
    const std::pair<uint64_t, uint64_t> touched(backing, page);
    if (backing < kMaxBackings || !made_[backing - kMaxBackings].populated || std::find(done.begin(), done.end(), touched) != done.end()) continue;
    done.push_back(touched);
    Same(model_.MappedPage(backing, page), 0, made_[backing - kMaxBackings].name + "->Page(" + gtest::Number(page) + ")");
  }
}

// Where the test can store it makes unspecified bytes zero; elsewhere nobody could have stored either.
void GtestPrinter::ForgetUnspecified() {
  std::vector<Span> forgotten;
  for (const auto& [backing, start, length, gpa] : model_.Unspecified()) {
    for (uint64_t address = start; address < start + length; ++address) {
      if (model_.State(backing, address / kPageSize) != PageState::kRam) continue;
      model_.Become(backing, address, 0);
      const bool next = !forgotten.empty() && forgotten.back().backing == backing && forgotten.back().address + forgotten.back().length == address;
      if (!next) forgotten.push_back({backing, address, 0, 0});
      ++forgotten.back().length;
    }
  }
  if (!forgotten.empty()) out_.Line("// What the failure has left in two ranges that overlap is nobody's promise: from here on it is zero.");
  for (const Span& span : forgotten) {
    out_.Line({"std::memset(", HostPlace(span), ", 0, ", gtest::Number(span.length), ");"});
  }
}

// ------------------------------------------------------------------ what calls are made on

Term GtestPrinter::Variable(std::string_view type, std::string_view name, uint64_t number) {
  std::string text = Numbered(name, number);
  variables_.insert({text, std::string(type)});
  return {text};
}

Term GtestPrinter::MakeLocal(std::string_view type, std::string_view name, const std::string& initializer) {
  out_.Line({type, " ", My(name), initializer, ";"});
  return {My(name)};
}

Term GtestPrinter::Slot(uint8_t slot) {
  held_[slot] = true;
  return slot == 0 ? Term{"memory"} : Variable("GuestMemory", "memory", slot);
}

Term GtestPrinter::BackingOf(size_t backing) {
  used_[backing] = true;
  return {Numbered("backing", backing), true};
}

Term GtestPrinter::Handed(size_t backing, size_t null) { return {backing == null ? "nullptr" : HandedText(world_, backing)}; }
Term GtestPrinter::AllHanded(size_t null) {
  return {"{" + List(world_.backings.size(), [&](size_t i) { return Handed(i, null).text; }) + "}"};
}

Term GtestPrinter::Taken() {
  variables_.insert({"taken", "std::shared_ptr<AlignedHeapMemory>"});
  return {"taken"};
}

std::string GtestPrinter::HostPlace(const Span& span) {
  if (span.backing < kMaxBackings) return BackingOf(span.backing).text + "->At(" + gtest::Number(span.address) + ")";
  const std::string made = made_[span.backing - kMaxBackings].name + "->base";
  return span.address == 0 ? made : made + " + " + gtest::Number(span.address);
}

HostTerm GtestPrinter::Host(const Step& step, uint64_t length, bool written, uint64_t misaligned, bool may_lie_within) {
  const std::string host = My("host");
  if (may_lie_within && step.within != 0 && outcome_.data.empty()) {
    const Span place = {static_cast<uint8_t>(step.HostBacking()), step.HostAddress() + misaligned, length, 0};
    out_.Line({"const std::span<std::byte> ", host, "(", HostPlace(place), ", ", std::to_string(length), ");"});
    return {host, false};
  }
  out_.Line({"HostBuffer ", host, "(", std::to_string(length), misaligned == 0 ? "" : ", " + std::to_string(misaligned), ");"});
  if (written) out_.Line({host, ".PutData(", gtest::Number(step.value), ");"});
  return {host, true};
}

HostTerm GtestPrinter::HostBeside(const Step& step, const Term& other, bool written) {
  if (step.Form<HostForm>() == HostForm::kBuffer || !outcome_.data.empty()) return Host(step, step.length, written, 0, false);
  out_.Line({"const std::span<std::byte> ", My("host"), " = StartOf(", other.text, ", ", std::to_string(step.length), ");"});
  return {My("host"), false};
}

// ------------------------------------------------------------------ what calls must give

void GtestPrinter::Equal(std::string_view actual, std::string_view expected) { out_.Line({"EXPECT_EQ(", actual, ", ", expected, ");"}); }
void GtestPrinter::True(std::string_view what, bool is) { out_.Line({is ? "EXPECT_TRUE(" : "EXPECT_FALSE(", what, ");"}); }
void GtestPrinter::Same(std::span<const uint8_t> expected, uint64_t offset, std::string_view actual) {
  Equal("Difference(" + gtest::BytesExpression(names_, expected, offset) + ", " + std::string(actual) + ")", "\"\"");
}

void GtestPrinter::ExpectHost(std::string_view seen) {
  const std::span<const uint8_t> all = outcome_.data;
  Same(all.subspan(kGuardBytes, all.size() - 2 * kGuardBytes), step_->gpa % kPageSize, seen);
}

void GtestPrinter::ExpectStatus(const std::string& call) {
  const Outcome& o = outcome_;
  const std::string status = My("status");
  out_.Line({"const Status ", status, " = ", call, ";"});
  if (o.ok) {
    Equal(status + ".ToString()", "\"OK\"");
    Equal(status + ".code()", "StatusCode::kOk");
    return;
  }
  gtest::ExpectedError error = {Enumerator(Name(o.kind)), Enumerator(Name(o.operation)), {}, o.fault_address, o.gpn, o.transferred};
  if (o.range) error.range = {o.range->start, o.range->length};
  gtest::ExpectError(status, error, out_);
  Equal(status + ".code()", "StatusCode::" + std::string(kCodes[o.code]));
  if (o.operation == Operation::kNone) return;  // its text is free
  if (o.text.starts_with("guest memory 'stream'")) {
    Equal(status + ".ToString()", Quoted(o.text));
  } else {
    out_.Line({"EXPECT_THAT(", status, ".ToString(), testing::StartsWith(", Quoted(o.text + ": "), "));"});
  }
}

bool GtestPrinter::Result(const std::string& call, std::string_view type) {
  out_.Line({type, My("result"), " = ", call, ";"});
  if (!outcome_.ok) {
    ExpectStatus(My("result") + ".status()");
    return false;
  }
  out_.Line({"ASSERT_EQ(", My("result"), ".status().ToString(), \"OK\");"});
  return true;
}

void GtestPrinter::ExpectLengths(const std::string& lengths) {
  const auto& expected = outcome_.lengths;
  out_.Line({"EXPECT_THAT(", lengths, ", testing::ElementsAre(", List(expected.size(), [&](size_t i) { return Literal(expected[i]); }), "));"});
}

void GtestPrinter::ExpectMapping(const std::string& call) {
  const std::string mapping = My("mapping");
  out_.Line({"const std::optional<HostMapping> ", mapping, " = ", call, ";"});
  if (!outcome_.number) {
    True(mapping + ".has_value()", false);
    return;
  }
  out_.Line({"ASSERT_TRUE(", mapping, ".has_value());"});
  Equal(mapping + "->size", Expected(outcome_.number));
  for (const Span& span : outcome_.spans) Equal(mapping + "->base", HostPlace(span));
}

void GtestPrinter::KeepMade(uint8_t slot) {
  const auto made = static_cast<reference::Made>(step_->choice);
  made_.push_back({My("result"), made == reference::Made::kHeap || made == reference::Made::kShared});
  Equal(My("result") + "->Misaligned()", Expected(outcome_.number));
  out_.Line({Slot(slot).text, " = std::exchange(", My("result"), "->memory, {});"});
}

void GtestPrinter::Unlock(uint8_t object) {
  if (std::exchange(locked_[object], false)) out_.Line({LockOf(object).text, " = {};"});
  spans_[object].clear();
}

void GtestPrinter::KeepLock(uint8_t object, bool for_kernel) {
  const std::string lock = LockOf(object).text;
  locked_[object] = true;
  spans_[object] = outcome_.spans;
  out_.Line({lock, " = *std::move(", My("result"), ");"});
  const auto span = [&](size_t i) {
    const Span& held = outcome_.spans[i];
    return "HeldSpan{" + HostPlace(held) + ", " + gtest::Number(held.length) + ", " + gtest::Number(held.gpa) + "}";
  };
  out_.Line({"EXPECT_THAT(SpansOf(", lock, ", ", Spell(for_kernel), "), testing::ElementsAre(", List(outcome_.spans.size(), span), "));"});
}

void GtestPrinter::ExpectFiles(const std::string& call) {
  const auto fd = [&](const File& file) {
    return file.file < kMaxBackings ? std::to_string(kFirstFile + file.file) : made_[file.file - kMaxBackings].name + "->file";
  };
  const auto text = [&](size_t i) {
    const File& file = outcome_.files[i];
    return "SharedFile{" + fd(file) + ", " + gtest::Number(file.offset) + ", " + gtest::Number(file.address) + ", " + gtest::Number(file.size) + "}";
  };
  out_.Line({"EXPECT_THAT(", call, ".value(), testing::ElementsAre(", List(outcome_.files.size(), text), "));"});
  if (!outcome_.number) return;
  const File& file = outcome_.files.back();  // of SharedMemory
  Equal("SealsOf(" + fd(file) + ")", Expected(outcome_.number));
  Same(outcome_.data, 0, "FirstOf(" + fd(file) + ", " + gtest::Number(file.offset) + ", " + gtest::Number(file.size) + ")");
}

void GtestPrinter::ExpectFault(const Range& tried, const Term& guest, const std::string& call) {
  const std::string fault = My("fault");
  out_.Line({"const std::optional<Fault> ", fault, " = ", call, ";"});
  if (outcome_.ok) {
    True(fault + ".has_value()", false);
    return;
  }
  const std::string offset = gtest::Number(*outcome_.fault_address - tried.start);
  out_.Line({"ASSERT_TRUE(", fault, ".has_value());"});
  Equal(fault + "->offset", offset + "u");
  Equal(fault + "->address", "reinterpret_cast<uintptr_t>(" + guest.text + ") + " + offset);
  True(fault + "->side == Fault::Side::" + Enumerator(Name(outcome_.operation)), true);
}

// ------------------------------------------------------------------ the test

void GtestPrinter::BuildWorld(Source& out) const {
  const auto start = [&](std::string_view which, std::string_view type, const auto& answers) {
    if (answers.empty()) return;
    const auto text = [&](size_t i) { return std::string(type) + "::" + Enumerator(Name(answers[i])); };
    out.Line({"script.", which, ".Start({", List(answers.size(), text), "});"});
  };
  if (scripted_) {
    out.Line("Script script;");
    start("handler", "HandlerAnswer", world_.handler);
    start("fallback", "FallbackAnswer", world_.fallback);
    start("lock", "LockAnswer", world_.lock);
    start("subrange", "SubrangeAnswer", world_.subrange);
  }
  for (size_t i = 0; i < used_.size(); ++i) {
    if (!used_[i]) continue;
    const std::string self = Numbered("backing", i);
    if (scripted_) {
      out.Line({"const auto ", self, " = std::make_shared<ScriptedBacking>(", gtest::Number(i), ", script);"});
      out.Line({self, "->Reset({", BackingText(world_.backings[i]), "});"});
    } else {
      out.Line({"const auto ", self, " = std::make_shared<ArenaBacking>(", gtest::Number(i), ", ", gtest::Number(world_.backings[i].max_address()), ");"});
    }
  }
  const std::string all = List(world_.backings.size(), [&](size_t i) { return HandedText(world_, i); });
  if (world_.region_pages == 0) {
    out.Line({"GuestMemory memory = GuestMemory::Create(", Quoted(kWorldName), ", ", all, ").value();"});
  } else {
    out.Line({"GuestMemory memory = GuestMemory::CreateMultiRegion(", Quoted(kWorldName), ", ", gtest::Number(world_.region_pages * kPageSize), ", {", all, "}).value();"});
  }
  for (size_t i = 0; i < used_.size(); ++i) {
    if (world_.backings[i].present && world_.backings[i].fickle) out.Line({Numbered("backing", i), "->Made();"});
  }
  if (world_.failing_host_call != 0) {
    out.Line({"HostCalls::Arm(", gtest::Number(world_.failing_host_call), ", ", world_.host_error == HostError::kNoMemory ? "0" : Name(world_.host_error), ");"});
    out.Line("detail::SetHostCallFilter(HostCalls::Fail);");
  }
  for (const auto& [name, type] : variables_) out.Line({type, " ", name, ";"});
}

void GtestPrinter::CompareMemory(Source& out) const {
  const auto compare = [&](const std::string& expected, const std::string& first, const Bytes& before, const Bytes& now, const std::string& actual) {
    const bool same = before == now;
    if (!same) {
      out.Line({"Bytes ", expected, " = ", first, ";"});
      gtest::PutChanges(names_, expected, before, now, out);
    }
    out.Line({"EXPECT_EQ(Difference(", same ? first : expected, ", ", actual, "), \"\");"});
  };
  out.Blank();
  out.Line("// Memory is as it was, but for what is put here.");
  if (world_.failing_host_call != 0) {
    out.Line("HostCalls::Arm(0, 0);");
    out.Line("detail::SetHostCallFilter(nullptr);");
  }
  if (starved_) out.Line("detail::SetErrorMemory(true);  // for whoever runs next in this process");
  for (size_t i = 0; i < used_.size(); ++i) {
    if (!used_[i]) continue;
    const std::string self = "*" + Numbered("backing", i), args = "(" + std::to_string(i) + ", 0, " + gtest::Number(kSize) + ")";
    compare(Numbered("expected", i), "Initial" + args, First<MappedPattern>(i), Pages(i, [&](uint64_t b, uint64_t p) { return model_.MappedPage(b, p); }),
            "Contents(" + self + ")");
    if (!scripted_) continue;
    compare(Numbered("slow", i), "Slow" + args, First<SlowPattern>(i), Pages(i, [&](uint64_t b, uint64_t p) { return model_.SlowPage(b, p); }),
            "SlowContents(" + self + ")");
    const auto page = [&](size_t p) {
      std::string bits;
      for (const Access access : {Access::kRead, Access::kWrite, Access::kExecute}) bits += model_.Bit(i, p, access) ? "rwx"[static_cast<size_t>(access)] : '-';
      return (p == 0 ? "" : " ") + bits;
    };
    std::string bits;
    for (size_t p = 0; p < kMaxPages; ++p) bits += page(p);
    out.Line({"EXPECT_EQ(Bits(", self, "), ", Quoted(bits), ");"});
  }
}

std::string GtestPrinter::Test(std::string_view name) {
  Source out;
  out.Line({"TEST(Regression, ", name, ") {"});
  BuildWorld(out);
  out.Block(out_.text());
  CompareMemory(out);
  out.Line("}");
  return out.text();
}

}  // namespace reference
