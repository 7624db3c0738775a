#include "proptest/generators.h"

#include "proptest/any_trace.h"

namespace proptest {

using reference::Op;
using reference::Rows;
using reference::Trace;
using reference::World;

rc::Gen<World> Worlds() {
  return rc::gen::map(TraceOf<Trace>(Rows(), rc::gen::container<std::vector<Bytes>>(WorldRecord(Rows()))), [](const Trace& trace) { return trace.world; });
}

rc::Gen<Op> Ops() {
  return rc::gen::map(TraceOf<Trace>(Rows(), rc::gen::container<std::vector<Bytes>>(1, OpRecord(Rows()))), [](const Trace& trace) { return trace.ops[0]; });
}

rc::Gen<Trace> Traces() { return AnyTrace<Trace>(Rows()); }

}  // namespace proptest

namespace reference {

void showValue(const Trace& trace, std::ostream& os) { os << '\n' << ToText(trace); }
void showValue(const Op& op, std::ostream& os) { os << OpText(op); }

}  // namespace reference
