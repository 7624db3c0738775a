// Runs: an input or a plan from its first request to its last, and the runs that judge a double fetch.

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "machine.h"

namespace guestmem::hostile::detail {
namespace {

constexpr uint64_t kFieldBytes = 8;
constexpr uint64_t kPieceBytes = 4;  // of a struct that was put as one
constexpr uint64_t kMaxPieces = 16;

}  // namespace

void Machine::Reset() {
  for (uint64_t page = 0; page < touched_.size(); ++page) {
    if (touched_[page] != 0) {
      constexpr uint64_t kWords = kPageSize / kWordBytes / 64;
      std::fill_n(&known_[page * kWords], kWords, 0);
      touched_[page] = 0;
    }
  }
  // The stamps of earlier runs are not above the base; where it would wrap they are cleared.
  stamp_base_ = last_stamp_;
  if (stamp_base_ > UINT32_MAX - 2 * kMaxEvents) {
    std::fill(stamps_.begin(), stamps_.end(), 0);
    stamp_base_ = last_stamp_ = 0;
  }
  shared_.event_count = 0;
  shared_.frames = {};
  ForgetLocks();
  stopped_ = false;
  judges_stores_ = setup_.judges_stores_;
  after_verdict_ = failed_again_ = 0;
  failed_gpa_ = 0;
  candidates_.clear();
  outcomes_.clear();
  request_ = 0;
  kick_accesses_ = 0;
  for (const std::function<void()>& hook : setup_.on_start_) {
    hook();
  }
  BeginSegment();
}

void Machine::BeginSegment() {
  segment_stamp_ = stamp_base_ + shared_.event_count;
  segment_accesses_ = 0;
  allowed_.clear();
  pointers_.clear();
  hooks_.clear();
  outcomes_.push_back({0, static_cast<uint8_t>(request_)});
  g_watch.work = 0;
  g_watch.allocated = 0;
}

void Machine::Put(uint64_t gpa, std::span<const std::byte> bytes) {
  const Inside inside;
  if (gpa >= size_ || bytes.size() > size_ - gpa) {
    std::fprintf(stderr, "guestmem/hostile: an example puts bytes outside memory, at 0x%llx\n", static_cast<unsigned long long>(gpa));
    std::abort();
  }
  if (bytes.empty()) {
    return;
  }
  MakeKnown(gpa, bytes.size());
  std::memcpy(bytes_ + gpa, bytes.data(), bytes.size());
  if (bytes.size() <= kFieldBytes) {
    fields_.push_back({gpa, static_cast<uint8_t>(bytes.size())});
    return;
  }
  for (uint64_t i = 0; i < kMaxPieces && i * kPieceBytes < bytes.size(); ++i) {
    fields_.push_back({gpa + i * kPieceBytes, static_cast<uint8_t>(std::min(kPieceBytes, bytes.size() - i * kPieceBytes))});
  }
}

// The guest writes.
void Machine::Apply(const Write& write) {
  MakeKnown(write.gpa, write.length);
  write.PutInto(bytes_ + write.gpa);
  if (locked_pages_ != 0) {
    write.PutInto(&snapshot_[write.gpa]);
  }
}

void Machine::Deviate(const Record& record) {
  Plan& plan = shared_.plan;
  const Field& field = fields_[record.where % fields_.size()];
  if (record.kind == Record::Kind::kAnswer) {
    if (plan.answer_count < kMaxAnswers) {
      const uint64_t page = record.form < 24 ? field.gpa / kPageSize : record.where % touched_.size();
      plan.answers[plan.answer_count++] = {page, record.value % 2 == 0 ? 0 : record.value / 2 % 32, static_cast<uint8_t>(request_),
                                           static_cast<AnswerKind>(record.form % kAnswerKinds)};
    }
    return;
  }
  uint64_t gpa = field.gpa;
  uint8_t size = field.size;
  if (record.kind == Record::Kind::kPoke) {  // beside a field, or anywhere
    size = record.form < 16 ? 4 : 8;
    gpa = record.where < 0x8000 ? field.gpa + record.where / 256 * 4 : record.where % 0x8000 * 8;
    gpa %= size_ - size;
  }
  uint64_t original = 0;
  std::memcpy(&original, bytes_ + gpa, size);
  std::span<const uint64_t> values = interesting_;
  for (const Setup::Suggestion& suggestion : setup_.suggested_) {
    if (Overlap(suggestion.range, {gpa, size})) {
      values = suggestion.values;
    }
  }
  const uint64_t value = Value(record, original, size, size_, values);
  Write write{.gpa = gpa, .length = size, .request = static_cast<uint8_t>(request_), .size = size};
  std::memcpy(write.bytes.data(), &value, size);
  MakeKnown(gpa, size);
  plan.Add(write);
  Apply(write);
}

void Machine::BeginRequest(uint32_t request, Mode mode) {
  request_ = request;
  kick_accesses_ = 0;
  fields_.clear();
  Guest guest(*this);
  setup_.examples_[shared_.plan.examples[request]].write(guest);
  if (mode == Mode::kResolve) {
    for (const Record& record : records_) {
      const bool deviates = record.kind == Record::Kind::kField || record.kind == Record::Kind::kField2 ||
                            record.kind == Record::Kind::kPoke || record.kind == Record::Kind::kAnswer;
      if (deviates && record.request % shared_.plan.requests == request && !fields_.empty()) {
        Deviate(record);
      }
    }
  } else {
    const uint32_t count = shared_.plan.write_count;  // not what is drawn from now on
    for (uint32_t i = 0; i < count; ++i) {
      if (shared_.plan.writes[i].request == request) {
        Apply(shared_.plan.writes[i]);
      }
    }
    if (mode == Mode::kChangedFromStart && shared_.plan.change.write.request == request) {
      Apply(shared_.plan.change.write);
    }
  }
  BeginSegment();
}

void Machine::RunOnce(Mode mode) {
  mode_ = mode;
  Reset();
  g_watch.base = reinterpret_cast<uintptr_t>(front_);
  g_watch.size = size_;
  g_watch.max_work = setup_.options.max_work;
  g_watch.max_allocated = setup_.options.max_allocated;
  Run run(*this);
  const auto in_device = [](auto&& call) {
    g_watch.device_runs = true;
    call();
    g_watch.device_runs = false;
  };
  std::function<void()> kick;
  in_device([&] { kick = setup_.build_(run); });
  for (uint32_t request = 0; request < shared_.plan.requests && !stopped_; ++request) {
    BeginRequest(request, mode);
    in_device(kick);
  }
  in_device([&] { kick = nullptr; });
  Settle();
  g_watch.max_work = ~uint64_t{0};
}

uint64_t Machine::Digest() const {
  uint64_t digest = 0;
  for (const Event& event : std::span(shared_.events).first(shared_.event_count)) {
    for (const uint64_t part : {event.gpa, event.value, uint64_t{event.length}, uint64_t{event.request},
                                static_cast<uint64_t>(event.kind), uint64_t{event.ok}}) {
      digest = Mix(digest, part);
    }
  }
  for (const Outcome& outcome : outcomes_) {
    digest = Mix(digest, outcome.hash);
  }
  return digest;
}

void Machine::RunInput(std::span<const uint8_t> input) {
  Plan& plan = shared_.plan;
  shared_.verdict = VerdictKind::kNone;
  shared_.first_fetch = -1;
  capture_event_ = -1;
  plan.Clear();
  records_ = Decode(input, record_storage_);
  draws_.clear();
  const auto examples = static_cast<uint32_t>(setup_.examples_.size());
  for (const Record& record : records_) {
    if (record.kind == Record::Kind::kDraw || record.kind == Record::Kind::kDraw2) {
      draws_.push_back(&record);
    } else if (record.kind == Record::Kind::kRequest && plan.requests < setup_.options.requests) {
      plan.examples[plan.requests++] = static_cast<uint8_t>(record.where % examples);
    }
  }
  if (plan.requests == 0) {  // one of each
    for (uint32_t i = 0; i < std::min(examples, setup_.options.requests); ++i) {
      plan.examples[plan.requests++] = static_cast<uint8_t>(i);
    }
  }
  RunOnce(Mode::kResolve);
  if (shared_.verdict == VerdictKind::kNone && !candidates_.empty() && setup_.options.changes) {
    uint64_t seed = candidates_.size();
    for (const Record& record : records_) {
      seed = Mix(seed, record.value);
    }
    JudgeCandidates(seed);
  }
  records_ = {};
}

// A few of them, with a few values: an input that double fetches comes again with others.
void Machine::JudgeCandidates(uint64_t seed) {
  constexpr int kTries = 3;
  unchanged_ = outcomes_;
  const std::vector<Candidate> candidates = candidates_;
  const uint32_t writes = shared_.plan.write_count;
  for (int i = 0; i < kTries && shared_.verdict == VerdictKind::kNone; ++i) {
    seed = Mix(seed, static_cast<uint64_t>(i) + 1);
    shared_.plan.write_count = writes;
    if (TryChange(candidates[seed % candidates.size()], seed >> 16)) {
      return;
    }
  }
  shared_.plan.change.present = false;
}

// Chooses bytes of the candidate and what they become.
bool Machine::TryChange(const Candidate& candidate, uint64_t choice) {
  Random random(choice);
  uint64_t size = uint64_t{1} << random.Below(4);
  while (size > candidate.range.length) {
    size /= 2;
  }
  const uint64_t places = candidate.range.length / size;
  Change& change = shared_.plan.change;
  Write& write = change.write;
  write = {.gpa = candidate.range.start + random.Below(std::min<uint64_t>(places, 64)) * size, .length = static_cast<uint32_t>(size),
           .request = candidate.request, .size = static_cast<uint8_t>(size)};
  uint64_t original = 0;
  std::memcpy(&original, &first_[write.gpa], size);
  Record record{Record::Kind::kChange, static_cast<uint8_t>(random.Next() % 32), 0, 0, static_cast<uint32_t>(random.Next())};
  for (const Record& r : records_) {  // the input may say
    if (r.kind == Record::Kind::kChange && random.Below(2) == 0) {
      record = r;
    }
  }
  uint64_t value = Value(record, original, size, size_, interesting_);
  if (std::memcmp(&value, &original, size) == 0) {
    value = ~value;
  }
  std::memcpy(write.bytes.data(), &value, size);
  change.access = candidate.access;
  change.present = true;
  return JudgeChange(candidate.first);
}

// The run with the change, and the one that has it from the start. True: a verdict stands.
bool Machine::JudgeChange(uint32_t first) {
  RunOnce(Mode::kChangedFromStart);
  if (shared_.verdict != VerdictKind::kNone) {  // an input like any other
    shared_.plan.Add(shared_.plan.change.write);
    shared_.plan.change.present = false;
    return true;
  }
  from_start_ = std::exchange(outcomes_, {});
  capture_event_ = first;
  RunOnce(Mode::kChanged);
  capture_event_ = -1;
  if (shared_.verdict != VerdictKind::kNone) {
    return true;
  }
  const uint8_t request = shared_.plan.change.write.request;
  for (size_t i = 0; i < outcomes_.size(); ++i) {
    if (outcomes_[i].request != request) {
      continue;
    }
    const auto has = [&](const std::vector<Outcome>& outcomes) {
      return std::any_of(outcomes.begin(), outcomes.end(),
                         [&](const Outcome& o) { return o.request == request && o.hash == outcomes_[i].hash; });
    };
    if (!has(unchanged_) && !has(from_start_)) {
      shared_.first_fetch = first;
      Found(VerdictKind::kDoubleFetch, "what the device did fits neither the bytes of the first fetch nor those of the second");
      return true;
    }
  }
  return false;
}

// The bytes that a plan changes were fetched before: the last such access in the run without the change.
uint32_t Machine::FirstFetchOfChange() const {
  const Change& change = shared_.plan.change;
  uint32_t found = 0;
  for (uint32_t i = 0; i < shared_.event_count; ++i) {
    const Event& event = shared_.events[i];
    if (event.request == change.write.request && event.access < change.access && IsFetch(event.kind) &&
        Overlap({event.gpa, event.length}, {change.write.gpa, change.write.length})) {
      found = i;
    }
  }
  return found;
}

void Machine::RunPlan() {
  shared_.verdict = VerdictKind::kNone;
  shared_.first_fetch = -1;
  records_ = {};
  draws_.clear();
  capture_event_ = -1;
  RunOnce(Mode::kPlan);
  if (shared_.verdict == VerdictKind::kNone && shared_.plan.change.present) {
    unchanged_ = outcomes_;
    (void)JudgeChange(FirstFetchOfChange());
  }
}

}  // namespace guestmem::hostile::detail
