// What minimisers share: a list gets shorter, a number smaller, as long as what is wrong stays wrong.

#ifndef GUESTMEM_REFERENCE_MINIMISING_H_
#define GUESTMEM_REFERENCE_MINIMISING_H_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace reference {

// Tries to do without runs of `items`, halved until single ones, the last ones first. `without(begin, end)` tries it
// and, where it does, takes them out of `items`, with what has no meaning without them. Whether anything went.
template <typename Items, typename Without>
bool DropRuns(const Items& items, Without without) {
  bool smaller = false;
  for (size_t run = std::max<size_t>(items.size() / 2, 1);; run /= 2) {
    for (size_t end = items.size(); end > 0;) {
      const size_t begin = end > run ? end - run : 0;
      smaller |= without(begin, end);
      end = std::min(begin, items.size());
    }
    if (run <= 1) {
      return smaller;
    }
  }
}

template <typename Item>
void Erase(std::vector<Item>& items, size_t begin, size_t end) {
  items.erase(items.begin() + static_cast<ptrdiff_t>(begin), items.begin() + static_cast<ptrdiff_t>(end));
}

// Tries a number at 0, or by halves and ones as far as it goes. `attempt(change)` tries it with change(the number), and
// keeps what does. Whether it is smaller.
template <typename Attempt>
bool Lower(Attempt attempt) {
  bool smaller = attempt([](auto) { return 0; });
  while (attempt([](auto n) { return n / 2; }) || attempt([](auto n) { return n > 0 ? n - 1 : n < 0 ? n + 1 : n; })) {
    smaller = true;
  }
  return smaller;
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MINIMISING_H_
