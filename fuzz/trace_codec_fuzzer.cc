// The two spellings of a trace are lossless: whatever bytes or text make a trace, writing it and reading it back in
// either spelling gives the same trace, and no input crashes a reader.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>

#include "reference/lockstep/trace.h"

namespace {

void ExpectSame(const reference::Trace& expected, const reference::Trace& actual, const char* spelling) {
  if (actual == expected) return;
  std::fprintf(stderr, "the trace changed on its way through %s\nexpected:\n%s\nactual:\n%s\n", spelling,
               reference::ToText(expected).c_str(), reference::ToText(actual).c_str());
  std::abort();
}

void ExpectRoundTrips(const reference::Trace& trace) {
  ExpectSame(trace, reference::FromBytes(reference::ToBytes(trace)), "bytes");
  const std::string text = reference::ToText(trace);
  const auto parsed = reference::FromText(text);
  if (const auto* error = std::get_if<reference::TextError>(&parsed)) {
    std::fprintf(stderr, "our own text is refused: line %d: %s\n%s\n", error->line, error->reason.c_str(), text.c_str());
    std::abort();
  }
  ExpectSame(trace, std::get<reference::Trace>(parsed), "text");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ExpectRoundTrips(reference::FromBytes({data, size}));
  const auto parsed = reference::FromText(std::string_view(reinterpret_cast<const char*>(data), size));
  if (const auto* trace = std::get_if<reference::Trace>(&parsed)) ExpectRoundTrips(*trace);
  return 0;
}
