// Whatever fails on the way: every lock that a backing granted is undone exactly once, with the list and the access it was
// granted for, and none is left when the last object is dropped. Counted from the calls alone: no model is asked.

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "proptest/generators.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/relay_subject.h"

namespace {

using reference::Call;
using reference::CallKind;
using reference::Outcome;
using reference::Step;
using reference::StepKind;
using reference::Trace;
using reference::World;

// Takes the answers as a backing does, and keeps what is locked.
class Ledger final : public reference::RelaySubject {
 public:
  using RelaySubject::RelaySubject;
  using Entry = std::tuple<uint8_t, reference::Access, std::vector<uint64_t>>;

  std::map<Entry, int> held;
  int granted = 0;
  bool overdrawn = false;

  void Start(const World& world) override {
    RelaySubject::Start(world);
    answers_.Start(world.lock);
    held.clear();
  }
  void Run(const Step& step, Outcome& outcome) override {
    RelaySubject::Run(step, outcome);
    for (const Call& call : outcome.calls) Note(call);
  }

 private:
  void Note(const Call& call) {
    const Entry entry = {call.backing, call.access, call.gpns};
    if (call.kind == CallKind::kUnlockGpns) {
      overdrawn |= held[entry] == 0;
      if (--held[entry] == 0) held.erase(entry);
    }
    if (call.kind != CallKind::kLockGpns && call.kind != CallKind::kExposeVa) return;
    const bool list = call.kind == CallKind::kLockGpns;
    const uint64_t page = list ? call.gpns.front() : call.address / reference::kPageSize;
    const bool ok = answers_.Next(call.backing, page) == reference::LockAnswer::kOk;
    if (list && ok) {
      ++held[entry];
      ++granted;
    }
  }

  reference::Answers<reference::LockAnswer> answers_;
};

TEST(LockProperty, EveryGrantedLockIsUndoneExactlyOnce) {
  const std::unique_ptr<reference::Subject> engine = reference::MakeEngineSubject();
  Ledger ledger(*engine);
  reference::Lockstep lockstep(ledger);
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = std::max(params.maxSuccess, 20'000);
  const rc::Gen<Trace> traces = proptest::TracesWithMany({StepKind::kLockGpns, StepKind::kLockRange, StepKind::kUnlock});
  const auto result = rc::detail::checkTestable(
      [&] {
        const Trace trace = *traces;
        if (const reference::Verdict verdict = lockstep.Run(trace)) RC_FAIL(reference::Report(trace, *verdict));
        RC_ASSERT(!ledger.overdrawn);
        RC_ASSERT(ledger.held.empty());
      },
      rc::detail::TestMetadata{"Lock/EveryGrantedLockIsUndoneExactlyOnce", ""}, params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << text.str();
  std::printf("%d locks granted\n", ledger.granted);
  EXPECT_GT(ledger.granted, 4000) << "too few locks to say anything";
}

}  // namespace
