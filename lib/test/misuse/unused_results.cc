// Results that must not be dropped without a word.

#include "guestmem/access_bitmap.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "guestmem/stream.h"

using namespace guestmem;

Status GetStatus();
Result<int> GetResult();

void Dropped(const GuestMemory& memory, AccessBitmap& bits, PagedRange& range, MemoryReader& reader, void* guest, std::span<std::byte> host) {
  GetStatus();  // MISUSE: nodiscard
  GetResult();  // MISUSE: nodiscard
  memory.ReadAt(0, host);  // MISUSE: nodiscard
  memory.ReadPlain<uint32_t>(0);  // MISUSE: nodiscard
  memory.LockGpns(AccessType::kRead, true, {});  // MISUSE: nodiscard
  bits.Revoke({0, 1}, kAllAccess);  // MISUSE: nodiscard
  range.Skip(5);  // MISUSE: nodiscard
  range.Truncate(5);  // MISUSE: nodiscard
  reader.Skip(5);  // MISUSE: nodiscard
  InstallFaultHandler();  // MISUSE: nodiscard
  TryCopy(GuestSide::kSource, host.data(), guest, 1);  // MISUSE: nodiscard
  TryFill(guest, std::byte{1}, 1);  // MISUSE: nodiscard
  TryWrite(guest, 1);  // MISUSE: nodiscard
  const Rcu::Section named;
  Rcu::Section();  // MISUSE: nodiscard
}
