#include "guestmem/access_bitmap.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <new>

#include "guestmem/rcu.h"
#include "host/host_calls.h"
#include "types/error_rep.h"

namespace guestmem {

Result<std::shared_ptr<AccessBitmap>> AccessBitmap::Create(std::string name, uint64_t pages, bool allowed) {
  constexpr uint64_t kTooMany = uint64_t{1} << 51;  // 2^63 bytes
  const auto fail = [&](ErrorKind kind) {
    ErrorInfo info;
    info.kind = kind;
    info.operation = Operation::kCreate;
    const detail::DebugName shown(name);
    return detail::MakeError(&shown, std::move(info));
  };
  if (pages >= kTooMany) {
    return fail(ErrorKind::kInvalidArgument);
  }
  // Pages of the host that are never locked or refused are never touched, so that a large, sparse memory costs little.
  const uint64_t words = std::max<uint64_t>((pages + 63) / 64, 1);
  const uint64_t bitmap_bytes = kAccessTypes * words * sizeof(Word);
  const uint64_t size = bitmap_bytes + words * 64 * sizeof(uint32_t);
  void* const memory = host::Map(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == nullptr) {
    return fail(ErrorKind::kResourceExhausted);
  }
  if (allowed) {
    std::memset(memory, 0xff, bitmap_bytes);
  }
  auto* const bitmap = new (std::nothrow) AccessBitmap(std::move(name), pages, static_cast<std::byte*>(memory), size);
  if (bitmap == nullptr) {
    host::Unmap(memory, size);
    return fail(ErrorKind::kResourceExhausted);
  }
  return std::shared_ptr<AccessBitmap>(bitmap);
}

// Safe because zeroed (or 0xff) memory that mmap aligned is an array of lock-free atomics and of counts.
AccessBitmap::AccessBitmap(std::string name, uint64_t pages, std::byte* memory, uint64_t size)
    : name_(std::move(name)),
      pages_(pages),
      memory_(memory),
      memory_size_(size),
      bits_(reinterpret_cast<Word*>(memory)),
      counts_(reinterpret_cast<uint32_t*>(memory + kAccessTypes * std::max<uint64_t>((pages + 63) / 64, 1) * sizeof(Word))) {}

AccessBitmap::~AccessBitmap() { host::Unmap(memory_, memory_size_); }

BitmapInfo AccessBitmap::info() const {
  const auto bytes = [&](AccessType access) {
    return reinterpret_cast<const uint8_t*>(bitmap(static_cast<int>(access)));
  };
  return {bytes(AccessType::kRead), bytes(AccessType::kWrite), bytes(AccessType::kExecute), 0};
}

bool AccessBitmap::IsAllowed(uint64_t page, AccessType access) const {
  return page < pages_ &&
         (bitmap(static_cast<int>(access))[page / 64].load(std::memory_order_relaxed) >> (page % 64) & 1) != 0;
}

Status AccessBitmap::Misuse(Operation operation) const {
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidArgument;
  info.operation = operation;
  return detail::MakeError(&name_, std::move(info), "a page beyond the bitmap, or unlocking one that is not locked");
}

Status AccessBitmap::IsLocked(PageRange pages, uint64_t gpn) const {
  ErrorInfo info;
  info.kind = ErrorKind::kLocked;
  info.operation = Operation::kRevoke;
  info.range = {pages.first * kPageSize, pages.count * kPageSize};
  info.gpn = gpn;
  return detail::MakeError(&name_, std::move(info));
}

bool AccessBitmap::Contains(PageRange pages) const {
  return pages.first <= pages_ && pages.count <= pages_ - pages.first;
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
  if (!Contains(pages)) {
    return Misuse(Operation::kRevoke);
  }
  Change(pages, access, true);
  return {};
}

std::optional<uint64_t> AccessBitmap::LowestLocked(PageRange pages) const {
  for (uint64_t page = pages.first; page < pages.first + pages.count; ++page) {
    if (counts_[page] != 0) {
      return page;
    }
  }
  return std::nullopt;
}

Status AccessBitmap::Revoke(PageRange pages, AccessMask access) {
  if (!Contains(pages)) {
    return Misuse(Operation::kRevoke);
  }
  {
    const std::lock_guard lock(mutex_);
    if (const auto locked = LowestLocked(pages)) {
      return IsLocked(pages, *locked);
    }
    Change(pages, access, false);
  }
  GUESTMEM_SCHEDULE_POINT(kCleared);
  Rcu::Synchronize();
  return {};
}

Status AccessBitmap::Lock(std::span<const uint64_t> gpns) {
  if (std::any_of(gpns.begin(), gpns.end(), [&](uint64_t gpn) { return gpn >= pages_; })) {
    return Misuse(Operation::kLock);
  }
  const std::lock_guard lock(mutex_);
  for (const uint64_t gpn : gpns) {
    ++counts_[gpn];
  }
  return {};
}

Status AccessBitmap::Unlock(std::span<const uint64_t> gpns) {
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < gpns.size(); ++i) {
      if (gpns[i] >= pages_ || counts_[gpns[i]] == 0) {
        while (i > 0) {  // put back what was taken
          ++counts_[gpns[--i]];
        }
        return Misuse(Operation::kLock);
      }
      --counts_[gpns[i]];
    }
  }
  unlocked_.notify_all();
  return {};
}

Status AccessBitmap::WaitUnlocked(PageRange pages, std::chrono::steady_clock::time_point deadline) {
  if (!Contains(pages)) {
    return Misuse(Operation::kRevoke);
  }
  std::unique_lock lock(mutex_);
  std::optional<uint64_t> locked;
  const bool free = unlocked_.wait_until(lock, deadline, [&] {
    locked = LowestLocked(pages);
    return !locked;
  });
  return free ? Status() : IsLocked(pages, *locked);
}

}  // namespace guestmem
