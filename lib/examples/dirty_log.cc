// A dirty log: which pages have been written since the last look, for live migration and snapshots.
//
// Pages start without their write bit. The first store to a page is refused and reaches PageFault, which marks the page,
// grants the bit and answers Retry; later stores run at full speed. Harvest revokes the bits of the marked pages, and Revoke
// returns only when no store that the old bits allowed is still running: the page may then be copied, and every
// later store marks it anew.
//
// Prints:
//   dirty: 1 5 6
//   dirty: 5
//   dirty:
//   dirty while locked for a device: 7
//   dirty while locked for a device: 7
//   dirty after the unlock: 7
//   dirty:

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include <guestmem/access_bitmap.h>
#include <guestmem/guest_memory.h>
#include <guestmem/shared_backing.h>
#include <guestmem/sparse_mapping.h>

namespace {

using guestmem::kPageSize;

class LoggedMemory final : public guestmem::SharedBacking<guestmem::SparseMapping> {
 public:
  LoggedMemory(std::shared_ptr<guestmem::SparseMapping> ram, std::shared_ptr<guestmem::AccessBitmap> bits)
      : SharedBacking(std::move(ram)), bits_(std::move(bits)) {
    (void)bits_->Revoke({0, bits_->pages()}, guestmem::kWriteAccess);
  }

  std::optional<guestmem::BitmapInfo> access_bitmap() const override { return bits_->info(); }

  guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override {
    if (!fault.bitmap_failure) return SharedBacking::PageFault(fault);  // no memory there at all
    const uint64_t page = fault.address / kPageSize;
    // Mark and grant are one step for Harvest: a bit granted after the mark was taken would let stores go unseen.
    const std::lock_guard lock(mutex_);
    dirty_.insert(page);
    guestmem::Status status = bits_->Grant({page, 1}, guestmem::kWriteAccess);
    return status.ok() ? guestmem::PageFaultAction::Retry() : guestmem::PageFaultAction::Fail(std::move(status));
  }

  // A device writes to locked pages without asking. Counted here, they cannot be revoked, and so stay dirty.
  guestmem::Status LockGpns(guestmem::AccessType, std::span<const uint64_t> gpns) override { return bits_->Lock(gpns); }
  void UnlockGpns(guestmem::AccessType, std::span<const uint64_t> gpns) override { (void)bits_->Unlock(gpns); }

  // The pages written since the last harvest. Never from within a handler or an access: Revoke waits for those.
  std::vector<uint64_t> Harvest() {
    const std::lock_guard lock(mutex_);  // handlers that wait for it are in no section, so Revoke does not wait for them
    const std::vector<uint64_t> pages(dirty_.begin(), dirty_.end());
    for (const uint64_t page : pages) {
      if (bits_->Revoke({page, 1}, guestmem::kWriteAccess).ok()) dirty_.erase(page);  // else kLocked: it stays dirty
    }
    return pages;
  }

 private:
  const std::shared_ptr<guestmem::AccessBitmap> bits_;
  std::mutex mutex_;
  std::set<uint64_t> dirty_;  // guarded by mutex_
};

void Print(const char* when, const std::vector<uint64_t>& pages) {
  std::printf("dirty%s:", when);
  for (const uint64_t page : pages) std::printf(" %llu", static_cast<unsigned long long>(page));
  std::puts("");
}

}  // namespace

int main() {
  constexpr uint64_t kPages = 16;
  auto ram = guestmem::SparseMapping::Create(kPages * kPageSize).value();
  if (!ram->Allocate(0, kPages * kPageSize).ok()) return 1;
  auto bits = guestmem::AccessBitmap::Create("ram", kPages, true).value();
  auto log = std::make_shared<LoggedMemory>(std::move(ram), std::move(bits));
  auto memory = guestmem::GuestMemory::Create("ram", log).value();

  bool ok = memory.WritePlain<uint32_t>(1 * kPageSize, 1).ok();
  ok = memory.FillAt(6 * kPageSize - 8, std::byte{0xff}, 16).ok() && ok;  // the end of page 5, the start of page 6
  Print("", log->Harvest());

  ok = memory.WritePlain<uint32_t>(5 * kPageSize, 1).ok() && ok;
  ok = memory.ReadPlain<uint32_t>(9 * kPageSize).ok() && ok;  // reading marks nothing
  Print("", log->Harvest());
  Print("", log->Harvest());

  {
    const std::array<uint64_t, 1> gpns = {7};
    auto lock = memory.LockGpns(guestmem::AccessType::kWrite, true, gpns);
    ok = lock.ok() && ok;
    Print(" while locked for a device", log->Harvest());
    Print(" while locked for a device", log->Harvest());
  }
  Print(" after the unlock", log->Harvest());
  Print("", log->Harvest());
  return ok ? 0 : 1;
}
