// A trace is the whole experiment: a world and the operations on it, as data. Its rows are in trace_rows.cc, and both spellings come
// from them (reference/trace/schema.h): bytes for fuzzers, text for people (corpus/seeds).

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "reference/model/vocabulary.h"
#include "reference/trace/schema.h"

namespace reference {

// Addresses are spelled relative to the places where bugs live.
enum class Anchor : uint8_t {
  kPage,    // index * 4096
  kMiddle,  // index * 4096 + 2048
  kEnd,     // where backing `index` (modulo their count) ends: its region's start + max_address; an absent one, the start
  k2To32,   // the last three take no index
  k2To63,
  k2To64,   // wraps: delta -8 is 2^64 - 8, delta 0 is 0
};
inline constexpr int kAnchors = 6;

struct Address {
  Anchor anchor = Anchor::kPage;
  uint8_t index = 0;  // 0..15
  int8_t delta = 0;
  bool operator==(const Address&) const = default;
};

// Lengths are drawn from here. The first kBufferLengths fit a host buffer.
inline constexpr uint64_t kLengths[] = {
    // every length up to past the widest vector register, where copy kernels change their method
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    33, 34, 35, 36, 39, 40, 41, 47, 48, 49, 55, 56, 57, 60, 61, 62, 63, 64, 65, 66, 67, 72, 80, 95, 96, 97, 100,
    // powers of two and their neighbours: loop bounds, unrolling, page parts
    112, 127, 128, 129, 144, 159, 160, 161, 191, 192, 193, 200, 223, 224, 225, 255, 256, 257, 300, 383, 384, 385, 511, 512, 513,
    767, 768, 1023, 1024, 1025, 2047, 2048, 2049, 4032,
    // pages and their neighbours
    4088, 4095, 4096, 4097, 4104, 6144, 8191, 8192, 8193, 12287, 12288, 12289, 16383, 16384, 16385,
    // as many pages as a bitmap scan takes in words, in memory that is reserved only
    0x4'0000, 0x4'1000, 0x1e'0000,
    // beyond any memory: range arithmetic
    0xffff'ffff, 0x1'0000'0000, 0x7fff'ffff'ffff'ffff, 0x8000'0000'0000'0000, 0xffff'ffff'ffff'f000, 0xffff'ffff'ffff'ffff,
};
inline constexpr size_t kLengthCount = std::size(kLengths);
inline constexpr size_t kBufferLengths = kLengthCount - 9;

// GPNs are drawn from here: the pages of the largest world, then the edges of the number space.
inline constexpr uint64_t kGpns[] = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    uint64_t{1} << 20, uint64_t{1} << 51, (uint64_t{1} << 52) - 2, (uint64_t{1} << 52) - 1, uint64_t{1} << 52, uint64_t{1} << 63, ~uint64_t{0},
};
inline constexpr size_t kGpnCount = std::size(kGpns);
inline constexpr size_t kMaxGpns = 8;

// Offsets of paged ranges: page edges, then what overflows.
inline constexpr uint64_t kOffsets[] = {
    0, 1, 7, 8, 2048, 4088, 4095, 4096, 4097, 8191, 8192, uint64_t{1} << 63, ~uint64_t{0} - 4095, ~uint64_t{0},
    (uint64_t{1} << 63) - 4096,
};
inline constexpr size_t kOffsetCount = std::size(kOffsets);

// Sizes of memory, regions and bitmaps. The first kSmallSizes are a few pages, or too large for anything: what has bytes takes those.
inline constexpr uint64_t kSizes[] = {
    0, 1, 4095, 4096, 4097, 8192, 12288, 16383, 16384, (uint64_t{1} << 63) - 4095, ~uint64_t{0},
    2048, uint64_t{1} << 21, uint64_t{1} << 30, (uint64_t{1} << 47) - 4096, (uint64_t{1} << 47) - 4095, uint64_t{1} << 61,
    uint64_t{1} << 62, uint64_t{1} << 63,
};
inline constexpr size_t kSizeCount = std::size(kSizes);
inline constexpr size_t kSmallSizes = 11;

// One operation as the trace spells it. A field its kind does not use is at its default: that
// makes the two spellings lossless.
struct Op {
  StepKind kind = StepKind::kRead;
  uint8_t target = 0;   // 0..kHandles-1
  uint8_t slot = 1;     // 1..kHandles-1
  Address at;
  uint8_t length = 8;   // index into kLengths: 8 bytes, so that zeros move something
  uint8_t size = 0;     // log2: 0..3
  uint64_t value = 0;
  uint64_t desired = 0;
  bool seen = false;    // compare-exchange: `current` is the number that the last step which yielded one yielded, not `value` (which is 0 then)
  std::vector<uint8_t> gpns;  // indices into kGpns, at most kMaxGpns
  uint8_t backing = 0;  // 0..kMaxBackings-1
  uint8_t page = 0;     // 0..kMaxPages-1
  uint8_t count = 1;    // 0..kMaxPages
  uint8_t choice = 0;   // and form: the kind's, see vocabulary.h
  Access access = Access::kRead;
  uint8_t form = 0;     // 0..1
  uint8_t offset = 0;   // index into kOffsets
  uint8_t object = 0;   // 0..kObjects-1
  uint8_t bytes = 0;    // index into kSizes
  uint8_t within = 0;   // 0..kHostPlaces
  bool operator==(const Op&) const = default;

  template <typename Enum>
  bool Has(Enum form) const { return static_cast<Enum>(this->form) == form; }
};

struct Trace {
  World world;
  std::vector<Op> ops;
  bool operator==(const Trace&) const = default;
};
inline constexpr size_t kMaxOps = 64;

GUESTMEM_WITHOUT_ORDER(StepKind);

// Fills in the numbers. `seen` is the number last yielded.
Step Resolve(const World& world, const Op& op, uint64_t seen);

// Bytes: records of kRecordBytes, at most kMostWorld of them before the ops.
inline constexpr size_t kRecordBytes = 28;
inline constexpr size_t kMostWorld = 6 + kMaxBackings;
const trace::Schema& Rows();

using trace::TextError;
Trace FromBytes(std::span<const uint8_t> bytes);
std::vector<uint8_t> ToBytes(const Trace& trace);
std::string OpText(const Op& op);
std::string ToText(const Trace& trace);
std::variant<Trace, TextError> FromText(std::string_view text);

// "read", "compare_exchange", "out_of_range", "page_fault", ...; one name everywhere (text, reports, errors).
std::string_view Name(StepKind kind);
std::string_view Name(ErrorKind kind);
std::string_view Name(Operation operation);
std::string_view Name(CallKind kind);
std::string_view Name(Access access);
std::string_view Name(PageState state);
std::string_view Name(HostError error);
std::string_view Name(HandlerAnswer answer);
std::string_view Name(FallbackAnswer answer);
std::string_view Name(LockAnswer answer);
std::string_view Name(SubrangeAnswer answer);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_H_
