// Which types may be read from and written to guest memory as their bytes: plain accesses, streams, Try accesses.
//
//   struct Descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };   // may: every byte is a value's
//   struct Loose { uint8_t kind; uint64_t address; };                               // may not: 7 bytes of padding
//
// What the guest wrote becomes an object, so every bit pattern must be one: no bool, no pointer, no enumeration without a
// fixed underlying type (a guest's 2 as a bool is undefined behaviour). What the guest may read must be meant for it, so there
// is no padding, which would show it bytes of the host's stack. float and double are allowed; long double has padding.
//
// When not: a type whose fields the guest decides and whose values you check one by one; read its fields, or read it as
// integers. A bool inside of a struct is not seen: do not put one there.
//
// Threads and signal context: nothing runs.

#ifndef GUESTMEM_PLAIN_H_
#define GUESTMEM_PLAIN_H_

#include <type_traits>

namespace guestmem {

// For a type of your own that is refused and that you answer for, in every bit pattern and in both directions:
//   template <> inline constexpr bool guestmem::kAllowPlain<Loose> = true;
template <typename T>
inline constexpr bool kAllowPlain = false;

namespace detail {

template <typename T>
constexpr bool EveryPatternIsAValue() {
  if constexpr (std::is_enum_v<T>) {
    // An integer initialises an enumeration in braces exactly if its underlying type is fixed.
    return requires { T{0}; } && !std::is_same_v<std::underlying_type_t<T>, bool>;
  } else {
    return !std::is_same_v<T, bool> && !std::is_pointer_v<T> && !std::is_member_pointer_v<T> && !std::is_null_pointer_v<T>;
  }
}

template <typename T>
inline constexpr bool kHasNoPadding =
    std::has_unique_object_representations_v<T> || std::is_same_v<T, float> || std::is_same_v<T, double>;

}  // namespace detail

template <typename T>
concept PlainType = std::is_trivially_copyable_v<T> &&
                    (kAllowPlain<std::remove_cv_t<T>> || (detail::EveryPatternIsAValue<std::remove_cv_t<std::remove_all_extents_t<T>>>() &&
                                                          detail::kHasNoPadding<std::remove_cv_t<std::remove_all_extents_t<T>>>));

// The check, with one text wherever it stands.
#define GUESTMEM_REQUIRE_PLAIN(T)                                                                                         \
  static_assert(::guestmem::PlainType<T>,                                                                                 \
                "guest bytes and T must be the same thing: trivially copyable, no padding, no bool, no pointer (guestmem/plain.h)")

}  // namespace guestmem

#endif  // GUESTMEM_PLAIN_H_
