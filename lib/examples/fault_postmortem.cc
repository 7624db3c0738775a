// A fault's postmortem: what an error says, for a device that must report how far it came.
//
// An error is a value. Its kind is for decisions, its range, fault address and count for the device's completion, its text for
// the log; a backing's own status is in `cause`. Addresses are those of the GuestMemory that the caller used.
//
// Prints:
//   guest memory 'ram': write error: failed to access 0x1f00-0x2100 at 0x2000: the page is mapped read-only or not at all
//     not mapped, at 0x2000, 256 bytes transferred, 256 left
//   guest memory 'ram': read error: failed to access 0xfffffffffffffff0+0x40: the range is not inside memory
//     out of range, at 0xfffffffffffffff0, 0 bytes transferred, 64 left
//   guest memory 'ram': read error: failed to access 0xf00-0x1100 at 0x1000: the page is not mapped
//     not mapped, at 0x1000, 256 bytes transferred, 256 left
//   guest memory 'ram': compare exchange error: failed to access 0x2-0x6: the address is not naturally aligned
//     misaligned, at 0x2, 0 bytes transferred, 4 left
//   guest memory 'disk': read error: failed to access 0x0-0x10: the snapshot is gone
//     backend, at 0x0, 0 bytes transferred, 16 left
//     the backing's own status has code 15

#include <array>
#include <cinttypes>
#include <cstdio>
#include <memory>

#include <guestmem/guest_memory.h>
#include <guestmem/sparse_mapping.h>

namespace {

// What a device would put into its completion, and a person into a bug report.
void Explain(const guestmem::Status& status) {
  if (status.ok()) return;
  std::puts(status.ToString().c_str());
  const guestmem::ErrorInfo& error = status.info();
  std::printf("  %s", guestmem::Name(error.kind));
  if (error.fault_address) std::printf(", at 0x%" PRIx64, *error.fault_address);
  std::printf(", %" PRIu64 " bytes transferred", error.transferred);
  if (error.range) std::printf(", %" PRIu64 " left", error.range->length - error.transferred);
  std::puts("");
  if (error.kind == guestmem::ErrorKind::kBackend) std::printf("  the backing's own status has code %d\n", static_cast<int>(error.cause.code()));
}

// A backing without a mapping: each access is a call of its fallback, and this one's always fails.
class LostSnapshot final : public guestmem::GuestMemoryAccess {
 public:
  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return guestmem::kPageSize; }
  guestmem::Status ReadFallback(uint64_t address, std::span<std::byte>) override {
    return guestmem::BackendError(guestmem::StatusCode::kDataLoss, "the snapshot is gone", address);
  }
};

}  // namespace

int main() {
  auto ram = guestmem::SparseMapping::Create(4 * guestmem::kPageSize).value();
  if (!ram->Allocate(0, 2 * guestmem::kPageSize).ok()) return 1;  // pages 2 and 3 are holes
  auto memory = guestmem::GuestMemory::Create("ram", ram).value();
  std::array<std::byte, 512> packet = {};

  Explain(memory.WriteAt(0x1f00, packet));
  Explain(memory.ReadAt(uint64_t{0} - 16, std::span(packet).first(64)));

  // A view starts at 0, and so do the addresses in its errors.
  auto view = memory.Subrange(0x1000, 0x2000).value();
  Explain(view.ReadAt(0xf00, packet));

  Explain(memory.CompareExchange<uint32_t>(2, 0, 1).status());

  auto disk = guestmem::GuestMemory::Create("disk", std::make_shared<LostSnapshot>()).value();
  Explain(disk.ReadAt(0, std::span(packet).first(16)));
  return 0;
}
