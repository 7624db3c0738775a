// The traces of the VMM interfaces are total and lossless, their oracle sees every lie, and what it sees gets small.

#include <gtest/gtest.h>

#include <functional>

#include "reference/trace/spellings.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {
namespace {

TEST(VmmTrace, EveryByteStringIsALegalTraceAndBothSpellingsAreLossless) { trace::ExpectEveryByteStringIsATrace<Trace>(Rows()); }

TEST(VmmTrace, AMutationOfOneOpLeavesTheOthersAlone) { trace::ExpectOpsAreIndependent<Trace>(Rows()); }

TEST(VmmTrace, RefusalsNameTheLineAndTheWord) {
  const auto error = [](const std::string& text) {
    const auto parsed = FromText(text);
    const auto* refused = std::get_if<TextError>(&parsed);
    return refused == nullptr ? std::string() : std::to_string(refused->line) + ": " + refused->reason;
  };
  const std::string header = "guestmem vmm 1\n";
  EXPECT_EQ(error(""), "1: expected the header 'guestmem vmm 1', found the end of the text");
  EXPECT_EQ(error("guest pages=1\n"), "1: expected the header 'guestmem vmm 1', found 'guest pages=1'");
  EXPECT_EQ(error(header + "guest pages=9\n"), "2: pages 9 is too large: the largest is 8");
  EXPECT_EQ(error(header + "guest size=9\n"), "2: guest has no field 'size'; its fields are: pages=, trim=, guest_first=, fail=, lazy=");
  EXPECT_EQ(error(header + "guest pages=1\nguest pages=1\n"), "3: 'guest' is given twice");
  EXPECT_EQ(error(header + "add_ram\n"), "2: unknown line 'add_ram'; before the operations come: guest, ops");
  EXPECT_EQ(error(header), "1: expected an 'ops' line, found the end of the text");
  EXPECT_NE(error(header + "ops\nadd_rom page=1\n").find("3: unknown operation 'add_rom'; operations are: add_ram, new_region"), std::string::npos);
  EXPECT_EQ(error(header + "ops\nadd_ram slot=1\n"), "3: add_ram has no field 'slot'; its fields are: page=, at=, length=, fail=");
  EXPECT_EQ(error(header + "ops\n\nadd_ram length=5\n"),
            "4: length 5 is not in the list of interesting lengths: 4096, 8192, 12288, 16384, 32768, 0, 1, 4097, 0xfffffffffffff000");
  EXPECT_EQ(error(header + "ops\nunlock\nunlock\nunlock slot\n"), "5: 'slot' needs a value: slot=...");
  EXPECT_EQ(error(header + "ops\nprobe access=look\n"), "3: unknown access 'look'; accesses are: read, write, execute");
}

// The library's guest, but for one lie.
class Liar final : public Machine {
 public:
  explicit Liar(Machine& machine) : machine_(machine) {}
  void Start(const World& world) override { machine_.Start(world); }
  Outcome Run(const Op& op, bool& host_call_failed) override {
    Outcome outcome = machine_.Run(op, host_call_failed);
    about_outcome(outcome);
    return outcome;
  }
  std::span<const uint8_t> Page(uint64_t page) override {
    const auto bytes = machine_.Page(page);
    copy_.assign(bytes.begin(), bytes.end());
    about_page(copy_);
    return copy_;
  }
  bool IsWritable(uint64_t page) override { return machine_.IsWritable(page) != about_writing; }
  bool IsSignalled(uint64_t event) override { return machine_.IsSignalled(event) != about_events; }
  std::span<const uint8_t> SpaceBytes(uint64_t backing) override {
    const auto bytes = machine_.SpaceBytes(backing);
    copy_.assign(bytes.begin(), bytes.end());
    about_space(copy_);
    return copy_;
  }
  std::string End() override {
    const std::string wrong = machine_.End();
    return about_the_end ? "a lie" : wrong;
  }

  std::function<void(Outcome&)> about_outcome = [](Outcome&) {};
  std::function<void(std::vector<uint8_t>&)> about_page = [](std::vector<uint8_t>&) {};
  std::function<void(std::vector<uint8_t>&)> about_space = [](std::vector<uint8_t>&) {};
  bool about_writing = false, about_events = false, about_the_end = false;

 private:
  Machine& machine_;
  std::vector<uint8_t> copy_;
};

constexpr char kTrace[] = R"(guestmem vmm 1
guest pages=4
ops
add_ram page=0 length=8192
new_event slot=0
register slot=0 other=0 page=0 at=8 size=4 match=any_value
write page=0 at=8 size=4
compare_exchange page=0 size=8
read page=0 size=100
add_ram page=1 length=4096
read page=1 at=2048 size=4096
space_listen
space_add
)";

TEST(VmmOracle, TellsTheTruthFromALie) {
  const auto trace = std::get<Trace>(FromText(kTrace));
  const auto machine = MakeGuest();
  struct Case {
    const char* field;
    std::function<void(Liar&)> lie;
  };
  const Case cases[] = {
      {"", [](Liar&) {}},
      {"error", [](Liar& l) { l.about_outcome = [](Outcome& o) { o.error.reset(); }; }},
      {"error", [](Liar& l) { l.about_outcome = [](Outcome& o) { if (o.error) o.error->kind = "locked"; }; }},
      {"error", [](Liar& l) { l.about_outcome = [](Outcome& o) { if (o.error) o.error->note += "x"; }; }},
      {"error", [](Liar& l) { l.about_outcome = [](Outcome& o) { if (o.error) ++o.error->transferred; }; }},
      {"error", [](Liar& l) { l.about_outcome = [](Outcome& o) { if (o.error && o.error->fault_address) ++*o.error->fault_address; }; }},
      {"data", [](Liar& l) { l.about_outcome = [](Outcome& o) { if (!o.data.empty()) ++o.data.back(); }; }},
      {"number", [](Liar& l) { l.about_outcome = [](Outcome& o) { ++o.number; }; }},
      {"flag", [](Liar& l) { l.about_outcome = [](Outcome& o) { o.flag = !o.flag; }; }},
      {"page 0", [](Liar& l) { l.about_page = [](std::vector<uint8_t>& b) { if (!b.empty()) ++b[4095]; }; }},
      {"page 2", [](Liar& l) { l.about_page = [](std::vector<uint8_t>& b) { b.resize(kPageBytes); }; }},
      {"writable page 0", [](Liar& l) { l.about_writing = true; }},
      {"event 0", [](Liar& l) { l.about_events = true; }},
      {"told", [](Liar& l) { l.about_outcome = [](Outcome& o) { if (!o.told.empty()) o.told[0] += "x"; }; }},
      {"told", [](Liar& l) { l.about_outcome = [](Outcome& o) { o.told.clear(); }; }},
      {"backing 1 of the address space", [](Liar& l) { l.about_space = [](std::vector<uint8_t>& b) { if (b.size() == 2 * kPageBytes) ++b[5000]; }; }},
      {"end", [](Liar& l) { l.about_the_end = true; }},
  };
  int number = 0;
  for (const Case& each : cases) {
    SCOPED_TRACE(number++);
    Liar liar(*machine);
    each.lie(liar);
    Lockstep lockstep(liar);
    const Verdict verdict = lockstep.Run(trace);
    EXPECT_EQ(verdict ? verdict->field : "", each.field) << Report(trace, verdict.value_or(Divergence()));
  }
}

using Judge = std::function<Verdict(const Trace& trace)>;
Trace MinimalFor(const Trace& trace, const Judge& judge) { return trace::MinimiseDiverging(Rows(), judge, trace, *judge(trace)).trace; }

TEST(VmmMinimise, KeepsTheDivergenceAndLittleElse) {
  const auto trace = std::get<Trace>(FromText(kTrace));
  const auto machine = MakeGuest();
  Liar liar(*machine);
  liar.about_outcome = [](Outcome& outcome) { outcome.flag = false; };  // no exchange ever succeeds
  Lockstep lockstep(liar);
  const Judge judge = [&](const Trace& candidate) { return lockstep.Run(candidate); };
  ASSERT_TRUE(judge(trace));
  EXPECT_EQ(ToText(MinimalFor(trace, judge)),
            "guestmem vmm 1\nguest pages=8\nops\nadd_ram\ncompare_exchange\n");
}

// "Diverges" where something of `trace` is there.
Verdict Wrong(bool wrong, const std::string& field) { return wrong ? Verdict(Divergence{0, field, "", ""}) : std::nullopt; }

TEST(VmmMinimise, LowersTheNumbersThatMatterAsFarAsTheyGo) {
  const auto trace = std::get<Trace>(FromText(
      "guestmem vmm 1\nguest pages=3 trim=1 guest_first=1 fail=2\nops\nadd_ram page=3 length=32768 fail=7\nunlock slot=2\n"));
  const Judge judge = [](const Trace& candidate) {
    const bool adds = !candidate.ops.empty() && candidate.ops[0][kLength] > 12288 && candidate.ops[0][kFail] > 1;
    return Wrong(adds && candidate.world.pages < 5, "error");
  };
  EXPECT_EQ(ToText(MinimalFor(trace, judge)),
            "guestmem vmm 1\nguest pages=4\nops\nadd_ram length=16384 fail=2\n");
}

TEST(VmmMinimise, TakesAnotherPageForThePageButNotAnotherField) {
  const auto trace = std::get<Trace>(FromText("guestmem vmm 1\nops\nadd_ram page=3\nsignal\n"));
  const Judge judge = [](const Trace& candidate) {
    const bool adds = !candidate.ops.empty() && candidate.ops[0].kind == OpKind::kAddRam;
    return Wrong(!candidate.ops.empty(), adds ? "page " + std::to_string(candidate.ops[0][kPage]) : "event 0");
  };
  EXPECT_EQ(ToText(MinimalFor(trace, judge)),
            "guestmem vmm 1\nguest pages=8\nops\nadd_ram\n");
}

}  // namespace
}  // namespace reference::vmm
