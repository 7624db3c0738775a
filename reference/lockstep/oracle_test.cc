// The oracle sees every lie. A subject that carries everything out as the engine does and then falsifies one thing
// (a field of an outcome, an argument of a call, a byte of memory, a bit) must be caught, at the right op, with the thing named.

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/relay_subject.h"
#include "reference/lockstep/trace.h"

namespace reference {
namespace {

// Successes and failures of every kind that this world can give, calls of every kind, swaps, numbers, GPNs, host buffers.
// Page 3 of backing 0 and all of backing 3 are touched by no op; backing 2 has bits that no op changes.
constexpr char kTrace[] = R"(guestmem trace 1
world region_pages=4
backing 0 pages=3 trim=4 bitmap offset=6 iova sharing=parts page1=ram:r-x page2=hole
backing 1 pages=2 unmapped
backing 2 pages=2 bitmap page1=ram:--x
backing 3 pages=4
handler default, fix_retry, default, fallback
fallback do, do, do, fail_moved
ops
read page0+1 length=100 misaligned=3
read page0+1 length=0
write page0+2 length=4104 misaligned=5 value=0x1122334455667788
fill page0+3 length=41 value=0x5a
read page2-3 length=16
read page2-3 length=16
write_plain page0+9 size=4 value=0x12345678
read_plain page0+9 size=4
compare_exchange page0+16 size=8 value=0x1 desired=0x2
compare_exchange page0+16 size=8 seen desired=0x3
compare_exchange page0+17 size=8 value=0x1 desired=0x2
write page4+5 length=9 value=0x0102030405060708
compare_exchange page4+8 size=2 value=0x1 desired=0x2
fill page5 length=33 value=0x77
read page4+7 length=11
read page8-1 length=8
probe_gpns 0 8 0xfffffffffffff
probe_writable page8 length=4097
full_mapping
iova page0+20
subrange page0+64 slot=2 length=4096
read_plain page1 target=2 size=8
read 2^64-8 length=64
set_bit backing=0 page=0 access=execute choice=clear
allocate backing=0 page=3 count=2
range_set 0 1 object=1 offset=1 length=4096
range_iterate object=1
range_skip object=1 length=8192
subrange page0 slot=3 length=4096
lock_gpns 0 target=3 object=1 access=read form=kernel
unlock object=1
lockable_subrange page12 slot=3 length=8192
lock_gpns 0 1 target=3 access=write form=kernel
unlock
sharing
)";

const Trace& TheTrace() {
  static const Trace trace = [] {
    auto parsed = FromText(kTrace);
    if (const auto* error = std::get_if<TextError>(&parsed)) {
      ADD_FAILURE() << "line " << error->line << ": " << error->reason;
      return Trace();
    }
    return std::get<Trace>(std::move(parsed));
  }();
  return trace;
}

// ------------------------------------------------------------------ outcomes

class Falsifier final : public RelaySubject {
 public:
  using RelaySubject::RelaySubject;
  size_t step = 0;                         // the op that is lied about
  std::function<void(Outcome&)> falsify;
  size_t ran = 0;

  void Start(const World& world) override {
    ran = 0;
    RelaySubject::Start(world);
  }
  void Run(const Step& s, Outcome& outcome) override {
    RelaySubject::Run(s, outcome);
    if (ran++ == step) falsify(outcome);
  }
};

// The fields as one tuple. A field that is added to the struct doesn't fit these bindings any more: add it here and to the
// names, and the falsification of its type is all it takes.
constexpr std::string_view kOutcomeFields[] = {"ok",          "kind", "operation", "range", "fault_address", "gpn",
                                               "transferred", "code", "text",      "data",  "swapped",       "number", "calls",
                                               "refused",     "lengths", "parts",  "spans", "files", "call"};
auto FieldsOf(Outcome& outcome) {
  auto& [ok, kind, operation, range, fault_address, gpn, transferred, code, text, data, swapped, number, calls, refused, lengths, parts, spans, files, wrong_call] =
      outcome;
  return std::tie(ok, kind, operation, range, fault_address, gpn, transferred, code, text, data, swapped, number, calls, refused,
                  lengths, parts, spans, files, wrong_call);
}
constexpr std::string_view kCallFields[] = {"kind", "backing", "address", "length", "access", "bitmap_failure", "value", "desired", "gpns"};
auto FieldsOf(Call& call) {
  auto& [kind, backing, address, length, access, bitmap_failure, value, desired, gpns] = call;
  return std::tie(kind, backing, address, length, access, bitmap_failure, value, desired, gpns);
}
template <class Struct>
constexpr size_t kFieldCount = std::tuple_size_v<decltype(FieldsOf(std::declval<Struct&>()))>;
static_assert(kFieldCount<Outcome> == std::size(kOutcomeFields));
static_assert(kFieldCount<Call> == std::size(kCallFields));

// Another value of each type that a field has; the smallest change there is.
void Falsify(bool& value) { value = !value; }
void Falsify(uint8_t& value) { value ^= 1; }
void Falsify(uint64_t& value) { ++value; }
void Falsify(int& value) { ++value; }
void Falsify(std::string& value) { value.empty() ? value.push_back('x') : value.pop_back(); }
void Falsify(ErrorKind& value) { value = value == ErrorKind::kBackend ? ErrorKind::kOutOfRange : ErrorKind::kBackend; }
void Falsify(Operation& value) { value = value == Operation::kRevoke ? Operation::kRead : Operation::kRevoke; }
void Falsify(CallKind& value) { value = value == CallKind::kPageFault ? CallKind::kReadFallback : CallKind::kPageFault; }
void Falsify(Access& value) { value = value == Access::kRead ? Access::kWrite : Access::kRead; }
void Falsify(Range& value) { ++value.length; }
void Falsify(std::vector<uint8_t>& value) { value.empty() ? value.push_back(0) : Falsify(value.back()); }
template <class T>
void Falsify(std::vector<T>& value) { value.empty() ? value.push_back({}) : value.pop_back(); }
template <class T>
void Falsify(std::optional<T>& value) {
  value ? Falsify(*value) : static_cast<void>(value.emplace());
}

// Calls f(index, field) for each.
template <class Tuple, class F>
void ForEach(Tuple fields, F f) {
  std::apply([&](auto&... field) { size_t i = 0; (f(i++, field), ...); }, fields);
}
// Falsifies the one field with this index.
template <class Struct>
void FalsifyField(Struct& object, size_t index) {
  ForEach(FieldsOf(object), [&](size_t i, auto& field) {
    if (i == index) Falsify(field);
  });
}

// What the engine says at each op of the trace.
std::vector<Outcome> TrueOutcomes() {
  const auto engine = MakeEngineSubject();
  Falsifier recorder(*engine);
  std::vector<Outcome> outcomes;
  recorder.falsify = [&](Outcome& outcome) {
    outcomes.push_back(outcome);
    ++recorder.step;
  };
  const Verdict verdict = Lockstep(recorder).Run(TheTrace());
  EXPECT_FALSE(verdict) << Report(TheTrace(), *verdict);
  EXPECT_EQ(outcomes.size(), TheTrace().ops.size());
  return outcomes;
}

class OracleOfOutcomes : public testing::Test {
 protected:
  // Lies about one op, and expects to be caught there over `field`.
  void ExpectCaught(size_t step, std::string_view field, std::function<void(Outcome&)> falsify, std::string_view what) {
    liar_.step = step;
    liar_.falsify = std::move(falsify);
    const Verdict verdict = lockstep_.Run(TheTrace());
    ++lies_;
    ASSERT_TRUE(verdict) << what << " at op " << step + 1 << " went unseen: " << OpText(TheTrace().ops[step]);
    EXPECT_EQ(verdict->step, step) << what << "\n" << Report(TheTrace(), *verdict);
    EXPECT_EQ(verdict->field, field) << what << "\n" << Report(TheTrace(), *verdict);
    EXPECT_NE(verdict->expected, verdict->actual) << what << ": the report doesn't show the difference";
    const std::string report = Report(TheTrace(), *verdict);
    EXPECT_NE(report.find(OpText(TheTrace().ops[step])), report.npos);
    EXPECT_NE(report.find(field), report.npos);
  }
  void TearDown() override {
    if (lies_ != 0 && !HasFailure()) std::printf("%zu lies, all caught\n", lies_);
  }

  const std::vector<Outcome> truth_ = TrueOutcomes();
  size_t lies_ = 0;

 private:
  std::unique_ptr<Subject> engine_ = MakeEngineSubject();
  Falsifier liar_{*engine_};
  Lockstep lockstep_{liar_};
};

TEST_F(OracleOfOutcomes, TheTraceHasEverythingThatCanBeFalsified) {
  std::vector<bool> differs(kFieldCount<Outcome>);
  std::vector<bool> call_differs(kFieldCount<Call>);
  std::array<bool, 9> call_kinds = {};
  for (Outcome outcome : truth_) {
    Outcome unused;
    ForEach(FieldsOf(outcome), [&](size_t i, auto& field) {
      ForEach(FieldsOf(unused), [&](size_t j, auto& other) {
        if constexpr (std::is_same_v<decltype(field), decltype(other)>) differs[i] = differs[i] || (i == j && field != other);
      });
    });
    for (Call& call : outcome.calls) {
      call_kinds[static_cast<size_t>(call.kind)] = true;
      Call empty;
      ForEach(FieldsOf(call), [&](size_t i, auto& field) {
        ForEach(FieldsOf(empty), [&](size_t j, auto& other) {
          if constexpr (std::is_same_v<decltype(field), decltype(other)>) call_differs[i] = call_differs[i] || (i == j && field != other);
        });
      });
    }
  }
  differs[kFieldCount<Outcome> - 1] = true;  // the wrong call, which only a wrong subject makes
  for (size_t i = 0; i < differs.size(); ++i) EXPECT_TRUE(differs[i]) << "no op uses " << kOutcomeFields[i];
  for (size_t i = 0; i < call_differs.size(); ++i) EXPECT_TRUE(call_differs[i]) << "no call uses " << kCallFields[i];
  for (size_t i = 0; i < call_kinds.size(); ++i) EXPECT_TRUE(call_kinds[i]) << "no call is a " << Name(static_cast<CallKind>(i));
}

TEST_F(OracleOfOutcomes, SeesEveryFieldOfEveryOpFalsified) {
  for (size_t step = 0; step < truth_.size(); ++step) {
    for (size_t field = 0; field < kFieldCount<Outcome>; ++field) {
      ExpectCaught(step, kOutcomeFields[field], [&](Outcome& outcome) { FalsifyField(outcome, field); }, kOutcomeFields[field]);
    }
  }
}

// An optional field is falsified above in its value or from none to some: also from some to none.
TEST_F(OracleOfOutcomes, SeesWhatIsLeftOut) {
  for (size_t step = 0; step < truth_.size(); ++step) {
    const Outcome& outcome = truth_[step];
    if (outcome.range) ExpectCaught(step, "range", [](Outcome& o) { o.range.reset(); }, "no range");
    if (outcome.range) ExpectCaught(step, "range", [](Outcome& o) { ++o.range->start; }, "another start");
    if (outcome.fault_address) ExpectCaught(step, "fault_address", [](Outcome& o) { o.fault_address.reset(); }, "no fault address");
    if (outcome.gpn) ExpectCaught(step, "gpn", [](Outcome& o) { o.gpn.reset(); }, "no GPN");
    if (outcome.number) ExpectCaught(step, "number", [](Outcome& o) { o.number.reset(); }, "no number");
    if (outcome.transferred != 0) ExpectCaught(step, "transferred", [](Outcome& o) { --o.transferred; }, "one byte fewer");
  }
}

TEST_F(OracleOfOutcomes, SeesEveryByteOfEveryHostBufferFalsified) {
  size_t buffers = 0;
  for (size_t step = 0; step < truth_.size(); ++step) {
    const size_t size = truth_[step].data.size();
    if (size == 0) continue;
    ++buffers;
    for (size_t i = 0; i < size; ++i) {
      ExpectCaught(step, "data", [i](Outcome& o) { o.data[i] ^= 0x80; }, i < kGuardBytes         ? "a guard byte before"
                                                                        : i < size - kGuardBytes ? "a delivered byte"
                                                                                                 : "a guard byte after");
    }
    ExpectCaught(step, "data", [](Outcome& o) { o.data.pop_back(); }, "a buffer too short");
    ExpectCaught(step, "data", [](Outcome& o) { o.data.push_back(kUntouched); }, "a buffer too long");
    ExpectCaught(step, "data", [](Outcome& o) { o.data.clear(); }, "no buffer");
  }
  EXPECT_GT(buffers, 5u);
}

TEST_F(OracleOfOutcomes, SeesEveryFieldOfEveryCallFalsified) {
  for (size_t step = 0; step < truth_.size(); ++step) {
    for (size_t call = 0; call < truth_[step].calls.size(); ++call) {
      for (size_t field = 0; field < kFieldCount<Call>; ++field) {
        ExpectCaught(step, "calls", [&](Outcome& outcome) { FalsifyField(outcome.calls[call], field); }, kCallFields[field]);
      }
    }
  }
}

TEST_F(OracleOfOutcomes, SeesMissingExtraAndReorderedCalls) {
  size_t swaps = 0;
  for (size_t step = 0; step < truth_.size(); ++step) {
    const std::vector<Call>& calls = truth_[step].calls;
    for (size_t i = 0; i <= calls.size(); ++i) {
      const auto at = static_cast<ptrdiff_t>(i);
      if (i < calls.size()) {
        ExpectCaught(step, "calls", [=](Outcome& o) { o.calls.erase(o.calls.begin() + at); }, "a missing call");
        ExpectCaught(step, "calls", [=](Outcome& o) { o.calls.insert(o.calls.begin() + at, Call(o.calls[i])); }, "a repeated call");
      }
      ExpectCaught(step, "calls", [=](Outcome& o) { o.calls.insert(o.calls.begin() + at, Call()); }, "an extra call");
      if (i + 1 < calls.size() && calls[i] != calls[i + 1]) {
        ++swaps;
        ExpectCaught(step, "calls", [=](Outcome& o) { std::swap(o.calls[i], o.calls[i + 1]); }, "calls in another order");
      }
    }
  }
  EXPECT_GT(swaps, 0u) << "no op makes two different calls";
}

// ------------------------------------------------------------------ memory and bitmaps

// Shows one page or bit wrong from one op on.
class Corrupter final : public RelaySubject {
 public:
  using RelaySubject::RelaySubject;
  enum class What { kMapped, kSlow, kBit } what = What::kMapped;
  uint64_t backing = 0, page = 0, byte = 0;
  Access access = Access::kRead;
  size_t from = 0;                 // the op that spoils it
  size_t until = ~size_t{0};       // and the one that puts it right again
  size_t ran = 0;

  void Start(const World& world) override {
    ran = 0;
    RelaySubject::Start(world);
  }
  void Run(const Step& step, Outcome& outcome) override {
    RelaySubject::Run(step, outcome);
    ++ran;
  }
  std::span<const uint8_t> MappedPage(uint64_t b, uint64_t p, bool final) override {
    return Corrupted(RelaySubject::MappedPage(b, p, final), What::kMapped, b, p);
  }
  std::span<const uint8_t> SlowPage(uint64_t b, uint64_t p) override {
    return Corrupted(RelaySubject::SlowPage(b, p), What::kSlow, b, p);
  }
  bool Bit(uint64_t b, uint64_t p, Access a) override {
    return RelaySubject::Bit(b, p, a) != (what == What::kBit && b == backing && p == page && a == access);
  }

 private:
  std::span<const uint8_t> Corrupted(std::span<const uint8_t> bytes, What which, uint64_t b, uint64_t p) {
    if (which != what || b != backing || p != page || ran <= from || ran > until || bytes.empty()) return bytes;
    copy_.assign(bytes.begin(), bytes.end());
    copy_[byte] ^= 1;
    return copy_;
  }

  std::vector<uint8_t> copy_;
};

class OracleOfMemory : public testing::Test {
 protected:
  static constexpr size_t kAtTheEnd = ~size_t{0};

  void ExpectCaught(size_t step, const std::string& field) {
    const Verdict verdict = lockstep_.Run(TheTrace());
    ++lies_;
    ASSERT_TRUE(verdict) << field << ", byte " << liar_.byte << " went unseen";
    EXPECT_EQ(verdict->step, step == kAtTheEnd ? TheTrace().ops.size() : step) << Report(TheTrace(), *verdict);
    EXPECT_EQ(verdict->field, field);
    EXPECT_NE(verdict->expected, verdict->actual);
  }
  void TearDown() override {
    if (lies_ != 0 && !HasFailure()) std::printf("%zu lies, all caught\n", lies_);
  }
  static std::string PageName(const char* memory, uint64_t backing, uint64_t page) {
    return std::string(memory) + " of backing " + std::to_string(backing) + " page " + std::to_string(page);
  }

  std::unique_ptr<Subject> engine_ = MakeEngineSubject();
  Corrupter liar_{*engine_};
  Lockstep lockstep_{liar_};
  size_t lies_ = 0;
};

// Bytes of a page that a lie may be about: its edges and its middle.
constexpr uint64_t kBytes[] = {0, 1, kPageSize / 2, kPageSize - 1};

TEST_F(OracleOfMemory, SeesAByteOfATouchedPageAtThatOp) {
  struct Touch {
    size_t step;
    Corrupter::What what;
    uint64_t backing, page;
  };
  using enum Corrupter::What;
  // By index into the trace's ops: what the op is the first to touch after `from`.
  const Touch touches[] = {{0, kMapped, 0, 0}, {2, kMapped, 0, 1}, {3, kMapped, 0, 0}, {6, kMapped, 0, 0}, {8, kMapped, 0, 0},
                           {11, kSlow, 1, 0},  {12, kSlow, 1, 0},  {13, kSlow, 1, 1}};
  for (const Touch& touch : touches) {
    for (const uint64_t byte : kBytes) {
      liar_.what = touch.what;
      liar_.backing = touch.backing;
      liar_.page = touch.page;
      liar_.byte = byte;
      liar_.from = touch.step;
      SCOPED_TRACE(OpText(TheTrace().ops[touch.step]));
      ExpectCaught(touch.step, PageName(touch.what == kSlow ? "slow memory" : "memory", touch.backing, touch.page));
    }
  }
}

// The trace's only page that cannot be seen, once the world is made.
bool IsHidden(uint64_t backing, uint64_t page) { return backing == 0 && page == 2; }

TEST_F(OracleOfMemory, SeesAByteOfAnyPageAtTheOpThatSpoiledIt) {
  for (const auto what : {Corrupter::What::kMapped, Corrupter::What::kSlow}) {
    for (size_t step = 0; step < TheTrace().ops.size(); step += 3) {
      for (uint64_t backing = 0; backing < TheTrace().world.backings.size(); ++backing) {
        for (uint64_t page = 0; page < kMaxPages; ++page) {
          liar_.what = what;
          liar_.backing = backing;
          liar_.page = page;
          liar_.byte = kBytes[(step + page) % std::size(kBytes)];
          liar_.from = step;
          const bool hidden = what == Corrupter::What::kMapped && IsHidden(backing, page);
          ExpectCaught(hidden ? kAtTheEnd : step, PageName(what == Corrupter::What::kSlow ? "slow memory" : "memory", backing, page));
        }
      }
    }
  }
}

// The store of op 2 covers the spoiled bytes: at the end nothing is wrong any more.
TEST_F(OracleOfMemory, SeesAByteThatALaterOpPutsRight) {
  liar_.from = 0;
  liar_.until = 2;
  for (const auto& [page, byte] : {std::pair{0, 100}, std::pair{1, 0}}) {
    liar_.page = static_cast<uint64_t>(page);
    liar_.byte = static_cast<uint64_t>(byte);
    ExpectCaught(0, PageName("memory", 0, liar_.page));
  }
  liar_.what = Corrupter::What::kSlow;
  liar_.backing = 1;
  liar_.page = 1;
  liar_.byte = 10;
  liar_.until = 13;  // fills it
  ExpectCaught(0, PageName("slow memory", 1, 1));
}

TEST_F(OracleOfMemory, SeesEveryBitOfEveryBitmapAtOnce) {
  liar_.what = Corrupter::What::kBit;
  for (liar_.backing = 0; liar_.backing < TheTrace().world.backings.size(); ++liar_.backing) {
    for (liar_.page = 0; liar_.page < kMaxPages; ++liar_.page) {
      for (liar_.access = Access::kRead; liar_.access <= Access::kExecute; liar_.access = static_cast<Access>(static_cast<int>(liar_.access) + 1)) {
        ExpectCaught(0, PageName("bitmap", liar_.backing, liar_.page) + " " + std::string(Name(liar_.access)));
      }
    }
  }
}

// A subject that can't show a page that it hid is wrong too.
TEST_F(OracleOfMemory, SeesAMissingPageAtTheEnd) {
  class Hider final : public RelaySubject {
   public:
    using RelaySubject::RelaySubject;
    std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page, bool final) override {
      return backing == 3 && page == 2 ? std::span<const uint8_t>() : RelaySubject::MappedPage(backing, page, final);
    }
  };
  Hider hider(*engine_);
  const Verdict verdict = Lockstep(hider).Run(TheTrace());
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->step, TheTrace().ops.size());
  EXPECT_EQ(verdict->field, PageName("memory", 3, 2));
}

}  // namespace
}  // namespace reference
