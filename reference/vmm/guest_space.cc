#include "reference/vmm/guest_space.h"

#include <string>
#include <utility>

namespace reference::vmm {

using guestmem::SlotChange;
using guestmem::Status;

Status GuestSpace::Run(const Op& op) {
  static const std::string kNames[] = {"s0", "s1", "s2"};
  const uint64_t slot = op[kSlot];
  const bool there = cast_.space != nullptr;
  switch (op.kind) {
    case OpKind::kSpaceAdd: {
      const guestmem::NewSlot wanted = {op.gpa(), op[kLength], cast_.backings[op[kFile]], op[kOffset], op[kForm] % 2 == 1, kNames[slot]};
      if (begun_) {
        begun_->push_back(SlotChange::Add(wanted));
        return {};
      }
      return there ? cast_.space->Add(wanted) : Status();
    }
    case OpKind::kSpaceRemove:
      if (begun_) {
        begun_->push_back(SlotChange::Remove(op.gpa()));
        return {};
      }
      return there ? cast_.space->Remove(op.gpa()) : Status();
    case OpKind::kSpaceBegin: begun_.emplace(); return {};
    case OpKind::kSpaceCommit: {
      const auto steps = std::exchange(begun_, std::nullopt).value_or(std::vector<SlotChange>());
      return there ? cast_.space->Change(steps) : Status();
    }
    case OpKind::kSpaceView: {
      cast_.view.reset();
      auto view = cast_.memory.Subrange(op.gpa(), op[kSize]);
      if (view.ok()) {
        cast_.view = *view;
      }
      return view.status();
    }
    case OpKind::kSpaceListen:
      return there ? cast_.Register(slot, op[kForm] % 2 == 1 ? std::optional(op[kPage] * kPageBytes) : std::nullopt) : Status();
    case OpKind::kSpaceUnlisten: cast_.registrations[slot].reset(); return {};
    case OpKind::kSpacePopulated: return there ? cast_.NotePopulated({op.gpa(), op[kLength]}) : Status();
    case OpKind::kSpaceDrop: cast_.space.reset(); return {};
    default: return {};
  }
}

}  // namespace reference::vmm
