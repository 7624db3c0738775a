// Traces of the VMM interfaces, the in-process guest or an address space and their model in lockstep: what the target and the trace tool do with one.

#ifndef GUESTMEM_FUZZ_SORT_VMM_H_
#define GUESTMEM_FUZZ_SORT_VMM_H_

#include <memory>
#include <string>

#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"
#include "reference/vmm/trace.h"

namespace fuzz {

struct VmmSort {
  using Trace = reference::vmm::Trace;
  static constexpr const char* kName = "vmm";
  static constexpr const char* kOnlyTarget = "";
  static constexpr const char* kComplaint = "The guest and its model disagree";
  static constexpr size_t kMostBytes = (2 + reference::vmm::kMaxOps) * reference::vmm::kRecordBytes;  // the guest's, one of kSwarm
  static const reference::trace::Schema& Rows() { return reference::vmm::Rows(); }
  static reference::vmm::Verdict Run(const Trace& trace) {
    static const std::unique_ptr<reference::vmm::Machine> guest = reference::vmm::MakeGuest();
    static reference::vmm::Lockstep lockstep(*guest);
    return lockstep.Run(trace);
  }
  static void RunUnjudged(const Trace& trace) { (void)Run(trace); }
  static std::string ReportOf(const Trace& trace, const reference::vmm::Divergence& divergence) { return reference::vmm::Report(trace, divergence); }
};

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_SORT_VMM_H_
