#include "reference/lockstep/trace_gtest.h"

#include <algorithm>
#include <iterator>

#include "reference/lockstep/gtest_printer.h"
#include "reference/lockstep/trace_rows.h"
#include "reference/test_source.h"

namespace reference {
namespace {

// Whether its backings do more than be memory: where they don't, a test needs the less.
bool IsScripted(const Trace& trace) {
  const World& world = trace.world;
  const auto is_plain = [](const Backing& backing) {
    Backing plain = {.pages = backing.pages, .trim = backing.trim};
    return backing == plain;
  };
  const auto asks_more = [](const Op& op) {
    constexpr StepKind kAsk[] = {StepKind::kSubrange, StepKind::kLockableSubrange, StepKind::kSupportsLocking,
                                 StepKind::kLockGpns, StepKind::kLockRange,        StepKind::kSharing};
    return HasField(op.kind, "backing") || std::find(std::begin(kAsk), std::end(kAsk), op.kind) != std::end(kAsk);
  };
  return !world.handler.empty() || !world.fallback.empty() || !world.lock.empty() || !world.subrange.empty() || world.failing_host_call != 0 ||
         !std::all_of(world.backings.begin(), world.backings.end(), is_plain) || std::any_of(trace.ops.begin(), trace.ops.end(), asks_more);
}

}  // namespace

std::string ToTestSource(const Trace& trace, std::string_view name) {
  GtestPrinter printer(trace.world, IsScripted(trace));
  uint64_t seen = 0;
  for (const Op& op : trace.ops) {
    printer.Run(OpText(op), Resolve(trace.world, op, seen));
    seen = printer.outcome().number.value_or(seen);
  }
  Step unlock;
  unlock.kind = StepKind::kUnlock;
  for (unlock.object = 0; unlock.object < kObjects; ++unlock.object) {
    if (printer.Holds(unlock.object)) printer.Run("what is still locked is unlocked", unlock);
  }
  const std::string test = gtest::TestName(name);
  return gtest::Assemble({"trace test", "the model in reference/model", ToText(trace), test, printer.Test(test), {}});
}

}  // namespace reference
