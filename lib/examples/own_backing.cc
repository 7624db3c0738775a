// Memory of your own: a backing with ordinary RAM, a page that refuses writes, and a page of device registers.
//
// A backing says where its memory is (mapping, max_address), which pages may be accessed directly (access_bitmap), and what
// happens when a page may not: PageFault fails the access, lets it go on, or sends it to the fallbacks. All of it is
// reached through one GuestMemory, at any address that a guest names.
//
// Prints:
//   RAM reads back 0x11223344
//   guest memory 'board': write error: failed to access 0x2004-0x2008: this page holds the firmware
//   the register at 0x3000 reads 1, then 2

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include <guestmem/access_bitmap.h>
#include <guestmem/guest_memory.h>

namespace {

using guestmem::kPageSize;

class Board final : public guestmem::GuestMemoryAccess {
 public:
  static constexpr uint64_t kPages = 4;
  static constexpr uint64_t kFirmwarePage = 2;
  static constexpr uint64_t kRegisterPage = 3;

  explicit Board(std::shared_ptr<guestmem::AccessBitmap> bits) : bits_(std::move(bits)) {
    // The bits start as "allowed". Grant and Revoke change them at any later time, too, while accesses run.
    (void)bits_->Revoke({kFirmwarePage, 1}, guestmem::kWriteAccess);
    (void)bits_->Revoke({kRegisterPage, 1}, guestmem::kAllAccess);
  }

  std::byte* mapping() const override { return const_cast<std::byte*>(ram_.data()); }
  uint64_t max_address() const override { return ram_.size(); }
  std::optional<guestmem::BitmapInfo> access_bitmap() const override { return bits_->info(); }

  // Called for an access that a bit refused. The addresses are the board's own.
  guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override {
    if (fault.address / kPageSize == kRegisterPage) return guestmem::PageFaultAction::Fallback();
    return guestmem::PageFaultAction::Fail(
        guestmem::BackendError(guestmem::StatusCode::kPermissionDenied, "this page holds the firmware"));
  }

  // Called for what PageFault sent here. A register that counts how often it has been read, four bytes at a time.
  guestmem::Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    if (address % kPageSize != 0 || destination.size() != sizeof(reads_)) return guestmem::NoFallback();
    const std::lock_guard lock(mutex_);
    ++reads_;
    std::memcpy(destination.data(), &reads_, sizeof(reads_));
    return {};
  }

 private:
  alignas(kPageSize) std::array<std::byte, kPages * kPageSize> ram_ = {};
  const std::shared_ptr<guestmem::AccessBitmap> bits_;
  std::mutex mutex_;  // any thread may read the register
  uint32_t reads_ = 0;
};

}  // namespace

int main() {
  auto bits = guestmem::AccessBitmap::Create("board", Board::kPages, true).value();
  auto memory = guestmem::GuestMemory::Create("board", std::make_shared<Board>(std::move(bits))).value();

  if (!memory.WritePlain<uint32_t>(0x100, 0x11223344).ok()) return 1;
  std::printf("RAM reads back %#" PRIx32 "\n", memory.ReadPlain<uint32_t>(0x100).value());

  std::puts(memory.WritePlain<uint32_t>(Board::kFirmwarePage * kPageSize + 4, 0).ToString().c_str());

  const uint64_t counter = Board::kRegisterPage * kPageSize;
  const uint32_t first = memory.ReadPlain<uint32_t>(counter).value();
  const uint32_t second = memory.ReadPlain<uint32_t>(counter).value();
  std::printf("the register at %#" PRIx64 " reads %" PRIu32 ", then %" PRIu32 "\n", counter, first, second);
  return 0;
}
