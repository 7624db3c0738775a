// The library's side of a trace's address space.

#ifndef GUESTMEM_REFERENCE_VMM_GUEST_SPACE_H_
#define GUESTMEM_REFERENCE_VMM_GUEST_SPACE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "guestmem/guest_memory.h"
#include "reference/vmm/space_cast.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {

class GuestSpace {
 public:
  explicit GuestSpace(uint64_t lazy) : cast_(lazy) {}

  // One of the kinds from kSpaceAdd on.
  guestmem::Status Run(const Op& op);
  // The whole, or the view of a part; null: there is no view.
  const guestmem::GuestMemory* Memory(bool view) const { return !view ? &cast_.memory : cast_.view ? &*cast_.view : nullptr; }
  // Valid until the next call for that backing.
  std::span<const uint8_t> Bytes(uint64_t backing) { return shown_[backing] = cast_.Bytes(backing); }
  std::vector<std::string> Told() { return cast_.Told(); }

 private:
  SpaceCast cast_;
  std::optional<std::vector<guestmem::SlotChange>> begun_;
  std::array<std::vector<uint8_t>, kSpaceBackings> shown_;
};

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_GUEST_SPACE_H_
