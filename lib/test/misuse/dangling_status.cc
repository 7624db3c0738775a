// What points into a temporary, which is gone before it could be used.

#include <vector>

#include "guestmem/event.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/stream.h"

using namespace guestmem;

std::vector<uint64_t> Gpns();
std::vector<std::byte> Bytes();
GuestMemory MakeMemory();

// Of a temporary these give a value, so that a reference to it lives on.
void ByValue(const GuestMemory& memory, const Event& event, MemoryReader& reader) {
  auto&& status = memory.ReadPlain<uint32_t>(0).status();
  const ErrorInfo& info = memory.WritePlain<uint32_t>(0, 1).info();
  auto&& value = memory.Subrange(0, 8).value();
  auto&& star = *event.TryWait();
  const Status& failed = PageFaultAction::Fail(NotMapped()).status();
  auto&& inner = SharedBacking<AlignedHeapMemory>(nullptr).inner();
  static_assert(!std::is_reference_v<decltype(memory.ReadPlain<uint32_t>(0).status())>);
  static_assert(!std::is_reference_v<decltype(memory.ReadAt(0, {}).info())>);
  static_assert(!std::is_reference_v<decltype(memory.Subrange(0, 8).value())>);
  static_assert(!std::is_reference_v<decltype(*memory.Subrange(0, 8))>);
  static_assert(!std::is_reference_v<decltype(PageFaultAction::Retry().status())>);
  static_assert(!std::is_reference_v<decltype(SharedBacking<AlignedHeapMemory>(nullptr).inner())>);
  static_assert(!std::is_reference_v<decltype(PagedReader(memory, PagedRange()).rest())>);
  static_assert(!std::is_reference_v<decltype(PagedWriter(memory, PagedRange()).rest())>);
  static_assert(!std::is_reference_v<decltype(*PagedRange().ranges().begin())>);
  static_assert(!std::is_reference_v<decltype(*PagedRanges().begin())>);
  (void)status, (void)info, (void)value, (void)star, (void)failed, (void)inner, (void)reader;
}

void Refused(const GuestMemory& memory, const PagedRange& range) {
  const uint64_t gpns[] = {0};
  auto locked = memory.LockGpns(AccessType::kWrite, true, gpns);
  for (const iovec& v : locked->iovecs()) (void)v;  // a name for the lock keeps it
  for (const GuestSpan span : locked->spans()) (void)span;
  (void)memory.LockGpns(AccessType::kWrite, true, gpns).value().iovecs();  // MISUSE: deleted
  (void)memory.LockGpns(AccessType::kWrite, true, gpns).value().spans();  // MISUSE: deleted
  (void)(*memory.LockRange(AccessType::kWrite, range)).iovecs();  // MISUSE: deleted
  (void)(*memory.LockRange(AccessType::kWrite, range)).spans();  // MISUSE: deleted
  (void)memory.LockRange(AccessType::kWrite, range)->spans();  // MISUSE: deleted
  for (const iovec& v : memory.LockRange(AccessType::kWrite, range).value().iovecs()) (void)v;  // MISUSE: deleted
  (void)LockedPages().spans();  // MISUSE: deleted
  (void)std::move(*locked).iovecs();  // MISUSE: deleted
  (void)memory.ReadPlain<uint32_t>(0).operator->();  // MISUSE: deleted
  (void)Event::Create().value().fd();  // MISUSE: deleted
  (void)Event::FromFd(0).fd();  // MISUSE: deleted
  (void)MakeMemory().FullMapping();  // MISUSE: deleted
  (void)MakeMemory().InnerBuffer();  // MISUSE: deleted
  (void)MakeMemory().InnerBufferMutable();  // MISUSE: InnerBufferMutable
  (void)memory.ReadAt(0, {}).rep();  // MISUSE: deleted
  (void)range.ranges().begin().operator->();  // MISUSE: deleted
  (void)PagedRanges().begin().operator->();  // MISUSE: deleted
  (void)PagedRange::Create(0, 8, Gpns());  // MISUSE: deleted
  (void)PagedRange::Create(0, 8, std::array<uint64_t, 1>{});  // MISUSE: deleted
  (void)PagedRanges::Create(std::vector<PagedRange>{range});  // MISUSE: deleted
  SpanReader reader(Bytes());  // MISUSE: deleted
  SpanWriter writer(Bytes());  // MISUSE: deleted
  LimitedReader limited(SpanReader(std::span<const std::byte>()), 5);  // MISUSE: LimitedReader
}
