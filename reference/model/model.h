// The gold standard: what each step of a trace comes to, carried out on the kernel and what stands on it. Slow on purpose.

#ifndef GUESTMEM_REFERENCE_MODEL_MODEL_H_
#define GUESTMEM_REFERENCE_MODEL_MODEL_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "reference/model/host_side.h"
#include "reference/model/kernel.h"
#include "reference/model/locks.h"
#include "reference/model/ranges.h"
#include "reference/model/streams.h"
#include "reference/model/vocabulary.h"

namespace reference {

class Model final : model::Kernel::Watch {
 public:
  // Told where a step is about to change something, before it does: each page once a step, and each bit.
  using Watch = model::Kernel::Watch;
  explicit Model(Watch* watch = nullptr, Pace pace = Pace::kPlain);

  // Forgets everything and builds `world`.
  void Start(const World& world);
  // Carries one step out. `outcome` is overwritten (its vectors keep their capacity).
  void Run(const Step& step, Outcome& outcome);

  // The 4096 bytes of a page, as the mapping has them (seen or not) and as the fallbacks have them.
  std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page) const { return {&kernel_->ByteAt(backing, page * kPageSize), kPageSize}; }
  std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) const { return {&kernel_->ByteAt(backing, page * kPageSize, true), kPageSize}; }
  PageState State(uint64_t backing, uint64_t page) const { return kernel_->State(backing, page); }
  // What a bit says; true where there is no such bit.
  bool Bit(uint64_t backing, uint64_t page, Access access) const { return kernel_->Bit(backing, page, access); }
  // The pages whose mapped bytes the last step stored to.
  struct PageId {
    uint64_t backing;
    uint64_t page;
    bool operator==(const PageId&) const = default;
  };
  std::span<const PageId> TouchedPages() const { return stored_; }
  // Mapped bytes that the last step has left unspecified: where they can be seen, they become what they are.
  std::span<const Span> Unspecified() const { return kernel_->unspecified; }
  void Become(uint64_t backing, uint64_t address, uint8_t byte) { kernel_->Store(backing, address, byte); }
  // Whether a lock is held there.
  bool Holds(uint64_t object) const { return !locks_[object].pages.empty(); }

 private:
  void BeforeStore(uint64_t backing, uint64_t page, bool slow) override;
  void BeforeBit(uint64_t backing, uint64_t page, Access access) override;

  // What each kind of step does. What it says beside its status goes to `outcome`.
  model::Status RunStep(const Step& step, Outcome& outcome);
  model::Status RunBulk(const model::Handle& memory, const Step& step, model::Transfer transfer, Outcome& outcome);
  model::Status RunRange(const model::Handle& memory, const Step& step, model::Transfer transfer, Outcome& outcome);
  model::Status RunCopy(const model::Handle& memory, const Step& step, model::Transfer transfer, std::span<const model::PagePart> buffer, uint64_t host_bytes, Outcome& outcome);
  model::Status RunPlain(const model::Handle& memory, const Step& step, model::Transfer transfer, Outcome& outcome);
  static model::Status RunObject(const Step& step, model::Transfer transfer, uint64_t gpa, const std::function<model::Status(model::Request)>& carry, Outcome& outcome);
  model::Status RunLock(const model::Handle& memory, const Step& step, const std::optional<model::Buffer>& list, bool kernel_access, model::Spans spans, Outcome& outcome);
  model::Status RunLockedCopy(const Step& step, Outcome& outcome);
  static void RunSetRange(const Step& step, model::Buffer& buffer, Outcome& outcome);
  void Open(model::Stream& stream, const model::Handle& memory, const Step& step);
  model::Status RunMake(const Step& step, Outcome& outcome);
  model::Status RunInnerBuffer(const Step& step, Outcome& outcome);
  model::Status RunTry(const Step& step, Outcome& outcome);
  // Handle `slot` := made, if all went well.
  model::Status Keep(const Step& step, const model::Handle& made, model::Status status);
  bool IsShared(uint64_t memory) const;

  const std::unique_ptr<model::Kernel> kernel_;
  Watch* const watch_;
  std::vector<PageId> stored_, stored_slow_;                 // pages that the step has changed
  std::array<std::vector<PageId>, 3> changed_bits_;          // by Access
  std::array<std::optional<model::Handle>, kHandles> handles_;  // none: an empty slot
  std::array<model::Buffer, kObjects> buffers_;
  std::array<model::Stream, kObjects> readers_;
  std::array<model::Stream, kObjects> writers_;
  std::array<model::Lock, kObjects> locks_;
  bool vanishes_ = false;  // some handler answers kVanishRetry
  bool starved_ = false;   // there is no memory to describe errors with
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MODEL_MODEL_H_
