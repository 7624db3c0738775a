#include "reference/schedule/machine.h"

#include <cstdlib>
#include <cstring>
#include <span>

#include "guestmem/fault.h"
#include "guestmem/rcu.h"
#include "reference/setup.h"

namespace reference::schedule {

using guestmem::AccessType;
using guestmem::PageFaultAction;
using guestmem::PageFaultInfo;
using guestmem::SparseMapping;
using guestmem::Status;

class Machine::Backing final : public guestmem::GuestMemoryAccess {
 public:
  explicit Backing(Machine& machine) : machine_(machine) {}
  std::byte* mapping() const override { return machine_.pages_->mapping(); }
  uint64_t max_address() const override { return machine_.pages_->max_address(); }
  std::optional<guestmem::BitmapInfo> access_bitmap() const override { return machine_.bits_->info(); }
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override { return machine_.bits_->Lock(gpns); }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override {
    if (!machine_.bits_->Unlock(gpns).ok()) {
      machine_.Break("an unlock of what is not locked");
    }
  }
  PageFaultAction PageFault(const PageFaultInfo& fault) override { return machine_.Handle(fault); }

 private:
  Machine& machine_;
};

namespace {

void Must(const Status& status) {
  if (!status.ok()) {
    CannotSetUp("memory of the machine", "the host has no more");
  }
}

}  // namespace

Machine::Machine(Scheduler& scheduler)
    : scheduler_(scheduler),
      pages_(SparseMapping::Create(kMaxPages * kPageBytes).value()),
      bits_(guestmem::AccessBitmap::Create("machine", kMaxPages, true).value()),
      backing_(std::make_shared<Backing>(*this)),
      whole_(guestmem::GuestMemory::Create("machine", backing_).value()) {
  Must(pages_->Allocate(0, kMaxPages * kPageBytes));
  for (uint64_t i = 0; i < kMaxPages; ++i) {
    memory_[i] = whole_.Subrange(0, (i + 1) * kPageBytes).value();
  }
}

End Machine::Run(const Trace& trace, Choices& choices) {
  Reset(trace);
  const End end = scheduler_.Run(trace.threads, Body, Arrive, this, choices);
  Look();
  return end;
}

int64_t Machine::OffsetOf(const void* address) const {
  const auto offset = static_cast<const std::byte*>(address) - pages_->mapping();
  return offset >= 0 && offset < static_cast<int64_t>(kMaxPages * kPageBytes) ? offset : -1;
}

void Machine::Reset(const Trace& trace) {
  guestmem::detail::ForgetReaders(trace.membarrier);
  trace_ = &trace;
  next_answer_ = 0;
  history_.Clear();
  for (Thread& thread : threads_) {
    thread.in_section = false;
    thread.lock = {};
    thread.seen.clear();
  }
  Must(bits_->Grant({0, kMaxPages}, guestmem::kAllAccess));
  for (uint8_t i = 0; i < trace.pages.size(); ++i) {
    if (page_[i].use == Use::kUnmapped) {
      Must(pages_->Allocate(i * kPageBytes, kPageBytes));
    }
    page_[i] = {Use::kInUse, 0, trace.pages[i].missing, trace.pages[i].hole};
    std::memset(host(i * kPageBytes), InitialByte(i), kPageBytes);
    if (page_[i].hole) {
      Must(pages_->Unmap(i * kPageBytes, kPageBytes));
      page_[i].use = Use::kUnmapped;
    }
    const int refused = (trace.pages[i].readable ? 0 : guestmem::kReadAccess) | (trace.pages[i].writable ? 0 : guestmem::kWriteAccess);
    if (refused != 0) {
      Must(bits_->Revoke({i, 1}, static_cast<guestmem::AccessMask>(refused)));
    }
  }
}

void Machine::Look() {
  for (Thread& thread : threads_) {
    thread.lock = {};
  }
  for (uint8_t i = 0; i < trace_->pages.size(); ++i) {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(host(i * kPageBytes));
    if (page_[i].use != Use::kInUse) {
      history_.retired |= static_cast<uint8_t>(1 << i);
    }
    if (page_[i].use == Use::kPoisoned) {
      for (size_t at = 0; at < kPageBytes; ++at) {
        if (bytes[at] != kPoison) {
          Break("a store to the poisoned page " + std::to_string(i) + " after its revocation had returned");
          break;
        }
      }
    }
    if (page_[i].use == Use::kUnmapped) {
      history_.final_bytes.resize(history_.final_bytes.size() + kPageBytes);
    } else {
      history_.final_bytes.insert(history_.final_bytes.end(), bytes, bytes + kPageBytes);
    }
    for (const Bit bit : {Bit::kRead, Bit::kWrite}) {
      const bool set = bits_->IsAllowed(i, bit == Bit::kRead ? AccessType::kRead : AccessType::kWrite);
      history_.findings.push_back({kAfterAll, kAfterAll, i, bit, set, static_cast<uint8_t>(trace_->ops.size())});
    }
  }
}

void Machine::Body(void* context, int index) {
  auto& self = *static_cast<Machine*>(context);
  for (size_t i = 0; i < self.trace_->ops.size(); ++i) {
    if (self.trace_->ops[i].thread == index) {
      self.scheduler_.Step();
      if (self.scheduler_.given_up()) {
        return;
      }
      self.threads_[index].op = i;
      self.threads_[index].start = self.scheduler_.Tick();
      self.RunOp(i);
    }
  }
  // Other threads may be waiting for them.
  for (uint8_t page = 0; page < kMaxPages; ++page) {
    self.UnlockPage(page);
  }
}

// An access to a missing page sleeps in the kernel, in its section, until another thread resolves the fault.
void Machine::Arrive(void* context, int, const void* address) {
  auto& self = *static_cast<Machine*>(context);
  const int64_t offset = self.OffsetOf(address);
  if (offset < 0) {
    return;
  }
  const PageState& page = self.page_[static_cast<uint64_t>(offset) / kPageBytes];
  for (bool first = true; page.missing && self.scheduler_.Wait(first); first = false) {
  }
}

void Machine::RunOp(size_t index) {
  const Op& op = trace_->ops[index];
  switch (op.kind) {
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kCompareExchange:
      return Plain(op);
    case OpKind::kBulkRead:
    case OpKind::kBulkWrite:
    case OpKind::kFill:
      return Bulk(op);
    case OpKind::kRevoke:
    case OpKind::kGrant:
      ChangeBits(op.page, op.count, op.access, op.kind == OpKind::kGrant);
      return;
    case OpKind::kRetire:
      return Retire(op);
    case OpKind::kRestore:
      return Restore(op.page);
    case OpKind::kLock:
      return LockPage(op);
    case OpKind::kTouch:
      return TouchLocked(op);
    case OpKind::kUnlock:
      return UnlockPage(op.page);
    case OpKind::kSection:
      return OwnSection(op);
    case OpKind::kResolve:
      page_[op.page].missing = false;
      return;
    case OpKind::kWaitUnlocked:
      return WaitUnlocked(op);
  }
}

PageFaultAction Machine::Handle(const PageFaultInfo& fault) {
  const auto page = static_cast<uint8_t>(fault.address / kPageBytes);
  const PageFaultAction refuse = PageFaultAction::Fail(fault.bitmap_failure ? guestmem::AccessDenied() : guestmem::NotMapped());
  if (scheduler_.given_up()) {
    return refuse;
  }
  if (guestmem::Rcu::InSection() || me().in_section) {
    Break("a page-fault handler runs inside a section");
    return refuse;
  }
  if (!fault.bitmap_failure && !MayFault(page)) {
    Break("an access touched the unmapped page " + std::to_string(page) + " after its revocation had returned");
    return refuse;
  }
  if (next_answer_ == trace_->answers.size()) {
    return refuse;
  }
  const Answer answer = trace_->answers[next_answer_];
  next_answer_ += answer != Answer::kRetryForever;
  const auto next = static_cast<uint8_t>((page + 1) % trace_->pages.size());
  switch (answer) {
    case Answer::kFail:
      return refuse;
    case Answer::kGrant:
      ChangeBits(page, 1, 3, true);
      break;
    case Answer::kRestore:
      if (page_[page].use == Use::kInUse) {
        ChangeBits(page, 1, 3, true);
      } else {
        Restore(page);
      }
      break;
    case Answer::kRevokeOther:
      ChangeBits(next, 1, 3, false);
      break;
    case Answer::kRetry:
    case Answer::kRetryForever:
      break;
  }
  return PageFaultAction::Retry();
}

// Whether the running op may have met a hole in that page.
bool Machine::MayFault(uint8_t page) { return page_[page].hole || page_[page].filled > me().start; }

uint64_t Machine::LastSeen(uint64_t address, uint8_t size) {
  for (const Seen& seen : me().seen) {
    if (seen.address == address && seen.size == size) {
      return seen.value;
    }
  }
  const uint64_t initial = InitialByte(address / kPageBytes) * 0x0101010101010101u;
  return size == 8 ? initial : initial & ((uint64_t{1} << size * 8) - 1);
}

void Machine::Remember(uint64_t address, uint8_t size, uint64_t value) {
  for (Seen& seen : me().seen) {
    if (seen.address == address && seen.size == size) {
      seen.value = value;
      return;
    }
  }
  me().seen.push_back({address, value, size});
}

void Machine::Found(uint64_t start, uint64_t address, uint64_t length, Bit bit, bool value) {
  const uint64_t end = scheduler_.Tick();
  if (length == 0) {
    return;
  }
  for (uint64_t page = address / kPageBytes; page <= (address + length - 1) / kPageBytes; ++page) {
    history_.findings.push_back({start, end, static_cast<uint8_t>(page), bit, value, static_cast<uint8_t>(me().op)});
  }
}

void Machine::FoundRefusal(uint64_t start, const Status& status, Bit bit) {
  if (scheduler_.given_up()) {
    return;
  }
  // In a section of the thread's own the handler is not asked: the error does not say what it would have been asked about.
  const bool unasked = me().in_section && status.kind() == guestmem::ErrorKind::kInvalidArgument;
  if ((unasked || status.kind() == guestmem::ErrorKind::kNotMapped) && status.info().fault_address &&
      MayFault(static_cast<uint8_t>(*status.info().fault_address / kPageBytes))) {
    return;
  }
  if ((!unasked && status.kind() != guestmem::ErrorKind::kAccessDenied) || !status.info().fault_address) {
    Break("an access failed with something else than a refused page: " + status.ToString());
    return;
  }
  Found(start, *status.info().fault_address, 1, bit, false);
}

void Machine::Break(std::string what) {
  if (history_.broken.empty() && !scheduler_.given_up()) {
    const int thread = scheduler_.current();
    history_.broken = std::move(what);
    if (thread >= 0) {
      history_.broken += ", in op " + std::to_string(threads_[thread].op + 1) + " (thread " + OpText(trace_->ops[threads_[thread].op]) + ")";
    }
  }
}

}  // namespace reference::schedule
