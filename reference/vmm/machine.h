// What the lockstep drives: the library's in-process guest (guest.h) and the model (model.h) are two of them, a test's liar a third.

#ifndef GUESTMEM_REFERENCE_VMM_MACHINE_H_
#define GUESTMEM_REFERENCE_VMM_MACHINE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "reference/vmm/trace.h"

namespace reference::vmm {

// An error as a caller sees it. Kinds and operations by their names in guestmem/status.h.
struct Error {
  std::string kind;
  std::string operation;
  std::string name;  // whose: the guest's, a region's, a ROM's, "event"
  std::optional<std::pair<uint64_t, uint64_t>> range = {};  // start, length
  std::optional<uint64_t> fault_address = {};
  std::optional<uint64_t> gpn = {};
  uint64_t transferred = 0;
  std::string note = {};  // of the cause: who "is there", or "read-only"
  bool operator==(const Error&) const = default;
};

// What a caller observes of one op.
struct Outcome {
  std::optional<Error> error;
  std::vector<uint8_t> data;  // a read's buffer, whole, failed or not
  uint64_t number = 0;        // compare-exchange: the value seen; map_rom: the ROM's length
  bool flag = false;          // compare-exchange: swapped; take: there was a signal
  std::vector<std::string> told = {};  // in an address space: what listeners, handlers and fallbacks were told; the parts that are populated
  bool operator==(const Outcome&) const = default;
};
// What a read's buffer holds beforehand.
inline constexpr uint8_t kUntouched = 0xa5;

class Machine {
 public:
  virtual ~Machine() = default;
  virtual void Start(const World& world) = 0;
  // `host_call_failed`: whether the op came to the host call that was to fail. The guest says so, the model is told.
  virtual Outcome Run(const Op& op, bool& host_call_failed) = 0;
  // A page's bytes, valid until the next call; none if it cannot be read.
  virtual std::span<const uint8_t> Page(uint64_t page) = 0;
  virtual bool IsWritable(uint64_t page) = 0;
  virtual bool IsSignalled(uint64_t event) = 0;
  // All bytes of a backing of the address space; none before that is made.
  virtual std::span<const uint8_t> SpaceBytes(uint64_t backing) = 0;
  // Takes everything down. What is wrong then, as text; empty: nothing.
  virtual std::string End() = 0;
};

// Bytes of files and ROM images before anyone writes to them.
inline uint8_t FileByte(uint64_t file, uint64_t offset) {
  return static_cast<uint8_t>(1 + file * 100 + offset / kPageBytes * 16 + offset * 7 % 15);
}
inline uint8_t RomByte(uint64_t rom, uint64_t offset) { return static_cast<uint8_t>(200 + rom + offset / kPageBytes * 8 + offset % 3); }

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_MACHINE_H_
