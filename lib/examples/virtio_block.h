// A virtio block device on a split queue, its disk in memory. Part of virtio_block.cc; fuzz/hostile plays its guest.
//
// Threads: one at a time.

#ifndef GUESTMEM_LIB_EXAMPLES_VIRTIO_BLOCK_H_
#define GUESTMEM_LIB_EXAMPLES_VIRTIO_BLOCK_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <guestmem/guest_memory.h>
#include <guestmem/lock.h>
#include <guestmem/paged_range.h>

#include "virtio_queue.h"

namespace virtio {

struct BlockHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
struct ZeroSegment {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
enum BlockType : uint32_t { kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kWriteZeroes = 13 };
enum BlockStatus : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

class BlockDevice {
 public:
  static constexpr uint64_t kSectorBytes = 512;
  static constexpr std::string_view kId = "guestmem example\0\0\0\0";

  struct Events {
    std::function<void()> interrupt;
    std::function<void(uint64_t sector, std::span<const std::byte>)> stored;  // to the disk
  };

  BlockDevice(guestmem::GuestMemory memory, uint64_t sectors, Events events)
      : memory_(std::move(memory)), disk_(sectors * kSectorBytes), events_(std::move(events)) {}

  // The driver has set up the queue. Errors: kBackend.
  guestmem::Status Start(const Layout& layout) {
    auto queue = Queue::Create(memory_, layout);
    if (!queue.ok()) return queue.status();
    queue_ = *std::move(queue);
    return {};
  }

  // The guest says that there are requests. After an error the device needs a reset.
  guestmem::Status Kick() {
    if (!queue_) return Broken("no queue");
    guestmem::Status status = HandleAll();
    if (!status.ok()) queue_.reset();
    return status;
  }

 private:
  guestmem::Status HandleAll() {
    for (;;) {
      auto chain = queue_->Pop();
      if (!chain.ok()) return chain.status();
      if (!*chain) {
        const auto more = queue_->WaitForKick();
        if (!more.ok()) return more.status();
        if (*more) continue;
        return {};
      }
      const uint32_t written = Handle(**chain);
      if (guestmem::Status s = queue_->Push(**chain, written); !s.ok()) return s;
      const auto interrupt = queue_->WantsInterrupt();
      if (!interrupt.ok()) return interrupt.status();
      if (*interrupt) events_.interrupt();
    }
  }

  // Carries a request out. Returns how many bytes of its writable buffers were filled: data, then the status byte.
  uint32_t Handle(const Chain& chain) {
    const uint64_t room = Chain::Bytes(chain.writable);
    if (room == 0 || room > kMaxRequest) return 0;  // no place for a status, or too much for a used element
    uint32_t filled = 0;
    const BlockStatus status = Run(chain, room - 1, filled);
    const std::byte byte{status};
    return Scatter(chain.writable, room - 1, {&byte, 1}).ok() ? static_cast<uint32_t>(room) : filled;
  }

  BlockStatus Run(const Chain& chain, uint64_t room, uint32_t& filled) {
    std::array<std::byte, sizeof(BlockHeader)> bytes;
    if (!Gather(chain.readable, 0, bytes).ok()) return kIoError;
    const auto header = std::bit_cast<BlockHeader>(bytes);
    switch (header.type) {
      case kIn: return Read(chain, header.sector, room, filled);
      case kOut: return Write(chain, header.sector);
      case kFlush: return kOk;
      case kGetId: return GetId(chain, room, filled);
      case kWriteZeroes: return WriteZeroes(chain);
      default: return kUnsupported;
    }
  }

  bool IsOnDisk(uint64_t sector, uint64_t bytes) const {
    const uint64_t sectors = disk_.size() / kSectorBytes;
    return bytes % kSectorBytes == 0 && sector <= sectors && bytes / kSectorBytes <= sectors - sector;
  }
  std::span<std::byte> Disk(uint64_t sector, uint64_t bytes) { return std::span(disk_).subspan(sector * kSectorBytes, bytes); }

  // Straight from the disk into the guest's pages, which stay where they are for that long.
  BlockStatus Read(const Chain& chain, uint64_t sector, uint64_t bytes, uint32_t& filled) {
    if (!IsOnDisk(sector, bytes)) return kIoError;
    std::span<const std::byte> rest = Disk(sector, bytes);
    for (const Buffer& buffer : chain.writable) {
      const uint64_t length = std::min<uint64_t>(buffer.length, rest.size());
      if (length == 0) continue;
      if (!Store(buffer.gpa, rest.first(length))) return kIoError;
      rest = rest.subspan(length);
      filled += static_cast<uint32_t>(length);
    }
    return kOk;
  }

  bool Store(uint64_t gpa, std::span<const std::byte> bytes) {
    if (bytes.size() > ~gpa) return false;
    std::vector<uint64_t> gpns;
    const uint64_t first = gpa / guestmem::kPageSize;
    const uint64_t last = (gpa + bytes.size() - 1) / guestmem::kPageSize;
    for (uint64_t gpn = first; gpn <= last; ++gpn) gpns.push_back(gpn);
    const auto range = guestmem::PagedRange::Create(gpa % guestmem::kPageSize, bytes.size(), gpns);
    if (!range) return false;
    const auto lock = memory_.LockRange(guestmem::AccessType::kWrite, *range);
    if (!lock.ok()) return false;
    for (const guestmem::GuestSpan span : lock->spans()) {
      if (!span.CopyFrom(bytes.first(span.size())).ok()) return false;
      bytes = bytes.subspan(span.size());
    }
    return true;
  }

  // Through a copy: the guest may change the bytes while they are on their way, and the disk gets what was read once.
  BlockStatus Write(const Chain& chain, uint64_t sector) {
    const uint64_t readable = Chain::Bytes(chain.readable);
    if (readable < sizeof(BlockHeader)) return kIoError;
    const uint64_t bytes = readable - sizeof(BlockHeader);
    if (!IsOnDisk(sector, bytes)) return kIoError;
    std::vector<std::byte> data(bytes);
    if (!Gather(chain.readable, sizeof(BlockHeader), data).ok()) return kIoError;
    std::copy(data.begin(), data.end(), Disk(sector, bytes).begin());
    events_.stored(sector, data);
    return kOk;
  }

  BlockStatus GetId(const Chain& chain, uint64_t room, uint32_t& filled) {
    const auto id = std::as_bytes(std::span(kId)).first(std::min<uint64_t>(room, kId.size()));
    if (!Scatter(chain.writable, 0, id).ok()) return kIoError;
    filled += static_cast<uint32_t>(id.size());
    return kOk;
  }

  BlockStatus WriteZeroes(const Chain& chain) {
    std::array<std::byte, sizeof(ZeroSegment)> bytes;
    if (!Gather(chain.readable, sizeof(BlockHeader), bytes).ok()) return kIoError;
    const auto segment = std::bit_cast<ZeroSegment>(bytes);
    if (!IsOnDisk(segment.sector, segment.sectors * kSectorBytes)) return kIoError;
    const std::span zeroes = Disk(segment.sector, segment.sectors * kSectorBytes);
    std::fill(zeroes.begin(), zeroes.end(), std::byte{});
    events_.stored(segment.sector, zeroes);
    return kOk;
  }

  // Calls `move(gpa, part)` for the parts of `bytes` from `offset` of the buffers on. An error: they are too short, or the first of move.
  template <typename Bytes, typename Move>
  static guestmem::Status ForEachPart(const std::vector<Buffer>& buffers, uint64_t offset, Bytes bytes, Move move) {
    for (const Buffer& buffer : buffers) {
      if (bytes.empty()) break;
      if (offset >= buffer.length) {
        offset -= buffer.length;
        continue;
      }
      const uint64_t length = std::min<uint64_t>(buffer.length - offset, bytes.size());
      if (offset > ~buffer.gpa) return Broken("a buffer that wraps");
      if (guestmem::Status s = move(buffer.gpa + offset, bytes.first(length)); !s.ok()) return s;
      bytes = bytes.subspan(length);
      offset = 0;
    }
    return bytes.empty() ? guestmem::Status() : Broken("the buffers are too short");
  }
  guestmem::Status Gather(const std::vector<Buffer>& buffers, uint64_t offset, std::span<std::byte> bytes) const {
    return ForEachPart(buffers, offset, bytes, [&](uint64_t gpa, std::span<std::byte> part) { return memory_.ReadAt(gpa, part); });
  }
  guestmem::Status Scatter(const std::vector<Buffer>& buffers, uint64_t offset, std::span<const std::byte> bytes) const {
    return ForEachPart(buffers, offset, bytes,
                       [&](uint64_t gpa, std::span<const std::byte> part) { return memory_.WriteAt(gpa, part); });
  }

  static constexpr uint64_t kMaxRequest = 1 << 20;

  guestmem::GuestMemory memory_;
  std::vector<std::byte> disk_;
  Events events_;
  std::optional<Queue> queue_;
};

}  // namespace virtio

#endif  // GUESTMEM_LIB_EXAMPLES_VIRTIO_BLOCK_H_
