// The engine's adapter, for the steps about paged ranges and streams.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_RANGES_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_RANGES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/paged_range.h"
#include "guestmem/stream.h"
#include "reference/lockstep/scripted_backing.h"
#include "reference/model/vocabulary.h"

namespace reference {

class EngineRanges {
 public:
  // No buffers, no streams.
  void Forget();
  // False: not a step of theirs. `host` is where the step's host buffer is to be, if it can; null: it is one of its own.
  bool Run(const guestmem::GuestMemory& memory, const Step& step, const ScriptedBacking* host, Outcome& outcome);

 private:
  // What the views of a buffer look at.
  struct Storage {
    std::vector<std::vector<uint64_t>> gpns;
    std::vector<guestmem::PagedRange> members;
  };
  struct Buffer {
    std::shared_ptr<const Storage> storage;
    std::variant<guestmem::PagedRanges, guestmem::PagedRange> view;
  };
  // Stream is MemoryReader or MemoryWriter. A limit refers to what is before it.
  template <typename Stream>
  struct Chain {
    std::shared_ptr<const Storage> storage;
    std::unique_ptr<std::vector<uint8_t>> bytes;  // of a stream over host bytes, guards included
    std::unique_ptr<Stream> stream;
    std::vector<std::unique_ptr<Stream>> limits;

    Stream& outermost() { return limits.empty() ? *stream : *limits.back(); }
  };

  void RunBuffer(const Step& step, Buffer& buffer, Outcome& outcome);
  bool Set(const Step& step, Buffer& buffer);
  bool Append(const Step& step, Buffer& buffer);
  void Access(const guestmem::GuestMemory& memory, const Step& step, const Buffer& buffer, const ScriptedBacking* host, Outcome& outcome);
  void RunReader(const guestmem::GuestMemory& memory, const Step& step, Outcome& outcome);
  void RunWriter(const guestmem::GuestMemory& memory, const Step& step, Outcome& outcome);
  template <typename T>
  static void ReadObjects(const Step& step, guestmem::MemoryReader& reader, Outcome& outcome);
  // `length` bytes with guards round them, all kUntouched; the bytes alone.
  std::span<uint8_t> HostBytes(uint64_t length);
  void KeepHostBytes(Outcome& outcome) { outcome.data = host_; }

  std::array<Buffer, kObjects> buffers_;
  std::array<Chain<guestmem::MemoryReader>, kObjects> readers_;
  std::array<Chain<guestmem::MemoryWriter>, kObjects> writers_;
  std::vector<uint8_t> host_;
  bool used_ = true;  // since Forget
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_RANGES_H_
