// Words shared by every header: page size, access types, address ranges.
//
// Units: a GPA (guest physical address) counts bytes, a GPN (guest page number) counts pages of 4096 bytes.
// Both are plain uint64_t, chosen by the guest and checked at every use; parameters are named `gpa` or `gpn`.

#ifndef GUESTMEM_TYPES_H_
#define GUESTMEM_TYPES_H_

#include <concepts>
#include <cstdint>
#include <ranges>
#include <type_traits>

namespace guestmem {

// Bytes in a page. Always 4096, whatever the host's page size is.
inline constexpr uint64_t kPageSize = 4096;

// What an access wants to do; selects the access bitmap.
enum class AccessType : uint8_t { kRead, kWrite, kExecute };
inline constexpr int kAccessTypes = 3;

// A run of addresses, in bytes. start + length may exceed 2^64 only in an error that reports such a request.
struct AddressRange {
  uint64_t start = 0;
  uint64_t length = 0;
  bool operator==(const AddressRange&) const = default;
};

// A run of a backing's pages: page p is its bytes [p * 4096, (p + 1) * 4096). Any numbers may be passed where one is taken.
struct PageRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

namespace detail {

// For overloads that are deleted: arguments in the wrong order, which C++ would convert without a word.
template <typename T>
concept NotBool = std::integral<T> && !std::same_as<T, bool>;
template <typename T>
concept WiderThanInt = std::integral<T> && (sizeof(T) > sizeof(int));
// A container that dies with the expression, for what keeps a view of it.
template <typename T>
concept OwningTemporary = !std::is_reference_v<T> && std::ranges::range<T> && !std::ranges::borrowed_range<T>;

}  // namespace detail
}  // namespace guestmem

#endif  // GUESTMEM_TYPES_H_
