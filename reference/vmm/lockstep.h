// Runs a trace on a machine and on the model, op by op, and says where they first differ.

#ifndef GUESTMEM_REFERENCE_VMM_LOCKSTEP_H_
#define GUESTMEM_REFERENCE_VMM_LOCKSTEP_H_

#include <cstddef>
#include <optional>
#include <string>

#include "reference/vmm/machine.h"
#include "reference/vmm/model.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {

struct Divergence {
  size_t op = 0;      // its index; ops.size(): the comparison at the end
  std::string field;  // what differs
  std::string expected, actual;
};
// nullopt: they agree.
using Verdict = std::optional<Divergence>;

class Lockstep {
 public:
  explicit Lockstep(Machine& machine) : machine_(machine) {}
  Verdict Run(const Trace& trace);

 private:
  Verdict RunOps(const Trace& trace);
  Verdict CompareState(const World& world, size_t op, bool last);

  Machine& machine_;
  Model model_;
};

// The trace as text with the diverging op marked, expected against actual.
std::string Report(const Trace& trace, const Divergence& divergence);

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_LOCKSTEP_H_
