// The backings of the address space that a trace works on, as all who play them must know them, and the words in which callbacks are
// noted. Knows the C++ library alone. Tests that are made of traces carry its text.

#ifndef GUESTMEM_REFERENCE_VMM_SPACE_WORLD_H_
#define GUESTMEM_REFERENCE_VMM_SPACE_WORLD_H_

#include <cstdint>
#include <optional>
#include <string>

namespace reference::vmm {

// ---- kSpaceBackings kRam kGuarded kLazy kRegisters SpaceByte kPopulates kRemoves kReplaces kFails kFallsBack kRemovesAndFallsBack SpaceHex SlotText
// kRam: a memfd. kGuarded: write bit of page 1 clear. kLazy: pages 1 and 2 are not there until its handler makes them. kRegisters: no
// mapping; fallbacks that load and store its bytes.
enum SpaceBacking : uint64_t { kRam, kGuarded, kLazy, kRegisters, kSpaceBackings };
inline constexpr uint64_t kSpaceBackingPages[kSpaceBackings] = {4, 2, 3, 1};

inline uint8_t SpaceByte(uint64_t backing, uint64_t offset) {
  return static_cast<uint8_t>(1 + backing * 60 + offset / 4096 * 13 + offset * 3 % 11);
}

// What the handler of kLazy does (World::lazy): it makes the page; or it removes or replaces (by kRam) the slot that begins at
// kLazyGpa, and fails where that is refused, or where it has replaced it already; it fails; it falls back, or removes that slot and
// falls back.
enum LazyAnswer : uint64_t { kPopulates, kRemoves, kReplaces, kFails, kFallsBack, kRemovesAndFallsBack };
inline constexpr uint64_t kLazyGpa = 2 * 4096;

inline std::string SpaceHex(uint64_t value) {
  std::string text;
  do {
    text.insert(text.begin(), "0123456789abcdef"[value % 16]);
  } while ((value /= 16) != 0);
  return "0x" + text;
}

// A slot, or a part of one. `host`: where in its backing's mapping it begins; `file`: where in its file.
inline std::string SlotText(const std::string& name, uint64_t gpa, uint64_t size, bool read_only, std::optional<uint64_t> host,
                            std::optional<uint64_t> file) {
  return name + " " + SpaceHex(gpa) + "+" + SpaceHex(size) + (read_only ? " read-only" : "") + (host ? " host " + SpaceHex(*host) : "") +
         (file ? " file " + SpaceHex(*file) : "");
}

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_SPACE_WORLD_H_
