// Readers and writers: a buffer or host bytes, a position, and limits.

#include <algorithm>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

namespace reference {
namespace {

bool IsReaderStep(StepKind kind) { return kind >= StepKind::kReaderOpen && kind <= StepKind::kReaderAll; }
bool IsWriterStep(StepKind kind) { return kind >= StepKind::kWriterOpen && kind <= StepKind::kWriterPlain; }

Operation OperationOf(StepKind kind) {
  if (IsReaderStep(kind)) return Operation::kRead;
  return kind == StepKind::kWriterFill ? Operation::kFill : Operation::kWrite;
}

}  // namespace

// What remains under the first so many limits.
uint64_t Model::Remaining(const Stream& stream, uint64_t limits) {
  uint64_t remaining = stream.on_host ? stream.bytes.size() - stream.position : Length(stream.rest);
  for (uint64_t i = 0; i < limits; ++i) remaining = std::min(remaining, stream.limits[i]);
  return remaining;
}

bool Model::CheckRemaining(const Stream& stream, uint64_t want, Outcome& outcome) {
  const uint64_t have = Remaining(stream, stream.limits.size());
  if (want <= have) return true;
  Fail(outcome, ErrorKind::kOutOfRange, std::nullopt);
  outcome.text = ": " + std::to_string(want) + " bytes wanted, " + std::to_string(have) + " left";
  return false;
}

void Model::Advance(Stream& stream, uint64_t count) {
  if (stream.on_host)
    stream.position += count;
  else
    Drop(stream.rest, count);
  for (uint64_t& limit : stream.limits) limit -= count;
}

void Model::OpenStream(const Handle& handle, const Step& step, Stream& stream) {
  stream = {};
  stream.on_host = step.form == 1;
  if (!stream.on_host) {
    stream.memory = handle;
    stream.rest = buffers_[step.object];
    return;
  }
  stream.bytes.assign(step.length, kUntouched);
  if (step.kind == StepKind::kReaderOpen) PutDataPattern(step.value, stream.bytes);
}

bool Model::ReadStream(Stream& stream, uint64_t want, std::span<uint8_t> host, Outcome& outcome) {
  if (!CheckRemaining(stream, want, outcome)) return false;
  if (stream.on_host) {
    std::ranges::copy(std::span(stream.bytes).subspan(stream.position, want), host.begin());
  } else {
    Buffer now = stream.rest;
    Keep(now, want);
    if (!CarryBuffer(stream.memory, StepKind::kRead, now, 0, host, outcome)) return false;
  }
  Advance(stream, want);
  return true;
}

bool Model::WriteStream(Stream& stream, StepKind kind, uint64_t want, uint64_t value, std::span<uint8_t> host, Outcome& outcome) {
  if (!CheckRemaining(stream, want, outcome)) return false;
  if (stream.on_host) {
    const std::span<uint8_t> bytes = std::span(stream.bytes).subspan(stream.position, want);
    if (kind == StepKind::kFill)
      std::ranges::fill(bytes, ByteOf(value, 0));
    else
      std::ranges::copy(host, bytes.begin());
  } else {
    Buffer now = stream.rest;
    Keep(now, want);
    if (!CarryBuffer(stream.memory, kind, now, value, host, outcome)) return false;
  }
  Advance(stream, want);
  return true;
}

// `count` objects of `size` bytes each, in memory that is allocated for them.
bool Model::TakeArray(Stream& stream, uint64_t size, uint64_t count, Outcome& outcome) {
  const uint64_t want = count <= kMaxUint64 / size ? count * size : kMaxUint64;
  if (!CheckRemaining(stream, want, outcome)) return false;
  if (want > 0 && !HostCall()) {
    outcome.text = ": out of memory";
    return Fail(outcome, ErrorKind::kResourceExhausted, std::nullopt);
  }
  std::vector<uint8_t> objects(want);
  if (!ReadStream(stream, want, objects, outcome)) return false;
  outcome.data = objects;
  return true;
}

bool Model::RunStreams(const Handle& handle, const Step& step, Outcome& outcome) {
  const bool writes = IsWriterStep(step.kind);
  if (!writes && !IsReaderStep(step.kind)) return false;
  Stream& stream = writes ? writers_[step.object] : readers_[step.object];
  std::vector<uint8_t> host;
  switch (step.kind) {
    case StepKind::kReaderOpen:
    case StepKind::kWriterOpen:
      OpenStream(handle, step, stream);
      break;
    case StepKind::kReaderLimit:
    case StepKind::kWriterLimit:
      if (step.form == 1) {
        if (!stream.limits.empty()) stream.limits.pop_back();
      } else {
        outcome.refused = stream.limits.size() == kLimits;
        if (!outcome.refused) stream.limits.push_back(step.length);
      }
      break;
    case StepKind::kReaderRead:
      outcome.data.assign(kGuardBytes + step.length + kGuardBytes, kUntouched);
      ReadStream(stream, step.length, std::span(outcome.data).subspan(kGuardBytes, step.length), outcome);
      break;
    case StepKind::kReaderSkip:
      if (CheckRemaining(stream, step.length, outcome)) Advance(stream, step.length);
      break;
    case StepKind::kReaderPlain:
      host.resize(step.size);
      if (ReadStream(stream, step.size, host, outcome)) outcome.number = LittleEndian(host);
      break;
    case StepKind::kReaderArray:
      TakeArray(stream, step.size, step.length, outcome);
      break;
    case StepKind::kReaderAll:
      TakeArray(stream, 1, Remaining(stream, stream.limits.size()), outcome);
      break;
    case StepKind::kWriterWrite:
      host.resize(step.length);
      PutDataPattern(step.value, host);
      WriteStream(stream, StepKind::kWrite, step.length, 0, host, outcome);
      break;
    case StepKind::kWriterFill:
      WriteStream(stream, StepKind::kFill, step.length, step.value, {}, outcome);
      break;
    case StepKind::kWriterPlain:
      for (uint64_t i = 0; i < step.size; ++i) host.push_back(ByteOf(step.value, i));
      WriteStream(stream, StepKind::kWrite, step.size, 0, host, outcome);
      break;
    default:
      break;
  }
  for (uint64_t i = 0; i <= stream.limits.size(); ++i) outcome.lengths.push_back(Remaining(stream, i));
  if (writes && stream.on_host) {
    outcome.data.assign(kGuardBytes + stream.bytes.size() + kGuardBytes, kUntouched);
    std::copy(stream.bytes.begin(), stream.bytes.end(), outcome.data.begin() + kGuardBytes);
  }
  if (outcome.ok) return true;
  outcome.operation = OperationOf(step.kind);
  const std::string cause = outcome.text;
  outcome.text.clear();
  Describe(outcome, cause.empty() ? stream.memory.name : kStreamName);
  outcome.text += cause;
  return true;
}

}  // namespace reference
