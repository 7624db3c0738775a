// The mutator changes each field of each kind of operation in place, and says in time everything that a trace can say.

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "fuzz/target.h"
#include "reference/lockstep/trace_parts.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed);
extern "C" size_t LLVMFuzzerMutate(uint8_t*, size_t size, size_t) { return size; }  // libFuzzer's own are not what is tested

const fuzz::InputShape& fuzz::TheShape() {
  static const InputShape shape = {reference::Rows()};
  return shape;
}

namespace {

using namespace reference;

constexpr size_t kMostBytes = (kMostWorld + kMaxOps) * kRecordBytes;

Trace Mutated(const Trace& trace, unsigned seed) {
  std::vector<uint8_t> bytes = ToBytes(trace);
  const size_t size = bytes.size();
  bytes.resize(kMostBytes);
  return FromBytes(std::span(bytes).first(LLVMFuzzerCustomMutator(bytes.data(), size, kMostBytes, seed)));
}

// Operations of every kind, by kind.
std::map<std::string, std::vector<Op>> EveryKind() {
  std::map<std::string, std::vector<Op>> kinds;
  std::mt19937_64 random(2);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<uint8_t> bytes(4 * kRecordBytes);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() >> 24);
    for (const Op& op : FromBytes(bytes).ops) kinds[std::string(Name(op.kind))].push_back(op);
  }
  return kinds;
}

TEST(Mutator, ChangesEachFieldOfEachKindInPlace) {
  unsigned seed = 0;
  const auto kinds = EveryKind();
  EXPECT_GT(kinds.size(), 50u);
  for (const auto& [kind, ops] : kinds) {
    std::set<std::string> fields, changed;
    for (const Op& op : ops) {
      for (const auto& [name, value] : WordsOf(OpText(op))) fields.insert(name);
    }
    for (int i = 0; i < 60'000 && changed != fields; ++i) {
      Trace trace;
      trace.world.backings.resize(1);
      trace.ops = {ops[static_cast<size_t>(i) % ops.size()]};
      const Trace after = Mutated(trace, ++seed);
      if (after.ops.size() != 1) continue;
      const auto old_words = WordsOf(OpText(trace.ops[0])), new_words = WordsOf(OpText(after.ops[0]));
      for (const std::string& name : fields) {
        const auto was = old_words.find(name), is = new_words.find(name);
        const bool differs = (was == old_words.end()) != (is == new_words.end()) || (was != old_words.end() && was->second != is->second);
        // Of the same kind: else a new operation has come in its place.
        if (differs && (name.empty() || old_words.at("") == new_words.at(""))) changed.insert(name);
      }
    }
    for (const std::string& name : fields) EXPECT_TRUE(changed.contains(name)) << kind << ": '" << name << "' is never changed";
  }
}

TEST(Mutator, SaysEverythingThatATraceCanSay) {
  std::set<std::string> said;
  Trace first;
  first.world.region_pages = 4;
  first.world.backings.resize(3);
  for (Backing& backing : first.world.backings) {
    backing.pages = 4;
    backing.has_bitmap = true;
  }
  Trace trace;
  for (unsigned seed = 1; seed < 120'000; ++seed) {
    if (seed % 1000 == 1) trace = first;  // it wanders off from what can say the most
    trace = Mutated(trace, seed);
    if (trace.ops.size() > 12) trace.ops.resize(4);
    AddParts(trace, said);
  }
  for (const std::string& part : EveryPart()) EXPECT_TRUE(said.contains(part)) << part << ": never made";
}

}  // namespace
