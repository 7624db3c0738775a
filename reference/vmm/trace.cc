// The rows.

#include "reference/vmm/trace.h"

#include <algorithm>
#include <iterator>

#include "reference/trace/kinds_check.h"

namespace reference::vmm {
namespace {

using trace::Of;
using trace::Spelt;

constexpr uint64_t kNearEnd = 0 - kPageBytes;  // the last page of 2^64 bytes
constexpr uint64_t kSlotValues[] = {0, 1, 2};
// The guest's, the one behind it, and pages at 2^32, at the first invalid GPN, and at the end of 2^64.
constexpr uint64_t kPages[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 20, (uint64_t{1} << 52) - 1, (uint64_t{1} << 52) - 2};
constexpr uint64_t kAts[] = {0, 8, 16, 1, 4, 2048, 4088, 4092, 4095};
constexpr uint64_t kLengths[] = {4096, 8192, 12288, 16384, 32768, 0, 1, 4097, kNearEnd};
// The first four are those that plain accesses take; a whole guest is the most.
constexpr uint64_t kSizes[] = {1, 2, 4, 8, 3, 7, 9, 100, 2048, 4096, 4104, 8192, 12289, 32768, 0};
// What fills look like, what only some lengths can hold, and bytes that all differ.
constexpr uint64_t kValues[] = {0, 1, 0xff, 0x0101, 0x100, 0x01010101, 0x0101010101010101, 0x8877665544332211, ~uint64_t{0}};
constexpr uint64_t kOffsets[] = {0, 4096, 8192, 12288, 1, uint64_t{1} << 62, (uint64_t{1} << 63) - 4096, kNearEnd};
constexpr uint64_t kFileValues[] = {0, 1, 2, 3};
constexpr uint64_t kForms[] = {0, 1, 2, 3};
constexpr uint64_t kFails[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

constexpr std::string_view kRights[] = {"writable", "read_only"};
constexpr std::string_view kMatches[] = {"exact", "any_value", "any_length", "any"};
constexpr std::string_view kWays[] = {"directly", "by_descriptor"};
constexpr std::string_view kWaits[] = {"try", "wait"};
constexpr std::string_view kReads[] = {"bulk", "plain"};
constexpr std::string_view kWrites[] = {"bulk", "plain", "fill"};
constexpr std::string_view kProbes[] = {"read", "write", "execute"};
constexpr std::string_view kMemories[] = {"guest", "space", "view"};
constexpr std::string_view kBackings[] = {"ram", "guarded", "lazy", "registers"};
constexpr std::string_view kTempers[] = {"accepting", "refusing"};
constexpr std::string_view kAnswers[] = {"populates", "removes", "replaces", "fails", "falls_back", "removes_and_falls_back"};
constexpr std::string_view kLocks[] = {"one_to_read", "one_to_write", "two_to_read", "two_to_write"};

// Each field's index stands in the byte after the kind's, in the order of Field.
template <Field kField, uint64_t kHere = 0>
constexpr trace::Field Row(std::string_view key, std::span<const uint64_t> values) {
  constexpr auto kFirst = [](const void*) { return kHere; };
  return {.key = key, .at = 1 + kField, .number = trace::NumberOf<Op, [](Op& op) -> uint8_t& { return op.index[kField]; }>(),
          .values = values, .here = kHere == 0 ? nullptr : +kFirst};
}
template <Field kField = kForm, uint64_t kHere = 0>
constexpr trace::Field NamedRow(std::string_view key, std::span<const std::string_view> names) {
  trace::Field row = Row<kField, kHere>(key, {});
  row.names = names;
  return row;
}
constexpr trace::Field FailRow() {
  trace::Field row = Row<kFail, 1>("fail", kFails);
  row.seldom = true;
  return row;
}

// The first kForm rows are Field's.
constexpr trace::Field kOpFields[] = {
    Row<kSlot>("slot", kSlotValues), Row<kOther>("other", kSlotValues), Row<kPage, 4>("page", kPages),     Row<kAt>("at", kAts),
    Row<kLength, 5>("length", kLengths), Row<kSize, 11>("size", kSizes), Row<kValue>("value", kValues), Row<kOffset, 2>("offset", kOffsets),
    Row<kFrom, 2>("from", kOffsets),     Row<kFile, 2>("file", kFileValues),
    NamedRow("rights", kRights), NamedRow("match", kMatches), NamedRow("how", kWays), NamedRow("how", kWaits), NamedRow("how", kReads),
    NamedRow("how", kWrites), NamedRow("access", kProbes), NamedRow("pages", kLocks), NamedRow("how", kTempers),
    NamedRow<kOther, 2>("memory", kMemories), NamedRow<kFile>("backing", kBackings),
    FailRow(),
};
enum : uint8_t { kRightsRow = kForm, kMatchRow, kWayRow, kWaitRow, kReadRow, kWriteRow, kProbeRow, kLockRow, kTemperRow, kMemoryRow, kBackingRow, kFailRow };
static_assert(std::size(kOpFields) == kFailRow + 1);

constexpr trace::Kind Row(OpKind kind, std::string_view name, uint64_t fields, uint32_t group = group::kGuest) {
  return {static_cast<uint8_t>(kind), name, fields, group};
}
constexpr trace::Kind kOps[] = {
    Row(OpKind::kAddRam, "add_ram", Of(kPage, kAt, kLength, kFailRow)),
    Row(OpKind::kNewRegion, "new_region", Of(kSlot, kLength, kFailRow)),
    Row(OpKind::kRegionMap, "region_map", Of(kSlot, kOffset, kLength, kFile, kFrom, kRightsRow, kFailRow)),
    Row(OpKind::kRegionUnmap, "region_unmap", Of(kSlot, kOffset, kLength, kFailRow)),
    Row(OpKind::kMapToGuest, "map_to_guest", Of(kSlot, kPage, kAt, kRightsRow, kFailRow)),
    Row(OpKind::kUnmapFromGuest, "unmap_from_guest", Of(kSlot, kFailRow)),
    Row(OpKind::kDropGuestHalf, "drop_guest_half", Of(kSlot, kFailRow)),
    Row(OpKind::kDropRegionHalf, "drop_region_half", Of(kSlot)),
    Row(OpKind::kNewRom, "new_rom", Of(kSlot, kLength, kFailRow)),
    Row(OpKind::kMapRom, "map_rom", Of(kSlot, kOther, kPage, kAt, kOffset, kLength, kFailRow)),
    Row(OpKind::kDropPart, "drop_part", Of(kSlot, kFailRow)),
    Row(OpKind::kDropRom, "drop_rom", Of(kSlot)),
    Row(OpKind::kRegister, "register", Of(kSlot, kOther, kPage, kAt, kSize, kValue, kMatchRow, kFailRow)),
    Row(OpKind::kDropBell, "drop_bell", Of(kSlot)),
    Row(OpKind::kNewEvent, "new_event", Of(kSlot, kFailRow)),
    Row(OpKind::kCloneEvent, "clone_event", Of(kSlot, kFailRow)),
    Row(OpKind::kSignal, "signal", Of(kSlot, kWayRow)),
    Row(OpKind::kTake, "take", Of(kSlot, kWaitRow, kFailRow)),
    Row(OpKind::kRead, "read", Of(kMemoryRow, kPage, kAt, kSize, kReadRow), group::kAccess),
    Row(OpKind::kWrite, "write", Of(kMemoryRow, kPage, kAt, kSize, kValue, kWriteRow), group::kAccess),
    Row(OpKind::kCompareExchange, "compare_exchange", Of(kMemoryRow, kPage, kAt, kSize, kValue), group::kAccess),
    Row(OpKind::kProbe, "probe", Of(kMemoryRow, kPage, kAt, kSize, kProbeRow), group::kAccess),
    Row(OpKind::kLock, "lock", Of(kSlot, kMemoryRow, kPage, kLockRow, kFailRow), group::kAccess),
    Row(OpKind::kUnlock, "unlock", Of(kSlot), group::kAccess),
    Row(OpKind::kSpaceAdd, "space_add", Of(kSlot, kPage, kAt, kLength, kBackingRow, kOffset, kRightsRow), group::kSpace),
    Row(OpKind::kSpaceRemove, "space_remove", Of(kPage, kAt), group::kSpace),
    Row(OpKind::kSpaceBegin, "space_begin", 0, group::kSpace),
    Row(OpKind::kSpaceCommit, "space_commit", 0, group::kSpace),
    Row(OpKind::kSpaceView, "space_view", Of(kPage, kAt, kSize), group::kSpace),
    Row(OpKind::kSpaceListen, "space_listen", Of(kSlot, kPage, kTemperRow), group::kSpace),
    Row(OpKind::kSpaceUnlisten, "space_unlisten", Of(kSlot), group::kSpace),
    Row(OpKind::kSpacePopulated, "space_populated", Of(kPage, kAt, kLength), group::kSpace),
    Row(OpKind::kSpaceDrop, "space_drop", 0, group::kSpace),
};
static_assert(trace::AreKindsOf<OpKind>(kOps) && !trace::Ordered<OpKind>);

constexpr trace::Field kGuestFields[] = {
    {.key = "pages", .at = 1, .number = trace::NumberOf<World, &World::pages, 1>(), .spelt = Spelt::kShown, .count = kMaxPages, .first = 1,
     .usual = kMaxPages - 1},
    {.key = "trim", .at = 2, .number = trace::NumberOf<World, &World::trim>(), .count = 2},
    {.key = "guest_first", .at = 3, .number = trace::NumberOf<World, &World::guest_first>(), .count = 2},
    {.key = "fail", .at = 4, .number = trace::NumberOf<World, &World::fail>(), .count = 4},
    {.key = "lazy", .at = 5, .number = trace::NumberOf<World, &World::lazy>(), .names = kAnswers},
};
constexpr trace::Kind kGuest[] = {{0xf0, "guest", Of(0, 1, 2, 3, 4)}};

constexpr trace::Section kSections[] = {
    {.fields = kGuestFields, .kinds = kGuest, .place = trace::OneOf<Trace, &Trace::world>()},
    {.fields = kOpFields, .kinds = kOps, .place = trace::ManyOf<Trace, &Trace::ops>(), .kind = trace::NumberOf<Op, &Op::kind>(), .most = kMaxOps},
};
static_assert(trace::Fits(kSections, kRecordBytes));
constexpr trace::Table kTable = trace::TableOf(kSections);
constexpr trace::Schema kRows = {"guestmem vmm 1", kRecordBytes, kSections, &kTable};

}  // namespace

const trace::Schema& Rows() { return kRows; }

bool Op::InSpace() const {
  const uint32_t about = std::find_if(std::begin(kOps), std::end(kOps), [&](const trace::Kind& row) { return row.number == static_cast<uint8_t>(kind); })->group;
  return about == group::kSpace || (about == group::kAccess && kind != OpKind::kUnlock && index[kOther] != 0);
}

std::span<const uint64_t> ValuesOf(Field field) { return field == kForm ? kForms : field == kFail ? kFails : kOpFields[field].values; }

Trace FromBytes(std::span<const uint8_t> bytes) { return trace::FromBytes<Trace>(kRows, bytes); }
std::vector<uint8_t> ToBytes(const Trace& trace) { return trace::Encode(kRows, &trace); }
std::string OpText(const Op& op) { return trace::LineText(kRows.ops(), &op); }
std::string ToText(const Trace& trace) { return trace::Text(kRows, &trace); }
std::variant<Trace, TextError> FromText(std::string_view text) { return trace::FromText<Trace>(kRows, text); }

}  // namespace reference::vmm
