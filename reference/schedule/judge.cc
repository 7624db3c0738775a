// The judges of a scheduled run (SPEC 5 to 7). Each checks one rule; the first that finds an offence gives the verdict.

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "reference/schedule/history.h"
#include "reference/schedule/linearizability.h"

namespace reference::schedule {
namespace {

template <typename... Values>
std::string Format(const char* format, Values... values) {
  char text[240];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string OpName(const Trace& trace, size_t op) {
  return op < trace.ops.size() ? Format("op %zu (thread %s)", op + 1, OpText(trace.ops[op]).c_str())
                               : std::string("the memory afterwards");
}

std::string ByteName(const Trace& trace, uint8_t value) {
  if (value == kPoison) {
    return "the poison of a page whose revocation had returned";
  }
  return Format("0x%02x", value) + ((value & ~kRestored) - 1u < trace.ops.size() ? Format(" of op %d", value & ~kRestored) : "");
}

bool Covers(const Access& access, uint64_t address) {
  return access.address <= address && address - access.address < access.length;
}

// The interval rule: `value` was at `address` at some moment of [start, end] if something wrote it that began before the
// end, and nothing else was written wholly between that and the start.
bool WasThere(const History& history, uint64_t address, uint8_t value, uint64_t start, uint64_t end) {
  const auto overwritten = [&](uint64_t since) {
    return std::any_of(history.accesses.begin(), history.accesses.end(), [&](const Access& other) {
      return other.writes && other.start > since && other.end < start && Covers(other, address);
    });
  };
  if (value == InitialByte(address / kPageBytes) && !overwritten(kBeforeAll)) {
    return true;
  }
  return std::any_of(history.accesses.begin(), history.accesses.end(), [&](const Access& write) {
    return write.writes && write.written == value && write.start <= end && Covers(write, address) &&
           !overwritten(write.end);
  });
}

// The next address above `address` at which another set of writes, or another page, begins.
uint64_t NextBoundary(const History& history, uint64_t address) {
  uint64_t next = address / kPageBytes * kPageBytes + kPageBytes;
  for (const Access& write : history.accesses) {
    for (const uint64_t edge : {write.address, write.address + write.length}) {
      if (write.writes && edge > address && edge < next) {
        next = edge;
      }
    }
  }
  return next;
}

// The length of the row of equal bytes at the start.
size_t Row(const uint8_t* bytes, size_t length) {
  const uint64_t pattern = bytes[0] * 0x0101010101010101u;
  size_t i = 1;
  for (uint64_t word; i + 8 <= length; i += 8) {
    std::memcpy(&word, bytes + i, 8);
    if (word != pattern) {
      break;
    }
  }
  while (i < length && bytes[i] == bytes[0]) {
    ++i;
  }
  return i;
}

std::optional<std::string> JudgeBytes(const Trace& trace, const History& history, const uint8_t* bytes, uint64_t address,
                                      uint64_t length, uint64_t start, uint64_t end, size_t op) {
  for (uint64_t at = 0; at < length;) {
    const uint64_t row_end = at + Row(bytes + at, length - at);
    for (uint64_t i = at; i < row_end; i = NextBoundary(history, address + i) - address) {
      if (!WasThere(history, address + i, bytes[i], start, end)) {
        return OpName(trace, op) + Format(" has at 0x%" PRIx64 " ", address + i) + ByteName(trace, bytes[i]) +
               ", which was not there at any moment of it";
      }
    }
    at = row_end;
  }
  return std::nullopt;
}

std::optional<std::string> JudgeIntervals(const Trace& trace, const History& history) {
  for (const Access& access : history.accesses) {
    if (!access.reads) {
      continue;
    }
    uint8_t word[8];
    std::memcpy(word, &access.seen, sizeof word);
    const uint8_t* const bytes = access.plain ? word : history.bytes.data() + access.buffer;
    if (auto wrong = JudgeBytes(trace, history, bytes, access.address, access.length, access.start, access.end, access.op)) {
      return wrong;
    }
  }
  for (uint64_t page = 0; page < trace.pages.size(); ++page) {
    if ((history.retired >> page & 1) == 0) {
      const uint64_t address = page * kPageBytes;
      if (auto wrong = JudgeBytes(trace, history, history.final_bytes.data() + address, address, kPageBytes, kAfterAll,
                                  kAfterAll, trace.ops.size())) {
        return wrong;
      }
    }
  }
  return std::nullopt;
}

// A granule that only atomic accesses write must be linearizable; its final contents count as its last read.
std::optional<std::string> JudgeGranule(const Trace& trace, const History& history, uint64_t granule) {
  GranuleOp ops[kMaxGranuleOps];
  size_t count = 0;
  size_t first = trace.ops.size();
  for (const Access& access : history.accesses) {
    if (access.address >= granule + 8 || access.address + access.length <= granule) {
      continue;
    }
    if (!access.plain) {
      if (access.writes) {
        return std::nullopt;  // a bulk write is not atomic, and may store a byte twice
      }
      continue;
    }
    if (count + 1 == kMaxGranuleOps) {
      return std::nullopt;
    }
    const bool whole_page = access.length > 8;
    const auto offset = static_cast<uint8_t>(whole_page ? 0 : access.address - granule);
    const auto size = static_cast<uint8_t>(whole_page ? 8 : access.length);
    const uint64_t mask = size == 8 ? ~uint64_t{0} : (uint64_t{1} << size * 8) - 1;
    ops[count++] = {access.start, access.end, offset, size, access.reads, access.writes, access.seen & mask,
                    access.written * 0x0101010101010101u & mask};
    first = std::min<size_t>(first, access.op);
  }
  if ((history.retired >> granule / kPageBytes & 1) == 0) {
    uint64_t last;
    std::memcpy(&last, history.final_bytes.data() + granule, sizeof last);
    ops[count++] = {kAfterAll - 1, kAfterAll, 0, 8, true, false, last, 0};
  }
  if (IsLinearizable({ops, count}, InitialByte(granule / kPageBytes) * 0x0101010101010101u)) {
    return std::nullopt;
  }
  std::string text = Format("the accesses to the granule at 0x%" PRIx64 " are not linearizable:", granule);
  for (const Access& access : history.accesses) {
    if (access.plain && access.address < granule + 8 && access.address + access.length > granule) {
      text += "\n    [" + std::to_string(access.start) + ", " + std::to_string(access.end) + "] " + OpName(trace, access.op) +
              (access.reads ? Format(" saw 0x%" PRIx64, access.seen) : std::string()) +
              (access.writes ? Format(" stored 0x%02x", access.written) : std::string());
    }
  }
  return text;
}

std::optional<std::string> JudgeLinearizability(const Trace& trace, const History& history) {
  uint64_t judged[kMaxOps + 1];
  size_t count = 0;
  for (const Access& access : history.accesses) {
    const uint64_t granule = access.address / 8 * 8;
    if (!access.plain || access.length > 8 || count > kMaxOps || std::find(judged, judged + count, granule) != judged + count) {
      continue;
    }
    judged[count++] = granule;
    if (auto wrong = JudgeGranule(trace, history, granule)) {
      return wrong;
    }
  }
  return std::nullopt;
}

// The interval rule again, for bits: an access that passed or was refused must have found the bit so at some moment.
std::optional<std::string> JudgeBits(const Trace& trace, const History& history) {
  for (const BitEvent& found : history.findings) {
    const Page& page = trace.pages[found.page];
    const bool initial = found.bit == Bit::kRead ? page.readable : page.writable;
    const auto changed_back = [&](uint64_t since) {
      return std::any_of(history.changes.begin(), history.changes.end(), [&](const BitEvent& other) {
        return other.page == found.page && other.bit == found.bit && other.value != found.value && other.start > since &&
               other.end < found.start;
      });
    };
    const bool possible =
        (initial == found.value && !changed_back(kBeforeAll)) ||
        std::any_of(history.changes.begin(), history.changes.end(), [&](const BitEvent& change) {
          return change.page == found.page && change.bit == found.bit && change.value == found.value &&
                 change.start <= found.end && !changed_back(change.end);
        });
    if (!possible) {
      return OpName(trace, found.op) + Format(": page %d's %s bit was taken as %s, and at no moment of it was", found.page,
                                              found.bit == Bit::kRead ? "read" : "write", found.value ? "set" : "clear");
    }
  }
  return std::nullopt;
}

std::optional<std::string> JudgeLocks(const Trace& trace, const History& history) {
  for (const RevokeEvent& revoke : history.revokes) {
    bool some = false;
    for (const LockSpan& lock : history.locks) {
      if (lock.page < revoke.page || lock.page >= revoke.page + revoke.count) {
        continue;
      }
      some |= lock.lock_start <= revoke.end && lock.unlocked >= revoke.start;
      if (!revoke.refused && lock.locked < revoke.start && lock.unlock_start > revoke.end) {
        return OpName(trace, revoke.op) + Format(" took page %d for unlocked, which was locked all the while", lock.page);
      }
    }
    if (revoke.refused && !some) {
      return OpName(trace, revoke.op) + " found a locked page where none was";
    }
  }
  return std::nullopt;
}

}  // namespace

void History::Clear() {
  accesses.clear();
  changes.clear();
  findings.clear();
  locks.clear();
  revokes.clear();
  bytes.clear();
  final_bytes.clear();
  retired = 0;
  broken.clear();
}

std::optional<std::string> Judge(const Trace& trace, const History& history) {
  if (!history.broken.empty()) {
    return history.broken;
  }
  for (const auto rule : {JudgeBits, JudgeLocks, JudgeIntervals, JudgeLinearizability}) {
    if (auto wrong = rule(trace, history)) {
      return wrong;
    }
  }
  return std::nullopt;
}

}  // namespace reference::schedule
