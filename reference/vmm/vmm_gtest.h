// A trace of the VMM interfaces as a GoogleTest program that needs the public headers only: the guest, each op as a
// call, and what the model says of it as expectations. For regression tests.

#ifndef GUESTMEM_REFERENCE_VMM_VMM_GTEST_H_
#define GUESTMEM_REFERENCE_VMM_VMM_GTEST_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "reference/vmm/machine.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {

// Runs the trace, and says of each op when it is done whether it came to the host call that was to fail: how many an op
// makes is the library's business, so the model has to be told.
void WatchHostCalls(Machine& guest, const Trace& trace, const std::function<void(bool failed)>& done);

// `host_call_failed`: that, by op. Where it ends (the guest crashed), an op that has such a call came to it.
// `name`: any text; it becomes the test's name, TEST(Regression, Name).
std::string ToTestSource(const Trace& trace, const std::vector<bool>& host_call_failed, std::string_view name);

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_VMM_GTEST_H_
