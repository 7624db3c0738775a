// What a layout that changes costs (SPEC 14). Where a row has a libc column, that is the same access to a fixed memory with a bitmap.

#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fixture.h"
#include "guestmem/address_space.h"

namespace bench {
namespace {

constexpr uint64_t kSlotSize = 16 * kPageSize;
constexpr uint64_t kSlots = 512;

void Require(const Status& status) {
  if (!status.ok()) {
    std::abort();
  }
}

// `slots` that show the same memory, each with a hole behind it.
struct Space {
  Space(bool bitmap, uint64_t slots) : ram(std::make_shared<Ram>(bitmap, kSlotSize)) {
    std::vector<SlotChange> list;
    for (uint64_t i = 0; i < slots; ++i) {
      list.push_back(SlotChange::Add({.gpa = 2 * i * kSlotSize, .size = kSlotSize, .backing = ram}));
    }
    Require(space->Change(list));
  }
  const std::shared_ptr<Ram> ram;
  const std::unique_ptr<AddressSpace> space = AddressSpace::Create("space").value();
  const GuestMemory memory = space->memory();
};

const Space& SpaceOf(Column column, uint64_t slots) {
  static const Space one[] = {{false, 1}, {true, 1}}, many[] = {{false, kSlots}, {true, kSlots}};
  return (slots == 1 ? one : many)[column == kBitmap];
}

// Addresses in an order that no predictor learns, of a place in any of `slots`; all of what they show stays in the cache.
const std::array<uint64_t, 4096>& Addresses(uint64_t slots) {
  static const auto make = [](uint64_t of) {
    std::array<uint64_t, 4096> all;
    uint64_t state = 1;
    for (uint64_t& gpa : all) {
      state = state * 0x5851f42d4c957f2d + 1;
      gpa = (state >> 33) % of * 2 * kSlotSize + (state >> 20) % 64 * 8;
    }
    return all;
  };
  static const auto one = make(1), many = make(kSlots);
  return slots == 1 ? one : many;
}

void AccessRows(const std::string& name, uint64_t slots) {
  for (const Column column : {kLibc, kNone, kBitmap}) {
    Register(name + "/" + kColumns[column], [=](benchmark::State& state) {
      const GuestMemory memory = column == kLibc ? Get().memory[kBitmap] : SpaceOf(column, slots).memory;
      const auto& addresses = Addresses(column == kLibc ? 1 : slots);
      size_t i = 0;
      for (auto _ : state) {
        benchmark::DoNotOptimize(memory.ReadPlain<uint64_t>(addresses[i++ % addresses.size()]).ok());
      }
    });
    // Each address depends on what was read before.
    Register(name + "_dependent/" + kColumns[column], [=](benchmark::State& state) {
      const GuestMemory memory = column == kLibc ? Get().memory[kBitmap] : SpaceOf(column, slots).memory;
      const auto& addresses = Addresses(column == kLibc ? 1 : slots);
      uint64_t i = 0, last = 0;
      for (auto _ : state) {
        last = *memory.ReadPlain<uint64_t>(addresses[(i++ + last) % addresses.size()]);  // all of it is zeroes
      }
      benchmark::DoNotOptimize(last);
    });
  }
  for (const uint64_t size : {64, 4096}) {
    for (const Column column : {kLibc, kNone, kBitmap}) {
      Register(name + "_read_" + std::to_string(size) + "/" + kColumns[column], [=](benchmark::State& state) {
        Fixture& f = Get();
        const GuestMemory memory = column == kLibc ? f.memory[kBitmap] : SpaceOf(column, slots).memory;
        const auto& addresses = Addresses(column == kLibc ? 1 : slots);
        size_t i = 0;
        for (auto _ : state) {
          benchmark::DoNotOptimize(memory.ReadAt(addresses[i++ % addresses.size()], std::span(f.host.data(), Opaque(size))).ok());
        }
      });
    }
  }
}

// One slot of 512 replaced, beside a reader of another that reads words, or MiBs, or a page that is not there.
void ChangeRows() {
  struct Reader {
    const char* name;
    std::function<void(const GuestMemory&)> read;
  };
  static std::vector<std::byte> large(kSlotSize);
  const Reader readers[] = {
      {"space_change_alone", nullptr},
      {"space_change", [](const GuestMemory& m) { benchmark::DoNotOptimize(m.ReadPlain<uint64_t>(0).ok()); }},
      {"space_change_beside_bulk", [](const GuestMemory& m) { benchmark::DoNotOptimize(m.ReadAt(0, large).ok()); }},
      {"space_change_beside_faults", [](const GuestMemory& m) { benchmark::DoNotOptimize(m.ReadPlain<uint64_t>(2 * kSlotSize).ok()); }},
  };
  for (const Reader& reader : readers) {
    Register(std::string(reader.name) + "/none", [=](benchmark::State& state) {
      const Space s(false, kSlots);
      const auto hole = SparseMapping::Create(kSlotSize).value();
      Require(s.space->Change({SlotChange::Remove(2 * kSlotSize), SlotChange::Add({.gpa = 2 * kSlotSize, .size = kSlotSize, .backing = hole})}));
      std::atomic<bool> stop = false;
      std::thread thread([&] {
        while (reader.read != nullptr && !stop.load(std::memory_order_relaxed)) {
          reader.read(s.memory);
        }
      });
      const uint64_t gpa = 2 * (kSlots - 1) * kSlotSize;
      for (auto _ : state) {
        Require(s.space->Change({SlotChange::Remove(gpa), SlotChange::Add({.gpa = gpa, .size = kSlotSize, .backing = s.ram})}));
      }
      stop = true;
      thread.join();
    });
  }
}

}  // namespace

void SpaceRows() {
  AccessRows("space_last", 1);
  AccessRows("space_random", kSlots);
  ChangeRows();
}

}  // namespace bench
