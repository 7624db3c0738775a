// The part of a scripted backing that locks pages and gives views.

#include <algorithm>
#include <memory>
#include <utility>

#include "guestmem/guest_memory.h"
#include "reference/lockstep/reply_status.h"
#include "reference/lockstep/scripted_backing.h"

namespace reference {

using guestmem::GuestMemory;
using guestmem::Status;

// The backing as its own views show it: no mapping, all by the fallbacks, in the backing's own coordinates.
class ScriptedBacking::Own final : public guestmem::GuestMemoryAccess {
 public:
  explicit Own(ScriptedBacking& of) : of_(of) {}

  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return of_.setup_.max_address(); }
  Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    return of_.ReadFallback(address, destination);
  }
  Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
    return of_.WriteFallback(address, source);
  }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return of_.FillFallback(address, value, length);
  }
  guestmem::Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                                 std::span<const std::byte> desired) override {
    return of_.CompareExchangeFallback(address, current, desired);
  }

 private:
  ScriptedBacking& of_;  // of the pool: outlives every view
};

bool ScriptedBacking::supports_locking() const { return setup_.lockable != lies_; }

Status ScriptedBacking::AnswerLock(const Call& call) {
  if (!Record(call)) {
    return StatusOf({Reply::Says::kScripted});
  }
  const bool list = call.kind == CallKind::kLockGpns;
  const LockAnswer answer = script_.lock.Next(index_, list ? call.gpns.front() : call.address / kPageSize);
  return StatusOf(list ? ReplyOf(answer, call.gpns) : ReplyOf(answer, call.address, call.length));
}

Status ScriptedBacking::LockGpns(guestmem::AccessType access, std::span<const uint64_t> gpns) {
  const Call call = {CallKind::kLockGpns, index_, 0, 0, static_cast<Access>(access), false, 0, 0, {gpns.begin(), gpns.end()}};
  Status status = AnswerLock(call);
  if (status.ok() && bits_ != nullptr) {
    status = bits_->Lock(gpns);
  }
  if (status.ok()) {
    held_.push_back(call);
  }
  return status;
}

void ScriptedBacking::UnlockGpns(guestmem::AccessType access, std::span<const uint64_t> gpns) {
  const Call call = {CallKind::kUnlockGpns, index_, 0, 0, static_cast<Access>(access), false, 0, 0, {gpns.begin(), gpns.end()}};
  if (!Record(call)) {
    return;
  }
  held_.erase(std::find_if(held_.begin(), held_.end(),
                           [&](const Call& lock) { return lock.access == call.access && lock.gpns == call.gpns; }));
  if (bits_ != nullptr) {
    (void)bits_->Unlock(gpns);  // fails if a step has taken a count away; then nothing changes
  }
}

Status ScriptedBacking::ChangeBitmap(const Step& step) {
  if (bits_ == nullptr) {
    return {};
  }
  const guestmem::PageRange pages = {step.page, step.count};
  switch (step.kind) {
    case StepKind::kRevoke:
      return bits_->Revoke(pages, step.choice);
    case StepKind::kGrant:
      return bits_->Grant(pages, step.choice);
    case StepKind::kWaitUnlocked:
      return bits_->WaitUnlocked(pages, {});
    default:
      return step.form == 0 ? bits_->Lock(step.gpns) : bits_->Unlock(step.gpns);
  }
}

Status ScriptedBacking::ExposeVa(uint64_t address, uint64_t length) {
  return AnswerLock({CallKind::kExposeVa, index_, address, length, {}, false, 0, 0, {}});
}

guestmem::Result<std::optional<GuestMemory>> ScriptedBacking::Subrange(uint64_t offset, uint64_t length,
                                                                       bool allow_preemptive_locking) {
  if (!Record({CallKind::kSubrange, index_, offset, length, {}, false, allow_preemptive_locking ? 1U : 0U, 0, {}})) {
    return StatusOf({Reply::Says::kScripted});
  }
  const auto own = [&] { return GuestMemory::Create(kOwnName, std::make_shared<Own>(*this)).value(); };
  const SubrangeAnswer answer = script_.subrange.Next(index_, offset / kPageSize);
  switch (answer) {
    case SubrangeAnswer::kDefault:
      return std::optional<GuestMemory>();
    case SubrangeAnswer::kOwn:
      return std::optional(own().Subrange(offset, length).value());
    case SubrangeAnswer::kWrongSize:
      if (length == setup_.max_address()) {
        return std::optional(own().Subrange(0, length - 1).value());
      }
      return std::optional(GuestMemory::CreateMultiRegion(kOwnName, kMaxPages * kPageSize, {std::make_shared<Own>(*this), nullptr}).value());
    default:
      return StatusOf(ReplyOf(answer, offset, length));
  }
}

}  // namespace reference
