// Several regions: empty slots, backings shorter than their region or filling it to the last byte, a count that is rounded up,
// accesses and locks that run from one into the next, each region with its own bitmap, handler and way to fail.

#include "fuzz/target.h"
#include "reference/lockstep/trace_rows.h"

namespace {

// Worlds of two regions and more.
void SeveralRegions(reference::Trace& trace) {
  reference::World& world = trace.world;
  if (world.region_pages == 0) {
    world.region_pages = world.backings[0].pages >= 3 ? 4 : world.backings[0].pages;
  }
  if (world.backings.size() == 1) {
    world.backings.push_back(world.backings[0]);
    world.backings[0].trim = 0;  // one that may fill its region, so that accesses go on in the next
  }
  world = reference::Normal(world);
}

}  // namespace

GUESTMEM_TARGET(region_fuzzer, SeveralRegions);
