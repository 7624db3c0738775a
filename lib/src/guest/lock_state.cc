#include "guest/lock_state.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>

#include "guest/live.h"
#include "guest/transfers.h"
#include "guestmem/guest_memory.h"
#include "guestmem/lock.h"
#include "host/host_calls.h"

namespace guestmem::detail {
namespace {

// Calls `call` with an integral_constant of `access`.
template <typename Call>
auto WithAccess(AccessType access, Call call) {
  if (access == AccessType::kWrite) {
    return call(std::integral_constant<AccessType, AccessType::kWrite>());
  }
  if (access == AccessType::kExecute) {
    return call(std::integral_constant<AccessType, AccessType::kExecute>());
  }
  return call(std::integral_constant<AccessType, AccessType::kRead>());
}

}  // namespace

LockState* LockState::New(std::shared_ptr<const Memory> memory, const LockRequest& request) {
  // Safe because all of these are trivial, and of alignment 8, which every size here is a multiple of.
  static_assert(alignof(LockState) == 8 && alignof(iovec) == 8 && sizeof(size_t) == 8);
  const size_t count = request.gpns.size();
  const bool live = memory->space != nullptr;
  const bool several = memory->regions.size() > 1 || live;
  const size_t each = sizeof(uint64_t) + (several ? sizeof(Region*) : 0) + (live ? sizeof(uint64_t) : 0) +
                      (request.merge ? sizeof(size_t) : 0) + (request.kernel_access ? sizeof(iovec) : 0);
  // Cannot wrap: the list is in memory, and an entry takes no more than 6 times as much.
  auto* block = static_cast<std::byte*>(host::Allocate(sizeof(LockState) + count * each));
  if (block == nullptr) {
    return nullptr;
  }
  auto* state = new (block) LockState;
  block += sizeof(LockState);
  const auto take = [&]<typename T>(T*& array, bool wanted) {
    if (wanted) {
      array = new (block) T[count];
      block += count * sizeof(T);
    }
  };
  take(state->pages, true);
  take(state->regions, several);
  take(state->listed, live);
  take(state->first_entries, request.merge);
  take(state->iovecs, request.kernel_access);
  state->memory = std::move(memory);
  state->request = request;
  state->count = count;
  // The caller's list is read once: somebody else may change it at any moment.
  const uint64_t pages_of_one = several ? 0 : state->memory->regions[0].size / kPageSize;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t gpn = ListedGpn(request.gpns[i]);
    state->pages[i] = gpn;
    state->all_inside &= gpn < pages_of_one;
    if (live) {
      state->listed[i] = gpn;
    }
  }
  state->request.gpns = {state->pages, count};
  return state;
}

// Neighbouring entries in one backing, and in an address space in one slot, are one run, locked by one call.
bool LockState::InOneRun(size_t i, size_t j) const {
  return memory->space != nullptr ? regions[i] == regions[j] : regions[i]->backing == regions[j]->backing;
}

size_t LockState::FirstOfRun(size_t end) const {
  if (regions == nullptr) {
    return 0;
  }
  size_t first = end - 1;
  while (first != 0 && InOneRun(first - 1, end - 1)) {
    --first;
  }
  return first;
}

size_t LockState::EndOfRun(size_t first) const {
  if (regions == nullptr) {
    return count;
  }
  size_t end = first + 1;
  while (end < count && InOneRun(end, first)) {
    ++end;
  }
  return end;
}

void LockState::Delete() {
  Unlock();
  this->~LockState();
  host::Free(this);
}

void LockState::Unlock() {
  while (locked != 0) {
    const size_t end = locked;
    locked = FirstOfRun(end);  // before the call: whatever happens in it, it is made once
    BackingOf(locked).UnlockGpns(request.access, {pages + locked, end - locked});
  }
  Unpin();
}

Status LockState::Outside(size_t i) const {
  const uint64_t gpn = request.gpns[i];
  if (gpn < kFirstInvalidGpn) {
    return Error(ErrorKind::kOutOfRange, request.StartOf(i));
  }
  return MakeError(&memory->name, {.kind = ErrorKind::kInvalidGpn, .operation = Operation::kLock, .gpn = gpn});
}

Status LockState::PinIn(bool& closing) {
  for (size_t i = 0; i < count; ++i) {
    const uint64_t gpa = request.StartOf(i);
    const Piece piece = listed[i] >= kFirstInvalidGpn ? Piece{nullptr, 0, 0} : LivePiece(*memory, *layout, gpa, request.LengthOf(i));
    if (piece.region == nullptr || piece.length != request.LengthOf(i)) {
      return Outside(i);
    }
    const Region& region = *piece.region;
    if (!region.lockable || region.backing_offset % kPageSize != 0) {
      return MakeError(&memory->name, ErrorKind::kNotLockable, Operation::kLock);
    }
    if (request.access == AccessType::kWrite && region.read_only) {
      return Error(MakeStatus({.kind = ErrorKind::kAccessDenied}, "the slot is read-only"), gpa, false);
    }
    regions[i] = &region;
    pages[i] = listed[i] - region.start / kPageSize + region.backing_offset / kPageSize;
    closing |= SlotOf(i).closing;
  }
  return {};
}

Status LockState::Pin() {
  Space& space = *memory->space;
  for (;;) {
    std::shared_ptr<const Layout> previous;  // may destroy backings: with nothing locked
    std::unique_lock lock(space.locks);
    previous = std::exchange(layout, space.layout);
    bool closing = false;
    request.gpns = {listed, count};  // errors name pages of it
    Status status = PinIn(closing);
    request.gpns = {pages, count};
    if (!status.ok()) {
      return status;
    }
    if (!closing) {
      PinFound();
      return {};
    }
    space.reopened.wait_until(lock, std::chrono::steady_clock::time_point::max(), [&] {
      const Slots& slots = layout->slots();
      return space.layout != layout || std::none_of(slots.begin(), slots.end(), [](const auto& slot) { return slot->closing; });
    });
  }
}

void LockState::PinFound() {
  for (size_t i = 0; i < count; ++i) {
    ++SlotOf(i).locks;
  }
  next = memory->space->held;
  link = &memory->space->held;
  if (next != nullptr) {
    next->link = &next;
  }
  *link = this;
  pinned = true;
}

void LockState::Unpin() {
  if (!pinned) {
    return;
  }
  const std::lock_guard lock(memory->space->locks);
  for (size_t i = 0; i < count; ++i) {
    --SlotOf(i).locks;
  }
  *link = next;
  if (next != nullptr) {
    next->link = link;
  }
  pinned = false;
}

Status LockState::Error(ErrorKind kind, uint64_t fault_address) const {
  return MakeError(&memory->name, {.kind = kind, .operation = Operation::kLock, .fault_address = fault_address});
}

Status LockState::Error(Status cause, uint64_t fault_address, bool write_refused) const {
  Status status = MakeCallbackError(&memory->name, Operation::kLock, std::move(cause), write_refused);
  if (ErrorInfo* const info = Editable(status)) {
    info->fault_address = fault_address;
  }
  return status;
}

// A backing's own status about entries [first, end): the address it names counts if it is in one of them.
Status LockState::CallbackError(size_t first, size_t end, Status cause) const {
  uint64_t fault_address = At(first).gpa();
  if (cause.info().operation == Operation::kNone && cause.info().fault_address) {
    const uint64_t named = *cause.info().fault_address;
    for (size_t i = first; i < end; ++i) {
      const Entry entry = At(i);
      if (named >= entry.address() && named - entry.address() < entry.length) {
        fault_address = entry.gpa() + (named - entry.address());
        break;
      }
    }
  }
  Status status = Error(std::move(cause), fault_address, false);
  if (ErrorInfo* const info = Editable(status)) {
    info->gpn = NamedGpn(RegionOf(first), info->cause);
  }
  return status;
}

Stop LockState::Probe(const Entry& entry) const {
  const Piece piece{entry.region, entry.offset, entry.length};
  return WithAccess(request.access, [&](auto type) {
    ProbeTransfer<type()> transfer;
    Checked checked;
    return RunPass(piece, 0, transfer, 0, checked);
  });
}

// What no page is in.
constinit const Window kNothing = {};

// The first entry from `i` on that needs Probe; `count` if none does.
size_t LockState::ProbeFrom(size_t i) const {
  if (i == 0 && request.offset != 0) {
    return 0;
  }
  return i + WithAccess(request.access, [&](auto type) {
           return ProbePages<type()>({pages + i, count - i}, [&](size_t n) {
             const Region& region = RegionOf(i + n);
             return ListedPage{HasMoved() ? &kNothing : &region, region.backing_offset / kPageSize, regions == nullptr ? count : 1};
           });
         });
}

// Whether a probe of an entry from `from` on is refused: which, and where.
bool LockState::FindRefused(size_t from, Stop& stop, size_t& refused) const {
  for (refused = ProbeFrom(from); refused < count; refused = ProbeFrom(refused + 1)) {
    const ReadSection section(layout != nullptr && !pinned);
    if (HasMoved()) {
      return false;  // the lock starts over, elsewhere
    }
    const Entry entry = At(refused);
    stop = Probe(entry);
    if (stop.offset != entry.length) {
      return true;
    }
  }
  return false;
}

// Locks every run, exposes and probes every entry. Not kDone: what is locked stays so until the caller unlocks it.
LockState::Progress LockState::LockAndProbe(Status& status, Stop& stop, size_t& refused) {
  while (locked < count) {
    const size_t first = locked;
    const size_t end = EndOfRun(first);
    status = BackingOf(first).LockGpns(request.access, {pages + first, end - first});
    if (!status.ok()) {
      status = CallbackError(first, end, std::move(status));
      return Progress::kFailed;
    }
    locked = end;
  }
  for (size_t i = 0; request.kernel_access && i < count; ++i) {
    const Entry entry = At(i);
    status = BackingOf(i).ExposeVa(entry.address(), entry.length);
    if (!status.ok()) {
      status = CallbackError(i, i + 1, std::move(status));
      return Progress::kFailed;
    }
  }
  return FindRefused(0, stop, refused) ? Progress::kRefused : Progress::kDone;
}

Status LockState::Acquire() {
  for (;;) {
    Status status = memory->space != nullptr ? Pin() : Status();
    if (!status.ok()) {
      return status;
    }
    Stop stop{};
    size_t refused = 0;
    const Progress progress = LockAndProbe(status, stop, refused);
    if (progress == Progress::kDone) {
      layout.reset();  // what is counted stays
      return {};
    }
    Unlock();
    if (progress == Progress::kFailed) {
      return status;
    }
    // What else is refused from there on is asked for before the lock starts over: a guest may list many pages that are not there,
    // and each would cost a lock of all of them.
    do {
      const Entry entry = At(refused);
      const PageFaultAction action = BackingOf(refused).PageFault(
          {entry.address() + stop.offset, entry.length - stop.offset, request.access, stop.bitmap_failure});
      if (action.kind() == PageFaultAction::Kind::kFallback) {
        return Error(ErrorKind::kNotLockable, entry.gpa() + stop.offset);
      }
      if (action.kind() == PageFaultAction::Kind::kFail) {
        return Error(action.status(), entry.gpa() + stop.offset, stop.write_refused);
      }
    } while (FindRefused(refused, stop, refused));
  }
}

void LockState::MakeSpans() {
  span_count = count;
  if (request.merge) {
    span_count = 0;
    for (size_t i = 0; i < count; ++i) {
      if (i == 0 || &RegionOf(i - 1) != &RegionOf(i) || pages[i - 1] + 1 != pages[i]) {
        first_entries[span_count++] = i;
      }
    }
  }
  for (size_t i = 0; iovecs != nullptr && i < span_count; ++i) {
    iovecs[i] = GuestSpans(this)[i].ToIovec();
  }
}

}  // namespace guestmem::detail
