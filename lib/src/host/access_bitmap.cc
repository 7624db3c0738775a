#include "guestmem/access_bitmap.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "guestmem/rcu.h"
#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem {

Result<std::shared_ptr<AccessBitmap>> AccessBitmap::Create(std::string_view name, uint64_t pages, bool allowed) {
  constexpr uint64_t kTooMany = uint64_t{1} << 51;  // 2^63 bytes
  if (pages >= kTooMany) {
    return detail::MakeNamedError(name, {.kind = ErrorKind::kInvalidArgument, .operation = Operation::kCreate});
  }
  // Pages of the host that are never refused are never touched, so that a large, sparse memory costs little.
  const uint64_t size = kAccessTypes * std::max<uint64_t>((pages + 63) / 64, 1) * sizeof(Word);
  void* const memory = host::Map(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == nullptr) {
    return detail::MakeNamedError(name, {.kind = ErrorKind::kResourceExhausted, .operation = Operation::kCreate});
  }
  if (allowed) {
    std::memset(memory, 0xff, size);
  }
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<AccessBitmap>> {
    host::Rollback undo([&] { host::Unmap(memory, size); });
    std::unique_ptr<AccessBitmap> bitmap(new AccessBitmap(name, pages, memory, size));
    undo.Keep();
    return std::shared_ptr<AccessBitmap>(std::move(bitmap));
  });
}

// Safe because zeroed (or 0xff) memory that mmap aligned is an array of lock-free atomics.
AccessBitmap::AccessBitmap(std::string_view name, uint64_t pages, void* memory, uint64_t size)
    : bits_(static_cast<Word*>(memory)), bits_size_(size), locks_(name, pages) {}

AccessBitmap::~AccessBitmap() { host::Unmap(bits_, bits_size_); }

BitmapInfo AccessBitmap::info() const {
  const auto bytes = [&](AccessType access) {
    return reinterpret_cast<const uint8_t*>(bitmap(static_cast<int>(access)));
  };
  return {bytes(AccessType::kRead), bytes(AccessType::kWrite), bytes(AccessType::kExecute), 0};
}

bool AccessBitmap::IsAllowed(uint64_t page, AccessType access) const {
  return page < pages() &&
         (bitmap(static_cast<int>(access))[page / 64].load(std::memory_order_relaxed) >> (page % 64) & 1) != 0;
}

void AccessBitmap::Change(PageRange pages, AccessMask access, bool set) {
  const uint64_t end = pages.first + pages.count;
  for (int type = 0; type < kAccessTypes; ++type) {
    if ((access >> type & 1) == 0) {
      continue;
    }
    for (uint64_t page = pages.first; page < end;) {
      const uint64_t next = std::min(end, page / 64 * 64 + 64);
      const uint64_t count = next - page;
      const uint64_t mask = (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << (page % 64);
      Word& word = bitmap(type)[page / 64];
      if (set) {
        word.fetch_or(mask, std::memory_order_seq_cst);
      } else {
        word.fetch_and(~mask, std::memory_order_seq_cst);
      }
      page = next;
    }
  }
}

Status AccessBitmap::Grant(PageRange pages, AccessMask access) {
  if (!locks_.Contains(pages)) {
    return locks_.Misuse(Operation::kRevoke);
  }
  Change(pages, access, true);
  return {};
}

Status AccessBitmap::Revoke(PageRange pages, AccessMask access) {
  Status status = locks_.IfUnlocked(pages, [&] {
    Change(pages, access, false);
    return Status();
  });
  if (!status.ok()) {
    return status;
  }
  GUESTMEM_SCHEDULE_POINT(kCleared);
  Rcu::Synchronize();
  return {};
}

}  // namespace guestmem
