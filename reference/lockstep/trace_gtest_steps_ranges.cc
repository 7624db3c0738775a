// Paged ranges, and the streams over them.

#include "reference/lockstep/trace_gtest_steps.h"
#include "reference/trace/words.h"

namespace reference::gtest {
namespace {

bool IsReaderStep(StepKind kind) { return kind >= StepKind::kReaderOpen && kind <= StepKind::kReaderAll; }

std::string HexPlain(uint64_t number) { return trace::HexText(number).substr(2); }

// As the test's own Show.
std::string Shown(const RangePart& part) {
  std::string text = HexPlain(part.offset) + "+" + HexPlain(part.length) + " of pages";
  for (const uint64_t gpn : part.gpns) {
    text += " " + HexPlain(gpn);
  }
  text += ":";
  for (const Range& run : part.runs) {
    text += " " + HexPlain(run.start) + "+" + HexPlain(run.length);
  }
  return text + (part.invalid_gpn ? " invalid " + HexPlain(*part.invalid_gpn) : "");
}

}  // namespace

bool Steps::RangeStep() {
  switch (step().kind) {
    case StepKind::kRangeSet:
    case StepKind::kRangeAppend: MakeRange(step().kind == StepKind::kRangeAppend); break;
    case StepKind::kRangeSkip: True(Buffer() + ".Skip(" + Length() + ")", !outcome().refused); break;
    case StepKind::kRangeTruncate: True(Buffer() + ".Truncate(" + Length() + ")", !outcome().refused); break;
    case StepKind::kRangeSubrange:
    case StepKind::kRangeSplit: CutRange(); break;
    case StepKind::kRangeIterate: Iterate(); break;
    case StepKind::kRangeRead:
    case StepKind::kRangeWrite:
    case StepKind::kRangeFill: AccessRange(); break;
    default: return false;
  }
  Equal(Buffer() + ".length()", Literal(outcome().lengths[0]));
  return true;
}

void Steps::CutRange() {
  const bool split = step().kind == StepKind::kRangeSplit;
  out_.Line({"const auto ", My("part"), " = ", Buffer(),
             split ? ".Split(" : ".Subrange(" + Number(step().offset) + ", ", Length(), ");"});
  if (outcome().refused) {
    True(My("part") + ".has_value()", false);
    return;
  }
  out_.Line({"ASSERT_TRUE(", My("part"), ".has_value());"});
  out_.Line({Buffer(), " = ", split ? My("part") + "->first;" : "*" + My("part") + ";"});
  if (split) {
    is_list_[step().slot] = is_list_[step().object];
    out_.Line({Buffer(step().slot), " = ", My("part"), "->second;"});
  }
}

void Steps::MakeRange(bool append) {
  const uint8_t object = step().object;
  if (append && ran_->members_before == kMembers) {
    out_.Line("// (a member too many: not added)");
    return;
  }
  Gpns();
  out_.Line({"const std::optional<PagedRange> ", My("paged"), " = PagedRange::Create(", Number(step().offset), ", ",
             Length(), ", ", My("gpns"), ");"});
  if (outcome().refused) {
    True(My("paged") + ".has_value()", false);
    return;
  }
  out_.Line({"ASSERT_TRUE(", My("paged"), ".has_value());"});
  if (!append) {
    is_list_[object] = false;
    out_.Line({Buffer(), " = *", My("paged"), ";"});
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
  out_.Line({My("members"), ".push_back(*", My("paged"), ");"});
  out_.Line({My("members"), ".emplace_back();"});
  is_list_[object] = true;
  out_.Line({Buffer(), " = PagedRanges::Create(", My("members"), ").value();"});
}

void Steps::Iterate() {
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
  out_.Line({"EXPECT_THAT(ShowAll(", Buffer(), "), testing::ElementsAre(", list, "));"});
}

void Steps::AccessRange() {
  if (step().kind == StepKind::kRangeFill) {
    Call(Handle() +
         (step().form == 1 ? ".ZeroRange(" + Buffer() + ")" : ".FillRange(" + Buffer() + ", " + FillByte() + ")"));
    return;
  }
  const bool write = step().kind == StepKind::kRangeWrite;
  MakeHost(Within() ? outcome().lengths[0] : outcome().data.size() - 2 * kGuardBytes, write);
  const std::string method = write ? (step().form == 1 ? ".WriteRangeFromAtomic(" : ".WriteRange(")
                                   : (step().form == 1 ? ".ReadRangeToAtomic(" : ".ReadRange(");
  Call(Handle() + method + Buffer() + ", " + Host() + ")");
  ExpectHost(My("host"));
}

// ------------------------------------------------------------------ streams

bool Steps::StreamStep() {
  if (step().kind < StepKind::kReaderOpen || step().kind > StepKind::kWriterPlain) {
    return false;
  }
  const bool reader = IsReaderStep(step().kind);
  Chain& chain = (reader ? readers_ : writers_)[step().object];
  const std::string word = reader ? "Reader" : "Writer";
  if (step().kind == StepKind::kReaderOpen || step().kind == StepKind::kWriterOpen) {
    Open(chain, word, My(reader ? "reader" : "writer"));
  } else if (chain.streams.empty()) {
    const std::string nothing = My(reader ? "nothing_to_read" : "nothing_to_write");
    out_.Line({"Span", word, " ", nothing, "(std::span<", reader ? "const " : "", "std::byte>{});"});
    chain.streams = {{nothing}};
  }
  if (step().kind == StepKind::kReaderLimit || step().kind == StepKind::kWriterLimit) {
    Limit(chain, word);
  } else {
    RunStream(chain.streams.back().call());
  }
  for (size_t i = 0; i < outcome().lengths.size(); ++i) {
    Equal(chain.streams[i].call() + "remaining()", Literal(outcome().lengths[i]));
  }
  if (!chain.host.empty()) {
    ExpectHost(chain.host);
  }
  return true;
}

void Steps::RunStream(const std::string& last) {
  const std::string type = Type(step().size);
  switch (step().kind) {
    case StepKind::kReaderRead:
      MakeHost(step().length, false);
      Call(last + "Read(" + My("host") + ".bytes())");
      ExpectHost(My("host"));
      break;
    case StepKind::kReaderSkip: Call(last + "Skip(" + Length() + ")"); break;
    case StepKind::kReaderPlain:
      if (CallResult(type, last + "ReadPlain<" + type + ">()")) {
        Equal("*" + My("result"), Literal(*outcome().number));
      }
      break;
    case StepKind::kReaderArray: Array(type, last + "ReadArray<" + type + ">(" + Length() + ")"); break;
    case StepKind::kReaderAll: Array("std::byte", last + "ReadAll()"); break;
    case StepKind::kWriterWrite:
      MakeHost(step().length, true);
      Call(last + "Write(" + My("host") + ".bytes())");
      break;
    case StepKind::kWriterFill:
      Call(last + (step().value % 256 == 0 ? "Zero(" : "Fill(" + FillByte() + ", ") + Length() + ")");
      break;
    case StepKind::kWriterPlain: Call(last + "WritePlain<" + type + ">(" + Number(step().value) + ")"); break;
    default: break;
  }
}

void Steps::Limit(Chain& chain, const std::string& word) {
  if (step().form == 1) {
    if (chain.streams.size() > 1) {
      chain.streams.pop_back();
    }
  } else if (!outcome().refused) {
    const auto& [name, optional] = chain.streams.back();
    out_.Line({"Limited", word, " ", My("limit"), "(", optional ? "*" : "", name, ", ", Length(), ");"});
    chain.streams.push_back({My("limit")});
  }
}

// A stream over guest memory has a handle of it, which counts where a step wants to be the only one that has.
void Steps::Open(Chain& chain, const std::string& word, const std::string& name) {
  if (!chain.streams.empty() && chain.streams[0].optional) {
    out_.Line({chain.streams[0].name, ".reset();"});
  }
  if (step().form == 0) {
    const std::string type = (is_list_[step().object] ? "PagedRanges" : "Paged") + word;
    chain = {{{name, facts_.takes_heap}}, ""};
    if (facts_.takes_heap) {
      out_.Line({"std::optional<", type, "> ", name, "(std::in_place, ", Handle(), ", ", Buffer(), ");"});
    } else {
      out_.Line({type, " ", name, "(", Handle(), ", ", Buffer(), ");"});
    }
    Equal(chain.streams[0].call() + "rest().length()", Buffer() + ".length()");
    return;
  }
  const bool reader = word == "Reader";
  MakeHost(step().length, reader);
  out_.Line({"Span", word, " ", name, "(", My("host"), ".bytes());"});
  chain = {{{name}}, reader ? "" : My("host")};
}

void Steps::Array(const std::string& type, const std::string& call) {
  if (!CallResult("std::vector<" + type + ">", call)) {
    return;
  }
  out_.Line({"const auto ", My("bytes"), " = std::as_bytes(std::span(*", My("result"), "));"});
  out_.Line({"EXPECT_TRUE(Same(", Bytes(outcome().data, 0), ", Bytes(reinterpret_cast<const uint8_t*>(", My("bytes"),
             ".data()), reinterpret_cast<const uint8_t*>(", My("bytes"), ".data()) + ", My("bytes"), ".size())));"});
}

}  // namespace reference::gtest
