// What an op means in a world, which numbers others make meaningless, and names.

#include "reference/lockstep/trace.h"

#include <algorithm>
#include <utility>

#include "reference/lockstep/trace_rows.h"

namespace reference {
namespace {

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

// Sizes and values that the choice has no use for.
void NormalMake(Op& op) {
  const Made made = static_cast<Made>(op.choice);
  if (made == Made::kEmpty) op.bytes = 0;
  if (made == Made::kHeap || made == Made::kShared) op.bytes %= kSmallSizes;
  // Bits for so many pages can be had on some hosts.
  if (made == Made::kBitmap && kSizes[op.bytes] > uint64_t{1} << 46 && kSizes[op.bytes] < uint64_t{1} << 51) op.bytes = 0;
  if (made != Made::kSparse) op.form = 0;
  if (op.Has(SparseForm::kOpen)) op.value = 0;
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
  if (op.kind == StepKind::kFill || op.kind == StepKind::kRangeFill || op.kind == StepKind::kWriterFill) return 0xff;
  return HasSize(op.kind) && op.size % 4 < 3 ? (uint64_t{1} << (8u << (op.size % 4))) - 1 : ~uint64_t{0};
}

void NormalOp(Op& op) {
  const uint64_t mask = ValueMask(op);
  if (!HasIndex(op.at.anchor)) op.at.index = 0;
  if (op.kind == StepKind::kCompareExchange && op.Has(ExchangeForm::kTyped)) op.choice = 0;
  if ((op.kind == StepKind::kRangeRead || op.kind == StepKind::kRangeWrite) && op.choice != 0) op.within = 0;
  op.value = op.seen || op.within != 0 ? 0 : op.value & mask;  // the bytes are those that are there
  op.desired &= mask;
  if (op.kind == StepKind::kMake) NormalMake(op);
  if (op.kind == StepKind::kCreate && op.Has(CreateForm::kOne)) op.bytes = 0;
  if (op.kind == StepKind::kLockedCopy && static_cast<Copy>(op.choice) != Copy::kTo && static_cast<Copy>(op.choice) != Copy::kFrom) op.form = 0;
}

void NormalBacking(Backing& backing, uint8_t region_pages) {
  const bool single = region_pages == 0;
  const auto fits = [&](uint8_t pages) { return single ? pages : std::min(pages, region_pages); };
  const Backing given = backing;
  backing.present |= single;
  if (!backing.present) {
    backing = {};
    backing.present = false;
    backing.pages = fits(backing.pages);
    return;
  }
  backing.sparse &= fits(kMaxPages) == kMaxPages;
  if (backing.sparse) {
    backing = {};
    backing.sparse = true;
    backing.wrapped = given.wrapped;
    backing.pages = kMaxPages;
    for (size_t i = 0; i < kMaxPages; ++i) backing.page[i].state = given.page[i].state;
    return;
  }
  backing.pages = fits(given.pages);
  backing.managed &= given.has_bitmap;
  if (!backing.has_bitmap || backing.managed) {
    backing.bit_offset = 0;
    backing.null_bitmap = {};
  }
  const auto bit = [&](bool set, Access access) {
    return set || !backing.has_bitmap || backing.null_bitmap[static_cast<size_t>(access)];
  };
  for (size_t i = 0; i < kMaxPages; ++i) {
    const PageSetup& page = given.page[i];
    backing.page[i] = i >= backing.pages ? PageSetup()
                                         : PageSetup{page.state, bit(page.readable, Access::kRead), bit(page.writable, Access::kWrite),
                                                     bit(page.executable, Access::kExecute)};
  }
}

Op Normal(Op op) {
  trace::NormaliseObject(Rows().ops(), &op, nullptr);
  return op;
}

World Normal(World world) {
  Trace trace = {std::move(world), {}};
  trace::Normalise(Rows(), &trace);
  return std::move(trace.world);
}

Trace FromBytes(std::span<const uint8_t> bytes) { return trace::FromBytes<Trace>(Rows(), bytes); }
std::vector<uint8_t> ToBytes(const Trace& trace) { return trace::Encode(Rows(), &trace); }
std::string OpText(const Op& op) { return trace::LineText(Rows().ops(), &op); }
std::string ToText(const Trace& trace) { return trace::Text(Rows(), &trace); }
std::variant<Trace, TextError> FromText(std::string_view text) { return trace::FromText<Trace>(Rows(), text); }

std::string_view Name(StepKind kind) {
  return RowOf(kind).name;
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

std::string_view Name(CallKind kind) { return NameIn(kCallNames, kind); }
std::string_view Name(Access access) { return NameIn(kAccessNames, access); }

std::string_view Name(PageState state) {
  static constexpr std::string_view kNames[] = {"ram", "read_only", "hole", "bus"};
  return NameIn(kNames, state);
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
