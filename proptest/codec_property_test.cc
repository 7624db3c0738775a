// What both spellings of a trace promise, for any trace and any bytes.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "proptest/generators.h"
#include "reference/lockstep/trace_rows.h"
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

// Some records, or too few bytes for one.
Bytes RandomBytes() {
  const auto size = *rc::gen::inRange<size_t>(0, 16 * reference::kRecordBytes);
  return *rc::gen::container<Bytes>(size, rc::gen::arbitrary<uint8_t>());
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
  EXPECT_EQ(FromBytes(Bytes(2 * reference::kRecordBytes - 1)).ops.size(), 1u);
  EXPECT_EQ(FromBytes(Bytes((reference::kMaxOps + 3) * reference::kRecordBytes)).ops.size(), reference::kMaxOps);
}

TEST(TraceCodec, NoBytesAreOneBackingOfThreePagesOfRam) {
  const Trace empty = FromBytes({});
  Trace expected;
  expected.world.backings = {reference::Backing{}};
  EXPECT_EQ(empty, expected);
  EXPECT_EQ(empty.world.backings[0].pages, 3);
}

}  // namespace
