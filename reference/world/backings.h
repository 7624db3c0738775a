// What a backing of a world is: its pages, its bits, its bytes at the start; and the calls that it gets. The model, the
// scripted backing and the tests that are made of traces go by it; those tests carry its text, by the sections that the lines of
// dashes name. Knows the C++ library alone.

#ifndef GUESTMEM_REFERENCE_WORLD_BACKINGS_H_
#define GUESTMEM_REFERENCE_WORLD_BACKINGS_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace reference {

inline constexpr uint64_t kPageSize = 4096;

// ---- kMaxPages
inline constexpr uint64_t kMaxPages = 4;  // per backing: one more than an access needs to have a first, a middle and a last page

// ---- kMaxBackings
inline constexpr uint64_t kMaxBackings = 4;  // a run of regions with a hole in it and a rounded-up count

// ---- Access
enum class Access : uint8_t { kRead, kWrite, kExecute };

// ---- PageState
// What the backing's mapping does at a page, whatever the bitmaps say.
enum class PageState : uint8_t {
  kRam,       // readable and writable
  kReadOnly,  // a store faults
  kHole,      // every access faults (SIGSEGV); the bytes stay where they are, unseen
  kBus,       // every access faults (SIGBUS), whatever is protected over it; has no bytes (they count as zero): a page of the
              // file behind its end
};

// ---- PageSetup
struct PageSetup {
  PageState state = PageState::kRam;
  bool readable = true;  // the page's three bits; they exist only where the backing has a bitmap
  bool writable = true;
  bool executable = true;
  bool operator==(const PageSetup&) const = default;
};

// ---- Sharing
// What a backing's sharing() says of its file, whose descriptor is kFirstFile + the backing's index. Nothing maps it.
enum class Sharing : uint8_t {
  kNone,
  kWhole,  // {offset 0, address 0, size max_address}
  kParts,  // {8192, 4096, 4096}, {0, 0, 100}
  kWild,   // {2^64 - 4096, 0, 2^64 - 1}, {0, 2^64 - 4096, 8192}, {4096, 4096, 2^64 - 4096}: none of their sums fits
};
inline constexpr int kFirstFile = 1000;

// ---- Backing
// One backing. Its memory is two byte arrays that never mix: what the mapping shows (`mapped`), and what the
// fallbacks work on. Both start with the patterns below, so that a byte tells where it came from.
struct Backing {
  bool present = true;   // false: an empty slot of a multi-region memory
  bool mapped = true;    // false: mapping() is null
  uint8_t pages = 3;     // 1..kMaxPages
  uint16_t trim = 0;     // 0..4095: max_address = pages * 4096 - trim
  bool has_bitmap = false;
  uint8_t bit_offset = 0;                       // 0..7
  std::array<bool, 3> null_bitmap = {};         // by Access: the pointer is null, everything allowed
  bool has_iova = false;                        // base_iova() = kIovaBase
  bool lockable = true;                         // supports_locking()
  bool fickle = false;   // once the memory is made, the methods that must be stable say something else, which must make no difference
  bool wrapped = false;  // handed over inside a wrapper that forwards every method, which must make no difference
  bool managed = false;  // the bits are an AccessBitmap's, of no offset and with no null pointer: a locked page's bit stays set
  bool sparse = false;   // the library's own SparseMapping of kMaxPages pages, nothing scripted: what it is called with is not
                         // recorded, its locked pages stay as they are. Of the rest only `wrapped` and the pages' states count
  Sharing sharing = Sharing::kNone;
  std::array<PageSetup, kMaxPages> page = {};
  bool operator==(const Backing&) const = default;

  uint64_t max_address() const { return pages * kPageSize - trim; }
};
inline constexpr uint64_t kIovaBase = 0x7000'0000;

// ---- Promise
// Which of them a backing breaks while memory is made over it again.
enum class Promise : uint8_t {
  kNone,
  kNull,       // it is null
  kSize,       // its size is 2^63
  kMapping,    // its mapping (if it has one) starts at byte 8 of a page
  kBitOffset,  // its bitmap's (if it has one) bit_offset is 8
};

// ---- Inner
enum class Inner : uint8_t { kShared, kMutable, kTake };  // InnerBuffer, InnerBufferMutable, TakeInnerBuffer

// ---- MappedPattern
// The bytes at the start: what the mapping shows at `offset` of backing `b`.
inline uint8_t MappedPattern(uint64_t b, uint64_t offset) {
  return static_cast<uint8_t>(offset * 7 + offset / 256 * 13 + b * 101 + 1);
}

// ---- SlowPattern
// What the fallbacks work on, at the start.
inline uint8_t SlowPattern(uint64_t b, uint64_t offset) {
  return static_cast<uint8_t>(offset * 5 + offset / 256 * 29 + b * 67 + 128);
}

// ---- FilePattern
// One file a world, shared by its backings: kMaxPages pages, of which the last is missing (the file ends before it). Its
// bytes at the start; a page that shows it has its bytes, now and later.
inline constexpr uint64_t kFilePages = kMaxPages - 1;
inline uint8_t FilePattern(uint64_t offset) { return static_cast<uint8_t>(offset * 11 + offset / 256 * 17 + 64); }

// ---- DataPattern
// Byte i of what a write with seed `value` stores.
inline uint8_t DataPattern(uint64_t value, uint64_t i) {
  return static_cast<uint8_t>((value >> (i % 8 * 8)) % 256 + i * 3);
}

// ---- PutDataPattern
// The first bytes.size() of them. Eight bytes on, each is 24 more, so they repeat after 256.
inline void PutDataPattern(uint64_t value, std::span<uint8_t> bytes) {
  std::array<uint8_t, 256> period;
  for (size_t i = 0; i < 8; ++i) period[i] = DataPattern(value, i);
  for (size_t i = 8; i < std::min(period.size(), bytes.size()); ++i) period[i] = static_cast<uint8_t>(period[i - 8] + 24);
  for (size_t done = 0; done < bytes.size(); done += period.size()) {
    std::copy_n(period.begin(), std::min(period.size(), bytes.size() - done), bytes.begin() + static_cast<ptrdiff_t>(done));
  }
}

// ---- Call
enum class CallKind : uint8_t {
  kPageFault, kReadFallback, kWriteFallback, kFillFallback, kCompareExchangeFallback,
  kExposeVa, kLockGpns, kUnlockGpns, kSubrange,
};
// One call that a backing received, with its arguments, in the backing's own coordinates.
struct Call {
  CallKind kind = CallKind::kPageFault;
  uint8_t backing = 0;
  uint64_t address = 0;
  uint64_t length = 0;
  Access access = Access::kRead;  // PageFault, LockGpns, UnlockGpns
  bool bitmap_failure = false;    // PageFault only
  uint64_t value = 0;             // fill value; compare-exchange: current (little-endian, zero-extended); Subrange: preemptive locking
  uint64_t desired = 0;           // compare-exchange
  std::vector<uint64_t> gpns = {};  // LockGpns, UnlockGpns
  bool operator==(const Call&) const = default;
};
inline constexpr std::string_view kCallNames[] = {"page_fault", "read_fallback", "write_fallback", "fill_fallback", "compare_exchange_fallback",
                                                  "expose_va", "lock_gpns", "unlock_gpns", "subrange"};
inline constexpr std::string_view kAccessNames[] = {"read", "write", "execute"};
// A field that the kind does not use is shown if it is set: then it is what is wrong.
inline std::string Text(const Call& call) {
  std::ostringstream out;
  out << kCallNames[static_cast<size_t>(call.kind)] << " of backing " << int{call.backing} << ":" << std::hex;
  const bool lists = call.kind == CallKind::kLockGpns || call.kind == CallKind::kUnlockGpns, faults = call.kind == CallKind::kPageFault;
  for (const uint64_t gpn : call.gpns) out << " 0x" << gpn;
  if (!lists || call.address != 0 || call.length != 0) out << " 0x" << call.address << "+0x" << call.length;
  if (lists || faults || call.access != Access::kRead) {
    const auto access = static_cast<size_t>(call.access);
    out << " access " << (access < std::size(kAccessNames) ? kAccessNames[access] : "?");
  }
  if (faults || call.bitmap_failure) out << (call.bitmap_failure ? " by the bitmap" : " by the mapping");
  if (call.value != 0 || call.desired != 0) out << " value 0x" << call.value << " desired 0x" << call.desired;
  return out.str();
}

// ---- WrongCall
// What no caller may ask of a backing, whatever the backing answers: which must judge a wrong caller rather than fall with it.
// Empty, or what is wrong with it. `held`: the LockGpns calls that have succeeded and are not unlocked yet.
inline std::string WrongCall(const Backing& setup, const Call& call, std::span<const Call> held) {
  const uint64_t size = setup.max_address();
  const bool beyond = call.address > size || call.length > size - call.address;
  const std::string range = call.length == 0 && call.kind != CallKind::kSubrange ? "no bytes" : beyond ? "bytes that are not below max_address" : "";
  const auto is_locked = [&](uint64_t page) {
    return std::any_of(held.begin(), held.end(), [&](const Call& lock) { return std::find(lock.gpns.begin(), lock.gpns.end(), page) != lock.gpns.end(); });
  };
  switch (call.kind) {
    case CallKind::kReadFallback:
    case CallKind::kWriteFallback:
    case CallKind::kFillFallback:
    case CallKind::kSubrange: return range;
    case CallKind::kPageFault: return call.access > Access::kExecute ? "no type of access" : range;
    case CallKind::kCompareExchangeFallback:
      if (call.length != 1 && call.length != 2 && call.length != 4 && call.length != 8) return "a size that is not 1, 2, 4 or 8";
      return call.address % call.length != 0 ? "an unaligned address" : range;
    case CallKind::kExposeVa:
      if (!range.empty()) return range;
      return is_locked(call.address / kPageSize) && is_locked((call.address + call.length - 1) / kPageSize) ? "" : "a page that is not locked";
    case CallKind::kLockGpns: {
      if (call.access > Access::kExecute) return "no type of access";
      if (call.gpns.empty()) return "an empty list";
      const uint64_t pages = (size + kPageSize - 1) / kPageSize;
      return *std::max_element(call.gpns.begin(), call.gpns.end()) < pages ? "" : "a page that is not below max_address";
    }
    case CallKind::kUnlockGpns: {
      const auto matches = [&](const Call& lock) { return lock.access == call.access && lock.gpns == call.gpns; };
      return std::any_of(held.begin(), held.end(), matches) ? "" : "a list that no lock has locked for this access";
    }
  }
  return {};
}

// ---- Range
struct Range {
  uint64_t start = 0;
  uint64_t length = 0;
  bool operator==(const Range&) const = default;
};

// ---- RangePart
// One member of a buffer, as iterating over it shows it.
struct RangePart {
  uint64_t offset = 0;
  uint64_t length = 0;
  std::vector<uint64_t> gpns = {};
  std::vector<Range> runs = {};                     // contiguous addresses
  std::optional<uint64_t> invalid_gpn = {};         // at which the runs end
  bool operator==(const RangePart&) const = default;
};
inline std::string Text(const std::vector<RangePart>& parts) {
  std::ostringstream out;
  out << (parts.empty() ? "none" : "");
  for (const RangePart& part : parts) {
    out << std::hex << (&part == parts.data() ? "0x" : "; 0x") << part.offset << "+0x" << part.length << " of pages";
    for (const uint64_t gpn : part.gpns) out << " 0x" << gpn;
    out << ":";
    for (const Range& run : part.runs) out << " 0x" << run.start << "+0x" << run.length;
    if (part.invalid_gpn) out << " invalid 0x" << *part.invalid_gpn;
  }
  return out.str();
}

// ---- kMembers
inline constexpr uint64_t kMembers = 3;  // of a list of paged ranges: a first, a middle and a last one

// ---- kLimits
inline constexpr uint64_t kLimits = 3;  // of one stream, inside each other

// ---- kGuardBytes
// A host buffer is kGuardBytes of kUntouched, `length` bytes (a read's: kUntouched; a write's: DataPattern), and
// kGuardBytes of kUntouched again. Outcome::data is all of it, after the step.
inline constexpr uint8_t kUntouched = 0xa5;
inline constexpr uint64_t kGuardBytes = 16;

// ---- kOwnName
inline constexpr char kOwnName[] = "own";  // the debug name of a backing's own view

// ---- kBitmapName
inline constexpr char kBitmapName[] = "bitmap";  // of an AccessBitmap

// ---- kMadeName
inline constexpr char kMadeName[] = "made over a backing of the world";  // of memory that a step has made

// ----
inline constexpr int kSharings = 4;

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_WORLD_BACKINGS_H_
