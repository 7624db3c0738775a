#include "reference/vmm/lockstep.h"

#include <algorithm>
#include <cstdio>

#include "reference/setup.h"

namespace reference::vmm {
namespace {

std::string Hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

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

// The bytes round the first that differ.
Divergence Differ(size_t op, std::string field, std::span<const uint8_t> expected, std::span<const uint8_t> actual) {
  size_t at = 0;
  while (at < std::min(expected.size(), actual.size()) && expected[at] == actual[at]) {
    ++at;
  }
  const auto window = [&](std::span<const uint8_t> bytes) {
    std::string out = std::to_string(bytes.size()) + " bytes, from " + Hex(at) + ":";
    for (size_t i = at; i < std::min(at + 8, bytes.size()); ++i) {
      out += " " + Hex(bytes[i]);
    }
    return out;
  };
  return {op, std::move(field), window(expected), window(actual)};
}

Verdict CompareOutcomes(size_t op, const Outcome& expected, const Outcome& actual) {
  if (expected.error != actual.error) {
    return Divergence{op, "error", Text(expected.error), Text(actual.error)};
  }
  if (expected.data != actual.data) {
    return Differ(op, "data", expected.data, actual.data);
  }
  if (expected.number != actual.number) {
    return Divergence{op, "number", Hex(expected.number), Hex(actual.number)};
  }
  if (expected.flag != actual.flag) {
    return Divergence{op, "flag", std::to_string(expected.flag), std::to_string(actual.flag)};
  }
  return std::nullopt;
}

}  // namespace

// What is there is compared after every op. What is not there costs a fault each to see: an op that finds it shows it, and the
// end does.
Verdict Lockstep::CompareState(const World& world, size_t op, bool last) {
  for (uint64_t page = 0; page < world.pages; ++page) {
    const auto expected = model_.Page(page);
    if (!expected.empty() || last) {
      const auto actual = machine_.Page(page);
      if (!std::ranges::equal(expected, actual)) {
        return Differ(op, "page " + std::to_string(page), expected, actual);
      }
    }
    if ((model_.IsWritable(page) || last) && model_.IsWritable(page) != machine_.IsWritable(page)) {
      return Divergence{op, "writable page " + std::to_string(page), std::to_string(model_.IsWritable(page)),
                        std::to_string(!model_.IsWritable(page))};
    }
  }
  for (uint64_t event = 0; event < kSlots; ++event) {
    if (model_.IsSignalled(event) != machine_.IsSignalled(event)) {
      return Divergence{op, "event " + std::to_string(event), std::to_string(model_.IsSignalled(event)),
                        std::to_string(!model_.IsSignalled(event))};
    }
  }
  return std::nullopt;
}

Verdict Lockstep::RunOps(const Trace& trace) {
  for (size_t i = 0; i < trace.ops.size(); ++i) {
    bool host_call_failed = false;
    const Outcome actual = machine_.Run(trace.ops[i], host_call_failed);
    const Outcome expected = model_.Run(trace.ops[i], host_call_failed);
    if (Verdict verdict = CompareOutcomes(i, expected, actual)) {
      if (actual.error && !expected.error) {  // on a machine that refuses such things now, it says nothing about the guest
        const std::string refused = MachineRefuses(0);
        if (!refused.empty()) {
          CannotSetUp(OpText(trace.ops[i]).c_str(), refused.c_str());
        }
      }
      return verdict;
    }
    if (Verdict verdict = CompareState(trace.world, i, false)) {
      return verdict;
    }
  }
  return CompareState(trace.world, trace.ops.size(), true);
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

std::string Report(const Trace& trace, const Divergence& divergence) {
  std::string out = ToText(Trace{trace.world, {}});
  for (size_t i = 0; i < trace.ops.size(); ++i) {
    out += OpText(trace.ops[i]) + (i == divergence.op ? "   # <-- here\n" : "\n");
  }
  return out + "# " + (divergence.op == trace.ops.size() ? "at the end: " : "") + divergence.field + "\n#   expected: " +
         divergence.expected + "\n#   actual:   " + divergence.actual + "\n";
}

}  // namespace reference::vmm
