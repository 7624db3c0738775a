#include "reference/vmm/model.h"

#include <algorithm>

#include "reference/vmm/model_values.h"

namespace reference::vmm {
namespace {

uint64_t LittleEndian(const std::vector<uint8_t>& bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i) {
    value = value * 256 + bytes[i - 1];
  }
  return value;
}

}  // namespace

void Model::Start(const World& world) {
  *this = Model();
  world_ = world;
  size_ = world.pages * kPageBytes;
  for (uint64_t file = 0; file < kFiles; ++file) {
    files_[file].assign(kFilePages[file] * kPageBytes, 0);
    for (uint64_t i = 0; i < kFileBytes[file]; ++i) {
      files_[file][i] = FileByte(file, i);
    }
  }
}

Outcome Model::Run(const Op& op, bool& host_call_failed) {
  outcome_ = Outcome();
  host_call_failed_ = host_call_failed;
  const uint64_t slot = op[kSlot];
  if (op.kind == OpKind::kLock || op.kind == OpKind::kUnlock) {
    locks_[slot].clear();
    if (space_) space_->Unlock(slot);
  }
  if (op.InSpace()) {
    if (!space_) space_.emplace(world_);
    return space_->Run(op, host_call_failed);
  }
  switch (op.kind) {
    case OpKind::kAddRam: AddRam(op); break;
    case OpKind::kNewRegion: NewRegion(op); break;
    case OpKind::kRegionMap: RegionMap(op); break;
    case OpKind::kRegionUnmap: RegionUnmap(op); break;
    case OpKind::kMapToGuest: MapToGuest(op); break;
    case OpKind::kUnmapFromGuest:
      if (regions_[slot].guest) UnmapFromGuest(*regions_[slot].guest);
      break;
    case OpKind::kDropGuestHalf:
      if (regions_[slot].guest) UnmapFromGuest(*regions_[slot].guest);
      outcome_.error.reset();  // a destructor cannot say so
      regions_[slot].guest.reset();
      break;
    case OpKind::kDropRegionHalf: regions_[slot].region.reset(); break;
    case OpKind::kNewRom: NewRom(op); break;
    case OpKind::kMapRom: MapRom(op); break;
    case OpKind::kDropPart: DropPart(slot); break;
    case OpKind::kDropRom: roms_[slot].reset(); break;
    case OpKind::kRegister: Register(op); break;
    case OpKind::kDropBell: bells_[slot].reset(); break;
    case OpKind::kNewEvent:
    case OpKind::kCloneEvent:
    case OpKind::kSignal:
    case OpKind::kTake: Event(op); break;
    case OpKind::kRead: Read(op); break;
    case OpKind::kWrite: Write(op); break;
    case OpKind::kCompareExchange: CompareExchange(op); break;
    case OpKind::kProbe: Probe(op); break;
    case OpKind::kLock: Lock(op); break;
    default: break;
  }
  Paint();
  return outcome_;
}

// ------------------------------------------------------------------ why not

bool Model::Fails(const char* kind, const std::string& name, uint64_t start, uint64_t length, std::string note) {
  outcome_.error = Error{kind, "create", name, std::pair(start, length)};
  outcome_.error->note = std::move(note);
  return true;
}

bool Model::HostFails(const std::string& name, uint64_t start, uint64_t length) {
  return host_call_failed_ && Fails("resource exhausted", name, start, length);
}

bool Model::LockedIn(uint64_t gpa, uint64_t length) {
  for (uint64_t page = gpa / kPageBytes; page < (gpa + length) / kPageBytes; ++page) {
    for (const auto& pages : locks_) {
      if (std::find(pages.begin(), pages.end(), page) != pages.end()) {
        outcome_.error = Error{"locked", "revoke", kGuest, std::pair(gpa, length)};
        outcome_.error->gpn = page;
        return true;
      }
    }
  }
  return false;
}

bool Model::OutOfRange(const char* operation, uint64_t gpa, uint64_t length) {
  if (length == 0 || (gpa <= size_ && length <= size_ - gpa)) {
    return false;
  }
  outcome_.error = Error{"out of range", operation, kGuest, std::pair(gpa, length), gpa};
  return true;
}

void Model::FailAccess(const char* operation, uint64_t gpa, uint64_t length, uint64_t fault, uint64_t transferred, bool stores) {
  outcome_.error = Error{"not mapped", operation, kGuest, std::pair(gpa, length), fault};
  outcome_.error->transferred = transferred;
  outcome_.error->note = stores && !views_[fault / kPageBytes].writable ? "read-only" : "";
}

// ------------------------------------------------------------------ doorbells and events

void Model::Register(const Op& op) {
  std::optional<Bell>& bell = bells_[op[kSlot]];
  bell.reset();
  const auto event = events_[op[kOther]];
  if (!event) {
    return;
  }
  const std::optional<uint64_t> value = op[kForm] % 2 == 0 ? std::optional(op[kValue]) : std::nullopt;
  const std::optional<uint64_t> length = op[kForm] < 2 ? std::optional(op[kSize]) : std::nullopt;
  const uint64_t covers = length.value_or(1);
  if (length && !IsPowerOfTwoUpTo8(*length)) {
    Fails("invalid argument", kGuest, op.gpa(), *length);
    return;
  }
  for (uint64_t i = length.value_or(8); value && i < 8; ++i) {
    if (ByteOf(*value, i) != 0) {
      Fails("invalid argument", kGuest, op.gpa(), *length);
      return;
    }
  }
  if (op.gpa() >= size_ || covers > size_ - op.gpa()) {
    Fails("out of range", kGuest, op.gpa(), covers);
    return;
  }
  if (HostFails(kGuest, op.gpa(), covers) || LockedIn(op.gpa() / kPageBytes * kPageBytes, kPageBytes)) {
    return;
  }
  bell = Bell{op.gpa(), value, length, event};
}

bool Model::HasBell(uint64_t page) const {
  return std::any_of(bells_.begin(), bells_.end(), [&](const auto& bell) { return bell && bell->gpa / kPageBytes == page; });
}

bool Model::Ring(const std::vector<uint8_t>& bytes, uint64_t gpa) {
  bool rung = false;
  for (const auto& bell : bells_) {
    if (bell && bell->gpa == gpa && (!bell->length || *bell->length == bytes.size()) &&
        (!bell->value || (bytes.size() <= 8 && *bell->value == LittleEndian(bytes)))) {
      *bell->event = true;
      rung = true;
    }
  }
  return rung;
}

void Model::Event(const Op& op) {
  auto& event = events_[op[kSlot]];
  if (!event && op.kind != OpKind::kNewEvent) {
    return;
  }
  if (host_call_failed_) {
    outcome_.error = Error{"resource exhausted", op.kind == OpKind::kTake ? "read" : "create", "event"};
  } else if (op.kind == OpKind::kNewEvent) {
    event = std::make_shared<bool>(false);
  } else if (op.kind == OpKind::kSignal) {
    *event = true;
  } else if (op.kind == OpKind::kTake) {
    outcome_.flag = std::exchange(*event, false);
  }
}

// ------------------------------------------------------------------ accesses

uint64_t Model::FirstFault(uint64_t gpa, uint64_t length, bool stores) const {
  uint64_t at = gpa;
  for (; at < gpa + length; ++at) {
    const View& view = views_[at / kPageBytes];
    if (view.bytes == nullptr || (stores && !view.writable)) {
      break;
    }
  }
  return at;
}

void Model::Read(const Op& op) {
  const uint64_t gpa = op.gpa(), length = op[kSize];
  const bool plain = op[kForm] % 2 == 1 && IsPowerOfTwoUpTo8(length);
  outcome_.data.assign(length, kUntouched);
  if (OutOfRange("read", gpa, length)) {
    return;
  }
  const uint64_t end = FirstFault(gpa, length, false);
  const bool whole = end == gpa + length;
  for (uint64_t i = 0; i < length && gpa + i < end && (whole || !plain); ++i) {
    outcome_.data[i] = At(gpa + i);
  }
  if (!whole) {
    FailAccess("read", gpa, length, end, plain ? 0 : end - gpa, false);
  }
}

void Model::Write(const Op& op) {
  const uint64_t gpa = op.gpa(), length = op[kSize];
  const bool fill = op[kForm] >= 2;
  const bool plain = op[kForm] == 1 && IsPowerOfTwoUpTo8(length);
  const char* const operation = fill ? "fill" : "write";
  if (OutOfRange(operation, gpa, length)) {
    return;
  }
  std::vector<uint8_t> bytes(length);
  for (uint64_t i = 0; i < length; ++i) {
    bytes[i] = ByteOf(op[kValue], fill ? 0 : i % 8);
  }
  bool through_bells = false;
  for (uint64_t i = 0; i < length; ++i) {
    through_bells = through_bells || HasBell((gpa + i) / kPageBytes);
  }
  if (through_bells && Ring(bytes, gpa)) {
    return;
  }
  const uint64_t end = FirstFault(gpa, length, true);
  const bool whole = end == gpa + length;
  const bool all_or_nothing = plain || (through_bells && !fill && IsPowerOfTwoUpTo8(length));
  for (uint64_t i = 0; i < length && gpa + i < end && (whole || !all_or_nothing); ++i) {
    At(gpa + i) = bytes[i];
  }
  if (!whole) {
    FailAccess(operation, gpa, length, end, all_or_nothing ? 0 : end - gpa, true);
  }
}

// Of what `value` says for its bytes turned round.
void Model::CompareExchange(const Op& op) {
  const uint64_t gpa = op.gpa(), length = op[kSize];
  if (!IsPowerOfTwoUpTo8(length) || OutOfRange("compare exchange", gpa, length)) {
    return;
  }
  if (gpa % length != 0) {
    outcome_.error = Error{"misaligned", "compare exchange", kGuest, std::pair(gpa, length), gpa};
    return;
  }
  const uint64_t end = FirstFault(gpa, length, true);
  if (end != gpa + length) {
    FailAccess("compare exchange", gpa, length, end, 0, true);
    return;
  }
  std::vector<uint8_t> seen, wanted;
  for (uint64_t i = 0; i < length; ++i) {
    seen.push_back(At(gpa + i));
    wanted.push_back(ByteOf(op[kValue], i));
  }
  outcome_.number = LittleEndian(seen);
  outcome_.flag = seen == wanted;
  for (uint64_t i = 0; outcome_.flag && i < length; ++i) {
    At(gpa + i) = static_cast<uint8_t>(255 - wanted[i]);
  }
}

void Model::Probe(const Op& op) {
  const uint64_t gpa = op.gpa(), length = op[kSize];
  const bool stores = op[kForm] % 3 == 1;
  if (OutOfRange("probe", gpa, length)) {
    return;
  }
  const uint64_t end = FirstFault(gpa, length, stores);
  if (end != gpa + length) {
    FailAccess("probe", gpa, length, end, 0, stores);
  }
}

void Model::Lock(const Op& op) {
  std::vector<uint64_t>& held = locks_[op[kSlot]];
  held.clear();
  const bool stores = op[kForm] % 2 == 1;
  std::vector<uint64_t> pages = {op[kPage]};
  if (op[kForm] >= 2) {
    pages.push_back(op[kPage] + 1);
  }
  Error error{"", "lock", kGuest};
  if (host_call_failed_) {
    error.kind = "resource exhausted";
    outcome_.error = error;
    return;
  }
  for (const uint64_t page : pages) {
    if (page >= kFirstInvalidGpn) {
      error.kind = "invalid GPN";
      error.gpn = page;
      outcome_.error = error;
      return;
    }
    if (page >= size_ / kPageBytes) {
      error.kind = "out of range";
      error.fault_address = page * kPageBytes;
      outcome_.error = error;
      return;
    }
  }
  for (const uint64_t page : pages) {
    const View& view = views_[page];
    const bool by_bell = stores && HasBell(page);
    if (by_bell || view.bytes == nullptr || (stores && !view.writable)) {
      error.kind = by_bell ? "not lockable" : "not mapped";
      error.note = !by_bell && stores && !view.writable ? "read-only" : "";
      error.fault_address = page * kPageBytes;
      outcome_.error = error;
      return;
    }
  }
  held = pages;
}

}  // namespace reference::vmm
