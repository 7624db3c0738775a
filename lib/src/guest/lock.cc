// Locks and their spans, as GuestMemory gives them (SPEC 7).

#include "guestmem/lock.h"

#include <algorithm>
#include <utility>

#include "guest/live.h"
#include "guest/lock_state.h"
#include "guest/piece.h"
#include "guest/transfers.h"
#include "guestmem/guest_memory.h"
#include "guestmem/paged_range.h"
#include "types/error_rep.h"

namespace guestmem {
namespace detail {

Lock::Lock(Lock&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}

Lock& Lock::operator=(Lock&& other) noexcept {
  Lock taken(std::move(other));
  std::swap(state_, taken.state_);
  return *this;
}

Lock::~Lock() {
  if (state_ != nullptr) {
    state_->Delete();
  }
}

std::span<const iovec> Lock::iovecs() const& {
  return state_ == nullptr || state_->iovecs == nullptr ? std::span<const iovec>()
                                                        : std::span<const iovec>(state_->iovecs, state_->span_count);
}

}  // namespace detail

size_t GuestSpans::size() const { return lock_ == nullptr ? 0 : lock_->span_count; }

GuestSpan GuestSpans::operator[](size_t i) const {
  const size_t first = lock_->FirstEntry(i);
  const detail::LockState::Entry entry = lock_->At(first);
  GuestSpan span;
  span.base_ = entry.region->base + entry.offset;
  span.size_ = lock_->request.Position(lock_->FirstEntry(i + 1)) - lock_->request.Position(first);
  span.gpa_ = entry.gpa();
  span.memory_ = lock_->memory.get();
  span.writable_ = lock_->request.access == AccessType::kWrite;
  return span;
}

bool GuestMemory::supports_locking() const {
  const auto lockable = [](const detail::Region& region) { return region.lockable && region.backing_offset % kPageSize == 0; };
  if (memory_->space != nullptr) {
    const auto layout = memory_->space->Current();
    const detail::Slots& slots = layout->slots();
    if (memory_->slot != nullptr) {
      return lockable(memory_->part) && layout->Find(memory_->slot->start) == memory_->slot.get();
    }
    return !slots.empty() && std::all_of(slots.begin(), slots.end(), [&](const auto& slot) { return lockable(*slot); });
  }
  bool any = false;
  for (const detail::Region& region : memory_->regions) {
    if (region.backing == nullptr) {
      continue;
    }
    if (!lockable(region)) {
      return false;
    }
    any = true;
  }
  return any;
}

Result<LockedPages> GuestMemory::LockGpns(AccessType access, bool kernel_access, std::span<const uint64_t> gpns) const {
  auto lock = LockList({access, kernel_access, false, 0, gpns.size() * kPageSize, gpns});
  return lock.ok() ? Result<LockedPages>(LockedPages(*std::move(lock))) : Result<LockedPages>(lock.status());
}

Result<LockedRange> GuestMemory::LockRange(AccessType access, const PagedRange& range) const {
  auto lock = LockList({access, true, true, range.offset(), range.length(), range.gpns()});
  return lock.ok() ? Result<LockedRange>(LockedRange(*std::move(lock))) : Result<LockedRange>(lock.status());
}

// The first entry whose page does not lie in memory, as far as it is used; the number of entries if all do.
size_t GuestMemory::FirstOutside(const detail::LockRequest& request) const {
  const std::span<const uint64_t> gpns = request.gpns;
  for (size_t i = 0; i < gpns.size(); ++i) {
    uint64_t offset;
    if (gpns[i] >= kFirstInvalidGpn || Locate(request.StartOf(i), request.LengthOf(i), offset) == nullptr) {
      return i;
    }
  }
  return gpns.size();
}

Result<detail::Lock> GuestMemory::LockList(const detail::LockRequest& list) const {
  if (list.length == 0) {
    return detail::Lock();
  }
  if (Rcu::InSection()) {
    return detail::MakeCallbackError(&memory_->name, Operation::kLock, detail::InsideSection(), false);
  }
  const bool live = memory_->space != nullptr;
  if (!live && !supports_locking()) {
    return detail::MakeError(&memory_->name, ErrorKind::kNotLockable, Operation::kLock);
  }
  auto* const state = detail::LockState::New(memory_, list);
  if (state == nullptr) {
    return detail::MakeError(&memory_->name, ErrorKind::kResourceExhausted, Operation::kLock);
  }
  detail::Lock lock(state);
  if (Status status = live ? state->Acquire() : AcquireFixed(*state); !status.ok()) {
    return status;
  }
  state->MakeSpans();
  return lock;
}

// Finds the entries of a lock in fixed memory, and acquires it.
Status GuestMemory::AcquireFixed(detail::LockState& state) const {
  const std::span<const uint64_t> gpns = state.request.gpns;
  if (const size_t i = state.all_inside ? gpns.size() : FirstOutside(state.request); i != gpns.size()) {
    return state.Outside(i);
  }
  const auto page_of = [](const detail::Region& region, uint64_t gpn) {
    return gpn - region.start / kPageSize + region.backing_offset / kPageSize;
  };
  if (state.regions == nullptr) {
    if (const uint64_t distance = page_of(regions_[0], 0); distance != 0) {
      std::transform(gpns.begin(), gpns.end(), state.pages, [=](uint64_t gpn) { return gpn + distance; });
    }
  } else {
    for (size_t i = 0; i < gpns.size(); ++i) {
      state.regions[i] = &RegionOf(gpns[i] * kPageSize);
      state.pages[i] = page_of(*state.regions[i], gpns[i]);
    }
  }
  return state.Acquire();
}

template <typename Transfer>
Status GuestSpan::Run(uint64_t offset, uint64_t length, Transfer transfer) const {
  const bool refused = Transfer::kAccess == AccessType::kWrite && !writable_;
  if (refused || offset > size_ || length > size_ - offset) {
    return detail::MakeError(memory_ == nullptr ? nullptr : &memory_->name, ErrorKind::kInvalidArgument, Transfer::kOperation,
                             refused ? "the span was not locked for writing" : "the bytes do not lie in the locked span");
  }
  if (length == 0) {
    return {};
  }
  std::byte* const guest = base_ + offset;
  std::optional<Fault> fault;
  bool overlaps = false;
  if constexpr (requires { transfer.host; }) {
    overlaps = detail::Overlaps(transfer.host, guest, length);
    if (overlaps) [[unlikely]] {  // the host's bytes are locked memory, too: the guest decides whether the same
      detail::OverlapCopy copy;
      if (!copy.Reserve(length)) {
        return detail::MakeError(&memory_->name, ErrorKind::kResourceExhausted, Transfer::kOperation);
      }
      copy.Run(transfer, 0, length, [&](Transfer& through) {
        fault = through.Move(guest, 0, length);
        return !fault;
      });
    }
  }
  if (!overlaps) {
    fault = transfer.Move(guest, 0, length);
  }
  if (!fault) [[likely]] {
    return {};
  }
  Status status = detail::MakeCallbackError(&memory_->name, Transfer::kOperation, NotMapped(), fault->write_refused());
  if (ErrorInfo* const made = detail::Editable(status)) {
    made->range = {gpa_ + offset, length};
    made->fault_address = gpa_ + offset + fault->offset;
    made->transferred = overlaps ? 0 : fault->offset;
  }
  return status;
}

Status GuestSpan::CopyTo(std::span<std::byte> destination, uint64_t offset) const {
  return Run(offset, destination.size(), detail::ReadTransfer(destination.data()));
}

Status GuestSpan::CopyFrom(std::span<const std::byte> source, uint64_t offset) const {
  return Run(offset, source.size(), detail::WriteTransfer(source.data()));
}

Status GuestSpan::Fill(std::byte value, uint64_t offset, uint64_t length) const {
  return Run(offset, length, detail::FillTransfer(value));
}

}  // namespace guestmem
