#include "proptest/generators.h"

#include "proptest/any_trace.h"

namespace proptest {

using reference::Op;
using reference::Rows;
using reference::StepKind;
using reference::Trace;
using reference::World;

rc::Gen<World> Worlds() {
  return rc::gen::map(TraceOf<Trace>(Rows(), rc::gen::container<std::vector<Bytes>>(WorldRecord(Rows()))), [](const Trace& trace) { return trace.world; });
}

rc::Gen<Op> Ops() {
  return rc::gen::map(TraceOf<Trace>(Rows(), rc::gen::container<std::vector<Bytes>>(1, RecordOf(Rows(), AnyOp(Rows())))), [](const Trace& trace) { return trace.ops[0]; });
}

rc::Gen<Trace> TracesWithMany(std::vector<StepKind> kinds) {
  const auto often = rc::gen::map(rc::gen::elementOf(std::move(kinds)), [](StepKind kind) { return static_cast<uint8_t>(kind); });
  return AnyTrace<Trace>(Rows(), rc::gen::weightedOneOf<uint8_t>({{2, AnyOp(Rows())}, {1, often}}));
}

rc::Gen<Trace> Traces() {
  return TracesWithMany({StepKind::kRead, StepKind::kWrite, StepKind::kReadPlain, StepKind::kWritePlain, StepKind::kCompareExchange});
}

}  // namespace proptest

namespace reference {

void showValue(const Trace& trace, std::ostream& os) { os << '\n' << ToText(trace); }
void showValue(const Op& op, std::ostream& os) { os << OpText(op); }

}  // namespace reference
