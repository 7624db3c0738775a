// Locked pages: accessible through the front mapping while a lock is held, and compared when it ends.

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "machine.h"

extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* start, size_t size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* start, size_t size);
}

namespace guestmem::hostile::detail {
namespace {

void SetBit(std::vector<uint8_t>& bits, uint64_t page, bool set) {
  const auto bit = static_cast<uint8_t>(1 << page % 8);
  bits[page / 8] = static_cast<uint8_t>(set ? bits[page / 8] | bit : bits[page / 8] & ~bit);
}

}  // namespace

// `pages` in any order; neighbours in the list that are neighbours in memory cost one call.
void Machine::Protect(std::span<const uint64_t> pages, bool accessible) {
  for (size_t i = 0; i < pages.size();) {
    size_t end = i + 1;
    while (end < pages.size() && pages[end] == pages[end - 1] + 1) {
      ++end;
    }
    std::byte* const start = front_ + pages[i] * kPageSize;
    const size_t length = (end - i) * kPageSize;
    if (mprotect(start, length, accessible ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
      std::perror("guestmem/hostile: mprotect");
      std::abort();
    }
    auto* const tell = accessible ? __asan_unpoison_memory_region : __asan_poison_memory_region;
    if (tell != nullptr) {
      tell(start, length);
    }
    i = end;
  }
}

Status Machine::Lock(AccessType access, std::span<const uint64_t> gpns) {
  const Inside inside;
  Status status;
  const uint64_t gpa = gpns.front() * kPageSize;
  const uint64_t length = gpns.size() * kPageSize;
  for (const Answer& answer : std::span(shared_.plan.answers).first(shared_.plan.answer_count)) {
    if (answer.request == request_ && kick_accesses_ >= answer.after &&
        (answer.kind != AnswerKind::kReadOnly || access == AccessType::kWrite) &&
        std::find(gpns.begin(), gpns.end(), answer.page) != gpns.end()) {
      status = BackendError(StatusCode::kFailedPrecondition, "the hostile guest's page cannot be locked", answer.page * kPageSize);
    }
  }
  Settle();
  ++accesses_;
  if (++segment_accesses_ > setup_.options.max_accesses) {
    Found(VerdictKind::kAccesses, "the request took more accesses than Options::max_accesses");
  }
  Event& event = NewEvent(EventKind::kLock, gpa, length, kick_accesses_++);
  if (stopped_) {
    status = NotMapped();
  }
  if (!status.ok()) {
    event.ok = false;
    CountFailure(EventKind::kLock, gpa);
    return status;
  }
  changed_pages_.clear();
  for (const uint64_t page : gpns) {
    LockedPage& locked = locked_[page];
    if (locked.locks++ == 0) {
      Draw(page * kPageSize, kPageSize);
      std::memcpy(&snapshot_[page * kPageSize], bytes_ + page * kPageSize, kPageSize);
      changed_pages_.push_back(page);
      ++locked_pages_;
    }
    locked.writers += access == AccessType::kWrite ? 1 : 0;
    SetBit(access == AccessType::kWrite ? write_bits_ : read_bits_, page, true);
    pending_.push_back(page);
  }
  Protect(changed_pages_, true);
  g_watch.base = 0;  // the next load or store of the device's own comes after the probes
  g_watch.size = ~uintptr_t{0};
  return {};
}

void Machine::Settle() {
  if (pending_.empty()) {
    return;
  }
  for (const uint64_t page : pending_) {
    SetBit(read_bits_, page, false);
    SetBit(write_bits_, page, false);
  }
  pending_.clear();
  g_watch.base = reinterpret_cast<uintptr_t>(front_);
  g_watch.size = size_;
}

// Finds what was stored under a lock. Returns whether anything was.
bool Machine::Flush(uint64_t page) {
  const uint64_t start = page * kPageSize;
  if (std::memcmp(&snapshot_[start], bytes_ + start, kPageSize) == 0) {
    return false;
  }
  for (uint64_t i = 0; i < kPageSize;) {
    if (i % 64 == 0 && std::memcmp(&snapshot_[start + i], bytes_ + start + i, 64) == 0) {
      i += 64;
      continue;
    }
    if (snapshot_[start + i] == bytes_[start + i]) {
      ++i;
      continue;
    }
    uint64_t end = i + 1;
    while (end < kPageSize && snapshot_[start + end] != bytes_[start + end]) {
      ++end;
    }
    std::memcpy(&snapshot_[start + i], bytes_ + start + i, end - i);
    (void)NewEvent(EventKind::kLockedStore, start + i, end - i, kick_accesses_);
    if (locked_[page].writers == 0) {
      Found(VerdictKind::kReadLock, "a page changed that was locked for reading");
    }
    AfterStore(start + i, end - i, true);
    i = end;
  }
  return true;
}

void Machine::FlushAll() {
  for (uint64_t page = 0; locked_pages_ != 0 && page < locked_.size(); ++page) {
    if (locked_[page].locks != 0) {
      (void)Flush(page);
    }
  }
}

// Of a run that was left in the middle of its device.
void Machine::ForgetLocks() {
  Settle();
  for (uint64_t page = 0; locked_pages_ != 0 && page < locked_.size(); ++page) {
    if (locked_[page].locks != 0) {
      locked_[page] = {};
      --locked_pages_;
      Protect(std::span(&page, 1), false);
    }
  }
}

void Machine::Unlock(AccessType access, std::span<const uint64_t> gpns) {
  const Inside inside;
  Settle();
  changed_pages_.clear();
  for (const uint64_t page : gpns) {
    LockedPage& locked = locked_[page];
    if (locked.locks == 0) {  // of a device that was left in the middle
      continue;
    }
    (void)Flush(page);
    locked.writers -= access == AccessType::kWrite ? 1 : 0;
    if (--locked.locks == 0) {
      changed_pages_.push_back(page);
      --locked_pages_;
    }
  }
  Protect(changed_pages_, false);
  (void)NewEvent(EventKind::kUnlock, gpns.front() * kPageSize, gpns.size() * kPageSize, kick_accesses_);
}

void Machine::RawFetch(uint64_t gpa, uint64_t length) {
  length = std::min(length, size_ - gpa);
  if (locked_[gpa / kPageSize].locks == 0) {
    char why[96];
    std::snprintf(why, sizeof(why), "a load of gpa 0x%llx by its host address, where no lock is held",
                  static_cast<unsigned long long>(gpa));
    Stop(VerdictKind::kUseAfterUnlock, why);
  }
  Status status;
  (void)Admit(EventKind::kRawFetch, gpa, length, AccessType::kRead, status);
  Observe(gpa, length);
  CallFetchHooks(gpa, length);
}

// What is stored is found when the lock ends.
void Machine::RawStore(uint64_t gpa, uint64_t length) {
  length = std::min(length, size_ - gpa);
  char why[96];
  if (locked_[gpa / kPageSize].locks == 0) {
    std::snprintf(why, sizeof(why), "a store to gpa 0x%llx by its host address, where no lock is held",
                  static_cast<unsigned long long>(gpa));
    Stop(VerdictKind::kUseAfterUnlock, why);
  }
  if (locked_[gpa / kPageSize].writers == 0) {
    std::snprintf(why, sizeof(why), "a store to gpa 0x%llx", static_cast<unsigned long long>(gpa));
    Found(VerdictKind::kReadLock, why);
  }
  Status status;
  (void)Admit(EventKind::kRawStore, gpa, length, AccessType::kWrite, status);
  std::fill_n(&stamps_[gpa], length, 0);
}

}  // namespace guestmem::hostile::detail
