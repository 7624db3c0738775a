// Which fields each kind of step uses, in one table. It drives the byte codec, the text codec and the defaults, so a
// new kind is one row here (and its meaning in the model and the subjects).

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_OP_FIELDS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_OP_FIELDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "reference/lockstep/trace.h"

namespace reference {

enum Field : uint32_t {
  kFieldTarget = 1u << 0,
  kFieldSlot = 1u << 1,
  kFieldAt = 1u << 2,
  kFieldLength = 1u << 3,
  kFieldSize = 1u << 4,
  kFieldValue = 1u << 5,
  kFieldDesired = 1u << 6,
  kFieldSeen = 1u << 7,
  kFieldGpns = 1u << 8,
  kFieldBacking = 1u << 9,
  kFieldPage = 1u << 10,
  kFieldCount = 1u << 11,
  kFieldChoice = 1u << 12,
  kFieldAccess = 1u << 13,
  kFieldForm = 1u << 14,
  kFieldOffset = 1u << 15,
  kFieldObject = 1u << 16,
  kFieldBytes = 1u << 17,
  kFieldWithin = 1u << 18,
};

// What a text calls a field. The address and the GPNs are written without a name.
struct FieldName {
  Field field;
  std::string_view name;
};
inline constexpr FieldName kFieldNames[] = {
    {kFieldTarget, "target"}, {kFieldSlot, "slot"},   {kFieldObject, "object"}, {kFieldForm, "form"}, {kFieldOffset, "offset"},   {kFieldBacking, "backing"}, {kFieldPage, "page"},
    {kFieldCount, "count"},   {kFieldAccess, "access"}, {kFieldLength, "length"}, {kFieldSize, "size"},
    {kFieldValue, "value"},   {kFieldSeen, "seen"},   {kFieldDesired, "desired"}, {kFieldChoice, "choice"}, {kFieldBytes, "bytes"}, {kFieldWithin, "within"},
};

struct OpFields {
  StepKind kind;
  std::string_view name;
  uint32_t fields;
  uint8_t lengths = 0;                               // the length's index is below this
  uint8_t choices = 0;                               // the choice is below this
  std::array<std::string_view, 6> choice_names = {};  // in texts; empty: choices are numbers

  constexpr bool Uses(Field field) const { return (fields & field) != 0; }
};

inline constexpr uint8_t kAnyLength = uint8_t{kLengthCount};
inline constexpr uint8_t kBufferLength = uint8_t{kBufferLengths};
inline constexpr uint8_t kForeignFaults = 8;
inline constexpr uint8_t kMisalignments = 16;  // one vector register's worth of host buffer alignments

// In the order of StepKind.
inline constexpr OpFields kOpFields[] = {
    {StepKind::kRead, "read", kFieldTarget | kFieldAt | kFieldLength | kFieldChoice | kFieldForm | kFieldWithin, kBufferLength, kMisalignments},
    {StepKind::kWrite, "write", kFieldTarget | kFieldAt | kFieldLength | kFieldValue | kFieldChoice | kFieldForm | kFieldWithin, kBufferLength,
     kMisalignments},
    {StepKind::kFill, "fill", kFieldTarget | kFieldAt | kFieldLength | kFieldValue, kAnyLength},
    {StepKind::kReadPlain, "read_plain", kFieldTarget | kFieldAt | kFieldSize},
    {StepKind::kWritePlain, "write_plain", kFieldTarget | kFieldAt | kFieldSize | kFieldValue},
    {StepKind::kCompareExchange, "compare_exchange",
     kFieldTarget | kFieldAt | kFieldSize | kFieldValue | kFieldSeen | kFieldDesired | kFieldForm | kFieldChoice, 0, 3,
     {"exact", "unequal", "odd"}},
    {StepKind::kProbeReadable, "probe_readable", kFieldTarget | kFieldAt | kFieldLength, kAnyLength},
    {StepKind::kProbeWritable, "probe_writable", kFieldTarget | kFieldAt | kFieldLength, kAnyLength},
    {StepKind::kProbeExecutable, "probe_executable", kFieldTarget | kFieldAt | kFieldLength, kAnyLength},
    {StepKind::kProbeGpns, "probe_gpns", kFieldTarget | kFieldGpns},
    {StepKind::kFullMapping, "full_mapping", kFieldTarget},
    {StepKind::kIova, "iova", kFieldTarget | kFieldAt},
    {StepKind::kSubrange, "subrange", kFieldTarget | kFieldSlot | kFieldAt | kFieldLength | kFieldForm, kAnyLength},
    {StepKind::kSetBit, "set_bit", kFieldBacking | kFieldPage | kFieldAccess | kFieldChoice, 0, 2, {"clear", "set"}},
    {StepKind::kAllocate, "allocate", kFieldBacking | kFieldPage | kFieldCount},
    {StepKind::kMapZero, "map_zero", kFieldBacking | kFieldPage | kFieldCount},
    {StepKind::kProtect, "protect", kFieldBacking | kFieldPage | kFieldCount | kFieldChoice, 0, 3, {"none", "read", "read_write"}},
    {StepKind::kUnmap, "unmap", kFieldBacking | kFieldPage | kFieldCount},
    {StepKind::kRangeSet, "range_set", kFieldObject | kFieldOffset | kFieldLength | kFieldGpns, kAnyLength},
    {StepKind::kRangeAppend, "range_append", kFieldObject | kFieldOffset | kFieldLength | kFieldGpns, kAnyLength},
    {StepKind::kRangeSkip, "range_skip", kFieldObject | kFieldLength, kAnyLength},
    {StepKind::kRangeTruncate, "range_truncate", kFieldObject | kFieldLength, kAnyLength},
    {StepKind::kRangeSubrange, "range_subrange", kFieldObject | kFieldOffset | kFieldLength, kAnyLength},
    {StepKind::kRangeSplit, "range_split", kFieldObject | kFieldSlot | kFieldLength, kAnyLength},
    {StepKind::kRangeIterate, "range_iterate", kFieldObject},
    {StepKind::kRangeRead, "range_read", kFieldTarget | kFieldObject | kFieldForm | kFieldChoice | kFieldWithin, 0, 3,
     {"exact", "longer", "shorter"}},
    {StepKind::kRangeWrite, "range_write", kFieldTarget | kFieldObject | kFieldValue | kFieldForm | kFieldChoice | kFieldWithin, 0, 3,
     {"exact", "longer", "shorter"}},
    {StepKind::kRangeFill, "range_fill", kFieldTarget | kFieldObject | kFieldValue | kFieldForm},
    {StepKind::kReaderOpen, "reader_open", kFieldTarget | kFieldObject | kFieldForm | kFieldLength | kFieldValue, kBufferLength},
    {StepKind::kReaderLimit, "reader_limit", kFieldObject | kFieldForm | kFieldLength, kAnyLength},
    {StepKind::kReaderRead, "reader_read", kFieldObject | kFieldLength, kBufferLength},
    {StepKind::kReaderSkip, "reader_skip", kFieldObject | kFieldLength, kAnyLength},
    {StepKind::kReaderPlain, "reader_plain", kFieldObject | kFieldSize},
    {StepKind::kReaderArray, "reader_array", kFieldObject | kFieldSize | kFieldLength, kAnyLength},
    {StepKind::kReaderAll, "reader_all", kFieldObject},
    {StepKind::kWriterOpen, "writer_open", kFieldTarget | kFieldObject | kFieldForm | kFieldLength, kBufferLength},
    {StepKind::kWriterLimit, "writer_limit", kFieldObject | kFieldForm | kFieldLength, kAnyLength},
    {StepKind::kWriterWrite, "writer_write", kFieldObject | kFieldLength | kFieldValue, kBufferLength},
    {StepKind::kWriterFill, "writer_fill", kFieldObject | kFieldLength | kFieldValue, kAnyLength},
    {StepKind::kWriterPlain, "writer_plain", kFieldObject | kFieldSize | kFieldValue},
    {StepKind::kLockGpns, "lock_gpns", kFieldTarget | kFieldObject | kFieldGpns | kFieldAccess | kFieldForm},
    {StepKind::kLockRange, "lock_range", kFieldTarget | kFieldObject | kFieldOffset | kFieldLength | kFieldGpns | kFieldAccess, kAnyLength},
    {StepKind::kUnlock, "unlock", kFieldObject},
    {StepKind::kLockedCopy, "locked_copy", kFieldObject | kFieldCount | kFieldOffset | kFieldLength | kFieldValue | kFieldChoice,
     kBufferLength, 4, {"copy_to", "copy_from", "fill", "at"}},
    {StepKind::kSupportsLocking, "supports_locking", kFieldTarget},
    {StepKind::kLockableSubrange, "lockable_subrange", kFieldTarget | kFieldSlot | kFieldAt | kFieldLength, kAnyLength},
    {StepKind::kMapFile, "map_file", kFieldBacking | kFieldPage | kFieldCount | kFieldChoice | kFieldForm, 0, kMaxPages},
    {StepKind::kDecommit, "decommit", kFieldBacking | kFieldPage | kFieldCount},
    {StepKind::kAdviseHugePages, "advise_huge_pages", kFieldBacking | kFieldPage | kFieldCount | kFieldChoice, 0, 2, {"advised", "refused"}},
    {StepKind::kBindToNode, "bind_to_node", kFieldBacking | kFieldPage | kFieldCount | kFieldChoice, 0, 3, {"first", "missing", "beyond"}},
    {StepKind::kUnmapBytes, "unmap_bytes", kFieldBacking | kFieldOffset | kFieldLength, kAnyLength},
    {StepKind::kMapFileBytes, "map_file_bytes", kFieldBacking | kFieldOffset | kFieldLength, kAnyLength},
    {StepKind::kMake, "make", kFieldSlot | kFieldBytes | kFieldForm | kFieldValue | kFieldChoice, 0, 6,
     {"empty", "heap", "shared", "sparse", "bitmap", "bare"}},
    {StepKind::kCreate, "create", kFieldSlot | kFieldBacking | kFieldBytes | kFieldForm | kFieldChoice, 0, 5,
     {"honest", "null", "size", "mapping", "bit_offset"}},
    {StepKind::kSharing, "sharing", kFieldTarget},
    {StepKind::kInnerBuffer, "inner_buffer", kFieldTarget | kFieldValue | kFieldChoice, 0, 3, {"shared", "mutable", "take"}},
    {StepKind::kRevoke, "revoke", kFieldBacking | kFieldPage | kFieldCount | kFieldChoice, 0, 8},
    {StepKind::kGrant, "grant", kFieldBacking | kFieldPage | kFieldCount | kFieldChoice, 0, 8},
    {StepKind::kWaitUnlocked, "wait_unlocked", kFieldBacking | kFieldPage | kFieldCount},
    {StepKind::kHold, "hold", kFieldBacking | kFieldGpns | kFieldForm},
    {StepKind::kTry, "try",
     kFieldBacking | kFieldPage | kFieldOffset | kFieldLength | kFieldSize | kFieldValue | kFieldDesired | kFieldForm | kFieldChoice,
     kBufferLength, 6, {"copy_from", "copy_to", "fill", "read", "write", "exchange"}},
    {StepKind::kForeignFault, "foreign_fault", kFieldChoice, 0, kForeignFaults},
};
inline constexpr size_t kStepKinds = std::size(kOpFields);

// The kind is taken modulo the number of kinds: there is always a row.
inline const OpFields& FieldsOf(StepKind kind) { return kOpFields[static_cast<size_t>(kind) % kStepKinds]; }

// The bits of `value` and `desired` that the op looks at.
uint64_t ValueMask(const Op& op);
inline bool HasIndex(Anchor anchor) { return anchor == Anchor::kPage || anchor == Anchor::kMiddle || anchor == Anchor::kEnd; }

inline constexpr uint8_t kMaxAddressIndex = 15;   // the last page of the largest world
inline constexpr uint8_t kMaxFailingHostCall = 15;
inline constexpr size_t kMaxHandlerAnswers = 8;   // two for each page of an access that touches them all
inline constexpr size_t kMaxFallbackAnswers = 8;
inline constexpr size_t kMaxLockAnswers = 8;      // two runs and their pages, with some to spare
inline constexpr size_t kMaxSubrangeAnswers = 6;  // two for each view that can be held

inline constexpr int kPageStates = 4;
inline constexpr int kAccesses = 3;
inline constexpr uint8_t kRegionPages[] = {0, 1, 2, 4};

// The one spelling of everything that means the same: numbers brought into range by modulo, what has no effect at
// its default. Both codecs return only such ops and worlds.
Op Normal(Op op);
Backing Normal(const Backing& backing, uint8_t region_pages);
World Normal(World world);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_OP_FIELDS_H_
