#include "reference/lockstep/engine_subject.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <iterator>
#include <string>
#include <string_view>

#include "guestmem/detail/host_calls.h"
#include "reference/lockstep/engine.h"
#include "reference/lockstep/operations.h"

namespace reference {
namespace {

using guestmem::GuestMemory;

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
    case guestmem::Operation::kAdd:  // of address spaces, which reference/vmm judges
    case guestmem::Operation::kRemove:
    case guestmem::Operation::kChange: break;
  }
  return static_cast<Operation>(255);  // no caller may see a callback's own status unwrapped
}

}  // namespace

Engine::Engine(Decorate decorate) : decorate_(std::move(decorate)) {
  for (uint8_t i = 0; i < kMaxBackings; ++i) {
    pool_.push_back(std::make_shared<ScriptedBacking>(i, script_));
  }
}

void Engine::Start(const World& world) {
  world_ = &world;
  // A run that ended early may have left locks: the calls that unlocking makes are not recorded.
  for (auto& lock : locks_) {
    lock = {};
  }
  for (auto& handle : handles_) {
    handle.reset();
  }
  objects_.reset();
  made_.clear();
  taken_ = nullptr;
  handed_.clear();
  script_.calls.clear();
  script_.wrong_call.clear();
  script_.handler.Start(world.handler);
  script_.fallback.Start(world.fallback);
  script_.lock.Start(world.lock);
  script_.subrange.Start(world.subrange);
  for (size_t i = 0; i < world.backings.size(); ++i) {
    const Backing& backing = world.backings[i];
    pool_[i]->Reset(backing);
    handed_.push_back(!backing.present                 ? nullptr
                      : decorate_ && !backing.sparse ? decorate_(pool_[i])
                                                       : ScriptedBacking::Handed(pool_[i]));
  }
  handles_[0] = world.region_pages == 0 ? GuestMemory::Create(kWorldName, handed_[0]).value()
                                        : GuestMemory::CreateMultiRegion(kWorldName, world.region_pages * kPageSize, handed_).value();
  for (size_t i = 0; i < world.backings.size(); ++i) {
    pool_[i]->Made();
  }
  buffers_within_ = std::find(world.handler.begin(), world.handler.end(), HandlerAnswer::kVanishRetry) == world.handler.end();
}

void Engine::Observe(const guestmem::Status& status) {
  Outcome& outcome = *outcome_;
  outcome.ok = status.ok();
  if (status.ok()) {  // 0 and "OK" are what a status that is no error has
    outcome.code = static_cast<int>(status.code());
    outcome.text = status.ToString() == "OK" ? "" : "not OK";
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
  if (info.operation == guestmem::Operation::kNone) {
    return;
  }
  // The message up to its cause, whose wording is free.
  static constexpr char kAccess[] = "failed to access ";
  outcome.text = status.ToString();
  if (outcome.text.starts_with("guest memory 'stream'")) {
    return;  // all of it is promised
  }
  const size_t access = outcome.text.find(kAccess);
  const size_t cause = outcome.text.find(": ", access == std::string::npos ? 0 : access);
  outcome.text.resize(std::min(cause, outcome.text.size()));
}

Engine::HostBytes Engine::HostOf(const Step& step, std::byte* within, uint64_t length, bool written, uint64_t misaligned) {
  if (within != nullptr) {
    return {{within, length}, false};
  }
  host_.Start(length, misaligned);
  if (written) {
    host_.PutData(step.value);
  }
  return {host_.bytes(), true};
}

Engine::HostBytes Engine::HostBeside(const Step& step, const guestmem::GuestSpan& other, bool written) {
  const std::span<std::byte> start = StartOf(other, step.length);
  const Span place = Place({start.data(), 0, 0});
  const bool fits = step.Form<HostForm>() == HostForm::kNextSpan && place.backing < kMaxBackings && step.length <= other.size();
  return HostOf(step, fits ? pool_[place.backing]->PlainRam(place.address, step.length) : nullptr, step.length, written, 0);
}

bool Engine::MayTouch(const guestmem::GuestSpan& span, uint64_t offset) const {
  if (offset >= span.size()) {
    return false;
  }
  const Span place = Place({StartOf(span, 0).data() + offset, 0, 0});
  return place.backing >= kMaxBackings || pool_[place.backing]->IsRam(place.address / kPageSize);  // what steps have made is always there
}

Span Engine::Place(const HeldSpan& held) const {
  for (size_t i = made_.size(); i > 0; --i) {  // the newest first: it is alive where places coincide
    const auto* const byte = static_cast<const std::byte*>(held.base);
    const MadeMemory& made = made_[i - 1];
    if (byte >= made.base && byte < made.base + made.size) {
      return {static_cast<uint8_t>(kMaxBackings + i - 1), static_cast<uint64_t>(byte - made.base), held.length, held.gpa};
    }
  }
  for (uint8_t b = 0; b < kMaxBackings; ++b) {
    if (const auto address = pool_[b]->AddressOf(held.base)) {
      return {b, *address, held.length, held.gpa};
    }
  }
  return {255, 0, held.length, held.gpa};
}

void Engine::ShowFile(const guestmem::SharedFile& shared) {
  File file = {static_cast<uint64_t>(shared.fd - kFirstFile), shared.file_offset, shared.gpa, shared.size};
  const auto made = std::find_if(made_.rbegin(), made_.rend(), [&](const MadeMemory& m) { return m.file == shared.fd; });
  if (made != made_.rend()) {
    file.file = kMaxBackings + static_cast<uint64_t>(made_.rend() - made) - 1;
    outcome_->number = SealsOf(shared.fd);
    KeepBytes(FirstOf(shared.fd, shared.file_offset, shared.size));
  }
  outcome_->files.push_back(file);
}

void Engine::ShowFault(const guestmem::Fault& fault, const Range& tried, const std::byte* guest) {
  outcome_->ok = false;
  outcome_->kind = ErrorKind::kNotMapped;
  outcome_->code = 9;
  outcome_->operation = fault.side == guestmem::Fault::Side::kWrite ? Operation::kWrite : Operation::kRead;
  outcome_->range = tried;
  outcome_->fault_address = tried.start + (fault.address - reinterpret_cast<uintptr_t>(guest));
  outcome_->transferred = fault.offset;
}

namespace {

class EngineSubject final : public Subject {
 public:
  explicit EngineSubject(Decorate decorate) : engine_(std::move(decorate)) { guestmem::detail::SetHostCallFilter(HostCalls::Fail); }
  ~EngineSubject() override { guestmem::detail::SetHostCallFilter(nullptr); }

  void Start(const World& world) override {
    HostCalls::Arm(0, 0);
    guestmem::detail::SetErrorMemory(true);
    engine_.Start(world);
    armed_ = false;
  }

  void Run(const Step& step, Outcome& outcome) override {
    Script& script = engine_.script();
    if (!script.calls.empty()) {
      outcome.wrong_call = std::string(kCallNames[static_cast<size_t>(script.calls.front().kind)]) + " where no step runs";
      script.calls.clear();
      script.wrong_call.clear();
    }
    if (!std::exchange(armed_, true)) {
      HostCalls::Arm(engine_.world().failing_host_call, Errno(engine_.world().host_error));
    }
    engine_.ObserveIn(outcome);
    Perform(engine_, step);
    outcome.calls.swap(script.calls);
    if (outcome.wrong_call.empty()) {
      outcome.wrong_call.swap(script.wrong_call);
    }
  }

  std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page, bool final) override {
    if (final) {
      HostCalls::Arm(0, 0);
    }
    return backing >= kMaxBackings ? engine_.made(backing - kMaxBackings).Page(page) : engine_.pool(backing).MappedPage(page, final);
  }
  std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) override { return engine_.pool(backing).SlowPage(page); }
  bool Bit(uint64_t backing, uint64_t page, Access access) override {
    return engine_.pool(backing).Bit(page, static_cast<guestmem::AccessType>(access));
  }

 private:
  Engine engine_;
  bool armed_ = false;  // since Start: building the world counts no host calls
};

}  // namespace

std::unique_ptr<Subject> MakeEngineSubject(Decorate decorate) { return std::make_unique<EngineSubject>(std::move(decorate)); }

}  // namespace reference
