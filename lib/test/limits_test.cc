// What an operation takes of the process: heap, stack, descriptors, keys, mappings. Counted over thousands of them; none may grow with how
// many came before. Of SparseMapping's own mappings: sparse_mapping_limits_test.cc.

#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/event.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/paged_range.h"
#include "guestmem/shared_backing.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/stream.h"
#include "host_state.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace {

std::atomic<int64_t> g_heap_bytes{0};  // that operator new has given and not got back

}  // namespace

void* operator new(size_t size, std::align_val_t alignment) {
  const auto multiple = std::max(static_cast<size_t>(alignment), sizeof(void*));
  void* const memory = std::aligned_alloc(multiple, (size + multiple - 1) / multiple * multiple);
  if (memory == nullptr) {
    std::abort();
  }
  g_heap_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  return memory;
}
void* operator new(size_t size) { return operator new(size, std::align_val_t{__STDCPP_DEFAULT_NEW_ALIGNMENT__}); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return operator new(size); }
void operator delete(void* memory) noexcept {
  g_heap_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { operator delete(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { operator delete(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { operator delete(memory); }

namespace guestmem {
namespace {

using test::Ok;
using test::ScriptedBacking;

// Runs `call` on a thread whose stack is of 64 KiB.
void OnASmallStack(std::function<void()> call) {
  constexpr size_t kStack = 64 << 10;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, kStack), 0);
  pthread_t thread;
  const auto run = [](void* function) -> void* {
    (*static_cast<std::function<void()>*>(function))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, run, &call), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

// A parser that replaces its view by the rest of it; the guest chooses how many records there are.
TEST(Limits, AChainOfViewsKeepsTheHeapOfOne) {
  constexpr uint64_t kViews = 200'000, kOneView = 1024;
  auto backing = std::make_shared<ScriptedBacking>(kViews / kPageSize + 1, kViews / kPageSize + 1);
  const std::weak_ptr<ScriptedBacking> lives = backing;
  GuestMemory rest = GuestMemory::Create("ram", std::move(backing)).value();
  const int64_t before = g_heap_bytes;
  OnASmallStack([&] {
    for (uint64_t i = 1; i <= kViews; ++i) {
      rest = rest.Subrange(1, kViews - i).value();
      if (i % 1000 == 0) {
        ASSERT_LE(g_heap_bytes - before, static_cast<int64_t>(kOneView)) << i;
      }
    }
    EXPECT_FALSE(lives.expired());
    rest = GuestMemory();
  });
  EXPECT_TRUE(lives.expired());
}

TEST(Limits, ViewsOfViewsThatAllLiveTakeSoMuchHeapEachAndNoMore) {
  constexpr uint64_t kViews = 10'000, kOneView = 1024;
  std::vector<GuestMemory> views(1, GuestMemory::Create("ram", std::make_shared<ScriptedBacking>(4, 4)).value());
  views.reserve(kViews + 1);
  const int64_t before = g_heap_bytes;
  for (uint64_t i = 0; i < kViews; ++i) {
    views.push_back(views.back().Subrange(1, 4 * kPageSize - i - 1).value());
  }
  EXPECT_LE(g_heap_bytes - before, static_cast<int64_t>(kViews * kOneView));
  EXPECT_TRUE(Ok(views.back().WritePlain<uint8_t>(3, 7)));
  EXPECT_EQ(views.front().ReadPlain<uint8_t>(kViews + 3).value(), 7);
  OnASmallStack([&] {
    views.resize(views.size() - 1);
    views.erase(views.begin(), views.begin() + 1);  // the root lives on in the others
    EXPECT_EQ(views.back().ReadPlain<uint8_t>(4).value(), 7);
    views.clear();
  });
}

// A parser that limits what it reads by a length that the guest wrote, within a limit, within a limit.
TEST(Limits, AChainOfLimitsTakesTheStackOfOne) {
  constexpr uint64_t kDepth = 100'000;
  std::array<std::byte, 64> bytes = {};
  OnASmallStack([&] {
    SpanReader reader(bytes);
    SpanWriter writer(bytes);
    std::deque<LimitedReader> readers;
    std::deque<LimitedWriter> writers;
    for (uint64_t i = 0; i < kDepth; ++i) {
      const uint64_t limit = 10 + kDepth - i;
      readers.emplace_back(i == 0 ? static_cast<MemoryReader&>(reader) : readers.back(), limit);
      writers.emplace_back(i == 0 ? static_cast<MemoryWriter&>(writer) : writers.back(), limit);
    }
    EXPECT_EQ(readers.back().remaining(), 11U);
    EXPECT_TRUE(Ok(writers.back().WritePlain<uint32_t>(0x01020304)));
    EXPECT_TRUE(Ok(writers.back().Fill(std::byte{9}, 4)));
    EXPECT_EQ(writers.back().Fill(std::byte{9}, 4).kind(), ErrorKind::kOutOfRange);
    EXPECT_EQ(writers.back().remaining(), 3U);
    EXPECT_EQ(writers.front().remaining(), 56U);
    EXPECT_TRUE(Ok(readers.back().Skip(1)));
    EXPECT_EQ(readers.back().ReadPlain<uint16_t>().value(), 0x0203U);
    EXPECT_EQ(readers.back().Skip(9).kind(), ErrorKind::kOutOfRange);
    EXPECT_EQ(readers.back().remaining(), 8U);
    EXPECT_EQ(readers[kDepth / 2].remaining(), 61U);
  });
}

// A list of pages that a handler makes one by one costs two locks of it, not one a page.
TEST(Limits, AListOfPagesThatAreNotThereIsLockedTwice) {
  static constexpr uint64_t kPages = 3000;
  struct Lazy : SharedBacking<SparseMapping> {
    Lazy() : SharedBacking(SparseMapping::Create(kPages * kPageSize).value()) {}
    std::optional<BitmapInfo> access_bitmap() const override { return bits->info(); }
    Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {
      ++locks;
      return SharedBacking::LockGpns(access, gpns);
    }
    PageFaultAction PageFault(const PageFaultInfo& fault) override {
      ++asked;
      const Status status = fault.bitmap_failure ? bits->Grant({fault.address / kPageSize, 1}, kAllAccess)
                                                 : inner()->Allocate(fault.address, kPageSize);
      return status.ok() ? PageFaultAction::Retry() : PageFaultAction::Fail(status);
    }
    const std::shared_ptr<AccessBitmap> bits = AccessBitmap::Create("bits", kPages, false).value();
    int locks = 0;
    uint64_t asked = 0;
  };
  const auto lazy = std::make_shared<Lazy>();
  const GuestMemory memory = GuestMemory::Create("lazy", lazy).value();
  std::vector<uint64_t> gpns(kPages);
  for (uint64_t i = 0; i < gpns.size(); ++i) {
    gpns[i] = i * 7 % kPages;
  }
  EXPECT_TRUE(Ok(memory.LockGpns(AccessType::kWrite, true, gpns).status()));
  EXPECT_EQ(lazy->asked, 2 * kPages);  // for the bit and for the page
  EXPECT_EQ(lazy->locks, 2);
}

// How many thread-specific keys can still be had.
int FreeKeys() {
  std::vector<pthread_key_t> keys;
  for (pthread_key_t key; pthread_key_create(&key, nullptr) == 0;) {
    keys.push_back(key);
  }
  for (const pthread_key_t key : keys) {
    pthread_key_delete(key);
  }
  return static_cast<int>(keys.size());
}

int Mappings() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) {
    ++count;
  }
  return count;
}

// One of everything that the library makes, used, and dropped again.
void MakeUseDrop(uint64_t round) {
  const uint64_t gpns[] = {2, 0, 1};
  std::array<std::byte, 100> buffer;
  const auto ram = SparseMapping::Create(16 * kPageSize).value();
  const auto shared = SharedMemory::Create(4 * kPageSize).value();
  const auto bits = AccessBitmap::Create("bits", 16, true).value();
  ASSERT_TRUE(Ok(ram->Allocate(0, 8 * kPageSize)));
  ASSERT_TRUE(Ok(ram->MapFile(4 * kPageSize, 2 * kPageSize, shared->fd(), 0, true)));
  ASSERT_TRUE(Ok(ram->Protect(round % 8 * kPageSize, kPageSize, SparseMapping::Protection::kRead)));
  ASSERT_TRUE(Ok(ram->Decommit(0, 2 * kPageSize)));
  const GuestMemory memory =
      GuestMemory::CreateMultiRegion("ram", 16 * kPageSize, {ram, shared, AlignedHeapMemory::Create(kPageSize).value()}).value();
  (void)memory.ReadAt(round % (40 * kPageSize), buffer);  // some of it is missing
  (void)memory.WriteAt(round * 977 % (40 * kPageSize), buffer);
  {
    const auto locked = memory.LockRange(AccessType::kRead, PagedRange::Create(50, 2 * kPageSize, gpns).value());
    ASSERT_TRUE(Ok(locked.status()));
    EXPECT_EQ(ram->Unmap(0, kPageSize).kind(), ErrorKind::kLocked);
    const GuestMemory view = memory.Subrange(kPageSize, 2 * kPageSize).value();
    ASSERT_TRUE(Ok(PagedReader(view, PagedRange::Create(0, 100, {gpns + 1, 1}).value()).Read(buffer)));
  }
  ASSERT_TRUE(Ok(bits->Revoke({round % 16, 1}, kAllAccess)));
  const auto guest = InProcessGuest::Create("vm", 64 * kPageSize).value();
  ASSERT_TRUE(Ok(guest->AddRam(0, kPageSize)));
  const NewMemoryRegion region = guest->NewRegion(8 * kPageSize, "region").value();
  ASSERT_TRUE(Ok(region.region->Map(0, shared->fd(), 0, 4 * kPageSize, true)));
  ASSERT_TRUE(Ok(region.region->Unmap(kPageSize, kPageSize)));
  ASSERT_TRUE(Ok(region.guest->MapToGuest(8 * kPageSize, true)));
  const auto rom = guest->NewRom(std::vector<std::byte>(kPageSize), "rom").value();
  const auto mapped = rom->MapRom(32 * kPageSize, 0, kPageSize).value();
  const Event event = Event::Create().value();
  const auto bell = guest->RegisterDoorbell(8, {.length = DoorbellLength::k4}, event).value();
  ASSERT_TRUE(Ok(GuestMemory::Create("vm", guest).value().WritePlain<uint32_t>(8, 1)));
}

TEST(Limits, WhatComesAndGoesLeavesNothingBehind) {
  MakeUseDrop(0);  // makes what a process makes once
  const test::HostState before;
  const int keys = FreeKeys();
  [[maybe_unused]] const int mappings = Mappings();
  const int64_t heap = g_heap_bytes;
  for (uint64_t round = 0; round < 3000; ++round) {
    MakeUseDrop(round);
  }
  EXPECT_EQ(test::HostState(), before);
  EXPECT_EQ(FreeKeys(), keys);
  EXPECT_LE(g_heap_bytes, heap);
#if !defined(GUESTMEM_ASAN) && !defined(GUESTMEM_TSAN) && !defined(GUESTMEM_MSAN)  // whose run-times map as they like
  EXPECT_LE(Mappings(), mappings + 1);
#endif
}

// Bytes of stack that `call` uses on a thread of its own, by what it has written over.
size_t StackOf(std::function<void()> call) {
  constexpr size_t kStack = 1 << 20;
  constexpr std::byte kPaint{0xa5};
  auto* const stack = static_cast<std::byte*>(
      mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0));
  std::memset(stack, static_cast<int>(kPaint), kStack);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStack);
  pthread_t thread;
  const auto run = [](void* function) -> void* {
    (*static_cast<std::function<void()>*>(function))();
    return nullptr;
  };
  EXPECT_EQ(pthread_create(&thread, &attributes, run, &call), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  const size_t untouched = static_cast<size_t>(std::find_if(stack, stack + kStack, [](std::byte byte) { return byte != kPaint; }) - stack);
  munmap(stack, kStack);
  return kStack - untouched;
}

// A 64th of the smallest stack that a thread has by default, whatever the size of the access. (A copy over itself keeps a page there.)
TEST(Limits, AnAccessTakesLittleStackHoweverLargeItIs) {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  GTEST_SKIP() << "a sanitizer's frames are of another size";
#endif
  constexpr uint64_t kPages = 2048;
  const auto ram = SparseMapping::Create((kPages + 1) * kPageSize).value();
  ASSERT_TRUE(Ok(ram->Allocate(0, kPages * kPageSize)));
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  std::vector<std::byte> buffer(kPages * kPageSize);
  std::vector<uint64_t> gpns(kPages);
  for (uint64_t i = 0; i < kPages; ++i) {
    gpns[i] = i * 7 % kPages;
  }
  const PagedRange range = PagedRange::Create(1, (kPages - 1) * kPageSize, gpns).value();
  const std::vector<PagedRange> members(100, PagedRange::Create(0, 10, gpns).value());
  const struct {
    const char* name;
    std::function<void()> call;
  } calls[] = {
      {"read", [&] { EXPECT_TRUE(Ok(memory.ReadAt(0, buffer))); }},
      {"write", [&] { EXPECT_TRUE(Ok(memory.WriteAt(0, buffer))); }},
      {"fill", [&] { EXPECT_TRUE(Ok(memory.FillAt(0, std::byte{1}, buffer.size()))); }},
      {"read over itself", [&] { EXPECT_TRUE(Ok(memory.ReadAt(0, {ram->mapping() + 100, kPageSize}))); }},
      {"write over itself", [&] { EXPECT_TRUE(Ok(memory.WriteAt(0, {ram->mapping() + 100, kPages * kPageSize - 100}))); }},
      {"read range", [&] { EXPECT_TRUE(Ok(memory.ReadRange(range, std::span(buffer).first(range.length())))); }},
      {"fill ranges", [&] { EXPECT_TRUE(Ok(memory.FillRange(PagedRanges::Create(members).value(), std::byte{1}))); }},
      {"probe", [&] { EXPECT_TRUE(Ok(memory.ProbeWritable(0, buffer.size()))); }},
      {"probe list", [&] { EXPECT_TRUE(Ok(memory.ProbeGpns(gpns))); }},
      {"lock", [&] { EXPECT_TRUE(Ok(memory.LockGpns(AccessType::kWrite, true, gpns).status())); }},
      {"lock range", [&] { EXPECT_TRUE(Ok(memory.LockRange(AccessType::kWrite, range).status())); }},
      {"view", [&] { EXPECT_TRUE(Ok(memory.Subrange(1, 2).status())); }},
      {"error", [&] { EXPECT_FALSE(memory.ReadAt(kPages * kPageSize * 2, buffer).ToString().empty()); }},
      {"allocate", [&] { EXPECT_TRUE(Ok(ram->Allocate(kPages * kPageSize, kPageSize))); }},
      {"read all", [&] { EXPECT_TRUE(Ok(PagedReader(memory, range).ReadAll().status())); }},
  };
  const size_t nothing = StackOf([] {});
  for (const auto& [name, call] : calls) {
    EXPECT_LE(StackOf(call), nothing + (8 << 10)) << name;
  }
}

}  // namespace
}  // namespace guestmem
