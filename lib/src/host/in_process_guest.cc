// The guest itself: its layout, RAM and doorbells. Regions and ROMs: in_process_regions.cc.

#include "guestmem/in_process_guest.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>
#include <utility>

#include "guestmem/fault.h"
#include "host/host_error.h"

namespace guestmem {
namespace {

// A fault beneath a doorbell, as the engine reports one elsewhere.
[[gnu::cold]] Status Beneath(uint64_t address, const Fault& fault, bool whole) {
  Status status = detail::MakeCallbackError(nullptr, Operation::kNone, NotMapped(), fault.write_refused());
  if (ErrorInfo* const info = detail::Editable(status)) {
    info->fault_address = address + fault.offset;
    info->transferred = whole ? 0 : fault.offset;
  }
  return status;
}

template <typename T>
std::optional<Fault> StoreObject(std::byte* guest, const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return TryWrite(guest, value);
}

template <typename T>
std::optional<Fault> ExchangeObject(std::byte* guest, std::byte* current, const std::byte* desired, bool& swapped) {
  T seen, wanted;
  std::memcpy(&seen, current, sizeof seen);
  std::memcpy(&wanted, desired, sizeof wanted);
  auto fault = TryCompareExchange(guest, seen, wanted, swapped);
  if (!fault) {
    std::memcpy(current, &seen, sizeof seen);
  }
  return fault;
}

}  // namespace

// What a caller of RegisterDoorbell holds, and what the table points to.
class InProcessGuest::RegisteredDoorbell final : public Doorbell {
 public:
  RegisteredDoorbell(std::shared_ptr<InProcessGuest> guest, uint64_t gpa, const DoorbellMatch& match, Event event)
      : guest_(std::move(guest)), gpa_(gpa), match_(match), event_(std::move(event)) {
    const std::lock_guard lock(guest_->bells_lock_);
    place_ = guest_->bells_.emplace(gpa, this);
  }
  ~RegisteredDoorbell() override {
    const std::lock_guard lock(guest_->bells_lock_);
    guest_->bells_.erase(place_);
    if (!guest_->HasBell(gpa_ / kPageSize)) {
      (void)guest_->bits_->Grant({gpa_ / kPageSize, 1}, kWriteAccess);  // in the bitmap, so it succeeds
    }
  }

  bool Hears(uint64_t length, uint64_t value) const {
    return (!match_.length || static_cast<uint64_t>(*match_.length) == length) &&
           (!match_.value || (length <= sizeof value && *match_.value == value));
  }
  const Event& event() const { return event_; }

 private:
  const std::shared_ptr<InProcessGuest> guest_;
  const uint64_t gpa_;
  const DoorbellMatch match_;
  const Event event_;
  Bells::iterator place_;
};

Result<std::shared_ptr<InProcessGuest>> InProcessGuest::Create(std::string_view name, uint64_t size) {
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<InProcessGuest>> {
    detail::DebugName kept(name);
    auto ram = SparseMapping::Create(size);
    if (!ram.ok()) {
      return Relabel(ram.status(), kept, 0, size);
    }
    auto bits = AccessBitmap::Create(name, ram.value()->max_address() / kPageSize, true);
    if (!bits.ok()) {
      return Relabel(bits.status(), kept, 0, size);
    }
    return std::shared_ptr<InProcessGuest>(new InProcessGuest(std::move(kept), *std::move(ram), *std::move(bits)));
  });
}

InProcessGuest::InProcessGuest(detail::DebugName name, std::shared_ptr<SparseMapping> ram, std::shared_ptr<AccessBitmap> bits)
    : name_(std::move(name)), ram_(std::move(ram)), bits_(std::move(bits)) {}

Status InProcessGuest::Error(const detail::DebugName& name, ErrorKind kind, uint64_t start, uint64_t length,
                             std::string_view message) {
  return host::CreateError(name, kind, AddressRange{start, length}, message);
}

Status InProcessGuest::Relabel(const Status& status, const detail::DebugName& name, uint64_t start, uint64_t length) {
  return status.ok() ? Status() : Error(name, status.kind(), start, length, status.rep()->message);
}

Status InProcessGuest::Claim(uint64_t gpa, uint64_t length, const detail::DebugName& name) {
  const uint64_t size = max_address();
  if (gpa % kPageSize != 0 || length % kPageSize != 0 || length == 0) {
    return Error(name, ErrorKind::kInvalidArgument, gpa, length, "not a whole number of pages");
  }
  if (gpa > size || length > size - gpa) {
    return Error(name, ErrorKind::kInvalidArgument, gpa, length, "outside the guest's memory");
  }
  const auto next = claims_.lower_bound(gpa);
  const auto previous = next == claims_.begin() ? claims_.end() : std::prev(next);
  for (const auto other : {previous, next}) {
    if (other != claims_.end() && other->first < gpa + length && gpa < other->first + other->second.length) {
      const std::string_view there = other->second.name.view();
      return Error(name, ErrorKind::kInvalidArgument, gpa, length,
                   detail::Text("'%.*s' is there", static_cast<int>(there.size()), there.data()));
    }
  }
  return detail::OrOutOfMemory([&] {
    claims_.emplace(gpa, Claimed{length, name});
    return Status();
  });
}

Status InProcessGuest::CheckUnlocked(uint64_t gpa, uint64_t length) const {
  return bits_->WaitUnlocked({gpa / kPageSize, length / kPageSize}, {});
}

Status InProcessGuest::Release(uint64_t gpa, uint64_t length) {
  Status status = CheckUnlocked(gpa, length);
  if (status.ok()) {
    status = ram_->Unmap(gpa, length);
  }
  if (status.ok()) {
    claims_.erase(gpa);
  }
  return status;
}

Status InProcessGuest::AddRam(uint64_t gpa, uint64_t length) {
  const std::lock_guard lock(layout_);
  Status status = Claim(gpa, length, name_);
  if (!status.ok()) {
    return status;
  }
  status = Relabel(ram_->Allocate(gpa, length), name_, gpa, length);
  if (!status.ok()) {
    claims_.erase(gpa);
  }
  return status;
}

Result<std::unique_ptr<Doorbell>> InProcessGuest::RegisterDoorbell(uint64_t gpa, const DoorbellMatch& match, const Event& event) {
  const std::optional<uint64_t> value = match.value;
  const auto bytes = static_cast<uint64_t>(match.length.value_or(DoorbellLength::k8));
  if (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8) {
    return Error(name_, ErrorKind::kInvalidArgument, gpa, bytes, "a doorbell's length is 1, 2, 4 or 8");
  }
  if (value && bytes < 8 && *value >> (8 * bytes) != 0) {
    return Error(name_, ErrorKind::kInvalidArgument, gpa, bytes, "the doorbell's value does not fit its length");
  }
  const uint64_t last = match.length ? bytes : 1;
  if (gpa >= max_address() || last > max_address() - gpa) {
    return Error(name_, ErrorKind::kOutOfRange, gpa, last, "outside the guest's memory");
  }
  Result<Event> own = event.Clone();
  if (!own.ok()) {
    return Relabel(own.status(), name_, gpa, last);
  }
  return detail::OrOutOfMemory([&]() -> Result<std::unique_ptr<Doorbell>> {
    auto bell = std::make_unique<RegisteredDoorbell>(shared_from_this(), gpa, match, *std::move(own));
    // What the bit allowed until now has stored its bytes when this returns.
    if (Status status = bits_->Revoke({gpa / kPageSize, 1}, kWriteAccess); !status.ok()) {
      return status;
    }
    return std::unique_ptr<Doorbell>(std::move(bell));
  });
}

Status InProcessGuest::LockGpns(AccessType, std::span<const uint64_t> gpns) {
  const std::lock_guard lock(layout_);
  return bits_->Lock(gpns);
}

void InProcessGuest::UnlockGpns(AccessType, std::span<const uint64_t> gpns) {
  (void)bits_->Unlock(gpns);  // they are locked, so it succeeds
}

bool InProcessGuest::HasBell(uint64_t page) const {
  const auto bell = bells_.lower_bound(page * kPageSize);
  return bell != bells_.end() && bell->first / kPageSize == page;
}

// Signals all that a write of `length` bytes hears; whether there was any. `value` counts up to 8 bytes.
bool InProcessGuest::Ring(uint64_t address, uint64_t length, uint64_t value) const {
  const std::lock_guard lock(bells_lock_);
  bool rung = false;
  for (auto [bell, end] = bells_.equal_range(address); bell != end; ++bell) {
    if (bell->second->Hears(length, value)) {
      bell->second->event().Signal();
      rung = true;
    }
  }
  return rung;
}

std::optional<BitmapInfo> InProcessGuest::access_bitmap() const { return BitmapInfo{nullptr, bits_->info().write, nullptr, 0}; }

PageFaultAction InProcessGuest::PageFault(const PageFaultInfo& fault) {
  if (!fault.bitmap_failure) {
    return GuestMemoryAccess::PageFault(fault);
  }
  const std::lock_guard lock(bells_lock_);
  // Without a bell there the last one has just been dropped, and the bit is set again.
  return HasBell(fault.address / kPageSize) ? PageFaultAction::Fallback() : PageFaultAction::Retry();
}

Status InProcessGuest::WriteFallback(uint64_t address, std::span<const std::byte> source) {
  uint64_t value = 0;
  std::memcpy(&value, source.data(), std::min(source.size(), sizeof value));
  if (Ring(address, source.size(), value)) {
    return {};
  }
  std::byte* const guest = mapping() + address;
  std::optional<Fault> fault;
  bool whole = true;
  switch (source.size()) {
    case 1:
      fault = StoreObject<uint8_t>(guest, source.data());
      break;
    case 2:
      fault = StoreObject<uint16_t>(guest, source.data());
      break;
    case 4:
      fault = StoreObject<uint32_t>(guest, source.data());
      break;
    case 8:
      fault = StoreObject<uint64_t>(guest, source.data());
      break;
    default:
      fault = TryCopy(GuestSide::kDestination, guest, source.data(), source.size());
      whole = false;
      break;
  }
  return fault ? Beneath(address, *fault, whole) : Status();
}

Status InProcessGuest::FillFallback(uint64_t address, std::byte value, uint64_t length) {
  uint64_t stored = 0;
  std::memset(&stored, std::to_integer<int>(value), std::min<uint64_t>(length, sizeof stored));
  if (Ring(address, length, stored)) {
    return {};
  }
  const auto fault = TryFill(mapping() + address, value, length);
  return fault ? Beneath(address, *fault, false) : Status();
}

Result<bool> InProcessGuest::CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                                     std::span<const std::byte> desired) {
  std::byte* const guest = mapping() + address;
  bool swapped = false;
  std::optional<Fault> fault;
  switch (current.size()) {
    case 1:
      fault = ExchangeObject<uint8_t>(guest, current.data(), desired.data(), swapped);
      break;
    case 2:
      fault = ExchangeObject<uint16_t>(guest, current.data(), desired.data(), swapped);
      break;
    case 4:
      fault = ExchangeObject<uint32_t>(guest, current.data(), desired.data(), swapped);
      break;
    default:
      fault = ExchangeObject<uint64_t>(guest, current.data(), desired.data(), swapped);
      break;
  }
  return fault ? Result<bool>(Beneath(address, *fault, true)) : Result<bool>(swapped);
}

}  // namespace guestmem
