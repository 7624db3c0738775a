// What an experiment is made of: the world it happens in, one step of it, and everything a caller can
// observe of that step. The model and every Subject speak these words; nothing here knows the engine.

#ifndef GUESTMEM_REFERENCE_MODEL_VOCABULARY_H_
#define GUESTMEM_REFERENCE_MODEL_VOCABULARY_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reference/world/answers.h"
#include "reference/world/backings.h"

namespace reference {

inline constexpr uint64_t kHandles = 4;      // handle 0 is the memory itself; 1..3 hold views
inline constexpr uint64_t kObjects = 4;      // of each sort of object that steps create, use and drop (ranges, locks)

// A handler puts a page in order: for a bitmap failure, the page's bit of that access is set; for a fault, the page becomes kRam
// (its bytes as they were; a kBus page becomes kRam with all bytes zero). A page that is kRam already is left alone.
// Each page that changes its state costs the handler one host call (World::failing_host_call); if that call fails, the
// handler stops there and answers Fail(the failure's status: code kExhaustedCode, or kInvalidCode by World::host_error).
inline constexpr int kExhaustedCode = 8;  // absl's RESOURCE_EXHAUSTED
inline constexpr int kInvalidCode = 3;    // absl's INVALID_ARGUMENT

inline constexpr int kOutOfRangeCode = 11;  // absl's OUT_OF_RANGE
inline constexpr int kWrongSizeCode = 13;  // absl's INTERNAL

// How a host call fails: the machine has no more (kResourceExhausted), or the caller is to blame (kInvalidArgument: the others).
enum class HostError : uint8_t {
  kNoMemory, kNoAccess, kBadFile, kBadAddress, kInvalid, kNoDevice, kNoSystemCall, kNotSupported, kOverflow, kNotPermitted,
};
inline constexpr int kHostErrors = 10;

inline constexpr int kScriptedCode = 10;  // absl's ABORTED: Reply::Says::kScripted

struct World {
  uint8_t region_pages = 0;       // 0: one region (backings[0]); else 1, 2 or 4: a multi-region memory of that region size
  std::vector<Backing> backings;  // 1..kMaxBackings; a backing never exceeds region_pages
  std::vector<HandlerAnswer> handler;  // the answers, one list each for all backings: see Answers
  std::vector<FallbackAnswer> fallback;
  std::vector<LockAnswer> lock;
  std::vector<SubrangeAnswer> subrange;
  uint8_t failing_host_call = 0;  // 0: none; n: the n-th host call made by the steps (not by building the world) fails
  HostError host_error = HostError::kNoMemory;  // with this errno, where it has one
  bool operator==(const World&) const = default;
};

inline constexpr char kWorldName[] = "world";           // the debug name of handle 0, and of its views
inline constexpr char kStreamName[] = "stream";         // the debug name in errors that a stream finds by itself
inline constexpr char kSparseName[] = "sparse mapping";  // the debug name in errors of the SparseMapping steps
inline constexpr char kSharedName[] = "shared memory";   // of SharedMemory
inline constexpr char kHeapName[] = "heap";              // of heap memory, and of its handle
inline constexpr char kEmptyName[] = "empty";

// Which of two public forms of its operation a step calls: Step::form, by kind.
enum class TransferForm : uint8_t { kPlain, kAtomic };       // ReadAt, or ReadToAtomic; likewise of ranges, and TryCopyShared
enum class ExchangeForm : uint8_t { kTyped, kBytes };        // CompareExchange, or CompareExchangeBytes
enum class ViewForm : uint8_t { kLate, kPreemptive };        // of Subrange: allow_preemptive_locking
enum class FillForm : uint8_t { kValue, kZero };             // FillRange, or ZeroRange
enum class StreamForm : uint8_t { kGuest, kHost };           // over a buffer in guest memory, or over host bytes
enum class LimitForm : uint8_t { kAdd, kDrop };
enum class LockForm : uint8_t { kDevice, kKernel };          // of LockGpns: kernel access
enum class HostForm : uint8_t { kBuffer, kNextSpan };        // what stands beside a locked span
enum class FileForm : uint8_t { kReadOnly, kWritable };
enum class SparseForm : uint8_t { kOpen, kGuarded };         // by an AccessBitmap
enum class CreateForm : uint8_t { kOne, kRegions };          // Create, or CreateMultiRegion
enum class HoldForm : uint8_t { kLock, kUnlock };
// What it chooses among: Step::choice, by kind. (Of the others it is a number: `misaligned`, `file_page`, or a mask of accesses.)
enum class ExchangeSizes : uint8_t { kExact, kUnequal, kOdd };     // of the two spans of CompareExchangeBytes
enum class Bit : uint8_t { kClear, kSet };
enum class Protection : uint8_t { kNone, kRead, kReadWrite };
enum class BufferSize : uint8_t { kExact, kLonger, kShorter };     // of the host buffer beside the paged range
enum class Copy : uint8_t { kTo, kFrom, kFill, kAt };              // of a locked span
enum class Advice : uint8_t { kAdvised, kRefused };
enum class Node : uint8_t { kFirst, kMissing, kBeyond };
enum class Made : uint8_t { kEmpty, kHeap, kShared, kSparse, kBitmap, kBare };
enum class Trying : uint8_t { kCopyFrom, kCopyTo, kFill, kRead, kWrite, kExchange };
enum class ForeignFault : uint8_t { kSegvMaperr, kSegvAccerr, kSegvPkuerr, kSegvUser, kBusAdrerr, kBusMceerrAr, kBusAdraln, kTrapBrkpt };
enum class Starving : uint8_t { kOff, kOn };

// The numbers stand in inputs of fuzzers: a new kind takes the next, and none is used again.
enum class StepKind : uint8_t {
  // on handle `target`
  // `choice` misaligns the host buffer, no more.
  // `within` not 0: the host buffer is guest memory itself, from (Step::HostBacking, HostAddress + choice) on, without guards or
  // Outcome::data, if the world has that backing and its mapping is kRam and not the file's all along it, and no handler
  // answers kVanishRetry; else it is as ever. What a piece moves is what was there before the piece. If the two ranges overlap,
  // a failure has `transferred` 0 and leaves both unspecified: the model takes over what the subject then has there. An access with
  // a piece that overlaps its own part of the host buffer and is longer than a page needs memory for a copy: one host call, before
  // anything moves; failing, kResourceExhausted at the access's start.
  kRead = 0,          // ReadAt(gpa, length bytes)
  kWrite = 1,         // WriteAt(gpa, length bytes of DataPattern(value))
  kFill = 2,          // FillAt(gpa, low byte of value, length)
  kReadPlain = 3,     // ReadPlain<uintN_t>(gpa), N = 8 * size
  kWritePlain = 4,    // WritePlain<uintN_t>(gpa, low bytes of value)
  kCompareExchange = 5, // (gpa, current = low bytes of value, new = low bytes of desired); of bytes, also with
                      // (kUnequal) a byte more of `current`, (kOdd) 3 bytes of each
  kProbeReadable = 6, // (gpa, length)
  kProbeWritable = 7,
  kProbeExecutable = 8,
  kProbeGpns = 9,     // (gpns)
  kFullMapping = 10,  // outcome.number: the size, if there is one; outcome.spans: where it lies
  kIova = 11,         // outcome.number: Iova(gpa), if there is one
  kSubrange = 12,     // handle `slot` (1..3) := Subrange(gpa, length, kPreemptive); unchanged on failure
  // on backing `backing` (index modulo the count), host side
  kSetBit = 13,       // the bit of `access` on page `page` := kSet; nothing if there is no such page or bitmap, or if it is
                      // managed and the page is locked
  // SparseMapping calls on pages [page, page + count) of a mapping that is kMaxPages long whatever the backing shows of it:
  // beyond it kInvalidArgument, count 0 OK without a host call, else one host call, which may fail (kResourceExhausted, and
  // nothing changed). Errors have operation kCreate and the range in bytes. Before the host call: kLocked of operation kRevoke,
  // and nothing changed, if a page of the range is locked and the backing is `sparse`.
  kAllocate = 14,     // fresh zeroed kRam
  kMapZero = 15,      // zeroed kReadOnly
  kProtect = 16,      // keeps the bytes
  kUnmap = 17,        // kHole, the bytes gone (zero if ever protected back into sight)

  // Buffer `object` is a paged range or, once something was appended to it, a list of them; at first an empty list. What does not
  // fit is refused (Outcome::refused) and changes nothing. Outcome::lengths: the buffer's length after the step.
  kRangeSet = 18,     // the paged range (offset, length, gpns)
  kRangeAppend = 19,  // one more member (offset, length, gpns); refused if kMembers members have bytes already
  kRangeSkip = 20,    // drops the first `length` bytes
  kRangeTruncate = 21, // keeps the first `length` bytes
  kRangeSubrange = 22, // keeps the bytes [offset, offset + length)
  kRangeSplit = 23,   // keeps the first `length` bytes; then buffer `slot` is the others
  kRangeIterate = 24, // Outcome::parts
  // on handle `target` and buffer `object`; the host buffer is as long as that, or a byte longer, or shorter if it can be.
  // `within`: as kRead's, where it is exactly as long
  kRangeRead = 25,    // ReadRange
  kRangeWrite = 26,   // WriteRange of DataPattern(value)
  kRangeFill = 27,    // FillRange of value's low byte, or ZeroRange

  // Reader `object` and writer `object` are streams with up to kLimits limits inside each other; at first over nothing. Steps use the
  // outermost limit. Outcome::lengths: what remains of the stream, then of each limit from the innermost on.
  kReaderOpen = 28,   // over buffer `object` in handle `target`, or over `length` host bytes of DataPattern(value)
  kReaderLimit = 29,  // one more limit, of `length` (refused if there are kLimits); or the outermost one is dropped, if any
  kReaderRead = 30,   // Read(length bytes)
  kReaderSkip = 31,   // Skip(length)
  kReaderPlain = 32,  // ReadPlain<uintN_t>, N = 8 * size
  kReaderArray = 33,  // ReadArray<uintN_t>(length), an allocation (one host call) if there are as many; data: what came, no guards
  kReaderAll = 34,    // ReadAll, likewise
  kWriterOpen = 35,   // as kReaderOpen; host bytes are kUntouched at first, and Outcome::data has them after each step, with guards
  kWriterLimit = 36,  // as kReaderLimit
  kWriterWrite = 37,  // Write(length bytes of DataPattern(value))
  kWriterFill = 38,   // Fill(value's low byte, length)
  kWriterPlain = 39,  // WritePlain<uintN_t>(value's low bytes)
  // Locks. What object `object` held before is unlocked first. Making the lock's list is one host call, made before its entries
  // are checked. Held locks outlive the handles they came from. After a trace's last step the held ones
  // are dropped by steps of kUnlock, in the objects' order.
  kLockGpns = 40,     // object := LockGpns(access, kKernel: kernel access, gpns) on `target`
  kLockRange = 41,    // object := LockRange(access) of the paged range (offset, length, gpns); refused if there is no such range
  kUnlock = 42,       // drops what `object` holds
  kLockedCopy = 43,   // span `count` (modulo their number) of `object`, from `offset` on, `length` bytes; nothing if it has no spans.
                      // CopyTo, CopyFrom (DataPattern(value)), Fill (low byte of value), or At(offset): the byte
                      // there, outcome.number, becomes value's low byte if AtWritable has it; nothing if there is none or its page is
                      // not kRam
                      // kNextSpan, of a copy: the host buffer is the start of the next span (modulo), without guards or
                      // Outcome::data, if that is as long and its pages are kRam and not the file's; an overlap as kRead's
  kSupportsLocking = 44, // outcome.number: supports_locking() of `target`
  kLockableSubrange = 45, // handle `slot` := LockableSubrange(gpa, length)
  kMapFile = 46,      // page i of them shows page `choice` + i of the world's file: kRam or kReadOnly; kBus from
                      // page kFilePages of the file on
  kDecommit = 47,     // bytes that are not the file's become zero; the states stay
  // Two more of them, which change nothing that can be seen. kBindToNode: kFirst node 0; kMissing node 1023, which no machine here
  // has (kInvalidArgument by the host); kBeyond node 1024, which is refused without a host call.
  kAdviseHugePages = 48,
  kBindToNode = 49,
  // Of any bytes, in the same mapping; kInvalidArgument also for what is no whole number of pages.
  kUnmapBytes = 50,   // Unmap(offset, length)
  kMapFileBytes = 51, // MapFile(0, length) of the world's file from `offset` on, read-only; kInvalidArgument also for an `offset` that
                      // is no page multiple, or an end of 2^63 and more

  // Handle `slot` := new memory; unchanged on failure. outcome.number: how many bytes its mapping starts behind a multiple of the
  // largest of 4096, 2 MiB and 1 GiB that it is as long as (0 without mapping).
  // kEmpty: GuestMemory::Empty(). kHeap: GuestMemory::Allocate(bytes), one host call unless it is 0. kShared: over SharedMemory of `bytes`,
  // kSharedCalls host calls, then none. kSparse: over a SparseMapping of `bytes` with nothing allocated, one host call; kGuarded: behind
  // an AccessBitmap (one more) that refuses nothing but page `value`.
  // kBitmap: no memory, but an AccessBitmap of as many pages as `bytes` says, one host call; outcome.number: its pages.
  // kBare: over a backing of `bytes` that has no mapping and overrides nothing else either.
  kMake = 52,
  // Handle `slot` := memory over backings of the world as they are now, named kMadeName: Create over `backing`, or
  // CreateMultiRegion of all, region size `bytes`. Promise: which one `backing` breaks meanwhile.
  kCreate = 53,
  kSharing = 54,      // of `target`. Outcome::files; of SharedMemory's file also its seals (number) and first 16 bytes there (data)
  // The heap memory of `target`, if it was made by kMake 1 and is no view. outcome.number: the size; its first byte := value's
  // low byte. Inner: InnerBuffer; InnerBufferMutable and TakeInnerBuffer only if no other handle, lock or stream has the
  // memory (not counting a stream over host bytes); 2 leaves `target` the empty memory.
  kInnerBuffer = 55,

  // On the AccessBitmap of backing `backing`; nothing if it isn't managed. Its own errors have the name kBitmapName. Beyond its last
  // page: kInvalidArgument. Its counts of locks change by kHold, and by LockGpns and UnlockGpns where those succeed.
  kRevoke = 56,       // of the accesses in `choice` (a mask, read = 1), pages [page, page + count): kLocked if one is locked
  kGrant = 57,        // likewise, never kLocked
  kWaitUnlocked = 58, // of those pages, with a deadline in the past: kLocked
  kHold = 59,         // Lock(gpns), or Unlock(gpns): kInvalidArgument and nothing changed if one of them is not locked by then

  // The primitives under all accesses, on the mapping of backing `backing` (used or not), whatever its bits say: byte `offset` of
  // page `page` on. TryCopy from there and to there, TryFill, `length` bytes each; TryRead,
  // TryWrite, TryCompareExchange of `size` bytes. Nothing beyond the mapping's end; no compare-exchange that is not aligned.
  // A fault is kNotMapped, with the range, but no text; operation: kRead or kWrite by its side.
  kTry = 60,
  // TryHandleFault of a fault that is no Try access's: a signal and its code. outcome.number: 0, not handled.
  kForeignFault = 61,

  kMove = 62, // handle `slot` := std::move(handle `target`), which is the empty memory then; nothing if `target` is 0 or empty, or is `slot`
  // kOn: from now on there is no memory to describe an error with: it keeps its kind and code, is of operation kNone, and says
  // nothing else (its text is free). kOff: there is again.
  kStarve = 63,
};
inline constexpr uint64_t kSharedCalls = 5;
// One operation with every number filled in.
struct Step {
  StepKind kind = StepKind::kRead;
  uint8_t target = 0;   // handle; an empty handle counts as handle 0
  uint8_t slot = 1;
  uint64_t gpa = 0;
  uint64_t length = 0;
  uint8_t size = 8;     // 1, 2, 4, 8
  uint64_t value = 0;
  uint64_t desired = 0;
  std::vector<uint64_t> gpns = {};
  uint8_t backing = 0;
  uint8_t page = 0;
  uint8_t count = 0;
  uint8_t choice = 0;   // the kind's: see above
  Access access = Access::kRead;
  uint8_t form = 0;     // likewise
  uint64_t offset = 0;  // where a paged range starts in its first page (may be misuse)
  uint64_t bytes = 0;   // a size
  uint8_t within = 0;   // 0..kHostPlaces
  uint8_t object = 0;   // which held object (0..kObjects-1) the step is about: see its kind

  template <typename Enum>
  Enum Form() const { return static_cast<Enum>(form); }
  template <typename Enum>
  Enum Choice() const { return static_cast<Enum>(choice); }
  // Never page 0, which handlers take away.
  uint64_t HostBacking() const { return (within - 1u) / (kMaxPages - 1); }
  uint64_t HostAddress() const { return (1 + (within - 1u) % (kMaxPages - 1)) * kPageSize; }
};
inline constexpr uint8_t kHostPlaces = kMaxBackings * (kMaxPages - 1);

enum class ErrorKind : uint8_t {
  kOutOfRange, kAccessDenied, kNotMapped, kNotLockable, kLocked, kNoFallback,
  kInvalidGpn, kMisaligned, kInvalidArgument, kResourceExhausted, kBackend,
};
enum class Operation : uint8_t {
  kCreate, kRead, kWrite, kFill, kCompareExchange, kLock, kSubrange, kProbe, kRevoke, kNone,
};

// A locked span: where its host memory lies, as bytes of a backing's mapping.
struct Span {
  uint8_t backing = 0;  // as File::file
  uint64_t address = 0;
  uint64_t length = 0;
  uint64_t gpa = 0;     // in the coordinates of the handle that was locked
  bool operator==(const Span&) const = default;
};

// One of sharing()'s files, with its place in the coordinates of the handle used.
struct File {
  uint64_t file = 0;  // whose: a backing's index, or kMaxBackings + n for the n-th memory that kMake has made
  uint64_t offset = 0;
  uint64_t address = 0;
  uint64_t size = 0;
  bool operator==(const File&) const = default;
};

// Everything a caller can observe of one step. Fields a step has no use for stay at their defaults.
struct Outcome {
  bool ok = true;
  ErrorKind kind = ErrorKind::kOutOfRange;          // this and the next six: only when !ok
  Operation operation = Operation::kRead;
  std::optional<Range> range;
  std::optional<uint64_t> fault_address;            // in the coordinates of the handle used
  std::optional<uint64_t> gpn;
  uint64_t transferred = 0;
  int code = 0;                                     // absl code: the kind's own; for kBackend the callback's (Fail(OK): UNKNOWN, 2)
  std::string text;                                 // the message up to and without ": CAUSE"; a stream's own: all of it
  std::vector<uint8_t> data;                        // the host buffer after the step, guards included; empty if none
  bool swapped = false;                             // compare-exchange
  std::optional<uint64_t> number;                   // the value read or seen; FullMapping's size; Iova
  std::vector<Call> calls;                          // in order
  bool refused = false;                             // a range that does not fit
  std::vector<uint64_t> lengths = {};               // of the buffer; of the stream and its limits
  std::vector<RangePart> parts = {};                // of the buffer, those without bytes left out
  std::vector<Span> spans;                          // of a lock that was just made
  std::vector<File> files = {};
  std::string wrong_call = {};                      // the first call that a backing may not get: which, and what is wrong with it
  bool operator==(const Outcome&) const = default;
};

// How the model moves bytes: one by one, or page by page, which comes to the same (proptest/kernel_property_test.cc) and is for fuzzing.
enum class Pace : uint8_t { kPlain, kFast };

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MODEL_VOCABULARY_H_
