// What one execution of a target costs, measured by ci/throughput.sh: libFuzzer as it is, but every "mutation" is one of
// a fixed set of traces of 16 operations on memory that is all there, each of which succeeds. Linked with access_fuzzer.cc, or
// with throughput_empty.cc for what libFuzzer and this file cost by themselves.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <random>
#include <utility>
#include <vector>

#include "reference/lockstep/trace_rows.h"
#include "reference/lockstep/trace.h"

namespace {

using reference::Op;
using reference::StepKind;

constexpr size_t kTraces = 1024;  // more than a branch predictor can remember
constexpr int kOps = 16;
constexpr uint64_t kSeed = 1;
constexpr uint64_t kLongest = reference::kPageSize;

// How many operations of a hundred are of each kind: weighted as drivers use them.
constexpr std::pair<StepKind, int> kMix[] = {
    {StepKind::kRead, 24},          {StepKind::kWrite, 20},         {StepKind::kFill, 10},       {StepKind::kReadPlain, 14},
    {StepKind::kWritePlain, 10},    {StepKind::kCompareExchange, 8}, {StepKind::kProbeReadable, 3}, {StepKind::kProbeWritable, 3},
    {StepKind::kProbeExecutable, 2}, {StepKind::kIova, 2},           {StepKind::kSubrange, 2},    {StepKind::kSetBit, 2},
};

class Maker {
 public:
  std::vector<uint8_t> Make() {
    reference::Trace trace;
    reference::Backing backing;
    backing.has_iova = true;
    backing.has_bitmap = UpTo(1) == 0;
    backing.bit_offset = static_cast<uint8_t>(UpTo(7));
    trace.world.backings = {backing};
    for (int i = 0; i < kOps; ++i) trace.ops.push_back(MakeOp());
    return reference::ToBytes(trace);
  }
  uint64_t Kind(StepKind kind) const { return kinds_[static_cast<size_t>(kind)]; }
  uint64_t bytes() const { return bytes_; }

 private:
  uint64_t UpTo(uint64_t most) { return random_() % (most + 1); }

  Op MakeOp() {
    auto pick = static_cast<int>(UpTo(99));
    const auto* choice = std::begin(kMix);
    while (pick >= choice->second) pick -= choice++->second;
    ++kinds_[static_cast<size_t>(choice->first)];
    Op op;
    op.kind = choice->first;
    op.size = static_cast<uint8_t>(UpTo(3));
    op.value = random_();
    op.desired = random_();
    op.seen = UpTo(1) == 0;
    op.choice = op.kind == StepKind::kSetBit ? 1 : static_cast<uint8_t>(UpTo(15));
    do {
      op.length = static_cast<uint8_t>(UpTo(reference::kLengthCount - 1));
    } while (reference::kLengths[op.length] > kLongest);
    // Near the first page's end: inside three pages, and often across an edge.
    op.at = {reference::Anchor::kPage, 1, static_cast<int8_t>(static_cast<int>(UpTo(254)) - 127)};
    if (op.kind == StepKind::kCompareExchange) op.at.delta = static_cast<int8_t>(op.at.delta & -8);
    if (reference::HasField(op.kind, "length")) bytes_ += reference::kLengths[op.length];
    return reference::Normal(op);
  }

  std::mt19937_64 random_{kSeed};
  std::array<uint64_t, 256> kinds_ = {};
  uint64_t bytes_ = 0;
};

const std::vector<std::vector<uint8_t>>& Traces() {
  static const auto* const traces = [] {
    Maker maker;
    auto* made = new std::vector<std::vector<uint8_t>>;
    while (made->size() < kTraces) made->push_back(maker.Make());
    std::printf("throughput: %zu traces of %d operations, %llu bytes an operation on average;", kTraces, kOps,
                static_cast<unsigned long long>(maker.bytes() / (kTraces * kOps)));
    for (const auto& [kind, percent] : kMix) {
      std::printf(" %s %.1f%%", reference::Name(kind).data(), 100.0 * static_cast<double>(maker.Kind(kind)) / (kTraces * kOps));
    }
    std::printf("\n");
    std::fflush(stdout);
    return made;
  }();
  return *traces;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  Traces();
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t, size_t max_size, unsigned int seed) {
  const std::vector<uint8_t>& trace = Traces()[seed % kTraces];
  const size_t size = std::min(trace.size(), max_size);
  std::memcpy(data, trace.data(), size);
  return size;
}
