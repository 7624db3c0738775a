// The operations of a concurrent trace.

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>

#include "guestmem/fault.h"
#include "guestmem/rcu.h"
#include "reference/schedule/machine.h"

namespace reference::schedule {
namespace {

using guestmem::ErrorKind;
using guestmem::SparseMapping;
using guestmem::Status;

constexpr uint8_t kGuard = 0xee;  // what a buffer holds where nothing was to be stored

uint64_t Repeated(uint8_t byte) { return byte * 0x0101010101010101u; }
guestmem::AccessMask Mask(uint8_t access) { return access; }  // bits 1 and 2 are read and write in both
static_assert(guestmem::kReadAccess == 1 && guestmem::kWriteAccess == 2);

}  // namespace

template <typename T>
void Machine::PlainOf(const Op& op, uint64_t address) {
  const guestmem::GuestMemory& memory = memory_[trace_->pages.size() - 1];
  const auto number = static_cast<uint8_t>(me().op + 1);
  Access access{.start = scheduler_.Tick(), .address = address, .length = sizeof(T), .op = static_cast<uint8_t>(me().op),
                .plain = true, .written = number};
  const Bit bit = op.kind == OpKind::kRead ? Bit::kRead : Bit::kWrite;
  Status status;
  if (op.kind == OpKind::kWrite) {
    status = memory.WritePlain<T>(address, static_cast<T>(Repeated(number)));
    access.writes = true;
  } else if (op.kind == OpKind::kRead) {
    const auto result = memory.ReadPlain<T>(address);
    status = result.status();
    access.reads = true;
    access.seen = result.ok() ? *result : 0;
  } else {
    const auto expected = static_cast<T>(LastSeen(address, sizeof(T)));
    const auto result = memory.CompareExchange<T>(address, expected, static_cast<T>(Repeated(number)));
    status = result.status();
    access.reads = true;
    if (result.ok()) {
      access.seen = result->value;
      access.writes = result->swapped;
      if (result->swapped != (result->value == expected)) {
        Break("a compare-exchange says that it swapped where it saw another value, or the reverse");
      }
    }
  }
  access.end = scheduler_.Tick();
  if (!status.ok()) {
    FoundRefusal(access.start, status, bit);
    return;
  }
  Found(access.start, address, sizeof(T), bit, true);
  Note(access);
  if (access.reads) {
    Remember(address, sizeof(T), access.writes ? static_cast<T>(Repeated(number)) : access.seen);
  }
}

void Machine::Plain(const Op& op) {
  const Range range = RangeOf(op, trace_->pages.size());
  switch (range.length) {
    case 1:
      return PlainOf<uint8_t>(op, range.address);
    case 2:
      return PlainOf<uint16_t>(op, range.address);
    case 4:
      return PlainOf<uint32_t>(op, range.address);
    default:
      return PlainOf<uint64_t>(op, range.address);
  }
}

void Machine::Bulk(const Op& op) {
  const guestmem::GuestMemory& memory = memory_[trace_->pages.size() - 1];
  const Range range = RangeOf(op, trace_->pages.size());
  const auto number = static_cast<uint8_t>(me().op + 1);
  // Its own: another thread's operation runs while this one is under way.
  std::vector<uint8_t> buffer(range.length, op.kind == OpKind::kBulkWrite ? number : kGuard);
  Access access{.start = scheduler_.Tick(), .address = range.address, .length = range.length,
                .op = static_cast<uint8_t>(me().op), .written = number};
  Status status;
  if (op.kind == OpKind::kBulkRead) {
    status = memory.ReadAt(range.address, std::as_writable_bytes(std::span(buffer)));
    access.reads = true;
  } else {
    status = op.kind == OpKind::kFill ? memory.FillAt(range.address, std::byte{number}, range.length)
                                      : memory.WriteAt(range.address, std::as_bytes(std::span(buffer)));
    access.writes = true;
  }
  access.end = scheduler_.Tick();
  if (!status.ok()) {
    access.length = status.info().transferred;
    FoundRefusal(access.start, status, access.reads ? Bit::kRead : Bit::kWrite);
  }
  Found(access.start, range.address, access.length, access.reads ? Bit::kRead : Bit::kWrite, true);
  if (access.reads) {
    for (size_t i = access.length; i < buffer.size(); ++i) {
      if (buffer[i] != kGuard) {
        Break("a read stored above its transferred prefix");
        break;
      }
    }
    access.buffer = history_.bytes.size();
    history_.bytes.insert(history_.bytes.end(), buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(access.length));
  }
  if (access.length != 0) {
    Note(access);
  }
}

bool Machine::ChangeBits(uint8_t page, uint8_t count, uint8_t access, bool grant) {
  if (grant) {
    // Poison must not be made accessible: a page is not retired while it is being granted, nor the reverse.
    for (int i = page; i < page + count; ++i) {
      if (page_[i].use != Use::kInUse) {
        return false;
      }
    }
    for (int i = page; i < page + count; ++i) {
      ++page_[i].granting;
    }
  }
  const uint64_t start = scheduler_.Tick();
  const Status status =
      grant ? bits_->Grant({page, count}, Mask(access)) : bits_->Revoke({page, count}, Mask(access));
  const uint64_t end = scheduler_.Tick();
  const auto op = static_cast<uint8_t>(me().op);
  for (int i = page; i < page + count; ++i) {
    if (grant) {
      --page_[i].granting;
    }
    for (const Bit bit : {Bit::kRead, Bit::kWrite}) {
      if (status.ok() && (access >> static_cast<int>(bit) & 1) != 0) {
        history_.changes.push_back({start, end, static_cast<uint8_t>(i), bit, grant, op});
      }
    }
  }
  if (!grant) {
    history_.revokes.push_back({start, end, page, count, !status.ok(), op});
  }
  if (!status.ok() && (grant || status.kind() != ErrorKind::kLocked)) {
    Break("a change of bits failed: " + status.ToString());
  }
  return status.ok();
}

void Machine::Retire(const Op& op) {
  PageState& page = page_[op.page];
  if (page.use != Use::kInUse || page.granting != 0 || page.missing) {
    return;
  }
  page.use = Use::kChanging;
  const bool revoked = ChangeBits(op.page, 1, 3, false);
  if (!revoked || scheduler_.given_up()) {
    page.use = Use::kInUse;
    return;
  }
  // At once: no step of anybody's between the return and this, unless unmapping has one.
  if (op.form == 0) {
    std::memset(host(op.page * kPageBytes), kPoison, kPageBytes);
    page.use = Use::kPoisoned;
  } else {
    page.use = pages_->Unmap(op.page * kPageBytes, kPageBytes).ok() ? Use::kUnmapped : Use::kInUse;
  }
}

void Machine::Restore(uint8_t index) {
  PageState& page = page_[index];
  if (page.use != Use::kPoisoned && page.use != Use::kUnmapped) {
    return;
  }
  std::byte* const bytes = host(index * kPageBytes);
  if (page.use == Use::kPoisoned) {
    for (size_t i = 0; i < kPageBytes; ++i) {
      if (bytes[i] != std::byte{kPoison}) {
        Break("a store to the poisoned page " + std::to_string(index) + " after its revocation had returned");
        break;
      }
    }
  }
  const bool unmapped = page.use == Use::kUnmapped;
  page.use = Use::kChanging;
  Access access{.start = scheduler_.Tick(), .address = index * kPageBytes, .length = kPageBytes,
                .op = static_cast<uint8_t>(me().op), .plain = true, .writes = true,
                .written = static_cast<uint8_t>((me().op + 1) | kRestored)};
  if (unmapped) {
    if (!pages_->Allocate(index * kPageBytes, kPageBytes).ok()) {
      Break("no memory to restore a page");
      page.use = Use::kUnmapped;
      return;
    }
    // Others may run between the allocation and the store: then they see zeroes.
    Access zeroed = access;
    zeroed.written = 0;
    zeroed.end = scheduler_.Tick();
    Note(zeroed);
    access.start = scheduler_.Tick();
  }
  std::memset(bytes, access.written, kPageBytes);
  page.use = Use::kInUse;
  if (page.hole) {
    page.hole = false;
    page.filled = scheduler_.Tick();
  }
  ChangeBits(index, 1, 3, true);
  access.end = scheduler_.Tick();
  Note(access);
}

void Machine::LockPage(const Op& op) {
  Held& held = me().lock[op.page];
  if (held.span != 0) {
    return;
  }
  const uint64_t page = op.page;
  const Bit bit = op.form == 0 ? Bit::kRead : Bit::kWrite;
  LockSpan span{.lock_start = scheduler_.Tick(), .page = op.page};
  auto locked = memory_[trace_->pages.size() - 1].LockGpns(
      op.form == 0 ? guestmem::AccessType::kRead : guestmem::AccessType::kWrite, true, {&page, 1});
  span.locked = scheduler_.Tick();
  if (!locked.ok()) {
    FoundRefusal(span.lock_start, locked.status(), bit);
    span.unlock_start = span.lock_start;  // it was locked for some moment, nobody knows which
    span.unlocked = scheduler_.Tick();
    history_.locks.push_back(span);
    return;
  }
  Found(span.lock_start, page * kPageBytes, kPageBytes, bit, true);
  history_.locks.push_back(span);
  held.span = history_.locks.size();
  held.pages = *std::move(locked);
}

// Through the host address, as a kernel would that was handed the lock's iovec.
void Machine::TouchLocked(const Op& op) {
  const Held& held = me().lock[op.page];
  if (held.span == 0) {
    return;
  }
  const Range range = RangeOf(op, trace_->pages.size());
  const auto number = static_cast<uint8_t>(me().op + 1);
  auto* const bytes = static_cast<std::byte*>(held.pages.spans()[0].ToIovec().iov_base) + range.address % kPageBytes;
  Access access{.start = scheduler_.Tick(), .address = range.address, .length = range.length,
                .op = static_cast<uint8_t>(me().op), .plain = true, .reads = op.form == 0, .writes = op.form == 1,
                .written = number};
  if (op.form == 0 ? guestmem::TryRead(bytes, access.seen).has_value()
                   : guestmem::TryWrite(bytes, Repeated(number)).has_value()) {
    Break("a locked page is not mapped");
    return;
  }
  access.end = scheduler_.Tick();
  Note(access);
}

void Machine::UnlockPage(uint8_t page) {
  Held& held = me().lock[page];
  if (held.span == 0) {
    return;
  }
  const size_t span = held.span - 1;
  history_.locks[span].unlock_start = scheduler_.Tick();
  held.span = 0;
  held.pages = {};
  history_.locks[span].unlocked = scheduler_.Tick();
}

void Machine::WaitUnlocked(const Op& op) {
  using Time = std::chrono::steady_clock::time_point;
  const bool holds = std::any_of(me().lock.begin(), me().lock.end(), [](const Held& held) { return held.span != 0; });
  const uint64_t start = scheduler_.Tick();
  const Status status = bits_->WaitUnlocked({op.page, op.count}, holds ? Time() : Time::max());
  const uint64_t end = scheduler_.Tick();
  if (scheduler_.given_up()) {
    return;
  }
  if (!status.ok() && (!holds || status.kind() != ErrorKind::kLocked)) {
    Break("waiting for pages to be unlocked failed: " + status.ToString());
  }
  history_.revokes.push_back({start, end, op.page, op.count, !status.ok(), static_cast<uint8_t>(me().op)});
}

void Machine::OwnSection(const Op& op) {
  const uint64_t address = RangeOf(op, trace_->pages.size()).address / 8 * 8;
  const guestmem::Rcu::Section section;
  me().in_section = true;
  const bool allowed = bits_->IsAllowed(op.page, guestmem::AccessType::kRead);
  Op inner = op;
  inner.kind = OpKind::kRead;
  Plain(inner);  // its section ends inside ours
  if (allowed && !page_[op.page].hole) {
    // The section protects what was allowed when it was looked at, and began after the section did.
    Access access{.start = scheduler_.Tick(), .address = address, .length = 8, .op = static_cast<uint8_t>(me().op),
                  .plain = true, .reads = true};
    if (guestmem::TryRead(host(address), access.seen)) {
      Break("a section's own page was unmapped under it");
    } else {
      access.end = scheduler_.Tick();
      Note(access);
    }
  }
  me().in_section = false;
}

}  // namespace reference::schedule
