// DoorbellRegistration: signals an event when the guest writes to an address.
//
//   auto bell = doorbells->RegisterDoorbell(notify_gpa, {.length = guestmem::DoorbellLength::k2}, queue_event).value();
//   // a 2-byte write to notify_gpa now signals queue_event; dropping `bell` ends that
//
// When not: registers with a value to read back or to store. The bytes of a write that rings are not stored.
//
// Implementations: InProcessGuest (in_process_guest.h); KVM_IOEVENTFD and the like.
// Threads: any. Signal context: no. Units: bytes.

#ifndef GUESTMEM_DOORBELL_H_
#define GUESTMEM_DOORBELL_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "guestmem/event.h"
#include "guestmem/status.h"

namespace guestmem {

// Bytes of a write.
enum class DoorbellLength : uint32_t { k1 = 1, k2 = 2, k4 = 4, k8 = 8 };

// Which writes ring: those of this value (little-endian, so only writes of up to 8 bytes have one) and this length; nullopt: any.
struct DoorbellMatch {
  std::optional<uint64_t> value = {};
  std::optional<DoorbellLength> length = {};
};

// A registration. Dropping it unregisters: when the destructor returns, no later write rings.
class Doorbell {
 public:
  virtual ~Doorbell();
};

class DoorbellRegistration {
 public:
  virtual ~DoorbellRegistration();

  // Signals `event` at each write that starts at `gpa` and matches. Every registration that a write matches is signalled. The
  // event may be dropped afterwards. When it returns, every write that starts from now on is seen.
  // Errors: kInvalidArgument (a length that is not 1, 2, 4 or 8; a value that does not fit it), kOutOfRange (the address, or
  // what a write of that length covers, is not in the guest's memory), kLocked (its page is, by GuestMemory::LockGpns),
  // kResourceExhausted. After a failure nothing has changed.
  virtual Result<std::unique_ptr<Doorbell>> RegisterDoorbell(uint64_t gpa, const DoorbellMatch& match, const Event& event) = 0;
};

}  // namespace guestmem

#endif  // GUESTMEM_DOORBELL_H_
