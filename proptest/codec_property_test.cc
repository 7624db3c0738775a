// What both spellings of a trace promise, for any trace and any bytes.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "proptest/generators.h"
#include "reference/lockstep/op_fields.h"
#include "reference/lockstep/trace.h"

namespace {

using reference::FromBytes;
using reference::FromText;
using reference::Op;
using reference::ToBytes;
using reference::ToText;
using reference::Trace;

using Bytes = std::vector<uint8_t>;

Trace Parsed(const std::string& text) {
  auto parsed = FromText(text);
  if (const auto* error = std::get_if<reference::TextError>(&parsed)) {
    RC_LOG() << "line " << error->line << ": " << error->reason << "\n" << text;
    RC_FAIL("our own text is refused");
  }
  return std::get<Trace>(parsed);
}

// Long enough for a header and some ops, or too short for a header.
Bytes RandomBytes() {
  const auto size = *rc::gen::inRange<size_t>(0, reference::kWorldBytes + 12 * reference::kOpBytes);
  return *rc::gen::container<Bytes>(size, rc::gen::arbitrary<uint8_t>());
}

RC_GTEST_PROP(TraceCodec, BytesAreLossless, (const Trace& trace)) { RC_ASSERT(FromBytes(ToBytes(trace)) == trace); }

RC_GTEST_PROP(TraceCodec, TextIsLossless, (const Trace& trace)) { RC_ASSERT(Parsed(ToText(trace)) == trace); }

RC_GTEST_PROP(TraceCodec, AnyBytesAreATraceThatBothSpellingsKeep, ()) {
  const Trace trace = FromBytes(RandomBytes());
  RC_ASSERT(FromBytes(ToBytes(trace)) == trace);
  RC_ASSERT(Parsed(ToText(trace)) == trace);
}

RC_GTEST_PROP(TraceCodec, AnyBytesMakeAWorldWithinItsBounds, ()) {
  const Trace trace = FromBytes(RandomBytes());
  const reference::World& world = trace.world;
  const size_t count = world.backings.size();
  RC_ASSERT(count >= 1 && count <= (world.region_pages == 0 ? 1 : reference::kMaxBackings));
  for (const reference::Backing& backing : world.backings) {
    RC_ASSERT(backing.present || world.region_pages != 0);
    RC_ASSERT(backing.pages >= 1 && backing.pages <= (world.region_pages == 0 ? reference::kMaxPages : world.region_pages));
    RC_ASSERT(backing.trim < reference::kPageSize && backing.bit_offset < 8);
  }
  for (const Op& op : trace.ops) {
    const reference::Step step = reference::Resolve(world, op, 0);
    RC_ASSERT(step.backing < count);
    RC_ASSERT(step.target < reference::kHandles && step.slot >= 1 && step.slot < reference::kHandles);
    const bool buffer = op.kind == reference::StepKind::kRead || op.kind == reference::StepKind::kWrite;
    RC_ASSERT(!buffer || step.length <= reference::kLengths[reference::kBufferLengths - 1]);
  }
}

RC_GTEST_PROP(TraceCodec, ChangingAByteOfAnOpLeavesEverythingElseAlone, ()) {
  const auto ops = *rc::gen::inRange<size_t>(1, 8);
  Bytes bytes = *rc::gen::container<Bytes>(reference::kWorldBytes + ops * reference::kOpBytes, rc::gen::arbitrary<uint8_t>());
  const Trace before = FromBytes(bytes);
  const auto position = *rc::gen::inRange<size_t>(reference::kWorldBytes, bytes.size());
  bytes[position] = *rc::gen::arbitrary<uint8_t>();
  const Trace after = FromBytes(bytes);
  RC_ASSERT(after.world == before.world);
  RC_ASSERT(after.ops.size() == before.ops.size());
  for (size_t i = 0; i < ops; ++i) {
    if (i != (position - reference::kWorldBytes) / reference::kOpBytes) RC_ASSERT(after.ops[i] == before.ops[i]);
  }
}

RC_GTEST_PROP(TraceCodec, ChangingAByteOfTheWorldLeavesTheOpsAlone, ()) {
  Bytes bytes = *rc::gen::container<Bytes>(reference::kWorldBytes + 3 * reference::kOpBytes, rc::gen::arbitrary<uint8_t>());
  const Trace before = FromBytes(bytes);
  bytes[*rc::gen::inRange<size_t>(0, reference::kWorldBytes)] = *rc::gen::arbitrary<uint8_t>();
  RC_ASSERT(FromBytes(bytes).ops == before.ops);
}

RC_GTEST_PROP(TraceCodec, DamagedTextIsRefusedOrKeptButNeverCrashes, (const Trace& trace)) {
  std::string text = ToText(trace);
  const auto edits = *rc::gen::inRange(1, 4);
  for (int i = 0; i < edits; ++i) text[*rc::gen::inRange<size_t>(0, text.size())] = *rc::gen::arbitrary<char>();
  const auto parsed = FromText(text);
  if (const auto* kept = std::get_if<Trace>(&parsed)) {
    RC_ASSERT(Parsed(ToText(*kept)) == *kept);
  } else {
    RC_ASSERT(std::get<reference::TextError>(parsed).line >= 1);
    RC_ASSERT(!std::get<reference::TextError>(parsed).reason.empty());
  }
}

// Trailing bytes that make no whole op, and ops beyond the limit, are dropped.
TEST(TraceCodec, DropsAPartialLastOpAndOpsBeyondTheLimit) {
  const Bytes partial(reference::kWorldBytes + 2 * reference::kOpBytes - 1);
  EXPECT_EQ(FromBytes(partial).ops.size(), 1u);
  const Bytes many(reference::kWorldBytes + (reference::kMaxOps + 3) * reference::kOpBytes);
  EXPECT_EQ(FromBytes(many).ops.size(), reference::kMaxOps);
}

TEST(TraceCodec, NoBytesAndAllZeroBytesAreOneBackingOfThreePagesOfRam) {
  const Trace empty = FromBytes({});
  EXPECT_EQ(empty, FromBytes(Bytes(reference::kWorldBytes)));
  Trace expected;
  expected.world.backings = {reference::Backing{}};
  EXPECT_EQ(empty, expected);
  EXPECT_EQ(empty.world.backings[0].pages, 3);
}

}  // namespace
