#include "reference/vmm/lockstep.h"

#include <algorithm>

#include "reference/setup.h"
#include "reference/trace/words.h"

namespace reference::vmm {
namespace {

std::string Hex(uint64_t value) { return trace::HexText(value); }

std::string Text(const std::optional<Error>& error) {
  if (!error) {
    return "OK";
  }
  std::string out = error->kind + ", " + error->operation + " of '" + error->name + "'";
  if (error->range) out += ", range " + Hex(error->range->first) + "+" + Hex(error->range->second);
  if (error->fault_address) out += ", fault " + Hex(*error->fault_address);
  if (error->gpn) out += ", GPN " + Hex(*error->gpn);
  if (error->transferred != 0) out += ", transferred " + Hex(error->transferred);
  if (!error->note.empty()) out += ", note '" + error->note + "'";
  return out;
}

std::string Lines(const std::vector<std::string>& told) {
  std::string out;
  for (const std::string& line : told) {
    out += (out.empty() ? "" : "; ") + line;
  }
  return out.empty() ? "nothing" : out;
}

Verdict CompareOutcomes(const Outcome& expected, const Outcome& actual) {
  if (expected.error != actual.error) return Divergence{0, "error", Text(expected.error), Text(actual.error)};
  if (expected.data != actual.data) return trace::BytesDiffer("data", expected.data, actual.data);
  if (expected.number != actual.number) return Divergence{0, "number", Hex(expected.number), Hex(actual.number)};
  if (expected.flag != actual.flag) return Divergence{0, "flag", std::to_string(expected.flag), std::to_string(actual.flag)};
  if (expected.told != actual.told) return Divergence{0, "told", Lines(expected.told), Lines(actual.told)};
  return std::nullopt;
}

}  // namespace

// What is there is compared after every op. What is not there costs a fault each to see: an op that finds it shows it, and the
// end does.
Verdict Lockstep::CompareState(const World& world, bool last) {
  const auto differ = [](const std::string& what, bool expected) {
    return Divergence{0, what, std::to_string(expected), std::to_string(!expected)};
  };
  for (uint64_t page = 0; page < world.pages; ++page) {
    const auto expected = model_.Page(page);
    const std::string name = "page " + std::to_string(page);
    if (!expected.empty() || last) {
      const auto actual = machine_.Page(page);
      if (!std::ranges::equal(expected, actual)) return trace::BytesDiffer(name, expected, actual);
    }
    const bool writable = model_.IsWritable(page);
    if ((writable || last) && writable != machine_.IsWritable(page)) return differ("writable " + name, writable);
  }
  for (uint64_t backing = 0; backing < kSpaceBackings; ++backing) {
    const auto expected = model_.SpaceBytes(backing), actual = machine_.SpaceBytes(backing);
    const std::string name = "backing " + std::to_string(backing) + " of the address space";
    if (!std::ranges::equal(expected, actual)) return trace::BytesDiffer(name, expected, actual);
  }
  for (uint64_t event = 0; event < kSlots; ++event) {
    const bool signalled = model_.IsSignalled(event);
    if (signalled != machine_.IsSignalled(event)) return differ("event " + std::to_string(event), signalled);
  }
  return std::nullopt;
}

Verdict Lockstep::RunOps(const Trace& trace) {
  for (size_t i = 0; i < trace.ops.size(); ++i) {
    bool host_call_failed = false;
    const Outcome actual = machine_.Run(trace.ops[i], host_call_failed);
    const Outcome expected = model_.Run(trace.ops[i], host_call_failed);
    Verdict verdict = CompareOutcomes(expected, actual);
    if (verdict && actual.error && !expected.error) {  // on a machine that refuses such things now, it says nothing about the guest
      const std::string refused = MachineRefuses(0);
      if (!refused.empty()) CannotSetUp(OpText(trace.ops[i]).c_str(), refused.c_str());
    }
    if (!verdict) verdict = CompareState(trace.world, false);
    if (verdict) {
      verdict->step = i;
      return verdict;
    }
  }
  Verdict verdict = CompareState(trace.world, true);
  if (verdict) verdict->step = trace.ops.size();
  return verdict;
}

Verdict Lockstep::Run(const Trace& trace) {
  machine_.Start(trace.world);
  model_.Start(trace.world);
  Verdict verdict = RunOps(trace);
  const std::string wrong = machine_.End();
  if (!verdict && !wrong.empty()) {
    verdict = Divergence{trace.ops.size(), "end", "nothing wrong", wrong};
  }
  return verdict;
}

}  // namespace reference::vmm
