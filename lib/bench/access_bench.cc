// What an access costs, against libc and raw loads and stores in the same run. ci/bench.sh runs it and makes the table.

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "fixture.h"
#include "guestmem/paged_range.h"

namespace bench {
namespace {

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
        benchmark::DoNotOptimize(m.FillAt(Opaque(kGpa), static_cast<std::byte>(Opaque(0x5a)), Opaque(size)).ok());
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
  // What the kernel takes for a fault and a handler that does nothing but step over the load.
  Register("fault/libc", [](benchmark::State& state) {
    const auto hole = SparseMapping::Create(kPageSize).value();
    struct sigaction stepping = {}, before = {};
    stepping.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    stepping.sa_sigaction = [](int, siginfo_t*, void* context) {
      static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += 3;  // the length of the load below
    };
    sigaction(SIGSEGV, &stepping, &before);
    for (auto _ : state) {
      asm volatile("movzbl (%%rdi), %%eax" : : "D"(hole->mapping()) : "rax", "memory");
    }
    sigaction(SIGSEGV, &before, nullptr);
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

// 64 pages that lie about, as a descriptor would list them.
void RangeRows() {
  static std::vector<uint64_t> gpns(64);
  for (size_t i = 0; i < gpns.size(); ++i) {
    gpns[i] = i * 37 % (kSize / kPageSize);
  }
  const auto range = PagedRange::Create(0, gpns.size() * kPageSize, gpns).value();
  Row("read_range_64_pages", kLibc, [](Fixture& f, GuestMemory&) {
    for (size_t i = 0; i < gpns.size(); ++i) {
      g_memcpy(f.host.data() + i * kPageSize, f.ram[kNone]->mapping() + gpns[i] * kPageSize, Opaque(kPageSize));
    }
  });
  Row("write_range_64_pages", kLibc, [](Fixture& f, GuestMemory&) {
    for (size_t i = 0; i < gpns.size(); ++i) {
      g_memcpy(f.ram[kNone]->mapping() + gpns[i] * kPageSize, f.host.data() + i * kPageSize, Opaque(kPageSize));
    }
  });
  for (const Column column : {kNone, kBitmap}) {
    Row("read_range_64_pages", column, [=](Fixture& f, GuestMemory& m) {
      benchmark::DoNotOptimize(m.ReadRange(range, f.host.first(range.length())).ok());
    });
    Row("write_range_64_pages", column, [=](Fixture& f, GuestMemory& m) {
      benchmark::DoNotOptimize(m.WriteRange(range, f.host.first(range.length())).ok());
    });
  }
}

// Addresses in an order that no cache and no TLB follows, over 64 MiB.
void ColdRows() {
  static uint64_t state = 1;
  const auto next = [] { return (state = state * 0x5851f42d4c957f2d + 1) >> 20 & (kSize - 8); };
  Row("read_u64_cold", kLibc, [=](Fixture& f, GuestMemory&) {
    benchmark::DoNotOptimize(*reinterpret_cast<volatile uint64_t*>(f.ram[kNone]->mapping() + next()));
  });
  Row("read_256_cold", kLibc, [=](Fixture& f, GuestMemory&) {
    g_memcpy(f.host.data(), f.ram[kNone]->mapping() + (next() & (kSize - 256)), Opaque(size_t{256}));
  });
  for (const Column column : {kNone, kBitmap}) {
    Row("read_u64_cold", column, [=](Fixture&, GuestMemory& m) { benchmark::DoNotOptimize(m.ReadPlain<uint64_t>(next()).ok()); });
    Row("read_256_cold", column, [=](Fixture& f, GuestMemory& m) {
      benchmark::DoNotOptimize(m.ReadAt(next() & (kSize - 256), std::span(f.host.data(), Opaque(size_t{256}))).ok());
    });
  }
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
}  // namespace bench

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[argc - 2], "--fixed_iterations") == 0) {
    bench::g_iterations = std::atoll(argv[argc - 1]);
    argc -= 2;
  }
  bench::PlainRows();
  bench::BulkRows();
  bench::RevokeRows();
  bench::OtherRows();
  bench::RangeRows();
  bench::ColdRows();
  bench::ListRows();
  bench::CurveRows();
  bench::SpaceRows();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
}
