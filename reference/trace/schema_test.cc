// The loops over rows, on a sort of trace that has a field of every form.

#include "reference/trace/schema.h"

#include <gtest/gtest.h>

#include <set>

#include "reference/trace/kinds_check.h"
#include "reference/trace/minimise.h"
#include "reference/trace/record.h"
#include "reference/trace/spellings.h"
#include "reference/trace/words.h"

namespace reference::trace {
namespace {

struct Shelf {
  uint8_t boards = 3;
  bool locked = false;
  bool operator==(const Shelf&) const = default;
};
struct Move {
  uint8_t kind = 0, who = 0, shelf = 0;
  int8_t by = 0;
  uint64_t weight = 0;
  uint8_t row = 0, column = 0;
  Bytes books = {};
  bool operator==(const Move&) const = default;
};
struct Library {
  uint8_t readers = 2;
  std::vector<Shelf> shelves = {{}};
  std::vector<Move> ops = {};
  bool operator==(const Library&) const = default;
};

std::string WritePlace(const void* object) {
  const auto& move = *static_cast<const Move*>(object);
  return std::to_string(move.row) + "." + std::to_string(move.column);
}
std::string ReadPlace(std::string_view word, void* object) {
  auto& move = *static_cast<Move*>(object);
  const size_t dot = word.find('.');
  if (dot == word.npos) return Cat({Quoted(word), " is not like 0.1"});
  uint64_t row = 0, column = 0;
  std::string reason = ReadNumber("row", word.substr(0, dot), 0, 3, row);
  if (reason.empty()) reason = ReadNumber("column", word.substr(dot + 1), 0, 3, column);
  move.row = static_cast<uint8_t>(row);
  move.column = static_cast<uint8_t>(column);
  return reason;
}
std::string WriteBy(const void* object) {
  const int by = static_cast<const Move*>(object)->by;
  return by == 0 ? "" : (by > 0 ? "right" : "left") + std::to_string(by > 0 ? by : -by);
}
std::string ReadBy(std::string_view word, void* object) {
  const bool left = word.starts_with("left");
  if (!left && !word.starts_with("right")) return Cat({Quoted(word), " is not like left1 or right1"});
  uint64_t by = 0;
  std::string reason = ReadNumber("by", word.substr(left ? 4 : 5), 1, left ? 128 : 127, by);
  static_cast<Move*>(object)->by = static_cast<int8_t>(left ? -static_cast<int>(by) : static_cast<int>(by));
  return reason;
}
// A move on a shelf that isn't there is one on the first; what is lifted weighs a byte.
void NormalMove(void* object, const void* trace) {
  auto& move = *static_cast<Move*>(object);
  if (move.shelf >= static_cast<const Library*>(trace)->shelves.size()) move.shelf = 0;
  if (move.kind == 1) move.weight &= 0xff;
}

constexpr uint64_t kBooks[] = {7, 11, 70'000, 13};
constexpr std::string_view kSides[] = {"left", "middle", "right"};
constexpr Field kReaders[] = {{.key = "readers", .at = 1, .bits = 2, .number = NumberOf<Library, &Library::readers, 1>(), .spelt = Spelt::kBare,
                               .count = 4, .first = 1, .usual = 1, .what = "a number"}};
constexpr Field kShelf[] = {
    {.key = "boards", .at = 1, .bits = 3, .number = NumberOf<Shelf, &Shelf::boards, 1>(), .spelt = Spelt::kShown, .count = 5, .first = 1,
     .usual = 2},
    {.key = "locked", .at = 1, .bit = 3, .bits = 1, .number = NumberOf<Shelf, &Shelf::locked>(), .spelt = Spelt::kFlag, .count = 2},
};
constexpr Field kMoves[] = {
    {.key = "who", .at = 1, .bits = 1, .number = NumberOf<Move, &Move::who>(), .spelt = Spelt::kPrefix, .count = 2, .what = "a reader"},
    {.at = 2, .number = NumberOf<Move, &Move::row>(), .spelt = Spelt::kHidden, .count = 4},
    {.at = 3, .number = NumberOf<Move, &Move::column>(), .spelt = Spelt::kHidden, .count = 4},
    {.key = "place", .spelling = {WritePlace, ReadPlace}, .spelt = Spelt::kBare, .what = "a place like 0.1"},
    {.at = 4, .list = ListOf<Move, &Move::books>(), .spelt = Spelt::kBare, .values = kBooks, .runs = true, .room = 7, .most = 600, .what = "book"},
    {.key = "side", .at = 4, .bits = 2, .number = NumberOf<Move, &Move::shelf>(), .names = kSides},
    {.at = 5, .number = NumberOf<Move, &Move::by, -128>(), .spelt = Spelt::kHidden, .count = 256, .usual = 128},
    {.key = "by", .spelling = {WriteBy, ReadBy}},
    {.key = "weight", .at = 6, .bits = 64, .number = NumberOf<Move, &Move::weight>(), .spelt = Spelt::kNeeded},
};
constexpr Kind kReadersLine[] = {{0xf0, "readers", Of(0)}};
constexpr Kind kShelfLine[] = {{0xf1, "shelf", Of(0, 1)}};
constexpr uint32_t kPutting = 1, kLifting = 2, kCarrying = 4;
constexpr Kind kOps[] = {
    {0, "put", Of(0, 5, 6, 7, 8), kPutting}, {1, "lift", Of(0, 5, 8), kLifting}, {5, "carry", Of(0, 1, 2, 3, 4), kCarrying}};
constexpr Section kSections[] = {
    {.fields = kReaders, .kinds = kReadersLine, .place = Itself<Library>()},
    {.fields = kShelf, .kinds = kShelfLine, .place = ManyOf<Library, &Library::shelves>(), .least = 1, .most = 3},
    {.fields = kMoves, .kinds = kOps, .place = ManyOf<Library, &Library::ops>(), .kind = NumberOf<Move, &Move::kind>(), .most = 8, .normal = NormalMove},
};
static_assert(Fits(kSections, 14) && !Fits(kSections, 13));
constexpr Table kTable = TableOf(kSections);
constexpr Schema kLibrary = {"guestmem library 1", 14, kSections, &kTable};

Library Parsed(std::string_view text) {
  auto parsed = FromText<Library>(kLibrary, Cat({"guestmem library 1\n", text}));
  const auto* const error = std::get_if<TextError>(&parsed);
  EXPECT_EQ(error, nullptr) << error->line << ": " << error->reason;
  return error == nullptr ? std::get<Library>(parsed) : Library();
}
std::string Refusal(std::string_view text) {
  const auto parsed = FromText<Library>(kLibrary, Cat({"guestmem library 1\n", text}));
  const auto* const error = std::get_if<TextError>(&parsed);
  return error == nullptr ? "accepted" : std::to_string(error->line) + ": " + error->reason;
}

enum class Deed : uint8_t { kPut = 0, kLift = 1, kCarry = 2 };
constexpr Kind kPut = {0, "put", 0}, kLift = {1, "lift", 0}, kCarry = {2, "carry", 0}, kDrop = {3, "drop", 0};
constexpr Kind kDeeds[] = {kPut, kLift, kCarry}, kOneWithoutRow[] = {kPut, kLift}, kMisplaced[] = {kPut, kCarry, kLift},
               kTwice[] = {kPut, kLift, kLift, kCarry}, kRowOfNone[] = {kPut, kLift, kCarry, kDrop};
static_assert(AreKindsOf<Deed>(kDeeds) && !AreKindsOf<Deed>(kOneWithoutRow) && !AreKindsOf<Deed>(kMisplaced) && !AreKindsOf<Deed>(kTwice) &&
              !AreKindsOf<Deed>(kRowOfNone));

TEST(TraceRows, BothSpellingsKeepEveryTrace) {
  ExpectEveryByteStringIsATrace<Library>(kLibrary);
  ExpectOpsAreIndependent<Library>(kLibrary);
}

TEST(TraceRows, ATextIsReadAndWrittenUnchanged) {
  constexpr std::string_view kText =
      "guestmem library 1\nreaders 4\nshelf boards=3\nshelf boards=1 locked\nops\n"
      "1 put side=middle by=left128 weight=0xffffffffffffffff\n0 lift weight=0x1\n0 carry 3.1 7 0x11170*12 13\n";
  const Library library = Parsed(kText.substr(kText.find('\n') + 1));
  EXPECT_EQ(Text(kLibrary, &library), kText);
  EXPECT_EQ(library.readers, 4);
  EXPECT_EQ(library.ops[2].books.size(), 14u);
}

TEST(TraceRows, NoBytesAreTheDefaultTraceAndZerosAreItsFirstOperation) {
  EXPECT_EQ(FromBytes<Library>(kLibrary, {}), Library());
  EXPECT_EQ(FromBytes<Library>(kLibrary, Bytes(13)), Library()) << "a partial record";
  EXPECT_EQ(FromBytes<Library>(kLibrary, Bytes(14)).ops, std::vector<Move>(1));
  EXPECT_EQ(FromBytes<Library>(kLibrary, Bytes(14 * 20)).ops.size(), 8u) << "no more than the most";
}

TEST(TraceRows, AListLongerThanItsRecordGoesOnInMoreRecords) {
  Library library;
  library.ops.resize(2);
  library.ops[0].kind = 5;
  library.ops[0].books.resize(600);
  for (size_t i = 0; i < 600; ++i) library.ops[0].books[i] = i % 4;
  const Bytes bytes = Encode(kLibrary, &library);
  EXPECT_EQ(bytes.size(), 14 * (2 + (600 - 7 + 11) / 12));
  EXPECT_EQ(FromBytes<Library>(kLibrary, bytes), library);
  EXPECT_EQ(Join(kLibrary, Split(kLibrary, bytes)), bytes);
  Bytes longer = bytes;
  longer.insert(longer.end() - 14, bytes.begin() + 14, bytes.begin() + 28);
  EXPECT_EQ(FromBytes<Library>(kLibrary, longer), library) << "600 are the most";
}

TEST(TraceRows, ANewKindTakesNoOtherNumbersMeaning) {
  static constexpr Kind kMoreOps[] = {kOps[0], kOps[1], kOps[2], {9, "drop", Of(0)}};
  static constexpr Section kMore[] = {kSections[0], kSections[1], {.fields = kMoves, .kinds = kMoreOps, .place = kSections[2].place}};
  constexpr Table kLonger = TableOf(kMore);
  for (const int number : {0, 1, 5, 0xf0, 0xf1}) {
    EXPECT_EQ(kLonger[number].section, kTable[number].section) << number;
    EXPECT_EQ(kLonger[number].kind, kTable[number].kind) << number;
  }
  EXPECT_TRUE(kLonger[9].known && !kTable[9].known);
  EXPECT_EQ(kLonger[9].kind, 3);
}

TEST(TraceRows, RefusalsNameTheLineTheWordAndWhatWouldDo) {
  EXPECT_EQ(Refusal("readers\n"), "2: readers needs a number");
  EXPECT_EQ(Refusal("readers 5\n"), "2: readers 5 is too large: the largest is 4");
  EXPECT_EQ(Refusal("shelf\nshelf\nshelf\nshelf\n"), "5: more than 3 shelf lines");
  EXPECT_EQ(Refusal("shelf locked=1\n"), "2: 'locked' takes no value");
  EXPECT_EQ(Refusal("shelf locked locked\n"), "2: 'locked' is given twice");
  EXPECT_EQ(Refusal("ops\nput weight=1\n"), "3: who 'put' is not a number (decimal, or hexadecimal with 0x)");
  EXPECT_EQ(Refusal("ops\nput\n"), "3: expected a reader and an operation, found 'put'");
  EXPECT_EQ(Refusal("ops\n0 throw\n"), "3: unknown operation 'throw'; operations are: put, lift, carry");
  EXPECT_EQ(Refusal("ops\n0 put\n"), "3: put needs weight=");
  EXPECT_EQ(Refusal("ops\n0 put side=top weight=1\n"), "3: unknown side 'top'; sides are: left, middle, right");
  EXPECT_EQ(Refusal("ops\n0 carry\n"), "3: carry needs a place like 0.1");
  EXPECT_EQ(Refusal("ops\n0 carry 1\n"), "3: '1' is not like 0.1");
  EXPECT_EQ(Refusal("ops\n0 carry 0.0 8\n"), "3: book 8 is not in the list of interesting books: 7, 11, 0x11170, 13");
  EXPECT_EQ(Refusal("ops\n0 carry 0.0 80000\n"), "3: book 80000 is too large: carry takes up to 0x11170");
  EXPECT_EQ(Refusal("ops\n0 carry 0.0 7*601\n"), "3: book's count 601 is too large: the largest is 600");
  EXPECT_EQ(Refusal("ops\n0 carry 0.0 7*600 7\n"), "3: more than 600 books");
  EXPECT_EQ(Refusal("ops\n0 lift weight=0x100\n"), "3: weight 0x100 is too large: the largest here is 0xff");
  EXPECT_EQ(Refusal("ops\n0 put side=right weight=1\n"), "3: part of this line has no effect; what has is: 0 put weight=0x1");
}

std::set<int> KindsOf(const Bytes& before, const Profile& profile) {
  std::set<int> kinds;
  for (int number = 0; number < 256; ++number) {
    Bytes bytes = before;
    bytes.resize(before.size() + 14);
    bytes[before.size()] = static_cast<uint8_t>(number);
    for (const Move& move : FromBytes<Library>(kLibrary, bytes, profile).ops) kinds.insert(move.kind);
  }
  return kinds;
}
Bytes LeavingOut(uint8_t kinds) {
  Bytes bytes(14);
  bytes[0] = kSwarm;
  bytes[1] = kinds;
  return bytes;
}

TEST(TraceProfile, HasTheOperationsOfItsGroupsAlone) {
  EXPECT_EQ(KindsOf({}, {}), (std::set{0, 1, 5}));
  EXPECT_EQ(KindsOf({}, {.groups = kPutting | kCarrying}), (std::set{0, 5}));
  EXPECT_EQ(KindsOf({}, {.groups = kLifting}), std::set{1});
  const Library fits = Parsed("ops\n0 carry 1.1 7\n1 put weight=0x1\n");
  EXPECT_EQ(FromBytes<Library>(kLibrary, Encode(kLibrary, &fits), {.groups = kPutting | kCarrying}), fits);
}

TEST(TraceProfile, AnInputLeavesOutKindsOfTheProfile) {
  EXPECT_EQ(KindsOf(LeavingOut(0b001), {}), (std::set{1, 5}));
  EXPECT_EQ(KindsOf(LeavingOut(0b101), {}), std::set{1});
  EXPECT_EQ(KindsOf(LeavingOut(0b110), {.groups = kPutting | kCarrying}), std::set{0});
  EXPECT_EQ(KindsOf(LeavingOut(0b111), {.groups = kPutting | kCarrying}), (std::set{0, 5})) << "without any there would be no trace";
  Bytes two = LeavingOut(0b001);
  two.resize(28);
  const Bytes other = LeavingOut(0b110);
  two.insert(two.end(), other.begin(), other.end());
  two.resize(56);
  const Library library = FromBytes<Library>(kLibrary, two);
  ASSERT_EQ(library.ops.size(), 2u);
  EXPECT_EQ(library.ops[0].kind, 1) << "the records behind it, until the next one";
  EXPECT_EQ(library.ops[1].kind, 0);
  EXPECT_EQ(FromBytes<Library>(kLibrary, Join(kLibrary, Split(kLibrary, two))), library);
}

TEST(TraceProfile, KeepsToItsWorlds) {
  static constexpr Only kWorld[] = {OnlyOf(kSections, "shelf", "", 0, 2), OnlyOf(kSections, "shelf", "boards", 0b10010),
                                    OnlyOf(kSections, "shelf", "locked", 0b10)};
  const Profile profile = {.world = kWorld};
  const auto of = [&](std::string_view text) {
    const Library library = Parsed(text);
    const auto kept = FromBytes<Library>(kLibrary, Encode(kLibrary, &library), profile);
    return Text(kLibrary, &kept);
  };
  EXPECT_EQ(of("ops\n"), "guestmem library 1\nshelf boards=2 locked\nshelf boards=2 locked\nops\n");
  EXPECT_EQ(of("shelf boards=5\nshelf boards=2 locked\nshelf boards=4\nops\n"),
            "guestmem library 1\nshelf boards=5 locked\nshelf boards=2 locked\nshelf boards=5 locked\nops\n");
}

TEST(TraceMinimise, LowersEverySortOfFieldAndKeepsWhatMatters) {
  const Library library = Parsed(
      "readers 4\nshelf boards=5 locked\nshelf boards=4\nops\n1 put side=middle weight=0x7777\n0 lift weight=0x9\n1 carry 3.2 7*20 13 11*9 13 7\n");
  Library best = library;
  const Fails fails = [&](const Bytes& bytes) -> std::optional<Bytes> {
    const auto candidate = FromBytes<Library>(kLibrary, bytes);
    bool heavy = false, thirteen = false;
    for (const Move& move : candidate.ops) {
      heavy |= move.kind == 0 && (move.weight & 0xff00) == 0x7700;
      thirteen |= move.kind == 5 && std::ranges::count(move.books, 3) == 2 && move.row > 1;
    }
    if (!heavy || !thirteen || candidate == best) return std::nullopt;
    best = candidate;
    return Encode(kLibrary, &candidate);
  };
  Minimise(kLibrary, Encode(kLibrary, &library), fails);
  EXPECT_EQ(Text(kLibrary, &best), "guestmem library 1\nshelf boards=3\nops\n0 put weight=0x7700\n0 carry 2.0 13*2\n");
}

TEST(TraceMinimise, EndsWhereEverythingFails) {
  int runs = 0;
  const Bytes least = Minimise(kLibrary, Bytes(14 * 8), [&](const Bytes& bytes) {
    ++runs;
    const auto candidate = FromBytes<Library>(kLibrary, bytes);
    return std::optional(Encode(kLibrary, &candidate));
  });
  EXPECT_TRUE(least.empty());
  EXPECT_LT(runs, 50);
}

}  // namespace
}  // namespace reference::trace
