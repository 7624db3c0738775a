#include "reference/lockstep/engine_ranges.h"

#include <cstring>
#include <utility>

#include "reference/lockstep/engine_observe.h"

namespace reference {
namespace {

using guestmem::GuestMemory;
using guestmem::MemoryReader;
using guestmem::MemoryWriter;
using guestmem::PagedRange;
using guestmem::PagedRanges;

bool IsReaderStep(StepKind kind) { return kind >= StepKind::kReaderOpen && kind <= StepKind::kReaderAll; }
bool IsWriterStep(StepKind kind) { return kind >= StepKind::kWriterOpen && kind <= StepKind::kWriterPlain; }
bool IsRangeStep(StepKind kind) { return kind >= StepKind::kRangeSet && kind <= StepKind::kRangeFill; }

RangePart Show(const PagedRange& range) {
  RangePart part;
  part.offset = range.offset();
  part.length = range.length();
  part.gpns.assign(range.gpns().begin(), range.gpns().end());
  for (const auto& [run, invalid_gpn] : range.ranges()) {
    if (invalid_gpn) {
      part.invalid_gpn = invalid_gpn;
    } else {
      part.runs.push_back({run.start, run.length});
    }
  }
  // The same walk in an iterator's other spelling.
  size_t i = 0;
  const auto runs = range.ranges();
  for (auto run = runs.begin(); run != runs.end(); run++, ++i) {
    const bool same = run->invalid_gpn ? i == part.runs.size() : i < part.runs.size() && run->range.start == part.runs[i].start;
    part.length = same ? part.length : ~part.length;
  }
  return part;
}

// Replaces `view` by `part`, if there is one.
template <typename Range>
bool Keep(Range& view, const std::optional<Range>& part) {
  if (part) {
    view = *part;
  }
  return part.has_value();
}

template <typename Stream>
void ShowLengths(const Stream& stream, const std::vector<std::unique_ptr<Stream>>& limits, Outcome& outcome) {
  outcome.lengths.push_back(stream.remaining());
  for (const auto& limit : limits) {
    outcome.lengths.push_back(limit->remaining());
  }
}

// Puts a limit around `chain`'s outermost stream, or takes the outermost away.
template <typename Limit, typename Chain>
bool ChangeLimit(const Step& step, Chain& chain) {
  if (step.form == 0) {
    if (chain.limits.size() == kLimits) {
      return false;
    }
    chain.limits.push_back(std::make_unique<Limit>(chain.outermost(), step.length));
  } else if (!chain.limits.empty()) {
    chain.limits.pop_back();
  }
  return true;
}

template <typename T>
std::span<const std::byte> Bytes(const std::vector<T>& objects) {
  return std::as_bytes(std::span(objects));
}

void Deliver(std::span<const std::byte> bytes, Outcome& outcome) {
  outcome.data.resize(bytes.size());
  if (!bytes.empty()) {
    std::memcpy(outcome.data.data(), bytes.data(), bytes.size());
  }
}

template <typename Call>
void WithObject(uint8_t size, Call call) {
  switch (size) {
    case 1: return call(uint8_t{});
    case 2: return call(uint16_t{});
    case 4: return call(uint32_t{});
    default: return call(uint64_t{});
  }
}

}  // namespace

void EngineRanges::Forget() {
  if (!std::exchange(used_, false)) {
    return;
  }
  for (size_t i = 0; i < kObjects; ++i) {
    buffers_[i] = {};
    readers_[i] = {};
    readers_[i].stream = std::make_unique<guestmem::SpanReader>(std::span<const std::byte>());
    writers_[i] = {};
    writers_[i].bytes = std::make_unique<std::vector<uint8_t>>(2 * kGuardBytes, kUntouched);
    writers_[i].stream = std::make_unique<guestmem::SpanWriter>(std::span<std::byte>());
  }
}

bool EngineRanges::Run(const GuestMemory& memory, const Step& step, const ScriptedBacking* host, Outcome& outcome) {
  if (!IsRangeStep(step.kind) && !IsReaderStep(step.kind) && !IsWriterStep(step.kind)) {
    return false;
  }
  used_ = true;
  if (IsReaderStep(step.kind)) {
    RunReader(memory, step, outcome);
    return true;
  }
  if (IsWriterStep(step.kind)) {
    RunWriter(memory, step, outcome);
    return true;
  }
  Buffer& buffer = buffers_[step.object];
  if (step.kind >= StepKind::kRangeRead) {
    Access(memory, step, buffer, host, outcome);
  } else {
    RunBuffer(step, buffer, outcome);
  }
  outcome.lengths = {std::visit([](const auto& view) { return view.length(); }, buffer.view)};
  return true;
}

bool EngineRanges::Set(const Step& step, Buffer& buffer) {
  auto storage = std::make_shared<Storage>();
  storage->gpns.push_back(step.gpns);
  const auto range = PagedRange::Create(step.offset, step.length, storage->gpns[0]);
  if (range) {
    buffer = {std::move(storage), *range};
  }
  return range.has_value();
}

bool EngineRanges::Append(const Step& step, Buffer& buffer) {
  std::vector<PagedRange> parts;
  if (const auto* list = std::get_if<PagedRanges>(&buffer.view)) {
    for (const PagedRange& part : *list) {
      parts.push_back(part);
    }
  } else if (const auto& range = std::get<PagedRange>(buffer.view); !range.empty()) {
    parts.push_back(range);
  }
  auto storage = std::make_shared<Storage>();
  for (const PagedRange& part : parts) {
    storage->gpns.emplace_back(part.gpns().begin(), part.gpns().end());
    storage->members.push_back(*PagedRange::Create(part.offset(), part.length(), storage->gpns.back()));
    storage->members.emplace_back();  // empty ones anywhere mean nothing
  }
  storage->gpns.push_back(step.gpns);
  const auto range = PagedRange::Create(step.offset, step.length, storage->gpns.back());
  if (!range || parts.size() == kMembers) {
    return false;
  }
  storage->members.push_back(*range);
  storage->members.emplace_back();
  const PagedRanges list = PagedRanges::Create(storage->members).value();
  buffer = {std::move(storage), list};
  return true;
}

void EngineRanges::RunBuffer(const Step& step, Buffer& buffer, Outcome& outcome) {
  if (step.kind == StepKind::kRangeSet) {
    outcome.refused = !Set(step, buffer);
    return;
  }
  if (step.kind == StepKind::kRangeAppend) {
    outcome.refused = !Append(step, buffer);
    return;
  }
  std::visit([&](auto& view) {
    switch (step.kind) {
      case StepKind::kRangeSkip:
        outcome.refused = !view.Skip(step.length);
        break;
      case StepKind::kRangeTruncate:
        outcome.refused = !view.Truncate(step.length);
        break;
      case StepKind::kRangeSubrange:
        outcome.refused = !Keep(view, view.Subrange(step.offset, step.length));
        break;
      case StepKind::kRangeSplit: {
        const auto parts = view.Split(step.length);
        outcome.refused = !parts;
        if (parts) {
          view = parts->first;
          const Buffer others = {buffer.storage, parts->second};
          buffers_[step.slot] = others;
        }
        break;
      }
      default:
        if constexpr (std::is_same_v<decltype(view), PagedRange&>) {
          if (!view.empty()) {
            outcome.parts.push_back(Show(view));
          }
        } else {
          for (const PagedRange& part : view) {
            outcome.parts.push_back(Show(part));
          }
          size_t i = 0;
          for (auto part = view.begin(); part != view.end(); part++, ++i) {
            outcome.refused |= i >= outcome.parts.size() || part->length() != outcome.parts[i].length;
          }
        }
    }
  }, buffer.view);
}

std::span<uint8_t> EngineRanges::HostBytes(uint64_t length) {
  host_.assign(kGuardBytes + length + kGuardBytes, kUntouched);
  return std::span(host_).subspan(kGuardBytes, length);
}

void EngineRanges::Access(const GuestMemory& memory, const Step& step, const Buffer& buffer, const ScriptedBacking* host,
                          Outcome& outcome) {
  std::visit([&](const auto& view) {
    if (step.kind == StepKind::kRangeFill) {
      Observe(step.form == 1 ? memory.ZeroRange(view) : memory.FillRange(view, static_cast<std::byte>(step.value)), outcome);
      return;
    }
    const uint64_t length = view.length();
    const uint64_t size = step.choice == 1 ? length + 1 : step.choice == 2 && length != 0 ? length - 1 : length;
    uint8_t* const within = host != nullptr && step.choice == 0 ? host->PlainRam(step.HostAddress(), size) : nullptr;
    const std::span<uint8_t> bytes = within != nullptr ? std::span(within, size) : HostBytes(size);
    const std::span<std::atomic<uint8_t>> atomics(Atomic(bytes.data()), bytes.size());
    if (step.kind == StepKind::kRangeRead) {
      Observe(step.form == 1 ? memory.ReadRangeToAtomic(view, atomics) : memory.ReadRange(view, std::as_writable_bytes(bytes)), outcome);
    } else {
      if (within == nullptr) {
        PutDataPattern(step.value, bytes);
      }
      Observe(step.form == 1 ? memory.WriteRangeFromAtomic(view, atomics) : memory.WriteRange(view, std::as_bytes(bytes)), outcome);
    }
    if (within == nullptr) {
      KeepHostBytes(outcome);
    }
  }, buffer.view);
}

template <typename T>
void EngineRanges::ReadObjects(const Step& step, MemoryReader& reader, Outcome& outcome) {
  if (step.kind == StepKind::kReaderPlain) {
    const auto value = reader.ReadPlain<T>();
    Observe(value.status(), outcome);
    if (value.ok()) {
      outcome.number = *value;
    }
  } else {
    const auto objects = reader.ReadArray<T>(step.length);
    Observe(objects.status(), outcome);
    if (objects.ok()) {
      Deliver(Bytes(*objects), outcome);
    }
  }
}

void EngineRanges::RunReader(const GuestMemory& memory, const Step& step, Outcome& outcome) {
  auto& chain = readers_[step.object];
  MemoryReader& reader = chain.outermost();
  switch (step.kind) {
    case StepKind::kReaderOpen:
      chain = {};
      if (step.form == 1) {
        chain.bytes = std::make_unique<std::vector<uint8_t>>(step.length);
        PutDataPattern(step.value, *chain.bytes);
        chain.stream = std::make_unique<guestmem::SpanReader>(Bytes(*chain.bytes));
      } else {
        const Buffer& buffer = buffers_[step.object];
        chain.storage = buffer.storage;
        chain.stream = std::visit([&]<typename Range>(const Range& range) -> std::unique_ptr<MemoryReader> {
          auto reader = std::make_unique<guestmem::BasicPagedReader<Range>>(memory, range);
          outcome.refused = reader->rest().length() != range.length();
          return reader;
        }, buffer.view);
      }
      break;
    case StepKind::kReaderLimit:
      outcome.refused = !ChangeLimit<guestmem::LimitedReader>(step, chain);
      break;
    case StepKind::kReaderRead:
      Observe(reader.Read(std::as_writable_bytes(HostBytes(step.length))), outcome);
      KeepHostBytes(outcome);
      break;
    case StepKind::kReaderSkip:
      Observe(reader.Skip(step.length), outcome);
      break;
    case StepKind::kReaderAll: {
      const auto all = reader.ReadAll();
      Observe(all.status(), outcome);
      if (all.ok()) {
        Deliver(*all, outcome);
      }
      break;
    }
    default:
      WithObject(step.size, [&]<typename T>(T) { ReadObjects<T>(step, reader, outcome); });
  }
  ShowLengths(*chain.stream, chain.limits, outcome);
}

void EngineRanges::RunWriter(const GuestMemory& memory, const Step& step, Outcome& outcome) {
  auto& chain = writers_[step.object];
  MemoryWriter& writer = chain.outermost();
  switch (step.kind) {
    case StepKind::kWriterOpen:
      chain = {};
      if (step.form == 1) {
        chain.bytes = std::make_unique<std::vector<uint8_t>>(kGuardBytes + step.length + kGuardBytes, kUntouched);
        const std::span<uint8_t> bytes = std::span(*chain.bytes).subspan(kGuardBytes, step.length);
        chain.stream = std::make_unique<guestmem::SpanWriter>(std::as_writable_bytes(bytes));
      } else {
        const Buffer& buffer = buffers_[step.object];
        chain.storage = buffer.storage;
        chain.stream = std::visit([&]<typename Range>(const Range& range) -> std::unique_ptr<MemoryWriter> {
          auto writer = std::make_unique<guestmem::BasicPagedWriter<Range>>(memory, range);
          outcome.refused = writer->rest().length() != range.length();
          return writer;
        }, buffer.view);
      }
      break;
    case StepKind::kWriterLimit:
      outcome.refused = !ChangeLimit<guestmem::LimitedWriter>(step, chain);
      break;
    case StepKind::kWriterWrite: {
      const std::span<uint8_t> bytes = HostBytes(step.length);
      PutDataPattern(step.value, bytes);
      Observe(writer.Write(std::as_bytes(bytes)), outcome);
      break;
    }
    case StepKind::kWriterFill:
      Observe(step.value % 256 == 0 ? writer.Zero(step.length) : writer.Fill(static_cast<std::byte>(step.value), step.length), outcome);
      break;
    default:
      WithObject(step.size, [&]<typename T>(T) { Observe(writer.WritePlain<T>(static_cast<T>(step.value)), outcome); });
  }
  ShowLengths(*chain.stream, chain.limits, outcome);
  if (chain.bytes != nullptr) {
    outcome.data = *chain.bytes;
  }
}

}  // namespace reference
