#include "reference/schedule/scenarios.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace reference::schedule {
namespace {

constexpr Scenario kScenarios[] = {
    {"six_ops",  // the benchmark's
     "threads 2\npage rw\npage rw\n"
     "0 write page=0\n0 bulk_write page=0 length=7\n0 read page=1\n"
     "1 retire page=0\n1 restore page=0\n1 compare_exchange page=0\n"},
    {"plain_write_against_retire", "threads 2\npage rw\n0 write page=0\n1 retire page=0\n1 restore page=0\n"},
    {"plain_read_against_retire", "threads 2\npage rw\n0 read page=0\n0 read page=0\n1 retire page=0\n1 restore page=0\n"},
    {"compare_exchange_against_retire", "threads 2\npage rw\n0 compare_exchange page=0\n1 retire page=0\n1 restore page=0\n"},
    {"straddling_write_against_retire", "threads 2\npage rw\npage rw\n0 bulk_write page=0 cell=3 length=2\n1 retire page=1\n1 restore page=1\n"},
    {"bulk_write_against_retire", "threads 2\npage rw\npage rw\n0 bulk_write page=0 length=7\n1 retire page=1\n1 restore page=1\n"},
    {"bulk_read_against_unmap", "threads 2\npage rw\npage rw\n0 bulk_read page=0 length=7\n1 retire page=1 form=1\n1 restore page=1\n"},
    {"fill_against_unmap", "threads 2\npage rw\n0 fill page=0 length=5\n0 read page=0\n1 retire page=0 form=1\n1 restore page=0\n"},
    {"new_thread_against_second_retire",  // its slot is made between two grace periods
     "threads 2\npage rw\npage rw\n1 revoke page=1\n1 retire page=0\n1 restore page=0\n0 write page=0\n"},
    {"two_revokers_and_a_reader",
     "threads 3\npage rw\npage rw\n0 bulk_read page=0 length=7\n1 retire page=0\n1 restore page=0\n2 retire page=1\n2 restore page=1\n"},
    {"neighbouring_bits", "threads 2\npage rw\npage --\n0 revoke page=0\n1 grant page=1\n1 read page=1\n"},
    {"neighbouring_revokes", "threads 2\npage rw\npage rw\n0 revoke page=0\n0 grant page=0\n1 revoke page=1\n1 read page=1\n"},
    {"one_bit_of_three", "threads 2\npage rw\n0 revoke page=0 access=1\n0 read page=0\n1 write page=0\n1 grant page=0 access=2\n1 read page=0\n"},
    {"words_are_not_torn", "threads 2\npage rw\n0 write page=0\n0 write page=0\n1 read page=0\n1 read page=0\n"},
    {"parts_and_wholes", "threads 3\npage rw\n0 write page=0 size=2 part=4\n1 write page=0\n2 read page=0\n2 read page=0 size=1 part=6\n"},
    {"compare_exchanges_lose_nothing",
     "threads 3\npage rw\n0 compare_exchange page=0\n1 compare_exchange page=0\n2 compare_exchange page=0\n0 read page=0\n"},
    {"compare_exchange_chain",
     "threads 2\npage rw\n0 read page=0 size=2\n0 compare_exchange page=0 size=2\n0 compare_exchange page=0 size=2\n"
     "1 read page=0 size=2\n1 compare_exchange page=0 size=2\n1 compare_exchange page=0 size=2\n"},
    {"compare_exchange_of_a_neighbour", "threads 2\npage rw\n0 compare_exchange page=0 size=0 part=1\n1 write page=0 size=0 part=2\n1 read page=0\n"},
    {"retry_of_a_refused_page", "threads 2\npage --\npage rw\nhandler retry\n0 read page=0\n0 bulk_write page=0 length=7\n1 write page=1\n"},
    {"retry_while_bits_change", "threads 2\npage --\nhandler retry retry grant\n0 bulk_write page=0 length=5\n1 grant page=0\n1 revoke page=0\n"},
    {"handler_restores", "threads 2\npage rw\nhandler restore restore\n0 write page=0\n0 read page=0\n1 retire page=0\n1 read page=0\n"},
    {"handler_revokes_and_waits",
     "threads 2\npage --\npage rw\nhandler revoke_other grant\n0 bulk_read page=0 length=0\n1 bulk_write page=1 length=0\n1 retire page=1\n"},
    {"both_handlers_revoke",
     "threads 2\npage --\npage --\nhandler revoke_other revoke_other grant grant\n0 read page=0\n1 read page=1\n"},
    {"locked_page_stays", "threads 2\npage rw\n0 lock page=0 form=1\n0 touch page=0 form=1\n0 touch page=0\n0 unlock page=0\n1 retire page=0\n1 restore page=0\n"},
    {"locked_twice", "threads 3\npage rw\n0 lock page=0\n0 touch page=0\n0 unlock page=0\n1 lock page=0\n1 touch page=0\n1 unlock page=0\n2 retire page=0 form=1\n"},
    {"locks_of_two_pages_and_a_wide_revoke",
     "threads 2\npage rw\npage rw\n0 lock page=1\n0 touch page=1\n0 unlock page=1\n1 revoke page=0 count=2\n1 read page=0\n"},
    {"prefix_below_a_hole_against_retire",  // bytes below the fault are moved last, in the section all the same
     "threads 2\npage rw\npage rw hole\n0 bulk_write page=0 cell=3 length=2\n1 retire page=0\n1 restore page=0\n"},
    {"prefix_read_below_a_hole_against_retire",
     "threads 2\npage rw\npage rw hole\n0 bulk_read page=0 cell=3 length=3\n1 retire page=0\n1 restore page=0\n"},
    {"hole_filled_under_an_access",
     "threads 2\npage rw\npage rw hole\nhandler retry restore\n0 bulk_write page=0 length=7\n1 restore page=1\n1 read page=1\n"},
    {"unplug_waits_for_locks",
     "threads 3\npage rw\npage rw\n0 lock page=0\n0 touch page=0\n0 unlock page=0\n1 lock page=1\n1 wait_unlocked page=0 count=2\n"
     "2 wait_unlocked page=0 count=2\n2 retire page=0\n"},
    {"own_section_outlives_the_access_in_it", "threads 2\npage rw\n0 section page=0\n1 retire page=0\n1 restore page=0\n"},
    {"own_section_against_unmap", "threads 2\npage rw\n0 section page=0\n1 retire page=0 form=1\n"},
    {"sleeping_fault_resolved_elsewhere",
     "threads 3\npage rw missing\npage rw\n0 bulk_read page=0 length=7\n1 resolve page=0\n2 revoke page=1\n2 grant page=1\n"},
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

}  // namespace reference::schedule
