// The parts of a trace that neither codec owns: names, what an op means in a world, and the normal form.

#include "reference/lockstep/trace.h"

#include <algorithm>
#include <utility>

#include "reference/lockstep/op_fields.h"

namespace reference {
namespace {

constexpr bool TableIsInOrder() {
  for (size_t i = 0; i < kStepKinds; ++i) {
    if (kOpFields[i].kind != static_cast<StepKind>(i)) return false;
  }
  return static_cast<size_t>(StepKind::kStarve) + 1 == kStepKinds;
}
static_assert(TableIsInOrder());
static_assert(kLengthCount < 256 && kGpnCount < 256, "an index is a byte");

template <class Enum, size_t N>
std::string_view NameIn(const std::string_view (&names)[N], Enum value) {
  const auto i = static_cast<size_t>(value);
  return i < N ? names[i] : "?";
}

// The place an address is relative to.
uint64_t AnchorAddress(const World& world, const Address& at) {
  switch (at.anchor) {
    case Anchor::kPage: return at.index * kPageSize;
    case Anchor::kMiddle: return at.index * kPageSize + kPageSize / 2;
    case Anchor::kEnd: {
      if (world.backings.empty()) return 0;
      const size_t i = at.index % world.backings.size();
      const uint64_t start = i * world.region_pages * kPageSize;
      return world.backings[i].present ? start + world.backings[i].max_address() : start;
    }
    case Anchor::k2To32: return uint64_t{1} << 32;
    case Anchor::k2To63: return uint64_t{1} << 63;
    case Anchor::k2To64: return 0;
  }
  return 0;
}

// The answers that come after a script's end change nothing at its end.
template <class Answer>
std::vector<Answer> NormalScript(std::vector<Answer> script, size_t longest, int answers, Answer after_the_end) {
  if (script.size() > longest) script.resize(longest);
  for (Answer& answer : script) answer = static_cast<Answer>(static_cast<int>(answer) % answers);
  while (!script.empty() && script.back() == after_the_end) script.pop_back();
  return script;
}

// Sizes and values that the choice has no use for.
void NormalMake(Op& op) {
  const Made made = static_cast<Made>(op.choice);
  if (made == Made::kEmpty) op.bytes = 0;
  if (made == Made::kHeap || made == Made::kShared) op.bytes %= kSmallSizes;
  // Bits for so many pages can be had on some hosts.
  if (made == Made::kBitmap && kSizes[op.bytes] > uint64_t{1} << 46 && kSizes[op.bytes] < uint64_t{1} << 51) op.bytes = 0;
  if (made != Made::kSparse) op.form = 0;
  if (op.form == 0) op.value = 0;
}

}  // namespace

Step Resolve(const World& world, const Op& op, uint64_t seen) {
  Step step;
  step.kind = op.kind;
  step.target = op.target;
  step.slot = op.slot;
  (void)__builtin_add_overflow(AnchorAddress(world, op.at), op.at.delta, &step.gpa);  // modulo 2^64 by intent
  step.length = kLengths[op.length % kLengthCount];
  step.size = static_cast<uint8_t>(1u << (op.size % 4));
  step.value = op.seen ? seen & ValueMask(op) : op.value;
  step.desired = op.desired;
  step.gpns.reserve(op.gpns.size());
  for (const uint8_t i : op.gpns) step.gpns.push_back(kGpns[i % kGpnCount]);
  step.backing = world.backings.empty() ? uint8_t{0} : static_cast<uint8_t>(op.backing % world.backings.size());
  step.page = op.page;
  step.count = op.count;
  step.choice = op.choice;
  step.access = op.access;
  step.form = op.form;
  step.offset = kOffsets[op.offset % kOffsetCount];
  step.object = op.object;
  step.bytes = kSizes[op.bytes % kSizeCount];
  step.within = op.within;
  return step;
}

uint64_t ValueMask(const Op& op) {
  const OpFields& uses = FieldsOf(op.kind);
  if (op.kind == StepKind::kFill || op.kind == StepKind::kRangeFill || op.kind == StepKind::kWriterFill) return 0xff;
  if (uses.Uses(kFieldSize) && op.size % 4 < 3) return (uint64_t{1} << (8u << (op.size % 4))) - 1;
  return ~uint64_t{0};
}

Op Normal(Op op) {
  const OpFields& uses = FieldsOf(op.kind);
  Op normal;
  normal.kind = uses.kind;
  if (uses.Uses(kFieldTarget)) normal.target = op.target % kHandles;
  if (uses.Uses(kFieldSlot)) normal.slot = static_cast<uint8_t>(1 + (op.slot + kHandles - 2) % (kHandles - 1));
  if (uses.Uses(kFieldAt)) {
    normal.at.anchor = static_cast<Anchor>(static_cast<int>(op.at.anchor) % kAnchors);
    if (HasIndex(normal.at.anchor)) normal.at.index = op.at.index % (kMaxAddressIndex + 1);
    normal.at.delta = op.at.delta;
  }
  if (uses.Uses(kFieldLength)) normal.length = op.length % uses.lengths;
  if (uses.Uses(kFieldSize)) normal.size = op.size % 4;
  if (uses.Uses(kFieldSeen)) normal.seen = op.seen;
  if (uses.Uses(kFieldValue) && !normal.seen) normal.value = op.value & ValueMask(op);
  if (uses.Uses(kFieldDesired)) normal.desired = op.desired & ValueMask(op);
  if (uses.Uses(kFieldGpns)) {
    normal.gpns = std::move(op.gpns);
    normal.gpns.resize(std::min(normal.gpns.size(), kMaxGpns));
    for (uint8_t& i : normal.gpns) i %= kGpnCount;
  }
  if (uses.Uses(kFieldBacking)) normal.backing = op.backing % kMaxBackings;
  if (uses.Uses(kFieldPage)) normal.page = op.page % kMaxPages;
  if (uses.Uses(kFieldCount)) normal.count = op.count % (kMaxPages + 1);
  if (uses.Uses(kFieldChoice)) normal.choice = op.choice % uses.choices;
  if (uses.Uses(kFieldForm)) normal.form = op.form % 2;
  if (uses.Uses(kFieldOffset)) normal.offset = op.offset % kOffsetCount;
  if (uses.Uses(kFieldObject)) normal.object = op.object % kObjects;
  if (uses.Uses(kFieldBytes)) normal.bytes = op.bytes % kSizeCount;
  if (uses.Uses(kFieldWithin)) normal.within = op.within % (kHostPlaces + 1);
  if (uses.Uses(kFieldAccess)) normal.access = static_cast<Access>(static_cast<int>(op.access) % kAccesses);
  if (op.kind == StepKind::kCompareExchange && normal.form == 0) normal.choice = 0;
  if (normal.within != 0) normal.value = 0;  // the bytes are those that are there
  if (op.kind >= StepKind::kRangeRead && op.kind <= StepKind::kRangeWrite && normal.choice != 0) normal.within = 0;
  if (op.kind == StepKind::kMake) NormalMake(normal);
  if (op.kind == StepKind::kCreate && normal.form == 0) normal.bytes = 0;
  if (op.kind == StepKind::kLockedCopy && normal.choice > 1) normal.form = 0;
  return normal;
}

Backing Normal(const Backing& backing, uint8_t region_pages) {
  const bool single = region_pages == 0;
  const auto fits = [&](uint8_t pages) { return single ? pages : std::min(pages, region_pages); };
  Backing normal;
  normal.pages = fits(normal.pages);
  normal.present = backing.present || single;
  if (!normal.present) return normal;
  normal.wrapped = backing.wrapped;
  if (backing.sparse && fits(kMaxPages) == kMaxPages) {
    normal.sparse = true;
    normal.pages = kMaxPages;
    for (size_t i = 0; i < kMaxPages; ++i) normal.page[i].state = static_cast<PageState>(static_cast<int>(backing.page[i].state) % kPageStates);
    return normal;
  }
  normal.mapped = backing.mapped;
  normal.pages = fits(static_cast<uint8_t>(1 + (backing.pages + kMaxPages - 1) % kMaxPages));
  normal.trim = backing.trim % kPageSize;
  normal.has_bitmap = backing.has_bitmap;
  normal.has_iova = backing.has_iova;
  normal.lockable = backing.lockable;
  normal.fickle = backing.fickle;
  normal.managed = backing.managed && backing.has_bitmap;
  normal.sharing = static_cast<Sharing>(static_cast<int>(backing.sharing) % kSharings);
  if (normal.has_bitmap && !normal.managed) {
    normal.bit_offset = backing.bit_offset % 8;
    normal.null_bitmap = backing.null_bitmap;
  }
  const auto bit = [&](bool set, Access access) {
    return set || !normal.has_bitmap || normal.null_bitmap[static_cast<size_t>(access)];
  };
  for (size_t i = 0; i < normal.pages; ++i) {
    normal.page[i].state = static_cast<PageState>(static_cast<int>(backing.page[i].state) % kPageStates);
    normal.page[i].readable = bit(backing.page[i].readable, Access::kRead);
    normal.page[i].writable = bit(backing.page[i].writable, Access::kWrite);
    normal.page[i].executable = bit(backing.page[i].executable, Access::kExecute);
  }
  return normal;
}

World Normal(World world) {
  World normal;
  for (const uint8_t pages : kRegionPages) {
    if (pages <= world.region_pages) normal.region_pages = pages;
  }
  const size_t most = normal.region_pages == 0 ? 1 : kMaxBackings;
  normal.backings = std::move(world.backings);
  normal.backings.resize(std::clamp<size_t>(normal.backings.size(), 1, most));
  for (Backing& backing : normal.backings) backing = Normal(backing, normal.region_pages);
  normal.handler = NormalScript(std::move(world.handler), kMaxHandlerAnswers, kHandlerAnswers, HandlerAnswer::kDefault);
  normal.fallback = NormalScript(std::move(world.fallback), kMaxFallbackAnswers, kFallbackAnswers, FallbackAnswer::kDo);
  normal.lock = NormalScript(std::move(world.lock), kMaxLockAnswers, kLockAnswers, LockAnswer::kOk);
  normal.subrange = NormalScript(std::move(world.subrange), kMaxSubrangeAnswers, kSubrangeAnswers, SubrangeAnswer::kDefault);
  normal.failing_host_call = world.failing_host_call % (kMaxFailingHostCall + 1);
  if (normal.failing_host_call != 0) normal.host_error = static_cast<HostError>(static_cast<int>(world.host_error) % kHostErrors);
  return normal;
}

std::string_view Name(StepKind kind) {
  return static_cast<size_t>(kind) < kStepKinds ? FieldsOf(kind).name : "?";
}

std::string_view Name(ErrorKind kind) {
  static constexpr std::string_view kNames[] = {
      "out_of_range", "access_denied", "not_mapped", "not_lockable", "locked", "no_fallback",
      "invalid_gpn", "misaligned", "invalid_argument", "resource_exhausted", "backend"};
  return NameIn(kNames, kind);
}

std::string_view Name(Operation operation) {
  static constexpr std::string_view kNames[] = {"create", "read", "write", "fill", "compare_exchange",
                                                "lock", "subrange", "probe", "revoke", "none"};
  return NameIn(kNames, operation);
}

std::string_view Name(CallKind kind) {
  static constexpr std::string_view kNames[] = {"page_fault", "read_fallback", "write_fallback", "fill_fallback",
                                                "compare_exchange_fallback", "expose_va", "lock_gpns", "unlock_gpns", "subrange"};
  return NameIn(kNames, kind);
}

std::string_view Name(Access access) {
  static constexpr std::string_view kNames[] = {"read", "write", "execute"};
  return NameIn(kNames, access);
}

std::string_view Name(PageState state) {
  static constexpr std::string_view kNames[] = {"ram", "read_only", "hole", "bus"};
  return NameIn(kNames, state);
}

std::string_view Name(Sharing sharing) {
  static constexpr std::string_view kNames[] = {"none", "whole", "parts", "wild"};
  static_assert(std::size(kNames) == kSharings);
  return NameIn(kNames, sharing);
}

std::string_view Name(HostError error) {
  static constexpr std::string_view kNames[] = {"ENOMEM", "EACCES", "EBADF", "EFAULT", "EINVAL",
                                                "ENODEV", "ENOSYS", "EOPNOTSUPP", "EOVERFLOW", "EPERM"};
  static_assert(std::size(kNames) == kHostErrors);
  return NameIn(kNames, error);
}

std::string_view Name(HandlerAnswer answer) {
  static constexpr std::string_view kNames[] = {
      "default", "fail", "fail_ok", "fail_no_fallback", "fail_elsewhere", "retry",
      "fix_retry", "fix_all_retry", "refuse_retry", "vanish_retry", "fallback", "refuse_last_retry"};
  static_assert(std::size(kNames) == kHandlerAnswers);
  return NameIn(kNames, answer);
}

std::string_view Name(FallbackAnswer answer) {
  static constexpr std::string_view kNames[] = {"do", "none", "fail", "fail_moved", "fail_at", "fail_outside", "fail_blank", "fail_foreign", "fail_ok_result"};
  static_assert(std::size(kNames) == kFallbackAnswers);
  return NameIn(kNames, answer);
}

std::string_view Name(LockAnswer answer) {
  static constexpr std::string_view kNames[] = {"ok", "fail", "fail_not_mapped", "fail_at", "fail_outside", "fail_foreign"};
  static_assert(std::size(kNames) == kLockAnswers);
  return NameIn(kNames, answer);
}

std::string_view Name(SubrangeAnswer answer) {
  static constexpr std::string_view kNames[] = {"default", "own",          "wrong_size", "fail",
                                                "fail_at", "fail_outside", "fail_below", "fail_foreign", "fail_ok_result"};
  static_assert(std::size(kNames) == kSubrangeAnswers);
  return NameIn(kNames, answer);
}

}  // namespace reference
