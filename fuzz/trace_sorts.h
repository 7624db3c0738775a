// What the trace tool can do with a sort of traces. A trace is its canonical bytes here.

#ifndef GUESTMEM_FUZZ_TRACE_SORTS_H_
#define GUESTMEM_FUZZ_TRACE_SORTS_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/trace/schema.h"

namespace fuzz {

using reference::trace::Bytes;

struct Minimal {
  Bytes trace;
  std::string report;  // what is wrong with it
};
struct TestSource {
  std::string text;
  std::string problem = {};  // why the text only skips
};
// An operation's name and what became of it: "ok", or the kind of its error.
using Outcomes = std::vector<std::pair<std::string, std::string>>;

struct Sort {
  std::string_view name;
  std::string_view header;  // a text's first line
  // Of an input, as its target decodes it; `target`: whose, empty: as they come.
  Bytes (*from_bytes)(std::span<const uint8_t> bytes, std::string_view target) = nullptr;
  std::variant<Bytes, reference::trace::TextError> (*from_text)(std::string_view text) = nullptr;
  std::string (*to_text)(const Bytes& trace) = nullptr;
  std::string (*run)(const Bytes& trace);                     // what is wrong; empty: nothing
  std::optional<Minimal> (*minimise)(const Bytes& trace);     // in a process of its own, where it may crash; nullopt: nothing wrong
  TestSource (*test)(const Bytes& trace, std::string_view name);
  Outcomes (*outcomes)(const Bytes& trace);
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

// The functions that every sort has in its own namespace, on bytes.
template <class Trace, Trace kFromBytes(std::span<const uint8_t>), Bytes kToBytes(const Trace&), std::string kToText(const Trace&), auto kFromText>
constexpr void Spell(Sort& sort) {
  sort.from_bytes = [](std::span<const uint8_t> bytes, std::string_view) { return kToBytes(kFromBytes(bytes)); };
  sort.from_text = [](std::string_view text) -> std::variant<Bytes, reference::trace::TextError> {
    auto parsed = kFromText(text);
    if (auto* const trace = std::get_if<Trace>(&parsed)) return kToBytes(*trace);
    const auto& error = std::get<1>(parsed);
    return reference::trace::TextError{error.line, error.reason};
  };
  sort.to_text = [](const Bytes& bytes) { return kToText(kFromBytes(bytes)); };
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TRACE_SORTS_H_
