// What an access costs, against libc and raw loads and stores in the same run. ci/bench.sh runs it and makes the table.
//
// Names are <row>/<column>: the columns of one row are compared with each other (libc or raw, none = no bitmap, bitmap =
// with bitmap and section). Addresses, lengths and buffers are opaque to the optimizer.

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/detail/region.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

namespace {

using namespace guestmem;

constexpr uint64_t kSize = uint64_t{64} << 20;

class Ram final : public GuestMemoryAccess {
 public:
  explicit Ram(bool bitmap, uint64_t size = kSize) : pages_(SparseMapping::Create(size).value()) {
    if (!pages_->Allocate(0, size).ok()) {
      std::abort();
    }
    if (bitmap) {
      bits_ = AccessBitmap::Create("bench", size / kPageSize, true).value();
    }
  }
  std::byte* mapping() const override { return pages_->mapping(); }
  uint64_t max_address() const override { return pages_->max_address(); }
  std::optional<BitmapInfo> access_bitmap() const override {
    return bits_ == nullptr ? std::nullopt : std::optional(bits_->info());
  }
  SparseMapping& pages() { return *pages_; }
  AccessBitmap& bits() { return *bits_; }

 private:
  std::shared_ptr<SparseMapping> pages_;
  std::shared_ptr<AccessBitmap> bits_;
};

enum Column { kLibc, kNone, kBitmap };
constexpr const char* kColumns[] = {"libc", "none", "bitmap"};

struct Fixture {
  std::shared_ptr<Ram> ram[3] = {nullptr, std::make_shared<Ram>(false), std::make_shared<Ram>(true)};
  GuestMemory memory[3] = {GuestMemory(), GuestMemory::Create("none", ram[1]).value(),
                           GuestMemory::Create("bitmap", ram[2]).value()};
  std::vector<std::byte> host = std::vector<std::byte>(2 << 20);
};
Fixture& Get() {
  static auto* const fixture = new Fixture;
  return *fixture;
}

template <typename T>
T Opaque(T value) {
  benchmark::DoNotOptimize(value);
  return value;
}

// Calls through pointers that the compiler cannot see through, as any caller of another library does.
void* (*volatile g_memcpy)(void*, const void*, size_t) = std::memcpy;
void* (*volatile g_memset)(void*, int, size_t) = std::memset;

// --fixed_iterations N: for counting instructions, where time does not matter.
benchmark::IterationCount g_iterations = 0;

void Register(const std::string& name, std::function<void(benchmark::State&)> run) {
  auto* const benchmark = benchmark::RegisterBenchmark(name.c_str(), std::move(run));
  if (g_iterations != 0) {
    benchmark->Iterations(g_iterations);
  }
}

template <typename Body>
void Row(const std::string& row, Column column, Body body) {
  Register(row + "/" + kColumns[column], [=](benchmark::State& state) {
    Fixture& f = Get();
    for (auto _ : state) {
      body(f, f.memory[column]);
    }
  });
}

void PlainRows() {
  constexpr uint64_t kGpa = 0x12340;
  const auto raw = [](Fixture& f) { return reinterpret_cast<volatile uint64_t*>(f.ram[kNone]->mapping() + Opaque(kGpa)); };
  Row("read_u64", kLibc, [=](Fixture& f, GuestMemory&) { benchmark::DoNotOptimize(*raw(f)); });
  Row("write_u64", kLibc, [=](Fixture& f, GuestMemory&) { *raw(f) = Opaque(uint64_t{7}); });
  Row("compare_exchange_u64", kLibc, [=](Fixture& f, GuestMemory&) {
    uint64_t expected = Opaque(uint64_t{7});
    auto* const word = const_cast<uint64_t*>(raw(f));
    benchmark::DoNotOptimize(
        __atomic_compare_exchange_n(word, &expected, uint64_t{7}, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  });
  for (const Column column : {kNone, kBitmap}) {
    Row("read_u64", column, [](Fixture&, GuestMemory& m) {
      auto result = m.ReadPlain<uint64_t>(Opaque(kGpa));
      benchmark::DoNotOptimize(result.ok());
      benchmark::DoNotOptimize(*result);
    });
    Row("write_u64", column, [](Fixture&, GuestMemory& m) {
      benchmark::DoNotOptimize(m.WritePlain<uint64_t>(Opaque(kGpa), Opaque(uint64_t{7})).ok());
    });
    Row("compare_exchange_u64", column, [](Fixture&, GuestMemory& m) {
      benchmark::DoNotOptimize(m.CompareExchange<uint64_t>(Opaque(kGpa), Opaque(uint64_t{7}), uint64_t{7}).ok());
    });
  }
}

void BulkRows() {
  for (const uint64_t size : {1, 8, 16, 64, 256, 1023, 1024, 4096, 65536, 1 << 20}) {
    constexpr uint64_t kGpa = 0x40000;
    const std::string suffix = "_" + std::to_string(size);
    Row("read" + suffix, kLibc, [=](Fixture& f, GuestMemory&) {
      g_memcpy(f.host.data(), f.ram[kNone]->mapping() + Opaque(kGpa), Opaque(size));
    });
    Row("write" + suffix, kLibc, [=](Fixture& f, GuestMemory&) {
      g_memcpy(f.ram[kNone]->mapping() + Opaque(kGpa), f.host.data(), Opaque(size));
    });
    Row("fill" + suffix, kLibc, [=](Fixture& f, GuestMemory&) {
      g_memset(f.ram[kNone]->mapping() + Opaque(kGpa), Opaque(0x5a), Opaque(size));
    });
    for (const Column column : {kNone, kBitmap}) {
      Row("read" + suffix, column, [=](Fixture& f, GuestMemory& m) {
        benchmark::DoNotOptimize(m.ReadAt(Opaque(kGpa), std::span(f.host.data(), Opaque(size))).ok());
      });
      Row("write" + suffix, column, [=](Fixture& f, GuestMemory& m) {
        benchmark::DoNotOptimize(m.WriteAt(Opaque(kGpa), std::span(f.host.data(), Opaque(size))).ok());
      });
      Row("fill" + suffix, column, [=](Fixture&, GuestMemory& m) {
        benchmark::DoNotOptimize(m.FillAt(Opaque(kGpa), static_cast<uint8_t>(Opaque(0x5a)), Opaque(size)).ok());
      });
    }
  }
}

// A reader while another thread revokes and grants another page in a loop, beside the same reader undisturbed.
void RevokeRows() {
  for (const bool revoking : {false, true}) {
    Register(revoking ? "read_u64_beside_revoke/bitmap" : "read_u64_alone/bitmap", [=](benchmark::State& state) {
      const auto ram = std::make_shared<Ram>(true, 16 * kPageSize);
      const GuestMemory memory = GuestMemory::Create("ram", ram).value();
      std::atomic<bool> stop = !revoking;
      std::thread revoker([&] {
        while (!stop.load(std::memory_order_relaxed)) {
          if (!ram->bits().Revoke({9, 1}, kAllAccess).ok() || !ram->bits().Grant({9, 1}, kAllAccess).ok()) {
            std::abort();
          }
        }
      });
      for (auto _ : state) {
        benchmark::DoNotOptimize(memory.ReadPlain<uint64_t>(Opaque(uint64_t{0x40})).ok());
      }
      stop = true;
      revoker.join();
    });
  }
}

void OtherRows() {
  // 1 GiB of pages, all allowed.
  Register("bitmap_check_1g/none", [](benchmark::State& state) {
    static std::vector<uint8_t> bits((1 << 18) / 8, 0xff);
    detail::Region region;
    region.size = uint64_t{1} << 30;
    for (auto _ : state) {
      benchmark::DoNotOptimize(region.FirstRefused(bits.data(), 0, Opaque(region.size)));
    }
  });
  Row("error_out_of_range", kNone, [](Fixture&, GuestMemory& m) {
    benchmark::DoNotOptimize(m.WritePlain<uint64_t>(Opaque(kSize), uint64_t{0}).ok());
  });
  Row("error_with_text", kNone, [](Fixture&, GuestMemory& m) {
    benchmark::DoNotOptimize(m.WritePlain<uint64_t>(Opaque(kSize), uint64_t{0}).ToString());
  });
  Register("fault/none", [](benchmark::State& state) {
    const auto ram = std::make_shared<Ram>(false, 2 * kPageSize);
    const GuestMemory memory = GuestMemory::Create("hole", ram).value();
    if (!ram->pages().Protect(kPageSize, kPageSize, SparseMapping::Protection::kNone).ok()) {
      std::abort();
    }
    for (auto _ : state) {
      benchmark::DoNotOptimize(memory.ReadPlain<uint64_t>(Opaque(kPageSize)).ok());
    }
  });
}

// Lists of 262,144 GPNs, as long as the pages of 1 GiB: of 64 pages over and over (hot), and of as many as there are.
void ListRows() {
  for (const bool hot : {true, false}) {
    std::vector<uint64_t> gpns(1 << 18);
    for (size_t i = 0; i < gpns.size(); ++i) {
      gpns[i] = i * 5 % (hot ? 64 : kSize / kPageSize);
    }
    const std::string suffix = hot ? "_hot" : "_spread";
    Row("probe_gpns" + suffix, kLibc, [=](Fixture& f, GuestMemory&) {
      for (const uint64_t gpn : gpns) {
        benchmark::DoNotOptimize(*(volatile uint8_t*)(f.ram[kNone]->mapping() + gpn * kPageSize));
      }
    });
    Row("lock_gpns_write" + suffix, kLibc, [=](Fixture& f, GuestMemory&) {
      for (const uint64_t gpn : gpns) {
        asm volatile("lock orb $0, %0" : "+m"(f.ram[kNone]->mapping()[gpn * kPageSize]));
      }
    });
    for (const Column column : {kNone, kBitmap}) {
      Row("probe_gpns" + suffix, column, [=](Fixture&, GuestMemory& m) { benchmark::DoNotOptimize(m.ProbeGpns(gpns).ok()); });
      Row("lock_gpns_read" + suffix, column, [=](Fixture&, GuestMemory& m) {
        benchmark::DoNotOptimize(m.LockGpns(AccessType::kRead, false, gpns).ok());
      });
      Row("lock_gpns_write" + suffix, column, [=](Fixture&, GuestMemory& m) {
        benchmark::DoNotOptimize(m.LockGpns(AccessType::kWrite, false, gpns).ok());
      });
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[argc - 2], "--fixed_iterations") == 0) {
    g_iterations = std::atoll(argv[argc - 1]);
    argc -= 2;
  }
  PlainRows();
  BulkRows();
  RevokeRows();
  OtherRows();
  ListRows();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
}
