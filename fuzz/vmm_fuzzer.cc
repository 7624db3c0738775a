// The VMM interfaces: RAM, regions over files, ROMs, doorbells, events, locks and accesses of an in-process guest, with host
// calls that fail, in lockstep with the model of reference/vmm. Its inputs are traces of another kind than the other targets'.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace reference::vmm;
  static const std::unique_ptr<Machine> guest = MakeGuest();
  static Lockstep lockstep(*guest);
  const Trace trace = FromBytes({data, size});
  if (const Verdict verdict = lockstep.Run(trace)) {
    std::fprintf(stderr, "%s\nminimal trace that diverges alike:\n\n", Report(trace, *verdict).c_str());
    const Trace minimal = Minimise(lockstep, trace, *verdict);
    std::fprintf(stderr, "%s\nThe guest and its model disagree. Replay this input with\n  ci/repro.sh vmm_fuzzer FILE\n",
                 Report(minimal, lockstep.Run(minimal).value_or(*verdict)).c_str());
    if (const char* const path = std::getenv("GUESTMEM_SAVE_TRACE")) {
      std::ofstream(path) << ToText(minimal);
    }
    std::abort();
  }
  return 0;
}
