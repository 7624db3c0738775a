// RomMapper: parts of one ROM image at any number of guest addresses (firmware below 4 GiB and its alias below 1 MiB).
//
//   auto top = rom->MapRom((uint64_t{4} << 30) - rom->length(), 0, rom->length()).value();
//   auto low = rom->MapRom(0xe0000, rom->length() - 0x20000, 0x20000).value();   // the last 128 KiB again
//
// The guest reads the image and cannot store to it (kNotMapped; the text says that it is read-only).
//
// Implementations: InProcessGuest::NewRom (in_process_guest.h).
// Threads: any. Signal context: no. Units: bytes.

#ifndef GUESTMEM_ROM_MAPPER_H_
#define GUESTMEM_ROM_MAPPER_H_

#include <cstdint>
#include <memory>

#include "guestmem/status.h"

namespace guestmem {

// A part of a ROM in the guest. Dropping it takes it out; where that fails (a page is locked, or the host has no memory) it
// stays, and so does the range's being taken.
class RomMapping {
 public:
  virtual ~RomMapping();
};

class RomMapper {
 public:
  virtual ~RomMapper();

  // Shows bytes [offset, offset + length) of the ROM at `gpa`; all three are page multiples, but a ROM that ends inside a
  // page may be mapped up to that page's end (zeroes). `length` is not 0. Errors: kInvalidArgument (unaligned; beyond the ROM or the
  // guest's memory; something else is there), kResourceExhausted.
  virtual Result<std::unique_ptr<RomMapping>> MapRom(uint64_t gpa, uint64_t offset, uint64_t length) = 0;

  // Of the image, in bytes; need not be a page multiple.
  virtual uint64_t length() const = 0;
};

}  // namespace guestmem

#endif  // GUESTMEM_ROM_MAPPER_H_
