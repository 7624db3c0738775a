// A backing that fails or lies: errors from every callback, with and without an address and a count; views of the wrong size;
// handlers that ask for one more try; stable methods that say something else once the memory is made.

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

// Every backing is fickle, and no script may be empty: what is missing is filled in with failures.
void FailingBackings(reference::Trace& trace) {
  reference::World& world = trace.world;
  for (reference::Backing& backing : world.backings) {
    backing.fickle = true;
  }
  const auto fill = [](auto& script, auto answer) {
    if (script.empty()) {
      script.push_back(answer);
    }
  };
  fill(world.handler, reference::HandlerAnswer::kFailElsewhere);
  fill(world.fallback, reference::FallbackAnswer::kFailMoved);
  fill(world.lock, reference::LockAnswer::kFailAt);
  fill(world.subrange, reference::SubrangeAnswer::kWrongSize);
  world = reference::Normal(world);
}

}  // namespace

GUESTMEM_TARGET(backing_fuzzer, FailingBackings);
