// The VMM interfaces: RAM, regions over files, ROMs, doorbells, events, locks and accesses of an in-process guest, with host
// calls that fail, in lockstep with the model of reference/vmm. Its inputs are traces of another kind than the other targets'.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "fuzz/save_trace.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"

// For mutator.cc.
namespace fuzz {
const reference::trace::Schema& TargetRows() { return reference::vmm::Rows(); }
}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reference::vmm;
  static_assert(GUESTMEM_MAX_LEN == (1 + kMaxOps) * kRecordBytes, "max_len in fuzz/CMakeLists.txt");
  static const std::unique_ptr<Machine> guest = MakeGuest();
  static Lockstep lockstep(*guest);
  const Trace trace = FromBytes({data, size});
  fuzz::SaveTrace(trace);
  static const bool judged = std::getenv("GUESTMEM_UNJUDGED") == nullptr;  // ci/mutants.sh --ablation
  if (const Verdict verdict = lockstep.Run(trace); verdict && judged) {
    std::fprintf(stderr, "%s\nThe guest and its model disagree. From the saved input to a minimal trace and a test:\n  ci/repro.sh vmm_fuzzer FILE\n",
                 Report(trace, *verdict).c_str());
    std::abort();
  }
  return 0;
}
