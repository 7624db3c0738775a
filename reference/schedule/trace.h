// A concurrent trace: a small world, operations of two or three threads, and the choices of the schedule. As data; its rows are
// in trace.cc, and both spellings come from them (reference/trace/schema.h).
//
//   guestmem schedule 1
//   threads 3
//   membarrier refused
//   page rw
//   page r- missing
//   handler grant fail
//   choices 0*12 1 2
//   ops
//   0 write page=0 cell=8 size=4
//   1 retire page=0 by=unmap
//
// What an operation writes is its own number, in every byte: a torn value, a value from nowhere and a lost update are then
// seen as such, and a mutation of one operation leaves the others' values alone. Operations that make no sense where
// they come (restoring what is not retired) do nothing.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_TRACE_H_
#define GUESTMEM_REFERENCE_SCHEDULE_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "reference/trace/schema.h"

namespace reference::schedule {

inline constexpr int kMaxThreads = 3;
inline constexpr int kMaxPages = 4;
inline constexpr size_t kMaxOps = 18;
inline constexpr size_t kMaxAnswers = 4;
inline constexpr size_t kMaxChoices = 4000;  // no run has more steps

// Where in a page things happen: its edges, two granules side by side, one by itself.
inline constexpr uint16_t kCells[] = {0, 8, 2048, 4088};
inline constexpr int kCellCount = 4;
// Lengths of bulk operations; cut at the end of memory.
inline constexpr uint16_t kLengths[] = {8, 1, 16, 24, 2048, 4096, 4104, 8192, 12288};
inline constexpr int kLengthCount = 9;

// The numbers stand in inputs of fuzzers: a new kind takes the next, and none is used again.
enum class OpKind : uint8_t {
  kRead = 0,         // plain
  kWrite = 1,
  kCompareExchange = 2, // of what this thread last saw there for its own number
  kBulkRead = 3,
  kBulkWrite = 4,
  kFill = 5,
  kRevoke = 6,
  kGrant = 7,        // but for retired pages
  kRetire = 8,       // revokes everything on the page, then poisons or unmaps it
  kRestore = 9,      // looks whether the poison is whole, fills the page with its number, grants everything
  kLock = 10,        // GuestMemory::LockGpns of one page
  kTouch = 11,       // reads or writes a locked page through its host address
  kUnlock = 12,
  kSection = 13,     // a section of the thread's own, in it a plain read, and then a direct one of what the bits allowed
  kResolve = 14,     // populates a missing page: the threads that sleep on it wake
  kWaitUnlocked = 15, // for pages that other threads have locked; a thread that holds a lock only asks, since waiting might never end
};
GUESTMEM_WITHOUT_ORDER(OpKind);

struct Op {
  uint8_t thread = 0;
  OpKind kind = OpKind::kRead;
  uint8_t page = 0;    // modulo the world's
  uint8_t count = 1;   // pages of kRevoke, kGrant, kWaitUnlocked: 1..kMaxPages, cut at the end of memory
  uint8_t cell = 0;    // index into kCells
  uint8_t size = 3;    // log2 of a plain access
  uint8_t part = 0;    // 0..7: where in the granule, rounded down to the size
  uint8_t length = 0;  // index into kLengths
  uint8_t access = 3;  // kRevoke, kGrant: 1 read, 2 write, 3 both
  uint8_t form = 0;    // kRetire: 0 poison, 1 unmap; kLock: 0 for reading, 1 for writing; kTouch: 0 read, 1 write
  bool operator==(const Op&) const = default;
};

// What the page-fault handler answers, in this order, whichever access asks; after the last, it refuses.
enum class Answer : uint8_t {
  kFail,
  kRetry,         // without having done anything
  kGrant,         // grants the page and retries
  kRestore,       // restores the page if it is retired, else grants it; and retries
  kRevokeOther,   // revokes the next page, which waits for readers, and retries
  kRetryForever,  // stays at this answer: starvation
};
inline constexpr int kAnswers = 6;

struct Page {
  bool readable = true;
  bool writable = true;
  bool missing = false;  // not there until resolved: an access sleeps, as on userfaultfd
  bool hole = false;     // not there until restored: an access faults; never missing, too
  bool operator==(const Page&) const = default;
};

struct Trace {
  uint8_t threads = 2;  // 2..kMaxThreads
  bool membarrier = true;  // false: the kernel refuses it
  std::vector<Page> pages = std::vector<Page>(1);  // 1..kMaxPages
  std::vector<Answer> answers;
  std::vector<Op> ops;               // each thread's, in this order
  std::vector<uint8_t> choices;      // 0..5: among those who can go on, in turn from the current one; then 0
  bool operator==(const Trace&) const = default;
};
// A choice is taken modulo the number of threads that can go on, 2 or 3; modulo 6 changes nothing.
inline constexpr uint8_t kChoiceValues = 6;

// Bytes: records of kRecordBytes, at most kMostWorld of them before the ops; choices go on in records of their own.
inline constexpr size_t kRecordBytes = 8;
inline constexpr size_t kMostWorld = 4 + kMaxPages;
const trace::Schema& Rows();

using trace::TextError;
Trace FromBytes(std::span<const uint8_t> bytes);
std::vector<uint8_t> ToBytes(const Trace& trace);
std::string OpText(const Op& op);  // with its thread before it
std::string ToText(const Trace& trace);
std::variant<Trace, TextError> FromText(std::string_view text);

// Without missing pages and without endless retries: what then deadlocks or starves is the engine's fault.
const trace::Profile& WithoutHangs();

// Where an op's bytes are, in a world of `pages` pages.
struct Range {
  uint64_t address;
  uint64_t length;
};
Range RangeOf(const Op& op, size_t pages);

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_TRACE_H_
