// Runs a trace on a machine and on the model, op by op, and says where they first differ.

#ifndef GUESTMEM_REFERENCE_VMM_LOCKSTEP_H_
#define GUESTMEM_REFERENCE_VMM_LOCKSTEP_H_

#include <cstddef>
#include <string>

#include "reference/trace/verdict.h"
#include "reference/vmm/machine.h"
#include "reference/vmm/model.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {

using trace::Divergence;
using trace::Verdict;

class Lockstep {
 public:
  explicit Lockstep(Machine& machine) : machine_(machine) {}
  Verdict Run(const Trace& trace);

 private:
  Verdict RunOps(const Trace& trace);
  Verdict CompareState(const World& world, bool last);

  Machine& machine_;
  Model model_;
};

inline std::string Report(const Trace& trace, const Divergence& divergence) { return trace::Report(Rows(), &trace, divergence); }

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_LOCKSTEP_H_
