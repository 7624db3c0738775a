// What a scheduled run did, as the judges see it. Nothing here knows the engine.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_HISTORY_H_
#define GUESTMEM_REFERENCE_SCHEDULE_HISTORY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "reference/schedule/trace.h"

namespace reference::schedule {

inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kBeforeAll = 0;           // the moment before the run, when the initial contents were written
inline constexpr uint64_t kAfterAll = ~uint64_t{0};  // the moment after it, when the final contents are read
inline constexpr uint8_t kPoison = 0xdd;
inline constexpr uint8_t kRestored = 0x40;  // | the op's number
constexpr uint8_t InitialByte(uint64_t page) { return static_cast<uint8_t>(0xa0 + page); }

// An access that moved bytes [address, address + length): of a bulk access that failed, its transferred prefix.
struct Access {
  uint64_t start = 0, end = 0;
  uint64_t address = 0, length = 0;
  uint8_t op = 0;            // index in the trace
  bool plain = false;        // whole and atomic: read, write, compare-exchange, restore
  bool reads = false;
  bool writes = false;
  uint8_t written = 0;       // the value stored in every byte
  uint64_t seen = 0;         // the value of a plain read, in its low `length` bytes
  size_t buffer = 0;         // where in History::bytes the bytes of a bulk read start
};

enum class Bit : uint8_t { kRead, kWrite };

// A change of one page's bit, or an access that found the bit with that value.
struct BitEvent {
  uint64_t start = 0, end = 0;
  uint8_t page = 0;
  Bit bit = Bit::kRead;
  bool value = false;
  uint8_t op = 0;
};

struct LockSpan {
  uint64_t lock_start = 0, locked = 0, unlock_start = kAfterAll, unlocked = kAfterAll;
  uint8_t page = 0;
};

// A revoke that took effect or was refused because a page is locked, or a wait for pages to be unlocked that ended in the same way.
struct RevokeEvent {
  uint64_t start = 0, end = 0;
  uint8_t page = 0, count = 0;
  bool refused = false;
  uint8_t op = 0;
};

struct History {
  std::vector<Access> accesses;
  std::vector<BitEvent> changes, findings;
  std::vector<LockSpan> locks;
  std::vector<RevokeEvent> revokes;
  std::vector<uint8_t> bytes;  // what bulk reads returned
  std::vector<uint8_t> final_bytes;
  uint8_t retired = 0;         // a bit a page: its final contents are not judged
  std::string broken;          // a rule that the machine itself saw broken, in words; empty: none

  void Clear();
};

// What is wrong with the run, in words; nullopt if nothing is.
std::optional<std::string> Judge(const Trace& trace, const History& history);

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_HISTORY_H_
