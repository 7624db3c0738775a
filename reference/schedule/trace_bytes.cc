// The byte spelling, and what both spellings share.
//
//   header                               one op
//    0      threads - 2 (low bit),        0  kind
//           no membarrier (next)
//    1      pages - 1                     1  thread (low two bits), size (next two), part (next three)
//    2      number of ops                 2  page (low two bits), count - 1 (next two), cell (next two)
//    3      number of answers             3  length
//    4..7   answers                       4  access - 1 (so that 0 is 1), form (next bit)
//    8..11  pages: 1 not readable,        5  unused
//           2 not writable, 4 missing, 8 a hole

#include <algorithm>
#include <array>

#include "reference/schedule/trace.h"

namespace reference::schedule {
namespace {

constexpr size_t kAnswersAt = 4;
constexpr size_t kPagesAt = 8;
static_assert(kAnswersAt + kMaxAnswers == kPagesAt && kPagesAt + kMaxPages == kHeaderBytes);

// Which fields a kind uses; the others are at their defaults, which makes both spellings lossless.
Op Normal(Op op, int threads, size_t pages) {
  Op out;
  out.kind = op.kind;
  out.thread = static_cast<uint8_t>(op.thread % threads);
  out.page = static_cast<uint8_t>(op.page % pages);
  const bool plain = op.kind <= OpKind::kCompareExchange || op.kind == OpKind::kSection;
  const bool bulk = op.kind == OpKind::kBulkRead || op.kind == OpKind::kBulkWrite || op.kind == OpKind::kFill;
  const bool bits = op.kind == OpKind::kRevoke || op.kind == OpKind::kGrant;
  if (plain) {
    out.size = op.size & 3;
    out.part = static_cast<uint8_t>((op.part & 7) >> out.size << out.size);
  }
  if (plain || bulk || op.kind == OpKind::kTouch) {
    out.cell = op.cell % kCellCount;
  }
  if (bulk) {
    out.length = op.length % kLengthCount;
  }
  if (bits || op.kind == OpKind::kWaitUnlocked) {
    out.count = static_cast<uint8_t>(std::clamp<size_t>(op.count, 1, pages - out.page));
  }
  if (bits) {
    out.access = static_cast<uint8_t>(1 + (op.access + 2) % 3);
  }
  if (op.kind == OpKind::kRetire || op.kind == OpKind::kLock || op.kind == OpKind::kTouch) {
    out.form = op.form & 1;
  }
  return out;
}

}  // namespace

Trace FromBytes(std::span<const uint8_t> bytes) {
  std::array<uint8_t, kHeaderBytes> header = {};
  const size_t given = std::min(bytes.size(), header.size());
  std::copy_n(bytes.begin(), given, header.begin());
  bytes = bytes.subspan(given);
  Trace trace;
  trace.threads = static_cast<uint8_t>(2 + header[0] % 2);
  trace.membarrier = (header[0] & 2) == 0;
  trace.pages.resize(1 + header[1] % kMaxPages);
  for (size_t i = 0; i < trace.pages.size(); ++i) {
    const uint8_t b = header[kPagesAt + i];
    const bool hole = (b & 8) != 0;
    trace.pages[i] = {(b & 1) == 0, (b & 2) == 0, (b & 4) != 0 && !hole, hole};
  }
  for (size_t i = 0; i < header[3] % (kMaxAnswers + 1); ++i) {
    trace.answers.push_back(static_cast<Answer>(header[kAnswersAt + i] % kAnswers));
  }
  for (size_t left = header[2] % (kMaxOps + 1); left > 0 && bytes.size() >= kOpBytes; --left) {
    const uint8_t* b = bytes.data();
    Op op;
    op.kind = static_cast<OpKind>(b[0] % kOpKinds);
    op.thread = b[1] & 3;
    op.size = b[1] >> 2 & 3;
    op.part = b[1] >> 4 & 7;
    op.page = b[2] & 3;
    op.count = static_cast<uint8_t>((b[2] >> 2 & 3) + 1);
    op.cell = b[2] >> 4 & 3;
    op.length = b[3];
    op.access = static_cast<uint8_t>((b[4] & 3) + 1);
    op.form = b[4] >> 2 & 1;
    trace.ops.push_back(Normal(op, trace.threads, trace.pages.size()));
    bytes = bytes.subspan(kOpBytes);
  }
  for (const uint8_t choice : bytes.first(std::min(bytes.size(), kMaxChoices))) {
    trace.choices.push_back(choice % kChoiceValues);
  }
  return trace;
}

std::vector<uint8_t> ToBytes(const Trace& trace) {
  std::vector<uint8_t> bytes(kHeaderBytes);
  bytes[0] = static_cast<uint8_t>((trace.threads - 2) | (trace.membarrier ? 0 : 2));
  bytes[1] = static_cast<uint8_t>(trace.pages.size() - 1);
  bytes[2] = static_cast<uint8_t>(trace.ops.size());
  bytes[3] = static_cast<uint8_t>(trace.answers.size());
  for (size_t i = 0; i < trace.answers.size(); ++i) {
    bytes[kAnswersAt + i] = static_cast<uint8_t>(trace.answers[i]);
  }
  for (size_t i = 0; i < trace.pages.size(); ++i) {
    const Page& page = trace.pages[i];
    bytes[kPagesAt + i] = static_cast<uint8_t>((page.readable ? 0 : 1) | (page.writable ? 0 : 2) | (page.hole ? 8 : page.missing ? 4 : 0));
  }
  for (const Op& given : trace.ops) {
    const Op op = Normal(given, trace.threads, trace.pages.size());
    bytes.insert(bytes.end(), {static_cast<uint8_t>(op.kind), static_cast<uint8_t>(op.thread | op.size << 2 | op.part << 4),
                               static_cast<uint8_t>(op.page | (op.count - 1) << 2 | op.cell << 4), op.length,
                               static_cast<uint8_t>((op.access - 1) | op.form << 2), 0});
  }
  bytes.insert(bytes.end(), trace.choices.begin(), trace.choices.end());
  return bytes;
}

Trace WithoutHangs(Trace trace) {
  for (Page& page : trace.pages) {
    page.missing = false;
  }
  for (Answer& answer : trace.answers) {
    if (answer == Answer::kRetryForever) {
      answer = Answer::kRetry;
    }
  }
  return trace;
}

Range RangeOf(const Op& op, size_t pages) {
  constexpr uint64_t kPageBytes = 4096;
  const uint64_t start = op.page * kPageBytes + kCells[op.cell];
  switch (op.kind) {
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kCompareExchange:
    case OpKind::kSection:
      return {start + op.part, uint64_t{1} << op.size};
    case OpKind::kBulkRead:
    case OpKind::kBulkWrite:
    case OpKind::kFill:
      return {start, std::min<uint64_t>(kLengths[op.length], pages * kPageBytes - start)};
    case OpKind::kTouch:
      return {start, 8};
    case OpKind::kRevoke:
    case OpKind::kGrant:
    case OpKind::kWaitUnlocked:
      return {op.page * kPageBytes, op.count * kPageBytes};
    default:
      return {op.page * kPageBytes, kPageBytes};
  }
}

}  // namespace reference::schedule
