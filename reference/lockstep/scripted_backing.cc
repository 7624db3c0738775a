#include "reference/lockstep/scripted_backing.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "guestmem/guest_memory.h"
#include "reference/lockstep/call_check.h"
#include "reference/lockstep/reply_status.h"
#include "reference/setup.h"

namespace reference {
namespace {

using guestmem::PageFaultAction;
using guestmem::SparseMapping;
using guestmem::Status;

constexpr uint64_t kArenaSize = kMaxPages * kPageSize;
constexpr Reply kWrong = {Reply::Says::kScripted};  // to a call that may not be

template <typename T>
T Had(guestmem::Result<T> result, const char* what) {
  Require(result.ok(), what);
  return *std::move(result);
}

// The starting bytes of every backing, made once.
template <uint8_t (*Pattern)(uint64_t, uint64_t)>
const std::array<uint8_t, kArenaSize>& Template(uint8_t backing) {
  static const auto* const all = [] {
    auto* patterns = new std::array<std::array<uint8_t, kArenaSize>, kMaxBackings>;
    for (uint64_t b = 0; b < kMaxBackings; ++b) {
      for (uint64_t i = 0; i < kArenaSize; ++i) {
        (*patterns)[b][i] = Pattern(b, i);
      }
    }
    return patterns;
  }();
  return (*all)[backing];
}

// The file of the world. One serves all worlds, and is written anew if the last one has used it.
class WorldFile {
 public:
  static WorldFile& Get() {
    static auto* const file = new WorldFile;
    return *file;
  }
  // To be mapped, so it may be stored to.
  int fd() {
    used_ = true;
    return fd_;
  }
  void Reset() {
    if (!used_) {
      return;
    }
    used_ = false;
    Require(pwrite(fd_, bytes_.data(), bytes_.size(), 0) == static_cast<ssize_t>(bytes_.size()), "pwrite");
  }

 private:
  WorldFile() : fd_(memfd_create("world file", MFD_CLOEXEC)) {
    Require(fd_ >= 0, "memfd_create");
    for (uint64_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i] = FilePattern(i);
    }
    Reset();
  }

  const int fd_;
  bool used_ = true;
  std::array<uint8_t, kFilePages * kPageSize> bytes_;
};

uint64_t Word(std::span<const std::byte> bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes.data(), std::min(bytes.size(), sizeof word));
  return word;
}

SparseMapping::Protection ProtectionOf(PageState state) {
  switch (state) {
    case PageState::kRam:
      return SparseMapping::Protection::kReadWrite;
    case PageState::kReadOnly:
      return SparseMapping::Protection::kRead;
    case PageState::kHole:
    case PageState::kBus:
      break;
  }
  return SparseMapping::Protection::kNone;
}

class TwoHostCalls {
 public:
  TwoHostCalls() { g_two_host_calls = true; }
  ~TwoHostCalls() { g_two_host_calls = false; }
};

// What this machine's kernel refuses to everybody counts as done, so that a trace means the same on every machine.
bool HostRefuses(StepKind kind) {
  static const auto refuses = [](const char* what, auto call) {
    void* const page = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Require(page != MAP_FAILED, "mmap");
    const bool refused = call(page) != 0;
    munmap(page, kPageSize);
    if (refused) {
      std::fprintf(stderr, "note: this machine refuses %s; steps that ask for it succeed unseen\n", what);
    }
    return refused;
  };
  static const bool huge_pages = refuses("huge pages", [](void* page) { return madvise(page, kPageSize, MADV_HUGEPAGE); });
  static const bool nodes = refuses("binding memory to NUMA node 0", [](void* page) {
    const unsigned long first = 1;
    return static_cast<int>(syscall(SYS_mbind, page, kPageSize, MPOL_BIND, &first, 64, MPOL_MF_MOVE));
  });
  return kind == StepKind::kBindToNode ? nodes : huge_pages;
}

}  // namespace

bool ScriptedBacking::Record(const Call& call, std::string wrong) {
  script_.outcome->calls.push_back(call);
  if (wrong.empty()) {
    wrong = WrongCall(setup_, call, held_);
  }
  if (!wrong.empty() && script_.outcome->wrong_call.empty()) {
    script_.outcome->wrong_call = wrong;
  }
  return wrong.empty();
}

bool g_two_host_calls = false;
uint64_t g_failed_host_calls = 0;

ScriptedBacking::ScriptedBacking(uint8_t index, Script& script)
    : index_(index), script_(script), slow_(Template<SlowPattern>(index)) {
  arena_ = Had(SparseMapping::Create(kArenaSize), "arena");
  Require(arena_->Allocate(0, kArenaSize).ok(), "arena");
  bitmap_pages_ = Had(SparseMapping::Create(6 * kPageSize), "bitmap");
  for (uint64_t i = 0; i < 3; ++i) {
    Require(bitmap_pages_->Allocate(i * 2 * kPageSize, kPageSize).ok(), "bitmap");
  }
}

ScriptedBacking::~ScriptedBacking() = default;

void ScriptedBacking::Reset(const Backing& setup) {
  setup_ = setup;
  held_.clear();
  lies_ = false;
  auto* const bytes = reinterpret_cast<uint8_t*>(arena_->mapping());
  WorldFile::Get().Reset();
  for (uint64_t page = 0; page < kMaxPages; ++page) {
    if (state_[page] == PageState::kBus || shows_file_[page]) {
      Require(arena_->Allocate(page * kPageSize, kPageSize).ok(), "arena");
    } else if (state_[page] != PageState::kRam) {
      Require(arena_->Protect(page * kPageSize, kPageSize, SparseMapping::Protection::kReadWrite).ok(), "arena");
    }
    state_[page] = PageState::kRam;
  }
  shows_file_ = {};
  std::memcpy(bytes, Template<MappedPattern>(index_).data(), kArenaSize);
  for (uint64_t page = 0; page < kMaxPages; ++page) {
    if (std::exchange(slow_stored_[page], false)) {
      std::memcpy(&slow_[page * kPageSize], &Template<SlowPattern>(index_)[page * kPageSize], kPageSize);
    }
  }
  for (uint64_t page = 0; page < setup_.pages; ++page) {
    if (setup_.page[page].state == PageState::kBus) {
      MakeBus(page);
    } else if (setup_.page[page].state != PageState::kRam) {
      Require(SetState(page, setup_.page[page].state).ok(), "arena");
    }
  }
  const uint64_t pages = (setup_.max_address() + kPageSize - 1) / kPageSize;
  const uint64_t bitmap_bytes = (setup_.bit_offset + pages + 7) / 8;
  for (uint64_t i = 0; i < 3; ++i) {
    bitmaps_[i] = reinterpret_cast<uint8_t*>(bitmap_pages_->mapping()) + (i * 2 + 1) * kPageSize - bitmap_bytes;
    // Bits that belong to no page say the opposite of their neighbours, so that using one shows.
    std::memset(bitmaps_[i] - 8, 0x5a, 8 + bitmap_bytes);
  }
  bits_ = nullptr;
  if (setup_.managed) {
    const auto end = setup_.page.begin() + setup_.pages;
    const bool all = std::all_of(setup_.page.begin(), end, [](const PageSetup& bits) {
      return bits.readable && bits.writable && bits.executable;
    });
    bits_ = Had(guestmem::AccessBitmap::Create(kBitmapName, pages, all), "bitmap");
  }
  for (uint64_t page = 0; page < setup_.pages; ++page) {
    const PageSetup& bits = setup_.page[page];
    SetBit(page, Access::kRead, bits.readable);
    SetBit(page, Access::kWrite, bits.writable);
    SetBit(page, Access::kExecute, bits.executable);
  }
}

void ScriptedBacking::MakeBus(uint64_t page) {
  // A file without bytes, mapped: the kernel answers with SIGBUS. One file serves all.
  static const int file = [] {
    const int fd = memfd_create("bus", MFD_CLOEXEC);
    Require(fd >= 0, "memfd_create");
    return fd;
  }();
  void* const mapped = mmap(arena_->mapping() + page * kPageSize, kPageSize, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_FIXED, file, 0);
  Require(mapped != MAP_FAILED, "mmap");
  state_[page] = PageState::kBus;
}

Status ScriptedBacking::SetState(uint64_t page, PageState state) {
  Status status = arena_->Protect(page * kPageSize, kPageSize, ProtectionOf(state));
  if (status.ok() && state_[page] != PageState::kBus) {
    state_[page] = state;
  }
  return status;
}

constexpr PageState kProtections[] = {PageState::kHole, PageState::kReadOnly, PageState::kRam};

Status ScriptedBacking::ChangeMapping(const Step& step) {
  const uint64_t offset = step.page * kPageSize;
  const uint64_t length = step.count * kPageSize;
  Status status;
  switch (step.kind) {
    case StepKind::kAllocate:
      status = arena_->Allocate(offset, length);
      break;
    case StepKind::kMapZero:
      status = arena_->MapZero(offset, length);
      break;
    case StepKind::kProtect:
      status = arena_->Protect(offset, length, ProtectionOf(kProtections[step.choice % 3]));
      break;
    case StepKind::kMapFile: {
      const TwoHostCalls two;
      status = arena_->MapFile(offset, length, WorldFile::Get().fd(), step.choice * kPageSize, step.form == 1);
      break;
    }
    case StepKind::kDecommit:
      status = arena_->Decommit(offset, length);
      break;
    default:
      status = arena_->Unmap(offset, length);
      break;
  }
  for (uint64_t page = step.page; status.ok() && page < uint64_t{step.page} + step.count; ++page) {
    AfterChange(step, page);
  }
  return status;
}

Status ScriptedBacking::ChangeBytes(const Step& step) {
  Status status;
  uint64_t first = 0;
  if (step.kind == StepKind::kUnmapBytes) {
    status = arena_->Unmap(step.offset, step.length);
    first = step.offset / kPageSize;
  } else {
    const TwoHostCalls two;
    status = arena_->MapFile(0, step.length, WorldFile::Get().fd(), step.offset, false);
  }
  for (uint64_t i = 0; status.ok() && i < step.length / kPageSize; ++i) {
    AfterChange(step, first + i);
  }
  return status;
}

// Changes nothing that can be seen, so that there is nothing to remember.
Status ScriptedBacking::Advise(const Step& step) {
  const uint64_t offset = step.page * kPageSize;
  const uint64_t length = step.count * kPageSize;
  static constexpr unsigned kNodes[] = {0, 1023, 1024};
  const uint64_t failed_before = g_failed_host_calls;
  Status status;
  if (step.kind == StepKind::kBindToNode) {
    status = arena_->BindToNode(offset, length, kNodes[step.choice]);
  } else {
    status = arena_->AdviseHugePages(offset, length, step.choice == 0 ? SparseMapping::HugePages::kAdvised : SparseMapping::HugePages::kRefused);
  }
  const bool good = offset + length <= kArenaSize && (step.kind == StepKind::kAdviseHugePages || step.choice == 0);
  const bool locked = step.kind == StepKind::kBindToNode && !arena_->WaitUnlocked(offset, length, {}).ok();
  const bool wanted = good && !locked && g_failed_host_calls == failed_before;
  return wanted && !status.ok() && HostRefuses(step.kind) ? Status() : status;
}

// Remembers what a page has become, so that Reset can undo it and MappedPage knows where there are bytes.
void ScriptedBacking::AfterChange(const Step& step, uint64_t page) {
  if (step.kind == StepKind::kDecommit) {
    return;
  }
  if (step.kind == StepKind::kProtect) {
    if (state_[page] != PageState::kBus) {
      state_[page] = kProtections[step.choice % 3];
    }
    return;
  }
  shows_file_[page] = step.kind == StepKind::kMapFile || step.kind == StepKind::kMapFileBytes;
  switch (step.kind) {
    case StepKind::kAllocate:
      state_[page] = PageState::kRam;
      break;
    case StepKind::kMapZero:
      state_[page] = PageState::kReadOnly;
      break;
    case StepKind::kMapFile: {
      const bool missing = step.choice + page - step.page >= kFilePages;
      state_[page] = missing ? PageState::kBus : step.form == 1 ? PageState::kRam : PageState::kReadOnly;
      break;
    }
    case StepKind::kMapFileBytes:
      state_[page] = step.offset / kPageSize + page >= kFilePages ? PageState::kBus : PageState::kReadOnly;
      break;
    default:
      state_[page] = PageState::kHole;
      break;
  }
}

bool ScriptedBacking::BitExists(uint64_t page, Access access) const {
  return setup_.has_bitmap && !setup_.null_bitmap[static_cast<size_t>(access)] && page < setup_.pages;
}

uint8_t* ScriptedBacking::BitByte(uint64_t page, Access access) const {
  return bitmaps_[static_cast<size_t>(access)] + (setup_.bit_offset + page) / 8;
}

void ScriptedBacking::SetBit(uint64_t page, Access access, bool bit) {
  if (bits_ != nullptr && page < setup_.pages) {
    if (bits_->IsAllowed(page, static_cast<guestmem::AccessType>(access)) != bit) {
      const auto mask = static_cast<guestmem::AccessMask>(1 << static_cast<int>(access));
      (void)(bit ? bits_->Grant({page, 1}, mask) : bits_->Revoke({page, 1}, mask));  // a locked page stays as it is
    }
  } else if (BitExists(page, access)) {
    const auto mask = static_cast<uint8_t>(1U << (setup_.bit_offset + page) % 8);
    uint8_t* const byte = BitByte(page, access);
    *byte = static_cast<uint8_t>(bit ? *byte | mask : *byte & ~mask);
  }
}

bool ScriptedBacking::Bit(uint64_t page, Access access) const {
  if (bits_ != nullptr) {
    const bool allowed = bits_->IsAllowed(page, static_cast<guestmem::AccessType>(access));
    return page < setup_.pages ? allowed : !allowed;  // beyond the last page nothing is
  }
  return !BitExists(page, access) || (*BitByte(page, access) >> (setup_.bit_offset + page) % 8 & 1) != 0;
}

std::span<const uint8_t> ScriptedBacking::MappedPage(uint64_t page, bool final) {
  static constexpr std::array<uint8_t, kPageSize> kZeroes = {};
  if (state_[page] == PageState::kBus) {
    return kZeroes;
  }
  if (state_[page] == PageState::kHole) {
    if (!final) {
      return {};
    }
    Require(SetState(page, PageState::kReadOnly).ok(), "arena");
  }
  return {reinterpret_cast<const uint8_t*>(arena_->mapping()) + page * kPageSize, kPageSize};
}

std::span<const uint8_t> ScriptedBacking::SlowPage(uint64_t page) const {
  return std::span(slow_).subspan(page * kPageSize, kPageSize);
}

std::optional<uint64_t> ScriptedBacking::AddressOf(const void* host) const {
  const auto address = reinterpret_cast<uintptr_t>(host), start = reinterpret_cast<uintptr_t>(arena_->mapping());
  return address >= start && address - start < kArenaSize ? std::optional<uint64_t>(address - start) : std::nullopt;
}

uint8_t* ScriptedBacking::PlainRam(uint64_t address, uint64_t length) const {
  if (length > kArenaSize - address) {
    return nullptr;
  }
  for (uint64_t page = address / kPageSize; length != 0 && page * kPageSize < address + length; ++page) {
    if (!IsRam(page) || shows_file_[page]) {
      return nullptr;
    }
  }
  return reinterpret_cast<uint8_t*>(arena_->mapping()) + address;
}

std::byte* ScriptedBacking::mapping() const {
  const uint64_t misaligned = broken_ == Promise::kMapping ? 8 : 0;
  return setup_.mapped != lies_ ? arena_->mapping() + misaligned : nullptr;
}

uint64_t ScriptedBacking::max_address() const {
  if (broken_ == Promise::kSize) {
    return uint64_t{1} << 63;
  }
  return lies_ ? 1 : setup_.max_address();
}

std::optional<guestmem::BitmapInfo> ScriptedBacking::access_bitmap() const {
  if (setup_.has_bitmap == lies_) {
    return std::nullopt;
  }
  const auto pointer = [&](size_t i) { return setup_.null_bitmap[i] ? nullptr : bitmaps_[i]; };
  guestmem::BitmapInfo info = {pointer(0), pointer(1), pointer(2), setup_.bit_offset};
  if (bits_ != nullptr) {
    info = bits_->info();
  }
  if (broken_ == Promise::kBitOffset) {
    info.bit_offset = 8;
  }
  return info;
}

guestmem::Result<std::vector<guestmem::SharedFile>> ScriptedBacking::sharing() const {
  const int fd = kFirstFile + index_;
  constexpr uint64_t kLastPage = ~uint64_t{0} - 4095;
  switch (setup_.sharing) {
    case Sharing::kNone:
      break;
    case Sharing::kWhole:
      return std::vector<guestmem::SharedFile>{{fd, 0, 0, setup_.max_address()}};
    case Sharing::kParts:
      return std::vector<guestmem::SharedFile>{{fd, 8192, 4096, 4096}, {fd, 0, 0, 100}};
    case Sharing::kWild:
      return std::vector<guestmem::SharedFile>{{fd, kLastPage, 0, ~uint64_t{0}}, {fd, 0, kLastPage, 8192}, {fd, 4096, 4096, kLastPage}};
  }
  return std::vector<guestmem::SharedFile>();
}

std::optional<uint64_t> ScriptedBacking::base_iova() const {
  return setup_.has_iova != lies_ ? std::optional(kIovaBase) : std::nullopt;
}

Status ScriptedBacking::Fix(const guestmem::PageFaultInfo& fault, uint64_t page) {
  if (fault.bitmap_failure) {
    SetBit(page, static_cast<Access>(fault.access), true);
    return {};
  }
  switch (state_[page]) {
    case PageState::kRam:
      return {};
    case PageState::kBus: {
      Status status = arena_->Allocate(page * kPageSize, kPageSize);
      if (status.ok()) {
        state_[page] = PageState::kRam;
        shows_file_[page] = false;
      }
      return status;
    }
    default:
      return SetState(page, PageState::kRam);
  }
}

PageFaultAction ScriptedBacking::PageFault(const guestmem::PageFaultInfo& fault) {
  const auto access = static_cast<Access>(fault.access);
  if (!Record({CallKind::kPageFault, index_, fault.address, fault.length, access, fault.bitmap_failure, 0, 0})) {
    return PageFaultAction::Fail(StatusOf(kWrong));
  }
  const HandlerAnswer answer = script_.handler.Next(index_, fault.address / kPageSize);
  const Handling handling = HandlingOf(answer, fault.address, fault.length);
  switch (handling.ends) {
    case Handling::Ends::kDefault:
      return GuestMemoryAccess::PageFault(fault);
    case Handling::Ends::kFail:
      return PageFaultAction::Fail(StatusOf(handling.failure));
    case Handling::Ends::kFallback:
      return PageFaultAction::Fallback();
    case Handling::Ends::kRetry:
      break;
  }
  for (uint64_t page = fault.address / kPageSize; handling.fixes && page <= handling.last / kPageSize; ++page) {
    if (Status status = Fix(fault, page); !status.ok()) {
      return PageFaultAction::Fail(std::move(status));
    }
  }
  if (handling.refuses_at) {
    SetBit(*handling.refuses_at / kPageSize, access, false);
  }
  if (handling.vanishes) {
    if (Status status = SetState(0, PageState::kHole); !status.ok()) {
      return PageFaultAction::Fail(std::move(status));
    }
  }
  return PageFaultAction::Retry();
}

uint8_t* ScriptedBacking::SlowToStore(uint64_t address, uint64_t count) {
  for (uint64_t page = address / kPageSize; count != 0 && page * kPageSize < address + count; ++page) {
    slow_stored_[page] = true;
  }
  return &slow_[address];
}

// `move(n)` carries out the first n bytes.
template <typename Move>
Reply ScriptedBacking::Fall(const Call& call, Move move, std::string wrong) {
  if (!Record(call, std::move(wrong))) {
    return kWrong;
  }
  const bool exchange = call.kind == CallKind::kCompareExchangeFallback;
  const Reply reply = ReplyOf(script_.fallback.Next(index_, call.address / kPageSize), exchange, call.address, call.length);
  if (reply.moved != 0) {
    move(reply.moved);
  }
  return reply;
}

Status ScriptedBacking::ReadFallback(uint64_t address, std::span<std::byte> destination) {
  return StatusOf(Fall({CallKind::kReadFallback, index_, address, destination.size(), {}, false, 0, 0},
                       [&](uint64_t n) { std::memcpy(destination.data(), &slow_[address], n); }));
}

Status ScriptedBacking::WriteFallback(uint64_t address, std::span<const std::byte> source) {
  return StatusOf(Fall({CallKind::kWriteFallback, index_, address, source.size(), {}, false, 0, 0},
                       [&](uint64_t n) { std::memcpy(SlowToStore(address, n), source.data(), n); }));
}

Status ScriptedBacking::FillFallback(uint64_t address, std::byte value, uint64_t length) {
  return StatusOf(Fall({CallKind::kFillFallback, index_, address, length, {}, false, std::to_integer<uint8_t>(value), 0},
                       [&](uint64_t n) { std::memset(SlowToStore(address, n), std::to_integer<int>(value), n); }));
}

guestmem::Result<bool> ScriptedBacking::CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                                                std::span<const std::byte> desired) {
  bool swapped = false;
  const auto exchange = [&](uint64_t n) {
    swapped = std::memcmp(&slow_[address], current.data(), n) == 0;
    std::memcpy(current.data(), &slow_[address], n);
    if (swapped) {
      std::memcpy(SlowToStore(address, n), desired.data(), n);
    }
  };
  const std::string wrong = current.size() == desired.size() ? "" : "compare_exchange_fallback: spans of unequal length";
  const Reply reply = Fall({CallKind::kCompareExchangeFallback, index_, address, desired.size(), {}, false, Word(current), Word(desired)},
                           exchange, wrong);
  return reply.says == Reply::Says::kOk ? guestmem::Result<bool>(swapped) : guestmem::Result<bool>(StatusOf(reply));
}

}  // namespace reference
