// Each operation as the calls that a program would make, written once and for two sides: Engine carries them out (engine.h), and
// GtestPrinter writes them as C++ with what the model expects of them (gtest_printer.h). A side says what the calls are made on,
// and has one method for each sort of result. A kind without its calls does not compile.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_OPERATIONS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_OPERATIONS_H_

#include <chrono>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "guestmem/detail/host_calls.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "reference/model/vocabulary.h"
#include "reference/support/made.h"
#include "reference/support/objects.h"

namespace reference {

namespace operations {

namespace detail = guestmem::detail;
using guestmem::CreateOptions;
using guestmem::GuestMemory;
using guestmem::GuestSide;
using guestmem::PageRange;
using guestmem::SparseMapping;
using guestmem::TryCompareExchange;
using guestmem::TryCopy;
using guestmem::TryCopyShared;
using guestmem::TryFill;
using guestmem::TryRead;
using guestmem::TryWrite;

// A call as both sides need it: its name, to be printed, and what carries it out.
template <typename Action>
struct Callee {
  std::string_view name;
  std::string_view type;  // its template argument; empty: none
  bool is_method;         // of the first argument
  Action action;
};

template <typename T>
constexpr std::string_view kTypeName = std::is_same_v<T, uint8_t>    ? "uint8_t"
                                       : std::is_same_v<T, uint16_t> ? "uint16_t"
                                       : std::is_same_v<T, uint32_t> ? "uint32_t"
                                                                     : "uint64_t";

#define METHOD(name) \
  Callee{#name, {}, true, [](auto&& object, auto&&... arguments) -> decltype(auto) { return object.name(arguments...); }}
#define METHOD_OF(name, T) \
  Callee{#name, kTypeName<T>, true, [](auto&& object, auto&&... arguments) -> decltype(auto) { return object.template name<T>(arguments...); }}
#define FUNCTION(name) \
  Callee{#name, {}, false, [](auto&&... arguments) -> decltype(auto) { return name(arguments...); }}
#define FUNCTION_OF(name, T) \
  Callee{#name, kTypeName<T>, false, [](auto&&... arguments) -> decltype(auto) { return name<T>(arguments...); }}

inline std::byte ByteOf(const Step& step) { return static_cast<std::byte>(step.value); }
inline guestmem::AccessType AccessOf(const Step& step) { return static_cast<guestmem::AccessType>(step.access); }

// call(uintN_t()) for the step's size.
template <typename Call>
void Sized(const Step& step, Call call) {
  switch (step.size) {
    case 1: return call(uint8_t{});
    case 2: return call(uint16_t{});
    case 4: return call(uint32_t{});
    default: return call(uint64_t{});
  }
}

// ------------------------------------------------------------------ on a handle

// `plain` or, in form 1, `atomic`: a transfer of the host buffer's bytes after the other arguments.
template <typename Side, typename Host, typename... Arguments>
void Transfer(Side& side, const Step& step, const Host& host, const auto& plain, const auto& atomic, const Arguments&... arguments) {
  step.Form<TransferForm>() == TransferForm::kAtomic ? side.Status(atomic, side.Memory(step), arguments..., side.Atomics(host)) : side.Status(plain, side.Memory(step), arguments..., host);
  side.Keep(host);
}

template <typename T, typename Side>
void CompareExchange(Side& side, const Step& step) {
  const auto& memory = side.Memory(step);
  const auto current = static_cast<T>(step.value), desired = static_cast<T>(step.desired);
  switch (step.Choice<ExchangeSizes>()) {
    case ExchangeSizes::kUnequal: return side.Status(FUNCTION(ExchangeOfSizes), memory, step.gpa, sizeof(T) + 1, sizeof(T));
    case ExchangeSizes::kOdd: return side.Status(FUNCTION(ExchangeOfSizes), memory, step.gpa, size_t{3}, size_t{3});
    case ExchangeSizes::kExact: break;
  }
  step.Form<ExchangeForm>() == ExchangeForm::kBytes
      ? side.Exchanged(FUNCTION_OF(ExchangeBytes, T), memory, step.gpa, current, desired)
      : side.Exchanged(METHOD_OF(CompareExchange, T), memory, step.gpa, current, desired);
}

// ------------------------------------------------------------------ buffers and streams

template <typename Side, typename... Arguments>
void ChangeBuffer(Side& side, const Step& step, const auto& change, Arguments&&... arguments) {
  auto&& buffer = side.Buffer(step.object);
  side.Fits(change, buffer, arguments...);
  side.Lengths(METHOD(Lengths), buffer);
}

// `use(view)`: its paged range or list of them.
template <typename Side, typename Use>
void UseBuffer(Side& side, const Step& step, Use use) {
  side.WithView(step.object, use);
  side.Lengths(METHOD(Lengths), side.Buffer(step.object));
}

template <typename Side>
uint64_t HostLength(Side& side, const Step& step) {
  const uint64_t length = side.Length(step.object);
  switch (step.Choice<BufferSize>()) {
    case BufferSize::kExact: break;
    case BufferSize::kLonger: return length + 1;
    case BufferSize::kShorter: return length != 0 ? length - 1 : 0;
  }
  return length;
}

template <typename Side>
auto RangeHost(Side& side, const Step& step, bool written) {
  return side.Host(step, HostLength(side, step), written, 0, step.Choice<BufferSize>() == BufferSize::kExact);
}

// `use(stream, its outermost limit)`
template <typename Side, typename Use>
void UseReader(Side& side, const Step& step, Use use) {
  auto&& reader = side.ReaderOf(step.object);
  use(reader, side.Of(METHOD(outermost), reader));
  side.Lengths(METHOD(Lengths), reader);
}
template <typename Side, typename Use>
void UseWriter(Side& side, const Step& step, Use use) {
  auto&& writer = side.WriterOf(step.object);
  use(writer, side.Of(METHOD(outermost), writer));
  side.Lengths(METHOD(Lengths), writer);
  side.KeepHost(writer);
}

template <typename Side, typename Stream>
void LimitStream(Side& side, const Step& step, Stream& stream) {
  step.Form<LimitForm>() == LimitForm::kAdd ? (void)side.Fits(METHOD(Limit), stream, step.length) : side.Do(METHOD(DropLimit), stream);
}

// ------------------------------------------------------------------ locks

template <typename Side>
void LockRange(Side& side, const Step& step) {
  side.Unlock(step.object);
  auto paged = side.template Local<RangeBuffer>("RangeBuffer", "paged");
  if (side.Fits(METHOD(Set), paged, step.offset, step.length, step.gpns)) {
    side.Lock(step, true, METHOD(LockRange), side.Memory(step), AccessOf(step), side.Of(METHOD(range), paged));
  }
}

template <typename Side>
void LockedCopy(Side& side, const Step& step) {
  const size_t spans = side.Spans(step.object);
  if (spans == 0) {
    return;
  }
  const size_t i = step.count % spans;
  const auto span = side.SpanOf(step.object, i);
  switch (step.Choice<Copy>()) {
    case Copy::kTo:
    case Copy::kFrom: {
      const bool from = step.Choice<Copy>() == Copy::kFrom;
      const auto host = side.HostBeside(step, side.SpanOf(step.object, (i + 1) % spans), from);
      from ? side.Status(METHOD(CopyFrom), span, host, step.offset) : side.Status(METHOD(CopyTo), span, host, step.offset);
      return side.Keep(host);
    }
    case Copy::kFill: {
      const bool whole = step.offset == 0 && step.length == side.SizeOf(step.object, i);
      return whole ? side.Status(METHOD(Fill), span, ByteOf(step)) : side.Status(METHOD(Fill), span, ByteOf(step), step.offset, step.length);
    }
    case Copy::kAt:
      if (side.MayTouch(span, step.offset)) side.Number(FUNCTION(ExchangeAt), span, step.offset, static_cast<uint8_t>(step.value));
  }
}

// ------------------------------------------------------------------ by a backing's host

// `use(its AccessBitmap)`, if it has one.
template <typename Side, typename Use>
void UseBits(Side& side, const Step& step, Use use) {
  if (side.world().backings[step.backing].managed) {
    use(side.Bits(step.backing));
  }
}

template <typename T, typename Side, typename Guest>
void TryObject(Side& side, const Step& step, const Range& tried, const Guest& guest) {
  auto value = side.template Local<T>(kTypeName<T>, "value", static_cast<T>(step.value));
  if (step.Choice<Trying>() == Trying::kWrite) {
    return side.Tried(tried, guest, FUNCTION(TryWrite), guest, value);
  }
  if (step.Choice<Trying>() == Trying::kRead) {
    side.Tried(tried, guest, FUNCTION(TryRead), guest, value);
  } else {
    auto swapped = side.template Local<bool>("bool", "swapped", false);
    side.Tried(tried, guest, FUNCTION_OF(TryCompareExchange, T), guest, value, static_cast<T>(step.desired), swapped);
    side.Swapped(swapped);
  }
  side.Seen(value);
}

template <typename Side>
void Try(Side& side, const Step& step) {
  const auto trying = step.Choice<Trying>();
  const bool object = trying == Trying::kRead || trying == Trying::kWrite || trying == Trying::kExchange;
  constexpr uint64_t kSize = kMaxPages * kPageSize;
  if (step.offset > kSize || (trying == Trying::kExchange && step.offset % step.size != 0)) {
    return;
  }
  const Range tried = {step.page * kPageSize + step.offset, object ? step.size : step.length};
  if (tried.start > kSize || tried.length > kSize - tried.start) {
    return;
  }
  const auto guest = side.Of(METHOD(At), side.BackingOf(step.backing), tried.start);
  const auto copy = [&](bool to, const auto& function) {
    const auto host = side.Host(step, step.length, to, 0, false);
    const auto data = side.DataOf(host);
    to ? side.Tried(tried, guest, function, GuestSide::kDestination, guest, data, step.length)
       : side.Tried(tried, guest, function, GuestSide::kSource, data, guest, step.length);
    side.Keep(host);
  };
  switch (trying) {
    case Trying::kCopyFrom:
    case Trying::kCopyTo:
      return step.Form<TransferForm>() == TransferForm::kAtomic ? copy(trying == Trying::kCopyTo, FUNCTION(TryCopyShared)) : copy(trying == Trying::kCopyTo, FUNCTION(TryCopy));
    case Trying::kFill: return side.Tried(tried, guest, FUNCTION(TryFill), guest, ByteOf(step), step.length);
    case Trying::kRead:
    case Trying::kWrite:
    case Trying::kExchange: return Sized(step, [&]<typename T>(T) { TryObject<T>(side, step, tried, guest); });
  }
}

// ------------------------------------------------------------------ memory that steps make

template <typename Side>
void Make(Side& side, const Step& step) {
  switch (step.Choice<Made>()) {
    case Made::kEmpty: return side.Empty(step.slot, FUNCTION(GuestMemory::Empty));
    case Made::kHeap: return side.Made(step.slot, FUNCTION(MakeHeap), step.bytes);
    case Made::kShared: return side.Made(step.slot, FUNCTION(MakeShared), step.bytes);
    case Made::kSparse:
      return step.Form<SparseForm>() == SparseForm::kGuarded
                 ? side.Made(step.slot, FUNCTION(MakeGuarded), step.bytes, step.value)
                 : side.Made(step.slot, FUNCTION(MakeSparse), step.bytes);
    case Made::kBitmap: return side.Value(FUNCTION(PagesOfBitmap), step.bytes);
    case Made::kBare: return side.Made(step.slot, FUNCTION(MakeBare), step.bytes);
  }
}

// Over the world's backings as they are now: those that say something else by now say what they are meanwhile.
template <typename Side>
void Create(Side& side, const Step& step) {
  const auto& backings = side.world().backings;
  const auto promise = step.Choice<Promise>();
  const auto is_fickle = [&](size_t i) { return backings[i].present && backings[i].fickle; };
  for (size_t i = 0; i < backings.size(); ++i) {
    if (is_fickle(i)) side.Do(METHOD(Break), side.BackingOf(i), Promise::kNone);
  }
  const bool breaks = backings[step.backing].present && promise != Promise::kNone && promise != Promise::kNull;
  if (breaks) side.Do(METHOD(Break), side.BackingOf(step.backing), promise);
  const size_t null = promise == Promise::kNull ? step.backing : kMaxBackings;
  const CreateOptions options = {.install_fault_handler = step.slot != 1};  // it is installed already, so this must make no difference
  step.Form<CreateForm>() == CreateForm::kRegions
      ? side.Take(step.slot, FUNCTION(GuestMemory::CreateMultiRegion), kMadeName, step.bytes, side.AllHanded(null), options)
      : side.Take(step.slot, FUNCTION(GuestMemory::Create), kMadeName, side.Handed(step.backing, null), options);
  for (size_t i = 0; i < backings.size(); ++i) {
    if (is_fickle(i) || (breaks && i == step.backing)) side.Do(METHOD(Made), side.BackingOf(i));
  }
}

inline constexpr PageState kProtections[] = {PageState::kHole, PageState::kReadOnly, PageState::kRam};
inline constexpr SparseMapping::HugePages kAdvices[] = {SparseMapping::HugePages::kAdvised, SparseMapping::HugePages::kRefused};
inline constexpr unsigned kNodes[] = {0, 1023, 1024};

}  // namespace operations

template <typename Side>
void Perform(Side& side, const Step& step) {
  using namespace operations;
  const auto memory = [&]() -> decltype(auto) { return side.Memory(step); };
  const auto backing = [&]() -> decltype(auto) { return side.BackingOf(step.backing); };
  const uint64_t start = step.page * kPageSize, length = step.count * kPageSize;  // of pages
  const PageRange pages = {step.page, step.count};
  switch (step.kind) {
    case StepKind::kRead: return Transfer(side, step, side.Host(step, step.length, false, step.choice, true), METHOD(ReadAt), METHOD(ReadToAtomic), step.gpa);
    case StepKind::kWrite: return Transfer(side, step, side.Host(step, step.length, true, step.choice, true), METHOD(WriteAt), METHOD(WriteFromAtomic), step.gpa);
    case StepKind::kFill: return side.Status(METHOD(FillAt), memory(), step.gpa, ByteOf(step), step.length);
    case StepKind::kReadPlain: return Sized(step, [&]<typename T>(T) { side.Value(METHOD_OF(ReadPlain, T), memory(), step.gpa); });
    case StepKind::kWritePlain: return Sized(step, [&]<typename T>(T) { side.Status(METHOD_OF(WritePlain, T), memory(), step.gpa, static_cast<T>(step.value)); });
    case StepKind::kCompareExchange: return Sized(step, [&]<typename T>(T) { CompareExchange<T>(side, step); });
    case StepKind::kProbeReadable: return side.Status(METHOD(ProbeReadable), memory(), step.gpa, step.length);
    case StepKind::kProbeWritable: return side.Status(METHOD(ProbeWritable), memory(), step.gpa, step.length);
    case StepKind::kProbeExecutable: return side.Status(METHOD(ProbeExecutable), memory(), step.gpa, step.length);
    case StepKind::kProbeGpns: return side.Status(METHOD(ProbeGpns), memory(), step.gpns);
    case StepKind::kFullMapping: return side.Mapping(METHOD(FullMapping), memory());
    case StepKind::kIova: return side.Number(METHOD(Iova), memory(), step.gpa);
    case StepKind::kSubrange: return side.Take(step.slot, METHOD(Subrange), memory(), step.gpa, step.length, step.Form<ViewForm>() == ViewForm::kPreemptive);
    case StepKind::kLockableSubrange: return side.Take(step.slot, METHOD(LockableSubrange), memory(), step.gpa, step.length);

    case StepKind::kSetBit:
      if (side.world().backings[step.backing].present) side.Do(METHOD(SetBit), backing(), pages.first, AccessOf(step), step.Choice<Bit>() == Bit::kSet);
      return;
    case StepKind::kAllocate: return side.Status(METHOD(Allocate), backing(), start, length);
    case StepKind::kMapZero: return side.Status(METHOD(MapZero), backing(), start, length);
    case StepKind::kProtect: return side.Status(METHOD(Protect), backing(), start, length, kProtections[step.choice % 3]);
    case StepKind::kUnmap: return side.Status(METHOD(Unmap), backing(), start, length);
    case StepKind::kMapFile: return side.Status(METHOD(MapFile), backing(), start, length, step.choice * kPageSize, step.Form<FileForm>() == FileForm::kWritable);
    case StepKind::kDecommit: return side.Status(METHOD(Decommit), backing(), start, length);
    case StepKind::kAdviseHugePages: return side.Status(METHOD(AdviseHugePages), backing(), start, length, kAdvices[step.choice % 2]);
    case StepKind::kBindToNode: return side.Status(METHOD(BindToNode), backing(), start, length, kNodes[step.choice % 3]);
    case StepKind::kUnmapBytes: return side.Status(METHOD(Unmap), backing(), step.offset, step.length);
    case StepKind::kMapFileBytes: return side.Status(METHOD(MapFile), backing(), uint64_t{0}, step.length, step.offset, false);
    case StepKind::kRevoke: return UseBits(side, step, [&](auto&& bits) { side.Status(METHOD(Revoke), bits, pages, step.choice); });
    case StepKind::kGrant: return UseBits(side, step, [&](auto&& bits) { side.Status(METHOD(Grant), bits, pages, step.choice); });
    case StepKind::kWaitUnlocked:
      return UseBits(side, step, [&](auto&& bits) { side.Status(METHOD(WaitUnlocked), bits, pages, std::chrono::steady_clock::time_point()); });
    case StepKind::kHold:
      return UseBits(side, step, [&](auto&& bits) { step.Form<HoldForm>() == HoldForm::kLock ? side.Status(METHOD(Lock), bits, step.gpns) : side.Status(METHOD(Unlock), bits, step.gpns); });
    case StepKind::kTry: return Try(side, step);
    case StepKind::kForeignFault: return side.Flag(FUNCTION(HandlesForeignFault), step.choice);
    case StepKind::kStarve: return side.Do(FUNCTION(detail::SetErrorMemory), step.Choice<Starving>() == Starving::kOff);

    case StepKind::kRangeSet: return ChangeBuffer(side, step, METHOD(Set), step.offset, step.length, step.gpns);
    case StepKind::kRangeAppend: return ChangeBuffer(side, step, METHOD(Append), step.offset, step.length, step.gpns);
    case StepKind::kRangeSkip: return ChangeBuffer(side, step, METHOD(Skip), step.length);
    case StepKind::kRangeTruncate: return ChangeBuffer(side, step, METHOD(Truncate), step.length);
    case StepKind::kRangeSubrange: return ChangeBuffer(side, step, METHOD(Subrange), step.offset, step.length);
    case StepKind::kRangeSplit: return ChangeBuffer(side, step, METHOD(Split), step.length, side.Buffer(step.slot));
    case StepKind::kRangeIterate: return UseBuffer(side, step, [&](const auto&) { side.Parts(METHOD(Parts), side.Buffer(step.object)); });
    case StepKind::kRangeRead:
      return UseBuffer(side, step, [&](const auto& view) { Transfer(side, step, RangeHost(side, step, false), METHOD(ReadRange), METHOD(ReadRangeToAtomic), view); });
    case StepKind::kRangeWrite:
      return UseBuffer(side, step, [&](const auto& view) { Transfer(side, step, RangeHost(side, step, true), METHOD(WriteRange), METHOD(WriteRangeFromAtomic), view); });
    case StepKind::kRangeFill:
      return UseBuffer(side, step, [&](const auto& view) {
        step.Form<FillForm>() == FillForm::kZero ? side.Status(METHOD(ZeroRange), memory(), view) : side.Status(METHOD(FillRange), memory(), view, ByteOf(step));
      });
    case StepKind::kReaderOpen:
      return UseReader(side, step, [&](auto& reader, auto&&) {
        step.Form<StreamForm>() == StreamForm::kGuest ? (void)side.Fits(METHOD(Open), reader, memory(), side.Buffer(step.object)) : side.Do(METHOD(OpenData), reader, step.length, step.value);
      });
    case StepKind::kReaderLimit: return UseReader(side, step, [&](auto& reader, auto&&) { LimitStream(side, step, reader); });
    case StepKind::kReaderRead:
      return UseReader(side, step, [&](auto&, auto&& last) {
        const auto host = side.Host(step, step.length, false, 0, false);
        side.Status(METHOD(Read), last, host);
        side.Keep(host);
      });
    case StepKind::kReaderSkip: return UseReader(side, step, [&](auto&, auto&& last) { side.Status(METHOD(Skip), last, step.length); });
    case StepKind::kReaderPlain:
      return UseReader(side, step, [&](auto&, auto&& last) { Sized(step, [&]<typename T>(T) { side.Value(METHOD_OF(ReadPlain, T), last); }); });
    case StepKind::kReaderArray:
      return UseReader(side, step, [&](auto&, auto&& last) { Sized(step, [&]<typename T>(T) { side.Array(METHOD_OF(ReadArray, T), last, step.length); }); });
    case StepKind::kReaderAll: return UseReader(side, step, [&](auto&, auto&& last) { side.Array(METHOD(ReadAll), last); });
    case StepKind::kWriterOpen:
      return UseWriter(side, step, [&](auto& writer, auto&&) {
        step.Form<StreamForm>() == StreamForm::kGuest ? (void)side.Fits(METHOD(Open), writer, memory(), side.Buffer(step.object)) : side.Do(METHOD(OpenHost), writer, step.length);
      });
    case StepKind::kWriterLimit: return UseWriter(side, step, [&](auto& writer, auto&&) { LimitStream(side, step, writer); });
    case StepKind::kWriterWrite:
      return UseWriter(side, step, [&](auto&, auto&& last) { side.Status(METHOD(Write), last, side.Host(step, step.length, true, 0, false)); });
    case StepKind::kWriterFill:
      return UseWriter(side, step, [&](auto&, auto&& last) {
        step.value % 256 == 0 ? side.Status(METHOD(Zero), last, step.length) : side.Status(METHOD(Fill), last, ByteOf(step), step.length);
      });
    case StepKind::kWriterPlain:
      return UseWriter(side, step, [&](auto&, auto&& last) {
        Sized(step, [&]<typename T>(T) { side.Status(METHOD_OF(WritePlain, T), last, static_cast<T>(step.value)); });
      });

    case StepKind::kLockGpns:
      side.Unlock(step.object);
      return side.Lock(step, step.Form<LockForm>() == LockForm::kKernel, METHOD(LockGpns), memory(), AccessOf(step),
                       step.Form<LockForm>() == LockForm::kKernel, step.gpns);
    case StepKind::kLockRange: return LockRange(side, step);
    case StepKind::kUnlock: return side.Unlock(step.object);
    case StepKind::kLockedCopy: return LockedCopy(side, step);
    case StepKind::kSupportsLocking: return side.Flag(METHOD(supports_locking), memory());

    case StepKind::kMake: return Make(side, step);
    case StepKind::kCreate: return Create(side, step);
    case StepKind::kSharing: return side.Files(METHOD(sharing), memory());
    case StepKind::kInnerBuffer:
      if (side.IsHeld(step.target)) side.Number(FUNCTION(StoreInner), side.Slot(step.target), step.Choice<Inner>(), static_cast<uint8_t>(step.value), side.Taken());
      return;
    case StepKind::kMove:
      if (step.target != 0 && side.IsHeld(step.target)) side.Do(FUNCTION(Move), side.Slot(step.target), side.Slot(step.slot));
      return;
  }
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_OPERATIONS_H_
