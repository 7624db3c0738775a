// The three-page world, enumerated: every case of each product below goes through the lockstep, none is drawn by chance.
//
// A case is one operation judged in a known world. What it does to the world's bytes the model follows, so the cases of
// one world run one after another in one trace, unless they change what later ones meet (then each has a trace of its own).
// Each enumeration prints how many cases it ran, and expects the product of its lists' sizes.

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/test/child.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace_rows.h"
#include "reference/lockstep/trace.h"

namespace {

using reference::Access;
using reference::Address;
using reference::Anchor;
using reference::Backing;
using reference::FallbackAnswer;
using reference::HandlerAnswer;
using reference::Op;
using reference::PageState;
using reference::StepKind;
using reference::Trace;
using reference::World;

template <class T>
using List = std::vector<T>;

// ------------------------------------------------------------------ running

class Enumeration {
 public:
  // The enumerations with most cases take the model's fast pace, which kernel_property_test holds to the plain one.
  explicit Enumeration(const char* name, reference::Pace model = reference::Pace::kFast)
      : name_(name), engine_(reference::MakeEngineSubject()), lockstep_(*engine_, model) {}

  // Judges a trace; its first `preparing` ops are no cases. After a divergence nothing runs any more.
  void Run(const Trace& trace, size_t preparing = 0) {
    if (failed_) return;
    if (const auto verdict = lockstep_.Run(trace)) {
      failed_ = true;
      ADD_FAILURE() << name_ << ", case " << cases_ << " and on:\n" << Smallest(trace, *verdict, preparing);
    }
    cases_ += trace.ops.size() - preparing;
  }

  void ExpectCases(uint64_t expected, const char* product) const {
    std::printf("%s: ran %llu cases of %llu = %s\n", name_, static_cast<unsigned long long>(cases_),
                static_cast<unsigned long long>(expected), product);
    EXPECT_TRUE(failed_ || cases_ == expected) << name_ << " ran " << cases_ << " cases, not " << expected;
  }

 private:
  // The report on the diverging op alone, if it diverges alone, else on all up to it.
  std::string Smallest(const Trace& trace, const reference::Divergence& divergence, size_t preparing) {
    const auto first = trace.ops.begin();
    const size_t last = std::min(divergence.step, trace.ops.size() - 1);
    Trace small = {trace.world, List<Op>(first, first + static_cast<ptrdiff_t>(preparing))};
    small.ops.push_back(trace.ops[last]);
    if (const auto verdict = lockstep_.Run(small)) return Report(small, *verdict);
    small.ops.assign(first, first + static_cast<ptrdiff_t>(last) + 1);
    return Report(small, divergence);
  }

  const char* name_;
  std::unique_ptr<reference::Subject> engine_;
  reference::Lockstep lockstep_;
  uint64_t cases_ = 0;
  bool failed_ = false;
};

// ------------------------------------------------------------------ worlds

constexpr uint8_t kPages = 3;       // a first, a middle and a last one
constexpr uint64_t kSubsets = 8;    // of three pages
constexpr uint64_t kBitOffsets = 8;
constexpr PageState kStates[] = {PageState::kRam, PageState::kReadOnly, PageState::kHole, PageState::kBus};
constexpr uint64_t kStateTriples = 4 * 4 * 4;
constexpr Access kAccesses[] = {Access::kRead, Access::kWrite, Access::kExecute};

using States = std::array<PageState, kPages>;
States StateTriple(uint64_t i) { return {kStates[i % 4], kStates[i / 4 % 4], kStates[i / 16 % 4]}; }

World ThreePages(const States& states = {}) {
  World world;
  Backing backing;
  backing.pages = kPages;
  for (size_t page = 0; page < kPages; ++page) backing.page[page].state = states[page];
  world.backings = {backing};
  return world;
}

bool& BitOf(reference::PageSetup& page, Access access) {
  if (access == Access::kRead) return page.readable;
  return access == Access::kWrite ? page.writable : page.executable;
}

// Page i allows `access` where bit i of `allowed` is set.
void SetBits(Backing& backing, Access access, std::bitset<kPages> allowed) {
  backing.has_bitmap = true;
  for (size_t page = 0; page < kPages; ++page) BitOf(backing.page[page], access) = allowed[page];
}

// ------------------------------------------------------------------ operations

constexpr StepKind kReadRanges[] = {StepKind::kRead, StepKind::kProbeReadable};
constexpr StepKind kWriteRanges[] = {StepKind::kWrite, StepKind::kFill, StepKind::kProbeWritable};
constexpr StepKind kExecuteRanges[] = {StepKind::kProbeExecutable};
constexpr StepKind kReadObjects[] = {StepKind::kReadPlain};
constexpr StepKind kWriteObjects[] = {StepKind::kWritePlain, StepKind::kCompareExchange};
constexpr StepKind kAllRanges[] = {StepKind::kRead,          StepKind::kWrite,         StepKind::kFill,
                                   StepKind::kProbeReadable, StepKind::kProbeWritable, StepKind::kProbeExecutable};
constexpr StepKind kAllObjects[] = {StepKind::kReadPlain, StepKind::kWritePlain, StepKind::kCompareExchange};
constexpr uint64_t kRangeKinds = std::size(kAllRanges);
constexpr uint64_t kObjectKinds = std::size(kAllObjects);
constexpr uint8_t kSizes = 4;
static_assert(std::size(kReadRanges) + std::size(kWriteRanges) + std::size(kExecuteRanges) == kRangeKinds);
static_assert(std::size(kReadObjects) + std::size(kWriteObjects) == kObjectKinds);

Op PlainOp(StepKind kind) {
  Op op;
  op.kind = kind;
  return op;
}
Op RangeOp(StepKind kind, const Address& at, uint8_t length) {
  Op op = PlainOp(kind);
  op.at = at;
  op.length = length;
  return op;
}
Op ObjectOp(StepKind kind, const Address& at, uint8_t size, bool seen = false) {
  Op op = PlainOp(kind);
  op.at = at;
  op.size = size;
  op.seen = seen;
  return op;
}
Op ViewOp(uint8_t target, uint8_t slot, const Address& at, uint8_t length) {
  Op op = RangeOp(StepKind::kSubrange, at, length);
  op.target = target;
  op.slot = slot;
  return op;
}

// Stored bytes and the host buffer's alignment change from one operation to the next.
void Add(List<Op>& ops, Op op) {
  const uint64_t n = ops.size();
  op.value = 0x0102030405060708 * (n % 255 + 1);
  op.desired = ~op.value;
  op.choice = static_cast<uint8_t>(n * 7 % reference::kMisalignments);
  ops.push_back(reference::Normal(op));
}

void AddRanges(List<Op>& ops, std::span<const StepKind> kinds, const List<Address>& addresses, const List<uint8_t>& lengths) {
  for (const StepKind kind : kinds) {
    for (const Address& at : addresses) {
      for (const uint8_t length : lengths) Add(ops, RangeOp(kind, at, length));
    }
  }
}

// Compare-exchanges swap and don't, by turns: `seen` makes one expect what the one before it saw.
void AddObjects(List<Op>& ops, std::span<const StepKind> kinds, const List<Address>& addresses) {
  for (const StepKind kind : kinds) {
    for (uint8_t size = 0; size < kSizes; ++size) {
      for (const Address& at : addresses) Add(ops, ObjectOp(kind, at, size, ops.size() % 2 != 0));
    }
  }
}

// What needs `access`.
List<Op> OpsOf(Access access, const List<Address>& addresses, const List<uint8_t>& lengths) {
  List<Op> ops;
  switch (access) {
    case Access::kRead:
      AddRanges(ops, kReadRanges, addresses, lengths);
      AddObjects(ops, kReadObjects, addresses);
      break;
    case Access::kWrite:
      AddRanges(ops, kWriteRanges, addresses, lengths);
      AddObjects(ops, kWriteObjects, addresses);
      break;
    case Access::kExecute:
      AddRanges(ops, kExecuteRanges, addresses, lengths);
      break;
  }
  return ops;
}
List<Op> AllOps(const List<Address>& addresses, const List<uint8_t>& lengths) {
  List<Op> ops;
  AddRanges(ops, kAllRanges, addresses, lengths);
  AddObjects(ops, kAllObjects, addresses);
  return ops;
}
uint64_t OpCount(uint64_t addresses, uint64_t lengths) {
  return kRangeKinds * addresses * lengths + kObjectKinds * kSizes * addresses;
}

Address At(Anchor anchor, int index, int delta) { return {anchor, static_cast<uint8_t>(index), static_cast<int8_t>(delta)}; }
Address Page(int index, int delta) { return At(Anchor::kPage, index, delta); }

// Page edges, the memory's end; aligned and not; starts of what straddles.
List<Address> EdgeAddresses() {
  return {Page(0, 0), Page(0, 1),  Page(1, -8), Page(1, -1), Page(1, 0), At(Anchor::kMiddle, 1, 0),
          Page(2, -3), Page(2, 0), At(Anchor::kEnd, 0, -8), At(Anchor::kEnd, 0, -1)};
}

List<uint8_t> Lengths(std::initializer_list<uint64_t> values) {
  List<uint8_t> indices;
  for (const uint64_t value : values) {
    const auto found = std::find(std::begin(reference::kLengths), std::end(reference::kLengths), value);
    EXPECT_NE(found, std::end(reference::kLengths)) << value << " is not in the list";
    indices.push_back(static_cast<uint8_t>(found - std::begin(reference::kLengths)));
  }
  return indices;
}

// ------------------------------------------------------------------ the enumerations

// What the mapping does at each page × which pages' bits allow the access × where in its byte a bit lies × every operation.
// The other two accesses' bits say the opposite.
TEST(Exhaustive, PageStatesAndBits) {
  Enumeration run("page states and bits");
  const List<Address> addresses = EdgeAddresses();
  const List<uint8_t> lengths = Lengths({0, 1, 8, 63, 2049, 4096, 4097, 8192, 12288});
  std::array<Trace, 3> traces;
  for (size_t a = 0; a < traces.size(); ++a) traces[a].ops = OpsOf(kAccesses[a], addresses, lengths);
  for (uint64_t triple = 0; triple < kStateTriples; ++triple) {
    for (size_t a = 0; a < traces.size(); ++a) {
      for (uint64_t allowed = 0; allowed < kSubsets; ++allowed) {
        for (uint64_t offset = 0; offset < kBitOffsets; ++offset) {
          World world = ThreePages(StateTriple(triple));
          for (const Access access : kAccesses) SetBits(world.backings[0], access, access == kAccesses[a] ? allowed : ~allowed);
          world.backings[0].bit_offset = static_cast<uint8_t>(offset);
          traces[a].world = world;
          run.Run(traces[a]);
        }
      }
    }
  }
  run.ExpectCases(kStateTriples * kSubsets * kBitOffsets * OpCount(addresses.size(), lengths.size()),
                  "64 page states x 8 subsets of allowed pages x 8 bit offsets x (6 kinds x 10 addresses x 9 lengths + 3 kinds x 4 sizes x 10 addresses)");
}

// All bits of all three bitmaps × null pointers × bit offset × every operation × every run of pages that it can touch.
TEST(Exhaustive, AllBitsOfAllBitmaps) {
  Enumeration run("all bits of all bitmaps");
  constexpr uint64_t kNullPointers = 8;
  constexpr uint64_t kRuns = 6;         // first page <= last page
  constexpr uint64_t kObjectPlaces = 5;  // inside each page, across either edge
  Trace trace;
  AddRanges(trace.ops, kAllRanges, {Page(0, 5)}, Lengths({200, 4096, 8192}));
  AddRanges(trace.ops, kAllRanges, {Page(1, 5)}, Lengths({200, 4096}));
  AddRanges(trace.ops, kAllRanges, {Page(2, 5)}, Lengths({200}));
  for (const StepKind kind : kAllObjects) {
    for (const Address& at : {Page(0, 8), Page(1, 8), Page(2, 8), Page(1, -4), Page(2, -1)}) Add(trace.ops, ObjectOp(kind, at, 3));
  }
  for (uint64_t bits = 0; bits < kSubsets * kSubsets * kSubsets; ++bits) {
    for (uint64_t null = 0; null < kNullPointers; ++null) {
      for (uint64_t offset = 0; offset < kBitOffsets; ++offset) {
        trace.world = ThreePages();
        Backing& backing = trace.world.backings[0];
        SetBits(backing, Access::kRead, bits % 8);
        SetBits(backing, Access::kWrite, bits / 8 % 8);
        SetBits(backing, Access::kExecute, bits / 64);
        for (size_t a = 0; a < 3; ++a) backing.null_bitmap[a] = std::bitset<3>(null)[a];
        backing.bit_offset = static_cast<uint8_t>(offset);
        run.Run(trace);
      }
    }
  }
  run.ExpectCases(kSubsets * kSubsets * kSubsets * kNullPointers * kBitOffsets * (kRangeKinds * kRuns + kObjectKinds * kObjectPlaces),
                  "8 x 8 x 8 bits x 8 null pointers x 8 bit offsets x (6 kinds x 6 runs of pages + 3 kinds x 5 places)");
}

// Every address round every edge × every length there is, in memory that is whole and in memory with one bad page.
TEST(Exhaustive, EveryEdgeAndLength) {
  Enumeration run("every edge and length");
  constexpr int kDistance = 9;  // past the largest object
  constexpr uint64_t kEdges = 7;
  constexpr uint16_t kTrims[] = {0, 5};
  List<States> states = {{}};
  for (const PageState bad : {PageState::kReadOnly, PageState::kHole, PageState::kBus}) {
    for (size_t page = 0; page < kPages; ++page) {
      states.push_back({});
      states.back()[page] = bad;
    }
  }
  List<Address> addresses;
  for (const Address& edge : {Page(0, 0), Page(1, 0), Page(2, 0), At(Anchor::kEnd, 0, 0), At(Anchor::k2To32, 0, 0),
                              At(Anchor::k2To63, 0, 0), At(Anchor::k2To64, 0, 0)}) {
    for (int delta = -kDistance; delta <= kDistance; ++delta) addresses.push_back(At(edge.anchor, edge.index, delta));
  }
  // Lengths beyond any host buffer are for operations without one.
  List<uint8_t> buffer_lengths, other_lengths;
  for (size_t i = 0; i < reference::kLengthCount; ++i) {
    (i < reference::kBufferLengths ? buffer_lengths : other_lengths).push_back(static_cast<uint8_t>(i));
  }
  constexpr uint64_t kWithBuffer = 2;
  Trace trace;
  AddRanges(trace.ops, kAllRanges, addresses, buffer_lengths);
  AddRanges(trace.ops, std::span(kAllRanges).subspan(kWithBuffer), addresses, other_lengths);
  AddObjects(trace.ops, kAllObjects, addresses);
  for (const States& triple : states) {
    for (const uint16_t trim : kTrims) {
      trace.world = ThreePages(triple);
      trace.world.backings[0].trim = trim;
      run.Run(trace);
    }
  }
  constexpr uint64_t kAddresses = kEdges * (2 * kDistance + 1);
  constexpr uint64_t kWorlds = (1 + 3 * kPages) * std::size(kTrims);
  run.ExpectCases(kWorlds * kAddresses * (kRangeKinds * reference::kLengthCount - kWithBuffer * (reference::kLengthCount - reference::kBufferLengths) +
                                          kObjectKinds * kSizes),
                  "(1 + 3 states x 3 pages) x 2 trims x 7 edges x 19 distances x (6 kinds x every length, less what has no buffer, + 3 kinds x 4 sizes)");
}

// What makes a page refuse an access.
enum class Bad { kRefused, kReadOnly, kHole, kBus };
constexpr Bad kBad[] = {Bad::kRefused, Bad::kReadOnly, Bad::kHole, Bad::kBus};

World WithBadPage(Bad bad, size_t page, Access access) {
  States states = {};
  if (bad == Bad::kReadOnly) states[page] = PageState::kReadOnly;
  if (bad == Bad::kHole) states[page] = PageState::kHole;
  if (bad == Bad::kBus) states[page] = PageState::kBus;
  World world = ThreePages(states);
  if (bad == Bad::kRefused) SetBits(world.backings[0], access, ~(std::bitset<kPages>(1) << page));
  return world;
}

// One operation over three pages, over two, and inside one, of each kind.
List<Op> SpanningOps() {
  List<Op> ops;
  AddRanges(ops, kAllRanges, {Page(0, 100)}, Lengths({100, 8192}));
  AddRanges(ops, kAllRanges, {Page(1, 2)}, Lengths({4096}));
  for (const StepKind kind : kAllObjects) {
    Add(ops, ObjectOp(kind, Page(1, -4), 3));
    Add(ops, ObjectOp(kind, Page(2, 8), 2));
  }
  return ops;
}
constexpr uint64_t kSpanningOps = kRangeKinds * 3 + kObjectKinds * 2;

Access AccessOf(StepKind kind) {
  if (kind == StepKind::kProbeExecutable) return Access::kExecute;
  const bool reads = kind == StepKind::kRead || kind == StepKind::kReadPlain || kind == StepKind::kProbeReadable;
  return reads ? Access::kRead : Access::kWrite;
}

// Each pair of handler answers × each fallback answer × which page is bad × how × every operation.
TEST(Exhaustive, HandlerAndFallbackAnswers) {
  Enumeration run("handler and fallback answers");
  const List<Op> ops = SpanningOps();
  for (const Bad bad : kBad) {
    for (size_t page = 0; page < kPages; ++page) {
      for (int first = 0; first < reference::kHandlerAnswers; ++first) {
        for (int second = 0; second < reference::kHandlerAnswers; ++second) {
          for (int fallback = 0; fallback < reference::kFallbackAnswers; ++fallback) {
            for (const Op& op : ops) {
              Trace trace = {WithBadPage(bad, page, AccessOf(op.kind)), {op}};
              trace.world.handler = {static_cast<HandlerAnswer>(first), static_cast<HandlerAnswer>(second)};
              trace.world.fallback = {static_cast<FallbackAnswer>(fallback)};
              run.Run(trace);
            }
          }
        }
      }
    }
  }
  run.ExpectCases(4 * kPages * reference::kHandlerAnswers * reference::kHandlerAnswers * reference::kFallbackAnswers * kSpanningOps,
                  "4 ways to be bad x 3 pages x every handler answer x every handler answer x every fallback answer x (6 kinds x 3 ranges + 3 kinds x 2 places)");
}

// Every handler answer × all pages bad, each in its own way × which of the handler's host calls fails × every operation.
TEST(Exhaustive, HandlersWhoseHostCallsFail) {
  Enumeration run("handlers whose host calls fail", reference::Pace::kPlain);
  constexpr uint8_t kFailing = 4;  // none, or one of the first three
  const List<Op> ops = SpanningOps();
  for (uint64_t triple = 0; triple < kStateTriples; ++triple) {
    for (int answer = 0; answer < reference::kHandlerAnswers; ++answer) {
      for (uint8_t failing = 0; failing < kFailing; ++failing) {
        for (const Op& op : ops) {
          Trace trace = {ThreePages(StateTriple(triple)), {op}};
          trace.world.handler.assign(kPages, static_cast<HandlerAnswer>(answer));
          trace.world.failing_host_call = failing;
          run.Run(trace);
        }
      }
    }
  }
  run.ExpectCases(kStateTriples * reference::kHandlerAnswers * kFailing * kSpanningOps,
                  "64 page states x every handler answer x 4 failing host calls x (6 kinds x 3 ranges + 3 kinds x 2 places)");
}

// No mapping: each fallback answer, twice in a row, × every operation at every edge.
TEST(Exhaustive, BackingsWithoutMapping) {
  Enumeration run("backings without mapping", reference::Pace::kPlain);
  const List<Address> addresses = EdgeAddresses();
  const List<uint8_t> lengths = Lengths({0, 1, 2, 3, 4, 8, 2049, 4096, 8192, 12288});
  const List<Op> ops = AllOps(addresses, lengths);
  for (int first = 0; first < reference::kFallbackAnswers; ++first) {
    for (int second = 0; second < reference::kFallbackAnswers; ++second) {
      for (const Op& op : ops) {
        Trace trace = {ThreePages(), {op}};
        trace.world.backings[0].mapped = false;
        trace.world.fallback = {static_cast<FallbackAnswer>(first), static_cast<FallbackAnswer>(second)};
        run.Run(trace);
      }
    }
  }
  run.ExpectCases(reference::kFallbackAnswers * reference::kFallbackAnswers * OpCount(addresses.size(), lengths.size()),
                  "every fallback answer x every fallback answer x (6 kinds x 10 addresses x 10 lengths + 3 kinds x 4 sizes x 10 addresses)");
}

// Three regions of one page, each whole, shorter than its region, unmapped, a hole or absent × every operation at every edge.
TEST(Exhaustive, ThreeRegions) {
  Enumeration run("three regions");
  constexpr uint64_t kSlots = 5;
  const auto slot = [](uint64_t i) {
    Backing backing;
    backing.pages = 1;
    if (i == 1) backing.trim = 8;
    if (i == 2) backing.mapped = false;
    if (i == 3) backing.page[0].state = PageState::kHole;
    if (i == 4) backing.present = false;
    return backing;
  };
  List<Address> addresses = EdgeAddresses();
  addresses.push_back(Page(3, -9));
  addresses.push_back(Page(3, 0));
  const List<uint8_t> lengths = Lengths({0, 1, 7, 8, 9, 2049, 4088, 4096, 4097, 8192, 12287, 12288, 12289});
  Trace trace = {{}, AllOps(addresses, lengths)};
  for (uint64_t slots = 0; slots < kSlots * kSlots * kSlots; ++slots) {
    trace.world = {};
    trace.world.region_pages = 1;
    trace.world.backings = {slot(slots % kSlots), slot(slots / kSlots % kSlots), slot(slots / kSlots / kSlots)};
    run.Run(trace);
  }
  run.ExpectCases(kSlots * kSlots * kSlots * OpCount(addresses.size(), lengths.size()),
                  "5 x 5 x 5 regions x (6 kinds x 12 addresses x 13 lengths + 3 kinds x 4 sizes x 12 addresses)");
}

// A view at each place and of each length × a refused or missing page, or none × every operation at every edge of the view.
TEST(Exhaustive, Views) {
  Enumeration run("views");
  const List<Address> starts = {Page(0, 0), Page(0, 1), Page(0, 8), At(Anchor::kMiddle, 0, 0), Page(1, -1), Page(1, 0), Page(2, 4)};
  const List<uint8_t> sizes = Lengths({0, 1, 8, 2048, 4096, 4097, 8192, 12288});
  const List<Address> addresses = {Page(0, 0), Page(0, 1),  Page(0, 7),  At(Anchor::kMiddle, 0, -1), Page(1, -9), Page(1, -8),
                                   Page(1, 0), Page(2, -8), Page(2, 0)};
  const List<uint8_t> lengths = Lengths({0, 1, 8, 2048, 2049, 4096, 4097, 8192});
  constexpr uint64_t kBadOrNone = 1 + std::size(kBad) * kPages;
  for (size_t a = 0; a < std::size(kAccesses); ++a) {
    List<Op> ops = OpsOf(kAccesses[a], addresses, lengths);
    for (Op& op : ops) op.target = 1;
    for (uint64_t bad = 0; bad < kBadOrNone; ++bad) {
      Trace trace;
      trace.world = bad == 0 ? ThreePages() : WithBadPage(kBad[(bad - 1) / kPages], (bad - 1) % kPages, kAccesses[a]);
      trace.ops.resize(1);
      trace.ops.insert(trace.ops.end(), ops.begin(), ops.end());
      for (const Address& start : starts) {
        for (const uint8_t size : sizes) {
          trace.ops[0] = ViewOp(0, 1, start, size);
          run.Run(trace, 1);
        }
      }
    }
  }
  run.ExpectCases(starts.size() * sizes.size() * kBadOrNone * OpCount(addresses.size(), lengths.size()),
                  "7 starts x 8 sizes x (1 + 4 ways to be bad x 3 pages) x (6 kinds x 9 addresses x 8 lengths + 3 kinds x 4 sizes x 9 addresses)");
}

// The operations that move no bytes × memories of one region and of several, mapped and not, with a bitmap and not, with an
// IOVA and not.
TEST(Exhaustive, QueriesAndViewsOfViews) {
  Enumeration run("queries and views of views", reference::Pace::kPlain);
  constexpr uint64_t kFlags = 16;
  constexpr uint16_t kTrims[] = {0, 1, 4095};
  List<Address> addresses;
  for (const Address& edge : {Page(0, 0), Page(1, 0), Page(2, 0), Page(3, 0), At(Anchor::kEnd, 0, 0), At(Anchor::k2To32, 0, 0),
                              At(Anchor::k2To63, 0, 0), At(Anchor::k2To64, 0, 0)}) {
    for (int delta = -1; delta <= 1; ++delta) addresses.push_back(At(edge.anchor, edge.index, delta));
  }
  constexpr uint8_t kTargets = 3;
  List<Op> ops;
  for (uint8_t target = 0; target < kTargets; ++target) {
    const size_t first_of_target = ops.size();
    ops.push_back(PlainOp(StepKind::kFullMapping));
    for (const Address& at : addresses) {
      ops.push_back(RangeOp(StepKind::kIova, at, 0));
      for (size_t length = 0; length < reference::kLengthCount; ++length) ops.push_back(ViewOp(0, 3, at, static_cast<uint8_t>(length)));
    }
    for (size_t first = 0; first < reference::kGpnCount; ++first) {
      for (size_t second = 0; second < reference::kGpnCount; ++second) {
        ops.push_back(PlainOp(StepKind::kProbeGpns));
        ops.back().gpns = {static_cast<uint8_t>(first), static_cast<uint8_t>(second)};
      }
    }
    for (size_t i = first_of_target; i < ops.size(); ++i) ops[i].target = target;
  }
  Trace trace;
  // View 1 starts inside a page; view 2 is a view of view 1.
  trace.ops.push_back(ViewOp(0, 1, Page(0, 100), Lengths({4097})[0]));
  trace.ops.push_back(ViewOp(1, 2, Page(0, 50), Lengths({4032})[0]));
  trace.ops.insert(trace.ops.end(), ops.begin(), ops.end());
  for (uint64_t flags = 0; flags < kFlags; ++flags) {
    for (const uint16_t trim : kTrims) {
      const std::bitset<4> flag(flags);
      trace.world = ThreePages();
      Backing& backing = trace.world.backings[0];
      backing.trim = trim;
      backing.mapped = flag[0];
      if (flag[1]) SetBits(backing, Access::kRead, 0b101);
      backing.has_iova = flag[2];
      if (flag[3]) {
        trace.world.region_pages = 4;
        trace.world.backings.push_back(backing);
      }
      run.Run(trace, 2);
    }
  }
  run.ExpectCases(kFlags * std::size(kTrims) * kTargets *
                      (1 + addresses.size() * (1 + reference::kLengthCount) + reference::kGpnCount * reference::kGpnCount),
                  "16 memories x 3 trims x 3 handles x (1 + 24 addresses x (1 + every length) + every GPN x every GPN)");
}

// Page states × every call to the sparse mapping × which pages × whether it fails × what an access sees afterwards.
TEST(Exhaustive, HostSideSteps) {
  Enumeration run("host-side steps", reference::Pace::kPlain);
  struct Call {
    StepKind kind;
    uint8_t choice;
  };
  constexpr Call kCalls[] = {{StepKind::kAllocate, 0}, {StepKind::kMapZero, 0}, {StepKind::kProtect, 0},
                             {StepKind::kProtect, 1},  {StepKind::kProtect, 2}, {StepKind::kUnmap, 0}};
  constexpr uint8_t kCounts = reference::kMaxPages + 1;
  constexpr uint8_t kFailing = 2;  // none, or this one
  constexpr uint64_t kOpsEach = 3;
  for (uint64_t triple = 0; triple < kStateTriples; ++triple) {
    for (const Call& call : kCalls) {
      for (uint8_t page = 0; page < reference::kMaxPages; ++page) {
        for (uint8_t count = 0; count < kCounts; ++count) {
          for (uint8_t failing = 0; failing < kFailing; ++failing) {
            Trace trace = {ThreePages(StateTriple(triple)), {}};
            trace.world.failing_host_call = failing;
            Op op = PlainOp(call.kind);
            op.page = page;
            op.count = count;
            op.choice = call.choice;
            trace.ops.push_back(op);
            AddRanges(trace.ops, std::array{StepKind::kRead, StepKind::kFill}, {Page(0, 0)}, Lengths({12288}));
            run.Run(trace);
          }
        }
      }
    }
  }
  run.ExpectCases(kStateTriples * std::size(kCalls) * reference::kMaxPages * kCounts * kFailing * kOpsEach,
                  "64 page states x 6 calls x 4 first pages x 5 counts x 2 failing host calls x 3 operations");
}

// Every bit set and cleared from every state of the bitmap, at every offset, then met by an access of each sort.
TEST(Exhaustive, BitsThatChange) {
  Enumeration run("bits that change", reference::Pace::kPlain);
  constexpr uint64_t kOpsEach = 1 + 3;
  for (size_t a = 0; a < std::size(kAccesses); ++a) {
    for (uint64_t before = 0; before < kSubsets; ++before) {
      for (uint64_t offset = 0; offset < kBitOffsets; ++offset) {
        for (uint8_t page = 0; page < kPages; ++page) {
          for (uint8_t choice = 0; choice < 2; ++choice) {
            Trace trace = {ThreePages(), {}};
            SetBits(trace.world.backings[0], kAccesses[a], before);
            trace.world.backings[0].bit_offset = static_cast<uint8_t>(offset);
            Op op = PlainOp(StepKind::kSetBit);
            op.page = page;
            op.choice = choice;
            op.access = kAccesses[a];
            trace.ops.push_back(op);
            AddRanges(trace.ops, std::array{StepKind::kRead, StepKind::kWrite, StepKind::kProbeExecutable}, {Page(0, 0)}, Lengths({12288}));
            run.Run(trace);
          }
        }
      }
    }
  }
  run.ExpectCases(3 * kSubsets * kBitOffsets * kPages * 2 * kOpsEach, "3 accesses x 8 bitmaps x 8 bit offsets x 3 pages x 2 values x 4 operations");
}

// What moves bytes, once more by the kernels that this CPU does not choose by itself.
TEST(ExhaustiveWithOtherKernels, EngineAndModelAgree) {
  guestmem::test::PassesWithOtherKernels("Exhaustive.EveryEdgeAndLength:Exhaustive.ThreeRegions");
}

}  // namespace
