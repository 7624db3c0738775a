#include "reference/lockstep/lockstep.h"

#include <algorithm>
#include <cstring>

#include "reference/model/model.h"
#include "reference/model/outcome.h"
#include "reference/setup.h"
#include "reference/trace/words.h"

namespace reference {
namespace {

std::string Hex(uint64_t value) { return trace::HexText(value); }
std::string Text(const std::optional<uint64_t>& value) { return value ? Hex(*value) : "none"; }
std::string Text(const std::optional<Range>& range) {
  return range ? Hex(range->start) + "+" + Hex(range->length) : "none";
}
std::string Text(bool value) { return value ? "true" : "false"; }

std::string Text(const std::vector<Call>& calls) {
  std::string text = calls.empty() ? "none" : "";
  for (const Call& call : calls) {
    text += "\n      " + reference::Text(call);
  }
  return text;
}

std::string Text(const std::vector<uint64_t>& numbers) {
  std::string text = numbers.empty() ? "none" : "";
  for (const uint64_t number : numbers) {
    text += (text.empty() ? "" : " ") + Hex(number);
  }
  return text;
}

std::string Text(const std::vector<Span>& spans) {
  std::string text = spans.empty() ? "none" : "";
  for (const Span& span : spans) {
    text += "\n      backing=" + std::to_string(span.backing) + " " + Hex(span.address) + "+" + Hex(span.length) + " gpa=" + Hex(span.gpa);
  }
  return text;
}

std::string Text(const std::vector<File>& files) {
  std::string text = files.empty() ? "none" : "";
  for (const File& file : files) {
    text += "\n      file=" + std::to_string(file.file) + " offset=" + Hex(file.offset) + " at " + Hex(file.address) + "+" + Hex(file.size);
  }
  return text;
}

bool Same(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

std::string PageText(uint64_t backing, uint64_t page) {
  return " of backing " + std::to_string(backing) + " page " + std::to_string(page);
}

// The kind and its message say most about a failure, so they are compared first.
std::string Summary(const Outcome& outcome) {
  const std::string kind(Name(outcome.kind));
  if (outcome.ok) {
    return outcome.kind == Outcome().kind ? "OK" : "OK, and yet " + kind;
  }
  return kind + " (code " + std::to_string(outcome.code) + "): " + outcome.text;
}

}  // namespace

Verdict Compare(const Outcome& expected, const Outcome& actual) {
  const auto differ = [](const char* field, std::string e, std::string a) {
    return Verdict(Divergence{0, field, std::move(e), std::move(a)});
  };
  if (expected.wrong_call != actual.wrong_call) {  // whatever else differs may come of it
    return differ("call", expected.wrong_call.empty() ? "none that is wrong" : expected.wrong_call, actual.wrong_call);
  }
  if (expected.ok != actual.ok) {
    return differ("ok", Summary(expected), Summary(actual));
  }
  if (expected.kind != actual.kind) {
    return differ("kind", Summary(expected), Summary(actual));
  }
  if (expected.operation != actual.operation) {
    return differ("operation", std::string(Name(expected.operation)), std::string(Name(actual.operation)));
  }
  if (expected.range != actual.range) {
    return differ("range", Text(expected.range), Text(actual.range));
  }
  if (expected.fault_address != actual.fault_address) {
    return differ("fault_address", Text(expected.fault_address), Text(actual.fault_address));
  }
  if (expected.gpn != actual.gpn) {
    return differ("gpn", Text(expected.gpn), Text(actual.gpn));
  }
  if (expected.transferred != actual.transferred) {
    return differ("transferred", Hex(expected.transferred), Hex(actual.transferred));
  }
  if (expected.code != actual.code) {
    return differ("code", std::to_string(expected.code), std::to_string(actual.code));
  }
  if (expected.text != actual.text) {
    return differ("text", expected.text, actual.text);
  }
  if (!Same(expected.data, actual.data)) {
    return trace::BytesDiffer("data", expected.data, actual.data);
  }
  if (expected.swapped != actual.swapped) {
    return differ("swapped", Text(expected.swapped), Text(actual.swapped));
  }
  if (expected.number != actual.number) {
    return differ("number", Text(expected.number), Text(actual.number));
  }
  if (expected.calls != actual.calls) {
    return differ("calls", Text(expected.calls), Text(actual.calls));
  }
  if (expected.refused != actual.refused) {
    return differ("refused", Text(expected.refused), Text(actual.refused));
  }
  if (expected.lengths != actual.lengths) {
    return differ("lengths", Text(expected.lengths), Text(actual.lengths));
  }
  if (expected.parts != actual.parts) {
    return differ("parts", reference::Text(expected.parts), reference::Text(actual.parts));
  }
  if (expected.spans != actual.spans) {
    return differ("spans", Text(expected.spans), Text(actual.spans));
  }
  if (expected.files != actual.files) {
    return differ("files", Text(expected.files), Text(actual.files));
  }
  return std::nullopt;
}

// A trace that agrees is run once, and costs one comparison of each page that a step is about to change (what a stray store left there
// would go unseen otherwise) and one of everything at the end. Where anything differs it is run again with everything
// compared after each step: that run says where it began.
struct Lockstep::State final : Model::Watch {
  State(Subject& s, Pace pace) : subject(s), model(this, pace) {}

  Subject& subject;
  Model model;
  Outcome expected;
  Outcome actual;
  const World* world = nullptr;  // of the running trace
  bool every_step = false;       // compares all after each
  Verdict before;                // what was wrong before a step changed it
  std::vector<const uint8_t*> changing;  // the mapped bytes that the step changes: two pages that show one of the file's are one

  void BeforeStore(uint64_t backing, uint64_t page, bool slow) override {
    if (every_step || before) {
      return;
    }
    if (slow) {
      before = CompareSlow(backing, page);
      return;
    }
    const uint8_t* const bytes = model.MappedPage(backing, page).data();
    if (std::find(changing.begin(), changing.end(), bytes) == changing.end()) {
      changing.push_back(bytes);
      before = CompareMapped(backing, page, false);
    }
  }
  void BeforeBit(uint64_t backing, uint64_t page, Access access) override {
    if (!every_step && !before) {
      before = CompareBit(backing, page, access);
    }
  }

  Verdict CompareMapped(uint64_t backing, uint64_t page, bool final) {
    const std::span<const uint8_t> seen = subject.MappedPage(backing, page, final);
    if ((final || !seen.empty()) && !Same(model.MappedPage(backing, page), seen)) {
      return trace::BytesDiffer("memory" + PageText(backing, page), model.MappedPage(backing, page), seen);
    }
    return std::nullopt;
  }

  Verdict CompareSlow(uint64_t backing, uint64_t page) {
    const std::span<const uint8_t> seen = subject.SlowPage(backing, page);
    if (!Same(model.SlowPage(backing, page), seen)) {
      return trace::BytesDiffer("slow memory" + PageText(backing, page), model.SlowPage(backing, page), seen);
    }
    return std::nullopt;
  }

  // All that the world has and that can be seen now. Of made memory, what the step touched.
  Verdict CompareAll(bool final) {
    for (uint64_t backing = 0; backing < world->backings.size(); ++backing) {
      for (uint64_t page = 0; page < kMaxPages; ++page) {
        if (Verdict verdict = CompareMapped(backing, page, final)) {
          return verdict;
        }
        if (Verdict verdict = CompareSlow(backing, page)) {
          return verdict;
        }
        for (const Access access : {Access::kRead, Access::kWrite, Access::kExecute}) {
          if (Verdict verdict = CompareBit(backing, page, access)) {
            return verdict;
          }
        }
      }
    }
    return std::nullopt;
  }

  Verdict CompareMade() {
    for (const auto& [backing, page] : model.TouchedPages()) {
      if (backing < kMaxBackings) {
        continue;
      }
      if (Verdict verdict = CompareMapped(backing, page, false)) {
        return verdict;
      }
    }
    return std::nullopt;
  }

  Verdict CompareBit(uint64_t backing, uint64_t page, Access access) {
    const bool bit = model.Bit(backing, page, access);
    if (bit == subject.Bit(backing, page, access)) {
      return std::nullopt;
    }
    return Divergence{0, "bitmap" + PageText(backing, page) + " " + std::string(Name(access)), Text(bit), Text(!bit)};
  }

  // A failure that the model does not know, on a machine that refuses such things now, says nothing about the subject.
  void BlameTheMachine(const Step& step) const {
    if (!expected.ok || actual.ok) {
      return;
    }
    const std::string refused = MachineRefuses(step.kind == StepKind::kMake ? step.bytes : 0);
    if (!refused.empty()) {
      CannotSetUp(std::string(Name(step.kind)).c_str(), refused.c_str());
    }
  }

  void TakeOverUnspecified() {
    for (const auto& [backing, start, length, gpa] : model.Unspecified()) {
      for (uint64_t address = start; address < start + length; ++address) {
        const std::span<const uint8_t> seen = subject.MappedPage(backing, address / kPageSize, false);
        if (!seen.empty()) {
          model.Become(backing, address, seen[address % kPageSize]);
        }
      }
    }
  }

  // One step on both sides.
  Verdict RunStep(const Step& step) {
    before.reset();
    changing.clear();
    model.Run(step, expected);
    if (before) {
      return before;
    }
    Clear(actual);
    subject.Run(step, actual);
    if (Verdict verdict = Compare(expected, actual)) {
      BlameTheMachine(step);
      return verdict;
    }
    TakeOverUnspecified();
    Verdict verdict = CompareMade();
    return verdict || !every_step ? verdict : CompareAll(false);
  }

  // What is still locked is unlocked, and that is compared too.
  Verdict DropLocks() {
    for (uint8_t object = 0; object < kObjects; ++object) {
      Step step;
      step.kind = StepKind::kUnlock;
      step.object = object;
      if (!model.Holds(object)) {
        continue;
      }
      if (Verdict verdict = RunStep(step)) {
        return verdict;
      }
    }
    return std::nullopt;
  }

  Verdict Run(const Trace& trace) {
    world = &trace.world;
    model.Start(trace.world);
    subject.Start(trace.world);
    uint64_t seen = 0;
    for (size_t i = 0; i < trace.ops.size(); ++i) {
      if (Verdict verdict = RunStep(Resolve(trace.world, trace.ops[i], seen))) {
        verdict->step = i;
        return verdict;
      }
      seen = expected.number.value_or(seen);
    }
    Verdict verdict = DropLocks();
    if (!verdict) {
      verdict = CompareAll(true);
    }
    if (verdict) {
      verdict->step = trace.ops.size();
    }
    return verdict;
  }
};

Lockstep::Lockstep(Subject& subject, Pace model) : state_(new State(subject, model)) {}
Lockstep::~Lockstep() = default;

Verdict Lockstep::Run(const Trace& trace) {
  state_->every_step = false;
  Verdict verdict = state_->Run(trace);
  if (!verdict) {
    return verdict;
  }
  state_->every_step = true;
  Verdict exact = state_->Run(trace);
  return exact ? exact : verdict;  // a subject that is right the second time is no less wrong
}

}  // namespace reference
