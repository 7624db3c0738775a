// The interfaces to the rest of a VMM: their vtables live here.

#include "guestmem/doorbell.h"
#include "guestmem/memory_mapper.h"
#include "guestmem/rom_mapper.h"

namespace guestmem {

MappableGuestMemory::~MappableGuestMemory() = default;
MappedMemoryRegion::~MappedMemoryRegion() = default;
MemoryMapper::~MemoryMapper() = default;
Doorbell::~Doorbell() = default;
DoorbellRegistration::~DoorbellRegistration() = default;
RomMapping::~RomMapping() = default;
RomMapper::~RomMapper() = default;

}  // namespace guestmem
