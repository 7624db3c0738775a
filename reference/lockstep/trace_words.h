// What the writer and the reader of trace texts share.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_WORDS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_WORDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "reference/model/vocabulary.h"

namespace reference {

inline constexpr std::string_view kTraceHeader = "guestmem trace 1";

std::string DecimalText(uint64_t number);
std::string HexText(uint64_t number);
std::string NumberText(uint64_t number);  // decimal while short enough to be read
std::string BackingText(const Backing& backing, size_t index);  // one line, without the newline

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_WORDS_H_
