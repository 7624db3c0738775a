// Traces of single operations in lockstep, and those of the VMM interfaces.

#include "fuzz/trace_sorts.h"

#include <memory>

#include "fuzz/in_child.h"
#include "fuzz/profiles.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/minimise.h"
#include "reference/lockstep/trace_gtest.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"
#include "reference/vmm/minimise.h"
#include "reference/vmm/vmm_gtest.h"

namespace fuzz {
namespace {

namespace lockstep {

using namespace reference;

std::string Run(const Bytes& bytes) {
  const Trace trace = FromBytes(bytes);
  const std::unique_ptr<Subject> subject = MakeEngineSubject();
  const Verdict verdict = Lockstep(*subject).Run(trace);
  return verdict ? Report(trace, *verdict) : "";
}

Verdict RunInChild(const Trace& trace) {
  return JudgeInChild<Divergence>(trace.ops.size(), [&] {
    const std::unique_ptr<Subject> subject = MakeEngineSubject();
    return Lockstep(*subject).Run(trace);
  });
}

std::optional<Minimal> MinimiseBytes(const Bytes& bytes) {
  constexpr uint64_t kMostRuns = 4000;
  const Trace trace = FromBytes(bytes);
  const Verdict verdict = RunInChild(trace);
  if (!verdict) return std::nullopt;
  const Minimised minimal = Minimise(RunInChild, trace, *verdict, verdict->field == "hang" ? kMostRuns / 20 : kMostRuns);
  return Minimal{ToBytes(minimal.trace), Report(minimal.trace, minimal.divergence)};
}

TestSource Test(const Bytes& bytes, std::string_view name) {
  const reference::TestSource source = ToTestSource(FromBytes(bytes), name);
  return {source.text, source.problem};
}

Outcomes OutcomesOf(const Bytes& bytes) {
  const Trace trace = FromBytes(bytes);
  const std::unique_ptr<Subject> subject = MakeEngineSubject();
  subject->Start(trace.world);
  Outcomes outcomes;
  uint64_t seen = 0;
  for (const Op& op : trace.ops) {
    Outcome outcome;
    subject->Run(Resolve(trace.world, op, seen), outcome);
    seen = outcome.number.value_or(seen);
    outcomes.emplace_back(Name(op.kind), outcome.ok ? "ok" : Name(outcome.kind));
  }
  return outcomes;
}

constexpr Sort Make() {
  Sort sort = {.name = "lockstep", .header = "guestmem trace 1", .run = Run, .minimise = MinimiseBytes, .test = Test, .outcomes = OutcomesOf};
  Spell<Trace, FromBytes, ToBytes, ToText, FromText>(sort);
  sort.from_bytes = [](std::span<const uint8_t> bytes, std::string_view target) {
    Trace trace = FromBytes(bytes);
    if (const auto profile = Profiles().find(target); profile != Profiles().end()) profile->second(trace);
    return ToBytes(trace);
  };
  return sort;
}

}  // namespace lockstep

namespace vmm {

using namespace reference::vmm;

std::string Run(const Bytes& bytes) {
  const Trace trace = FromBytes(bytes);
  const std::unique_ptr<Machine> guest = MakeGuest();
  const Verdict verdict = Lockstep(*guest).Run(trace);
  return verdict ? Report(trace, *verdict) : "";
}

Verdict RunInChild(const Trace& trace) {
  return JudgeInChild<Divergence>(trace.ops.size(), [&] {
    const std::unique_ptr<Machine> guest = MakeGuest();
    return Lockstep(*guest).Run(trace);
  });
}

std::optional<Minimal> MinimiseBytes(const Bytes& bytes) {
  const Trace trace = FromBytes(bytes);
  const Verdict verdict = RunInChild(trace);
  if (!verdict) return std::nullopt;
  const Minimised minimal = Minimise(RunInChild, trace, *verdict);
  return Minimal{ToBytes(minimal.trace), Report(minimal.trace, minimal.divergence)};
}

TestSource Test(const Bytes& bytes, std::string_view name) {
  const Trace trace = FromBytes(bytes);
  const ChildEnd end = InChild([&](const Speaker& say) {
    const std::unique_ptr<Machine> guest = MakeGuest();
    WatchHostCalls(*guest, trace, [&](bool failed) { say(failed ? "1" : "0"); });
  });
  std::vector<bool> host_call_failed;
  for (const char failed : end.text) host_call_failed.push_back(failed == '1');
  return {ToTestSource(trace, host_call_failed, name)};
}

Outcomes OutcomesOf(const Bytes& bytes) {
  const Trace trace = FromBytes(bytes);
  const std::unique_ptr<Machine> guest = MakeGuest();
  guest->Start(trace.world);
  Outcomes outcomes;
  for (const Op& op : trace.ops) {
    bool host_call_failed = false;
    const Outcome outcome = guest->Run(op, host_call_failed);
    outcomes.emplace_back(OpText(op).substr(0, OpText(op).find(' ')), outcome.error ? outcome.error->kind : "ok");
  }
  guest->End();
  return outcomes;
}

constexpr Sort Make() {
  Sort sort = {.name = "vmm", .header = "guestmem vmm 1", .run = Run, .minimise = MinimiseBytes, .test = Test, .outcomes = OutcomesOf};
  Spell<Trace, FromBytes, ToBytes, ToText, FromText>(sort);
  return sort;
}

}  // namespace vmm

constexpr Sort kSorts[] = {lockstep::Make(), vmm::Make()};

}  // namespace

std::span<const Sort> Sorts() { return kSorts; }

std::optional<int> RunOwnCommand(std::string_view, const std::vector<std::pair<std::string, Bytes>>&, const Options&) { return std::nullopt; }

}  // namespace fuzz
