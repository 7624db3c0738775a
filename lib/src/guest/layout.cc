// Building a layout's table.

#include "guest/layout.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace guestmem::detail {
namespace {

constinit const Region kNoRegion = {};

}  // namespace

// Slots [first, last) as far as they lie in [low, high], in which each has a byte.
struct Layout::Part {
  size_t first, last;
  uint64_t low, high;
};

uintptr_t Layout::EntryOf(const Part& part) {
  if (part.first == part.last) {
    return reinterpret_cast<uintptr_t>(&kNoRegion);
  }
  if (part.last - part.first == 1) {
    return reinterpret_cast<uintptr_t>(static_cast<const Region*>(slots_[part.first].get()));
  }
  Table& table = tables_.emplace_back();
  table = Build(part);
  return reinterpret_cast<uintptr_t>(&table) | kIsTable;
}

Layout::Table Layout::Build(const Part& part) {
  Table table;
  const size_t count = part.last - part.first;
  if (count == 0) {
    table.entries = std::make_unique<uintptr_t[]>(1);
    table.entries[0] = EntryOf(part);
    return table;
  }
  const auto last_byte = [&](size_t i) { return slots_[i]->start + (slots_[i]->size - 1); };
  const uint64_t low = std::max(part.low, slots_[part.first]->start);
  const uint64_t high = std::min(part.high, last_byte(part.last - 1));
  // Two slots differ above the bits of a page; about two entries a slot tell most of them apart at once.
  const auto bits = static_cast<unsigned>(std::bit_width(low ^ high));
  const unsigned page_bits = std::countr_zero(kPageSize);
  const unsigned index_bits = std::min(bits - std::min(bits, page_bits), static_cast<unsigned>(std::bit_width(count)));
  table.shift = std::min(bits - index_bits, 63U);
  table.mask = (uint64_t{1} << index_bits) - 1;
  table.entries = std::make_unique<uintptr_t[]>(table.mask + 1);
  const uint64_t start = low >> bits << bits;  // bits is below 64: all of it lies below 2^63
  size_t first = part.first;
  for (uint64_t i = 0; i <= table.mask; ++i) {
    const uint64_t from = start + (i << table.shift);
    const uint64_t to = from + ((uint64_t{1} << table.shift) - 1);
    while (first != part.last && last_byte(first) < from) {
      ++first;
    }
    size_t last = first;
    while (last != part.last && slots_[last]->start <= to) {
      ++last;
    }
    table.entries[i] = EntryOf({first, last, std::max(from, low), std::min(to, high)});
  }
  return table;
}

Layout::Layout(Slots slots, uint64_t generation) : generation_(generation), slots_(std::move(slots)) {
  root_ = Build({0, slots_.size(), 0, ~uint64_t{0}});
}

}  // namespace guestmem::detail
