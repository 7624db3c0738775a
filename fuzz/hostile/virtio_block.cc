// The block device of lib/examples against a hostile guest. The variants, each with one mistake, are built from this file too.

#include <cstdint>
#include <cstdlib>
#include <memory>

#include <guestmem/hostile/device_fuzzer.h>
#include <guestmem/hostile/split_queue.h>

#include "virtio_block.h"

namespace {

// Where the guest puts things.
constexpr uint64_t kQueueSizeRegister = 0xf00;
constexpr uint64_t kHeader = 0x4000, kStatus = 0x4020, kSegment = 0x4010, kTable = 0x4800, kData = 0x5000;
constexpr uint64_t kSectors = 16;

}  // namespace

void guestmem::hostile::DescribeDevice(Setup& setup) {
  const SplitQueue::Layout ring{.size = 8, .descriptors = 0x1000, .available = 0x2000, .used = 0x3000};
  const SplitQueue queue(setup, ring);
  setup.options.changes = std::getenv("GUESTMEM_HOSTILE_WITHOUT_CHANGES") == nullptr;  // ci/hostile.sh asks what they are good for
  setup.options.max_accesses = 256;
  setup.options.max_allocated = 256 << 10;
  setup.Fixed({kQueueSizeRegister, 2});
  setup.Interesting(kSectors);
  const auto example = [&](const char* name, uint32_t type, auto offer) {
    setup.Example(name, [=](Guest& guest) {
      guest.Put(kQueueSizeRegister, ring.size);
      guest.Put(kHeader, type);
      guest.Put(kHeader + 8, uint64_t{2});  // the sector
      offer(guest);
    });
  };
  example("read", virtio::kIn, [=](Guest& guest) { queue.Chain(guest, {{kHeader, 16}, {kData, 512, true}, {kStatus, 1, true}}); });
  example("write", virtio::kOut, [=](Guest& guest) { queue.Chain(guest, {{kHeader, 16}, {kData, 512}, {kStatus, 1, true}}); });
  example("get id", virtio::kGetId, [=](Guest& guest) { queue.Chain(guest, {{kHeader, 16}, {kData, 20, true}, {kStatus, 1, true}}); });
  example("write zeroes", virtio::kWriteZeroes, [=](Guest& guest) {
    guest.Put(kSegment, virtio::ZeroSegment{.sector = 4, .sectors = 1, .flags = 0});
    queue.Chain(guest, {{kHeader, 16}, {kSegment, 16}, {kStatus, 1, true}});
  });
  example("indirect read", virtio::kIn, [=](Guest& guest) {
    queue.IndirectChain(guest, kTable, {{kHeader, 16}, {kData, 1024, true}, {kStatus, 1, true}});
  });

  setup.Device([=](Run& run) {
    enum class Life { kNew, kStarted, kNeedsReset };
    struct State {
      virtio::BlockDevice device;
      Life life = Life::kNew;
    };
    auto state = std::make_shared<State>(State{
        {run.memory(), kSectors,
         {[&run] { run.CallOut("interrupt"); }, [&run](uint64_t, std::span<const std::byte> bytes) { run.CallOut("stored", bytes); }}}});
    return [state, ring, memory = run.memory()] {
      if (state->life == Life::kNew) {  // as a transport does when the driver writes its registers
        const uint16_t size = memory.ReadPlain<uint16_t>(kQueueSizeRegister).value_or(0);
        if (size != ring.size && std::has_single_bit(size)) return;  // a queue that the description above does not know
        const bool good = state->device.Start({size, ring.descriptors, ring.available, ring.used, true}).ok();
        state->life = good ? Life::kStarted : Life::kNeedsReset;
      }
      if (state->life == Life::kStarted && !state->device.Kick().ok()) state->life = Life::kNeedsReset;
    };
  });
}
