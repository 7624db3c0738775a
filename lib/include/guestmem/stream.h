// MemoryReader and MemoryWriter: a buffer used from front to back, in host or guest memory.
//
// A device that parses a request or writes a reply takes one of these and does not care whether the bytes are in a host
// buffer, in pages that the guest listed, or behind an implementation of yours.
//
//   guestmem::Status Parse(guestmem::MemoryReader& reader) {
//     guestmem::Result<Header> header = reader.ReadPlain<Header>();
//     if (!header.ok()) return header.status();
//     guestmem::LimitedReader body(reader, header->body_length);     // cannot run into what follows
//     guestmem::Result<std::vector<Entry>> entries = body.ReadArray<Entry>(header->entries);
//     ...
//   }
//   guestmem::PagedReader reader(memory, *guestmem::PagedRange::Create(offset, length, gpns));
//   guestmem::Status s = Parse(reader);
//
// Errors: a call that asks for more than remaining() fails with kOutOfRange, whose text says how much was wanted and is left, and
// moves nothing. Other errors are those of GuestMemory. After any failed call the position, and so
// remaining(), is where it was, through every limit: the call may be repeated or another tried. (What a failed access had moved
// by then, as ErrorInfo::transferred counts it, has been moved: into the caller's buffer, or into the guest.)
//
// When not: random access; a guest that writes while you read: each byte is fetched once, but two reads of the same place
// through two readers may differ.
//
// Streams are views: the memory, the page list and the spans must outlive them, and an inner stream its limits.
// Threads: one at a time per stream. Signal context: no. Units: bytes, except where a count of objects is asked for.

#ifndef GUESTMEM_STREAM_H_
#define GUESTMEM_STREAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/paged_range.h"
#include "guestmem/plain.h"
#include "guestmem/status.h"

namespace guestmem {

class LimitedReader;
class LimitedWriter;

// The error for asking for `want` bytes of a stream that has `have` left; for implementations of the interfaces.
Status PastStreamEnd(Operation operation, uint64_t want, uint64_t have);

// Where bytes come from. To implement: the three virtual functions, with the guarantee above (checks before it moves
// anything, and does not advance when it fails).
class MemoryReader {
 public:
  virtual ~MemoryReader() = default;

  // Bytes from the position to the end.
  virtual uint64_t remaining() const = 0;
  // Reads destination.size() bytes and advances behind them.
  virtual Status Read(std::span<std::byte> destination) = 0;
  // Advances by `length` bytes without reading them: their pages are not touched.
  virtual Status Skip(uint64_t length) = 0;

  // Reads one T (guestmem/plain.h), as bytes: not a plain access, it may tear.
  template <typename T>
  Result<T> ReadPlain();
  // Reads `count` objects. Errors: also kResourceExhausted, if there is no memory for them; the count is checked against
  // remaining() first, so a guest gets no more allocated than it has bytes.
  template <typename T>
  Result<std::vector<T>> ReadArray(uint64_t count);
  // Reads all that remains.
  Result<std::vector<std::byte>> ReadAll() { return ReadArray<std::byte>(remaining()); }

 protected:
  MemoryReader() = default;
  MemoryReader(const MemoryReader&) = default;
  MemoryReader& operator=(const MemoryReader&) = default;

 private:
  friend class LimitedReader;
  virtual LimitedReader* AsLimit() { return nullptr; }
};

// Where bytes go to. To implement: as MemoryReader.
class MemoryWriter {
 public:
  virtual ~MemoryWriter() = default;

  virtual uint64_t remaining() const = 0;
  // Writes the bytes and advances behind them.
  virtual Status Write(std::span<const std::byte> source) = 0;
  // Writes `length` times `value`.
  virtual Status Fill(std::byte value, uint64_t length) = 0;

  Status Zero(uint64_t length) { return Fill(std::byte{}, length); }
  // Writes one T's bytes; it may tear.
  template <typename T>
  Status WritePlain(const std::type_identity_t<T>& value);

 protected:
  MemoryWriter() = default;
  MemoryWriter(const MemoryWriter&) = default;
  MemoryWriter& operator=(const MemoryWriter&) = default;

 private:
  friend class LimitedWriter;
  virtual LimitedWriter* AsLimit() { return nullptr; }
};

// Over host bytes.
class SpanReader final : public MemoryReader {
 public:
  explicit SpanReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <detail::OwningTemporary Bytes>
  explicit SpanReader(Bytes&&) = delete;
  uint64_t remaining() const override { return rest_.size(); }
  Status Read(std::span<std::byte> destination) override;
  Status Skip(uint64_t length) override;

 private:
  std::span<const std::byte> rest_;
};

class SpanWriter final : public MemoryWriter {
 public:
  explicit SpanWriter(std::span<std::byte> bytes) : rest_(bytes) {}
  template <detail::OwningTemporary Bytes>
  explicit SpanWriter(Bytes&&) = delete;
  uint64_t remaining() const override { return rest_.size(); }
  Status Write(std::span<const std::byte> source) override;
  Status Fill(std::byte value, uint64_t length) override;

 private:
  std::span<std::byte> rest_;
};

// Over pages of guest memory: `Range` is PagedRange or PagedRanges. Errors: also those of GuestMemory::ReadRange; an invalid
// GPN is met by the call that reads its bytes, not by one that skips them. Holds its own handle of the memory.
template <typename Range>
class BasicPagedReader final : public MemoryReader {
 public:
  BasicPagedReader(GuestMemory memory, const Range& range) : memory_(std::move(memory)), rest_(range) {}
  uint64_t remaining() const override { return rest_.length(); }
  Status Read(std::span<std::byte> destination) override;
  Status Skip(uint64_t length) override;
  // What has not been read.
  const Range& rest() const& { return rest_; }
  Range rest() const&& { return rest_; }

 private:
  GuestMemory memory_;
  Range rest_;
};
using PagedReader = BasicPagedReader<PagedRange>;
using PagedRangesReader = BasicPagedReader<PagedRanges>;

template <typename Range>
class BasicPagedWriter final : public MemoryWriter {
 public:
  BasicPagedWriter(GuestMemory memory, const Range& range) : memory_(std::move(memory)), rest_(range) {}
  uint64_t remaining() const override { return rest_.length(); }
  Status Write(std::span<const std::byte> source) override;
  Status Fill(std::byte value, uint64_t length) override;
  const Range& rest() const& { return rest_; }
  Range rest() const&& { return rest_; }

 private:
  GuestMemory memory_;
  Range rest_;
};
using PagedWriter = BasicPagedWriter<PagedRange>;
using PagedRangesWriter = BasicPagedWriter<PagedRanges>;

namespace detail {

// What LimitedReader and LimitedWriter have in common: limits within limits are a list, walked and not descended into, since a
// guest may choose how deep it is.
template <typename Stream>
class LimitOf : public Stream {
 public:
  uint64_t remaining() const final {
    uint64_t least = stream_.remaining();
    for (const LimitOf* limit = this; limit != nullptr; limit = limit->within_) {
      least = std::min(least, limit->left_);
    }
    return least;
  }

 protected:
  LimitOf(Stream& stream, LimitOf* within, uint64_t limit)
      : stream_(within == nullptr ? stream : within->stream_), within_(within), left_(limit) {}

  // Lets `call` have `length` bytes of the stream.
  template <typename Call>
  Status Pass(Operation operation, uint64_t length, Call call) {
    if (const uint64_t have = remaining(); length > have) {
      return PastStreamEnd(operation, length, have);
    }
    Status status = call(stream_);
    for (LimitOf* limit = this; status.ok() && limit != nullptr; limit = limit->within_) {
      limit->left_ -= length;
    }
    return status;
  }

 private:
  Stream& stream_;         // which is no limit
  LimitOf* const within_;  // null: this is the innermost
  uint64_t left_;
};

}  // namespace detail

// At most `limit` bytes of another stream, which advances along and may be used again afterwards (or meanwhile: what
// remains is then the smaller of both). Limits nest. A limit beyond the inner stream's end has no effect.
class LimitedReader final : public detail::LimitOf<MemoryReader> {
 public:
  LimitedReader(MemoryReader& inner, uint64_t limit) : LimitOf(inner, inner.AsLimit(), limit) {}
  Status Read(std::span<std::byte> destination) override;
  Status Skip(uint64_t length) override;

 private:
  LimitedReader* AsLimit() override { return this; }
};

class LimitedWriter final : public detail::LimitOf<MemoryWriter> {
 public:
  LimitedWriter(MemoryWriter& inner, uint64_t limit) : LimitOf(inner, inner.AsLimit(), limit) {}
  Status Write(std::span<const std::byte> source) override;
  Status Fill(std::byte value, uint64_t length) override;

 private:
  LimitedWriter* AsLimit() override { return this; }
};

namespace detail {

// Whether an allocation sized by a guest may be tried (detail/host_calls.h).
bool MayAllocate();
[[gnu::cold]] Status NoStreamMemory();

// `count` zeroed objects. False: there is no memory for them.
template <typename T>
bool AllocateObjects(uint64_t count, std::vector<T>& objects) {
  if (count == 0) {
    return true;
  }
  if (count > objects.max_size() || !MayAllocate()) {
    return false;
  }
#if defined(__cpp_exceptions)
  try {
    objects.resize(count);
  } catch (const std::bad_alloc&) {
    return false;
  }
#else
  // Without exceptions the vector would abort, and the guest may have chosen the count.
  void* const probe = ::operator new(count * sizeof(T), std::nothrow);
  if (probe == nullptr) {
    return false;
  }
  ::operator delete(probe);
  objects.resize(count);
#endif
  return true;
}

}  // namespace detail

template <typename T>
Result<T> MemoryReader::ReadPlain() {
  GUESTMEM_REQUIRE_PLAIN(T);
  std::array<std::byte, sizeof(T)> value;  // T need not have a default
  Status status = Read(value);
  return status.ok() ? Result<T>(std::bit_cast<T>(value)) : Result<T>(std::move(status));
}

template <typename T>
Result<std::vector<T>> MemoryReader::ReadArray(uint64_t count) {
  GUESTMEM_REQUIRE_PLAIN(T);
  const uint64_t have = remaining();
  uint64_t want;
  if (__builtin_mul_overflow(count, sizeof(T), &want)) {
    want = ~uint64_t{0};
  }
  if (count > have / sizeof(T)) {
    return PastStreamEnd(Operation::kRead, want, have);
  }
  std::vector<T> objects;
  if (!detail::AllocateObjects(count, objects)) {
    return detail::NoStreamMemory();
  }
  Status status = Read(std::as_writable_bytes(std::span(objects)));
  return status.ok() ? Result<std::vector<T>>(std::move(objects)) : Result<std::vector<T>>(std::move(status));
}

template <typename T>
Status MemoryWriter::WritePlain(const std::type_identity_t<T>& value) {
  GUESTMEM_REQUIRE_PLAIN(T);
  return Write(std::as_bytes(std::span<const T, 1>(&value, 1)));
}

extern template class BasicPagedReader<PagedRange>;
extern template class BasicPagedReader<PagedRanges>;
extern template class BasicPagedWriter<PagedRange>;
extern template class BasicPagedWriter<PagedRanges>;

}  // namespace guestmem

#endif  // GUESTMEM_STREAM_H_
