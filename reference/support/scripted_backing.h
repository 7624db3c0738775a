// The backings of a world over the engine: each does what its Backing says (pages, bits, answers) and records every call that it
// gets. The engine's subject runs over them, and so do the tests that are made of traces, which carry this text by the sections
// that the lines of dashes name.

#ifndef GUESTMEM_REFERENCE_SUPPORT_SCRIPTED_BACKING_H_
#define GUESTMEM_REFERENCE_SUPPORT_SCRIPTED_BACKING_H_

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/backing.h"
#include "guestmem/guest_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/sparse_mapping.h"
#include "reference/support/arena.h"
#include "reference/world/answers.h"
#include "reference/world/backings.h"

namespace reference {

// ---- StatusOf
// What a callback returns. For kOkAsError that is an OK status, and the callback makes a Result of it.
inline guestmem::Status StatusOf(const Reply& reply) {
  switch (reply.says) {
    case Reply::Says::kOk:
    case Reply::Says::kOkAsError: return {};
    case Reply::Says::kScripted: break;
    case Reply::Says::kNoFallback: return guestmem::NoFallback();
    case Reply::Says::kNotMapped: return guestmem::NotMapped();
    case Reply::Says::kBlank: return guestmem::BackendError(guestmem::StatusCode::kOk, "", reply.address);
    case Reply::Says::kForeign: {
      std::byte byte;
      return guestmem::GuestMemory::Empty().ReadAt(*reply.address, std::span(&byte, 1));
    }
  }
  return guestmem::BackendError(guestmem::StatusCode::kAborted, "scripted", reply.address, reply.count);
}

// ---- Script
// The answers to come, shared by the backings of a world; and the calls that they have got since somebody took them.
struct Script {
  Answers<HandlerAnswer> handler = {};
  Answers<FallbackAnswer> fallback = {};
  Answers<LockAnswer> lock = {};
  Answers<SubrangeAnswer> subrange = {};
  std::vector<Call> calls = {};
  std::string wrong_call = {};  // the first that no caller may make, and what is wrong with it
};

// ---- ScriptedBacking TakeCalls SlowContents Bits
class ScriptedBacking final : public ArenaBacking {
 public:
  // `index` is the backing's in its world.
  ScriptedBacking(uint8_t index, Script& script) : ArenaBacking(index, 0), index_(index), script_(script), first_bytes_(At(0), At(kSize)) {
    for (uint64_t i = 0; i < kSize; ++i) first_slow_[i] = SlowPattern(index, i);
    slow_ = first_slow_;
    for (uint64_t i = 0; i < 3; ++i) Require(bitmap_pages_->Allocate(i * 2 * kPageSize, kPageSize).ok(), "bitmap");
  }

  // Puts bytes, page states and bits back to what `setup` says.
  void Reset(const Backing& setup) {
    setup_ = setup;
    size_ = setup.max_address();
    held_.clear();
    Break(Promise::kNone);
    WorldFile::Get().Reset();
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      if (state_[page] == PageState::kBus || shows_file_[page]) {
        Require(Allocate(page * kPageSize, kPageSize).ok(), "arena");
      } else if (state_[page] != PageState::kRam) {
        Require(SetState(page, PageState::kRam).ok(), "arena");
      }
      if (std::exchange(slow_stored_[page], false)) std::memcpy(&slow_[page * kPageSize], &first_slow_[page * kPageSize], kPageSize);
    }
    std::memcpy(At(0), first_bytes_.data(), kSize);
    for (uint64_t page = 0; page < setup_.pages; ++page) {
      if (setup_.page[page].state == PageState::kBus) {
        MakeBus(page);
      } else if (setup_.page[page].state != PageState::kRam) {
        Require(SetState(page, setup_.page[page].state).ok(), "arena");
      }
    }
    ResetBits();
  }
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
  // As memory is made over it.
  static std::shared_ptr<guestmem::GuestMemoryAccess> Handed(const std::shared_ptr<ScriptedBacking>& self) {
    const bool wrapped = self->setup_.wrapped;
    if (self->setup_.sparse) {
      if (wrapped) return std::make_shared<guestmem::SharedBacking<guestmem::SparseMapping>>(self->arena_);
      return self->arena_;
    }
    if (wrapped) return std::make_shared<guestmem::SharedBacking<ScriptedBacking>>(self);
    return self;
  }

  // SparseMapping's calls on the arena, of any bytes. What a page has become is remembered.
  guestmem::Status Allocate(uint64_t offset, uint64_t length) {
    return Change(arena_->Allocate(offset, length), offset, length, [](uint64_t) { return PageState::kRam; });
  }
  guestmem::Status MapZero(uint64_t offset, uint64_t length) {
    return Change(arena_->MapZero(offset, length), offset, length, [](uint64_t) { return PageState::kReadOnly; });
  }
  guestmem::Status Unmap(uint64_t offset, uint64_t length) {
    return Change(arena_->Unmap(offset, length), offset, length, [](uint64_t) { return PageState::kHole; });
  }
  guestmem::Status Protect(uint64_t offset, uint64_t length, PageState state) {
    guestmem::Status status = arena_->Protect(offset, length, ProtectionOf(state));
    for (uint64_t page = offset / kPageSize; status.ok() && page < (offset + length) / kPageSize; ++page) {
      if (state_[page] != PageState::kBus) state_[page] = state;
    }
    return status;
  }
  guestmem::Status Decommit(uint64_t offset, uint64_t length) { return arena_->Decommit(offset, length); }
  guestmem::Status MapFile(uint64_t offset, uint64_t length, uint64_t file_offset, bool writable) {
    HostCalls::takes_two = true;
    guestmem::Status status = arena_->MapFile(offset, length, WorldFile::Get().fd(), file_offset, writable);
    HostCalls::takes_two = false;
    return Change(std::move(status), offset, length, [&](uint64_t page) {
      shows_file_[page] = true;
      const bool missing = (file_offset + page * kPageSize - offset) / kPageSize >= kFilePages;
      return missing ? PageState::kBus : writable ? PageState::kRam : PageState::kReadOnly;
    });
  }
  // These change nothing that can be seen.
  guestmem::Status AdviseHugePages(uint64_t offset, uint64_t length, guestmem::SparseMapping::HugePages advice) {
    const uint64_t failed = HostCalls::failed;
    guestmem::Status status = arena_->AdviseHugePages(offset, length, advice);
    const bool wanted = offset + length <= kSize && HostCalls::failed == failed;
    return wanted && !status.ok() && HostRefuses(false) ? guestmem::Status() : std::move(status);
  }
  guestmem::Status BindToNode(uint64_t offset, uint64_t length, unsigned node) {
    const uint64_t failed = HostCalls::failed;
    guestmem::Status status = arena_->BindToNode(offset, length, node);
    const bool wanted = offset + length <= kSize && node == 0 && HostCalls::failed == failed && arena_->WaitUnlocked(offset, length, {}).ok();
    return wanted && !status.ok() && HostRefuses(true) ? guestmem::Status() : std::move(status);
  }

  // Null where the bits are not managed.
  const std::shared_ptr<guestmem::AccessBitmap>& bits() const { return bits_; }
  void SetBit(uint64_t page, guestmem::AccessType access, bool bit) {
    const auto index = static_cast<size_t>(access);
    if (bits_ != nullptr && page < setup_.pages) {
      if (bits_->IsAllowed(page, access) == bit) return;
      const auto mask = static_cast<guestmem::AccessMask>(1u << index);
      (void)(bit ? bits_->Grant({page, 1}, mask) : bits_->Revoke({page, 1}, mask));  // a locked page stays as it is
    } else if (BitExists(page, index)) {
      const auto mask = static_cast<uint8_t>(1u << (setup_.bit_offset + page) % 8);
      uint8_t& byte = bitmaps_[index][(setup_.bit_offset + page) / 8];
      byte = static_cast<uint8_t>(bit ? byte | mask : byte & ~mask);
    }
  }
  bool Bit(uint64_t page, guestmem::AccessType access) const {
    const auto index = static_cast<size_t>(access);
    if (bits_ != nullptr) return bits_->IsAllowed(page, access) == (page < setup_.pages);  // beyond the last page nothing is
    return !BitExists(page, index) || (bitmaps_[index][(setup_.bit_offset + page) / 8] >> (setup_.bit_offset + page) % 8 & 1) != 0;
  }

  // 4096 bytes; none where the guest sees none now. `final`: those of a hole too.
  std::span<const uint8_t> MappedPage(uint64_t page, bool final) {
    static constexpr std::array<uint8_t, kPageSize> kZeroes = {};
    if (state_[page] == PageState::kBus) return kZeroes;
    if (state_[page] == PageState::kHole) {
      if (!final) return {};
      Require(SetState(page, PageState::kReadOnly).ok(), "arena");
    }
    return ArenaBacking::MappedPage(page, final);
  }
  std::span<const uint8_t> SlowPage(uint64_t page) const { return std::span(slow_).subspan(page * kPageSize, kPageSize); }
  // Where in the mapping a host address lies; nullopt: elsewhere.
  std::optional<uint64_t> AddressOf(const void* host) const {
    const auto address = reinterpret_cast<uintptr_t>(host), start = reinterpret_cast<uintptr_t>(At(0));
    return address >= start && address - start < kSize ? std::optional<uint64_t>(address - start) : std::nullopt;
  }
  bool IsRam(uint64_t page) const { return state_[page] == PageState::kRam; }
  // Bytes of the mapping, if all of them are kRam and not the file's; else null.
  std::byte* PlainRam(uint64_t address, uint64_t length) const {
    if (length > kSize - address) return nullptr;
    for (uint64_t page = address / kPageSize; length != 0 && page * kPageSize < address + length; ++page) {
      if (!IsRam(page) || shows_file_[page]) return nullptr;
    }
    return At(address);
  }

  // GuestMemoryAccess
  std::byte* mapping() const override { return setup_.mapped != lies_ ? At(broken_ == Promise::kMapping ? 8 : 0) : nullptr; }
  uint64_t max_address() const override { return broken_ == Promise::kSize ? uint64_t{1} << 63 : lies_ ? 1 : size_; }
  std::optional<guestmem::BitmapInfo> access_bitmap() const override {
    if (setup_.has_bitmap == lies_) return std::nullopt;
    const auto pointer = [&](size_t i) { return setup_.null_bitmap[i] ? nullptr : bitmaps_[i]; };
    guestmem::BitmapInfo info = {pointer(0), pointer(1), pointer(2), setup_.bit_offset};
    if (bits_ != nullptr) info = bits_->info();
    if (broken_ == Promise::kBitOffset) info.bit_offset = 8;
    return info;
  }
  std::optional<uint64_t> base_iova() const override { return setup_.has_iova != lies_ ? std::optional(kIovaBase) : std::nullopt; }
  bool supports_locking() const override { return setup_.lockable != lies_; }
  guestmem::Result<std::vector<guestmem::SharedFile>> sharing() const override {
    using Files = std::vector<guestmem::SharedFile>;
    const int fd = kFirstFile + index_;
    constexpr uint64_t kLastPage = ~uint64_t{0} - 4095;
    switch (setup_.sharing) {
      case Sharing::kNone: break;
      case Sharing::kWhole: return Files{{fd, 0, 0, size_}};
      case Sharing::kParts: return Files{{fd, 8192, 4096, 4096}, {fd, 0, 0, 100}};
      case Sharing::kWild: return Files{{fd, kLastPage, 0, ~uint64_t{0}}, {fd, 0, kLastPage, 8192}, {fd, 4096, 4096, kLastPage}};
    }
    return Files();
  }

  guestmem::PageFaultAction PageFault(const guestmem::PageFaultInfo& fault) override {
    using Action = guestmem::PageFaultAction;
    if (!Record({CallKind::kPageFault, index_, fault.address, fault.length, static_cast<Access>(fault.access), fault.bitmap_failure})) {
      return Action::Fail(StatusOf(kWrong));
    }
    const Handling handling = HandlingOf(script_.handler.Next(index_, fault.address / kPageSize), fault.address, fault.length);
    switch (handling.ends) {
      case Handling::Ends::kDefault: return GuestMemoryAccess::PageFault(fault);
      case Handling::Ends::kFail: return Action::Fail(StatusOf(handling.failure));
      case Handling::Ends::kFallback: return Action::Fallback();
      case Handling::Ends::kRetry: break;
    }
    guestmem::Status status;
    for (uint64_t page = fault.address / kPageSize; handling.fixes && status.ok() && page <= handling.last / kPageSize; ++page) {
      status = Fix(fault, page);
    }
    if (status.ok() && handling.refuses_at) SetBit(*handling.refuses_at / kPageSize, fault.access, false);
    if (status.ok() && handling.vanishes) status = SetState(0, PageState::kHole);
    return status.ok() ? Action::Retry() : Action::Fail(std::move(status));
  }

  guestmem::Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    return StatusOf(Fall({CallKind::kReadFallback, index_, address, destination.size()},
                         [&](uint64_t n) { std::memcpy(destination.data(), &slow_[address], n); }));
  }
  guestmem::Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
    return StatusOf(Fall({CallKind::kWriteFallback, index_, address, source.size()},
                         [&](uint64_t n) { std::memcpy(SlowToStore(address, n), source.data(), n); }));
  }
  guestmem::Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return StatusOf(Fall({CallKind::kFillFallback, index_, address, length, {}, false, std::to_integer<uint64_t>(value)},
                         [&](uint64_t n) { std::memset(SlowToStore(address, n), std::to_integer<int>(value), n); }));
  }
  guestmem::Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current, std::span<const std::byte> desired) override {
    const auto word = [](std::span<const std::byte> bytes) {
      uint64_t value = 0;
      std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
      return value;
    };
    bool swapped = false;
    const auto exchange = [&](uint64_t n) {
      swapped = std::memcmp(&slow_[address], current.data(), n) == 0;
      std::memcpy(current.data(), &slow_[address], n);
      if (swapped) std::memcpy(SlowToStore(address, n), desired.data(), n);
    };
    const Reply reply = Fall({CallKind::kCompareExchangeFallback, index_, address, desired.size(), {}, false, word(current), word(desired)},
                             exchange, current.size() == desired.size() ? "" : "spans of unequal length");
    return reply.says == Reply::Says::kOk ? guestmem::Result<bool>(swapped) : guestmem::Result<bool>(StatusOf(reply));
  }

  guestmem::Status LockGpns(guestmem::AccessType access, std::span<const uint64_t> gpns) override {
    Call call = ListCall(CallKind::kLockGpns, access, gpns);
    if (!Record(call)) return StatusOf(kWrong);
    guestmem::Status status = StatusOf(ReplyOf(script_.lock.Next(index_, gpns.front()), gpns));
    if (status.ok() && bits_ != nullptr) status = bits_->Lock(gpns);
    if (status.ok()) held_.push_back(std::move(call));
    return status;
  }
  void UnlockGpns(guestmem::AccessType access, std::span<const uint64_t> gpns) override {
    const Call call = ListCall(CallKind::kUnlockGpns, access, gpns);
    if (!Record(call)) return;
    held_.erase(std::find_if(held_.begin(), held_.end(), [&](const Call& lock) { return lock.access == call.access && lock.gpns == call.gpns; }));
    if (bits_ != nullptr) (void)bits_->Unlock(gpns);  // fails if a step has taken a count away; then nothing changes
  }
  guestmem::Status ExposeVa(uint64_t address, uint64_t length) override {
    if (!Record({CallKind::kExposeVa, index_, address, length})) return StatusOf(kWrong);
    return StatusOf(ReplyOf(script_.lock.Next(index_, address / kPageSize), address, length));
  }
  guestmem::Result<std::optional<guestmem::GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking) override {
    using guestmem::GuestMemory;
    if (!Record({CallKind::kSubrange, index_, offset, length, {}, false, allow_preemptive_locking ? 1u : 0u})) return StatusOf(kWrong);
    const auto own = [&] { return std::make_shared<Own>(*this); };
    const auto part = [&](uint64_t start, uint64_t size) { return GuestMemory::Create(kOwnName, own()).value().Subrange(start, size).value(); };
    const SubrangeAnswer answer = script_.subrange.Next(index_, offset / kPageSize);
    if (answer == SubrangeAnswer::kDefault) return std::optional<GuestMemory>();
    if (answer == SubrangeAnswer::kOwn) return std::optional(part(offset, length));
    if (answer != SubrangeAnswer::kWrongSize) return StatusOf(ReplyOf(answer, offset, length));
    if (length == size_) return std::optional(part(0, length - 1));
    return std::optional(GuestMemory::CreateMultiRegion(kOwnName, kSize, {own(), nullptr}).value());
  }

 private:
  static constexpr uint64_t kSize = kMaxPages * kPageSize;
  static constexpr Reply kWrong = {Reply::Says::kScripted};  // to a call that may not be

  // The backing as its own views show it: no mapping, all by the fallbacks, in the backing's own coordinates.
  class Own final : public guestmem::GuestMemoryAccess {
   public:
    explicit Own(ScriptedBacking& of) : of_(of) {}
    std::byte* mapping() const override { return nullptr; }
    uint64_t max_address() const override { return of_.size_; }
    guestmem::Status ReadFallback(uint64_t address, std::span<std::byte> bytes) override { return of_.ReadFallback(address, bytes); }
    guestmem::Status WriteFallback(uint64_t address, std::span<const std::byte> bytes) override { return of_.WriteFallback(address, bytes); }
    guestmem::Status FillFallback(uint64_t address, std::byte value, uint64_t length) override { return of_.FillFallback(address, value, length); }
    guestmem::Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current, std::span<const std::byte> desired) override {
      return of_.CompareExchangeFallback(address, current, desired);
    }

   private:
    ScriptedBacking& of_;  // outlives every view
  };

  // Writes a call down. False: it is wrong, and must have no effect; `wrong`: what is known of it.
  bool Record(const Call& call, std::string wrong = {}) {
    script_.calls.push_back(call);
    if (wrong.empty()) wrong = WrongCall(setup_, call, held_);
    if (!wrong.empty() && script_.wrong_call.empty()) script_.wrong_call = Text(call) + ": " + wrong;
    return wrong.empty();
  }
  Call ListCall(CallKind kind, guestmem::AccessType access, std::span<const uint64_t> gpns) const {
    return {kind, index_, 0, 0, static_cast<Access>(access), false, 0, 0, {gpns.begin(), gpns.end()}};
  }

  static guestmem::SparseMapping::Protection ProtectionOf(PageState state) {
    using Protection = guestmem::SparseMapping::Protection;
    return state == PageState::kRam ? Protection::kReadWrite : state == PageState::kReadOnly ? Protection::kRead : Protection::kNone;
  }
  template <typename StateOf>
  guestmem::Status Change(guestmem::Status status, uint64_t offset, uint64_t length, StateOf state) {
    for (uint64_t page = offset / kPageSize; status.ok() && page < (offset + length) / kPageSize; ++page) {
      shows_file_[page] = false;
      state_[page] = state(page);
    }
    return status;
  }
  guestmem::Status SetState(uint64_t page, PageState state) { return Protect(page * kPageSize, kPageSize, state); }
  void MakeBus(uint64_t page) {
    static const int file = memfd_create("bus", MFD_CLOEXEC);  // without bytes: the kernel answers with SIGBUS
    Require(file >= 0, "memfd_create");
    void* const mapped = mmap(At(page * kPageSize), kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    Require(mapped != MAP_FAILED, "mmap");
    state_[page] = PageState::kBus;
  }
  guestmem::Status Fix(const guestmem::PageFaultInfo& fault, uint64_t page) {
    if (fault.bitmap_failure) {
      SetBit(page, fault.access, true);
      return {};
    }
    if (IsRam(page)) return {};
    return state_[page] == PageState::kBus ? Allocate(page * kPageSize, kPageSize) : SetState(page, PageState::kRam);
  }

  bool BitExists(uint64_t page, size_t access) const { return setup_.has_bitmap && !setup_.null_bitmap[access] && page < setup_.pages; }
  void ResetBits() {
    const uint64_t pages = (size_ + kPageSize - 1) / kPageSize, bytes = (setup_.bit_offset + pages + 7) / 8;
    for (uint64_t i = 0; i < 3; ++i) {
      bitmaps_[i] = reinterpret_cast<uint8_t*>(bitmap_pages_->mapping()) + (i * 2 + 1) * kPageSize - bytes;
      std::memset(bitmaps_[i] - 8, 0x5a, 8 + bytes);  // bits of no page are unlike their neighbours, so that using one shows
    }
    const auto end = setup_.page.begin() + setup_.pages;
    const bool all = std::all_of(setup_.page.begin(), end, [](const PageSetup& bits) { return bits.readable && bits.writable && bits.executable; });
    bits_ = setup_.managed ? Had(guestmem::AccessBitmap::Create(kBitmapName, pages, all), "bitmap") : nullptr;
    for (uint64_t page = 0; page < setup_.pages; ++page) {
      SetBit(page, guestmem::AccessType::kRead, setup_.page[page].readable);
      SetBit(page, guestmem::AccessType::kWrite, setup_.page[page].writable);
      SetBit(page, guestmem::AccessType::kExecute, setup_.page[page].executable);
    }
  }

  // Slow bytes are only ever stored to here, by the fallbacks: so Reset knows the pages to restore.
  uint8_t* SlowToStore(uint64_t address, uint64_t count) {
    for (uint64_t page = address / kPageSize; count != 0 && page * kPageSize < address + count; ++page) slow_stored_[page] = true;
    return &slow_[address];
  }
  // `carry(n)` carries out the first n bytes.
  template <typename Carry>
  Reply Fall(const Call& call, Carry carry, std::string wrong = {}) {
    if (!Record(call, std::move(wrong))) return kWrong;
    const bool exchange = call.kind == CallKind::kCompareExchangeFallback;
    const Reply reply = ReplyOf(script_.fallback.Next(index_, call.address / kPageSize), exchange, call.address, call.length);
    if (reply.moved != 0) carry(reply.moved);
    return reply;
  }

  const uint8_t index_;
  Script& script_;
  Backing setup_;
  std::vector<Call> held_;  // the LockGpns calls that hold
  bool lies_ = false;
  Promise broken_ = Promise::kNone;
  std::array<PageState, kMaxPages> state_ = {};  // as the arena is now
  std::array<bool, kMaxPages> shows_file_ = {};
  const std::vector<std::byte> first_bytes_;
  std::array<uint8_t, kSize> first_slow_, slow_;
  std::array<bool, kMaxPages> slow_stored_ = {};
  // Each bitmap ends where an inaccessible page starts, so that reading past it is a crash.
  const std::shared_ptr<guestmem::SparseMapping> bitmap_pages_ = Had(guestmem::SparseMapping::Create(6 * kPageSize), "bitmap");
  std::array<uint8_t*, 3> bitmaps_ = {};
  std::shared_ptr<guestmem::AccessBitmap> bits_;  // instead of those, where the bits are managed
};

// What the backings were asked since the last time.
inline std::vector<std::string> TakeCalls(Script& script) {
  std::vector<std::string> texts;
  for (const Call& call : std::exchange(script.calls, {})) texts.push_back(Text(call));
  if (!script.wrong_call.empty()) texts.push_back("wrong: " + script.wrong_call);
  return texts;
}

inline std::vector<uint8_t> SlowContents(const ScriptedBacking& backing) {
  const std::span<const uint8_t> first = backing.SlowPage(0);
  return {first.data(), first.data() + kMaxPages * kPageSize};
}

// Each page's; where there is no bit, the access is allowed.
inline std::string Bits(const ScriptedBacking& backing) {
  std::string text;
  for (uint64_t page = 0; page < kMaxPages; ++page) {
    text += page == 0 ? "" : " ";
    for (uint8_t access = 0; access < 3; ++access) text += backing.Bit(page, static_cast<guestmem::AccessType>(access)) ? "rwx"[access] : '-';
  }
  return text;
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_SUPPORT_SCRIPTED_BACKING_H_
