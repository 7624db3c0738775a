// Whether the rows of a sort's operations are those of its enumeration, whose order means nothing: asked at compile time, where the rows are.

#ifndef GUESTMEM_REFERENCE_TRACE_KINDS_CHECK_H_
#define GUESTMEM_REFERENCE_TRACE_KINDS_CHECK_H_

#include <cstddef>
#include <string_view>
#include <utility>

#include "reference/trace/schema.h"

namespace reference::trace {

// Whether an enumerator has this value: compilers write its name here, and a cast of a number where there is none.
template <class Enum, Enum kValue>
consteval bool IsEnumerator() {
  return std::string_view(__PRETTY_FUNCTION__).find("kValue = (") == std::string_view::npos;
}

// Whether each enumerator has a row, which stands where its number says, and each row an enumerator.
template <class Enum, size_t N>
consteval bool AreKindsOf(const Kind (&kinds)[N]) {
  return [&]<size_t... kNumbers>(std::index_sequence<kNumbers...>) {
    return ((IsEnumerator<Enum, static_cast<Enum>(kNumbers)>() == (kNumbers < N && kinds[kNumbers < N ? kNumbers : 0].number == kNumbers)) && ...);
  }(std::make_index_sequence<256>());
}

// Whether its values can be compared by order, which means nothing for kinds of operations.
template <class Enum>
concept Ordered = requires(Enum a, Enum b) { a < b; } || requires(Enum a, Enum b) { a <= b; } || requires(Enum a, Enum b) { a > b; } ||
                  requires(Enum a, Enum b) { a >= b; };

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_KINDS_CHECK_H_
