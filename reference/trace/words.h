// Words and numbers of texts, for the code that writes and reads them and for fields with a spelling of their own.

#ifndef GUESTMEM_REFERENCE_TRACE_WORDS_H_
#define GUESTMEM_REFERENCE_TRACE_WORDS_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "reference/trace/schema.h"

namespace reference::trace {

using Words = std::vector<std::string_view>;

Words Split(std::string_view text, std::string_view separators);
std::string Cat(std::initializer_list<std::string_view> parts);
std::string Listed(const Words& words, std::string_view separator = ", ");
// A word in a refusal: quoted, printable, short.
std::string Quoted(std::string_view word);

std::string HexText(uint64_t number);
std::string ValueText(const Field& field, uint64_t index);

// Reads a number, decimal or hexadecimal with 0x. Returns why it refuses; empty: taken.
std::string ReadNumber(std::string_view what, std::string_view word, uint64_t least, uint64_t most, uint64_t& number);
// Reads one of `names`: "unknown WHAT 'word'; WHATs are: ...".
std::string ReadName(std::string_view what, std::string_view word, std::span<const std::string_view> names, uint64_t& index);

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_WORDS_H_
