// What costs grow with, and what they don't: each curve's points are rows <curve>:<x>.

#include <atomic>
#include <cstdlib>
#include <thread>

#include "fixture.h"
#include "guestmem/rcu.h"

namespace bench {
namespace {

constexpr uint64_t kRegionSize = 16 * kPageSize;

void Read(benchmark::State& state, const GuestMemory& memory, uint64_t gpa) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(memory.ReadPlain<uint64_t>(Opaque(gpa)).ok());
  }
}

// One u64 of the last of n regions. All are the same backing: what grows is the memory, not the pages touched.
void Regions(bool bitmap) {
  for (uint64_t n = 1; n <= 4096; n *= 4) {
    Register("regions:" + std::to_string(n) + (bitmap ? "/bitmap" : "/none"), [=](benchmark::State& state) {
      const std::vector<std::shared_ptr<GuestMemoryAccess>> backings(n, std::make_shared<Ram>(bitmap, kRegionSize));
      Read(state, GuestMemory::CreateMultiRegion("regions", kRegionSize, backings).value(), (n - 1) * kRegionSize + 64);
    });
  }
}

// One u64 through n nested views, each a page smaller than what it shows a part of.
void Views(bool bitmap) {
  for (uint64_t n = 1; n <= 64; n *= 2) {
    Register("views:" + std::to_string(n) + (bitmap ? "/bitmap" : "/none"), [=](benchmark::State& state) {
      GuestMemory view = GuestMemory::Create("views", std::make_shared<Ram>(bitmap, 65 * kPageSize)).value();
      for (uint64_t i = 0; i < n; ++i) {
        view = view.Subrange(kPageSize, (64 - i) * kPageSize).value();
      }
      Read(state, view, 64);
    });
  }
}

// Each of n threads reads a word of its own page through the same bitmap.
void Readers() {
  static std::shared_ptr<Ram> ram;
  static GuestMemory memory;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (int n = 1; n <= cores; ++n) {
    Register("readers:" + std::to_string(n) + "/bitmap", [](benchmark::State& state) {
      if (state.thread_index() == 0) {
        ram = std::make_shared<Ram>(true, 256 * kPageSize);
        memory = GuestMemory::Create("readers", ram).value();
      }
      Read(state, memory, static_cast<uint64_t>(state.thread_index()) % 256 * kPageSize);
    })->Threads(n);
  }
}

// A grace period while n other threads are registered and idle.
void Synchronize() {
  for (const int n : {1, 8, 64, 512}) {
    Register("synchronize:" + std::to_string(n) + "/bitmap", [=](benchmark::State& state) {
      Fixture& f = Get();
      std::atomic<bool> stop = false;
      std::atomic<int> registered = 0;
      std::vector<std::thread> threads;
      for (int i = 0; i < n; ++i) {
        threads.emplace_back([&] {
          benchmark::DoNotOptimize(f.memory[kBitmap].ReadPlain<uint64_t>(0).ok());
          ++registered;
          stop.wait(false);
        });
      }
      while (registered != n) {
        std::this_thread::yield();
      }
      for (auto _ : state) {
        Rcu::Synchronize();
      }
      stop = true;
      stop.notify_all();
      for (std::thread& thread : threads) {
        thread.join();
      }
    });
  }
}

// Address space reserved, one page of it populated and read, all given back.
void Reserve() {
  for (unsigned bits = 30; bits <= 40; bits += 5) {
    Register("reserve_gib:" + std::to_string((uint64_t{1} << bits) >> 30) + "/none", [=](benchmark::State& state) {
      for (auto _ : state) {
        const auto pages = SparseMapping::Create(uint64_t{1} << bits).value();
        const GuestMemory memory = GuestMemory::Create("reserve", pages).value();
        if (!pages->Allocate(pages->max_address() / 2, kPageSize).ok()) {
          std::abort();
        }
        benchmark::DoNotOptimize(memory.ReadPlain<uint64_t>(pages->max_address() / 2).ok());
      }
    });
  }
}

// 1,000 bytes with the host buffer at each alignment, the guest's at a page.
void Alignments() {
  for (const uint64_t at : {0, 1, 2, 4, 8, 15, 16, 17, 31, 32, 33, 47, 48, 63}) {
    constexpr uint64_t kGpa = 0x40000;
    constexpr uint64_t kLength = 1000;
    const auto host = [=](Fixture& f) {
      const auto start = reinterpret_cast<uintptr_t>(f.host.data());
      return std::span(f.host.data() + (64 - start % 64) % 64 + at, Opaque(kLength));
    };
    const std::string x = ":" + std::to_string(at);
    Row("read_host_at" + x, kLibc, [=](Fixture& f, GuestMemory&) {
      g_memcpy(host(f).data(), f.ram[kNone]->mapping() + Opaque(kGpa), host(f).size());
    });
    Row("write_host_at" + x, kLibc, [=](Fixture& f, GuestMemory&) {
      g_memcpy(f.ram[kNone]->mapping() + Opaque(kGpa), host(f).data(), host(f).size());
    });
    for (const Column column : {kNone, kBitmap}) {
      Row("read_host_at" + x, column,
          [=](Fixture& f, GuestMemory& m) { benchmark::DoNotOptimize(m.ReadAt(Opaque(kGpa), host(f)).ok()); });
      Row("write_host_at" + x, column,
          [=](Fixture& f, GuestMemory& m) { benchmark::DoNotOptimize(m.WriteAt(Opaque(kGpa), host(f)).ok()); });
    }
  }
}

// Both sides of every size at which a kernel, or an access, changes its way. (16 MiB: the section's cuts, over and over.)
void Steps() {
  static HostBuffer buffer((16 << 20) + 1);
  static const std::span<std::byte> host = buffer.bytes();
  for (const uint64_t edge : {8, 16, 32, 64, 128, 256, 512, 4096, 1 << 20, 16 << 20}) {
    for (const uint64_t size : {edge - 1, edge, edge + 1}) {
      const std::string x = ":" + std::to_string(size);
      Row("read_step" + x, kLibc,
          [=](Fixture& f, GuestMemory&) { g_memcpy(host.data(), f.ram[kNone]->mapping(), Opaque(size)); });
      Row("write_step" + x, kLibc,
          [=](Fixture& f, GuestMemory&) { g_memcpy(f.ram[kNone]->mapping(), host.data(), Opaque(size)); });
      for (const Column column : {kNone, kBitmap}) {
        Row("read_step" + x, column, [=](Fixture&, GuestMemory& m) {
          benchmark::DoNotOptimize(m.ReadAt(Opaque(uint64_t{0}), std::span(host.data(), Opaque(size))).ok());
        });
        Row("write_step" + x, column, [=](Fixture&, GuestMemory& m) {
          benchmark::DoNotOptimize(m.WriteAt(Opaque(uint64_t{0}), std::span(host.data(), Opaque(size))).ok());
        });
      }
    }
  }
}

}  // namespace

void CurveRows() {
  for (const bool bitmap : {false, true}) {
    Regions(bitmap);
    Views(bitmap);
  }
  Readers();
  Synchronize();
  Reserve();
  Alignments();
  Steps();
}

}  // namespace bench
