// The rows, and what an op means in a world.

#include "reference/schedule/trace.h"

#include <algorithm>
#include <iterator>

#include "reference/trace/kinds_check.h"
#include "reference/trace/words.h"

namespace reference::schedule {
namespace {

using trace::NumberOf;
using trace::Of;
using trace::Spelt;

constexpr std::string_view kMembarriers[] = {"here", "refused"};
constexpr std::string_view kAnswerNames[] = {"fail", "retry", "grant", "restore", "revoke_other", "retry_forever"};
static_assert(std::size(kAnswerNames) == kAnswers);
constexpr uint64_t kCellValues[] = {kCells[0], kCells[1], kCells[2], kCells[3]};
constexpr uint64_t kSizes[] = {1, 2, 4, 8};
constexpr uint64_t kLengthValues[] = {8, 1, 16, 24, 2048, 4096, 4104, 8192, 12288};
static_assert(std::ranges::equal(kLengthValues, kLengths) && std::size(kCells) == kCellCount);
constexpr std::string_view kAccesses[] = {"read", "write", "both"};
constexpr std::string_view kSides[] = {"read", "write"};
constexpr std::string_view kRetirings[] = {"poison", "unmap"};

// rw, with - for what is refused.
std::string WriteRights(const void* object) {
  const Page& page = *static_cast<const Page*>(object);
  return {page.readable ? 'r' : '-', page.writable ? 'w' : '-'};
}
std::string ReadRights(std::string_view word, void* object) {
  Page& page = *static_cast<Page*>(object);
  if (word.size() != 2 || (word[0] != 'r' && word[0] != '-') || (word[1] != 'w' && word[1] != '-')) {
    return trace::Quoted(word) + " is not one of rw r- -w --";
  }
  page.readable = word[0] == 'r';
  page.writable = word[1] == 'w';
  return "";
}

void NormalPage(void* object, const void*) {
  Page& page = *static_cast<Page*>(object);
  page.missing = page.missing && !page.hole;
}

// Into the range of the world.
void NormalOp(void* object, const void* trace) {
  Op& op = *static_cast<Op*>(object);
  const Trace& world = *static_cast<const Trace*>(trace);
  op.thread = static_cast<uint8_t>(op.thread % world.threads);
  op.page = static_cast<uint8_t>(op.page % world.pages.size());
  op.part = static_cast<uint8_t>(op.part >> op.size << op.size);
  op.count = static_cast<uint8_t>(std::min<size_t>(op.count, world.pages.size() - op.page));
}

constexpr trace::Field kThreads[] = {{.key = "threads", .at = 1, .bits = 1, .number = NumberOf<Trace, &Trace::threads, 2>(),
                                      .spelt = Spelt::kBare, .count = 2, .first = 2, .what = "a number"}};
// The index 0 is true.
constexpr trace::Field kMembarrier[] = {
    {.key = "membarrier", .at = 1, .bits = 1, .number = {[](const void* t) { return uint64_t{!static_cast<const Trace*>(t)->membarrier}; },
                                                           [](void* t, uint64_t i) { static_cast<Trace*>(t)->membarrier = i == 0; }},
     .spelt = Spelt::kBare, .names = kMembarriers, .what = "the word refused"}};
constexpr trace::Field kPage[] = {
    {.at = 1, .bit = 0, .bits = 1, .number = NumberOf<Page, &Page::readable>(), .spelt = Spelt::kHidden, .count = 2, .usual = 1},
    {.at = 1, .bit = 1, .bits = 1, .number = NumberOf<Page, &Page::writable>(), .spelt = Spelt::kHidden, .count = 2, .usual = 1},
    {.spelling = {WriteRights, ReadRights}, .spelt = Spelt::kBare, .what = "one of rw r- -w --"},
    {.key = "missing", .at = 1, .bit = 2, .bits = 1, .number = NumberOf<Page, &Page::missing>(), .spelt = Spelt::kFlag, .count = 2},
    {.key = "hole", .at = 1, .bit = 3, .bits = 1, .number = NumberOf<Page, &Page::hole>(), .spelt = Spelt::kFlag, .count = 2},
};
constexpr trace::Field kHandler[] = {{.at = 1, .list = trace::ListOf<Trace, &Trace::answers>(), .spelt = Spelt::kBare, .names = kAnswerNames,
                                      .room = kRecordBytes - 2, .most = kMaxAnswers, .what = "answer"}};
constexpr trace::Field kChoices[] = {{.at = 1, .list = trace::ListOf<Trace, &Trace::choices>(), .spelt = Spelt::kBare, .count = kChoiceValues,
                                      .runs = true, .room = kRecordBytes - 2, .most = kMaxChoices, .what = "choice"}};

enum : uint8_t { kThread, kOpPage, kCount, kCell, kSize, kPart, kLength, kBits, kSide, kRetiring };
constexpr trace::Field kOpFields[] = {
    {.key = "thread", .at = 1, .bit = 0, .bits = 2, .number = NumberOf<Op, &Op::thread>(), .spelt = Spelt::kPrefix, .count = kMaxThreads, .what = "a thread"},
    {.key = "page", .at = 2, .bit = 0, .bits = 2, .number = NumberOf<Op, &Op::page>(), .spelt = Spelt::kShown, .count = kMaxPages},
    {.key = "count", .at = 2, .bit = 2, .bits = 2, .number = NumberOf<Op, &Op::count, 1>(), .count = kMaxPages, .first = 1},
    {.key = "cell", .at = 2, .bit = 4, .bits = 2, .number = NumberOf<Op, &Op::cell>(), .values = kCellValues},
    {.key = "size", .at = 1, .bit = 2, .bits = 2, .number = NumberOf<Op, &Op::size>(), .values = kSizes, .usual = 3},
    {.key = "part", .at = 1, .bit = 4, .bits = 3, .number = NumberOf<Op, &Op::part>(), .count = 8},
    {.key = "length", .at = 3, .number = NumberOf<Op, &Op::length>(), .values = kLengthValues},
    {.key = "access", .at = 4, .bit = 0, .bits = 2, .number = NumberOf<Op, &Op::access, 1>(), .names = kAccesses, .usual = 2},
    {.key = "access", .at = 4, .bit = 2, .bits = 1, .number = NumberOf<Op, &Op::form>(), .names = kSides},
    {.key = "by", .at = 4, .bit = 2, .bits = 1, .number = NumberOf<Op, &Op::form>(), .names = kRetirings},
};

constexpr uint64_t kPlain = Of(kThread, kOpPage, kCell, kSize, kPart), kBulk = Of(kThread, kOpPage, kCell, kLength);
constexpr trace::Kind Row(OpKind kind, std::string_view name, uint64_t fields) { return {static_cast<uint8_t>(kind), name, fields}; }
constexpr trace::Kind kOps[] = {
    Row(OpKind::kRead, "read", kPlain),
    Row(OpKind::kWrite, "write", kPlain),
    Row(OpKind::kCompareExchange, "compare_exchange", kPlain),
    Row(OpKind::kBulkRead, "bulk_read", kBulk),
    Row(OpKind::kBulkWrite, "bulk_write", kBulk),
    Row(OpKind::kFill, "fill", kBulk),
    Row(OpKind::kRevoke, "revoke", Of(kThread, kOpPage, kCount, kBits)),
    Row(OpKind::kGrant, "grant", Of(kThread, kOpPage, kCount, kBits)),
    Row(OpKind::kRetire, "retire", Of(kThread, kOpPage, kRetiring)),
    Row(OpKind::kRestore, "restore", Of(kThread, kOpPage)),
    Row(OpKind::kLock, "lock", Of(kThread, kOpPage, kSide)),
    Row(OpKind::kTouch, "touch", Of(kThread, kOpPage, kCell, kSide)),
    Row(OpKind::kUnlock, "unlock", Of(kThread, kOpPage)),
    Row(OpKind::kSection, "section", kPlain),
    Row(OpKind::kResolve, "resolve", Of(kThread, kOpPage)),
    Row(OpKind::kWaitUnlocked, "wait_unlocked", Of(kThread, kOpPage, kCount)),
};
static_assert(trace::AreKindsOf<OpKind>(kOps) && !trace::Ordered<OpKind>);

constexpr trace::Kind kThreadsLine[] = {{0xf0, "threads", Of(0)}};
constexpr trace::Kind kMembarrierLine[] = {{0xf1, "membarrier", Of(0)}};
constexpr trace::Kind kPageLine[] = {{0xf2, "page", Of(0, 1, 2, 3, 4)}};
constexpr trace::Kind kHandlerLine[] = {{0xf3, "handler", Of(0)}};
constexpr trace::Kind kChoicesLine[] = {{0xf4, "choices", Of(0)}};
constexpr trace::Section kSections[] = {
    {.fields = kThreads, .kinds = kThreadsLine, .place = trace::Itself<Trace>()},
    {.fields = kMembarrier, .kinds = kMembarrierLine, .place = trace::Itself<Trace>()},
    {.fields = kPage, .kinds = kPageLine, .place = trace::ManyOf<Trace, &Trace::pages>(), .least = 1, .most = kMaxPages, .normal = NormalPage},
    {.fields = kHandler, .kinds = kHandlerLine, .place = trace::Itself<Trace>()},
    {.fields = kChoices, .kinds = kChoicesLine, .place = trace::Itself<Trace>(), .searched = true},
    {.fields = kOpFields, .kinds = kOps, .place = trace::ManyOf<Trace, &Trace::ops>(), .kind = NumberOf<Op, &Op::kind>(), .most = kMaxOps,
     .normal = NormalOp},
};
static_assert(trace::Fits(kSections, kRecordBytes) && std::size(kSections) == kMostWorld - kMaxPages + 2);
constexpr trace::Table kTable = trace::TableOf(kSections);
constexpr trace::Schema kRows = {"guestmem schedule 1", kRecordBytes, kSections, &kTable};
constexpr trace::Only kNoHangs[] = {
    trace::OnlyOf(kSections, "page", "missing", 1),
    trace::OnlyOf(kSections, "handler", "answer", (uint64_t{1} << static_cast<int>(Answer::kRetryForever)) - 1),
};
static_assert(static_cast<int>(Answer::kRetryForever) == kAnswers - 1);

}  // namespace

const trace::Schema& Rows() { return kRows; }
const trace::Profile& WithoutHangs() {
  static constexpr trace::Profile kWithoutHangs = {.world = kNoHangs};
  return kWithoutHangs;
}

Trace FromBytes(std::span<const uint8_t> bytes) { return trace::FromBytes<Trace>(kRows, bytes); }
std::vector<uint8_t> ToBytes(const Trace& trace) { return trace::Encode(kRows, &trace); }
std::string OpText(const Op& op) { return trace::LineText(kRows.ops(), &op); }
std::string ToText(const Trace& trace) { return trace::Text(kRows, &trace); }
std::variant<Trace, TextError> FromText(std::string_view text) { return trace::FromText<Trace>(kRows, text); }

Range RangeOf(const Op& op, size_t pages) {
  constexpr uint64_t kPageBytes = 4096;
  const uint64_t start = op.page * kPageBytes + kCells[op.cell];
  switch (op.kind) {
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kCompareExchange:
    case OpKind::kSection:
      return {start + op.part, uint64_t{1} << op.size};
    case OpKind::kBulkRead:
    case OpKind::kBulkWrite:
    case OpKind::kFill:
      return {start, std::min<uint64_t>(kLengths[op.length], pages * kPageBytes - start)};
    case OpKind::kTouch:
      return {start, 8};
    case OpKind::kRevoke:
    case OpKind::kGrant:
    case OpKind::kWaitUnlocked:
      return {op.page * kPageBytes, op.count * kPageBytes};
    case OpKind::kRetire:
    case OpKind::kRestore:
    case OpKind::kLock:
    case OpKind::kUnlock:
    case OpKind::kResolve:
      break;
  }
  return {op.page * kPageBytes, kPageBytes};
}

}  // namespace reference::schedule
