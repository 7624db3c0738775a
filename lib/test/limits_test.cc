// What an operation takes of the process: heap, stack. Counted over thousands of them; none may grow with how many came before.

#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>

#include "guestmem/guest_memory.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace {

std::atomic<int64_t> g_heap_bytes{0};  // that operator new has given and not got back

}  // namespace

void* operator new(size_t size) {
  void* const memory = std::malloc(size);
  if (memory == nullptr) {
    std::abort();
  }
  g_heap_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  return memory;
}
void operator delete(void* memory) noexcept {
  g_heap_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

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

}  // namespace
}  // namespace guestmem
