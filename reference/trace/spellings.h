// What every sort of trace promises of its spellings, as GoogleTest expectations.

#ifndef GUESTMEM_REFERENCE_TRACE_SPELLINGS_H_
#define GUESTMEM_REFERENCE_TRACE_SPELLINGS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "reference/trace/record.h"
#include "reference/trace/schema.h"

namespace reference::trace {

inline Bytes RandomBytes(std::mt19937& random, size_t size) {
  Bytes bytes(size);
  std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random() % 3 == 0 ? random() : random() % 4); });
  return bytes;
}

template <class Trace>
void ExpectLossless(const Schema& schema, const Trace& trace) {
  EXPECT_EQ(FromBytes<Trace>(schema, Encode(schema, &trace)), trace) << Text(schema, &trace);
  const auto parsed = FromText<Trace>(schema, Text(schema, &trace));
  const auto* const error = std::get_if<TextError>(&parsed);
  ASSERT_EQ(error, nullptr) << Text(schema, &trace) << error->line << ": " << error->reason;
  EXPECT_EQ(std::get<Trace>(parsed), trace) << Text(schema, &trace);
  Trace normal = trace;
  Normalise(schema, &normal);
  EXPECT_EQ(normal, trace) << Text(schema, &trace);
}

// Every kind with every field at random, then bytes without any order: each is a legal trace that both spellings keep.
template <class Trace>
void ExpectEveryByteStringIsATrace(const Schema& schema) {
  std::mt19937 random(1);
  for (const Section& section : schema.sections) {
    for (const Kind& kind : section.kinds) {
      for (int i = 0; i < 200; ++i) {
        Bytes bytes = RandomBytes(random, schema.record_bytes);
        bytes[0] = kind.number;
        ExpectLossless(schema, FromBytes<Trace>(schema, bytes));
      }
    }
  }
  for (int i = 0; i < 10'000; ++i) {
    Bytes bytes = RandomBytes(random, random() % (20 * schema.record_bytes));
    for (size_t at = 0; at < bytes.size(); at += schema.record_bytes) bytes[at] = static_cast<uint8_t>(random());
    ExpectLossless(schema, FromBytes<Trace>(schema, bytes));
  }
}

// The bytes of one operation change that operation and nothing else.
template <class Trace>
void ExpectOpsAreIndependent(const Schema& schema) {
  std::mt19937 random(1);
  constexpr size_t kOps = 6;
  for (int i = 0; i < 10'000; ++i) {
    Bytes bytes = RandomBytes(random, kOps * schema.record_bytes);
    for (size_t op = 0; op < kOps; ++op) bytes[op * schema.record_bytes] = schema.ops().kinds[random() % schema.ops().kinds.size()].number;
    const Trace before = FromBytes<Trace>(schema, bytes);
    const size_t at = random() % bytes.size(), op = at / schema.record_bytes;
    bytes[at] = at % schema.record_bytes == 0 ? schema.ops().kinds[random() % schema.ops().kinds.size()].number : static_cast<uint8_t>(random());
    Trace after = FromBytes<Trace>(schema, bytes);
    ASSERT_EQ(after.ops.size(), kOps);
    after.ops[op] = before.ops[op];
    EXPECT_EQ(after, before);
  }
}

}  // namespace reference::trace

#endif  // GUESTMEM_REFERENCE_TRACE_SPELLINGS_H_
