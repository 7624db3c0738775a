// The hostile guest at work: memory, the record of what the device did to it, the rules, and the runs that look for double fetches.
//
// One machine a process runs one device at a time on one thread. What a report needs of a run (plan, verdict, events) stands in
// Shared, which a child process leaves behind however it ends.

#ifndef GUESTMEM_FUZZ_HOSTILE_MACHINE_H_
#define GUESTMEM_FUZZ_HOSTILE_MACHINE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <guestmem/backing.h>
#include <guestmem/guest_memory.h>
#include <guestmem/hostile/device_fuzzer.h>

#include "plan.h"

namespace guestmem::hostile::detail {

enum class VerdictKind : uint8_t {
  kNone, kDoubleFetch, kStoreOutside, kForbidden, kUseAfterUnlock, kReadLock, kAccesses, kWork, kMemory, kSpins, kCrash, kHang
};
const char* Name(VerdictKind kind);

enum class EventKind : uint8_t { kFetch, kStore, kExchange, kRawFetch, kRawStore, kLockedStore, kLock, kUnlock, kCallOut, kChange };
const char* Name(EventKind kind);
inline bool IsFetch(EventKind kind) {
  return kind == EventKind::kFetch || kind == EventKind::kRawFetch || kind == EventKind::kExchange;
}

struct Event {
  uint64_t gpa;
  uint64_t value;    // the first bytes, as many as fit
  uint32_t length;
  uint32_t access;   // number in its kick
  uint8_t request;   // the kick
  EventKind kind;
  bool ok;
};

inline constexpr size_t kMaxEvents = 1 << 16;
inline constexpr size_t kFrames = 24;

struct Shared {
  VerdictKind verdict = VerdictKind::kNone;
  bool judging = false;             // a run is on its way
  uint64_t progress = 0;            // of a series of runs
  std::array<char, 256> why = {};
  uint32_t event_count = 0;
  uint32_t verdict_event = 0;       // the events before it led to the verdict
  uint32_t dropped_candidates = 0;  // several pointers of the guest's covered them
  int64_t first_fetch = -1;         // of a double fetch: events
  std::array<int, 2> frames = {};
  std::array<std::array<void*, kFrames>, 2> stacks = {};  // of the first fetch, and of what the verdict is about
  Plan plan;
  std::array<Event, kMaxEvents> events;
};

class Machine {
 public:
  // Fatal where the description cannot be meant (no device, no example, memory that is no pages). `shared` is zeroed memory.
  Machine(const std::function<void(Setup&)>& describe, Shared& shared);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Both leave the verdict, the plan and the events of the run that shows it in shared(). An input: one run, and where that
  // fetched bytes twice, a few pairs of runs with other bytes. The plan in shared(), by address: one run; with a change, three.
  void RunInput(std::span<const uint8_t> input);
  void RunPlan();
  // Called where the device cannot go on; must not return. The verdict stands in shared().
  void OnStop(std::function<void()> stop) { on_stop_ = std::move(stop); }

  Shared& shared() { return shared_; }
  const Setup& setup() const { return setup_; }
  std::span<const std::string> example_names() const { return example_names_; }
  const GuestMemory& memory() const { return memory_; }
  uint64_t Digest() const;                         // of the last run: each access, and what came of it
  uint64_t accesses() const { return accesses_; }  // ever
  [[noreturn]] void Stop(VerdictKind kind, std::string_view why);
  void Found(VerdictKind kind, std::string_view why);  // the run goes on, and every access fails

  // What the backing, the hooks of instrumented code and the public classes call.
  PageFaultAction Fault(const PageFaultInfo& fault);
  Status Fetch(uint64_t gpa, std::span<std::byte> out);
  Status Store(uint64_t gpa, std::span<const std::byte> bytes);
  Status Fill(uint64_t gpa, std::byte value, uint64_t length);
  Result<bool> Exchange(uint64_t gpa, std::span<std::byte> current, std::span<const std::byte> desired);
  Status Lock(AccessType access, std::span<const uint64_t> gpns);
  void Unlock(AccessType access, std::span<const uint64_t> gpns);
  void RawFetch(uint64_t gpa, uint64_t length);
  void RawStore(uint64_t gpa, uint64_t length);
  void Settle();  // a lock is complete: its pages' bits are clear again
  void CallOut(std::string_view name, std::span<const std::byte> data);
  void Put(uint64_t gpa, std::span<const std::byte> bytes);
  bool FirstBytes(uint64_t gpa, std::span<std::byte> bytes) const;
  void NowBytes(uint64_t gpa, std::span<std::byte> bytes) const;
  bool AddPointer(uint64_t source, AddressRange target);
  void AllowStore(AddressRange range) { allowed_.push_back(range), judges_stores_ = true; }
  void AddHook(AddressRange range, Hook hook);
  bool MayStoreInto(AddressRange range) const;
  bool IsNamed(AddressRange range) const;
  std::byte* front() const { return front_; }
  uint64_t size() const { return size_; }
  const uint8_t* bits(AccessType access) const { return access == AccessType::kWrite ? write_bits_.data() : read_bits_.data(); }

 private:
  class Backing;
  enum class Mode { kResolve, kPlan, kChanged, kChangedFromStart };
  struct Candidate {
    uint32_t first;   // the event of the first fetch
    uint32_t access;  // the second one, in its kick
    uint8_t request;
    AddressRange range;
  };
  struct Pointer {
    uint64_t source;
    AddressRange target;
  };
  struct Outcome {
    uint64_t hash;
    uint8_t request;
  };
  struct LockedPage {
    uint32_t locks = 0, writers = 0;
  };
  struct Field {
    uint64_t gpa;
    uint8_t size;
  };

  void Describe();
  // machine_runs.cc
  void RunOnce(Mode mode);
  void Reset();
  void BeginRequest(uint32_t request, Mode mode);
  void Deviate();
  void Deviate(const Record& record);
  void Apply(const Write& write);
  void BeginSegment();
  void JudgeCandidates(uint64_t seed);
  bool TryChange(const Candidate& candidate, uint64_t choice);
  bool JudgeChange(uint32_t first);
  uint32_t FirstFetchOfChange() const;
  // machine_access.cc
  uint64_t Admit(EventKind kind, uint64_t gpa, uint64_t length, AccessType access, Status& status);
  uint64_t Answered(uint64_t gpa, uint64_t length, AccessType access, uint32_t index, Status& status) const;
  const Answer* AnswerFor(uint64_t page, AccessType access, uint32_t index) const;
  void CountFailure(EventKind kind, uint64_t gpa);
  Event& NewEvent(EventKind kind, uint64_t gpa, uint64_t length, uint32_t index);
  void Observe(uint64_t gpa, uint64_t length);
  void ObserveAgain(uint64_t gpa, uint64_t length);
  std::vector<uint64_t> SourcesOf(uint64_t first, uint64_t second, AddressRange range) const;
  bool IsAliased(uint64_t first, uint64_t second, AddressRange range) const;
  void Draw(uint64_t gpa, uint64_t length);
  void DrawRun(uint64_t word, uint64_t words, bool alike);
  uint64_t DrawnWord(uint64_t word) const;
  void CallFetchHooks(uint64_t gpa, uint64_t length);
  void BeforeStore(uint64_t gpa, uint64_t length);
  void MakeKnown(uint64_t gpa, uint64_t length);
  void AfterStore(uint64_t gpa, uint64_t length, bool whole);
  // machine_locks.cc
  bool Flush(uint64_t page);
  void FlushAll();
  void ForgetLocks();
  void Protect(std::span<const uint64_t> pages, bool accessible);

  Setup setup_;
  Shared& shared_;
  std::vector<std::string> example_names_;
  std::vector<uint64_t> interesting_;
  std::function<void()> on_stop_;
  uint64_t size_ = 0;
  std::byte* front_ = nullptr;  // what the device may be given while a page is locked; else inaccessible
  std::byte* bytes_ = nullptr;  // the same memory, for the guest
  GuestMemory memory_;
  std::vector<uint8_t> read_bits_, write_bits_;

  // By page, word or byte of memory.
  std::vector<uint64_t> known_;            // one bit a word: it has bytes; else they are drawn when it is first needed
  std::vector<uint8_t> touched_;           // pages with known words
  std::vector<uint32_t> stamps_;           // the last fetch: stamp_base_ + event + 1; 0: stored to since
  std::vector<std::byte> first_;           // as first fetched in this segment
  std::vector<std::byte> snapshot_;        // of locked pages
  std::vector<LockedPage> locked_;
  std::vector<uint64_t> pending_;          // pages of locks that may still be probed
  uint32_t locked_pages_ = 0;

  // One run.
  std::array<Record, kMaxRecords> record_storage_;
  std::span<const Record> records_;
  std::vector<const Record*> draws_;
  std::vector<Field> fields_;              // of the example being written
  Mode mode_ = Mode::kPlan;
  uint32_t request_ = 0;
  uint32_t kick_accesses_ = 0;
  uint64_t segment_accesses_ = 0;
  uint32_t stamp_base_ = 0, segment_stamp_ = 0, last_stamp_ = 0;
  bool stopped_ = false;                   // a verdict was found
  bool judges_stores_ = false;
  uint32_t after_verdict_ = 0, failed_again_ = 0;
  uint64_t failed_gpa_ = 0;
  int64_t capture_event_ = -1;
  std::vector<AddressRange> allowed_;      // this segment
  std::vector<Pointer> pointers_;
  std::vector<Setup::Rule> hooks_;
  std::vector<Candidate> candidates_;
  std::vector<Outcome> outcomes_, unchanged_, from_start_;  // by segment
  uint64_t accesses_ = 0;
  std::vector<uint64_t> changed_pages_;   // while a lock begins or ends
};

// Of ranges as a guest gives them: they may end beyond 2^64.
inline bool Overlap(AddressRange a, AddressRange b) {
  return a.start >= b.start ? a.start - b.start < b.length : b.start - a.start < a.length;
}

// What instrumented code and operator new look at. `window` is the front mapping while a run is on its way: everything, if a lock may
// be pending.
struct Watch {
  uintptr_t base = 0, size = 0;
  uint64_t work = 0, max_work = ~uint64_t{0};
  uint64_t allocated = 0, max_allocated = ~uint64_t{0};
  bool device_runs = false;  // and not the kit
  Machine* machine = nullptr;
};
extern Watch g_watch;

// The kit runs for a while, called by the device.
class Inside {
 public:
  Inside() : was_(g_watch.device_runs) { g_watch.device_runs = false; }
  ~Inside() { g_watch.device_runs = was_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  bool was_;
};

int CaptureStack(std::span<void*> frames);
// Faults in the front mapping while a device runs become verdicts, also those that guestmem would recover. To be called when
// guestmem has installed its handler; once.
void InstallFaultReport();

}  // namespace guestmem::hostile::detail

#endif  // GUESTMEM_FUZZ_HOSTILE_MACHINE_H_
