#include "proptest/generators.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "reference/lockstep/op_fields.h"

namespace proptest {
namespace {

using reference::Access;
using reference::Address;
using reference::Anchor;
using reference::Backing;
using reference::FallbackAnswer;
using reference::HandlerAnswer;
using reference::LockAnswer;
using reference::Op;
using reference::PageSetup;
using reference::PageState;
using reference::Sharing;
using reference::StepKind;
using reference::SubrangeAnswer;
using reference::Trace;
using reference::World;

// rapidcheck narrows every range by its current size, container elements included. Our ranges are small and all of
// each matters from the first case on: only the length of a trace follows the size.
constexpr int kFullSize = 100;

// A vector of at most `longest`, its elements over their full ranges.
template <class T>
rc::Gen<std::vector<T>> UpToMany(double longest, rc::Gen<T> element) {
  return rc::gen::scale(longest / kFullSize, rc::gen::container<std::vector<T>>(rc::gen::resize(kFullSize, std::move(element))));
}

// rapidcheck's inRange excludes its end; it shrinks towards the start.
template <class Int>
rc::Gen<Int> UpTo(Int most) {
  return rc::gen::map(rc::gen::inRange<int>(0, static_cast<int>(most) + 1), [](int i) { return static_cast<Int>(i); });
}

template <class Enum>
rc::Gen<Enum> Any(int count) {
  return rc::gen::map(rc::gen::inRange<int>(0, count), [](int i) { return static_cast<Enum>(i); });
}

// True once in `n`; shrinks to false.
rc::Gen<bool> OnceIn(int n) {
  return rc::gen::map(rc::gen::inRange<int>(0, n), [n](int i) { return i == n - 1; });
}

// Mostly `usual`, which is also what it shrinks to.
template <class T>
rc::Gen<T> Mostly(T usual, rc::Gen<T> other) {
  return rc::gen::weightedOneOf<T>({{3, rc::gen::just(usual)}, {1, std::move(other)}});
}

rc::Gen<PageSetup> Pages() {
  // Bits are generated as "refused", so that shrinking allows.
  return rc::gen::map(rc::gen::tuple(Mostly(PageState::kRam, Any<PageState>(reference::kPageStates)), OnceIn(4), OnceIn(4), OnceIn(4)),
                      [](const std::tuple<PageState, bool, bool, bool>& t) {
                        return PageSetup{std::get<0>(t), !std::get<1>(t), !std::get<2>(t), !std::get<3>(t)};
                      });
}

rc::Gen<Backing> Backings() {
  return rc::gen::build<Backing>(
      rc::gen::set(&Backing::present, rc::gen::map(OnceIn(4), [](bool absent) { return !absent; })),
      rc::gen::set(&Backing::mapped, rc::gen::map(OnceIn(6), [](bool unmapped) { return !unmapped; })),
      rc::gen::set(&Backing::pages, Mostly(uint8_t{3}, rc::gen::map(UpTo(uint8_t{reference::kMaxPages - 1}), [](uint8_t i) {
                                             return static_cast<uint8_t>(i + 1);
                                           }))),
      rc::gen::set(&Backing::trim, rc::gen::weightedOneOf<uint16_t>({{3, rc::gen::just(uint16_t{0})},
                                                                     {2, UpTo(uint16_t{64})},
                                                                     {1, UpTo(uint16_t{reference::kPageSize - 1})}})),
      rc::gen::set(&Backing::has_bitmap, OnceIn(2)), rc::gen::set(&Backing::bit_offset, Mostly(uint8_t{0}, UpTo(uint8_t{7}))),
      rc::gen::set(&Backing::null_bitmap, rc::gen::container<std::array<bool, 3>>(OnceIn(5))),
      rc::gen::set(&Backing::has_iova, OnceIn(4)),
      rc::gen::set(&Backing::lockable, rc::gen::map(OnceIn(8), [](bool unlockable) { return !unlockable; })),
      rc::gen::set(&Backing::fickle, OnceIn(4)), rc::gen::set(&Backing::wrapped, OnceIn(4)), rc::gen::set(&Backing::managed, OnceIn(3)),
      rc::gen::set(&Backing::sparse, OnceIn(5)),
      rc::gen::set(&Backing::sharing, Mostly(Sharing::kNone, Any<Sharing>(reference::kSharings))),
      rc::gen::set(&Backing::page, rc::gen::container<std::array<PageSetup, reference::kMaxPages>>(Pages())));
}

rc::Gen<HandlerAnswer> HandlerAnswers() {
  return rc::gen::weightedOneOf<HandlerAnswer>({{2, rc::gen::just(HandlerAnswer::kFixRetry)},
                                                {1, rc::gen::just(HandlerAnswer::kFallback)},
                                                {2, Any<HandlerAnswer>(reference::kHandlerAnswers)}});
}

// Half the scripts are empty: the defaults matter most.
template <class Answer>
rc::Gen<std::vector<Answer>> Script(rc::Gen<Answer> answers) {
  return rc::gen::weightedOneOf<std::vector<Answer>>(
      {{1, rc::gen::just(std::vector<Answer>{})}, {1, UpToMany(reference::kMaxHandlerAnswers, std::move(answers))}});
}

// Near an edge of something that exists, seldom anywhere.
rc::Gen<Address> Addresses() {
  const auto delta = rc::gen::weightedOneOf<int8_t>(
      {{2, rc::gen::just(int8_t{0})}, {4, rc::gen::map(UpTo(32), [](int i) { return static_cast<int8_t>(i % 2 ? i / 2 : -i / 2); })},
       {1, rc::gen::arbitrary<int8_t>()}});
  const auto anchor = rc::gen::weightedOneOf<Anchor>({{6, rc::gen::just(Anchor::kPage)},
                                                      {2, rc::gen::just(Anchor::kMiddle)},
                                                      {3, rc::gen::just(Anchor::kEnd)},
                                                      {1, Any<Anchor>(reference::kAnchors)}});
  const auto index = rc::gen::weightedOneOf<uint8_t>({{5, UpTo(uint8_t{3})}, {1, UpTo(reference::kMaxAddressIndex)}});
  return rc::gen::build<Address>(rc::gen::set(&Address::anchor, anchor), rc::gen::set(&Address::index, index),
                                 rc::gen::set(&Address::delta, delta));
}

// Indices: up to a vector or two, up to a few pages, any.
rc::Gen<uint8_t> Lengths() {
  constexpr uint8_t kTwoVectors = 65;
  return rc::gen::weightedOneOf<uint8_t>({{3, UpTo(kTwoVectors)},
                                          {3, UpTo(uint8_t{reference::kBufferLengths - 1})},
                                          {1, UpTo(uint8_t{reference::kLengthCount - 1})}});
}

// One of [first, last].
rc::Gen<StepKind> KindFrom(StepKind first, StepKind last) {
  return rc::gen::map(UpTo(static_cast<int>(last) - static_cast<int>(first)),
                      [first](int i) { return static_cast<StepKind>(static_cast<int>(first) + i); });
}

rc::Gen<StepKind> Kinds() {
  // The file twice: only where two pages show it does a store show at a second place.
  const auto host_side = rc::gen::element(StepKind::kSetBit, StepKind::kAllocate, StepKind::kMapZero, StepKind::kProtect,
                                          StepKind::kUnmap, StepKind::kMapFile, StepKind::kMapFile, StepKind::kDecommit,
                                          StepKind::kAdviseHugePages, StepKind::kBindToNode, StepKind::kUnmapBytes, StepKind::kMapFileBytes);
  return rc::gen::weightedOneOf<StepKind>({{4, KindFrom(StepKind::kRead, StepKind::kCompareExchange)},
                                           {2, KindFrom(StepKind::kProbeReadable, StepKind::kSubrange)},
                                           {2, host_side},
                                           {1, rc::gen::just(StepKind::kRangeSet)},
                                           {2, KindFrom(StepKind::kRangeSet, StepKind::kRangeFill)},
                                           {2, KindFrom(StepKind::kReaderOpen, StepKind::kWriterPlain)},
                                           {3, KindFrom(StepKind::kLockGpns, StepKind::kLockableSubrange)},
                                           {2, KindFrom(StepKind::kMake, StepKind::kInnerBuffer)},
                                           {1, KindFrom(StepKind::kRevoke, StepKind::kForeignFault)}});
}

// Mostly pages of a small world: one that is not there fails the whole list.
rc::Gen<uint8_t> Gpns() {
  return rc::gen::weightedOneOf<uint8_t>({{8, UpTo(uint8_t{2})}, {2, UpTo(uint8_t{7})}, {1, UpTo(uint8_t{reference::kGpnCount - 1})}});
}

// Small numbers meet by chance (a compare-exchange that swaps), large ones carry eight different bytes.
rc::Gen<uint64_t> Values() {
  return rc::gen::weightedOneOf<uint64_t>({{1, rc::gen::inRange<uint64_t>(0, 4)}, {1, rc::gen::arbitrary<uint64_t>()}});
}

}  // namespace

rc::Gen<World> Worlds() {
  const auto region = Mostly(uint8_t{0}, rc::gen::element<uint8_t>(1, 2, 4));
  const auto backings = rc::gen::map(rc::gen::tuple(Backings(), UpToMany(reference::kMaxBackings - 1, Backings())),
                                     [](std::tuple<Backing, std::vector<Backing>> t) {
                                       auto& [first, more] = t;
                                       more.insert(more.begin(), first);
                                       return more;
                                     });
  const auto world = rc::gen::build<World>(
      rc::gen::set(&World::region_pages, region), rc::gen::set(&World::backings, backings),
      rc::gen::set(&World::handler, Script(HandlerAnswers())),
      rc::gen::set(&World::fallback, Script(Any<FallbackAnswer>(reference::kFallbackAnswers))),
      rc::gen::set(&World::lock, Script(Mostly(LockAnswer::kOk, Any<LockAnswer>(reference::kLockAnswers)))),
      rc::gen::set(&World::subrange, Script(Mostly(SubrangeAnswer::kDefault, Any<SubrangeAnswer>(reference::kSubrangeAnswers)))),
      rc::gen::set(&World::failing_host_call, Mostly(uint8_t{0}, UpTo(reference::kMaxFailingHostCall))),
      rc::gen::set(&World::host_error, Any<reference::HostError>(reference::kHostErrors)));
  return rc::gen::resize(kFullSize, rc::gen::map(world, [](const World& w) { return reference::Normal(w); }));
}

rc::Gen<Op> Ops() {
  const auto op = rc::gen::build<Op>(
      rc::gen::set(&Op::kind, Kinds()), rc::gen::set(&Op::target, Mostly(uint8_t{0}, UpTo(uint8_t{reference::kHandles - 1}))),
      rc::gen::set(&Op::slot, UpTo(uint8_t{reference::kHandles - 1})), rc::gen::set(&Op::at, Addresses()),
      rc::gen::set(&Op::length, Lengths()), rc::gen::set(&Op::size, UpTo(uint8_t{3})), rc::gen::set(&Op::value, Values()),
      rc::gen::set(&Op::desired, Values()), rc::gen::set(&Op::seen, OnceIn(2)),
      rc::gen::set(&Op::gpns, UpToMany(reference::kMaxGpns, Gpns())),
      rc::gen::set(&Op::backing, UpTo(uint8_t{reference::kMaxBackings - 1})),
      rc::gen::set(&Op::page, UpTo(uint8_t{reference::kMaxPages - 1})), rc::gen::set(&Op::count, UpTo(uint8_t{reference::kMaxPages})),
      rc::gen::set(&Op::choice, UpTo(uint8_t{reference::kMisalignments - 1})),
      rc::gen::set(&Op::access, Any<Access>(reference::kAccesses)), rc::gen::set(&Op::form, UpTo(uint8_t{1})),
      rc::gen::set(&Op::offset, UpTo(uint8_t{reference::kOffsetCount - 1})),
      rc::gen::set(&Op::object, Mostly(uint8_t{0}, UpTo(uint8_t{reference::kObjects - 1}))),
      rc::gen::set(&Op::bytes, UpTo(uint8_t{reference::kSizeCount - 1})),
      rc::gen::set(&Op::within, Mostly(uint8_t{0}, UpTo(uint8_t{reference::kHostPlaces}))));
  return rc::gen::resize(kFullSize, rc::gen::map(op, [](const Op& o) { return reference::Normal(o); }));
}

rc::Gen<Trace> Traces() {
  constexpr double kUsualOps = 40;  // at the largest size; must be below kMaxOps
  static_assert(kUsualOps < reference::kMaxOps);
  return rc::gen::build<Trace>(rc::gen::set(&Trace::world, Worlds()), rc::gen::set(&Trace::ops, UpToMany(kUsualOps, Ops())));
}

}  // namespace proptest

namespace reference {

void showValue(const Trace& trace, std::ostream& os) { os << '\n' << ToText(trace); }
void showValue(const Op& op, std::ostream& os) { os << OpText(op); }

}  // namespace reference
