// Accesses: what the guest answers, what is recorded, what the rules say.

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "machine.h"

namespace guestmem::hostile::detail {
namespace {

constexpr uint64_t kLongRead = 64;             // from here on, bytes are drawn alike
constexpr uint64_t kNoSource = ~uint64_t{0};   // the device knows the place by itself
constexpr uint32_t kPatience = 1 << 12;        // accesses after a verdict, until the device is stopped

void PutWord(uint64_t value, std::span<std::byte> to) { std::memcpy(to.data(), &value, std::min(to.size(), sizeof(value))); }

}  // namespace

Event& Machine::NewEvent(EventKind kind, uint64_t gpa, uint64_t length, uint32_t index) {
  if (shared_.event_count == kMaxEvents) {
    Stop(VerdictKind::kAccesses, "more accesses in one run than can be recorded");
  }
  Event& event = shared_.events[shared_.event_count++];
  event = {gpa, 0, static_cast<uint32_t>(length), index, static_cast<uint8_t>(request_), kind, true};
  if (capture_event_ == shared_.event_count - 1) {
    shared_.frames[0] = CaptureStack(shared_.stacks[0]);
  }
  return event;
}

const Answer* Machine::AnswerFor(uint64_t page, AccessType access, uint32_t index) const {
  for (const Answer& answer : std::span(shared_.plan.answers).first(shared_.plan.answer_count)) {
    if (answer.request == request_ && answer.page == page && index >= answer.after &&
        (answer.kind != AnswerKind::kReadOnly || access == AccessType::kWrite) && answer.kind != AnswerKind::kNotLockable) {
      return &answer;
    }
  }
  return nullptr;
}

// How many bytes the pages let through, and why no more.
uint64_t Machine::Answered(uint64_t gpa, uint64_t length, AccessType access, uint32_t index, Status& status) const {
  for (uint64_t page = gpa / kPageSize; page * kPageSize < gpa + length; ++page) {
    const Answer* const answer = AnswerFor(page, access, index);
    if (answer == nullptr) {
      continue;
    }
    uint64_t moved = std::max(page * kPageSize, gpa) - gpa;
    switch (answer->kind) {
      case AnswerKind::kBackend:
        moved += (length - moved) / 2;
        status = BackendError(StatusCode::kUnavailable, "the hostile guest's page does not answer", gpa + moved, moved);
        break;
      case AnswerKind::kNotMapped:
        status = MakeStatus({.kind = ErrorKind::kNotMapped, .fault_address = gpa + moved, .transferred = moved});
        break;
      default:
        status = MakeStatus({.kind = ErrorKind::kAccessDenied, .fault_address = gpa + moved, .transferred = moved});
        break;
    }
    return moved;
  }
  return length;
}

void Machine::CountFailure(EventKind kind, uint64_t gpa) {
  if (stopped_ && ++after_verdict_ > kPatience) {
    Stop(shared_.verdict, "");
  }
  const uint64_t what = gpa * 16 + static_cast<uint64_t>(kind);
  failed_again_ = what == failed_gpa_ ? failed_again_ + 1 : 1;
  failed_gpa_ = what;
  if (failed_again_ > setup_.options.max_failed_again) {
    char why[128];
    std::snprintf(why, sizeof(why), "the %s of gpa 0x%llx failed %u times, and the device goes on trying", Name(kind),
                  static_cast<unsigned long long>(gpa), failed_again_);
    Stop(VerdictKind::kSpins, why);
  }
}

// Counts and records an access. Returns how many of its bytes may be moved; all, or else `status` says why not.
uint64_t Machine::Admit(EventKind kind, uint64_t gpa, uint64_t length, AccessType access, Status& status) {
  Settle();
  ++accesses_;
  const uint32_t index = kick_accesses_++;
  if (++segment_accesses_ > setup_.options.max_accesses) {
    Found(VerdictKind::kAccesses, "the request took more accesses than Options::max_accesses");
  }
  const Change& change = shared_.plan.change;
  if (mode_ == Mode::kChanged && index == change.access && request_ == change.write.request) {
    Event& change_event = NewEvent(EventKind::kChange, change.write.gpa, change.write.length, index);
    Apply(change.write);
    shared_.frames[1] = CaptureStack(shared_.stacks[1]);
    std::memcpy(&change_event.value, bytes_ + change.write.gpa, std::min<size_t>(change.write.length, sizeof(uint64_t)));
  }
  Event& event = NewEvent(kind, gpa, length, index);
  uint64_t admitted = length;
  if (stopped_) {
    admitted = 0;
    status = NotMapped();
  } else if (shared_.plan.answer_count != 0) {
    admitted = Answered(gpa, length, access, index, status);
  }
  if (admitted != length) {
    event.ok = false;
    CountFailure(kind, gpa);
  } else {
    failed_again_ = 0;
  }
  return admitted;
}

PageFaultAction Machine::Fault(const PageFaultInfo& fault) {
  const Inside inside;
  if (shared_.plan.answer_count != 0) {
    const Answer* const answer = AnswerFor(fault.address / kPageSize, fault.access, kick_accesses_);
    if (answer != nullptr && (answer->kind == AnswerKind::kDenied || answer->kind == AnswerKind::kReadOnly)) {
      Status status;
      (void)Admit(fault.access == AccessType::kWrite ? EventKind::kStore : EventKind::kFetch, fault.address, fault.length,
                  fault.access, status);
      return PageFaultAction::Fail(AccessDenied());
    }
  }
  return PageFaultAction::Fallback();
}

// What the guest's input says of a word that nobody has written. By address, so that the order of accesses does not matter.
uint64_t Machine::DrawnWord(uint64_t word) const {
  if (draws_.empty()) {
    return 0;
  }
  const Record& record = *draws_[Mix(0, word) % draws_.size()];
  const uint64_t value = Value(record, 0, kWordBytes, size_, interesting_);
  return record.form < 16 ? value : value & 0xffffffff;
}

// Gives bytes to every word of the range that has none: short reads word by word, long ones alike.
void Machine::Draw(uint64_t gpa, uint64_t length) {
  constexpr uint64_t kGroup = 64;  // words whose bits stand in one
  const uint64_t first = gpa / kWordBytes;
  const uint64_t end = (gpa + length + kWordBytes - 1) / kWordBytes;
  for (uint64_t group = first / kGroup; group * kGroup < end; ++group) {
    if (~known_[group] == 0) {
      continue;
    }
    uint64_t unknown = ~known_[group];
    if (group * kGroup < first) {
      unknown &= ~uint64_t{0} << first % kGroup;
    }
    if ((group + 1) * kGroup > end) {
      unknown &= ~uint64_t{0} >> (kGroup - end % kGroup);
    }
    if (unknown == 0) {
      continue;
    }
    known_[group] |= unknown;
    touched_[group * kGroup * kWordBytes / kPageSize] = 1;
    while (unknown != 0) {
      const auto at = static_cast<uint64_t>(std::countr_zero(unknown));
      const auto run = length < kLongRead ? uint64_t{1} : static_cast<uint64_t>(std::countr_one(unknown >> at));
      unknown &= run + at == kGroup ? (uint64_t{1} << at) - 1 : ~(((uint64_t{1} << run) - 1) << at);
      DrawRun(group * kGroup + at, run, length >= kLongRead);
    }
  }
}

void Machine::DrawRun(uint64_t word, uint64_t words, bool alike) {
  Write write{.gpa = word * kWordBytes, .length = static_cast<uint32_t>(words * kWordBytes),
              .request = static_cast<uint8_t>(request_), .size = kWordBytes};
  if (alike) {
    write.size = 1;
    write.bytes[0] = std::byte{static_cast<uint8_t>(DrawnWord(write.gpa / kPageSize))};
  } else {
    PutWord(DrawnWord(word), write.bytes);
  }
  write.PutInto(bytes_ + write.gpa);
  if (write.bytes != decltype(write.bytes){}) {  // zeroes are what a plan does not name
    shared_.plan.Add(write);
  }
}

// The device is about to get these bytes.
void Machine::Observe(uint64_t gpa, uint64_t length) {
  Draw(gpa, length);
  const uint32_t stamp = stamp_base_ + shared_.event_count;
  last_stamp_ = stamp;
  uint32_t* const stamps = &stamps_[gpa];
  bool again = false;
  for (uint64_t i = 0; i < length; ++i) {
    again |= stamps[i] > segment_stamp_;
  }
  if (again) [[unlikely]] {
    ObserveAgain(gpa, length);
  } else {
    std::memcpy(&first_[gpa], bytes_ + gpa, length);
  }
  std::fill_n(stamps, length, stamp);
  std::memcpy(&shared_.events[shared_.event_count - 1].value, bytes_ + gpa, std::min<uint64_t>(length, sizeof(uint64_t)));
}

// Some of them it had before.
void Machine::ObserveAgain(uint64_t gpa, uint64_t length) {
  constexpr size_t kMaxCandidates = 32;
  for (uint64_t i = 0; i < length;) {
    const uint32_t stamp = stamps_[gpa + i];
    uint64_t end = i + 1;
    while (end < length && stamps_[gpa + end] == stamp) {
      ++end;
    }
    const AddressRange range{gpa + i, end - i};
    if (stamp <= segment_stamp_) {
      std::memcpy(&first_[range.start], bytes_ + range.start, range.length);
    } else if (mode_ == Mode::kResolve && candidates_.size() < kMaxCandidates) {
      const uint32_t first = stamp - stamp_base_ - 1;
      const uint32_t second = shared_.event_count - 1;
      const bool polled = std::any_of(setup_.polled_.begin(), setup_.polled_.end(),
                                      [&](const AddressRange& p) { return Overlap(p, range); });
      if (!polled && IsAliased(first, second, range)) {
        ++shared_.dropped_candidates;
      } else if (!polled) {
        candidates_.push_back({first, shared_.events[second].access, shared_.events[second].request, range});
      }
    }
    i = end;
  }
}

// What names these bytes: pointers that hooks told, places that the device knows by itself (as one), and, guessed, words of the guest's
// at whose value the first or the second of the accesses starts. Each once, by where it stands.
std::vector<uint64_t> Machine::SourcesOf(uint64_t first, uint64_t second, AddressRange range) const {
  std::vector<uint64_t> sources;
  for (const AddressRange& fixed : setup_.fixed_) {
    if (Overlap(fixed, range)) {
      sources.push_back(kNoSource);
      break;
    }
  }
  for (const Pointer& pointer : pointers_) {
    if (Overlap(pointer.target, range)) {
      sources.push_back(pointer.source);
    }
  }
  const std::span events = std::span(shared_.events).first(second + 1);
  const uint8_t request = events[second].request;
  for (uint64_t e = events.size(); e-- > 0 && events[e].request == request;) {
    const Event& fetch = events[e];
    if (!fetch.ok || fetch.length > kLongRead || !IsFetch(fetch.kind)) {
      continue;
    }
    for (uint64_t at = (fetch.gpa + 7) / 8 * 8; at + 8 <= fetch.gpa + fetch.length; at += 8) {
      uint64_t value;
      std::memcpy(&value, &first_[at], sizeof(value));
      if (value != 0 && (value == events[first].gpa || value == events[second].gpa)) {
        sources.push_back(at);
      }
    }
  }
  std::sort(sources.begin(), sources.end());
  sources.erase(std::unique(sources.begin(), sources.end()), sources.end());
  return sources;
}

// Whether the guest made the device read the bytes twice: several pointers name them, or what names the one pointer that does.
bool Machine::IsAliased(uint64_t first, uint64_t second, AddressRange range) const {
  constexpr int kDepth = 32;
  std::vector<uint64_t> sources = SourcesOf(first, second, range);
  for (int depth = 0; sources.size() == 1 && sources[0] != kNoSource && depth < kDepth; ++depth) {
    const AddressRange pointer{sources[0], 1};
    sources.clear();
    for (const AddressRange& fixed : setup_.fixed_) {
      if (Overlap(fixed, pointer)) {
        sources.push_back(kNoSource);
        break;
      }
    }
    for (const Pointer& other : pointers_) {
      if (Overlap(other.target, pointer)) {
        sources.push_back(other.source);
      }
    }
  }
  return sources.size() > 1;
}

void Machine::CallFetchHooks(uint64_t gpa, uint64_t length) {
  const AddressRange range{gpa, length};
  Access access(*this, range);
  for (const Setup::Rule& rule : setup_.on_fetch_) {
    if (Overlap(rule.range, range)) {
      rule.hook(access);
    }
  }
  for (size_t i = 0; i < hooks_.size(); ++i) {  // a hook may add some
    if (Overlap(hooks_[i].range, range)) {
      const Hook hook = hooks_[i].hook;
      hook(access);
    }
  }
}

void Machine::AddHook(AddressRange range, Hook hook) {
  constexpr size_t kMaxHooks = 64;
  if (hooks_.size() < kMaxHooks) {
    hooks_.push_back({range, std::move(hook)});
  }
}

bool Machine::AddPointer(uint64_t source, AddressRange target) {
  for (const Pointer& pointer : pointers_) {
    if (pointer.source == source) {
      return false;
    }
  }
  pointers_.push_back({source, target});
  return true;
}

bool Machine::FirstBytes(uint64_t gpa, std::span<std::byte> bytes) const {
  if (gpa >= size_ || bytes.size() > size_ - gpa) {
    return false;
  }
  for (uint64_t i = 0; i < bytes.size(); ++i) {
    if (stamps_[gpa + i] <= segment_stamp_) {
      return false;
    }
    bytes[i] = first_[gpa + i];
  }
  return true;
}

void Machine::NowBytes(uint64_t gpa, std::span<std::byte> bytes) const {
  if (gpa < size_ && bytes.size() <= size_ - gpa) {
    std::memcpy(bytes.data(), bytes_ + gpa, bytes.size());
  }
}

bool Machine::IsNamed(AddressRange range) const {
  return std::any_of(setup_.fixed_.begin(), setup_.fixed_.end(), [&](const AddressRange& f) { return Overlap(f, range); }) ||
         std::any_of(pointers_.begin(), pointers_.end(), [&](const Pointer& p) { return Overlap(p.target, range); });
}

bool Machine::MayStoreInto(AddressRange range) const {
  return std::any_of(allowed_.begin(), allowed_.end(), [&](const AddressRange& a) { return Overlap(a, range); });
}

Status Machine::Fetch(uint64_t gpa, std::span<std::byte> out) {
  const Inside inside;
  Status status;
  const uint64_t length = Admit(EventKind::kFetch, gpa, out.size(), AccessType::kRead, status);
  if (length != 0) {
    Observe(gpa, length);
    std::memcpy(out.data(), bytes_ + gpa, length);
    if (length == out.size()) {
      CallFetchHooks(gpa, length);
    }
  }
  return status;
}

// Where a store of the device covers a word in part, the rest of it must be there.
void Machine::BeforeStore(uint64_t gpa, uint64_t length) {
  if (gpa % kWordBytes != 0) {
    Draw(gpa, 1);
  }
  if ((gpa + length) % kWordBytes != 0) {
    Draw(gpa + length - 1, 1);
  }
  MakeKnown(gpa, length);
}

// All words of the range have bytes from now on: zeroes, where the caller does not put any.
void Machine::MakeKnown(uint64_t gpa, uint64_t length) {
  const uint64_t end = (gpa + length + kWordBytes - 1) / kWordBytes;
  for (uint64_t word = gpa / kWordBytes; word < end; ++word) {
    uint64_t& known = known_[word / 64];
    const uint64_t bit = uint64_t{1} << word % 64;
    if ((known & bit) == 0) {
      known |= bit;
      std::memset(bytes_ + word * kWordBytes, 0, kWordBytes);
      touched_[word * kWordBytes / kPageSize] = 1;
    }
  }
}

// The bytes stand in memory: rules, outcome, the request's end.
void Machine::AfterStore(uint64_t gpa, uint64_t length, bool whole) {
  const AddressRange range{gpa, length};
  // A buffer of the guest's may lie there, too: data is no completion.
  const bool last = whole && !MayStoreInto(range) && std::any_of(setup_.ends_.begin(), setup_.ends_.end(),
                                                        [&](const AddressRange& e) { return Overlap(e, range); });
  if (last) {
    FlushAll();
  }
  std::fill_n(&stamps_[gpa], length, 0);
  if (judges_stores_ && !stopped_) {
    uint64_t at = gpa;  // up to here it is allowed
    const auto advance = [&](std::span<const AddressRange> ranges) {
      for (const AddressRange& r : ranges) {
        if (at >= r.start && at - r.start < r.length) {
          const uint64_t rest = r.length - (at - r.start);
          at = rest > ~at ? ~uint64_t{0} : at + rest;
        }
      }
    };
    for (uint64_t before = ~uint64_t{0}; at < gpa + length && at != before;) {
      before = at;
      advance(setup_.may_store_);
      advance(allowed_);
    }
    if (at < gpa + length) {
      char why[128];
      std::snprintf(why, sizeof(why), "%llu bytes at gpa 0x%llx, which the request does not allow from 0x%llx on",
                    static_cast<unsigned long long>(length), static_cast<unsigned long long>(gpa),
                    static_cast<unsigned long long>(at));
      Found(VerdictKind::kStoreOutside, why);
    }
  }
  outcomes_.back().hash = Mix(Mix(outcomes_.back().hash, gpa), {bytes_ + gpa, length});
  std::memcpy(&shared_.events[shared_.event_count - 1].value, bytes_ + gpa, std::min<uint64_t>(length, sizeof(uint64_t)));
  Access access(*this, range);
  for (const Setup::Rule& rule : setup_.on_store_) {
    if (whole && Overlap(rule.range, range)) {
      rule.hook(access);
    }
  }
  if (last) {
    BeginSegment();
  }
}

Status Machine::Store(uint64_t gpa, std::span<const std::byte> bytes) {
  const Inside inside;
  Status status;
  const uint64_t length = Admit(EventKind::kStore, gpa, bytes.size(), AccessType::kWrite, status);
  if (length != 0) {
    BeforeStore(gpa, length);
    std::memcpy(bytes_ + gpa, bytes.data(), length);
    if (locked_pages_ != 0) {
      std::memcpy(&snapshot_[gpa], bytes.data(), length);
    }
    AfterStore(gpa, length, length == bytes.size());
  }
  return status;
}

Status Machine::Fill(uint64_t gpa, std::byte value, uint64_t length) {
  const std::vector<std::byte> bytes = [&] {
    const Inside inside;
    return std::vector<std::byte>(length, value);
  }();
  const Inside inside;
  return Store(gpa, bytes);
}

Result<bool> Machine::Exchange(uint64_t gpa, std::span<std::byte> current, std::span<const std::byte> desired) {
  const Inside inside;
  Status status;
  const uint64_t length = Admit(EventKind::kExchange, gpa, current.size(), AccessType::kWrite, status);
  if (length != current.size()) {
    return status;
  }
  Observe(gpa, length);
  const bool equal = std::memcmp(bytes_ + gpa, current.data(), length) == 0;
  std::memcpy(current.data(), bytes_ + gpa, length);
  CallFetchHooks(gpa, length);
  if (equal && std::memcmp(bytes_ + gpa, desired.data(), length) != 0) {
    std::memcpy(bytes_ + gpa, desired.data(), length);
    if (locked_pages_ != 0) {
      std::memcpy(&snapshot_[gpa], desired.data(), length);
    }
    AfterStore(gpa, length, true);
  }
  return equal;
}

void Machine::CallOut(std::string_view name, std::span<const std::byte> data) {
  const Inside inside;
  Settle();
  uint64_t hash = outcomes_.back().hash;
  for (const char c : name) {
    hash = Mix(hash, static_cast<uint8_t>(c));
  }
  outcomes_.back().hash = Mix(hash, data);
  Event& event = NewEvent(EventKind::kCallOut, 0, data.size(), kick_accesses_);
  if (!data.empty()) {
    std::memcpy(&event.value, data.data(), std::min(data.size(), sizeof(uint64_t)));
  }
}

}  // namespace guestmem::hostile::detail
