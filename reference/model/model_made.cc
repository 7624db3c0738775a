// Memory that steps make, what it is behind, and the bits of an AccessBitmap.

#include <algorithm>
#include <bit>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

namespace reference {
namespace {

constexpr uint64_t k2To63 = uint64_t{1} << 63;
constexpr uint64_t kLargestMapping = (uint64_t{1} << 47) - kPageSize;
constexpr uint64_t kLargestReserved = uint64_t{1} << 46;  // more is not to be had, whatever the host says
constexpr uint64_t kTooManyPages = uint64_t{1} << 51;
constexpr uint64_t kSeals = 7;  // F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
constexpr uint64_t kShownBytes = 16;

std::vector<File> FilesOf(const Backing& setup, uint64_t b) {
  switch (setup.sharing) {
    case Sharing::kNone: break;
    case Sharing::kWhole: return {{b, 0, 0, setup.max_address()}};
    case Sharing::kParts: return {{b, 8192, 4096, 4096}, {b, 0, 0, 100}};
    case Sharing::kWild:
      return {{b, kMaxUint64 - 4095, 0, kMaxUint64}, {b, 0, kMaxUint64 - 4095, 8192}, {b, 4096, 4096, kMaxUint64 - 4095}};
  }
  return {};
}

}  // namespace

bool Model::RunMade(const Step& step, Outcome& outcome) {
  if (step.kind < StepKind::kMake) return false;
  const Handle& target = handles_[step.target % kHandles];
  switch (step.kind) {
    case StepKind::kMake: Make(step, outcome); break;
    case StepKind::kCreate: Create(step, outcome); break;
    case StepKind::kSharing: ShowFiles(target.held ? target : handles_[0], outcome); break;
    case StepKind::kInnerBuffer: InnerBuffer(step, outcome); break;
    case StepKind::kTry: Try(step, outcome); break;
    case StepKind::kForeignFault: outcome.number = 0; break;
    case StepKind::kMove: MoveHandle(step); break;
    case StepKind::kStarve: break;
    default: ChangeBitmap(step, outcome); break;
  }
  return true;
}

void Model::Make(const Step& step, Outcome& outcome) {
  const Made made = static_cast<Made>(step.choice);
  const char* name = kMadeName;
  outcome.operation = Operation::kCreate;
  const auto fail = [&](ErrorKind kind, const char* who) {
    Fail(outcome, kind, std::nullopt);
    if (made != Made::kBitmap && who != kBitmapName) outcome.range = Range{0, step.bytes};
    Describe(outcome, who);
  };
  switch (made) {
    case Made::kEmpty:
      handles_[step.slot] = {{}, true, kEmptyName};
      outcome.operation = Outcome().operation;
      outcome.number = 0;
      return;
    case Made::kHeap:
      if (step.bytes > k2To63 - kPageSize) return fail(ErrorKind::kInvalidArgument, kHeapName);
      if (step.bytes > 0 && !HostCall()) return fail(ErrorKind::kResourceExhausted, kHeapName);
      name = kHeapName;
      break;
    case Made::kShared:
    case Made::kSparse: {
      const char* backing = made == Made::kShared ? kSharedName : kSparseName;
      if (step.bytes == 0 || step.bytes > kLargestMapping) return fail(ErrorKind::kInvalidArgument, backing);
      for (uint64_t call = 0; call < (made == Made::kShared ? kSharedCalls : 1); ++call)
        if (!HostCall()) return fail(HostFailure(), backing);
      if (step.bytes > kLargestReserved) return fail(ErrorKind::kResourceExhausted, backing);
      if (step.form == 1 && !HostCall()) return fail(ErrorKind::kResourceExhausted, kBitmapName);
      break;
    }
    case Made::kBitmap:
      if (step.bytes >= kTooManyPages) return fail(ErrorKind::kInvalidArgument, kBitmapName);
      if (!HostCall()) return fail(ErrorKind::kResourceExhausted, kBitmapName);
      outcome.operation = Outcome().operation;
      outcome.number = step.bytes;
      return;
    case Made::kBare:
      if (step.bytes < k2To63) break;
      Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
      Describe(outcome, kMadeName);
      return;
  }
  Memory memory;
  memory.made = made;
  memory.setup.mapped = step.bytes > 0 && made != Made::kBare;
  memory.setup.has_bitmap = step.form == 1;
  if (step.form == 1) memory.refused_page = step.value;
  memory.mapped.own.assign(kMaxPages * kPageSize, 0);
  memory.slow.own.assign(kMaxPages * kPageSize, 0);
  memory.state = {};
  memory.allowed = {};
  memories_.push_back(std::move(memory));
  for (uint64_t page = 0; page < kMaxPages; ++page) {
    memories_.back().mapped.ShowOwn(page);
    memories_.back().slow.ShowOwn(page);
  }
  const uint64_t pages = step.bytes / kPageSize + (step.bytes % kPageSize != 0 ? 1 : 0);
  const uint64_t size = made == Made::kBare ? step.bytes : pages * kPageSize;
  handles_[step.slot] = {{{memories_.size() - 1, 0, 0, size}}, true, name};
  handles_[step.slot].owns_heap = made == Made::kHeap;
  outcome.operation = Outcome().operation;
  outcome.number = 0;
}

void Model::Try(const Step& step, Outcome& outcome) {
  constexpr std::array<StepKind, 6> kKinds = {StepKind::kRead,      StepKind::kWrite,      StepKind::kFill,
                                              StepKind::kReadPlain, StepKind::kWritePlain, StepKind::kCompareExchange};
  const StepKind kind = kKinds[step.choice];
  const uint64_t length = step.choice < 3 ? step.length : step.size;
  const uint64_t page_start = step.page * kPageSize;
  const uint64_t room = kMaxPages * kPageSize - page_start;
  if (step.offset > room || length > room - step.offset) return;
  const uint64_t start = page_start + step.offset;
  if (kind == StepKind::kCompareExchange && start % step.size != 0) return;
  std::vector<uint8_t> object(8);
  std::span<uint8_t> host = std::span(object).first(step.choice < 3 ? 0 : step.size);
  if (step.choice < 2) {
    outcome.data.assign(kGuardBytes + length + kGuardBytes, kUntouched);
    host = std::span(outcome.data).subspan(kGuardBytes, length);
  }
  if (kind == StepKind::kWrite) PutDataPattern(step.value, host);
  if (length == 0) return;
  Memory& memory = memories_[step.backing % backings_];
  const Piece piece = {step.backing % backings_, start, start, length};
  const bool stores = kind != StepKind::kRead && kind != StepKind::kReadPlain;
  const std::optional<uint64_t> fault = FirstFaulting(memory, piece, stores);
  const bool whole = step.choice >= 3;
  const uint64_t moved = !fault ? length : whole ? 0 : *fault - start;
  Move({kind, start, length, LowBytes(step.value, whole ? step.size : 1), LowBytes(step.desired, step.size), host, outcome}, piece, moved,
       memory.mapped);
  if (!fault) {
    if (whole && kind != StepKind::kWritePlain) outcome.number = LittleEndian(host);
    return;
  }
  Fail(outcome, ErrorKind::kNotMapped, fault, *fault - start);
  outcome.range = Range{start, length};
  outcome.operation = stores ? Operation::kWrite : Operation::kRead;
  outcome.swapped = false;
}

void Model::Create(const Step& step, Outcome& outcome) {
  const Promise broken = static_cast<Promise>(step.choice);
  const bool several = step.form == 1;
  Handle handle = {{}, true, kMadeName};
  bool ok = true;
  if (several) {
    const uint64_t count = std::bit_ceil(backings_);
    handle.one_region = count == 1;
    ok = std::has_single_bit(step.bytes) && step.bytes >= kPageSize && count <= k2To63 / step.bytes;
  }
  for (uint64_t b = 0; b < backings_; ++b) {
    if (!several && b != step.backing) continue;
    const Backing& setup = memories_[b].setup;
    const bool breaks = b == step.backing && (!setup.sparse || broken == Promise::kNull);
    const Promise here = breaks ? broken : Promise::kNone;
    const bool null = !setup.present || here == Promise::kNull;
    if (null && !several) ok = false;
    if (null) continue;
    if (here == Promise::kSize) ok = false;
    if (here == Promise::kMapping && setup.mapped) ok = false;
    if (here == Promise::kBitOffset && setup.has_bitmap) ok = false;
    if (several && setup.max_address() > step.bytes) ok = false;
    handle.parts.push_back({b, several && ok ? b * step.bytes : 0, 0, setup.max_address()});
  }
  if (ok) {
    handles_[step.slot] = handle;
    return;
  }
  Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
  outcome.operation = Operation::kCreate;
  Describe(outcome, kMadeName);
}

void Model::ShowFiles(const Handle& handle, Outcome& outcome) {
  for (const Part& part : handle.parts) {
    Memory& memory = memories_[part.backing];
    const bool shared = memory.made == Made::kShared;
    std::vector<File> files;
    if (shared)
      files = {{part.backing, 0, 0, kMaxUint64}};  // all that there is
    else if (!memory.made && !part.own)
      files = FilesOf(memory.setup, part.backing);
    for (const File& file : files) {
      const uint64_t first = std::max(file.address, part.offset);
      const uint64_t end = file.size <= kMaxUint64 - file.address ? file.address + file.size : kMaxUint64;
      const uint64_t last = std::min(end, part.offset + part.length);
      if (first >= last || first - file.address > kMaxUint64 - file.offset) continue;
      outcome.files.push_back({file.file, file.offset + (first - file.address), part.start + (first - part.offset), last - first});
    }
    if (!shared || outcome.files.empty()) continue;
    outcome.number = kSeals;
    for (uint64_t i = 0; i < std::min(kShownBytes, part.length); ++i) outcome.data.push_back(memory.mapped[part.offset + i]);
  }
}

void Model::InnerBuffer(const Step& step, Outcome& outcome) {
  Handle& handle = handles_[step.target];
  if (!handle.owns_heap) return;
  const Part part = handle.parts[0];
  if (step.choice != 0 && IsShared(part.backing)) return;
  outcome.number = part.length;
  if (part.length > 0) {
    memories_[part.backing].mapped.Store(0, ByteOf(step.value, 0));
    touched_.push_back({part.backing, 0});
  }
  if (step.choice == 2) handle = {{}, true, kEmptyName};
}

void Model::MoveHandle(const Step& step) {
  Handle& from = handles_[step.target];
  if (step.target == 0 || step.target == step.slot || !from.held) return;
  handles_[step.slot] = from;
  from = {{}, true, kEmptyName};
}

bool Model::IsShared(uint64_t memory) const {
  uint64_t users = 0;
  const auto count = [&](const Handle& handle) {
    for (const Part& part : handle.parts)
      if (part.backing == memory) ++users;
  };
  for (const Handle& handle : handles_) count(handle);
  for (const Stream& stream : readers_) count(stream.memory);
  for (const Stream& stream : writers_) count(stream.memory);
  for (const Lock& lock : locks_)
    if (!lock.pages.empty() && lock.pages[0].backing == memory) ++users;
  return users > 1;
}

bool Model::Hold(Memory& memory, std::span<const uint64_t> gpns) {
  for (const uint64_t gpn : gpns)
    if (gpn >= memory.setup.pages) return false;
  for (const uint64_t gpn : gpns) ++memory.locks[gpn];
  return true;
}

bool Model::Release(Memory& memory, std::span<const uint64_t> gpns) {
  auto locks = memory.locks;
  for (const uint64_t gpn : gpns) {
    if (gpn >= memory.setup.pages || locks[gpn] == 0) return false;
    --locks[gpn];
  }
  memory.locks = locks;
  return true;
}

void Model::ChangeBitmap(const Step& step, Outcome& outcome) {
  Memory& memory = memories_[step.backing % backings_];
  if (!memory.setup.managed) return;
  const auto fail = [&](ErrorKind kind, Operation operation) {
    Fail(outcome, kind, std::nullopt);
    outcome.operation = operation;
    if (kind == ErrorKind::kLocked) outcome.range = Range{step.page * kPageSize, step.count * kPageSize};
    Describe(outcome, kBitmapName);
  };
  if (step.kind == StepKind::kHold) {
    if (step.form == 0 ? !Hold(memory, step.gpns) : !Release(memory, step.gpns)) fail(ErrorKind::kInvalidArgument, Operation::kLock);
    return;
  }
  const uint64_t end = uint64_t{step.page} + step.count;
  if (end > memory.setup.pages) return fail(ErrorKind::kInvalidArgument, Operation::kRevoke);
  for (uint64_t page = step.page; page < end && step.kind != StepKind::kGrant; ++page) {
    if (memory.locks[page] == 0) continue;
    outcome.gpn = page;
    return fail(ErrorKind::kLocked, Operation::kRevoke);
  }
  if (step.kind == StepKind::kWaitUnlocked) return;
  constexpr std::array<std::pair<Access, uint8_t>, 3> kMask = {{{Access::kRead, 1}, {Access::kWrite, 2}, {Access::kExecute, 4}}};
  for (uint64_t page = step.page; page < end; ++page)
    for (const auto& [access, mask] : kMask)
      if (step.choice / mask % 2 == 1) SetBit(memory, page, access, step.kind == StepKind::kGrant);
}

}  // namespace reference
