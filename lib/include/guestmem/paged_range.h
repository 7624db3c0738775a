// PagedRange and PagedRanges: buffers that a guest describes by a list of page numbers.
//
//   const uint64_t gpns[] = {0x1000, 0x1001, 0x0042};
//   std::optional<guestmem::PagedRange> buffer = guestmem::PagedRange::Create(512, 9000, gpns);  // nullopt: does not fit
//   guestmem::Status s = memory.ReadRange(*buffer, bytes);                                       // bytes.size() == 9000
//
//   for (const auto& [range, invalid_gpn] : buffer->ranges()) {   // {0x1000200, 7680}, then {0x42000, 1320}
//     if (invalid_gpn) return Refuse(*invalid_gpn);
//     Map(range.start, range.length);
//   }
//
// A PagedRange is one run of bytes over the pages as if they lay side by side: only its first and last page may be used in
// part. What has holes inside (several descriptors, each with its own offset) is a PagedRanges: PagedRange after
// PagedRange, used as one buffer.
//
// Nothing here looks at a page number until it is used: Create checks that the list is long enough, not that the GPNs
// are valid (below 2^52 - 1: from there on, a page's end is no 64-bit address) or that memory is there. Iterating reports an
// invalid GPN once and ends; an access reports it when it gets there. An empty range uses no page, so it validates none.
//
// When not: a single contiguous run of addresses needs no page list (GuestMemory::ReadAt).
//
// Both are views: the list of GPNs, and the list of PagedRanges, belong to the caller and must live, unchanged, as long
// as the view and what was made from it. A list in memory that the guest can write must be copied first.
//
// Errors: nullopt or false for what does not fit, and then nothing has changed. No value aborts or overflows: any uint64_t
// may be passed anywhere. Units: offsets and lengths are bytes; GPNs are pages of 4096 bytes.
// Threads: plain values; const calls from any thread. Signal context: safe, they only compute.

#ifndef GUESTMEM_PAGED_RANGE_H_
#define GUESTMEM_PAGED_RANGE_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "guestmem/types.h"

namespace guestmem {

// The first GPN whose page does not end at a 64-bit address, and with it every one above.
inline constexpr uint64_t kFirstInvalidGpn = (uint64_t{1} << 52) - 1;

// One step of an iteration over addresses: a run of them, or the invalid GPN at which the iteration ends.
struct ContiguousRange {
  AddressRange range;                           // never empty, unless there is an invalid GPN
  std::optional<uint64_t> invalid_gpn = {};
  bool operator==(const ContiguousRange&) const = default;
};

class PagedRange {
 public:
  // The empty range.
  constexpr PagedRange() noexcept = default;

  // `length` bytes from byte `offset` on of the pages `gpns`; `offset` may lie beyond the first page, which is then not
  // part of the range. Nullopt if the list is too short (offset + length may exceed 2^64).
  static std::optional<PagedRange> Create(uint64_t offset, uint64_t length, std::span<const uint64_t> gpns) noexcept;
  template <detail::OwningTemporary Gpns>
  static std::optional<PagedRange> Create(uint64_t, uint64_t, Gpns&&) = delete;

  uint64_t length() const noexcept { return length_; }
  bool empty() const noexcept { return length_ == 0; }
  // Where the range starts in the first of gpns(): below 4096; 0 if it is empty.
  uint64_t offset() const noexcept { return offset_; }
  // The pages that the range uses, each at least by one byte; none if it is empty.
  std::span<const uint64_t> gpns() const noexcept { return gpns_; }

  // The bytes [offset, offset + length) of this range. Nullopt if it has fewer.
  std::optional<PagedRange> Subrange(uint64_t offset, uint64_t length) const noexcept;
  // The first `at` bytes, and the others. Nullopt if there are fewer.
  std::optional<std::pair<PagedRange, PagedRange>> Split(uint64_t at) const noexcept;
  // Drops the first `length` bytes. False if there are fewer.
  [[nodiscard]] bool Skip(uint64_t length) noexcept;
  // Keeps the first `length` bytes. False if there are fewer.
  [[nodiscard]] bool Truncate(uint64_t length) noexcept;

  class Iterator;
  class Ranges;
  // The addresses in order, as few runs as possible: neighbouring valid GPNs merge. Ends after the first invalid GPN.
  Ranges ranges() const noexcept;

 private:
  uint64_t offset_ = 0;
  uint64_t length_ = 0;
  std::span<const uint64_t> gpns_;
};

// Forward iteration over a PagedRange's addresses; valid as long as the GPNs are.
class PagedRange::Iterator {
 public:
  using value_type = ContiguousRange;
  using difference_type = std::ptrdiff_t;
  using iterator_category = std::input_iterator_tag;

  Iterator() noexcept = default;
  explicit Iterator(const PagedRange& rest) noexcept : rest_(rest) { Advance(); }
  // By value: what it points to would be inside of the iterator.
  ContiguousRange operator*() const noexcept { return current_; }
  const ContiguousRange* operator->() const& noexcept { return &current_; }
  const ContiguousRange* operator->() const&& = delete;
  Iterator& operator++() noexcept {
    Advance();
    return *this;
  }
  void operator++(int) noexcept { Advance(); }
  bool operator==(std::default_sentinel_t) const noexcept { return at_end_; }

 private:
  void Advance() noexcept;

  PagedRange rest_;          // behind current_
  ContiguousRange current_;
  bool at_end_ = true;
};

class PagedRange::Ranges {
 public:
  explicit Ranges(const PagedRange& range) noexcept : range_(range) {}
  Iterator begin() const noexcept { return Iterator(range_); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  PagedRange range_;
};

inline PagedRange::Ranges PagedRange::ranges() const noexcept { return Ranges(*this); }

// PagedRanges, one after the other, as one buffer. Members may be empty, and there may be none.
//
//   for (const guestmem::PagedRange& part : buffer) { ... }   // the non-empty members, cut to what the buffer covers
class PagedRanges {
 public:
  // No bytes.
  constexpr PagedRanges() noexcept = default;

  // All of `members`. Nullopt if their lengths add up to 2^64 or more.
  static std::optional<PagedRanges> Create(std::span<const PagedRange> members) noexcept;
  template <detail::OwningTemporary Members>
  static std::optional<PagedRanges> Create(Members&&) = delete;

  uint64_t length() const noexcept { return length_; }
  bool empty() const noexcept { return length_ == 0; }

  // As PagedRange's.
  std::optional<PagedRanges> Subrange(uint64_t offset, uint64_t length) const noexcept;
  std::optional<std::pair<PagedRanges, PagedRanges>> Split(uint64_t at) const noexcept;
  // Takes time in the number of members dropped.
  [[nodiscard]] bool Skip(uint64_t length) noexcept;
  [[nodiscard]] bool Truncate(uint64_t length) noexcept;

  class Iterator;
  // The non-empty parts in order. To see addresses, iterate over each part's ranges(); parts do not merge.
  Iterator begin() const noexcept;
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  std::span<const PagedRange> members_;
  uint64_t start_ = 0;   // in members_[0]; below its length, unless length_ is 0
  uint64_t length_ = 0;  // over all members
};

class PagedRanges::Iterator {
 public:
  using value_type = PagedRange;
  using difference_type = std::ptrdiff_t;
  using iterator_category = std::input_iterator_tag;

  Iterator() noexcept = default;
  explicit Iterator(const PagedRanges& rest) noexcept : rest_(rest) { Advance(); }
  PagedRange operator*() const noexcept { return current_; }
  const PagedRange* operator->() const& noexcept { return &current_; }
  const PagedRange* operator->() const&& = delete;
  Iterator& operator++() noexcept {
    Advance();
    return *this;
  }
  void operator++(int) noexcept { Advance(); }
  bool operator==(std::default_sentinel_t) const noexcept { return current_.empty(); }

 private:
  void Advance() noexcept;

  PagedRanges rest_;     // behind current_
  PagedRange current_;   // empty: the end
};

inline PagedRanges::Iterator PagedRanges::begin() const noexcept { return Iterator(*this); }

}  // namespace guestmem

#endif  // GUESTMEM_PAGED_RANGE_H_
