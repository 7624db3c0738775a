// The checker against brute force on every history of up to six operations of a small world, and against planted ones.

#include "reference/schedule/linearizability.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace reference::schedule {
namespace {

using Ops = std::vector<GranuleOp>;

// Brute force: the operations in every order, each order that respects time tried from its first operation to its last.
using Orders = std::vector<std::vector<int>>;

Orders OrdersInTime(const Ops& ops) {
  std::vector<int> order(ops.size());
  std::iota(order.begin(), order.end(), 0);
  Orders orders;
  do {
    bool in_time = true;
    for (size_t i = 0; i < order.size(); ++i) {
      for (size_t j = i + 1; j < order.size(); ++j) {
        in_time &= !(ops[order[j]].end < ops[order[i]].start);
      }
    }
    if (in_time) {
      orders.push_back(order);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return orders;
}

bool Explains(const std::vector<int>& order, const Ops& ops, uint64_t initial) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<uint8_t>(initial >> (i * 8));
  }
  for (const int i : order) {
    const GranuleOp& op = ops[i];
    for (int b = 0; b < op.size; ++b) {
      uint8_t& byte = bytes[op.offset + b];
      if (op.reads && byte != static_cast<uint8_t>(op.seen >> (b * 8))) {
        return false;
      }
      if (op.writes) {
        byte = static_cast<uint8_t>(op.written >> (b * 8));
      }
    }
  }
  return true;
}

// Every way that `count` intervals can lie in time, up to their numbering: sequences in which each next event begins an
// operation or ends one. A run of beginnings, or of endings, may come in any order without a change.
void Timings(size_t count, Ops& ops, std::vector<int>& open, uint64_t now, std::set<std::vector<uint64_t>>& seen,
             std::vector<Ops>& out) {
  if (ops.size() == count && open.empty()) {
    // Two timings with the same order relation are one.
    std::vector<uint64_t> relation;
    for (const GranuleOp& a : ops) {
      uint64_t before = 0;
      for (size_t j = 0; j < ops.size(); ++j) {
        before |= static_cast<uint64_t>(ops[j].end < a.start) << j;
      }
      relation.push_back(before);
    }
    if (seen.insert(relation).second) {
      out.push_back(ops);
    }
    return;
  }
  if (ops.size() < count) {
    ops.push_back({.start = now, .end = 0});
    open.push_back(static_cast<int>(ops.size()) - 1);
    Timings(count, ops, open, now + 1, seen, out);
    open.pop_back();
    ops.pop_back();
  }
  for (size_t i = 0; i < open.size(); ++i) {
    const int op = open[i];
    open.erase(open.begin() + static_cast<ptrdiff_t>(i));
    ops[op].end = now;
    Timings(count, ops, open, now + 1, seen, out);
    open.insert(open.begin() + static_cast<ptrdiff_t>(i), op);
  }
}

std::vector<Ops> AllTimings(size_t count) {
  Ops ops;
  std::vector<int> open;
  std::set<std::vector<uint64_t>> seen;
  std::vector<Ops> out;
  Timings(count, ops, open, 1, seen, out);
  return out;
}

GranuleOp Read(uint64_t seen, uint8_t offset = 0, uint8_t size = 8) {
  return {.offset = offset, .size = size, .reads = true, .seen = seen};
}
GranuleOp Write(uint64_t written, uint8_t offset = 0, uint8_t size = 8) {
  return {.offset = offset, .size = size, .writes = true, .written = written};
}
GranuleOp Swap(uint64_t seen, uint64_t written, uint8_t offset = 0, uint8_t size = 8) {
  return {.offset = offset, .size = size, .reads = true, .writes = true, .seen = seen, .written = written};
}

// Compares checker and brute force on every timing of `count` operations with every assignment of the alphabet.
void CompareAll(size_t count, const Ops& alphabet) {
  uint64_t histories = 0, legal = 0;
  for (Ops ops : AllTimings(count)) {
    const Orders orders = OrdersInTime(ops);
    std::vector<size_t> letter(count, 0);
    for (bool more = true; more;) {
      for (size_t i = 0; i < count; ++i) {
        const auto [start, end] = std::pair(ops[i].start, ops[i].end);
        ops[i] = alphabet[letter[i]];
        ops[i].start = start;
        ops[i].end = end;
      }
      const bool expected = std::any_of(orders.begin(), orders.end(), [&](const auto& order) { return Explains(order, ops, 0); });
      ASSERT_EQ(IsLinearizable(ops, 0), expected) << "history " << histories << " of " << count;
      ++histories;
      legal += expected;
      more = false;
      for (size_t i = 0; i < count && !more; ++i) {
        letter[i] = (letter[i] + 1) % alphabet.size();
        more = letter[i] != 0;
      }
    }
  }
  std::printf("%zu operations: %lu histories, %lu of them linearizable\n", count, histories, legal);
  EXPECT_GT(legal, 0u);
  EXPECT_LT(legal, histories);
}

TEST(Linearizability, AgreesWithBruteForceOnTwoValues) {
  const Ops alphabet = {Write(1), Write(0), Read(0), Read(1), Swap(0, 1), Swap(1, 0)};
  for (size_t count = 1; count <= 5; ++count) {
    CompareAll(count, alphabet);
  }
}

TEST(Linearizability, AgreesWithBruteForceOnSixOperations) { CompareAll(6, {Write(1), Read(0), Read(1), Swap(1, 0)}); }

TEST(Linearizability, AgreesWithBruteForceOnMixedSizes) {
  const Ops alphabet = {Write(0x01010101'01010101), Write(0x02, 3, 1), Write(0x02020202, 4, 4), Read(0x01010101'01010101),
                        Read(0x0101'0202, 2, 4),    Read(0x02, 3, 1),  Swap(0, 0x0202, 2, 2),   Read(0x02020202'01010101)};
  for (size_t count = 1; count <= 4; ++count) {
    CompareAll(count, alphabet);
  }
}

// Operations with their times: planted histories.
GranuleOp At(uint64_t start, uint64_t end, GranuleOp op) {
  op.start = start;
  op.end = end;
  return op;
}

TEST(Linearizability, AcceptsLegalHistories) {
  EXPECT_TRUE(IsLinearizable({}, 0));
  // A write takes effect anywhere in its interval: one read sees it, a later one too, an earlier one not.
  EXPECT_TRUE(IsLinearizable(Ops{At(1, 10, Write(7)), At(2, 3, Read(0)), At(4, 5, Read(7)), At(6, 7, Read(7))}, 0));
  // Two swaps of the same value: one sees the other's.
  EXPECT_TRUE(IsLinearizable(Ops{At(1, 10, Swap(0, 1)), At(1, 10, Swap(1, 2)), At(11, 12, Read(2))}, 0));
  EXPECT_TRUE(IsLinearizable(Ops{At(1, 10, Write(0x02020202, 0, 4)), At(2, 9, Write(0x03030303, 4, 4)),
                                 At(3, 8, Read(0x03030303'00000000))}, 0));
}

TEST(Linearizability, RefusesIllegalHistories) {
  // A value from nowhere; a value gone back; a stale read.
  EXPECT_FALSE(IsLinearizable(Ops{At(1, 2, Read(5))}, 0));
  EXPECT_FALSE(IsLinearizable(Ops{At(1, 10, Write(7)), At(2, 3, Read(7)), At(4, 5, Read(0))}, 0));
  EXPECT_FALSE(IsLinearizable(Ops{At(1, 2, Write(7)), At(3, 4, Read(0))}, 0));
  // A torn value: half of each write.
  EXPECT_FALSE(IsLinearizable(Ops{At(1, 10, Write(0x01010101'01010101)), At(1, 10, Write(0x02020202'02020202)),
                                  At(2, 9, Read(0x01010101'02020202))}, 0));
  // A lost update: both swapped the same value.
  EXPECT_FALSE(IsLinearizable(Ops{At(1, 10, Swap(0, 1)), At(1, 10, Swap(0, 2))}, 0));
  // Two readers who see two writes in opposite orders.
  EXPECT_FALSE(IsLinearizable(Ops{At(1, 20, Write(1)), At(1, 20, Write(2)), At(2, 3, Read(1)), At(4, 5, Read(2)), At(2, 3, Read(2)),
                                  At(4, 5, Read(1))}, 0));
}

}  // namespace
}  // namespace reference::schedule
