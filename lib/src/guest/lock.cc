// Locking pages (SPEC 7): all or nothing, lock first, probe then.

#include "guestmem/lock.h"

#include <algorithm>
#include <new>
#include <type_traits>
#include <utility>

#include "guest/piece.h"
#include "guest/transfers.h"
#include "guestmem/guest_memory.h"
#include "guestmem/paged_range.h"
#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem {
namespace detail {
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

// What a lock shall be of: bytes [offset, offset + length) of the listed pages laid end to end, each used at least by a byte.
struct LockRequest {
  AccessType access;
  bool kernel_access;
  bool merge;  // neighbouring pages make one span
  uint64_t offset;
  uint64_t length;
  std::span<const uint64_t> gpns;

  // Where the used part of the i-th page begins among all used bytes; of one page too many: their number.
  uint64_t Position(size_t i) const {
    return i == 0 ? 0 : i == gpns.size() ? length : i * kPageSize - offset;
  }
  uint64_t LengthOf(size_t i) const { return Position(i + 1) - Position(i); }
  // The GPA of its first byte.
  uint64_t StartOf(size_t i) const { return gpns[i] * kPageSize + (i == 0 ? offset : 0); }
};

// One lock: what was asked for, how much of it is locked just now, and where it is. With its arrays in one allocation, whose
// size the guest may have chosen: it is made before anything is called, and its failure is an error. A page costs what has to
// be known of it, no more: a lock may be of all memory.
struct LockState {
  // The part that a lock uses of one listed page.
  struct Entry {
    const Region* region;
    uint64_t offset;  // in the region
    uint64_t length;

    uint64_t address() const { return region->backing_offset + offset; }  // the backing's
    uint64_t gpa() const { return region->start + offset; }
  };

  std::shared_ptr<const Memory> memory;
  LockRequest request;               // its list is `pages`
  size_t count;                      // entries
  size_t locked = 0;                // entries [0, locked) are locked; a run's end
  size_t span_count = 0;
  bool all_inside = true;           // the memory has one region, and each GPN listed is of a whole page of it
  uint64_t* pages = nullptr;        // by entry: the GPN as listed; once all are found to lie in memory, the backing's
  const Region** regions = nullptr;  // by entry; null: the memory has one
  size_t* first_entries = nullptr;  // by span; null: each entry is one
  iovec* iovecs = nullptr;          // by span; null: no kernel access

  // Null: out of memory.
  static LockState* New(std::shared_ptr<const Memory> memory, const LockRequest& request);
  void Delete();

  const Region& RegionOf(size_t i) const { return regions == nullptr ? memory->regions[0] : *regions[i]; }
  GuestMemoryAccess& BackingOf(size_t i) const { return *RegionOf(i).backing; }
  Entry At(size_t i) const {
    const Region& region = RegionOf(i);
    return {&region, pages[i] * kPageSize - region.backing_offset + (i == 0 ? request.offset : 0), request.LengthOf(i)};
  }
  size_t FirstOfRun(size_t end) const;
  size_t EndOfRun(size_t first) const;
  size_t FirstEntry(size_t span) const {
    return span == span_count ? count : first_entries == nullptr ? span : first_entries[span];
  }

  Status Acquire();
  void Unlock();
  void MakeSpans();

 private:
  enum class Progress { kDone, kFailed, kRefused };
  Progress LockAndProbe(Status& status, Stop& stop, size_t& refused);
  Stop Probe(const Entry& entry) const;
  size_t ProbeFrom(size_t i) const;
  bool FindRefused(size_t from, Stop& stop, size_t& refused) const;
  Status Error(ErrorKind kind, uint64_t fault_address) const;
  Status Error(Status cause, uint64_t fault_address, bool write_refused) const;
  Status CallbackError(size_t first, size_t end, Status cause) const;
};

LockState* LockState::New(std::shared_ptr<const Memory> memory, const LockRequest& request) {
  // Safe because all of these are trivial, and of alignment 8, which every size here is a multiple of.
  static_assert(alignof(LockState) == 8 && alignof(iovec) == 8 && sizeof(size_t) == 8);
  const size_t count = request.gpns.size();
  const bool several = memory->regions.size() > 1;
  const size_t each = sizeof(uint64_t) + (several ? sizeof(Region*) : 0) + (request.merge ? sizeof(size_t) : 0) +
                      (request.kernel_access ? sizeof(iovec) : 0);
  // Cannot wrap: the list is in memory, and an entry takes no more than 5 times as much.
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
  }
  state->request.gpns = {state->pages, count};
  return state;
}

// Neighbouring entries in one backing are one run, locked by one call.
size_t LockState::FirstOfRun(size_t end) const {
  if (regions == nullptr) {
    return 0;
  }
  size_t first = end - 1;
  while (first != 0 && regions[first - 1]->backing == regions[end - 1]->backing) {
    --first;
  }
  return first;
}

size_t LockState::EndOfRun(size_t first) const {
  if (regions == nullptr) {
    return count;
  }
  size_t end = first + 1;
  while (end < count && regions[end]->backing == regions[first]->backing) {
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

// The first entry from `i` on that needs Probe; `count` if none does.
size_t LockState::ProbeFrom(size_t i) const {
  if (i == 0 && request.offset != 0) {
    return 0;
  }
  return i + WithAccess(request.access, [&](auto type) {
           return ProbePages<type()>({pages + i, count - i}, [&](size_t n) {
             const Region& region = RegionOf(i + n);
             return ListedPage{&region, region.backing_offset / kPageSize, regions == nullptr ? count : 1};
           });
         });
}

// Whether a probe of an entry from `from` on is refused: which, and where.
bool LockState::FindRefused(size_t from, Stop& stop, size_t& refused) const {
  for (refused = ProbeFrom(from); refused < count; refused = ProbeFrom(refused + 1)) {
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
    Status status;
    Stop stop{};
    size_t refused = 0;
    const Progress progress = LockAndProbe(status, stop, refused);
    if (progress == Progress::kDone) {
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
  bool any = false;
  for (const detail::Region& region : memory_->regions) {
    if (region.backing == nullptr) {
      continue;
    }
    if (!region.lockable || region.backing_offset % kPageSize != 0) {
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
  const auto error = [&](ErrorKind kind, std::optional<uint64_t> fault_address, std::optional<uint64_t> gpn) {
    return detail::MakeError(&memory_->name,
                             {.kind = kind, .operation = Operation::kLock, .fault_address = fault_address, .gpn = gpn});
  };
  if (list.length == 0) {
    return detail::Lock();
  }
  if (Rcu::InSection()) {
    return detail::MakeCallbackError(&memory_->name, Operation::kLock, detail::InsideSection(), false);
  }
  if (!supports_locking()) {
    return error(ErrorKind::kNotLockable, std::nullopt, std::nullopt);
  }
  auto* const state = detail::LockState::New(memory_, list);
  if (state == nullptr) {
    return error(ErrorKind::kResourceExhausted, std::nullopt, std::nullopt);
  }
  detail::Lock lock(state);
  const detail::LockRequest& request = state->request;
  const std::span<const uint64_t> gpns = request.gpns;
  if (const size_t i = state->all_inside ? gpns.size() : FirstOutside(request); i != gpns.size()) {
    return gpns[i] >= kFirstInvalidGpn ? error(ErrorKind::kInvalidGpn, std::nullopt, gpns[i])
                                       : error(ErrorKind::kOutOfRange, request.StartOf(i), std::nullopt);
  }
  const auto page_of = [](const detail::Region& region, uint64_t gpn) {
    return gpn - region.start / kPageSize + region.backing_offset / kPageSize;
  };
  if (state->regions == nullptr) {
    if (const uint64_t distance = page_of(regions_[0], 0); distance != 0) {
      std::transform(gpns.begin(), gpns.end(), state->pages, [=](uint64_t gpn) { return gpn + distance; });
    }
  } else {
    for (size_t i = 0; i < gpns.size(); ++i) {
      state->regions[i] = &RegionOf(gpns[i] * kPageSize);
      state->pages[i] = page_of(*state->regions[i], gpns[i]);
    }
  }
  if (Status status = state->Acquire(); !status.ok()) {
    return status;
  }
  state->MakeSpans();
  return lock;
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
