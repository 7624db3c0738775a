// What a reservation holds, part by part, as the calls that changed it have left it.

#ifndef GUESTMEM_SRC_HOST_MAPPED_PARTS_H_
#define GUESTMEM_SRC_HOST_MAPPED_PARTS_H_

#include <array>
#include <cstdint>
#include <iterator>
#include <map>
#include <new>

namespace guestmem::host {

// Parts lie side by side and fill [0, size). Neighbours that are equal are one, so that there are about as many as the kernel has mappings.
class MappedParts {
 public:
  struct Part {
    int protection;
    uint64_t page_size;  // which the kernel neither splits nor moves in pieces; larger than kPageSize for files of huge pages
    bool operator==(const Part&) const = default;
  };

  MappedParts(uint64_t size, Part all) : size_(size) { parts_.emplace(0, all); }

  // The size of a page that has bytes on both sides of an edge of [start, end); 0: there is none.
  uint64_t PageCutBy(uint64_t start, uint64_t end) const {
    for (const uint64_t edge : std::array{start, end}) {
      const auto part = std::prev(parts_.upper_bound(edge));  // a part begins at a multiple of its page size
      if (edge != size_ && (edge - part->first) % part->second.page_size != 0) {
        return part->second.page_size;
      }
    }
    return 0;
  }

  // Makes [start, end) begin and end with a part. False: there is no memory for that; nothing but such cuts has changed.
  [[nodiscard]] bool Cut(uint64_t start, uint64_t end) {
    try {
      for (const uint64_t edge : std::array{start, end}) {
        const auto next = parts_.upper_bound(edge);
        if (edge != size_) {
          parts_.try_emplace(next, edge, std::prev(next)->second);  // no memory where there is one
        }
      }
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }

  // Calls `call(start, end, part)` for each part of [start, end), after Cut.
  template <typename Call>
  void ForEach(uint64_t start, uint64_t end, Call call) {
    for (auto part = parts_.find(start); part != parts_.end() && part->first < end;) {
      const auto here = part++;
      call(here->first, part == parts_.end() ? size_ : part->first, here->second);
    }
  }

  // Takes back the cuts that have equal parts on both sides, from `start` to `end`.
  void Join(uint64_t start, uint64_t end) {
    for (auto part = parts_.lower_bound(start); part != parts_.end() && part->first <= end;) {
      const bool same = part != parts_.begin() && std::prev(part)->second == part->second;
      part = same ? parts_.erase(part) : std::next(part);
    }
  }

 private:
  const uint64_t size_;
  std::map<uint64_t, Part> parts_;  // by start
};

}  // namespace guestmem::host

#endif  // GUESTMEM_SRC_HOST_MAPPED_PARTS_H_
