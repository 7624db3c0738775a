// A device on a virtqueue: a split queue (virtio_queue.h) and a block device on it (virtio_block.h), and here their guest.
//
// A device may not trust what it reads: the guest changes it meanwhile. virtio_queue.h copies each field once, checks the copy
// and uses the copy. fuzz/hostile/virtio_block.cc tries such a guest on this device.
//
// Prints:
//   write: status 0, an interrupt
//   read: status 0, an interrupt, the bytes come back
//   a sector beyond the disk: status 1, an interrupt
//   a chain that never ends: a chain longer than the queue

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <guestmem/guest_memory.h>

#include "virtio_block.h"

namespace {

constexpr virtio::Layout kLayout{.size = 8, .descriptors = 0x1000, .available = 0x2000, .used = 0x3000};
constexpr uint64_t kHeader = 0x4000, kStatus = 0x4010, kData = 0x5000;

// A guest with one request at a time: header, data, status.
class Guest {
 public:
  explicit Guest(const guestmem::GuestMemory& memory) : memory_(memory) {}

  bool Offer(const virtio::BlockHeader& header, bool device_writes) {
    const uint16_t data_flags = device_writes ? virtio::kNext | virtio::kWrite : virtio::kNext;
    return memory_.WritePlain<virtio::BlockHeader>(kHeader, header).ok() && Describe(0, {kHeader, 16, virtio::kNext, 1}) &&
           Describe(1, {kData, 512, data_flags, 2}) && Describe(2, {kStatus, 1, virtio::kWrite, 0}) && Offer();
  }
  bool Describe(uint64_t i, const virtio::Descriptor& descriptor) {
    return memory_.WritePlain<virtio::Descriptor>(kLayout.descriptors + 16 * i, descriptor).ok();
  }
  bool Offer() {  // the chain that starts at descriptor 0
    const uint64_t slot = offered_ % kLayout.size;
    return memory_.WritePlain<uint16_t>(kLayout.available + 4 + 2 * slot, 0).ok() &&
           memory_.WritePlain<uint16_t>(kLayout.available + 2, ++offered_).ok();
  }

 private:
  const guestmem::GuestMemory& memory_;
  uint16_t offered_ = 0;
};

}  // namespace

int main() {
  const auto memory = guestmem::GuestMemory::Allocate(64 << 10).value();
  int interrupts = 0;
  virtio::BlockDevice device(memory, 16, {[&] { ++interrupts; }, [](uint64_t, std::span<const std::byte>) {}});
  if (!device.Start(kLayout).ok()) return 1;
  Guest guest(memory);
  const auto run = [&](const char* what) {
    interrupts = 0;
    if (const guestmem::Status s = device.Kick(); !s.ok()) return std::printf("%s: %s\n", what, s.ToString().c_str());
    return std::printf("%s: status %d%s", what, memory.ReadPlain<uint8_t>(kStatus).value_or(255), interrupts == 1 ? ", an interrupt" : "");
  };

  if (!memory.FillAt(kData, std::byte{0x5a}, 512).ok() || !guest.Offer({virtio::kOut, 0, 3}, false)) return 1;
  run("write");
  if (!memory.FillAt(kData, std::byte{}, 512).ok() || !guest.Offer({virtio::kIn, 0, 3}, true)) return 1;
  run("\nread");
  std::puts(memory.ReadPlain<uint64_t>(kData + 504).value_or(0) == 0x5a5a5a5a5a5a5a5a ? ", the bytes come back" : ", other bytes");

  if (!guest.Offer({virtio::kIn, 0, ~uint64_t{0}}, true)) return 1;
  run("a sector beyond the disk");
  std::puts("");

  if (!guest.Describe(0, {kHeader, 16, virtio::kNext, 0}) || !guest.Offer()) return 1;
  run("a chain that never ends");
  std::puts("");
  return 0;
}
