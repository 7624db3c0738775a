// What the benchmarks share: memory with and without a bitmap, and how a row is registered.
//
// Names are <row>/<column>: the columns of one row are compared with each other (libc or raw, none = no bitmap, bitmap =
// with bitmap and section); a curve's row is <curve>:<x>. Addresses, lengths and buffers are opaque to the optimizer.

#ifndef GUESTMEM_BENCH_FIXTURE_H_
#define GUESTMEM_BENCH_FIXTURE_H_

#include <benchmark/benchmark.h>

#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

namespace bench {

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

// Host memory on a cache line, in the other half of a page than the guest's bytes: else the CPU takes loads of one side for loads
// of what was just stored to the other, now and then, as the heap happens to lie.
class HostBuffer {
 public:
  explicit HostBuffer(size_t size) : storage_(size + 2 * kPageSize), size_(size) {}
  std::span<std::byte> bytes() {
    return std::span(storage_).subspan(kPageSize * 3 / 2 - reinterpret_cast<uintptr_t>(storage_.data()) % kPageSize, size_);
  }

 private:
  std::vector<std::byte> storage_;
  size_t size_;
};

enum Column { kLibc, kNone, kBitmap };
constexpr const char* kColumns[] = {"libc", "none", "bitmap"};

struct Fixture {
  std::shared_ptr<Ram> ram[3] = {nullptr, std::make_shared<Ram>(false), std::make_shared<Ram>(true)};
  GuestMemory memory[3] = {GuestMemory(), GuestMemory::Create("none", ram[1]).value(),
                           GuestMemory::Create("bitmap", ram[2]).value()};
  HostBuffer buffer = HostBuffer(2 << 20);
  std::span<std::byte> host = buffer.bytes();
};
inline Fixture& Get() {
  static auto* const fixture = new Fixture;
  return *fixture;
}

template <typename T>
T Opaque(T value) {
  benchmark::DoNotOptimize(value);
  return value;
}

// Calls through pointers that the compiler cannot see through, as any caller of another library does.
inline void* (*volatile g_memcpy)(void*, const void*, size_t) = std::memcpy;
inline void* (*volatile g_memset)(void*, int, size_t) = std::memset;

// --fixed_iterations N: for counting instructions, where time does not matter.
inline benchmark::IterationCount g_iterations = 0;

inline benchmark::internal::Benchmark* Register(const std::string& name, std::function<void(benchmark::State&)> run) {
  auto* const benchmark = benchmark::RegisterBenchmark(name.c_str(), std::move(run));
  if (g_iterations != 0) {
    benchmark->Iterations(g_iterations);
  }
  return benchmark;
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

void CurveRows();  // curve_bench.cc
void SpaceRows();  // space_bench.cc

}  // namespace bench

#endif  // GUESTMEM_BENCH_FIXTURE_H_
