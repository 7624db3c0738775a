// Readers and writers: one behaviour over every kind of memory, and a position that failures do not move.

#include "guestmem/stream.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <numeric>
#include <vector>

#include "guestmem/detail/host_calls.h"
#include "guestmem/sparse_mapping.h"

namespace guestmem {
namespace {

using Bytes = std::vector<std::byte>;

Bytes Numbers(size_t count) {
  Bytes bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 3 + 1);
  return bytes;
}

// The same 24 bytes in host memory, in a paged range and in a list of them.
class StreamTest : public testing::Test {
 protected:
  StreamTest() {
    EXPECT_TRUE(memory_.WriteRange(range_, bytes_).ok());
    EXPECT_TRUE(memory_.WriteRange(list_, bytes_).ok());
  }
  std::vector<std::unique_ptr<MemoryReader>> Readers() {
    std::vector<std::unique_ptr<MemoryReader>> readers;
    readers.push_back(std::make_unique<SpanReader>(bytes_));
    readers.push_back(std::make_unique<PagedReader>(memory_, range_));
    readers.push_back(std::make_unique<PagedRangesReader>(memory_, list_));
    return readers;
  }

  const Bytes bytes_ = Numbers(24);
  const GuestMemory memory_ = GuestMemory::Allocate(8 * kPageSize).value();
  const std::array<uint64_t, 2> gpns_ = {6, 2};
  const std::array<uint64_t, 3> list_gpns_ = {1, 0, 4};
  const PagedRange range_ = *PagedRange::Create(kPageSize - 7, 24, gpns_);
  const std::array<PagedRange, 4> members_ = {PagedRange(), *PagedRange::Create(kPageSize - 2, 9, list_gpns_), PagedRange(),
                                              *PagedRange::Create(2 * kPageSize + 1, 15, list_gpns_)};
  const PagedRanges list_ = *PagedRanges::Create(members_);
};

TEST_F(StreamTest, ReadersGiveTheSameWhereverTheBytesAre) {
  for (const auto& reader : Readers()) {
    EXPECT_EQ(reader->remaining(), 24u);
    EXPECT_EQ(reader->ReadPlain<uint32_t>().value(), 0x0a070401u);
    EXPECT_TRUE(reader->Skip(3).ok());
    std::array<std::byte, 5> some;
    EXPECT_TRUE(reader->Read(some).ok());
    EXPECT_EQ(some[0], bytes_[7]);
    EXPECT_EQ(some[4], bytes_[11]);
    EXPECT_EQ(reader->ReadArray<uint16_t>(2).value(), (std::vector<uint16_t>{0x2825, 0x2e2b}));
    EXPECT_EQ(reader->ReadAll().value(), Bytes(bytes_.begin() + 16, bytes_.end()));
    EXPECT_EQ(reader->remaining(), 0u);
    EXPECT_TRUE(reader->ReadAll().value().empty());
    EXPECT_TRUE(reader->Skip(0).ok());
  }
}

TEST_F(StreamTest, WritersPutTheSameWhereverTheBytesGo) {
  struct Header {
    uint16_t a, b, c;
  };
  Bytes expected(24);
  Bytes host(24);
  std::vector<std::unique_ptr<MemoryWriter>> writers;
  writers.push_back(std::make_unique<SpanWriter>(host));
  writers.push_back(std::make_unique<PagedWriter>(memory_, range_));
  writers.push_back(std::make_unique<PagedRangesWriter>(memory_, list_));
  for (const auto& writer : writers) {
    EXPECT_TRUE(writer->Write(std::span(bytes_).first(8)).ok());
    EXPECT_TRUE(writer->Fill(std::byte{0x77}, 5).ok());
    EXPECT_TRUE(writer->WritePlain<Header>({1, 2, 3}).ok());
    EXPECT_TRUE(writer->Zero(writer->remaining()).ok());
    EXPECT_EQ(writer->remaining(), 0u);
  }
  std::copy_n(bytes_.begin(), 8, expected.begin());
  std::fill_n(expected.begin() + 8, 5, std::byte{0x77});
  for (size_t i = 0; i < 3; ++i) expected[13 + 2 * i] = static_cast<std::byte>(i + 1);
  EXPECT_EQ(host, expected);
  EXPECT_EQ(PagedReader(memory_, range_).ReadAll().value(), expected);
  EXPECT_EQ(PagedRangesReader(memory_, list_).ReadAll().value(), expected);
}

TEST_F(StreamTest, AskingForMoreThanRemainsSaysHowMuchAndMovesNothing) {
  constexpr uint64_t kMost = ~uint64_t{0};
  for (const auto& reader : Readers()) {
    Bytes buffer(25, std::byte{0xa5});
    const Status read = reader->Read(buffer);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.kind(), ErrorKind::kOutOfRange);
    EXPECT_EQ(read.ToString(), "guest memory 'stream': read error: failed to access memory: 25 bytes wanted, 24 left");
    EXPECT_EQ(buffer, Bytes(25, std::byte{0xa5}));
    EXPECT_EQ(reader->Skip(kMost).kind(), ErrorKind::kOutOfRange);
    EXPECT_EQ(reader->ReadArray<uint64_t>(4).status().kind(), ErrorKind::kOutOfRange);
    EXPECT_EQ(reader->ReadArray<uint64_t>(kMost / 8 + 2).status().kind(), ErrorKind::kOutOfRange) << "count * 8 wraps to 8";
    EXPECT_EQ(reader->remaining(), 24u);
  }
  Bytes host(3, std::byte{0xa5});
  SpanWriter writer(host);
  EXPECT_EQ(writer.Write(std::span(bytes_).first(4)).kind(), ErrorKind::kOutOfRange);
  EXPECT_EQ(writer.Fill(std::byte{1}, kMost).kind(), ErrorKind::kOutOfRange);
  EXPECT_EQ(writer.WritePlain<uint32_t>(1).kind(), ErrorKind::kOutOfRange);
  EXPECT_EQ(host, Bytes(3, std::byte{0xa5}));
}

TEST_F(StreamTest, LimitsNestAndTheInnerStreamGoesAlong) {
  for (const auto& reader : Readers()) {
    LimitedReader outer(*reader, 16);
    LimitedReader middle(outer, 100);
    LimitedReader inner(middle, 5);
    EXPECT_EQ(middle.remaining(), 16u);
    EXPECT_EQ(inner.Skip(6).info().kind, ErrorKind::kOutOfRange);
    EXPECT_TRUE(inner.Skip(4).ok());
    EXPECT_EQ(inner.ReadAll().value(), Bytes{bytes_[4]});
    EXPECT_EQ(middle.remaining(), 11u);
    EXPECT_EQ(outer.remaining(), 11u);
    EXPECT_EQ(reader->remaining(), 19u);
    ASSERT_TRUE(reader->Skip(15).ok()) << "used beside its limits";
    EXPECT_EQ(outer.remaining(), 4u);
    EXPECT_EQ(outer.ReadAll().value(), Bytes(bytes_.begin() + 20, bytes_.end()));
  }
}

// A page missing behind the first 100 bytes.
class BrokenStreamTest : public testing::Test {
 protected:
  BrokenStreamTest() { EXPECT_TRUE(mapping_->Allocate(0, kPageSize).ok()); }

  const std::shared_ptr<SparseMapping> mapping_ = SparseMapping::Create(2 * kPageSize).value();
  const GuestMemory memory_ = GuestMemory::Create("ram", mapping_).value();
  const std::array<uint64_t, 2> gpns_ = {0, 1};
  const std::array<PagedRange, 2> members_ = {*PagedRange::Create(8, 100, gpns_), *PagedRange::Create(kPageSize, 100, gpns_)};
  const PagedRanges list_ = *PagedRanges::Create(members_);
};

TEST_F(BrokenStreamTest, D23_AFailedReadLeavesThePositionThroughEveryLimit) {
  PagedRangesReader reader(memory_, list_);
  LimitedReader outer(reader, 180);
  LimitedReader inner(outer, 150);
  Bytes buffer(101);
  const auto expect_unmoved = [&] {
    EXPECT_EQ(reader.remaining(), 200u);
    EXPECT_EQ(outer.remaining(), 180u);
    EXPECT_EQ(inner.remaining(), 150u);
  };
  const Status read = inner.Read(buffer);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(read.info().transferred, 100u) << "over all members";
  expect_unmoved();
  EXPECT_EQ(inner.ReadAll().status().kind(), ErrorKind::kNotMapped);
  expect_unmoved();
  EXPECT_EQ(inner.Skip(151).kind(), ErrorKind::kOutOfRange);
  expect_unmoved();
  ASSERT_TRUE(inner.Skip(50).ok());
  EXPECT_EQ(inner.ReadArray<uint32_t>(13).status().kind(), ErrorKind::kNotMapped);
  EXPECT_TRUE(inner.Read(std::span(buffer).first(50)).ok()) << "what is there can still be read";
  EXPECT_EQ(reader.remaining(), 100u);
}

TEST_F(BrokenStreamTest, D23_AFailedWriteLeavesThePositionThroughEveryLimit) {
  PagedRangesWriter writer(memory_, list_);
  LimitedWriter limited(writer, 150);
  const Bytes bytes = Numbers(101);
  for (const Status& status : {limited.Write(bytes), limited.Fill(std::byte{1}, 101)}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), ErrorKind::kNotMapped);
    EXPECT_EQ(status.info().transferred, 100u);
  }
  EXPECT_EQ(writer.remaining(), 200u);
  EXPECT_EQ(limited.remaining(), 150u);
  EXPECT_EQ(writer.rest().length(), 200u);
  EXPECT_TRUE(limited.Write(std::span(bytes).first(100)).ok());
  EXPECT_EQ(limited.remaining(), 50u);
}

// A user's own stream: the number of each position, and a lie about how many there are.
class Counter final : public MemoryReader {
 public:
  explicit Counter(uint64_t remaining) : remaining_(remaining) {}
  uint64_t remaining() const override { return remaining_; }
  Status Read(std::span<std::byte> destination) override {
    if (destination.size() > remaining_) return PastStreamEnd(Operation::kRead, destination.size(), remaining_);
    for (std::byte& byte : destination) byte = static_cast<std::byte>(next_++);
    remaining_ -= destination.size();
    return {};
  }
  Status Skip(uint64_t length) override {
    if (length > remaining_) return PastStreamEnd(Operation::kRead, length, remaining_);
    next_ += length;
    remaining_ -= length;
    return {};
  }

 private:
  uint64_t remaining_;
  uint64_t next_ = 0;
};

TEST(Stream, AUsersOwnStreamHasTheSameConveniences) {
  Counter counter(20);
  LimitedReader limited(counter, 6);
  EXPECT_EQ(limited.ReadPlain<uint16_t>().value(), 0x0100u);
  EXPECT_EQ(limited.ReadAll().value(), (Bytes{std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}}));
  EXPECT_EQ(counter.remaining(), 14u);
}

TEST(Stream, WhatCannotBeAllocatedIsAnErrorAndMovesNothing) {
  Counter endless(~uint64_t{0});
  EXPECT_EQ(endless.ReadAll().status().kind(), ErrorKind::kResourceExhausted);
  EXPECT_EQ(endless.ReadArray<uint64_t>(uint64_t{1} << 60).status().kind(), ErrorKind::kResourceExhausted);
  EXPECT_EQ(endless.remaining(), ~uint64_t{0});

  const Bytes bytes = Numbers(8);
  SpanReader reader(bytes);
  detail::SetHostCallFilter([](detail::HostCall call) { return call == detail::HostCall::kAllocate; });
  const auto refused = reader.ReadAll();
  const auto nothing = reader.ReadArray<uint32_t>(0);
  detail::SetHostCallFilter(nullptr);
  EXPECT_EQ(refused.status().kind(), ErrorKind::kResourceExhausted);
  EXPECT_EQ(refused.status().info().operation, Operation::kRead);
  EXPECT_TRUE(nothing.ok());
  EXPECT_EQ(reader.ReadAll().value(), bytes);
}

TEST(Stream, AnInvalidGpnCanBeSkipped) {
  const GuestMemory memory = GuestMemory::Allocate(kPageSize).value();
  const std::array<uint64_t, 3> gpns = {0, ~uint64_t{0}, 0};
  PagedReader reader(memory, *PagedRange::Create(0, 3 * kPageSize, gpns));
  Bytes buffer(kPageSize + 1);
  const Status status = reader.Read(buffer);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kInvalidGpn);
  EXPECT_EQ(status.info().transferred, kPageSize);
  EXPECT_TRUE(reader.Skip(2 * kPageSize).ok());
  EXPECT_EQ(reader.ReadAll().value().size(), kPageSize);
}

}  // namespace
}  // namespace guestmem
