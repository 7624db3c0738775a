// Arguments in the wrong order, which integers would take without a word.

#include "guestmem/access_bitmap.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/stream.h"

using namespace guestmem;

void Fills(const GuestMemory& memory, uint64_t gpa, uint64_t length, const PagedRange& range, MemoryWriter& writer, GuestMemoryAccess& backing,
           const GuestSpan& span, void* guest) {
  const std::byte value{0x5a};
  (void)memory.FillAt(gpa, value, length), (void)memory.FillRange(range, value), (void)writer.Fill(value, length);
  (void)span.Fill(value, 0, length), (void)TryFill(guest, value, length), (void)backing.FillFallback(gpa, value, length);
  (void)memory.FillAt(gpa, length, value);  // MISUSE: FillAt
  (void)memory.FillAt(gpa, 0, length);  // MISUSE: FillAt
  (void)memory.FillAt(value, gpa, length);  // MISUSE: FillAt
  (void)memory.FillRange(range, 5);  // MISUSE: FillRange
  (void)writer.Fill(length, value);  // MISUSE: Fill
  (void)writer.Fill(5, length);  // MISUSE: Fill
  (void)span.Fill(0, length, value);  // MISUSE: Fill
  (void)span.Fill(5, 0, length);  // MISUSE: Fill
  (void)TryFill(guest, length, value);  // MISUSE: TryFill
  (void)TryFill(guest, 5, length);  // MISUSE: TryFill
  (void)backing.FillFallback(gpa, length, value);  // MISUSE: FillFallback
}

void Doorbells(DoorbellRegistration& bells, InProcessGuest& guest, uint64_t gpa, const Event& event) {
  (void)bells.RegisterDoorbell(gpa, {}, event);
  (void)bells.RegisterDoorbell(gpa, {.value = 5, .length = DoorbellLength::k4}, event);
  (void)bells.RegisterDoorbell(gpa, {5, DoorbellLength::k4}, event);
  (void)bells.RegisterDoorbell(gpa, 5, 4, event);  // MISUSE: RegisterDoorbell
  (void)bells.RegisterDoorbell(gpa, {DoorbellLength::k4, 5}, event);  // MISUSE: RegisterDoorbell
  (void)bells.RegisterDoorbell(gpa, {.length = 4}, event);  // MISUSE: RegisterDoorbell
  (void)bells.RegisterDoorbell({.value = 5}, gpa, event);  // MISUSE: RegisterDoorbell
  (void)guest.RegisterDoorbell(gpa, {5, 4}, event);  // MISUSE: RegisterDoorbell
}

void Maps(SparseMapping& ram, MappedMemoryRegion& region, MappableGuestMemory& guest, uint64_t offset, uint64_t length, int fd) {
  (void)ram.MapFile(offset, length, fd, 0, true), (void)region.Map(offset, fd, 0, length, true), (void)guest.MapToGuest(offset, true);
  (void)ram.MapFile(offset, length, offset, fd, true);  // MISUSE: deleted
  (void)ram.MapFile(offset, fd, length, 0, true);  // MISUSE: deleted
  (void)ram.MapFile(offset, true, fd, 0, length);  // MISUSE: deleted
  (void)ram.BindToNode(offset, 0, length);  // MISUSE: deleted
  (void)region.Map(offset, length, fd, 0, true);  // MISUSE: deleted
  (void)region.Map(offset, fd, 0, true, length);  // MISUSE: deleted
  (void)guest.MapToGuest(true, offset);  // MISUSE: deleted
}

void Others(const GuestMemory& memory, uint64_t offset, uint64_t length, uint64_t pages) {
  (void)memory.Subrange(offset, length, true), (void)AccessBitmap::Create("bits", pages, true);
  (void)memory.Subrange(true, offset, length);  // MISUSE: deleted
  (void)AccessBitmap::Create("bits", true, pages);  // MISUSE: deleted
  (void)memory.LockGpns(true, AccessType::kRead, {});  // MISUSE: LockGpns
  (void)memory.ReadAt({}, offset);  // MISUSE: ReadAt
  (void)memory.LockRange(PagedRange(), AccessType::kRead);  // MISUSE: LockRange
}
