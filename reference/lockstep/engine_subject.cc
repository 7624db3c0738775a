#include "reference/lockstep/engine_subject.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "guestmem/detail/host_calls.h"
#include "guestmem/guest_memory.h"
#include "guestmem/shared_backing.h"
#include "reference/lockstep/engine_made.h"
#include "reference/lockstep/engine_observe.h"
#include "reference/lockstep/engine_ranges.h"
#include "reference/lockstep/scripted_backing.h"

namespace reference {
namespace {

using guestmem::GuestMemory;
using guestmem::Status;

// Host calls left until one fails; 0: none will.
unsigned g_calls_to_failure = 0;

// The errno it fails with, and whether a change that takes two host calls fails at the second.
int g_host_error = 0;
bool g_fail_second = false;

// One change of a mapping is one host call to a trace, also where the library needs a second one to put it in place.
bool FailHostCall(guestmem::detail::HostCall call) {
  if (call == guestmem::detail::HostCall::kCountLocks) {
    return false;  // unit tests fail these
  }
  errno = g_host_error;
  static bool second_fails = false;
  bool fails = false;
  if (call == guestmem::detail::HostCall::kMremap) {
    fails = std::exchange(second_fails, false);
  } else if (g_calls_to_failure != 0) {
    const bool now = --g_calls_to_failure == 0;
    second_fails = now && g_fail_second && g_two_host_calls;
    fails = now && !second_fails;
  }
  g_failed_host_calls += fails ? 1 : 0;
  return fails;
}

int Errno(HostError error) {
  constexpr int kErrnos[] = {0, EACCES, EBADF, EFAULT, EINVAL, ENODEV, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM};
  static_assert(std::size(kErrnos) == kHostErrors);  // the library's own choice, ENOMEM, is the first
  return kErrnos[static_cast<size_t>(error)];
}

ErrorKind Kind(guestmem::ErrorKind kind) {
  switch (kind) {
    case guestmem::ErrorKind::kOutOfRange: return ErrorKind::kOutOfRange;
    case guestmem::ErrorKind::kAccessDenied: return ErrorKind::kAccessDenied;
    case guestmem::ErrorKind::kNotMapped: return ErrorKind::kNotMapped;
    case guestmem::ErrorKind::kNotLockable: return ErrorKind::kNotLockable;
    case guestmem::ErrorKind::kLocked: return ErrorKind::kLocked;
    case guestmem::ErrorKind::kNoFallback: return ErrorKind::kNoFallback;
    case guestmem::ErrorKind::kInvalidGpn: return ErrorKind::kInvalidGpn;
    case guestmem::ErrorKind::kMisaligned: return ErrorKind::kMisaligned;
    case guestmem::ErrorKind::kInvalidArgument: return ErrorKind::kInvalidArgument;
    case guestmem::ErrorKind::kResourceExhausted: return ErrorKind::kResourceExhausted;
    case guestmem::ErrorKind::kBackend: break;
  }
  return ErrorKind::kBackend;
}

// Whether the library calls it what the harness does, but for spaces.
bool IsNamed(guestmem::ErrorKind kind, std::string_view name) {
  const std::string_view library = guestmem::Name(kind);
  return std::equal(library.begin(), library.end(), name.begin(), name.end(), [](char theirs, char ours) {
    return (theirs == ' ' ? '_' : std::tolower(static_cast<unsigned char>(theirs))) == ours;
  });
}

Operation OperationOf(guestmem::Operation operation) {
  switch (operation) {
    case guestmem::Operation::kNone: return Operation::kNone;
    case guestmem::Operation::kCreate: return Operation::kCreate;
    case guestmem::Operation::kRead: return Operation::kRead;
    case guestmem::Operation::kWrite: return Operation::kWrite;
    case guestmem::Operation::kFill: return Operation::kFill;
    case guestmem::Operation::kCompareExchange: return Operation::kCompareExchange;
    case guestmem::Operation::kLock: return Operation::kLock;
    case guestmem::Operation::kSubrange: return Operation::kSubrange;
    case guestmem::Operation::kProbe: return Operation::kProbe;
    case guestmem::Operation::kRevoke: return Operation::kRevoke;
  }
  return static_cast<Operation>(255);  // no caller may see a callback's own status unwrapped
}

}  // namespace

void Observe(const Status& status, Outcome& outcome) {
  outcome.ok = status.ok();
  if (status.ok()) {
    return;
  }
  const guestmem::ErrorInfo& info = status.info();
  outcome.kind = IsNamed(info.kind, Name(Kind(info.kind))) ? Kind(info.kind) : static_cast<ErrorKind>(255);
  outcome.operation = OperationOf(info.operation);
  if (info.range) {
    outcome.range = Range{info.range->start, info.range->length};
  }
  outcome.fault_address = info.fault_address;
  outcome.gpn = info.gpn;
  outcome.transferred = info.transferred;
  outcome.code = static_cast<int>(status.code());
  // The message up to its cause, whose wording is free.
  static constexpr char kAccess[] = "failed to access ";
  outcome.text = status.ToString();
  if (info.operation == guestmem::Operation::kNone) {
    outcome.text.clear();
    return;
  }
  if (outcome.text.starts_with("guest memory 'stream'")) {
    return;  // all of it is promised
  }
  const size_t access = outcome.text.find(kAccess);
  const size_t cause = outcome.text.find(": ", access == std::string::npos ? 0 : access);
  outcome.text.resize(std::min(cause, outcome.text.size()));
}

namespace {

template <typename T>
void RunPlain(const GuestMemory& memory, const Step& step, Outcome& outcome) {
  const auto value = static_cast<T>(step.value);
  if (step.kind == StepKind::kReadPlain) {
    const guestmem::Result<T> result = memory.ReadPlain<T>(step.gpa);
    Observe(result.status(), outcome);
    if (result.ok()) {
      outcome.number = *result;
    }
  } else if (step.kind == StepKind::kWritePlain) {
    Observe(memory.WritePlain<T>(step.gpa, value), outcome);
  } else {
    if (step.choice != 0) {
      std::array<std::byte, 9> current = {};
      const std::array<std::byte, 9> desired = {};
      const size_t size = step.choice == 1 ? sizeof(T) : 3;
      const size_t more = step.choice == 1 ? 1 : 0;
      Observe(memory.CompareExchangeBytes(step.gpa, std::span(current).first(size + more), std::span(desired).first(size)).status(), outcome);
      return;
    }
    if (step.form == 1) {
      T current = value;
      const auto desired = static_cast<T>(step.desired);
      const auto result = memory.CompareExchangeBytes(step.gpa, std::as_writable_bytes(std::span(&current, 1)),
                                                      std::as_bytes(std::span(&desired, 1)));
      Observe(result.status(), outcome);
      if (result.ok()) {
        outcome.swapped = *result;
        outcome.number = current;
      }
      return;
    }
    const auto result = memory.CompareExchange<T>(step.gpa, value, static_cast<T>(step.desired));
    Observe(result.status(), outcome);
    if (result.ok()) {
      outcome.swapped = result->swapped;
      outcome.number = result->value;
    }
  }
}

class EngineSubject final : public Subject {
 public:
  explicit EngineSubject(Decorate decorate) : decorate_(std::move(decorate)) {
    for (uint8_t i = 0; i < kMaxBackings; ++i) {
      pool_.push_back(std::make_shared<ScriptedBacking>(i, script_));
    }
    guestmem::detail::SetHostCallFilter(FailHostCall);
  }
  ~EngineSubject() override {
    script_.outcome = &stray_;
    guestmem::detail::SetHostCallFilter(nullptr);
  }

  void Start(const World& world) override {
    g_calls_to_failure = 0;
    guestmem::detail::SetErrorMemory(true);
    // A run that ended early may have left locks: the calls that unlocking makes are not recorded.
    script_.outcome = &stray_;
    for (auto& lock : locks_) {
      lock = {};
    }
    for (auto& handle : handles_) {
      handle.reset();
    }
    stray_.calls.clear();
    world_ = &world;
    script_.handler.Start(world.handler);
    script_.fallback.Start(world.fallback);
    script_.lock.Start(world.lock);
    script_.subrange.Start(world.subrange);
    handed_.clear();
    for (size_t i = 0; i < world.backings.size(); ++i) {
      pool_[i]->Reset(world.backings[i]);
      handed_.push_back(Hand(i));
    }
    handles_[0] = world.region_pages == 0
                      ? GuestMemory::Create(kWorldName, handed_[0]).value()
                      : GuestMemory::CreateMultiRegion(kWorldName, world.region_pages * kPageSize, handed_).value();
    for (size_t i = 0; i < world.backings.size(); ++i) {
      pool_[i]->Made();
    }
    backings_ = world.backings.size();
    ranges_.Forget();
    made_.Start(pool_, handed_);
    buffers_within_ = std::find(world.handler.begin(), world.handler.end(), HandlerAnswer::kVanishRetry) == world.handler.end();
    failing_host_call_ = world.failing_host_call;
    g_host_error = Errno(world.host_error);
    g_fail_second = failing_host_call_ % 2 == 0;
    host_calls_armed_ = false;
  }

  void Run(const Step& step, Outcome& outcome) override {
    script_.outcome = &outcome;
    if (!stray_.calls.empty()) {
      outcome.wrong_call = std::string(Name(stray_.calls.front().kind)) + " where no step runs";
    }
    RunStep(step, outcome);
    script_.outcome = &stray_;
  }

  std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page, bool final) override {
    if (final) {
      g_calls_to_failure = 0;
    }
    if (backing >= kMaxBackings) {
      return made_.Page(backing - kMaxBackings, page);
    }
    return pool_[backing]->MappedPage(page, final);
  }
  std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) override { return pool_[backing]->SlowPage(page); }
  bool Bit(uint64_t backing, uint64_t page, Access access) override { return pool_[backing]->Bit(page, access); }

 private:
  void RunStep(const Step& step, Outcome& outcome) {
    if (!host_calls_armed_) {
      g_calls_to_failure = failing_host_call_;
      host_calls_armed_ = true;
    }
    const auto& target = handles_[step.target];
    const GuestMemory& memory = target ? *target : *handles_[0];
    if (ranges_.Run(memory, step, HostBacking(step), outcome)) {
      return;
    }
    if (step.kind >= StepKind::kMake) {
      made_.Run(step, handles_, outcome);
      return;
    }
    switch (step.kind) {
      case StepKind::kRead:
      case StepKind::kWrite:
        RunBulk(memory, step, outcome);
        break;
      case StepKind::kFill:
        Observe(memory.FillAt(step.gpa, static_cast<std::byte>(step.value), step.length), outcome);
        break;
      case StepKind::kReadPlain:
      case StepKind::kWritePlain:
      case StepKind::kCompareExchange:
        switch (step.size) {
          case 1: RunPlain<uint8_t>(memory, step, outcome); break;
          case 2: RunPlain<uint16_t>(memory, step, outcome); break;
          case 4: RunPlain<uint32_t>(memory, step, outcome); break;
          default: RunPlain<uint64_t>(memory, step, outcome); break;
        }
        break;
      case StepKind::kProbeReadable:
        Observe(memory.ProbeReadable(step.gpa, step.length), outcome);
        break;
      case StepKind::kProbeWritable:
        Observe(memory.ProbeWritable(step.gpa, step.length), outcome);
        break;
      case StepKind::kProbeExecutable:
        Observe(memory.ProbeExecutable(step.gpa, step.length), outcome);
        break;
      case StepKind::kProbeGpns:
        Observe(memory.ProbeGpns(step.gpns), outcome);
        break;
      case StepKind::kFullMapping:
        if (const auto mapping = memory.FullMapping()) {
          outcome.number = mapping->size;
          if (mapping->size != 0) {
            outcome.spans.push_back(Place(mapping->base, mapping->size, 0));
          }
        }
        break;
      case StepKind::kIova:
        outcome.number = memory.Iova(step.gpa);
        break;
      case StepKind::kLockGpns:
      case StepKind::kLockRange:
      case StepKind::kUnlock:
        RunLock(memory, step, outcome);
        break;
      case StepKind::kLockedCopy:
        RunLockedCopy(step, outcome);
        break;
      case StepKind::kSupportsLocking:
        outcome.number = memory.supports_locking() ? 1 : 0;
        break;
      case StepKind::kSubrange:
      case StepKind::kLockableSubrange: {
        auto view = step.kind == StepKind::kLockableSubrange ? memory.LockableSubrange(step.gpa, step.length)
                                                             : memory.Subrange(step.gpa, step.length, step.form == 1);
        Observe(view.status(), outcome);
        if (view.ok()) {
          handles_[step.slot] = *std::move(view);
        }
        break;
      }
      case StepKind::kSetBit:
        if (world_->backings[step.backing % backings_].present) {
          pool_[step.backing % backings_]->SetBit(step.page, step.access, (step.choice & 1) != 0);
        }
        break;
      case StepKind::kAllocate:
      case StepKind::kMapZero:
      case StepKind::kProtect:
      case StepKind::kUnmap:
      case StepKind::kMapFile:
      case StepKind::kDecommit:
        Observe(pool_[step.backing % backings_]->ChangeMapping(step), outcome);
        break;
      case StepKind::kAdviseHugePages:
      case StepKind::kBindToNode:
        Observe(pool_[step.backing % backings_]->Advise(step), outcome);
        break;
      case StepKind::kUnmapBytes:
      case StepKind::kMapFileBytes:
        Observe(pool_[step.backing % backings_]->ChangeBytes(step), outcome);
        break;
      default:
        break;
    }
  }

  std::shared_ptr<guestmem::GuestMemoryAccess> Hand(size_t i) {
    const Backing& backing = world_->backings[i];
    if (!backing.present) {
      return nullptr;
    }
    if (backing.sparse) {
      const std::shared_ptr<guestmem::SparseMapping>& arena = pool_[i]->arena();
      return backing.wrapped ? std::make_shared<guestmem::SharedBacking<guestmem::SparseMapping>>(arena)
                             : std::shared_ptr<guestmem::GuestMemoryAccess>(arena);
    }
    if (decorate_) {
      return decorate_(pool_[i]);
    }
    return backing.wrapped ? std::make_shared<guestmem::SharedBacking<ScriptedBacking>>(pool_[i])
                           : std::shared_ptr<guestmem::GuestMemoryAccess>(pool_[i]);
  }

  // Where a step's host buffer is to be, if it can; null: it is one of its own.
  const ScriptedBacking* HostBacking(const Step& step) const {
    const bool within = step.within != 0 && step.HostBacking() < backings_ && buffers_within_;
    return within ? pool_[step.HostBacking()].get() : nullptr;
  }

  // The host buffer is all that a read or write needs beside its step.
  static void Bulk(const GuestMemory& memory, const Step& step, uint8_t* bytes, Outcome& outcome) {
    if (step.kind == StepKind::kRead) {
      Observe(step.form == 1 ? memory.ReadToAtomic(step.gpa, {Atomic(bytes), step.length})
                             : memory.ReadAt(step.gpa, std::as_writable_bytes(std::span(bytes, step.length))),
              outcome);
    } else {
      Observe(step.form == 1 ? memory.WriteFromAtomic(step.gpa, {Atomic(bytes), step.length})
                             : memory.WriteAt(step.gpa, std::as_bytes(std::span(bytes, step.length))),
              outcome);
    }
  }

  void RunBulk(const GuestMemory& memory, const Step& step, Outcome& outcome) {
    if (const ScriptedBacking* const host = HostBacking(step)) {
      if (uint8_t* const within = host->PlainRam(step.HostAddress() + step.choice, step.length)) {
        Bulk(memory, step, within, outcome);
        return;
      }
    }
    // `choice` moves the host buffer off its 64-byte boundary.
    uint8_t* const buffer = host_.data() + step.choice;
    const size_t size = kGuardBytes + step.length + kGuardBytes;
    std::memset(buffer, kUntouched, size);
    uint8_t* const bytes = buffer + kGuardBytes;
    if (step.kind == StepKind::kWrite) {
      PutDataPattern(step.value, {bytes, step.length});
    }
    Bulk(memory, step, bytes, outcome);
    outcome.data.assign(buffer, buffer + size);
  }

  void RunLock(const GuestMemory& memory, const Step& step, Outcome& outcome) {
    guestmem::detail::Lock& lock = locks_[step.object];
    lock = {};
    if (step.kind == StepKind::kUnlock) {
      return;
    }
    const auto access = static_cast<guestmem::AccessType>(step.access);
    const auto keep = [&](auto result) {
      Observe(result.status(), outcome);
      if (result.ok()) {
        lock = *std::move(result);
      }
    };
    if (step.kind == StepKind::kLockGpns) {
      keep(memory.LockGpns(access, step.form == 1, step.gpns));
    } else if (const auto range = guestmem::PagedRange::Create(step.offset, step.length, step.gpns)) {
      keep(memory.LockRange(access, *range));
    } else {
      outcome.refused = true;
    }
    const bool for_kernel = step.kind == StepKind::kLockRange || step.form == 1;
    const std::span<const iovec> iovecs = lock.iovecs();
    if (iovecs.size() != (for_kernel ? lock.spans().size() : 0)) {
      outcome.spans.push_back({255, 255, iovecs.size(), 0});  // not what anybody expects
      return;
    }
    size_t next = 0;
    for (const guestmem::GuestSpan span : lock.spans()) {
      const iovec vector = for_kernel ? iovecs[next++] : span.ToIovec();
      outcome.spans.push_back(Place(vector.iov_base, vector.iov_len == span.size() ? vector.iov_len : 0, span.gpa()));
    }
  }

  // Where host memory is in the backings'.
  Span Place(const void* host, uint64_t length, uint64_t gpa) const {
    Span span = {255, 0, length, gpa};
    for (uint8_t b = 0; b < kMaxBackings; ++b) {
      if (const auto address = pool_[b]->AddressOf(host)) {
        span.backing = b;
        span.address = *address;
      }
    }
    if (const auto place = made_.PlaceOf(host)) {
      span.backing = place->backing;
      span.address = place->address;
    }
    return span;
  }

  // The first `length` bytes of a span as a host buffer, where they may be one; null: they may not.
  uint8_t* HostBytes(const guestmem::GuestSpan& span, uint64_t length) const {
    const Span place = Place(span.ToIovec().iov_base, 0, 0);
    const bool fits = place.backing < kMaxBackings && length <= span.size();
    return fits ? pool_[place.backing]->PlainRam(place.address, length) : nullptr;
  }

  void RunLockedCopy(const Step& step, Outcome& outcome) {
    const guestmem::GuestSpans spans = locks_[step.object].spans();
    if (spans.empty()) {
      return;
    }
    const guestmem::GuestSpan span = spans[step.count % spans.size()];
    if (step.choice == 3) {
      // At is for memory that is there; under a lock, that is the backing's business, which steps may have neglected.
      if (step.offset < span.size() && IsRam(static_cast<std::byte*>(span.ToIovec().iov_base) + step.offset)) {
        const auto writable = span.AtWritable(step.offset);
        outcome.number = writable ? writable->exchange(static_cast<uint8_t>(step.value)) : span.At(step.offset).load();
      }
      return;
    }
    if (step.choice == 2) {
      const auto value = static_cast<std::byte>(step.value);
      const bool whole = step.offset == 0 && step.length == span.size();
      Observe(whole ? span.Fill(value) : span.Fill(value, step.offset, step.length), outcome);
      return;
    }
    std::span<uint8_t> host;
    if (uint8_t* const between = step.form == 1 ? HostBytes(spans[(step.count + 1) % spans.size()], step.length) : nullptr) {
      host = {between, step.length};
    } else {
      outcome.data.assign(kGuardBytes + step.length + kGuardBytes, kUntouched);
      host = std::span(outcome.data).subspan(kGuardBytes, step.length);
      if (step.choice == 1) {
        PutDataPattern(step.value, host);
      }
    }
    if (step.choice == 0) {
      Observe(span.CopyTo(std::as_writable_bytes(host), step.offset), outcome);
      return;
    }
    Observe(span.CopyFrom(std::as_bytes(host), step.offset), outcome);
  }

  // Precondition: a byte of some mapping's. Memory that steps have made is always there.
  bool IsRam(const std::byte* host) const {
    for (const auto& backing : pool_) {
      if (const auto address = backing->AddressOf(host)) {
        return backing->IsRam(*address / kPageSize);
      }
    }
    return true;
  }

  const Decorate decorate_;
  Script script_;
  EngineMade::Scripted pool_;
  EngineMade::Handed handed_;
  Handles handles_;
  EngineRanges ranges_;
  EngineMade made_;
  const World* world_ = nullptr;
  Outcome stray_;  // of no step
  std::array<guestmem::detail::Lock, kObjects> locks_;  // after what their unlocking reaches
  size_t backings_ = 0;
  unsigned failing_host_call_ = 0;
  bool host_calls_armed_ = false;
  bool buffers_within_ = true;
  alignas(64) std::array<uint8_t, 64 + 2 * kGuardBytes + 17 * 1024> host_ = {};
};

}  // namespace

std::unique_ptr<Subject> MakeEngineSubject(Decorate decorate) { return std::make_unique<EngineSubject>(std::move(decorate)); }

}  // namespace reference
