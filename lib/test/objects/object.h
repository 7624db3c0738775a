// What each linked object of the object matrix (object_matrix_test.cc) does: all of it header code and statics that are the
// object's own, so that each object that includes this has inline accesses, a recovery table and late destructors.

#ifndef GUESTMEM_LIB_TEST_OBJECTS_OBJECT_H_
#define GUESTMEM_LIB_TEST_OBJECTS_OBJECT_H_

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include "guestmem/access_bitmap.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "guestmem/shared_backing.h"
#include "guestmem/sparse_mapping.h"
#include "interface.h"

namespace {

using namespace guestmem;

struct Ram : SharedBacking<SparseMapping> {
  Ram(std::shared_ptr<SparseMapping> memory, std::shared_ptr<AccessBitmap> access)
      : SharedBacking(std::move(memory)), bits(std::move(access)) {}
  std::optional<BitmapInfo> access_bitmap() const override { return bits->info(); }
  const std::shared_ptr<AccessBitmap> bits;
};

// How many of the primitives did not do what they should: `good` is two pages, `hole` one that faults.
unsigned UsePrimitives(std::byte* good, std::byte* hole) {
  unsigned wrong = 0;
  uint64_t value = 1;
  bool swapped = false;
  std::array<std::byte, 100> bytes{};
  wrong += TryRead(good, value).has_value();
  wrong += !TryRead(hole, value).has_value();
  wrong += !TryWrite(hole + 8, value).has_value();
  wrong += !TryCompareExchange(hole + 16, value, uint64_t{2}, swapped).has_value();
  wrong += TryCopy(GuestSide::kSource, bytes.data(), good, bytes.size()).has_value();
  wrong += !TryCopy(GuestSide::kDestination, hole, bytes.data(), bytes.size()).has_value();
  wrong += !TryFill(hole, std::byte{1}, 5000 % kPageSize).has_value();
  return wrong;
}

// The same of a memory of the object's own, with access bits, sections and a revoke.
unsigned UseMemory(bool install) {
  CreateOptions options;
  options.install_fault_handler = install;
  auto ram = SparseMapping::Create(4 * kPageSize);
  auto bits = AccessBitmap::Create("bits", 4, true);
  if (!ram.ok() || !bits.ok() || !(*ram)->Allocate(0, kPageSize).ok()) {
    return 1;
  }
  const auto backing = std::make_shared<Ram>(*ram, *bits);
  const auto memory = GuestMemory::Create("ram", backing, options);
  if (!memory.ok()) {
    return 1;
  }
  unsigned wrong = 0;
  std::array<std::byte, 200> bytes{};
  wrong += !memory->ReadAt(0, bytes).ok();
  wrong += memory->ReadAt(kPageSize - 100, bytes).kind() != ErrorKind::kNotMapped;
  wrong += !memory->WritePlain<uint32_t>(16, 1).ok();
  wrong += !backing->bits->Revoke({0, 1}, kAllAccess).ok();
  wrong += memory->WritePlain<uint32_t>(16, 1).kind() != ErrorKind::kAccessDenied;
  wrong += Rcu::InSection();
  return wrong;
}

unsigned Use(std::byte* good, std::byte* hole, int install) {
  if (install != 0 && !InstallFaultHandler().ok()) {
    return 100;
  }
  const unsigned wrong = UseMemory(install != 0) + UsePrimitives(good, hole);
  return wrong;
}

int Handle(int signal, siginfo_t* info, void* context) { return TryHandleFault(signal, info, context); }

std::atomic<std::atomic<uint64_t>*> g_faults{nullptr};
std::atomic<pid_t> g_process{0};

// Faults until the process ends.
void Loop(std::byte* hole, std::atomic<uint64_t>* faults) {
  g_process = getpid();
  g_faults = faults;
  std::array<std::byte, 64> bytes{};
  for (uint64_t value;;) {
    if (!TryRead(hole, value) || !TryCopy(GuestSide::kSource, bytes.data(), hole, bytes.size())) {
      __builtin_trap();
    }
    faults->fetch_add(1);
  }
}

// At this point of the process's end the thread in Loop faults many times more.
void AwaitFaults() {
  std::atomic<uint64_t>* const faults = g_faults;
  if (faults == nullptr || g_process != getpid()) {
    return;
  }
  for (const uint64_t before = *faults; *faults < before + 10;) {
    std::this_thread::yield();
  }
}
struct Late {
  ~Late() { AwaitFaults(); }
};
[[gnu::init_priority(110)]] Late g_constructed_early;
Late g_constructed_late;
[[gnu::destructor(110)]] void TheEnd() { AwaitFaults(); }

}  // namespace

#endif  // GUESTMEM_LIB_TEST_OBJECTS_OBJECT_H_
