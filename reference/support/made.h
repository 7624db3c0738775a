// Memory that steps make, and what is behind it. The engine's subject uses it, and so do the tests that are made of traces, which
// carry this text by the sections that the lines of dashes name.

#ifndef GUESTMEM_REFERENCE_SUPPORT_MADE_H_
#define GUESTMEM_REFERENCE_SUPPORT_MADE_H_

#include <fcntl.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "reference/world/backings.h"

namespace reference {

// ---- MadeMemory MakeHeap MakeShared MakeSparse MakeGuarded MakeBare PagesOfBitmap SealsOf FirstOf StoreInner Move
struct MadeMemory {
  guestmem::GuestMemory memory;
  std::byte* base = nullptr;  // of its mapping; it may be gone since, and something newer may have its place
  uint64_t size = 0;
  int file = -1;
  bool populated = false;

  // By how many bytes it starts behind a multiple of the largest of 4096, 2 MiB and 1 GiB that it is as long as.
  uint64_t Misaligned() const {
    const uint64_t page = size >= uint64_t{1} << 30 ? uint64_t{1} << 30 : size >= uint64_t{1} << 21 ? uint64_t{1} << 21 : 4096;
    return reinterpret_cast<uintptr_t>(base) % page;
  }
  // Empty where nothing is populated.
  std::span<const uint8_t> Page(uint64_t page) const {
    if (!populated) return {};
    return {reinterpret_cast<const uint8_t*>(base) + page * kPageSize, kPageSize};
  }
};

inline guestmem::Result<MadeMemory> MakeHeap(uint64_t bytes) {
  auto memory = guestmem::GuestMemory::Allocate(bytes);
  if (!memory.ok()) return memory.status();
  const auto buffer = *memory->InnerBuffer();
  return MadeMemory{*std::move(memory), reinterpret_cast<std::byte*>(buffer.data()), buffer.size(), -1, true};
}

inline guestmem::Result<MadeMemory> MakeShared(uint64_t bytes) {
  const auto shared = guestmem::SharedMemory::Create(bytes);
  if (!shared.ok()) return shared.status();
  return MadeMemory{guestmem::GuestMemory::Create(kMadeName, *shared).value(), (*shared)->mapping(), (*shared)->size(), (*shared)->fd(), true};
}

inline guestmem::Result<MadeMemory> MakeSparse(uint64_t bytes) {
  const auto sparse = guestmem::SparseMapping::Create(bytes);
  if (!sparse.ok()) return sparse.status();
  return MadeMemory{guestmem::GuestMemory::Create(kMadeName, *sparse).value(), (*sparse)->mapping(), (*sparse)->max_address()};
}

// A mapping that an access bitmap guards.
class Guarded final : public guestmem::SharedBacking<guestmem::SparseMapping> {
 public:
  Guarded(std::shared_ptr<guestmem::SparseMapping> inner, std::shared_ptr<guestmem::AccessBitmap> bits)
      : SharedBacking(std::move(inner)), bits_(std::move(bits)) {}
  std::optional<guestmem::BitmapInfo> access_bitmap() const override { return bits_->info(); }

 private:
  const std::shared_ptr<guestmem::AccessBitmap> bits_;
};
// Its bitmap allows all but page `refused`.
inline guestmem::Result<MadeMemory> MakeGuarded(uint64_t bytes, uint64_t refused) {
  const auto sparse = guestmem::SparseMapping::Create(bytes);
  if (!sparse.ok()) return sparse.status();
  const uint64_t pages = (*sparse)->max_address() / kPageSize;
  const auto bits = guestmem::AccessBitmap::Create(kBitmapName, pages, false);
  if (!bits.ok()) return bits.status();
  if (auto status = (*bits)->Grant({0, pages}, guestmem::kAllAccess); !status.ok()) return status;
  (void)(*bits)->Revoke({refused, 1}, guestmem::kAllAccess);  // beyond the last page it is refused, and nothing is to be refused
  auto memory = guestmem::GuestMemory::Create(kMadeName, std::make_shared<Guarded>(*sparse, *bits)).value();
  return MadeMemory{std::move(memory), (*sparse)->mapping(), (*sparse)->max_address()};
}

// No mapping, and every other method as it is inherited.
class Bare final : public guestmem::GuestMemoryAccess {
 public:
  explicit Bare(uint64_t size) : size_(size) {}
  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return size_; }

 private:
  const uint64_t size_;
};
inline guestmem::Result<MadeMemory> MakeBare(uint64_t bytes) {
  auto memory = guestmem::GuestMemory::Create(kMadeName, std::make_shared<Bare>(bytes));
  if (!memory.ok()) return memory.status();
  return MadeMemory{*std::move(memory)};
}

// How many an AccessBitmap of so many has.
inline guestmem::Result<uint64_t> PagesOfBitmap(uint64_t pages) {
  const auto bits = guestmem::AccessBitmap::Create(kBitmapName, pages, false);
  return bits.ok() ? guestmem::Result<uint64_t>((*bits)->pages()) : guestmem::Result<uint64_t>(bits.status());
}

// Of a shared memory's file.
inline uint64_t SealsOf(int file) {
  return static_cast<uint64_t>(fcntl(file, F_GET_SEALS) & (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
}

// Its first bytes from `offset` on.
inline std::vector<uint8_t> FirstOf(int file, uint64_t offset, uint64_t size) {
  std::vector<uint8_t> bytes(std::min<uint64_t>(16, size));
  const ssize_t got = pread(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return bytes;
}

// Stores to the first byte of heap memory's own buffer, if there is access to it. Its size.
inline std::optional<uint64_t> StoreInner(guestmem::GuestMemory& memory, Inner how, uint8_t value, std::shared_ptr<guestmem::AlignedHeapMemory>& taken) {
  const auto store = [&](auto buffer, auto byte) {
    if (!buffer.empty()) buffer[0] = byte;
    return std::optional<uint64_t>(buffer.size());
  };
  switch (how) {
    case Inner::kShared:
      if (const auto buffer = memory.InnerBuffer()) return store(*buffer, value);
      return std::nullopt;
    case Inner::kMutable:
      if (const auto buffer = memory.InnerBufferMutable()) return store(*buffer, std::byte{value});
      return std::nullopt;
    case Inner::kTake: break;
  }
  auto heap = std::move(memory).TakeInnerBuffer();
  if (heap == nullptr) return std::nullopt;
  taken = std::move(heap);
  return store(std::span(taken->mapping(), taken->max_address()), std::byte{value});
}

inline void Move(guestmem::GuestMemory& from, guestmem::GuestMemory& to) { to = std::move(from); }

// ---- HandlesForeignFault
// Whether TryHandleFault takes a fault for one of its own that no Try access has made: such a signal and code, from anywhere.
inline bool HandlesForeignFault(uint8_t which) {
  static constexpr std::pair<int, int> kFaults[] = {
      {SIGSEGV, SEGV_MAPERR}, {SIGSEGV, SEGV_ACCERR}, {SIGSEGV, SEGV_PKUERR}, {SIGSEGV, SI_USER},
      {SIGBUS, BUS_ADRERR},   {SIGBUS, BUS_MCEERR_AR}, {SIGBUS, BUS_ADRALN},  {SIGTRAP, TRAP_BRKPT}};
  siginfo_t info = {};
  info.si_signo = kFaults[which].first;
  info.si_code = kFaults[which].second;
  ucontext_t context = {};
  context.uc_mcontext.gregs[REG_RIP] = which % 2 == 0 ? 0 : -1;  // below and above all that can recover
  const uint64_t before = guestmem::RecoveredFaults();
  const bool handled = guestmem::TryHandleFault(info.si_signo, &info, &context);
  return handled || guestmem::RecoveredFaults() != before || !guestmem::FaultHandlerIsInstalled();
}

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_SUPPORT_MADE_H_
