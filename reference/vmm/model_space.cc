#include "reference/vmm/model_space.h"

#include <algorithm>

#include "reference/vmm/space_world.h"

namespace reference::vmm {
namespace {

constexpr uint64_t kMaxEnd = uint64_t{1} << 63;
constexpr char kName[] = "space";

}  // namespace

SpaceModel::SpaceModel(const World& world) : lazy_(world.lazy) {
  for (uint64_t number = 0; number < kSpaceBackings; ++number) {
    Backing& backing = backings_[number];
    for (uint64_t i = 0; i < kSpaceBackingPages[number] * kPageBytes; ++i) {
      backing.bytes.push_back(SpaceByte(number, i));
    }
    backing.present.assign(kSpaceBackingPages[number], true);
    backing.writable.assign(kSpaceBackingPages[number], true);
  }
  backings_[kGuarded].writable[1] = false;
  backings_[kLazy].present[1] = backings_[kLazy].present[2] = false;
  for (uint64_t i = kPageBytes; i < 3 * kPageBytes; ++i) {
    backings_[kLazy].bytes[i] = 0;
  }
  backings_[kRegisters].mapped = false;
}

Outcome SpaceModel::Run(const Op& op, bool host_call_failed) {
  outcome_ = Outcome();
  const Slot slot = {op.gpa(), op[kLength], op[kFile], op[kOffset], op[kForm] % 2 == 1, "s" + std::to_string(op[kSlot]), 0};
  switch (op.kind) {
    case OpKind::kSpaceAdd:
    case OpKind::kSpaceRemove: {
      const Step step = {op.kind == OpKind::kSpaceRemove, slot};
      if (begun_) {
        begun_->push_back(step);
      } else {
        Change(step.removes ? "remove" : "add", {step});
      }
      break;
    }
    case OpKind::kSpaceBegin: begun_.emplace(); break;
    case OpKind::kSpaceCommit:
      Change("change", begun_.value_or(std::vector<Step>()));
      begun_.reset();
      break;
    case OpKind::kSpaceView: MakeView(op); break;
    case OpKind::kSpaceListen:
    case OpKind::kSpaceUnlisten: Listen(op); break;
    case OpKind::kSpacePopulated: Populated(op); break;
    case OpKind::kSpaceDrop: Drop(); break;
    case OpKind::kLock:
      if (host_call_failed) {
        Fail("resource exhausted", "lock");
      } else {
        Lock(op);
      }
      break;
    default: Access(op); break;
  }
  return outcome_;
}

bool SpaceModel::Fail(const char* kind, const std::string& operation) {
  outcome_.error = Error{kind, operation, kName};
  return true;
}

// ------------------------------------------------------------------ changes

bool SpaceModel::Misfit(const char* operation, const Slot& slot) {
  const uint64_t size = backings_[slot.backing].bytes.size();
  const bool fits = slot.gpa % kPageBytes == 0 && slot.size % kPageBytes == 0 && slot.offset % kPageBytes == 0 && slot.size != 0 &&
                    slot.gpa <= kMaxEnd && slot.size <= kMaxEnd - slot.gpa && slot.offset <= size && slot.size <= size - slot.offset;
  if (!fits) {
    Fail("invalid argument", operation);
    outcome_.error->range = {slot.gpa, slot.size};
  }
  return !fits;
}

void SpaceModel::Change(const char* operation, const std::vector<Step>& steps) {
  if (dropped_ || steps.empty()) {
    return;
  }
  std::vector<Slot> layout = layout_, removed, added;
  for (const Step& step : steps) {
    if (!step.removes && Misfit(operation, step.slot)) {
      return;
    }
  }
  for (const Step& step : steps) {
    if (!step.removes) {
      continue;
    }
    const auto at = std::find_if(layout.begin(), layout.end(), [&](const Slot& slot) { return slot.gpa == step.slot.gpa; });
    if (at == layout.end()) {
      Fail("invalid argument", operation);
      outcome_.error->range = {step.slot.gpa, 0};
      return;
    }
    removed.push_back(*at);
    layout.erase(at);
  }
  for (const Step& step : steps) {
    if (step.removes) {
      continue;
    }
    Slot slot = step.slot;
    for (const Slot& other : layout) {
      if (other.gpa < slot.gpa + slot.size && slot.gpa < other.gpa + other.size) {
        Fail("invalid argument", operation);
        outcome_.error->range = {slot.gpa, slot.size};
        outcome_.error->note = other.name;
        return;
      }
    }
    slot.id = ++ids_;
    added.push_back(slot);
    layout.push_back(slot);
    std::sort(layout.begin(), layout.end(), [](const Slot& a, const Slot& b) { return a.gpa < b.gpa; });
  }
  for (const auto& pages : locks_) {
    for (const Locked& page : pages) {
      for (const Slot& slot : removed) {
        if (slot.id == page.slot && (!outcome_.error || page.gpn < *outcome_.error->gpn)) {
          Fail("locked", operation);
          outcome_.error->range = {slot.gpa, slot.size};
          outcome_.error->gpn = page.gpn;
        }
      }
    }
  }
  if (outcome_.error) {
    return;
  }
  for (const Slot& slot : removed) {
    TellRemoving(slot);
  }
  for (size_t i = 0; i < added.size(); ++i) {
    std::vector<uint64_t> took;
    for (const uint64_t listener : order_) {
      if (!TellAdded(listener, added[i])) {
        TakeBack(added, i, took, removed);
        Fail("backend", operation);
        outcome_.error->range = {added[i].gpa, added[i].size};
        return;
      }
      took.push_back(listener);
    }
  }
  layout_ = layout;
  ++layouts_;
  for (const uint64_t listener : order_) {
    TellCommitted(listener);
  }
}

// ------------------------------------------------------------------ listeners

void SpaceModel::TellRemoving(const Slot& slot) {
  for (size_t i = order_.size(); i > 0; --i) {
    outcome_.told.push_back("L" + std::to_string(order_[i - 1]) + " - " + slot.name + " " + SpaceHex(slot.gpa));
  }
}

bool SpaceModel::TellAdded(uint64_t listener, const Slot& slot) {
  const std::string who = "L" + std::to_string(listener);
  if (listeners_[listener].refuses == slot.gpa) {
    outcome_.told.push_back(who + " refuses " + slot.name);
    return false;
  }
  outcome_.told.push_back(who + " + " + SlotText(slot.name, slot.gpa, slot.size, slot.read_only,
                                                 backings_[slot.backing].mapped ? std::optional(slot.offset) : std::nullopt,
                                                 slot.backing == kRam ? std::optional(slot.offset) : std::nullopt));
  return true;
}

void SpaceModel::TakeBack(const std::vector<Slot>& added, size_t whole, const std::vector<uint64_t>& last,
                          const std::vector<Slot>& removed) {
  for (size_t i = last.size(); i > 0; --i) {
    outcome_.told.push_back("L" + std::to_string(last[i - 1]) + " - " + added[whole].name + " " + SpaceHex(added[whole].gpa));
  }
  for (size_t i = whole; i > 0; --i) {
    TellRemoving(added[i - 1]);
  }
  for (const Slot& slot : removed) {
    for (const uint64_t listener : order_) {
      TellAdded(listener, slot);
    }
  }
}

void SpaceModel::Listen(const Op& op) {
  const uint64_t number = op[kSlot];
  Listener& listener = listeners_[number];
  if (op.kind == OpKind::kSpaceUnlisten) {
    for (size_t i = listener.registered && !dropped_ ? layout_.size() : 0; i > 0; --i) {
      outcome_.told.push_back("L" + std::to_string(number) + " - " + layout_[i - 1].name + " " + SpaceHex(layout_[i - 1].gpa));
    }
    listener.registered = false;
    std::erase(order_, number);
    return;
  }
  if (dropped_) {
    return;
  }
  if (listener.registered) {
    Fail("invalid argument", "add");
    return;
  }
  listener.refuses = op[kForm] % 2 == 1 ? std::optional(op[kPage] * kPageBytes) : std::nullopt;
  for (size_t i = 0; i < layout_.size(); ++i) {
    if (!TellAdded(number, layout_[i])) {
      for (size_t j = i; j > 0; --j) {
        outcome_.told.push_back("L" + std::to_string(number) + " - " + layout_[j - 1].name + " " + SpaceHex(layout_[j - 1].gpa));
      }
      Fail("backend", "add");
      outcome_.error->range = {layout_[i].gpa, layout_[i].size};
      return;
    }
  }
  listener.registered = true;
  order_.push_back(number);
  TellCommitted(number);
}

void SpaceModel::Drop() {
  if (dropped_) {
    return;
  }
  for (size_t i = layout_.size(); i > 0; --i) {
    TellRemoving(layout_[i - 1]);
  }
  order_.clear();
  dropped_ = true;
}

void SpaceModel::Populated(const Op& op) {
  const uint64_t start = op.gpa();
  for (const Slot& slot : dropped_ ? std::vector<Slot>() : layout_) {
    if (!backings_[slot.backing].mapped) {
      continue;
    }
    uint64_t first = slot.gpa, last = slot.gpa + slot.size;  // of the part that was asked for
    while (first < last && !(first >= start && first - start < op[kLength])) {
      ++first;
    }
    while (first < last && !(last - 1 >= start && last - 1 - start < op[kLength])) {
      --last;
    }
    if (first < last) {
      const uint64_t offset = slot.offset + (first - slot.gpa);
      outcome_.told.push_back(SlotText(slot.name, first, last - first, slot.read_only, offset,
                                       slot.backing == kRam ? std::optional(offset) : std::nullopt));
    }
  }
}

}  // namespace reference::vmm
