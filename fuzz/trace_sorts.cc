// Traces of single operations in lockstep, and those of the VMM interfaces.

#include "fuzz/trace_sorts.h"

#include <algorithm>

#include "fuzz/in_child.h"
#include "fuzz/sort_lockstep.h"
#include "fuzz/sort_vmm.h"
#include "reference/lockstep/trace_gtest.h"
#include "reference/model/model.h"
#include "reference/vmm/vmm_gtest.h"

namespace fuzz {
namespace {

template <class S>
std::optional<Minimal> MinimiseBytes(const Bytes& bytes) {
  constexpr uint64_t kMostRuns = 4000;
  const auto judge = [](const typename S::Trace& trace) { return JudgeInChild(trace.ops.size(), [&] { return S::Run(trace); }); };
  const auto trace = reference::trace::FromBytes<typename S::Trace>(S::Rows(), bytes);
  const auto verdict = judge(trace);
  if (!verdict) return std::nullopt;
  const auto minimal = reference::trace::MinimiseDiverging(S::Rows(), judge, trace, *verdict, verdict->field == "hang" ? kMostRuns / 20 : kMostRuns);
  return Minimal{ToBytes(minimal.trace), S::ReportOf(minimal.trace, minimal.divergence)};
}

namespace lockstep {

using namespace reference;

std::string Test(const Bytes& bytes, std::string_view name) { return ToTestSource(FromBytes(bytes), name); }

bool Moved(const Step& step, const Outcome& outcome, const Model& model) {
  constexpr uint32_t kMoving = group::kAccess | group::kRangeAccess | group::kStreamAccess | group::kLocks | group::kMaking | group::kTrap;
  if (!outcome.ok) return outcome.transferred != 0;
  if ((RowOf(step.kind).group & kMoving) == 0 || step.kind == StepKind::kMake || step.kind == StepKind::kForeignFault) return false;
  const bool fell_back = std::ranges::any_of(outcome.calls, [](const Call& call) {
    return call.kind == CallKind::kReadFallback || call.kind == CallKind::kWriteFallback || call.kind == CallKind::kFillFallback ||
           call.kind == CallKind::kCompareExchangeFallback;
  });
  const bool host = !outcome.data.empty() && outcome.data.size() != 2 * kGuardBytes;
  return fell_back || host || outcome.number.has_value() || !model.TouchedPages().empty();
}

// By the model alone: the engine does the same.
void OutcomesOf(const Bytes& bytes, const Each& each) {
  const Trace trace = FromBytes(bytes);
  Model model;
  model.Start(trace.world);
  uint64_t seen = 0;
  for (const Op& op : trace.ops) {
    const Step step = Resolve(trace.world, op, seen);
    Outcome outcome;
    model.Run(step, outcome);
    seen = outcome.number.value_or(seen);
    const bool misuse = outcome.kind == ErrorKind::kOutOfRange || outcome.kind == ErrorKind::kInvalidArgument ||
                        outcome.kind == ErrorKind::kInvalidGpn || outcome.kind == ErrorKind::kMisaligned;
    each(&op, {outcome.ok ? "" : std::string(Name(outcome.kind)), Moved(step, outcome, model), !outcome.ok && (!misuse || !outcome.calls.empty())});
  }
}

}  // namespace lockstep

namespace vmm {

using namespace reference::vmm;

std::string Test(const Bytes& bytes, std::string_view name) {
  const Trace trace = FromBytes(bytes);
  const ChildEnd end = InChild([&](const Speaker& say) {
    const std::unique_ptr<Machine> guest = MakeGuest();
    WatchHostCalls(*guest, trace, [&](bool failed) { say(failed ? "1" : "0"); });
  });
  std::vector<bool> host_call_failed;
  for (const char failed : end.text) host_call_failed.push_back(failed == '1');
  return ToTestSource(trace, host_call_failed, name);
}

void OutcomesOf(const Bytes& bytes, const Each& each) {
  const Trace trace = FromBytes(bytes);
  const std::unique_ptr<Machine> guest = MakeGuest();
  guest->Start(trace.world);
  for (const Op& op : trace.ops) {
    bool host_call_failed = false;
    const Outcome outcome = guest->Run(op, host_call_failed);
    const bool access = op.kind == OpKind::kRead || op.kind == OpKind::kWrite || op.kind == OpKind::kCompareExchange;
    const std::string error = outcome.error ? outcome.error->kind : "";
    const bool misuse = error == "out of range" || error == "invalid argument" || error == "invalid GPN" || error == "misaligned";
    each(&op, {error, outcome.error ? outcome.error->transferred != 0 : access && op[kSize] != 0, !error.empty() && !misuse});
  }
  guest->End();
}

}  // namespace vmm

template <class S>
Sort Make(std::string test(const Bytes&, std::string_view), void outcomes(const Bytes&, const Each&)) {
  Sort sort = SortOf<S>();
  sort.minimise = MinimiseBytes<S>;
  sort.test = test;
  sort.outcomes = outcomes;
  return sort;
}

}  // namespace

std::span<const Sort> Sorts() {
  static const Sort sorts[] = {Make<LockstepSort>(lockstep::Test, lockstep::OutcomesOf), Make<VmmSort>(vmm::Test, vmm::OutcomesOf)};
  return sorts;
}

std::optional<int> RunOwnCommand(std::string_view, const std::vector<std::pair<std::string, Bytes>>&, const Options&) { return std::nullopt; }

}  // namespace fuzz
