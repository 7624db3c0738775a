// Locking pages (SPEC 7): all or nothing, lock first, probe then.

#include "guestmem/lock.h"

#include <algorithm>
#include <new>
#include <tuple>
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
  switch (access) {
    case AccessType::kRead:
      break;
    case AccessType::kWrite:
      return call(std::integral_constant<AccessType, AccessType::kWrite>());
    case AccessType::kExecute:
      return call(std::integral_constant<AccessType, AccessType::kExecute>());
  }
  return call(std::integral_constant<AccessType, AccessType::kRead>());
}

}  // namespace

// One lock: what was asked for, how much of it is locked just now, and where it is. With its arrays in one allocation, whose
// size the guest may have chosen: it is made before anything is called, and its failure is an error.
struct LockState {
  // The part that a lock uses of one listed page.
  struct Entry {
    const Region* region;
    uint64_t offset;  // in the region
    uint64_t length;
    uint64_t gpa;

    uint64_t address() const { return region->backing_offset + offset; }  // the backing's
  };

  std::shared_ptr<const Memory> memory;
  AccessType access = AccessType::kRead;
  size_t count = 0;       // entries
  size_t locked = 0;      // entries [0, locked) are locked; a run's end
  size_t span_count = 0;  // spans and iovecs
  Entry* entries = nullptr;
  uint64_t* pages = nullptr;  // by entry: the backing's GPN
  GuestSpan* spans = nullptr;
  iovec* iovecs = nullptr;

  // Null: out of memory.
  static LockState* New(std::shared_ptr<const Memory> memory, AccessType access, size_t count);
  void Delete();

  bool SameRun(size_t i, size_t j) const { return entries[i].region == entries[j].region; }
  GuestMemoryAccess& BackingOf(size_t i) const { return *entries[i].region->backing; }

  Status Acquire(bool kernel_access);
  void Unlock();
  void MakeSpans(bool merge);

 private:
  enum class Progress { kDone, kFailed, kRefused };
  Progress LockAndProbe(bool kernel_access, Status& status, Stop& stop, size_t& refused);
  Stop Probe(const Entry& entry) const;
  size_t ProbeFrom(size_t i) const;
  Status Error(ErrorKind kind, uint64_t fault_address) const;
  Status CallbackError(size_t first, size_t end, Status cause) const;
};

LockState* LockState::New(std::shared_ptr<const Memory> memory, AccessType access, size_t count) {
  // Safe because all of these are trivial, and of alignment 8, which every size here is a multiple of.
  static_assert(std::is_trivially_copyable_v<Entry> && std::is_trivially_copyable_v<GuestSpan>);
  static_assert(alignof(LockState) == 8 && alignof(Entry) == 8 && alignof(GuestSpan) == 8 && alignof(iovec) == 8);
  constexpr size_t kEach = sizeof(Entry) + sizeof(uint64_t) + sizeof(GuestSpan) + sizeof(iovec);
  if (count > SIZE_MAX / 2 / kEach) {
    return nullptr;
  }
  auto* block = static_cast<std::byte*>(host::Allocate(sizeof(LockState) + count * kEach));
  if (block == nullptr) {
    return nullptr;
  }
  auto* state = new (block) LockState;
  block += sizeof(LockState);
  state->entries = new (block) Entry[count];
  block += count * sizeof(Entry);
  state->pages = new (block) uint64_t[count];
  block += count * sizeof(uint64_t);
  state->spans = new (block) GuestSpan[count];
  block += count * sizeof(GuestSpan);
  state->iovecs = new (block) iovec[count];
  state->memory = std::move(memory);
  state->access = access;
  state->count = count;
  return state;
}

void LockState::Delete() {
  Unlock();
  this->~LockState();
  host::Free(this);
}

void LockState::Unlock() {
  while (locked != 0) {
    size_t first = locked - 1;
    while (first != 0 && SameRun(first - 1, first)) {
      --first;
    }
    const size_t length = locked - first;
    locked = first;  // before the call: whatever happens in it, it is made once
    BackingOf(first).UnlockGpns(access, {pages + first, length});
  }
}

Status LockState::Error(ErrorKind kind, uint64_t fault_address) const {
  ErrorInfo info;
  info.kind = kind;
  info.operation = Operation::kLock;
  info.fault_address = fault_address;
  return MakeError(memory->name, std::move(info));
}

// A backing's own status about entries [first, end): the address it names counts if it is in one of them.
Status LockState::CallbackError(size_t first, size_t end, Status cause) const {
  ErrorInfo info;
  info.operation = Operation::kLock;
  info.fault_address = entries[first].gpa;
  if (cause.info().operation == Operation::kNone && cause.info().fault_address) {
    const uint64_t named = *cause.info().fault_address;
    for (size_t i = first; i < end; ++i) {
      if (named >= entries[i].address() && named - entries[i].address() < entries[i].length) {
        info.fault_address = entries[i].gpa + (named - entries[i].address());
        break;
      }
    }
  }
  info.cause = std::move(cause);
  return MakeCallbackError(memory->name, std::move(info), false);
}

Stop LockState::Probe(const Entry& entry) const {
  const Piece piece{entry.region, entry.offset, entry.length, entry.gpa - entry.offset};
  return WithAccess(access, [&](auto type) {
    ProbeTransfer<type()> transfer;
    return RunPass(piece, 0, transfer, 0);
  });
}

// The first entry from `i` on that needs Probe; `count` if none does.
size_t LockState::ProbeFrom(size_t i) const {
  return i + WithAccess(access, [&](auto type) {
           return ProbePages<type()>(count - i, [&](size_t n) {
             const Entry& entry = entries[i + n];
             return std::tuple(entry.region, entry.offset, entry.length);
           });
         });
}

// Locks every run, exposes and probes every entry. Not kDone: what is locked stays so until the caller unlocks it.
LockState::Progress LockState::LockAndProbe(bool kernel_access, Status& status, Stop& stop, size_t& refused) {
  while (locked < count) {
    const size_t first = locked;
    size_t end = first + 1;
    while (end < count && SameRun(first, end)) {
      ++end;
    }
    status = BackingOf(first).LockGpns(access, {pages + first, end - first});
    if (!status.ok()) {
      status = CallbackError(first, end, std::move(status));
      return Progress::kFailed;
    }
    locked = end;
  }
  for (size_t i = 0; kernel_access && i < count; ++i) {
    status = BackingOf(i).ExposeVa(entries[i].address(), entries[i].length);
    if (!status.ok()) {
      status = CallbackError(i, i + 1, std::move(status));
      return Progress::kFailed;
    }
  }
  for (size_t i = ProbeFrom(0); i < count; i = ProbeFrom(i + 1)) {
    stop = Probe(entries[i]);
    if (stop.offset != entries[i].length) {
      refused = i;
      return Progress::kRefused;
    }
  }
  return Progress::kDone;
}

Status LockState::Acquire(bool kernel_access) {
  for (;;) {
    Status status;
    Stop stop{};
    size_t refused = 0;
    const Progress progress = LockAndProbe(kernel_access, status, stop, refused);
    if (progress == Progress::kDone) {
      return {};
    }
    Unlock();
    if (progress == Progress::kFailed) {
      return status;
    }
    const Entry& entry = entries[refused];
    const PageFaultAction action = BackingOf(refused).PageFault(
        {entry.address() + stop.offset, entry.length - stop.offset, access, stop.bitmap_failure});
    if (action.kind() == PageFaultAction::Kind::kFallback) {
      return Error(ErrorKind::kNotLockable, entry.gpa + stop.offset);
    }
    if (action.kind() == PageFaultAction::Kind::kFail) {
      ErrorInfo info;
      info.operation = Operation::kLock;
      info.fault_address = entry.gpa + stop.offset;
      info.cause = action.status();
      return MakeCallbackError(memory->name, std::move(info), stop.write_refused);
    }
  }
}

void LockState::MakeSpans(bool merge) {
  for (size_t i = 0; i < count; ++i) {
    const Entry& entry = entries[i];
    GuestSpan* const last = span_count == 0 ? nullptr : &spans[span_count - 1];
    if (merge && last != nullptr && SameRun(i - 1, i) && pages[i - 1] + 1 == pages[i]) {
      last->size_ += entry.length;
      continue;
    }
    GuestSpan& span = spans[span_count++];
    span.base_ = entry.region->base + entry.offset;
    span.size_ = entry.length;
    span.gpa_ = entry.gpa;
    span.memory_ = memory.get();
  }
  for (size_t i = 0; i < span_count; ++i) {
    iovecs[i] = spans[i].ToIovec();
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

std::span<const GuestSpan> Lock::spans() const {
  return state_ == nullptr ? std::span<const GuestSpan>() : std::span<const GuestSpan>(state_->spans, state_->span_count);
}

std::span<const iovec> Lock::iovecs() const {
  return state_ == nullptr ? std::span<const iovec>() : std::span<const iovec>(state_->iovecs, state_->span_count);
}

}  // namespace detail

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
  auto lock = LockList(access, kernel_access, 0, gpns.size() * kPageSize, gpns, false);
  return lock.ok() ? Result<LockedPages>(LockedPages(*std::move(lock))) : Result<LockedPages>(lock.status());
}

Result<LockedRange> GuestMemory::LockRange(AccessType access, const PagedRange& range) const {
  auto lock = LockList(access, true, range.offset(), range.length(), range.gpns(), true);
  return lock.ok() ? Result<LockedRange>(LockedRange(*std::move(lock))) : Result<LockedRange>(lock.status());
}

// Locks bytes [offset, offset + length) of the listed pages laid end to end; each page is used, at least by a byte.
Result<detail::Lock> GuestMemory::LockList(AccessType access, bool kernel_access, uint64_t offset, uint64_t length,
                                           std::span<const uint64_t> gpns, bool merge) const {
  const auto error = [&](ErrorKind kind, std::optional<uint64_t> fault_address, std::optional<uint64_t> gpn) {
    ErrorInfo info;
    info.kind = kind;
    info.operation = Operation::kLock;
    info.fault_address = fault_address;
    info.gpn = gpn;
    return detail::MakeError(memory_->name, std::move(info));
  };
  if (length == 0) {
    return detail::Lock();
  }
  if (!supports_locking()) {
    return error(ErrorKind::kNotLockable, std::nullopt, std::nullopt);
  }
  const size_t count = gpns.size();
  // What the lock uses of entry i's page.
  const auto used_start = [&](size_t i) { return i == 0 ? offset : 0; };
  const auto used_length = [&](size_t i) { return std::min(offset + length - i * kPageSize, kPageSize) - used_start(i); };
  for (size_t i = 0; i < count; ++i) {
    const uint64_t gpn = gpns[i];
    if (gpn >= kFirstInvalidGpn) {
      return error(ErrorKind::kInvalidGpn, std::nullopt, gpn);
    }
    uint64_t in_region;
    const uint64_t gpa = gpn * kPageSize + used_start(i);
    if (Locate(gpa, used_length(i), in_region) == nullptr) {
      return error(ErrorKind::kOutOfRange, gpa, std::nullopt);
    }
  }
  auto* const state = detail::LockState::New(memory_, access, count);
  if (state == nullptr) {
    return error(ErrorKind::kResourceExhausted, std::nullopt, std::nullopt);
  }
  detail::Lock lock(state);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t gpa = gpns[i] * kPageSize + used_start(i);
    detail::LockState::Entry& entry = state->entries[i];
    entry.length = used_length(i);
    entry.region = Locate(gpa, entry.length, entry.offset);
    entry.gpa = gpa;
    state->pages[i] = entry.address() / kPageSize;
  }
  if (Status status = state->Acquire(kernel_access); !status.ok()) {
    return status;
  }
  state->MakeSpans(merge);
  return lock;
}

template <typename Transfer>
Status GuestSpan::Run(uint64_t offset, uint64_t length, Transfer transfer) const {
  ErrorInfo info;
  info.operation = Transfer::kOperation;
  if (offset > size_ || length > size_ - offset) {
    info.kind = ErrorKind::kInvalidArgument;
    return detail::MakeError(memory_ == nullptr ? nullptr : memory_->name, std::move(info),
                             "the bytes do not lie in the locked span");
  }
  if (length == 0) {
    return {};
  }
  const auto fault = transfer.Move(base_ + offset, 0, length);
  if (!fault) [[likely]] {
    return {};
  }
  info.range = {gpa_ + offset, length};
  info.fault_address = gpa_ + offset + fault->offset;
  info.transferred = fault->offset;
  info.cause = NotMapped();
  return detail::MakeCallbackError(memory_->name, std::move(info), fault->write_refused());
}

Status GuestSpan::CopyTo(std::span<std::byte> destination, uint64_t offset) const {
  return Run(offset, destination.size(), detail::ReadTransfer(destination.data()));
}

Status GuestSpan::CopyFrom(std::span<const std::byte> source, uint64_t offset) const {
  return Run(offset, source.size(), detail::WriteTransfer(source.data()));
}

Status GuestSpan::Fill(uint8_t value, uint64_t offset, uint64_t length) const {
  return Run(offset, length, detail::FillTransfer(value));
}

}  // namespace guestmem
