#include "reference/schedule/scenarios.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "reference/trace/draw.h"

namespace reference::schedule {
namespace {

constexpr Scenario kScenarios[] = {
    {"six_ops",  // the benchmark's
     "page rw\npage rw\n"
     "ops\n0 write page=0\n0 bulk_write page=0 length=8192\n0 read page=1\n"
     "1 retire page=0\n1 restore page=0\n1 compare_exchange page=0\n"},
    {"plain_write_against_retire", "page rw\nops\n0 write page=0\n1 retire page=0\n1 restore page=0\n"},
    {"plain_read_against_retire", "page rw\nops\n0 read page=0\n0 read page=0\n1 retire page=0\n1 restore page=0\n"},
    {"compare_exchange_against_retire", "page rw\nops\n0 compare_exchange page=0\n1 retire page=0\n1 restore page=0\n"},
    {"straddling_write_against_retire", "page rw\npage rw\nops\n0 bulk_write page=0 cell=4088 length=16\n1 retire page=1\n1 restore page=1\n"},
    {"bulk_write_against_retire", "page rw\npage rw\nops\n0 bulk_write page=0 length=8192\n1 retire page=1\n1 restore page=1\n"},
    {"bulk_read_against_unmap", "page rw\npage rw\nops\n0 bulk_read page=0 length=8192\n1 retire page=1 by=unmap\n1 restore page=1\n"},
    {"fill_against_unmap", "page rw\nops\n0 fill page=0 length=4096\n0 read page=0\n1 retire page=0 by=unmap\n1 restore page=0\n"},
    {"new_thread_against_second_retire",  // its slot is made between two grace periods
     "page rw\npage rw\nops\n1 revoke page=1\n1 retire page=0\n1 restore page=0\n0 write page=0\n"},
    {"two_revokers_and_a_reader",
     "threads 3\npage rw\npage rw\nops\n0 bulk_read page=0 length=8192\n1 retire page=0\n1 restore page=0\n2 retire page=1\n2 restore page=1\n"},
    {"neighbouring_bits", "page rw\npage --\nops\n0 revoke page=0\n1 grant page=1\n1 read page=1\n"},
    {"neighbouring_revokes", "page rw\npage rw\nops\n0 revoke page=0\n0 grant page=0\n1 revoke page=1\n1 read page=1\n"},
    {"one_bit_of_three", "page rw\nops\n0 revoke page=0 access=read\n0 read page=0\n1 write page=0\n1 grant page=0 access=write\n1 read page=0\n"},
    {"words_are_not_torn", "page rw\nops\n0 write page=0\n0 write page=0\n1 read page=0\n1 read page=0\n"},
    {"parts_and_wholes", "threads 3\npage rw\nops\n0 write page=0 size=4 part=4\n1 write page=0\n2 read page=0\n2 read page=0 size=2 part=6\n"},
    {"compare_exchanges_lose_nothing",
     "threads 3\npage rw\nops\n0 compare_exchange page=0\n1 compare_exchange page=0\n2 compare_exchange page=0\n0 read page=0\n"},
    {"compare_exchange_chain",
     "page rw\nops\n0 read page=0 size=4\n0 compare_exchange page=0 size=4\n0 compare_exchange page=0 size=4\n"
     "1 read page=0 size=4\n1 compare_exchange page=0 size=4\n1 compare_exchange page=0 size=4\n"},
    {"compare_exchange_of_a_neighbour", "page rw\nops\n0 compare_exchange page=0 size=1 part=1\n1 write page=0 size=1 part=2\n1 read page=0\n"},
    {"retry_of_a_refused_page", "page --\npage rw\nhandler retry\nops\n0 read page=0\n0 bulk_write page=0 length=8192\n1 write page=1\n"},
    {"retry_while_bits_change", "page --\nhandler retry retry grant\nops\n0 bulk_write page=0 length=4096\n1 grant page=0\n1 revoke page=0\n"},
    {"handler_restores", "page rw\nhandler restore restore\nops\n0 write page=0\n0 read page=0\n1 retire page=0\n1 read page=0\n"},
    {"handler_revokes_and_waits",
     "page --\npage rw\nhandler revoke_other grant\nops\n0 bulk_read page=0 length=8\n1 bulk_write page=1 length=8\n1 retire page=1\n"},
    {"both_handlers_revoke",
     "page --\npage --\nhandler revoke_other revoke_other grant grant\nops\n0 read page=0\n1 read page=1\n"},
    {"locked_page_stays", "page rw\nops\n0 lock page=0 access=write\n0 touch page=0 access=write\n0 touch page=0\n0 unlock page=0\n1 retire page=0\n1 restore page=0\n"},
    {"locked_twice", "threads 3\npage rw\nops\n0 lock page=0\n0 touch page=0\n0 unlock page=0\n1 lock page=0\n1 touch page=0\n1 unlock page=0\n2 retire page=0 by=unmap\n"},
    {"locks_of_two_pages_and_a_wide_revoke",
     "page rw\npage rw\nops\n0 lock page=1\n0 touch page=1\n0 unlock page=1\n1 revoke page=0 count=2\n1 read page=0\n"},
    {"prefix_below_a_hole_against_retire",  // bytes below the fault are moved last, in the section all the same
     "page rw\npage rw hole\nops\n0 bulk_write page=0 cell=4088 length=16\n1 retire page=0\n1 restore page=0\n"},
    {"prefix_read_below_a_hole_against_retire",
     "page rw\npage rw hole\nops\n0 bulk_read page=0 cell=4088 length=24\n1 retire page=0\n1 restore page=0\n"},
    {"hole_filled_under_an_access",
     "page rw\npage rw hole\nhandler retry restore\nops\n0 bulk_write page=0 length=8192\n1 restore page=1\n1 read page=1\n"},
    {"unplug_waits_for_locks",
     "threads 3\npage rw\npage rw\nops\n0 lock page=0\n0 touch page=0\n0 unlock page=0\n1 lock page=1\n1 wait_unlocked page=0 count=2\n"
     "2 wait_unlocked page=0 count=2\n2 retire page=0\n"},
    {"own_section_outlives_the_access_in_it", "page rw\nops\n0 section page=0\n1 retire page=0\n1 restore page=0\n"},
    {"own_section_against_unmap", "page rw\nops\n0 section page=0\n1 retire page=0 by=unmap\n"},
    {"sleeping_fault_resolved_elsewhere",
     "threads 3\npage rw missing\npage rw\nops\n0 bulk_read page=0 length=8192\n1 resolve page=0\n2 revoke page=1\n2 grant page=1\n"},
};

}  // namespace

const Scenario& BenchmarkScenario() { return kScenarios[0]; }

Trace TraceOf(const Scenario& scenario) {
  auto parsed = FromText("guestmem schedule 1\n" + std::string(scenario.text));
  if (const auto* error = std::get_if<TextError>(&parsed)) {
    std::fprintf(stderr, "scenario %s, line %d: %s\n", scenario.name.data(), error->line, error->reason.c_str());
    std::abort();
  }
  return std::get<Trace>(std::move(parsed));
}

std::vector<std::pair<std::string, Trace>> Scenarios() {
  std::vector<std::pair<std::string, Trace>> all;
  for (const bool membarrier : {true, false}) {
    for (const Scenario& scenario : kScenarios) {
      Trace trace = TraceOf(scenario);
      trace.membarrier = membarrier;
      all.emplace_back(std::string(scenario.name) + (membarrier ? "" : "_without_membarrier"), std::move(trace));
    }
  }
  return all;
}

Trace RandomTrace(uint64_t seed) {
  trace::Draw draw(Rows(), WithoutHangs(), seed);
  std::vector<trace::Record> records;
  for (uint64_t world = draw.random.Below(6); world > 0; --world) records.push_back(draw.World());
  for (uint64_t ops = 2 + draw.random.Below(9); ops > 0; --ops) records.push_back(draw.Operation());
  return trace::FromBytes<Trace>(Rows(), Join(Rows(), records), WithoutHangs());
}

}  // namespace reference::schedule
