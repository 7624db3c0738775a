// The rows of the operations and of their world, and the spellings that only they have.

#include <algorithm>
#include <array>
#include <iterator>

#include "reference/lockstep/trace.h"
#include "reference/lockstep/trace_rows.h"
#include "reference/trace/kinds_check.h"
#include "reference/trace/words.h"

namespace reference {
namespace {

using trace::Cat;
using trace::Field;
using trace::NumberOf;
using trace::Of;
using trace::Quoted;
using trace::ReadNumber;
using trace::Spelt;

// ------------------------------------------------------------------ spellings

constexpr std::string_view kAddressForms = "pageN, midN, endN (N up to 15), 2^32, 2^63 or 2^64, each with +D or -D (-128..127) if wanted";
constexpr std::string_view kAnchorNames[kAnchors] = {"page", "mid", "end", "2^32", "2^63", "2^64"};

std::string WriteAddress(const void* object) {
  const Address& at = static_cast<const Op*>(object)->at;
  std::string out(kAnchorNames[static_cast<size_t>(at.anchor)]);
  if (HasIndex(at.anchor)) out += std::to_string(at.index);
  if (at.delta != 0) out += (at.delta > 0 ? "+" : "") + std::to_string(at.delta);
  return out;
}

std::string ReadAddress(std::string_view word, void* object) {
  Address& at = static_cast<Op*>(object)->at;
  const std::string refusal = Cat({Quoted(word), " is not an address: expected ", kAddressForms});
  const auto anchor = std::ranges::find_if(kAnchorNames, [&](std::string_view name) { return word.starts_with(name); });
  if (anchor == std::end(kAnchorNames)) return refusal;
  at.anchor = static_cast<Anchor>(anchor - std::begin(kAnchorNames));
  std::string_view rest = word.substr(anchor->size());
  const size_t sign = std::min(rest.find_first_of("+-"), rest.size());
  const std::string_view digits = rest.substr(0, sign);
  rest.remove_prefix(sign);
  if (HasIndex(at.anchor) == digits.empty() || digits.find_first_not_of("0123456789") != digits.npos) return refusal;
  uint64_t index = 0, distance = 0;
  std::string reason = digits.empty() ? "" : ReadNumber("the address's index", digits, 0, kMaxAddressIndex, index);
  at.index = static_cast<uint8_t>(index);
  if (!reason.empty() || rest.empty()) return reason;
  const bool minus = rest[0] == '-';
  reason = ReadNumber("the address's distance", rest.substr(1), 0, minus ? 128 : 127, distance);
  at.delta = static_cast<int8_t>(minus ? -static_cast<int>(distance) : static_cast<int>(distance));
  return reason;
}

// backing.page
std::string WriteWithin(const void* object) {
  Step step;
  step.within = static_cast<const Op*>(object)->within;
  return step.within == 0 ? "" : std::to_string(step.HostBacking()) + "." + std::to_string(step.HostAddress() / kPageSize);
}
std::string ReadWithin(std::string_view word, void* object) {
  const size_t dot = word.find('.');
  if (dot == word.npos) return Cat({"within ", Quoted(word), " is not like 0.1: a backing, and a page of it"});
  uint64_t backing = 0, page = 0;
  std::string reason = ReadNumber("within's backing", word.substr(0, dot), 0, kMaxBackings - 1, backing);
  if (reason.empty()) reason = ReadNumber("within's page", word.substr(dot + 1), 1, kMaxPages - 1, page);
  static_cast<Op*>(object)->within = static_cast<uint8_t>(1 + backing * (kMaxPages - 1) + page - 1);
  return reason;
}

// Left out where it counts for nothing: `seen`, or bytes that are there already.
std::string WriteValue(const void* object) {
  const Op& op = *static_cast<const Op*>(object);
  return op.value == 0 && (op.seen || op.within != 0) ? "" : trace::HexText(op.value);
}
std::string ReadValue(std::string_view word, void* object) {
  return ReadNumber("value", word, 0, ~uint64_t{0}, static_cast<Op*>(object)->value);
}

std::string BitsText(bool read, bool write, bool execute) { return {read ? 'r' : '-', write ? 'w' : '-', execute ? 'x' : '-'}; }

// rwx, with '-' for an access that is not meant.
std::string ReadBits(std::string_view word, bool& read, bool& write, bool& execute) {
  bool* const bits[] = {&read, &write, &execute};
  constexpr std::string_view kAll = "rwx";
  for (size_t i = 0; i < kAll.size(); ++i) {
    if (word.size() != kAll.size() || (word[i] != kAll[i] && word[i] != '-')) {
      return Cat({Quoted(word), " is not like rwx, with - for an access that is not meant"});
    }
    *bits[i] = word[i] != '-';
  }
  return "";
}

std::string WritePages(const void* object) {
  const Backing& backing = *static_cast<const Backing*>(object);
  return backing.present ? std::to_string(backing.pages) : "";
}
std::string ReadPages(std::string_view word, void* object) {
  uint64_t pages = 0;
  std::string reason = ReadNumber("pages", word, 1, kMaxPages, pages);
  static_cast<Backing*>(object)->pages = static_cast<uint8_t>(pages);
  return reason;
}

std::string WriteNull(const void* object) {
  const auto& null = static_cast<const Backing*>(object)->null_bitmap;
  return null[0] || null[1] || null[2] ? BitsText(null[0], null[1], null[2]) : "";
}
std::string ReadNull(std::string_view word, void* object) {
  auto& null = static_cast<Backing*>(object)->null_bitmap;
  return ReadBits(word, null[0], null[1], null[2]);
}

constexpr std::string_view kStates[kPageStates] = {"ram", "read_only", "hole", "bus"};

// state or state:rwx
template <size_t kPage>
std::string WritePage(const void* object) {
  const PageSetup& page = static_cast<const Backing*>(object)->page[kPage];
  if (page == PageSetup{}) return "";
  const bool all = page.readable && page.writable && page.executable;
  return std::string(Name(page.state)) + (all ? "" : ":" + BitsText(page.readable, page.writable, page.executable));
}
template <size_t kPage>
std::string ReadPage(std::string_view word, void* object) {
  PageSetup& page = static_cast<Backing*>(object)->page[kPage];
  const size_t colon = std::min(word.find(':'), word.size());
  uint64_t state = 0;
  std::string reason = trace::ReadName("page state", word.substr(0, colon), kStates, state);
  page.state = static_cast<PageState>(state);
  return !reason.empty() || colon == word.size() ? reason : ReadBits(word.substr(colon + 1), page.readable, page.writable, page.executable);
}

std::string WriteRegions(const void* object) {
  const uint8_t pages = static_cast<const World*>(object)->region_pages;
  return pages == 0 ? "single_region" : "region_pages=" + std::to_string(pages);
}
std::string ReadRegions(std::string_view word, void* object) {
  constexpr std::string_view kKey = "region_pages=";
  if (word == "single_region") return "";
  if (!word.starts_with(kKey)) return Cat({"unknown word ", Quoted(word), "; expected 'single_region' or 'region_pages=' 1, 2 or 4"});
  uint64_t pages = 0;
  std::string reason = ReadNumber("region_pages", word.substr(kKey.size()), 1, kMaxPages, pages);
  if (reason.empty() && std::ranges::find(kRegionPages, pages) == std::end(kRegionPages)) {
    return Cat({"region_pages ", word.substr(kKey.size()), " is not a power of two; expected 'single_region' or 'region_pages=' 1, 2 or 4"});
  }
  static_cast<World*>(object)->region_pages = static_cast<uint8_t>(pages);
  return reason;
}

// ------------------------------------------------------------------ fields

template <auto kMember, int kFirst = 0>
constexpr trace::Number In = NumberOf<Op, kMember, kFirst>();

// The names of an enumeration's values, in their order.
template <typename Enum, size_t N>
consteval std::array<std::string_view, N> Names(const std::string_view (&list)[N]) {
  static_assert(trace::IsEnumerator<Enum, static_cast<Enum>(N - 1)>() && !trace::IsEnumerator<Enum, static_cast<Enum>(N)>());
  return std::to_array(list);
}
constexpr auto kTransfers = Names<TransferForm>({"plain", "atomic"}); constexpr auto kExchangeForms = Names<ExchangeForm>({"typed", "bytes"});
constexpr auto kViewForms = Names<ViewForm>({"late", "preemptive"}); constexpr auto kFillForms = Names<FillForm>({"value", "zero"});
constexpr auto kStreamForms = Names<StreamForm>({"guest", "host"}); constexpr auto kLimitForms = Names<LimitForm>({"add", "drop"});
constexpr auto kLockForms = Names<LockForm>({"device", "kernel"}); constexpr auto kHostForms = Names<HostForm>({"buffer", "next_span"});
constexpr auto kFileForms = Names<FileForm>({"read_only", "writable"}); constexpr auto kSparseForms = Names<SparseForm>({"open", "guarded"});
constexpr auto kCreateForms = Names<CreateForm>({"one", "regions"}); constexpr auto kHoldForms = Names<HoldForm>({"lock", "unlock"});
constexpr auto kExchanges = Names<ExchangeSizes>({"exact", "unequal", "odd"}); constexpr auto kBuffers = Names<BufferSize>({"exact", "longer", "shorter"});
constexpr auto kBits = Names<Bit>({"clear", "set"}); constexpr auto kProtections = Names<Protection>({"none", "read", "read_write"});
constexpr auto kCopies = Names<Copy>({"copy_to", "copy_from", "fill", "at"}); constexpr auto kAdvices = Names<Advice>({"advised", "refused"});
constexpr auto kNodes = Names<Node>({"first", "missing", "beyond"});
constexpr auto kMades = Names<Made>({"empty", "heap", "shared", "sparse", "bitmap", "bare"});
constexpr auto kPromises = Names<Promise>({"honest", "null", "size", "mapping", "bit_offset"});
constexpr auto kInners = Names<Inner>({"shared", "mutable", "take"});
constexpr auto kTries = Names<Trying>({"copy_from", "copy_to", "fill", "read", "write", "exchange"});
constexpr auto kFaults = Names<ForeignFault>({"segv_maperr", "segv_accerr", "segv_pkuerr", "segv_user", "bus_adrerr", "bus_mceerr_ar", "bus_adraln", "trap_brkpt"});
constexpr auto kStarvings = Names<Starving>({"off", "on"});
constexpr uint64_t kPlainSizes[] = {1, 2, 4, 8};
constexpr std::string_view kMasks[] = {"---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"};

// A choice among named things is always written; a form, where it is not the first, and so a number that is not 0.
constexpr Field Choice(std::span<const std::string_view> names) {
  return {.key = "choice", .at = 24, .number = In<&Op::choice>, .spelt = Spelt::kShown, .names = names};
}
constexpr Field Number(std::string_view key, uint64_t count) { return {.key = key, .at = 24, .number = In<&Op::choice>, .count = count}; }
constexpr Field Form(std::span<const std::string_view> names) {
  return {.key = "form", .at = 1, .bit = 6, .bits = 1, .number = In<&Op::form>, .names = names};
}

// What numbers beyond a field's values mean: an address in the world's memory, a page that it has, a length that fits.
uint64_t PagesHere(const void* trace) {
  const World& world = static_cast<const Trace*>(trace)->world;
  return world.region_pages == 0 ? world.backings[0].pages : std::min<uint64_t>(world.region_pages * world.backings.size(), kMaxAddressIndex + 1);
}
template <uint64_t kCount>
constexpr uint64_t First(const void*) { return kCount; }
constexpr uint64_t kLengthsHere = 86;  // from 8 bytes to somewhat less than a page
static_assert(kLengths[8] == 8 && kLengths[kLengthsHere + 7] == 4032);

// In the order of a text. The names are for the kinds' rows below.
enum : uint8_t {
  kAnchor, kIndex, kDelta, kAddress, kGpnList, kTarget, kSlot, kObject,
  kTransfer, kExchangeForm, kViewForm, kFillForm, kStreamForm, kLimitForm, kLockForm, kHostForm, kFileForm, kSparseForm, kCreateForm, kHoldForm,
  kOffset, kBacking, kPage, kCount, kAccess, kLength,
  kBufferLength, kSize, kValueNumber, kValue, kSeen, kDesired,
  kMisalignment, kExchange, kBuffer, kBit, kProtection, kCopy, kFilePage, kAdvice, kNode, kMade, kPromise, kInner, kMask, kTrying, kFault, kStarving,
  kBytes, kWithinNumber, kWithin,
};
constexpr Field kFields[] = {
    {.at = 2, .number = NumberOf<Op, [](Op& op) -> Anchor& { return op.at.anchor; }>(), .spelt = Spelt::kHidden, .count = kAnchors, .here = First<2>},
    {.at = 3, .number = NumberOf<Op, [](Op& op) -> uint8_t& { return op.at.index; }>(), .spelt = Spelt::kHidden, .count = kMaxAddressIndex + 1, .here = PagesHere},
    {.at = 4, .number = NumberOf<Op, [](Op& op) -> int8_t& { return op.at.delta; }, -128>(), .spelt = Spelt::kHidden, .count = 256, .usual = 128},
    {.spelling = {WriteAddress, ReadAddress}, .spelt = Spelt::kBare,
     .what = "an address first: pageN, midN, endN (N up to 15), 2^32, 2^63 or 2^64, each with +D or -D (-128..127) if wanted"},
    {.at = 8, .list = trace::ListOf<Op, &Op::gpns>(), .spelt = Spelt::kBare, .values = kGpns, .usual = 1, .here = PagesHere, .room = 15,
     .most = kMaxGpns, .what = "GPN"},
    {.key = "target", .at = 1, .bit = 0, .bits = 2, .number = In<&Op::target>, .count = kHandles},
    {.key = "slot", .at = 1, .bit = 2, .bits = 2, .number = In<&Op::slot, 1>, .spelt = Spelt::kShown, .count = kHandles - 1, .first = 1},
    {.key = "object", .at = 1, .bit = 4, .bits = 2, .number = In<&Op::object>, .count = kObjects},
    Form(kTransfers), Form(kExchangeForms), Form(kViewForms), Form(kFillForms), Form(kStreamForms), Form(kLimitForms), Form(kLockForms),
    Form(kHostForms), Form(kFileForms), Form(kSparseForms), Form(kCreateForms), Form(kHoldForms),
    {.key = "offset", .at = 25, .number = In<&Op::offset>, .spelt = Spelt::kNeeded, .values = kOffsets, .here = First<7>},
    {.key = "backing", .at = 7, .bit = 0, .bits = 2, .number = In<&Op::backing>, .count = kMaxBackings},
    {.key = "page", .at = 7, .bit = 2, .bits = 2, .number = In<&Op::page>, .spelt = Spelt::kShown, .count = kMaxPages},
    {.key = "count", .at = 7, .bit = 4, .bits = 3, .number = In<&Op::count>, .spelt = Spelt::kShown, .count = kMaxPages + 1, .usual = 1},
    {.key = "access", .at = 6, .bit = 2, .bits = 2, .number = In<&Op::access>, .spelt = Spelt::kShown, .names = kAccessNames},
    {.key = "length", .at = 5, .number = In<&Op::length>, .spelt = Spelt::kNeeded, .values = kLengths, .usual = 8, .here = First<kLengthsHere>},
    {.key = "length", .at = 5, .number = In<&Op::length>, .spelt = Spelt::kNeeded, .values = {kLengths, kBufferLengths}, .usual = 8, .here = First<kLengthsHere>},
    {.key = "size", .at = 6, .bit = 0, .bits = 2, .number = In<&Op::size>, .spelt = Spelt::kNeeded, .values = kPlainSizes},
    {.key = "value", .at = 8, .bits = 64, .number = In<&Op::value>, .spelt = Spelt::kHidden},
    {.key = "value", .spelling = {WriteValue, ReadValue}},
    {.key = "seen", .at = 1, .bit = 7, .bits = 1, .number = In<&Op::seen>, .spelt = Spelt::kFlag, .count = 2},
    {.key = "desired", .at = 16, .bits = 64, .number = In<&Op::desired>, .spelt = Spelt::kShown},
    Number("misaligned", kMisalignments),
    Choice(kExchanges), Choice(kBuffers), Choice(kBits), Choice(kProtections), Choice(kCopies), Number("file_page", kMaxPages), Choice(kAdvices),
    Choice(kNodes), Choice(kMades), Choice(kPromises), Choice(kInners),
    {.key = "mask", .at = 24, .number = In<&Op::choice>, .spelt = Spelt::kShown, .names = kMasks},
    Choice(kTries), Choice(kFaults), Choice(kStarvings),
    {.key = "bytes", .at = 26, .number = In<&Op::bytes>, .spelt = Spelt::kNeeded, .values = kSizes},
    {.at = 27, .number = In<&Op::within>, .spelt = Spelt::kHidden, .count = kHostPlaces + 1, .seldom = true},
    {.key = "within", .spelling = {WriteWithin, ReadWithin}},
};
static_assert(std::size(kFields) == kWithin + 1);

constexpr uint64_t kAt = Of(kAnchor, kIndex, kDelta, kAddress), kWord = Of(kValueNumber, kValue), kHost = Of(kWithinNumber, kWithin);
constexpr uint64_t kPages = Of(kBacking, kPage, kCount);

// ------------------------------------------------------------------ kinds

constexpr trace::Kind Row(StepKind kind, uint32_t group, std::string_view name, uint64_t fields) {
  return {static_cast<uint8_t>(kind), name, fields, group};
}

constexpr trace::Kind kOps[] = {
    Row(StepKind::kRead, group::kAccess, "read", Of(kTarget, kBufferLength, kMisalignment, kTransfer) | kAt | kHost),
    Row(StepKind::kWrite, group::kAccess, "write", Of(kTarget, kBufferLength, kMisalignment, kTransfer) | kAt | kWord | kHost),
    Row(StepKind::kFill, group::kAccess, "fill", Of(kTarget, kLength) | kAt | kWord),
    Row(StepKind::kReadPlain, group::kAccess, "read_plain", Of(kTarget, kSize) | kAt),
    Row(StepKind::kWritePlain, group::kAccess, "write_plain", Of(kTarget, kSize) | kAt | kWord),
    Row(StepKind::kCompareExchange, group::kAccess, "compare_exchange", Of(kTarget, kSize, kSeen, kDesired, kExchangeForm, kExchange) | kAt | kWord),
    Row(StepKind::kProbeReadable, group::kProbes, "probe_readable", Of(kTarget, kLength) | kAt),
    Row(StepKind::kProbeWritable, group::kProbes, "probe_writable", Of(kTarget, kLength) | kAt),
    Row(StepKind::kProbeExecutable, group::kProbes, "probe_executable", Of(kTarget, kLength) | kAt),
    Row(StepKind::kProbeGpns, group::kProbes, "probe_gpns", Of(kTarget, kGpnList)),
    Row(StepKind::kFullMapping, group::kProbes, "full_mapping", Of(kTarget)),
    Row(StepKind::kIova, group::kProbes, "iova", Of(kTarget) | kAt),
    Row(StepKind::kSubrange, group::kViews, "subrange", Of(kTarget, kSlot, kLength, kViewForm) | kAt),
    Row(StepKind::kSetBit, group::kBits, "set_bit", Of(kBacking, kPage, kAccess, kBit)),
    Row(StepKind::kAllocate, group::kMappings, "allocate", kPages),
    Row(StepKind::kMapZero, group::kMappings, "map_zero", kPages),
    Row(StepKind::kProtect, group::kMappings, "protect", kPages | Of(kProtection)),
    Row(StepKind::kUnmap, group::kMappings, "unmap", kPages),
    Row(StepKind::kRangeSet, group::kRanges, "range_set", Of(kObject, kOffset, kLength, kGpnList)),
    Row(StepKind::kRangeAppend, group::kRanges, "range_append", Of(kObject, kOffset, kLength, kGpnList)),
    Row(StepKind::kRangeSkip, group::kRanges, "range_skip", Of(kObject, kLength)),
    Row(StepKind::kRangeTruncate, group::kRanges, "range_truncate", Of(kObject, kLength)),
    Row(StepKind::kRangeSubrange, group::kRanges, "range_subrange", Of(kObject, kOffset, kLength)),
    Row(StepKind::kRangeSplit, group::kRanges, "range_split", Of(kObject, kSlot, kLength)),
    Row(StepKind::kRangeIterate, group::kRanges, "range_iterate", Of(kObject)),
    Row(StepKind::kRangeRead, group::kRangeAccess, "range_read", Of(kTarget, kObject, kTransfer, kBuffer) | kHost),
    Row(StepKind::kRangeWrite, group::kRangeAccess, "range_write", Of(kTarget, kObject, kTransfer, kBuffer) | kWord | kHost),
    Row(StepKind::kRangeFill, group::kRangeAccess, "range_fill", Of(kTarget, kObject, kFillForm) | kWord),
    Row(StepKind::kReaderOpen, group::kStreams, "reader_open", Of(kTarget, kObject, kStreamForm, kBufferLength) | kWord),
    Row(StepKind::kReaderLimit, group::kStreams, "reader_limit", Of(kObject, kLimitForm, kLength)),
    Row(StepKind::kReaderRead, group::kStreamAccess, "reader_read", Of(kObject, kBufferLength)),
    Row(StepKind::kReaderSkip, group::kStreams, "reader_skip", Of(kObject, kLength)),
    Row(StepKind::kReaderPlain, group::kStreamAccess, "reader_plain", Of(kObject, kSize)),
    Row(StepKind::kReaderArray, group::kStreamAccess, "reader_array", Of(kObject, kSize, kLength)),
    Row(StepKind::kReaderAll, group::kStreamAccess, "reader_all", Of(kObject)),
    Row(StepKind::kWriterOpen, group::kStreams, "writer_open", Of(kTarget, kObject, kStreamForm, kBufferLength)),
    Row(StepKind::kWriterLimit, group::kStreams, "writer_limit", Of(kObject, kLimitForm, kLength)),
    Row(StepKind::kWriterWrite, group::kStreamAccess, "writer_write", Of(kObject, kBufferLength) | kWord),
    Row(StepKind::kWriterFill, group::kStreamAccess, "writer_fill", Of(kObject, kLength) | kWord),
    Row(StepKind::kWriterPlain, group::kStreamAccess, "writer_plain", Of(kObject, kSize) | kWord),
    Row(StepKind::kLockGpns, group::kLocks, "lock_gpns", Of(kTarget, kObject, kGpnList, kAccess, kLockForm)),
    Row(StepKind::kLockRange, group::kLocks, "lock_range", Of(kTarget, kObject, kOffset, kLength, kGpnList, kAccess)),
    Row(StepKind::kUnlock, group::kLocks, "unlock", Of(kObject)),
    Row(StepKind::kLockedCopy, group::kLocks, "locked_copy", Of(kObject, kCount, kOffset, kBufferLength, kCopy, kHostForm) | kWord),
    Row(StepKind::kSupportsLocking, group::kViews, "supports_locking", Of(kTarget)),
    Row(StepKind::kLockableSubrange, group::kViews, "lockable_subrange", Of(kTarget, kSlot, kLength) | kAt),
    Row(StepKind::kMapFile, group::kMappings, "map_file", kPages | Of(kFilePage, kFileForm)),
    Row(StepKind::kDecommit, group::kMappings, "decommit", kPages),
    Row(StepKind::kAdviseHugePages, group::kMappings, "advise_huge_pages", kPages | Of(kAdvice)),
    Row(StepKind::kBindToNode, group::kMappings, "bind_to_node", kPages | Of(kNode)),
    Row(StepKind::kUnmapBytes, group::kMappings, "unmap_bytes", Of(kBacking, kOffset, kLength)),
    Row(StepKind::kMapFileBytes, group::kMappings, "map_file_bytes", Of(kBacking, kOffset, kLength)),
    Row(StepKind::kMake, group::kMaking, "make", Of(kSlot, kBytes, kSparseForm, kMade) | kWord),
    Row(StepKind::kCreate, group::kMaking, "create", Of(kSlot, kBacking, kBytes, kCreateForm, kPromise)),
    Row(StepKind::kSharing, group::kMaking, "sharing", Of(kTarget)),
    Row(StepKind::kInnerBuffer, group::kMaking, "inner_buffer", Of(kTarget, kInner) | kWord),
    Row(StepKind::kRevoke, group::kBits, "revoke", kPages | Of(kMask)),
    Row(StepKind::kGrant, group::kBits, "grant", kPages | Of(kMask)),
    Row(StepKind::kWaitUnlocked, group::kLocks, "wait_unlocked", kPages),
    Row(StepKind::kHold, group::kLocks, "hold", Of(kBacking, kGpnList, kHoldForm)),
    Row(StepKind::kTry, group::kTrap, "try", Of(kBacking, kPage, kOffset, kBufferLength, kSize, kDesired, kTransfer, kTrying) | kWord),
    Row(StepKind::kForeignFault, group::kTrap, "foreign_fault", Of(kFault)),
    Row(StepKind::kMove, group::kViews, "move", Of(kTarget, kSlot)),
    Row(StepKind::kStarve, group::kShortage, "starve", Of(kStarving)),
};
static_assert(trace::AreKindsOf<StepKind>(kOps));

// ------------------------------------------------------------------ the world

constexpr std::string_view kHandlerNames[kHandlerAnswers] = {"default", "fail", "fail_ok", "fail_no_fallback", "fail_elsewhere", "retry",
                                                             "fix_retry", "fix_all_retry", "refuse_retry", "vanish_retry", "fallback", "refuse_last_retry"};
constexpr std::string_view kFallbackNames[kFallbackAnswers] = {"do", "none", "fail", "fail_moved", "fail_at", "fail_outside", "fail_blank",
                                                               "fail_foreign", "fail_ok_result"};
constexpr std::string_view kLockNames[kLockAnswers] = {"ok", "fail", "fail_not_mapped", "fail_at", "fail_outside", "fail_foreign"};
constexpr std::string_view kSubrangeNames[kSubrangeAnswers] = {"default", "own", "wrong_size", "fail", "fail_at", "fail_outside", "fail_below",
                                                               "fail_foreign", "fail_ok_result"};
constexpr std::string_view kSharingNames[kSharings] = {"none", "whole", "parts", "wild"};
constexpr std::string_view kErrorNames[kHostErrors] = {"ENOMEM", "EACCES", "EBADF", "EFAULT", "EINVAL", "ENODEV", "ENOSYS", "EOPNOTSUPP", "EOVERFLOW", "EPERM"};

template <auto kMember>
constexpr Field Script(std::span<const std::string_view> names, size_t most) {
  return {.at = 1, .list = trace::ListOf<World, kMember>(), .spelt = Spelt::kBare, .names = names, .room = kRecordBytes - 2, .most = most, .what = "answer"};
}
constexpr Field kHandlerFields[] = {Script<&World::handler>(kHandlerNames, kMaxHandlerAnswers)};
constexpr Field kFallbackFields[] = {Script<&World::fallback>(kFallbackNames, kMaxFallbackAnswers)};
constexpr Field kLockFields[] = {Script<&World::lock>(kLockNames, kMaxLockAnswers)};
constexpr Field kSubrangeFields[] = {Script<&World::subrange>(kSubrangeNames, kMaxSubrangeAnswers)};

// What a flag says is the odd state; the index 1 stands for it.
template <auto kMember, bool kOdd>
constexpr Field Flag(std::string_view key, uint8_t at, uint8_t bit) {
  return {.key = key, .at = at, .bit = bit, .bits = 1,
          .number = {[](const void* o) { return uint64_t{trace::Reach<Backing, kMember>(o) == kOdd}; },
                     [](void* o, uint64_t index) { trace::Reach<Backing, kMember>(o) = (index == 1) == kOdd; }},
          .spelt = Spelt::kFlag, .count = 2};
}
template <auto kMember, bool kOdd>
constexpr Field HiddenFlag(uint8_t at, uint8_t bit) {
  Field field = Flag<kMember, kOdd>("", at, bit);
  field.spelt = Spelt::kHidden;
  return field;
}
template <size_t kPage>
constexpr Field State() {
  return {.key = kPage == 0 ? "state0" : kPage == 1 ? "state1" : kPage == 2 ? "state2" : "state3", .at = 8 + kPage, .bits = 2, .number = NumberOf<Backing, [](Backing& b) -> PageState& { return b.page[kPage].state; }>(),
          .spelt = Spelt::kHidden, .count = kPageStates};
}
template <size_t kPage>
constexpr Field Readable() { return HiddenFlag<[](Backing& b) -> bool& { return b.page[kPage].readable; }, false>(8 + kPage, 2); }
template <size_t kPage>
constexpr Field Writable() { return HiddenFlag<[](Backing& b) -> bool& { return b.page[kPage].writable; }, false>(8 + kPage, 3); }
template <size_t kPage>
constexpr Field Executable() { return HiddenFlag<[](Backing& b) -> bool& { return b.page[kPage].executable; }, false>(8 + kPage, 4); }
template <size_t kPage>
constexpr Field PageText(std::string_view key) { return {.key = key, .spelling = {WritePage<kPage>, ReadPage<kPage>}}; }
template <size_t kAccess>
constexpr Field Null() { return HiddenFlag<[](Backing& b) -> bool& { return b.null_bitmap[kAccess]; }, true>(6, 3 + kAccess); }

constexpr Field kBackingFields[] = {
    Flag<&Backing::present, false>("absent", 1, 0),
    {.at = 3, .bits = 2, .number = NumberOf<Backing, &Backing::pages, 1>(), .spelt = Spelt::kHidden, .count = kMaxPages, .first = 1, .usual = 2},
    {.key = "pages", .spelling = {WritePages, ReadPages}},
    {.key = "trim", .at = 4, .bits = 12, .number = NumberOf<Backing, &Backing::trim>(), .count = kPageSize},
    Flag<&Backing::mapped, false>("unmapped", 1, 1), Flag<&Backing::has_iova, true>("iova", 1, 3),
    Flag<&Backing::lockable, false>("unlockable", 1, 4), Flag<&Backing::fickle, true>("fickle", 1, 5),
    Flag<&Backing::wrapped, true>("wrapped", 1, 6), Flag<&Backing::sparse, true>("sparse", 2, 0), Flag<&Backing::has_bitmap, true>("bitmap", 1, 2),
    Flag<&Backing::managed, true>("managed", 1, 7),
    {.key = "offset", .at = 6, .bits = 3, .number = NumberOf<Backing, &Backing::bit_offset>(), .count = 8},
    Null<0>(), Null<1>(), Null<2>(),
    {.key = "null", .spelling = {WriteNull, ReadNull}},
    {.key = "sharing", .at = 7, .bits = 2, .number = NumberOf<Backing, &Backing::sharing>(), .names = kSharingNames},
    State<0>(), Readable<0>(), Writable<0>(), Executable<0>(), PageText<0>("page0"),
    State<1>(), Readable<1>(), Writable<1>(), Executable<1>(), PageText<1>("page1"),
    State<2>(), Readable<2>(), Writable<2>(), Executable<2>(), PageText<2>("page2"),
    State<3>(), Readable<3>(), Writable<3>(), Executable<3>(), PageText<3>("page3"),
};
constexpr Field kWorldFields[] = {
    {.key = "region_pages", .at = 1, .bits = 2,
     .number = {[](const void* o) { return static_cast<uint64_t>(std::ranges::find(kRegionPages, static_cast<const World*>(o)->region_pages) - kRegionPages); },
                [](void* o, uint64_t index) { static_cast<World*>(o)->region_pages = kRegionPages[index]; }},
     .spelt = Spelt::kHidden, .count = std::size(kRegionPages)},
    {.spelling = {WriteRegions, ReadRegions}, .spelt = Spelt::kBare, .what = "single_region, or region_pages= 1, 2 or 4"},
};
constexpr Field kFailingFields[] = {
    {.key = "fail_host_call", .at = 1, .number = NumberOf<World, &World::failing_host_call>(), .spelt = Spelt::kBare, .count = kMaxFailingHostCall + 1,
     .seldom = true, .what = "a number, and perhaps an errno"},
    {.key = "errno", .at = 2, .number = NumberOf<World, &World::host_error>(), .spelt = Spelt::kBare, .names = kErrorNames},
};

constexpr uint64_t All(size_t count) { return (uint64_t{1} << count) - 1; }
constexpr trace::Kind kWorldKind[] = {{0xf0, "world", Of(0, 1)}};
constexpr trace::Kind kBackingKind[] = {{0xf1, "backing", All(std::size(kBackingFields))}};
constexpr trace::Kind kHandlerKind[] = {{0xf2, "handler", Of(0)}};
constexpr trace::Kind kFallbackKind[] = {{0xf3, "fallback", Of(0)}};
constexpr trace::Kind kLockKind[] = {{0xf4, "lock", Of(0)}};
constexpr trace::Kind kSubrangeKind[] = {{0xf5, "subrange", Of(0)}};
constexpr trace::Kind kFailingKind[] = {{0xf6, "fail_host_call", Of(0, 1)}};

std::string RefuseWorld(std::span<const std::string_view>, const void* trace) {
  return static_cast<const Trace*>(trace)->world.backings.empty() ? "" : "'world' comes before the backings";
}
std::string RefuseBacking(std::span<const std::string_view> words, const void* trace) {
  const World& world = static_cast<const Trace*>(trace)->world;
  if (world.region_pages != 0) return "";
  if (world.backings.size() == 1 && words.size() > 1 && words[1] == "1") return "a single_region world has one backing; 'world region_pages=' 1, 2 or 4 makes room for more";
  return std::ranges::find(words, "absent") == words.end() ? "" : "the backing of a single_region world can't be absent";
}

constexpr auto kWorldOf = trace::OneOf<Trace, &Trace::world>();
constexpr trace::Section kSections[] = {
    {.fields = kWorldFields, .kinds = kWorldKind, .place = kWorldOf, .refuse = RefuseWorld},
    {.fields = kBackingFields, .kinds = kBackingKind, .place = trace::ManyOf<Trace, [](Trace& t) -> auto& { return t.world.backings; }>(),
     .least = 1, .most = kMaxBackings,
     .room = [](const void* trace) { return static_cast<const Trace*>(trace)->world.region_pages == 0 ? size_t{1} : size_t{kMaxBackings}; },
     .normal = [](void* object, const void* trace) { NormalBacking(*static_cast<Backing*>(object), static_cast<const Trace*>(trace)->world.region_pages); },
     .refuse = RefuseBacking, .numbered = true},
    {.fields = kHandlerFields, .kinds = kHandlerKind, .place = kWorldOf},
    {.fields = kFallbackFields, .kinds = kFallbackKind, .place = kWorldOf},
    {.fields = kLockFields, .kinds = kLockKind, .place = kWorldOf},
    {.fields = kSubrangeFields, .kinds = kSubrangeKind, .place = kWorldOf},
    {.fields = kFailingFields, .kinds = kFailingKind, .place = kWorldOf,
     .normal = [](void* object, const void*) {
       World& world = *static_cast<World*>(object);
       if (world.failing_host_call == 0) world.host_error = HostError();
     }},
    {.fields = kFields, .kinds = kOps, .place = trace::ManyOf<Trace, &Trace::ops>(), .kind = NumberOf<Op, &Op::kind>(), .most = kMaxOps,
     .normal = [](void* object, const void*) { NormalOp(*static_cast<Op*>(object)); }},
};
static_assert(trace::Fits(kSections, kRecordBytes));
constexpr trace::Table kTable = trace::TableOf(kSections);
constexpr trace::Schema kRows = {"guestmem trace 1", kRecordBytes, kSections, &kTable};

// ------------------------------------------------------------------ worlds that a profile keeps to

using trace::OnlyOf;
constexpr uint64_t kFirstIndex = 1, kSecondIndex = 2, kAnyIndex = ~uint64_t{0};
constexpr uint64_t kNotVanishing = ~(uint64_t{1} << static_cast<int>(HandlerAnswer::kVanishRetry));
constexpr trace::Only kAllThere[] = {
    OnlyOf(kSections, "backing", "state0", kFirstIndex), OnlyOf(kSections, "backing", "state1", kFirstIndex),
    OnlyOf(kSections, "backing", "state2", kFirstIndex), OnlyOf(kSections, "backing", "state3", kFirstIndex),
    OnlyOf(kSections, "handler", "answer", kNotVanishing & All(kHandlerAnswers)),
};
constexpr trace::Only kFailing[] = {
    OnlyOf(kSections, "backing", "fickle", kSecondIndex),
    OnlyOf(kSections, "handler", "answer", kAnyIndex, 1, static_cast<uint8_t>(HandlerAnswer::kFailElsewhere)),
    OnlyOf(kSections, "fallback", "answer", kAnyIndex, 1, static_cast<uint8_t>(FallbackAnswer::kFailMoved)),
    OnlyOf(kSections, "lock", "answer", kAnyIndex, 1, static_cast<uint8_t>(LockAnswer::kFailAt)),
    OnlyOf(kSections, "subrange", "answer", kAnyIndex, 1, static_cast<uint8_t>(SubrangeAnswer::kWrongSize)),
};
constexpr trace::Only kSeveralRegions[] = {
    OnlyOf(kSections, "world", "region_pages", All(std::size(kRegionPages)) & ~kFirstIndex), OnlyOf(kSections, "backing", "", kAnyIndex, 2),
};
constexpr trace::Only kBareMappings[] = {
    OnlyOf(kSections, "backing", "unmapped", kFirstIndex), OnlyOf(kSections, "backing", "bitmap", kFirstIndex),
};

}  // namespace

std::span<const trace::Only> WorldsOf(Worlds worlds) {
  switch (worlds) {
    case Worlds::kAny: break;
    case Worlds::kAllThere: return kAllThere;
    case Worlds::kFailing: return kFailing;
    case Worlds::kSeveralRegions: return kSeveralRegions;
    case Worlds::kBareMappings: return kBareMappings;
  }
  return {};
}

const trace::Schema& Rows() { return kRows; }
const trace::Kind& RowOf(StepKind kind) { return kOps[static_cast<size_t>(kind) % std::size(kOps)]; }

bool HasSize(StepKind kind) { return (RowOf(kind).fields >> kSize & 1) != 0; }

bool HasField(StepKind kind, std::string_view key) {
  for (size_t i = 0; i < std::size(kFields); ++i) {
    if (kFields[i].key == key && (RowOf(kind).fields >> i & 1) != 0) return true;
  }
  return false;
}

}  // namespace reference
