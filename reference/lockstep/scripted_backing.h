// A backing that does what a World says: its pages, its bitmap, its answers; and records every call it gets.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_SCRIPTED_BACKING_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_SCRIPTED_BACKING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/backing.h"
#include "guestmem/sparse_mapping.h"
#include "reference/model/vocabulary.h"

namespace reference {

// The answers to come, shared by the backings of a world.
struct Script {
  Answers<HandlerAnswer> handler = {};
  Answers<FallbackAnswer> fallback = {};
  Answers<LockAnswer> lock = {};
  Answers<SubrangeAnswer> subrange = {};
  Outcome* outcome = nullptr;  // of the running step: calls are written down there
};

class ScriptedBacking final : public guestmem::GuestMemoryAccess {
 public:
  // `index` is the backing's in its world.
  ScriptedBacking(uint8_t index, Script& script);
  ~ScriptedBacking() override;

  // Puts bytes, page states and bits back to what `setup` says.
  void Reset(const Backing& setup);
  // The memory over it is made: a fickle backing says something else from now on.
  void Made() {
    lies_ = setup_.fickle;
    broken_ = Promise::kNone;
  }
  // Memory is about to be made over it again: until Made, it says what it is, but for one promise.
  void Break(Promise promise) {
    lies_ = false;
    broken_ = promise;
  }

  // Host-side steps.
  guestmem::Status ChangeMapping(const Step& step);
  guestmem::Status ChangeBytes(const Step& step);
  guestmem::Status Advise(const Step& step);
  void SetBit(uint64_t page, Access access, bool bit);
  guestmem::Status ChangeBitmap(const Step& step);

  // What Subject asks for.
  std::span<const uint8_t> MappedPage(uint64_t page, bool final);
  std::span<const uint8_t> SlowPage(uint64_t page) const;
  bool Bit(uint64_t page, Access access) const;
  // Where in the mapping a host address lies; nullopt: elsewhere.
  std::optional<uint64_t> AddressOf(const void* host) const;
  bool IsRam(uint64_t page) const { return state_[page] == PageState::kRam; }
  // What is handed over where the backing is sparse.
  const std::shared_ptr<guestmem::SparseMapping>& arena() const { return arena_; }
  std::byte* Arena(uint64_t page) const { return arena_->mapping() + page * kPageSize; }
  // Bytes of the mapping, if all of them are kRam and not the file's; else null.
  uint8_t* PlainRam(uint64_t address, uint64_t length) const;

  // GuestMemoryAccess
  std::byte* mapping() const override;
  uint64_t max_address() const override;
  std::optional<guestmem::BitmapInfo> access_bitmap() const override;
  guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override;
  guestmem::Status ReadFallback(uint64_t address, std::span<std::byte> destination) override;
  guestmem::Status WriteFallback(uint64_t address, std::span<const std::byte> source) override;
  guestmem::Status FillFallback(uint64_t address, std::byte value, uint64_t length) override;
  guestmem::Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                                 std::span<const std::byte> desired) override;
  bool supports_locking() const override;
  guestmem::Status LockGpns(guestmem::AccessType access, std::span<const uint64_t> gpns) override;
  void UnlockGpns(guestmem::AccessType access, std::span<const uint64_t> gpns) override;
  guestmem::Status ExposeVa(uint64_t address, uint64_t length) override;
  guestmem::Result<std::optional<guestmem::GuestMemory>> Subrange(uint64_t offset, uint64_t length,
                                                                  bool allow_preemptive_locking) override;
  std::optional<uint64_t> base_iova() const override;
  guestmem::Result<std::vector<guestmem::SharedFile>> sharing() const override;

 private:
  class Own;
  guestmem::Status AnswerLock(const Call& call);
  // Writes a call down. False: it is wrong (the outcome says so), and must have no effect; `wrong`: what is known of it.
  bool Record(const Call& call, std::string wrong = {});
  bool BitExists(uint64_t page, Access access) const;
  uint8_t* BitByte(uint64_t page, Access access) const;
  guestmem::Status Fix(const guestmem::PageFaultInfo& fault, uint64_t page);
  guestmem::Status SetState(uint64_t page, PageState state);
  void MakeBus(uint64_t page);
  void AfterChange(const Step& step, uint64_t page);
  template <typename Move>
  Reply Fall(const Call& call, Move move, std::string wrong = {});

  const uint8_t index_;
  Script& script_;
  Backing setup_;
  std::vector<Call> held_;  // the LockGpns calls that hold
  bool lies_ = false;
  Promise broken_ = Promise::kNone;
  std::shared_ptr<guestmem::SparseMapping> arena_;
  std::array<PageState, kMaxPages> state_ = {};  // as the arena is now
  std::array<bool, kMaxPages> shows_file_ = {};
  // Slow bytes are only ever stored to here, by the fallbacks: so Reset knows the pages to restore.
  uint8_t* SlowToStore(uint64_t address, uint64_t count);
  std::array<uint8_t, kMaxPages * kPageSize> slow_ = {};
  std::array<bool, kMaxPages> slow_stored_ = {};
  // Each bitmap ends where an inaccessible page starts, so that reading past it is a crash.
  std::shared_ptr<guestmem::SparseMapping> bitmap_pages_;
  std::array<uint8_t*, 3> bitmaps_ = {};
  std::shared_ptr<guestmem::AccessBitmap> bits_;  // instead of those, where the bits are managed
};

// True while a mapping is changed by two host calls of the library, which a trace counts as one.
extern bool g_two_host_calls;
// How many host calls have been made to fail.
extern uint64_t g_failed_host_calls;

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_SCRIPTED_BACKING_H_
