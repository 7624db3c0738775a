#include "guestmem/paged_range.h"

#include <algorithm>

#include "guest/listed_gpn.h"

namespace guestmem {
namespace {

bool Fits(uint64_t offset, uint64_t length, uint64_t whole) { return offset <= whole && length <= whole - offset; }

}  // namespace

std::optional<PagedRange> PagedRange::Create(uint64_t offset, uint64_t length, std::span<const uint64_t> gpns) noexcept {
  // In pages, because the bytes of a list may be more than 2^64.
  const uint64_t first = offset / kPageSize;
  if (first > gpns.size() || (first == gpns.size() && (offset % kPageSize != 0 || length != 0))) {
    return std::nullopt;
  }
  if (length == 0) {
    return PagedRange();
  }
  const uint64_t in_page = offset % kPageSize;
  const uint64_t behind_first_page = length - std::min(length, kPageSize - in_page);
  const uint64_t more_pages = behind_first_page / kPageSize + (behind_first_page % kPageSize != 0 ? 1 : 0);
  if (more_pages > gpns.size() - first - 1) {
    return std::nullopt;
  }
  PagedRange range;
  range.offset_ = in_page;
  range.length_ = length;
  range.gpns_ = gpns.subspan(first, 1 + more_pages);
  return range;
}

std::optional<PagedRange> PagedRange::Subrange(uint64_t offset, uint64_t length) const noexcept {
  if (!Fits(offset, length, length_)) {
    return std::nullopt;
  }
  if (length == 0) {
    return PagedRange();
  }
  // Page and offset apart: offset_ + offset may exceed 2^64.
  const uint64_t in_page = offset_ + offset % kPageSize;
  return Create(in_page, length, gpns_.subspan(offset / kPageSize));
}

std::optional<std::pair<PagedRange, PagedRange>> PagedRange::Split(uint64_t at) const noexcept {
  if (at > length_) {
    return std::nullopt;
  }
  return std::pair(*Subrange(0, at), *Subrange(at, length_ - at));
}

bool PagedRange::Skip(uint64_t length) noexcept {
  if (length > length_) {
    return false;
  }
  *this = *Subrange(length, length_ - length);
  return true;
}

bool PagedRange::Truncate(uint64_t length) noexcept {
  const auto head = Subrange(0, length);
  if (head) {
    *this = *head;
  }
  return head.has_value();
}

void PagedRange::Iterator::Advance() noexcept {
  at_end_ = rest_.empty();
  if (at_end_) {
    return;
  }
  const std::span<const uint64_t> gpns = rest_.gpns();
  const uint64_t first = detail::ListedGpn(gpns[0]);
  if (first >= kFirstInvalidGpn) {
    current_ = {{}, first};
    rest_ = PagedRange();
    return;
  }
  size_t pages = 1;
  while (pages < gpns.size() && first + pages < kFirstInvalidGpn && detail::ListedGpn(gpns[pages]) == first + pages) {
    ++pages;
  }
  // No overflow: all of the pages end at 64-bit addresses, so the run is shorter than 2^64.
  const uint64_t length = std::min(rest_.length_, pages * kPageSize - rest_.offset_);
  current_ = {{first * kPageSize + rest_.offset_, length}, std::nullopt};
  rest_ = *rest_.Subrange(length, rest_.length_ - length);
}

std::optional<PagedRanges> PagedRanges::Create(std::span<const PagedRange> members) noexcept {
  PagedRanges ranges;
  for (const PagedRange& member : members) {
    if (__builtin_add_overflow(ranges.length_, member.length(), &ranges.length_)) {
      return std::nullopt;
    }
  }
  ranges.members_ = members;
  return ranges;
}

std::optional<PagedRanges> PagedRanges::Subrange(uint64_t offset, uint64_t length) const noexcept {
  if (!Fits(offset, length, length_)) {
    return std::nullopt;
  }
  PagedRanges part = *this;
  (void)part.Skip(offset);  // they fit
  (void)part.Truncate(length);
  return part;
}

std::optional<std::pair<PagedRanges, PagedRanges>> PagedRanges::Split(uint64_t at) const noexcept {
  if (at > length_) {
    return std::nullopt;
  }
  return std::pair(*Subrange(0, at), *Subrange(at, length_ - at));
}

bool PagedRanges::Skip(uint64_t length) noexcept {
  if (length > length_) {
    return false;
  }
  length_ -= length;
  while (length != 0) {
    const uint64_t here = members_[0].length() - start_;
    if (length < here) {
      start_ += length;
      break;
    }
    length -= here;
    start_ = 0;
    members_ = members_.subspan(1);
  }
  return true;
}

bool PagedRanges::Truncate(uint64_t length) noexcept {
  if (length > length_) {
    return false;
  }
  length_ = length;
  return true;
}

void PagedRanges::Iterator::Advance() noexcept {
  current_ = PagedRange();
  while (!rest_.empty() && current_.empty()) {
    const uint64_t here = std::min(rest_.members_[0].length() - rest_.start_, rest_.length_);
    current_ = *rest_.members_[0].Subrange(rest_.start_, here);
    rest_.length_ -= here;
    rest_.start_ = 0;
    rest_.members_ = rest_.members_.subspan(1);
  }
}

}  // namespace guestmem
