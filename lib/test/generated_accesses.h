// What the functions that ci/lib/compilers_functions.py writes run on. Each is compiled twice from one text: in namespace `engine`
// its accesses are the library's, in `raw` they are memcpy and a look at where the byte lies. What it returns and what it
// leaves in memory must be the same; if not, the compiler (or the library) got an access wrong.
//
// A generated program defines GUESTMEM_FUNCTIONS, the file with the functions, and GUESTMEM_PAIRS, GUESTMEM_PAIR(name) of each;
// then it includes this file, which has main.

#ifndef GUESTMEM_LIB_TEST_GENERATED_ACCESSES_H_
#define GUESTMEM_LIB_TEST_GENERATED_ACCESSES_H_

#include <sys/mman.h>

#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "guestmem/backing.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"

namespace guestmem::test {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

// Memory of four pages: page 1 faults, page 2 is refused by the bitmap of memories that have one.
inline constexpr u64 kBytes = 4 * kPageSize;
inline constexpr u64 kHole = 1, kRefused = 2;

// Host memory with that hole. The side that is not checked by the processor has it too, so that a stray access shows.
inline std::byte* MapPages() {
  void* const pages = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(static_cast<std::byte*>(pages) + kHole * kPageSize, kPageSize, PROT_NONE) != 0) {
    std::abort();
  }
  return static_cast<std::byte*>(pages);
}

// Where accesses go: most of them to a few words, some across the borders of pages, some nowhere.
inline u64 g_places[32];
inline u64 At(u64 choice) { return g_places[choice % 32]; }
template <typename T>
u64 AlignedAt(u64 choice) {
  return At(choice) / sizeof(T) * sizeof(T);
}
// Inside the mapping, for Try calls.
inline u64 HostAt(u64 choice) { return At(choice) % (kBytes - 8); }
template <typename T>
u64 AlignedHostAt(u64 choice) {
  return HostAt(choice) / sizeof(T) * sizeof(T);
}

// Eight bytes that are no integer.
struct Two {
  u32 low, high;
  bool operator==(const Two&) const = default;
};
template <typename T>
T As(u64 value) {
  if constexpr (std::is_same_v<T, Two>) {
    return {static_cast<u32>(value), static_cast<u32>(value >> 32)};
  } else {
    return static_cast<T>(value);
  }
}
template <typename T>
u64 Number(const T& value) {
  if constexpr (std::is_same_v<T, Two>) {
    return value.low * 3 + u64{value.high} * 5;
  } else {
    return static_cast<u64>(value);
  }
}

// Adds to a value at the end of a scope: a function with one has clean-ups on each way out.
class AtEnd {
 public:
  AtEnd(u64& value, u64 more) : value_(value), more_(more) {}
  ~AtEnd() { value_ = value_ * 3 + more_; }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;

 private:
  u64& value_;
  u64 more_;
};

// What an access met, in the same words on both sides.
inline u64 Describe(ErrorKind kind, std::optional<u64> address) { return (static_cast<u64>(kind) + 1) * 1000003 + address.value_or(7); }
inline u64 Describe(u64 offset, Fault::Side side, int signal) {
  return offset * 31 + (side == Fault::Side::kWrite ? 7 : 0) + static_cast<u64>(signal);
}

}  // namespace guestmem::test

namespace engine {

using namespace guestmem::test;
using guestmem::TryCompareExchange;
using guestmem::TryRead;
using guestmem::TryWrite;

class Backing final : public guestmem::GuestMemoryAccess {
 public:
  Backing(std::byte* pages, bool bitmap) : pages_(pages), bitmap_(bitmap) {}
  std::byte* mapping() const override { return pages_; }
  uint64_t max_address() const override { return kBytes; }
  std::optional<guestmem::BitmapInfo> access_bitmap() const override {
    return bitmap_ ? std::optional(guestmem::BitmapInfo{&bits_, &bits_, &bits_, 0}) : std::nullopt;
  }

 private:
  std::byte* pages_;
  bool bitmap_;
  uint8_t bits_ = 0xf & ~(1 << kRefused);
};

struct Memory {
  std::byte* pages = MapPages();
  guestmem::GuestMemory open = guestmem::GuestMemory::Create("open", std::make_shared<Backing>(pages, false)).value();
  guestmem::GuestMemory guarded = guestmem::GuestMemory::Create("guarded", std::make_shared<Backing>(pages, true)).value();
  std::byte* Host(u64 offset) const { return pages + offset; }
};

inline u64 Why(const guestmem::Status& status) { return Describe(status.kind(), status.info().fault_address); }
template <typename T>
u64 Why(const guestmem::Result<T>& result) {
  return Why(result.status());
}
// The fault's address is the access's start, or that of the page inside it.
inline u64 Why(const guestmem::Fault& fault) { return Describe(fault.offset, fault.side, fault.signal); }

}  // namespace engine

namespace raw {

using namespace guestmem::test;
using guestmem::ErrorKind;

// The first byte of the access that lies in `page`; none if it has none there.
inline std::optional<u64> FirstIn(u64 page, u64 address, u64 size) {
  const u64 start = page * guestmem::kPageSize, end = start + guestmem::kPageSize;
  return address < end && address + size > start ? std::optional(address < start ? start : address) : std::nullopt;
}

template <typename T>
struct Answer {
  std::optional<T> value;
  u64 why = 0;
  bool ok() const { return value.has_value(); }
  const T& operator*() const { return *value; }
  const T* operator->() const { return &*value; }
  T value_or(T other) const { return value.value_or(other); }
};
struct Nothing {};
template <typename T>
struct Exchanged {
  bool swapped;
  T value;
};
template <typename T>
u64 Why(const Answer<T>& answer) {
  return answer.why;
}

class Part {
 public:
  Part(std::byte* pages, bool guarded) : pages_(pages), guarded_(guarded) {}

  template <typename T>
  Answer<T> ReadPlain(u64 address) const {
    T value;
    return Run<T>(address, sizeof(T), [&] { return std::memcpy(&value, pages_ + address, sizeof(T)), value; });
  }
  template <typename T>
  Answer<Nothing> WritePlain(u64 address, const std::type_identity_t<T>& value) const {
    return Run<Nothing>(address, sizeof(T), [&] { return std::memcpy(pages_ + address, &value, sizeof(T)), Nothing(); });
  }
  template <typename T>
  Answer<Exchanged<T>> CompareExchange(u64 address, T current, T desired) const {
    if (address + sizeof(T) <= kBytes && address % sizeof(T) != 0) {
      return {{}, Describe(ErrorKind::kMisaligned, address)};
    }
    return Run<Exchanged<T>>(address, sizeof(T), [&] {
      T seen;
      std::memcpy(&seen, pages_ + address, sizeof(T));
      const bool swapped = seen == current;
      std::memcpy(pages_ + address, swapped ? &desired : &seen, sizeof(T));
      return Exchanged<T>{swapped, seen};
    });
  }

 private:
  template <typename T, typename Access>
  Answer<T> Run(u64 address, u64 size, Access access) const {
    if (address > kBytes || address + size > kBytes) {
      return {{}, Describe(ErrorKind::kOutOfRange, address)};
    }
    if (const auto refused = FirstIn(kRefused, address, size); guarded_ && refused) {
      return {{}, Describe(ErrorKind::kAccessDenied, *refused)};
    }
    if (const auto hole = FirstIn(kHole, address, size)) {
      return {{}, Describe(ErrorKind::kNotMapped, *hole)};
    }
    return {access(), 0};
  }

  std::byte* pages_;
  bool guarded_;
};

struct Pointer {
  std::byte* pages;
  u64 offset;
};
struct Memory {
  std::byte* pages = MapPages();
  Part open{pages, false};
  Part guarded{pages, true};
  Pointer Host(u64 offset) const { return {pages, offset}; }
};

struct Fault {
  u64 offset;
  guestmem::Fault::Side side;
};
inline u64 Why(const Fault& fault) { return Describe(fault.offset, fault.side, SIGSEGV); }
inline std::optional<Fault> Met(Pointer guest, u64 size, guestmem::Fault::Side side) {
  const auto hole = FirstIn(kHole, guest.offset, size);
  return hole ? std::optional(Fault{*hole - guest.offset, side}) : std::nullopt;
}
template <typename T>
std::optional<Fault> TryRead(Pointer guest, T& value) {
  const auto fault = Met(guest, sizeof(T), guestmem::Fault::Side::kRead);
  if (!fault) {
    std::memcpy(&value, guest.pages + guest.offset, sizeof(T));
  }
  return fault;
}
template <typename T>
std::optional<Fault> TryWrite(Pointer guest, const T& value) {
  const auto fault = Met(guest, sizeof(T), guestmem::Fault::Side::kWrite);
  if (!fault) {
    std::memcpy(guest.pages + guest.offset, &value, sizeof(T));
  }
  return fault;
}
template <typename T>
std::optional<Fault> TryCompareExchange(Pointer guest, T& current, const T& desired, bool& swapped) {
  const auto fault = Met(guest, sizeof(T), guestmem::Fault::Side::kWrite);
  if (!fault) {
    T seen;
    std::memcpy(&seen, guest.pages + guest.offset, sizeof(T));
    swapped = seen == current;
    std::memcpy(guest.pages + guest.offset, swapped ? &desired : &seen, sizeof(T));
    current = seen;
  }
  return fault;
}

}  // namespace raw

// Attributes of the functions. -DGUESTMEM_COLD makes all of them cold, as code is that few runs reach.
#define NOINLINE __attribute__((noinline))
#define INLINE inline __attribute__((always_inline))
#define FLATTEN __attribute__((flatten))
#define COLD __attribute__((cold))
#if defined(GUESTMEM_COLD)
#define EVERY COLD
#define HOT
#else
#define EVERY
#define HOT __attribute__((hot))
#endif

namespace engine {
#include GUESTMEM_FUNCTIONS
}
namespace raw {
#include GUESTMEM_FUNCTIONS
}

namespace guestmem::test {

// Numbers without pattern, the same everywhere (splitmix64).
inline u64 Next(u64& state) {
  u64 z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

inline void SetPlaces() {
  for (int i = 0; i < 22; ++i) {
    g_places[i] = static_cast<u64>(i % 8 * 8 + i % 3);
  }
  const u64 special[] = {kPageSize - 4, kPageSize - 1, kPageSize - 8, kPageSize + 16, 2 * kPageSize - 8, 2 * kPageSize + 8,
                         3 * kPageSize - 2, 2 * kPageSize - 4, kBytes - 8, kBytes - 3};
  std::memcpy(g_places + 22, special, sizeof special);
}

inline void FillPages(std::byte* pages) {
  for (u64 page : {u64{0}, u64{2}, u64{3}}) {
    u64 state = page;
    for (u64 word = 0; word < kPageSize; word += 8) {
      const u64 value = word % 24 == 0 ? Next(state) : Next(state) % 100;  // small ones are met again
      std::memcpy(pages + page * kPageSize + word, &value, 8);
    }
  }
}

struct Pair {
  const char* name;
  u64 (*of_engine)(const engine::Memory&, u64, u64);
  u64 (*of_raw)(const raw::Memory&, u64, u64);
};

inline bool Same(const Pair& pair, const engine::Memory& checked, const raw::Memory& plain, bool& faulted) {
  constexpr int kRounds = 24;
  FillPages(checked.pages);
  FillPages(plain.pages);
  u64 state = 1;
  for (int round = 0; round < kRounds; ++round) {
    const u64 a = round < 4 ? static_cast<u64>(round) : Next(state), b = Next(state) % 1000;
    const u64 faults = RecoveredFaults();
    const u64 actual = pair.of_engine(checked, a, b);
    faulted |= RecoveredFaults() != faults;
    const u64 expected = pair.of_raw(plain, a, b);
    bool same_memory = true;
    for (u64 page : {u64{0}, u64{2}, u64{3}}) {
      same_memory &= std::memcmp(checked.pages + page * kPageSize, plain.pages + page * kPageSize, kPageSize) == 0;
    }
    if (actual != expected || !same_memory) {
      std::printf("%s(%" PRIu64 ", %" PRIu64 "), round %d: %" PRIu64 " with the library, %" PRIu64 " over raw memory%s\n", pair.name, a, b,
                  round, actual, expected, same_memory ? "" : "; the memory differs");
      return false;
    }
  }
  return true;
}

}  // namespace guestmem::test

// A line for each function that is wrong, then the totals. Exit status 1 if any is wrong.
int main() {
  using namespace guestmem::test;
  SetPlaces();
  const engine::Memory checked;
  const raw::Memory plain;
#define GUESTMEM_PAIR(name) {#name, engine::name, raw::name},
  static const Pair kPairs[] = {GUESTMEM_PAIRS};
#undef GUESTMEM_PAIR
  int functions = 0, wrong = 0, faulting = 0;
  for (const Pair& pair : kPairs) {
    bool faulted = false;
    ++functions;
    wrong += !Same(pair, checked, plain, faulted);
    faulting += faulted;
  }
  std::printf("functions %d, wrong %d, met faults %d\n", functions, wrong, faulting);
  return wrong == 0 ? 0 : 1;
}

#endif  // GUESTMEM_LIB_TEST_GENERATED_ACCESSES_H_
