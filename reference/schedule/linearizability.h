// Whether a history of reads, writes and compare-exchanges of one 8-byte granule is linearizable: whether there is
// an order of them, one by one, that gives every value seen, in which no operation comes before one that ended before it began
// (Herlihy and Wing 1990). The search is Wing and Gong's, with Lowe's memory of the states already tried.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_LINEARIZABILITY_H_
#define GUESTMEM_REFERENCE_SCHEDULE_LINEARIZABILITY_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace reference::schedule {

// One operation on bytes [offset, offset + size) of the granule. A compare-exchange that swapped reads and writes; one that did not
// only reads. Values are the size's low bytes.
struct GranuleOp {
  uint64_t start = 0;  // moments of one clock; start < end
  uint64_t end = 0;
  uint8_t offset = 0;
  uint8_t size = 8;
  bool reads = false;
  bool writes = false;
  uint64_t seen = 0;
  uint64_t written = 0;
};

inline constexpr size_t kMaxGranuleOps = 32;

// Precondition: at most kMaxGranuleOps operations.
bool IsLinearizable(std::span<const GranuleOp> history, uint64_t initial);

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_LINEARIZABILITY_H_
