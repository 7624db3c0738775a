// A trace of the VMM interfaces: a guest in this process, and the operations on its RAM, regions, ROMs, doorbells, events,
// locks and bytes. As data; its rows are in trace.cc, and both spellings come from them (reference/trace/schema.h).
//
// An op is its kind and a few fields; a field is an index into the list of values it can take (ValuesOf), so that every op is
// legal. An op on a slot that holds nothing does nothing. Knows nothing of lib/.
//
//   guestmem vmm 1
//   guest pages=8 trim=1
//   ops
//   add_ram length=8192
//   register at=8 match=any_value
//   write at=8 size=4 value=0x101 how=plain      # fields at their default are left out

#ifndef GUESTMEM_REFERENCE_VMM_TRACE_H_
#define GUESTMEM_REFERENCE_VMM_TRACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "reference/trace/schema.h"

namespace reference::vmm {

inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint64_t kMaxPages = 8;
inline constexpr size_t kMaxOps = 24;
inline constexpr int kSlots = 3;  // of regions, ROMs, parts of ROMs, doorbells, events, locks: each kind has its own
inline constexpr int kFiles = 2;  // that regions map
inline constexpr uint64_t kFilePages[kFiles] = {3, 2};
inline constexpr uint64_t kFileBytes[kFiles] = {3 * kPageBytes, kPageBytes + 100};  // the second ends inside a page

// The numbers stand in inputs of fuzzers: a new kind takes the next, and none is used again.
enum class OpKind : uint8_t {
  kAddRam = 0,
  kNewRegion = 1,     // in place of the slot's
  kRegionMap = 2,
  kRegionUnmap = 3,
  kMapToGuest = 4,
  kUnmapFromGuest = 5,
  kDropGuestHalf = 6, // of the slot's region; the other half may live on
  kDropRegionHalf = 7,
  kNewRom = 8,        // in place of the slot's; its parts live on
  kMapRom = 9,        // ROM `slot` as part `other`, in place of the part there
  kDropPart = 10,
  kDropRom = 11,
  kRegister = 12,     // doorbell `slot` for event `other`, in place of the bell there
  kDropBell = 13,
  kNewEvent = 14,     // in place of the slot's, whose bells ring on
  kCloneEvent = 15,   // the slot's becomes its own clone
  kSignal = 16,       // form 1: through a descriptor of its own
  kTake = 17,         // form 0: TryWait; 1: Wait, where that ends
  kRead = 18,         // form 0: bulk; 1: plain
  kWrite = 19,        // form 0: bulk; 1: plain; 2: fill
  kCompareExchange = 20,
  kProbe = 21,        // form 0: read, 1: write, 2: execute
  kLock = 22,         // `slot`: one page or (form 2, 3) that and the next; for reading or (form 1, 3) writing
  kUnlock = 23,
  // An address space beside the guest, made by the first of these. Kinds 18 to 22 reach it, or the view of it, by `other`.
  kSpaceAdd = 24,        // a slot named by `slot`, of backing `file`; form 1: read-only. Between begin and commit a step of a change
  kSpaceRemove = 25,     // likewise
  kSpaceBegin = 26,
  kSpaceCommit = 27,
  kSpaceView = 28,       // in place of the view there
  kSpaceListen = 29,     // form 1: refuses a slot that starts at the page
  kSpaceUnlisten = 30,
  kSpacePopulated = 31,
  kSpaceDrop = 32,       // its memory lives on
};
GUESTMEM_WITHOUT_ORDER(OpKind);

// What operations are about, as profiles of fuzz targets name it.
namespace group {
inline constexpr uint32_t kGuest = 1, kAccess = 2, kSpace = 4;
}

enum Field : uint8_t {
  kSlot,
  kOther,
  kPage,    // a guest page
  kAt,      // bytes into it
  kLength,  // of RAM, a region, a mapping, a ROM
  kSize,    // of an access, or the length that a doorbell hears
  kValue,
  kOffset,  // in a region or a ROM
  kFrom,    // in a file
  kFile,    // 0, 1: writable; 2: file 0 opened for reading; 3: a closed descriptor. Of a slot: its backing
  kForm,    // region: 0 writable, 1 not. kRegister: 1 any value, 2 any length, 3 both. Else see the kind.
  kFail,    // the n-th host call of the op fails; 0: none
};
inline constexpr int kFields = 12;

// The values of each field, by index; index 0 is the default. kForm's are its indices.
std::span<const uint64_t> ValuesOf(Field field);

struct Op {
  OpKind kind = OpKind::kAddRam;
  std::array<uint8_t, kFields> index = {};
  uint64_t operator[](Field field) const { return ValuesOf(field)[index[field]]; }
  uint64_t gpa() const { return (*this)[kPage] * kPageBytes + (*this)[kAt]; }
  // Whether it is about the address space: of a kind that is, or an access to its memory.
  bool InSpace() const;
  bool operator==(const Op&) const = default;
};

struct World {
  uint8_t pages = kMaxPages;  // 1..kMaxPages
  uint8_t trim = 0;           // 1: created with some bytes less, which are rounded up
  uint8_t guest_first = 0;    // 1: at the end the guest's handle is dropped before what it made
  uint8_t lazy = 0;           // what the address space's lazy backing does about a page that is not there (space_world.h)
  uint8_t fail = 0;           // the n-th host call of the guest's creation fails, and it is created again; 0: none
  bool operator==(const World&) const = default;
};

struct Trace {
  World world;
  std::vector<Op> ops;
  bool operator==(const Trace&) const = default;
};

inline constexpr size_t kRecordBytes = 1 + kFields;
const trace::Schema& Rows();

using trace::TextError;
Trace FromBytes(std::span<const uint8_t> bytes);
std::vector<uint8_t> ToBytes(const Trace& trace);
std::string OpText(const Op& op);
std::string ToText(const Trace& trace);
std::variant<Trace, TextError> FromText(std::string_view text);

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_TRACE_H_
