// What steps use beside memory: host buffers, buffers that the guest describes by page numbers, streams with their limits, what locks
// hold. The engine's subject uses them, and so do the tests that are made of traces, which carry this text by the sections that
// the lines of dashes name.

#ifndef GUESTMEM_REFERENCE_SUPPORT_OBJECTS_H_
#define GUESTMEM_REFERENCE_SUPPORT_OBJECTS_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/lock.h"
#include "guestmem/paged_range.h"
#include "guestmem/stream.h"
#include "reference/world/backings.h"

namespace reference {

// ---- AtomicsOf AsBytes HostBuffer
// Safe because an atomic byte has a byte's representation.
inline std::span<std::atomic<uint8_t>> AtomicsOf(std::span<std::byte> bytes) {
  return {reinterpret_cast<std::atomic<uint8_t>*>(bytes.data()), bytes.size()};
}

inline std::span<const uint8_t> AsBytes(const auto& objects) {
  const auto bytes = std::as_bytes(std::span(objects));
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

// Host bytes between two guards, all kUntouched at first.
class HostBuffer {
 public:
  explicit HostBuffer(uint64_t size = 0, uint64_t misaligned = 0) { Start(size, misaligned); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  // Anew; `misaligned` by so many bytes from the start of a cache line.
  void Start(uint64_t size, uint64_t misaligned = 0) {
    constexpr uint64_t kLine = 64;
    size_ = size;
    if (storage_.size() < size + 2 * kGuardBytes + 2 * kLine) storage_.resize(size + 2 * kGuardBytes + 2 * kLine);
    start_ = storage_.data() + (kLine - reinterpret_cast<uintptr_t>(storage_.data()) % kLine) + misaligned;
    std::memset(start_, kUntouched, size + 2 * kGuardBytes);
  }
  void PutData(uint64_t seed) { PutDataPattern(seed, {start_ + kGuardBytes, size_}); }

  std::span<std::byte> bytes() { return {reinterpret_cast<std::byte*>(start_ + kGuardBytes), size_}; }
  std::byte* data() { return bytes().data(); }
  std::span<const uint8_t> guarded() const { return {start_, size_ + 2 * kGuardBytes}; }
  // The bytes; with their guards, if something was stored there.
  std::span<const uint8_t> Seen() const {
    const auto untouched = [&](uint64_t at) {
      return std::all_of(start_ + at, start_ + at + kGuardBytes, [](uint8_t byte) { return byte == kUntouched; });
    };
    return untouched(0) && untouched(kGuardBytes + size_) ? guarded().subspan(kGuardBytes, size_) : guarded();
  }

 private:
  std::vector<uint8_t> storage_;
  uint8_t* start_ = nullptr;
  uint64_t size_ = 0;
};

// ---- RangeBuffer
// A paged range or, once something was appended to it, a list of them; at first an empty list. What does not fit is false, and changes
// nothing.
class RangeBuffer {
 public:
  bool Set(uint64_t offset, uint64_t length, std::vector<uint64_t> gpns) {
    auto storage = std::make_shared<Storage>();
    const auto range = storage->Keep(offset, length, std::move(gpns));
    if (range) *this = RangeBuffer(std::move(storage), *range);
    return range.has_value();
  }
  // One more member: at most kMembers have bytes.
  bool Append(uint64_t offset, uint64_t length, std::vector<uint64_t> gpns) {
    const std::vector<guestmem::PagedRange> before = Members();
    auto storage = std::make_shared<Storage>();
    storage->gpns.reserve(kMembers + 1);
    for (const guestmem::PagedRange& part : before) storage->Add(storage->Keep(part.offset(), part.length(), {part.gpns().begin(), part.gpns().end()}).value());
    const auto range = storage->Keep(offset, length, std::move(gpns));
    if (!range || before.size() == kMembers) return false;
    storage->Add(*range);
    const guestmem::PagedRanges list = guestmem::PagedRanges::Create(storage->members).value();
    *this = RangeBuffer(std::move(storage), list);
    return true;
  }
  bool Skip(uint64_t length) {
    return std::visit([&](auto& view) { return view.Skip(length); }, view_);
  }
  bool Truncate(uint64_t length) {
    return std::visit([&](auto& view) { return view.Truncate(length); }, view_);
  }
  bool Subrange(uint64_t offset, uint64_t length) {
    return std::visit([&](auto& view) {
      const auto part = view.Subrange(offset, length);
      if (part) view = *part;
      return part.has_value();
    }, view_);
  }
  // Keeps the first `length` bytes; `others` becomes the rest.
  bool Split(uint64_t length, RangeBuffer& others) {
    return std::visit([&](auto& view) {
      const auto parts = view.Split(length);
      if (parts) {
        view = parts->first;
        others = RangeBuffer(storage_, parts->second);
      }
      return parts.has_value();
    }, view_);
  }

  uint64_t length() const {
    return std::visit([](const auto& view) { return view.length(); }, view_);
  }
  std::vector<uint64_t> Lengths() const { return {length()}; }
  const guestmem::PagedRange& range() const { return std::get<guestmem::PagedRange>(view_); }
  const guestmem::PagedRanges& list() const { return std::get<guestmem::PagedRanges>(view_); }
  const auto& view() const { return view_; }
  std::vector<RangePart> Parts() const {
    std::vector<RangePart> parts;
    for (const guestmem::PagedRange& member : Members()) parts.push_back(Show(member));
    return parts;
  }

 private:
  // What the views look at.
  struct Storage {
    std::vector<std::vector<uint64_t>> gpns;
    std::vector<guestmem::PagedRange> members;

    std::optional<guestmem::PagedRange> Keep(uint64_t offset, uint64_t length, std::vector<uint64_t> list) {
      gpns.push_back(std::move(list));
      return guestmem::PagedRange::Create(offset, length, gpns.back());
    }
    void Add(const guestmem::PagedRange& member) {
      members.push_back(member);
      members.emplace_back();  // empty ones anywhere mean nothing
    }
  };

  // Those that have bytes. Both spellings of an iterator's step must give the same.
  std::vector<guestmem::PagedRange> Members() const {
    std::vector<guestmem::PagedRange> members;
    if (const auto* range = std::get_if<guestmem::PagedRange>(&view_)) {
      if (!range->empty()) members.push_back(*range);
      return members;
    }
    for (const guestmem::PagedRange& member : list()) members.push_back(member);
    size_t i = 0;
    for (auto member = list().begin(); member != list().end(); member++, ++i) {
      if (i >= members.size() || member->length() != members[i].length()) members.clear();
    }
    return members;
  }
  static RangePart Show(const guestmem::PagedRange& range) {
    RangePart part = {range.offset(), range.length(), {range.gpns().begin(), range.gpns().end()}};
    for (const auto& [run, invalid_gpn] : range.ranges()) {
      if (invalid_gpn) {
        part.invalid_gpn = invalid_gpn;
      } else {
        part.runs.push_back({run.start, run.length});
      }
    }
    size_t i = 0;
    const auto runs = range.ranges();
    for (auto run = runs.begin(); run != runs.end(); run++, ++i) {
      const bool same = run->invalid_gpn ? i == part.runs.size() : i < part.runs.size() && run->range.start == part.runs[i].start;
      part.length = same ? part.length : ~part.length;
    }
    return part;
  }

  using View = std::variant<guestmem::PagedRanges, guestmem::PagedRange>;
  RangeBuffer(std::shared_ptr<const Storage> storage, const View& view) : storage_(std::move(storage)), view_(view) {}

  std::shared_ptr<const Storage> storage_;
  View view_;

 public:
  RangeBuffer() = default;
};

// ---- Chain Reader Writer
// A stream with up to kLimits limits inside each other; at first over nothing.
template <typename Stream, typename SpanStream, template <typename> typename PagedStream, typename Limited>
class Chain {
 public:
  Chain() { OpenHost(0); }
  // False: the stream says that it is over something else.
  bool Open(const guestmem::GuestMemory& memory, const RangeBuffer& buffer) {
    *this = {};
    buffer_ = buffer;
    host_ = nullptr;
    return std::visit([&]<typename Range>(const Range& range) {
      auto stream = std::make_unique<PagedStream<Range>>(memory, range);
      const bool same = stream->rest().length() == range.length();
      stream_ = std::move(stream);
      return same;
    }, buffer_.view());
  }
  void OpenHost(uint64_t length) {
    limits_.clear();
    host_ = std::make_unique<HostBuffer>(length);
    stream_ = std::make_unique<SpanStream>(host_->bytes());
  }
  void OpenData(uint64_t length, uint64_t seed) {
    OpenHost(length);
    host_->PutData(seed);
  }
  bool Limit(uint64_t length) {
    if (limits_.size() == kLimits) return false;
    limits_.push_back(std::make_unique<Limited>(outermost(), length));
    return true;
  }
  void DropLimit() {
    if (!limits_.empty()) limits_.pop_back();
  }
  Stream& outermost() { return limits_.empty() ? *stream_ : *limits_.back(); }
  // What remains of the stream, then of each limit from the innermost on.
  std::vector<uint64_t> Lengths() const {
    std::vector<uint64_t> lengths = {stream_->remaining()};
    for (const auto& limit : limits_) lengths.push_back(limit->remaining());
    return lengths;
  }
  // Null: it is over guest memory.
  const HostBuffer* host() const { return host_.get(); }

 private:
  RangeBuffer buffer_;
  std::unique_ptr<HostBuffer> host_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<Limited>> limits_;
};

using Reader = Chain<guestmem::MemoryReader, guestmem::SpanReader, guestmem::BasicPagedReader, guestmem::LimitedReader>;

using Writer = Chain<guestmem::MemoryWriter, guestmem::SpanWriter, guestmem::BasicPagedWriter, guestmem::LimitedWriter>;

// ---- SpansOf StartOf ExchangeAt
// What a lock holds, as the kernel would get it.
struct HeldSpan {
  const void* base;
  uint64_t length;
  uint64_t gpa;
  bool operator==(const HeldSpan&) const = default;
};
inline std::vector<HeldSpan> SpansOf(const guestmem::detail::Lock& lock, bool for_kernel) {
  const guestmem::GuestSpans held = lock.spans();
  const std::span<const iovec> iovecs = lock.iovecs();
  if (iovecs.size() != (for_kernel ? held.size() : 0)) return {{nullptr, iovecs.size(), 0}};  // not what anybody expects
  std::vector<HeldSpan> spans;
  for (const guestmem::GuestSpan span : held) {
    const iovec vector = for_kernel ? iovecs[spans.size()] : span.ToIovec();
    spans.push_back({vector.iov_base, vector.iov_len == span.size() ? vector.iov_len : 0, span.gpa()});
  }
  return spans;
}

// The first `length` bytes of a span.
inline std::span<std::byte> StartOf(const guestmem::GuestSpan& span, uint64_t length) {
  return {static_cast<std::byte*>(span.ToIovec().iov_base), length};
}

// The byte there, which becomes `value` if the lock is for writing.
inline uint64_t ExchangeAt(const guestmem::GuestSpan& span, uint64_t offset, uint8_t value) {
  const auto writable = span.AtWritable(offset);
  return writable ? writable->exchange(value) : span.At(offset).load();
}

// ---- ExchangeBytes ExchangeOfSizes
// A compare-exchange by bytes.
template <typename T>
guestmem::Result<guestmem::CompareExchangeResult<T>> ExchangeBytes(const guestmem::GuestMemory& memory, uint64_t gpa, T current, T desired) {
  const auto swapped = memory.CompareExchangeBytes(gpa, std::as_writable_bytes(std::span(&current, 1)), std::as_bytes(std::span(&desired, 1)));
  if (!swapped.ok()) return swapped.status();
  return guestmem::CompareExchangeResult<T>{*swapped, current};
}

// One of spans that are so long.
inline guestmem::Status ExchangeOfSizes(const guestmem::GuestMemory& memory, uint64_t gpa, size_t current, size_t desired) {
  std::vector<std::byte> bytes(current);
  const std::vector<std::byte> other(desired);
  return memory.CompareExchangeBytes(gpa, bytes, other).status();
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_SUPPORT_OBJECTS_H_
