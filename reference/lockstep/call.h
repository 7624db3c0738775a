// A call of the public API (or of reference/support), written once for both who need it: its name, to be printed, and what carries it
// out. See operations.cc.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_CALL_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_CALL_H_

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace reference {

template <typename Action>
struct Callee {
  std::string_view name;
  std::string_view type;  // its template argument; empty: none
  bool is_method;         // of the first argument
  Action action;
};

template <typename T>
constexpr std::string_view kTypeName = std::is_same_v<T, uint8_t>    ? "uint8_t"
                                       : std::is_same_v<T, uint16_t> ? "uint16_t"
                                       : std::is_same_v<T, uint32_t> ? "uint32_t"
                                                                     : "uint64_t";

#define METHOD(name) \
  Callee{#name, {}, true, [](auto&& object, auto&&... arguments) -> decltype(auto) { return object.name(arguments...); }}
#define METHOD_OF(name, T) \
  Callee{#name, kTypeName<T>, true, [](auto&& object, auto&&... arguments) -> decltype(auto) { return object.template name<T>(arguments...); }}
#define FUNCTION(name) \
  Callee{#name, {}, false, [](auto&&... arguments) -> decltype(auto) { return name(arguments...); }}
#define FUNCTION_OF(name, T) \
  Callee{#name, kTypeName<T>, false, [](auto&&... arguments) -> decltype(auto) { return name<T>(arguments...); }}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_CALL_H_
