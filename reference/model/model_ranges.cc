// Paged ranges and lists of them: which bytes of which pages, in which order.

#include <algorithm>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

namespace reference {

void Model::ForgetRanges() {
  for (Buffer& buffer : buffers_) buffer.clear();
  for (Stream& stream : readers_) stream = {};
  for (Stream& stream : writers_) stream = {};
}

uint64_t Model::Length(const Buffer& buffer) {
  uint64_t length = 0;
  for (const PagePart& part : buffer) length += part.length;
  return length;
}

void Model::Drop(Buffer& buffer, uint64_t count) {
  while (count > 0) {
    PagePart& first = buffer.front();
    const uint64_t here = std::min(count, first.length);
    first.offset += here;
    first.length -= here;
    count -= here;
    if (first.length == 0) buffer.erase(buffer.begin());
  }
}

void Model::Keep(Buffer& buffer, uint64_t count) {
  Buffer kept;
  for (PagePart part : buffer) {
    part.length = std::min(count, part.length);
    count -= part.length;
    if (part.length > 0) kept.push_back(part);
  }
  buffer = kept;
}

std::vector<RangePart> Model::Show(const Buffer& buffer) {
  std::vector<RangePart> shown;
  std::optional<uint64_t> member;
  for (const PagePart& page : buffer) {
    const bool first = page.member != member;
    if (first) shown.push_back({.offset = page.offset});
    member = page.member;
    RangePart& part = shown.back();
    const bool next_page = !first && page.gpn > part.gpns.back() && page.gpn - part.gpns.back() == 1;
    part.length += page.length;
    part.gpns.push_back(page.gpn);
    if (part.invalid_gpn) continue;
    if (page.gpn >= kFirstInvalidGpn)
      part.invalid_gpn = page.gpn;
    else if (next_page)
      part.runs.back().length += page.length;
    else
      part.runs.push_back({page.gpn * kPageSize + page.offset, page.length});
  }
  return shown;
}

bool Model::RunRanges(const Handle& handle, const Step& step, Outcome& outcome) {
  Buffer& buffer = buffers_[step.object];
  const uint64_t length = Length(buffer);
  switch (step.kind) {
    case StepKind::kRangeSet:
    case StepKind::kRangeAppend: {
      const bool append = step.kind == StepKind::kRangeAppend;
      const uint64_t whole = step.gpns.size() * kPageSize;
      const bool fits = step.offset <= whole && step.length <= whole - step.offset;
      if (!fits || (append && Show(buffer).size() == kMembers)) {
        outcome.refused = true;
        break;
      }
      const uint64_t member = buffer.empty() ? 0 : buffer.back().member + 1;
      Buffer added;
      for (const uint64_t gpn : step.gpns) added.push_back({member, gpn, 0, kPageSize});
      Drop(added, step.offset);
      Keep(added, step.length);
      if (!append) buffer.clear();
      buffer.insert(buffer.end(), added.begin(), added.end());
      break;
    }
    case StepKind::kRangeSkip:
      outcome.refused = step.length > length;
      if (!outcome.refused) Drop(buffer, step.length);
      break;
    case StepKind::kRangeTruncate:
      outcome.refused = step.length > length;
      if (!outcome.refused) Keep(buffer, step.length);
      break;
    case StepKind::kRangeSubrange:
      outcome.refused = step.offset > length || step.length > length - step.offset;
      if (outcome.refused) break;
      Drop(buffer, step.offset);
      Keep(buffer, step.length);
      break;
    case StepKind::kRangeSplit: {
      outcome.refused = step.length > length;
      if (outcome.refused) break;
      Buffer others = buffer;
      Drop(others, step.length);
      Keep(buffer, step.length);
      buffers_[step.slot] = others;
      break;
    }
    case StepKind::kRangeIterate:
      outcome.parts = Show(buffer);
      break;
    case StepKind::kRangeRead:
    case StepKind::kRangeWrite:
    case StepKind::kRangeFill:
      AccessRange(handle, step, buffer, outcome);
      break;
    default:
      return false;
  }
  outcome.lengths = {Length(buffer)};
  return true;
}

void Model::AccessRange(const Handle& handle, const Step& step, const Buffer& buffer, Outcome& outcome) {
  const uint64_t length = Length(buffer);
  const bool fill = step.kind == StepKind::kRangeFill;
  const bool write = step.kind == StepKind::kRangeWrite;
  if (fill) {
    CarryBuffer(handle, StepKind::kFill, buffer, step.form == 1 ? 0 : LowBytes(step.value, 1), {}, outcome);
  } else {
    if (step.choice == 0 && LiesWithin(step, length)) {
      CarryWithin(handle, step, buffer, outcome);
      if (outcome.ok) return;
      outcome.operation = write ? Operation::kWrite : Operation::kRead;
      Describe(outcome, handle.name);
      return;
    }
    const uint64_t size = step.choice == 1 ? length + 1 : step.choice == 2 && length > 0 ? length - 1 : length;
    outcome.data.assign(kGuardBytes + size + kGuardBytes, kUntouched);
    const std::span<uint8_t> host = std::span(outcome.data).subspan(kGuardBytes, size);
    if (write) PutDataPattern(step.value, host);
    if (size == length)
      CarryBuffer(handle, write ? StepKind::kWrite : StepKind::kRead, buffer, 0, host, outcome);
    else
      Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
  }
  if (outcome.ok) return;
  outcome.operation = fill ? Operation::kFill : write ? Operation::kWrite : Operation::kRead;
  Describe(outcome, handle.name);
}

// Each page's part is an access by itself; what the earlier ones moved is counted with it.
bool Model::CarryBuffer(const Handle& handle, StepKind kind, const Buffer& buffer, uint64_t value, std::span<uint8_t> host, Outcome& outcome) {
  uint64_t done = 0;
  for (const PagePart& part : buffer) {
    if (part.gpn >= kFirstInvalidGpn) {
      outcome.gpn = part.gpn;
      return Fail(outcome, ErrorKind::kInvalidGpn, std::nullopt, done);
    }
    const std::span<uint8_t> here = host.empty() ? host : host.subspan(done, part.length);
    if (!Carry(handle, {kind, part.gpn * kPageSize + part.offset, part.length, value, 0, here, outcome})) {
      outcome.transferred += done;
      return false;
    }
    done += part.length;
  }
  return true;
}

}  // namespace reference
