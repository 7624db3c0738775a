// The device's side of a virtio split queue (virtio 1.x): indirect descriptors, event suppression. Part of virtio_block.cc.
//
// Every byte here is the guest's, and the guest may change it at any time. So each field is read once, into a copy; the copy is
// checked, and only the copy is used. What a guest gets wrong breaks the queue (the device needs a reset), and no more.
//
// Threads: a queue is used by one thread at a time.

#ifndef GUESTMEM_LIB_EXAMPLES_VIRTIO_QUEUE_H_
#define GUESTMEM_LIB_EXAMPLES_VIRTIO_QUEUE_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <guestmem/guest_memory.h>

namespace virtio {

static_assert(std::endian::native == std::endian::little, "the fields of a queue are little-endian");

struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
enum DescriptorFlags : uint16_t { kNext = 1, kWrite = 2, kIndirect = 4 };

struct UsedElement {
  uint32_t id;
  uint32_t length;
};

struct Layout {
  uint16_t size = 0;
  uint64_t descriptors = 0;
  uint64_t available = 0;
  uint64_t used = 0;
  bool event_index = false;
};

struct Buffer {
  uint64_t gpa;
  uint32_t length;
};

// One request, as the guest described it when it was taken from the queue.
struct Chain {
  uint16_t head = 0;
  std::vector<Buffer> readable;
  std::vector<Buffer> writable;

  static uint64_t Bytes(const std::vector<Buffer>& buffers) {
    uint64_t sum = 0;
    for (const Buffer& buffer : buffers) sum += buffer.length;
    return sum;
  }
};

inline guestmem::Status Broken(const char* why) { return guestmem::BackendError(guestmem::StatusCode::kFailedPrecondition, why); }

class Queue {
 public:
  // What a driver may write into the registers. Errors: kBackend.
  static guestmem::Result<Queue> Create(guestmem::GuestMemory memory, const Layout& layout) {
    if (!std::has_single_bit(layout.size) || layout.size > kMaxSize) return Broken("the queue's size is no power of two up to 256");
    if (layout.descriptors % 16 != 0 || layout.available % 2 != 0 || layout.used % 4 != 0) return Broken("the queue is unaligned");
    return Queue(std::move(memory), layout);
  }

  // The next chain, if the guest offers one. An error: the queue is broken.
  guestmem::Result<std::optional<Chain>> Pop() {
    const auto offered = memory_.ReadPlain<uint16_t>(layout_.available + 2);
    if (!offered.ok()) return offered.status();
    const auto waiting = static_cast<uint16_t>(*offered - next_);
    if (waiting == 0) return std::optional<Chain>();
    if (waiting > layout_.size) return Broken("the guest offers more chains than the queue holds");
    std::atomic_thread_fence(std::memory_order_acquire);  // the entries were written before the index
    const uint64_t slot = next_ % layout_.size;
    const auto head = memory_.ReadPlain<uint16_t>(layout_.available + 4 + 2 * slot);
    if (!head.ok()) return head.status();
    if (*head >= layout_.size) return Broken("a chain starts beyond the table");
    Chain chain;
    chain.head = *head;
    if (guestmem::Status s = Walk({layout_.descriptors, layout_.size}, *head, false, chain); !s.ok()) return s;
    ++next_;
    return std::optional<Chain>(std::move(chain));
  }

  // Gives the chain back, `written` bytes of its writable buffers filled.
  guestmem::Status Push(const Chain& chain, uint32_t written) {
    const uint64_t slot = used_ % layout_.size;
    const UsedElement element{chain.head, written};
    if (guestmem::Status s = memory_.WritePlain<UsedElement>(layout_.used + 4 + 8 * slot, element); !s.ok()) return s;
    std::atomic_thread_fence(std::memory_order_release);  // the guest sees the element before the index
    return memory_.WritePlain<uint16_t>(layout_.used + 2, ++used_);
  }

  // Whether the guest wants to hear of what was pushed since it was last asked.
  guestmem::Result<bool> WantsInterrupt() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint16_t before = std::exchange(told_, used_);
    if (before == used_) return false;
    if (!layout_.event_index) {
      const auto flags = memory_.ReadPlain<uint16_t>(layout_.available);
      if (!flags.ok()) return flags.status();
      return (*flags & 1) == 0;
    }
    const auto event = memory_.ReadPlain<uint16_t>(layout_.available + 4 + 2 * uint64_t{layout_.size});
    if (!event.ok()) return event.status();
    return static_cast<uint16_t>(used_ - *event - 1) < static_cast<uint16_t>(used_ - before);
  }

  // Asks to be kicked for the next chain. True: one was offered meanwhile, whose kick may have been left out; Pop again.
  guestmem::Result<bool> WaitForKick() {
    if (!layout_.event_index) return false;
    const uint64_t event = layout_.used + 4 + 8 * uint64_t{layout_.size};
    if (guestmem::Status s = memory_.WritePlain<uint16_t>(event, next_); !s.ok()) return s;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const auto offered = memory_.ReadPlain<uint16_t>(layout_.available + 2);
    if (!offered.ok()) return offered.status();
    return *offered != next_;
  }

 private:
  static constexpr uint16_t kMaxSize = 256;

  struct Table {
    uint64_t gpa;
    uint32_t entries;
  };

  Queue(guestmem::GuestMemory memory, const Layout& layout) : memory_(std::move(memory)), layout_(layout) {}

  // Adds the buffers of the chain that starts at `index` of a table. A chain is as long as the queue at most.
  guestmem::Status Walk(Table table, uint32_t index, bool indirect, Chain& chain) const {
    for (uint32_t steps = 0; steps < layout_.size; ++steps) {
      if (index >= table.entries) return Broken("a descriptor beyond the table");
      const auto descriptor = memory_.ReadPlain<Descriptor>(table.gpa + uint64_t{index} * sizeof(Descriptor));
      if (!descriptor.ok()) return descriptor.status();
      if ((descriptor->flags & kIndirect) != 0) {
        if (indirect) return Broken("an indirect descriptor in an indirect table");
        if ((descriptor->flags & kNext) != 0) return Broken("an indirect descriptor with a next one");
        if (descriptor->length == 0 || descriptor->length % sizeof(Descriptor) != 0) return Broken("half a descriptor");
        if (descriptor->length > ~descriptor->address) return Broken("a table that wraps");
        const Table inner{descriptor->address, static_cast<uint32_t>(descriptor->length / sizeof(Descriptor))};
        return Walk(inner, 0, true, chain);
      }
      if (guestmem::Status s = Add(*descriptor, chain); !s.ok()) return s;
      if ((descriptor->flags & kNext) == 0) return {};
      index = descriptor->next;
    }
    return Broken("a chain longer than the queue");
  }

  static guestmem::Status Add(const Descriptor& descriptor, Chain& chain) {
    const bool writable = (descriptor.flags & kWrite) != 0;
    if (!writable && !chain.writable.empty()) return Broken("a buffer to read behind one to write");
    (writable ? chain.writable : chain.readable).push_back({descriptor.address, descriptor.length});
    return {};
  }

  guestmem::GuestMemory memory_;
  Layout layout_;
  uint16_t next_ = 0;  // to take from the available ring
  uint16_t used_ = 0;  // to put into the used ring
  uint16_t told_ = 0;  // of used_, when the guest was last told
};

}  // namespace virtio

#endif  // GUESTMEM_LIB_EXAMPLES_VIRTIO_QUEUE_H_
