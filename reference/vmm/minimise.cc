#include "reference/vmm/minimise.h"

#include "reference/trace/minimise.h"

namespace reference::vmm {
namespace {

// "page 3" is about pages, whichever.
std::string Subject(const std::string& field) { return field.substr(0, field.find_last_not_of("0123456789") + 1); }

}  // namespace

Minimised Minimise(const Judge& judge, const Trace& trace, const Divergence& divergence) {
  Minimised best = {trace, divergence};
  trace::Minimise(Rows(), ToBytes(trace), [&](const trace::Bytes& bytes) -> std::optional<trace::Bytes> {
    Trace candidate = FromBytes(bytes);
    if (candidate == best.trace) return std::nullopt;
    Verdict verdict = judge(candidate);
    if (!verdict || Subject(verdict->field) != Subject(divergence.field)) return std::nullopt;
    best = {std::move(candidate), *std::move(verdict)};
    return ToBytes(best.trace);
  });
  return best;
}

}  // namespace reference::vmm
