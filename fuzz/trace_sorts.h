// What the trace tool can do with a sort of traces. A trace is its canonical bytes here.

#ifndef GUESTMEM_FUZZ_TRACE_SORTS_H_
#define GUESTMEM_FUZZ_TRACE_SORTS_H_

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "fuzz/profiles.h"
#include "reference/trace/schema.h"

namespace fuzz {

using reference::trace::Bytes;
using reference::trace::TextError;

struct Minimal {
  Bytes trace;
  std::string report;  // what is wrong with it
};
// What became of an operation.
struct Ended {
  std::string error = {};  // its kind; empty: it succeeded
  bool moved = false;      // bytes, all of its own or a prefix
  bool refused = false;    // it failed as the world's script or state has it, not for being misuse
};
using Each = std::function<void(const void* op, const Ended& ended)>;

struct Sort {
  std::string_view name;
  std::string_view only_target;  // empty: it has several
  const reference::trace::Schema& (*rows)();
  // Of an input, as its target decodes it; `target`: whose, empty: as they come.
  Bytes (*from_bytes)(std::span<const uint8_t> bytes, const std::string& target);
  std::variant<Bytes, TextError> (*from_text)(std::string_view text);
  std::string (*to_text)(const Bytes& trace);
  std::string (*run)(const Bytes& trace);                     // what is wrong; empty: nothing
  std::optional<Minimal> (*minimise)(const Bytes& trace);     // in a process of its own, where it may crash; nullopt: nothing wrong
  std::string (*test)(const Bytes& trace, std::string_view name);
  void (*outcomes)(const Bytes& trace, const Each& each);     // of each operation
};

// Those of this program. Schedules run on an engine of their own, which no program may have beside the other: trace_scheduled has it.
std::span<const Sort> Sorts();

// Commands that only one sort has; nullopt: this program has no such command.
struct Options {
  double seconds;
  uint64_t seed, preemptions;
  std::string out;
};
std::optional<int> RunOwnCommand(std::string_view command, const std::vector<std::pair<std::string, Bytes>>& traces, const Options& options);

// What every sort can by its rows and its Run (sort_*.h).
template <class S>
Sort SortOf() {
  using Trace = typename S::Trace;
  Sort sort = {};
  sort.name = S::kName;
  sort.only_target = S::kOnlyTarget;
  sort.rows = S::Rows;
  sort.from_bytes = [](std::span<const uint8_t> bytes, const std::string& target) {
    return ToBytes(reference::trace::FromBytes<Trace>(S::Rows(), bytes, ProfileOf(target)));
  };
  sort.from_text = [](std::string_view text) -> std::variant<Bytes, TextError> {
    auto parsed = reference::trace::FromText<Trace>(S::Rows(), text);
    if (auto* const trace = std::get_if<Trace>(&parsed)) return ToBytes(*trace);
    return std::get<TextError>(std::move(parsed));
  };
  sort.to_text = [](const Bytes& bytes) { return ToText(reference::trace::FromBytes<Trace>(S::Rows(), bytes)); };
  sort.run = [](const Bytes& bytes) {
    const auto trace = reference::trace::FromBytes<Trace>(S::Rows(), bytes);
    const auto verdict = S::Run(trace);
    return verdict ? S::ReportOf(trace, *verdict) : "";
  };
  return sort;
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TRACE_SORTS_H_
