// SplitQueue: what the hostile guest knows of a virtio split queue (virtio 1.x, little-endian), said in the words of
// device_fuzzer.h. Declares what a device may read again (indices, flags, event words), what it may store where (used ring, the
// buffers that descriptors give for writing, by the values that were fetched first), and what it must not complete: a chain that
// was not offered, one twice, or more bytes than the chain takes.
//
// When not: a packed queue, or a queue that the device completes out of the request's order with several in flight: its buffers are
// known until the next store to the used index.
//
// Threads and signal context: as device_fuzzer.h.

#ifndef GUESTMEM_HOSTILE_SPLIT_QUEUE_H_
#define GUESTMEM_HOSTILE_SPLIT_QUEUE_H_

#include <cstdint>
#include <initializer_list>
#include <memory>

#include <guestmem/hostile/device_fuzzer.h>

namespace guestmem::hostile {

class SplitQueue {
 public:
  struct Layout {
    uint16_t size = 8;  // a power of two
    uint64_t descriptors = 0x1000;
    uint64_t available = 0x2000;
    uint64_t used = 0x3000;
  };
  struct Buffer {
    uint64_t gpa = 0;
    uint32_t length = 0;
    bool device_writes = false;
  };

  SplitQueue(Setup& setup, const Layout& layout);

  // For examples: offers a chain of these buffers in descriptors of the table, or through an indirect table at `table`.
  void Chain(Guest& guest, std::initializer_list<Buffer> buffers) const;
  void IndirectChain(Guest& guest, uint64_t table, std::initializer_list<Buffer> buffers) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace guestmem::hostile

#endif  // GUESTMEM_HOSTILE_SPLIT_QUEUE_H_
