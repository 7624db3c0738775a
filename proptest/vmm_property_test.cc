// The in-process guest and its model agree on every trace of the VMM interfaces.

#include <memory>
#include <ostream>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "proptest/check.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {
void showValue(const Trace& trace, std::ostream& os) { os << ToText(trace); }
}  // namespace reference::vmm

namespace {

using namespace reference::vmm;

// Every second field is at its default: RAM, regions and ROMs then meet in the first pages, and few host calls fail. Bytes
// shrink to zero, which are defaults, and a container to fewer of them: of ops.
rc::Gen<std::vector<uint8_t>> OpBytes() {
  const auto field = rc::gen::weightedOneOf<uint8_t>({{1, rc::gen::just<uint8_t>(0)}, {1, rc::gen::resize(100, rc::gen::arbitrary<uint8_t>())}});
  const auto kind = rc::gen::resize(100, rc::gen::inRange<uint8_t>(0, kOpKinds));
  return rc::gen::map(rc::gen::pair(kind, rc::gen::container<std::vector<uint8_t>>(kFields, field)), [](const auto& made) {
    std::vector<uint8_t> bytes = {made.first};
    bytes.insert(bytes.end(), made.second.begin(), made.second.end());
    return bytes;
  });
}

rc::Gen<Trace> Traces() {
  const auto world = rc::gen::container<std::vector<uint8_t>>(kWorldBytes, rc::gen::arbitrary<uint8_t>());
  return rc::gen::map(rc::gen::pair(world, rc::gen::container<std::vector<std::vector<uint8_t>>>(OpBytes())), [](const auto& made) {
    std::vector<uint8_t> bytes = made.first;
    for (const auto& op : made.second) {
      bytes.insert(bytes.end(), op.begin(), op.end());
    }
    return FromBytes(bytes);
  });
}

TEST(VmmProperty, GuestAndModelAgreeOnEveryTrace) {
  const std::unique_ptr<Machine> guest = MakeGuest();
  Lockstep lockstep(*guest);
  proptest::CheckAll("Vmm", "GuestAndModelAgreeOnEveryTrace", 20'000, [&] {
    const Trace trace = *Traces();
    if (const Verdict verdict = lockstep.Run(trace)) {
      RC_FAIL(Report(trace, *verdict) + "Save this as FILE; then `vmm run FILE` shows it again.\n");
    }
  });
}

}  // namespace
