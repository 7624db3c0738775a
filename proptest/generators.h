// rapidcheck generators for traces. Everything generated is in normal form; a failing trace shrinks to few ops, short
// scripts and default fields.

#ifndef GUESTMEM_PROPTEST_GENERATORS_H_
#define GUESTMEM_PROPTEST_GENERATORS_H_

#include <ostream>
#include <vector>

#include <rapidcheck.h>

#include "reference/lockstep/trace.h"

namespace proptest {

rc::Gen<reference::World> Worlds();
// Any kind; addresses lean to the edges of pages that exist.
rc::Gen<reference::Op> Ops();
// A third of the operations are of these kinds, the others of any.
rc::Gen<reference::Trace> TracesWithMany(std::vector<reference::StepKind> kinds);
// With many accesses: some faults need two that meet.
rc::Gen<reference::Trace> Traces();

}  // namespace proptest

namespace reference {
// Found by rapidcheck: a counterexample is printed as text that `trace run` takes.
void showValue(const Trace& trace, std::ostream& os);
void showValue(const Op& op, std::ostream& os);
}  // namespace reference

namespace rc {
template <>
struct Arbitrary<reference::Trace> {
  static Gen<reference::Trace> arbitrary() { return proptest::Traces(); }
};
template <>
struct Arbitrary<reference::Op> {
  static Gen<reference::Op> arbitrary() { return proptest::Ops(); }
};
}  // namespace rc

#endif  // GUESTMEM_PROPTEST_GENERATORS_H_
