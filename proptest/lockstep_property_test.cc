// The engine and the model agree on every trace, a trace's verdict depends on the trace alone, and where a subject is
// wrong rapidcheck brings the trace down to the few ops that show it.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/detail/TestListenerAdapter.h>

#include "proptest/check.h"
#include "proptest/generators.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/relay_subject.h"
#include "reference/lockstep/trace.h"

namespace {

using reference::Lockstep;
using reference::Outcome;
using reference::RelaySubject;
using reference::Step;
using reference::StepKind;
using reference::Subject;
using reference::Trace;
using reference::Verdict;

using Property = std::function<void(const Trace&)>;

reference::Subject& Engine() {
  static const std::unique_ptr<Subject> engine = reference::MakeEngineSubject();
  return *engine;
}

constexpr char kHowToReplay[] =
    "Save the trace above (from 'guestmem trace' to its last op) as FILE.trace; then\n"
    "  trace run FILE.trace\n"
    "shows it again, and this test with the RC_PARAMS that rapidcheck prints at its end repeats the whole search.\n";

TEST(LockstepProperty, EngineAndModelAgreeOnEveryTrace) {
  Lockstep lockstep(Engine());
  proptest::CheckAll("Lockstep", "EngineAndModelAgreeOnEveryTrace", 25'000, [&](const Trace& trace) {
    if (const Verdict verdict = lockstep.Run(trace)) RC_FAIL(reference::Report(trace, *verdict) + kHowToReplay);
  });
}

// ------------------------------------------------------------------ the same every time

// Keeps everything that the subject says, in the order in which it says it.
class Recorder final : public RelaySubject {
 public:
  using RelaySubject::RelaySubject;

  struct Record {
    std::vector<Outcome> outcomes;
    std::vector<uint8_t> bytes;
    std::vector<bool> bits;
    bool operator==(const Record&) const = default;
  };
  Record record;

  void Run(const Step& step, Outcome& outcome) override {
    RelaySubject::Run(step, outcome);
    record.outcomes.push_back(outcome);
  }
  std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page, bool final) override {
    return Keep(RelaySubject::MappedPage(backing, page, final));
  }
  std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) override {
    return Keep(RelaySubject::SlowPage(backing, page));
  }
  bool Bit(uint64_t backing, uint64_t page, reference::Access access) override {
    record.bits.push_back(RelaySubject::Bit(backing, page, access));
    return record.bits.back();
  }

 private:
  std::span<const uint8_t> Keep(std::span<const uint8_t> page) {
    record.bytes.insert(record.bytes.end(), page.begin(), page.end());
    return page;
  }
};

// A wrong subject, so that there are verdicts to compare which are not just "agree".
using Lie = void (*)(const Step& step, Outcome& outcome);
class Liar final : public RelaySubject {
 public:
  Liar(Subject& inner, Lie lie) : RelaySubject(inner), lie_(lie) {}
  void Run(const Step& step, Outcome& outcome) override {
    RelaySubject::Run(step, outcome);
    lie_(step, outcome);
  }

 private:
  Lie lie_;
};

bool SameVerdict(const Verdict& a, const Verdict& b) {
  if (!a || !b) return a.has_value() == b.has_value();
  return a->step == b->step && a->field == b->field && a->expected == b->expected && a->actual == b->actual;
}

bool IsWrite(const Step& step) { return step.kind == StepKind::kWrite || step.kind == StepKind::kWritePlain; }

void CountsOneTooManyInFailingWrites(const Step& step, Outcome& outcome) {
  if (IsWrite(step) && !outcome.ok) ++outcome.transferred;
}

TEST(LockstepProperty, ASecondRunSaysTheSame) {
  Recorder recorder(Engine());
  Lockstep honest(recorder);
  Liar liar(Engine(), CountsOneTooManyInFailingWrites);
  Lockstep lying(liar);
  proptest::CheckAll("Lockstep", "ASecondRunSaysTheSame", 4000, [&](const Trace& trace) {
    recorder.record = {};
    const Verdict first = honest.Run(trace);
    const Recorder::Record first_record = std::exchange(recorder.record, {});
    RC_ASSERT(SameVerdict(first, honest.Run(trace)));
    RC_ASSERT(recorder.record == first_record);

    const Verdict lie = lying.Run(trace);
    RC_ASSERT(SameVerdict(lie, lying.Run(trace)));
  });
}

// Every kind of step, page state and way to fail, faults and host calls included.
constexpr char kRichTrace[] = R"(guestmem trace 1
world region_pages=4
backing 0 pages=4 trim=5 bitmap offset=5 iova page0=ram:rwx page1=ram:r-x page2=read_only page3=ram:-wx
backing 1 pages=4 page1=hole page2=bus page3=read_only
backing 2 absent
backing 3 pages=2 unmapped
handler fix_retry, retry, fix_retry, fallback, refuse_retry, vanish_retry, fix_all_retry
fallback do, fail_moved, fail_at
fail_host_call 7
ops
read page0+3 length=8192 misaligned=5
write page0+9 length=12288 value=0x1122334455667788
fill mid0 length=6144 value=0x5a
read page4+1 length=12288
write page4-8 length=1025 misaligned=3 value=0x8877665544332211
read page12+100 length=4096
fill page12+1 length=8191 value=7
read page8 length=16
read_plain page1-3 size=8
write_plain page2-1 size=4 value=0xdeadbeef
compare_exchange page0+8 size=8 value=0x5 desired=0x6
compare_exchange page0+8 size=8 seen desired=0xffffffffffffffff
compare_exchange page0+9 size=4 value=0x5 desired=0x6
compare_exchange page12+16 size=2 value=0x5 desired=0x6
probe_readable page0 length=16384
probe_writable page4 length=16384
probe_executable page0+1 length=8192
probe_gpns 0 1 4 5 0xfffffffffffff
subrange page0+100 slot=1 length=8192
subrange page8 slot=2 length=1
read page0 target=1 length=4097
write_plain page1-100 target=1 size=8 value=0x0123456789abcdef
full_mapping
full_mapping target=1
iova page0+17
iova page4
set_bit page=1 access=write choice=set
set_bit page=0 access=read choice=clear
read page0 length=1
write page1 length=4096 value=1
allocate backing=1 page=1 count=2
write page5 length=8192 value=3
map_zero backing=1 page=3 count=1
protect backing=0 page=0 count=4 choice=none
map_file backing=1 page=1 count=3 file_page=1 form=writable
write page4+9 length=8192 value=4
map_file backing=0 page=1 count=1 file_page=1
decommit backing=1 page=0 count=4
unmap backing=0 page=3 count=1
write page0 length=64 value=9
fill 2^64-8 length=8 value=1
read 2^63 length=1
read page3+10 length=192
)";

TEST(LockstepProperty, TenThousandRunsOfOneTraceSayTheSame) {
  constexpr int kRuns = 10'000;
  const auto parsed = reference::FromText(kRichTrace);
  if (const auto* error = std::get_if<reference::TextError>(&parsed)) FAIL() << "line " << error->line << ": " << error->reason;
  const Trace& trace = std::get<Trace>(parsed);
  Recorder recorder(Engine());
  Lockstep lockstep(recorder);
  const Verdict first = lockstep.Run(trace);
  ASSERT_FALSE(first) << reference::Report(trace, *first);
  const Recorder::Record expected = recorder.record;
  ASSERT_EQ(expected.outcomes.size(), trace.ops.size());
  int same = 0;
  for (int run = 0; run < kRuns; ++run) {
    recorder.record.outcomes.clear();
    recorder.record.bytes.clear();
    recorder.record.bits.clear();
    const Verdict verdict = lockstep.Run(trace);
    same += SameVerdict(first, verdict) && recorder.record == expected;
  }
  std::printf("%zu ops: the same verdict, outcomes, bytes and bits in %d of %d runs\n", trace.ops.size(), same, kRuns);
  EXPECT_EQ(same, kRuns);
}

// ------------------------------------------------------------------ shrinking

// One kind of wrongness each, some of which need several ops or a special world to show.
struct KnownLie {
  const char* what;
  Lie lie;
};
constexpr KnownLie kLies[] = {
    {"a failing write counts one byte too many", CountsOneTooManyInFailingWrites},
    {"a read writes the guard byte behind its buffer",
     [](const Step& step, Outcome& outcome) {
       if (step.kind == StepKind::kRead) outcome.data[reference::kGuardBytes + step.length] ^= 1;
     }},
    {"the handler's last call is lost",
     [](const Step&, Outcome& outcome) {
       if (!outcome.calls.empty()) outcome.calls.pop_back();
     }},
    {"a refusal by the bitmap is called an unmapped page",
     [](const Step&, Outcome& outcome) {
       if (!outcome.ok && outcome.kind == reference::ErrorKind::kAccessDenied) outcome.kind = reference::ErrorKind::kNotMapped;
     }},
    {"an access through a view names the fault address one byte off",
     [](const Step& step, Outcome& outcome) {
       if (step.target != 0 && !outcome.ok && outcome.fault_address) ++*outcome.fault_address;
     }},
    {"a compare-exchange of 8 bytes says that it did not swap",
     [](const Step& step, Outcome& outcome) {
       if (step.kind == StepKind::kCompareExchange && step.size == 8) outcome.swapped = false;
     }},
};

TEST(LockstepProperty, AWrongSubjectIsShownByAtMostThreeOps) {
  constexpr size_t kFewOps = 3;
  constexpr int kMostCases = 20'000;  // the rarest lie shows once in some hundred traces
  rc::detail::TestListenerAdapter silent;  // these failures are wanted: no advice on how to reproduce them
  for (const auto& [what, lie] : kLies) {
    SCOPED_TRACE(what);
    Liar liar(Engine(), lie);
    Lockstep lockstep(liar);
    const Property property = [&](const Trace& trace) {
      if (lockstep.Run(trace)) RC_FAIL("diverged");
    };
    size_t largest = 0;
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      rc::detail::TestParams params;
      params.seed = seed;
      params.maxSuccess = kMostCases;
      const auto result = rc::detail::checkTestable(property, rc::detail::TestMetadata{what, what}, params, silent);
      ASSERT_TRUE(result.is<rc::detail::FailureResult>()) << "seed " << seed << ": not found in " << kMostCases << " traces";
      std::string text = result.get<rc::detail::FailureResult>().counterExample.at(0).second;
      text = text.substr(0, text.rfind(')')).erase(0, text.find('(') + 1);  // shown as a tuple of one
      const auto shrunk = reference::FromText(text);
      ASSERT_TRUE(std::holds_alternative<Trace>(shrunk)) << text;
      EXPECT_TRUE(lockstep.Run(std::get<Trace>(shrunk))) << "a counterexample that agrees:\n" << text;
      EXPECT_LE(std::get<Trace>(shrunk).ops.size(), kFewOps) << "seed " << seed << ":" << text;
      largest = std::max(largest, std::get<Trace>(shrunk).ops.size());
    }
    std::printf("%s: at most %zu ops\n", what, largest);
  }
}

}  // namespace
