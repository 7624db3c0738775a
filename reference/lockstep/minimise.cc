#include "reference/lockstep/minimise.h"

#include <string>
#include <utility>

#include "reference/trace/minimise.h"

namespace reference {
namespace {

// "memory of backing 0 page 2" is about memory, wherever.
std::string About(const std::string& field) { return field.substr(0, field.find(" of ")); }

}  // namespace

Minimised Minimise(const Judge& judge, const Trace& trace, const Divergence& divergence, uint64_t most_runs) {
  Minimised best = {trace, divergence, 0};
  trace::Minimise(Rows(), ToBytes(trace), [&](const trace::Bytes& bytes) -> std::optional<trace::Bytes> {
    Trace candidate = FromBytes(bytes);
    if (candidate == best.trace || best.runs >= most_runs) return std::nullopt;
    ++best.runs;
    Verdict verdict = judge(candidate);
    if (!verdict || About(verdict->field) != About(divergence.field)) return std::nullopt;
    best.trace = std::move(candidate);
    best.divergence = *std::move(verdict);
    return ToBytes(best.trace);
  });
  return best;
}

Minimised Minimise(Lockstep& lockstep, const Trace& trace, const Divergence& divergence, uint64_t most_runs) {
  return Minimise([&](const Trace& candidate) { return lockstep.Run(candidate); }, trace, divergence, most_runs);
}

}  // namespace reference
