// The in-process guest and its model agree on every trace of the VMM interfaces.

#include <memory>
#include <ostream>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "proptest/any_trace.h"
#include "proptest/check.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {
void showValue(const Trace& trace, std::ostream& os) { os << ToText(trace); }
}  // namespace reference::vmm

namespace {

using namespace reference::vmm;

TEST(VmmProperty, GuestAndModelAgreeOnEveryTrace) {
  const std::unique_ptr<Machine> guest = MakeGuest();
  Lockstep lockstep(*guest);
  proptest::CheckAll("Vmm", "GuestAndModelAgreeOnEveryTrace", 20'000, [&] {
    const Trace trace = *proptest::AnyTrace<Trace>(Rows(), proptest::AnyOp(Rows()));
    if (const Verdict verdict = lockstep.Run(trace)) {
      RC_FAIL(Report(trace, *verdict) + "Save this as FILE; then `vmm run FILE` shows it again.\n");
    }
  });
}

}  // namespace
