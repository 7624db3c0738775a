// Types whose bytes are not their value: no guest may make one, or read the padding of one.

#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/stream.h"

using namespace guestmem;

struct Padded {
  uint32_t kind;
  uint8_t flags;
};
struct Allowed {
  uint8_t kind;
  uint16_t flags;
};
template <>
inline constexpr bool guestmem::kAllowPlain<Allowed> = true;
struct Whole {
  uint64_t address;
  uint32_t length, flags;
};
enum class Fixed : uint16_t { kOne = 1 };
enum Loose { kLoose };
enum class Truth : bool { kNo, kYes };
struct Copied {
  Copied(const Copied&);
  uint32_t value;
};
using Member = int Whole::*;

static_assert(PlainType<uint8_t> && PlainType<int64_t> && PlainType<std::byte> && PlainType<char> && PlainType<float> && PlainType<double>);
static_assert(PlainType<Whole> && PlainType<Fixed> && PlainType<Allowed> && PlainType<std::array<uint32_t, 3>> && PlainType<const uint32_t>);
static_assert(!PlainType<bool> && !PlainType<const bool> && !PlainType<bool[4]> && !PlainType<void*> && !PlainType<Member> && !PlainType<long double>);
static_assert(!PlainType<Padded> && !PlainType<Loose> && !PlainType<Truth> && !PlainType<Copied> && !PlainType<std::nullptr_t>);

void Plain(const GuestMemory& memory, MemoryReader& reader, MemoryWriter& writer, void* guest) {
  (void)memory.ReadPlain<Whole>(0), (void)memory.WritePlain<Fixed>(0, Fixed::kOne), (void)memory.CompareExchange<float>(0, 1, 2);
  (void)reader.ReadPlain<Allowed>(), (void)reader.ReadArray<Whole>(1), (void)writer.WritePlain<Allowed>({1, 2});
  (void)memory.ReadPlain<bool>(0);  // MISUSE: guestmem/plain.h
  (void)memory.ReadPlain<Padded>(0);  // MISUSE: guestmem/plain.h
  (void)memory.ReadPlain<void*>(0);  // MISUSE: guestmem/plain.h
  (void)memory.ReadPlain<Loose>(0);  // MISUSE: guestmem/plain.h
  (void)memory.WritePlain<bool>(0, true);  // MISUSE: guestmem/plain.h
  (void)memory.WritePlain<Padded>(0, {1, 2});  // MISUSE: guestmem/plain.h
  (void)memory.CompareExchange<bool>(0, true, false);  // MISUSE: guestmem/plain.h
  (void)memory.CompareExchange<Padded>(0, {}, {});  // MISUSE: guestmem/plain.h
  (void)reader.ReadPlain<bool>();  // MISUSE: guestmem/plain.h
  (void)reader.ReadPlain<Padded>();  // MISUSE: guestmem/plain.h
  (void)reader.ReadArray<bool>(1);  // MISUSE: guestmem/plain.h
  (void)reader.ReadArray<Padded>(1);  // MISUSE: guestmem/plain.h
  (void)writer.WritePlain<Padded>({1, 2});  // MISUSE: guestmem/plain.h
  bool truth = false, swapped;
  Padded padded{};
  uint32_t number = 0;
  (void)TryRead(guest, number), (void)TryWrite(guest, number), (void)TryCompareExchange(guest, number, number, swapped);
  (void)TryRead(guest, truth);  // MISUSE: guestmem/plain.h
  (void)TryRead(guest, padded);  // MISUSE: guestmem/plain.h
  (void)TryWrite(guest, true);  // MISUSE: guestmem/plain.h
  (void)TryWrite(guest, padded);  // MISUSE: guestmem/plain.h
  (void)TryCompareExchange(guest, truth, true, swapped);  // MISUSE: guestmem/plain.h
  (void)TryCompareExchange(guest, padded, padded, swapped);  // MISUSE: guestmem/plain.h
  (void)truth, (void)padded;
}
