// Changing the layout of an address space (SPEC 14): everything that can fail first, then listeners, publication, grace.

#include "guestmem/address_space.h"

#include <algorithm>
#include <cinttypes>
#include <limits>
#include <optional>
#include <utility>

#include "guest/layout.h"
#include "guest/lock_state.h"
#include "guestmem/rcu.h"
#include "types/error_rep.h"

namespace guestmem {

AddressSpaceListener::~AddressSpaceListener() = default;
void AddressSpaceListener::Removing(const SlotInfo&) {}
Status AddressSpaceListener::Added(const SlotInfo&) { return {}; }
void AddressSpaceListener::Committed() {}

namespace {

using detail::Layout;
using detail::Region;
using detail::Slot;
using detail::Slots;
using detail::Space;
using detail::Text;

constexpr uint64_t kMaxEnd = uint64_t{1} << 63;

// The address spaces whose listeners the calling thread is in.
struct Notifying {
  explicit Notifying(const Space& space) : space(&space), outer(innermost) { innermost = this; }
  Notifying(const Notifying&) = delete;
  Notifying& operator=(const Notifying&) = delete;
  ~Notifying() { innermost = outer; }

  static bool Is(const Space& space) {
    const Notifying* at = innermost;
    while (at != nullptr && at->space != &space) {
      at = at->outer;
    }
    return at != nullptr;
  }

  const Space* const space;
  const Notifying* const outer;
  static constinit thread_local const Notifying* innermost;
};
constinit thread_local const Notifying* Notifying::innermost = nullptr;

Status MakeError(const Space& space, ErrorKind kind, Operation operation, AddressRange range, std::string_view message = {}) {
  return detail::MakeError(&space.name, {.kind = kind, .operation = operation, .range = range}, message);
}

Status CallbackError(const Space& space, Operation operation, AddressRange range, Status cause) {
  Status status = detail::MakeCallbackError(&space.name, operation, std::move(cause), false);
  if (ErrorInfo* const info = detail::Editable(status)) {
    info->range = range;
  }
  return status;
}

Status MisuseError(const Space& space, Operation operation) {
  return detail::MakeError(&space.name, ErrorKind::kInvalidArgument, operation,
                           "a listener cannot change the address space that calls it");
}

// Where one file holds all of the slot, which.
Status DescribeFile(Slot& slot) {
  std::vector<SharedFile> files;
  if (Status status = detail::AppendFiles(slot, files); !status.ok()) {
    return status;
  }
  if (files.size() == 1 && files[0].gpa == slot.start && files[0].size == slot.size) {
    slot.info.fd = files[0].fd;
    slot.info.file_offset = files[0].file_offset;
  }
  return {};
}

// The slot that `wanted` asks for, by itself. Throws std::bad_alloc.
Result<std::shared_ptr<const Slot>> MakeSlot(const Space& space, Operation operation, const NewSlot& wanted) {
  const AddressRange range{wanted.gpa, wanted.size};
  const auto misuse = [&](std::string_view message) { return MakeError(space, ErrorKind::kInvalidArgument, operation, range, message); };
  if (wanted.backing == nullptr) {
    return misuse("the backing is null");
  }
  if (wanted.gpa % kPageSize != 0 || wanted.size % kPageSize != 0 || wanted.backing_offset % kPageSize != 0) {
    return misuse("address, size and offset of a slot are multiples of 4096");
  }
  if (wanted.size == 0) {
    return misuse("the slot has no bytes");
  }
  if (wanted.size > kMaxEnd || wanted.gpa > kMaxEnd - wanted.size) {
    return misuse("the slot does not end below 2^63");
  }
  Region whole;
  if (const Text broken = detail::BrokenPromise(*wanted.backing, whole); !std::string_view(broken).empty()) {
    return misuse(broken);
  }
  if (wanted.size > whole.size || wanted.backing_offset > whole.size - wanted.size) {
    return misuse(Text("the slot ends beyond the backing's size 0x%" PRIx64, whole.size));
  }
  auto slot = std::make_shared<Slot>();
  static_cast<Region&>(*slot) = whole.Part(wanted.backing_offset, wanted.size, wanted.gpa);
  slot->read_only = wanted.read_only;
  slot->owner = wanted.backing;
  slot->name = detail::DebugName(wanted.name);
  slot->info = {.gpa = wanted.gpa, .size = wanted.size, .host = slot->base, .read_only = wanted.read_only, .name = slot->name.view()};
  if (Status status = DescribeFile(*slot); !status.ok()) {
    return CallbackError(space, operation, range, std::move(status));
  }
  return std::shared_ptr<const Slot>(std::move(slot));
}

bool StartsBelow(const std::shared_ptr<const Slot>& slot, uint64_t gpa) { return slot->start < gpa; }

// A change that is being made. What it drops is dropped when nothing is locked any more: it may destroy backings.
struct Draft {
  Operation operation;
  Slots added;    // in the order of the list
  Slots removed;  // likewise
  std::shared_ptr<const Layout> layout;
};

Status Take(const Space& space, Draft& draft, Slots& slots, uint64_t gpa) {
  const auto at = std::lower_bound(slots.begin(), slots.end(), gpa, StartsBelow);
  if (at == slots.end() || (*at)->start != gpa) {
    return MakeError(space, ErrorKind::kInvalidArgument, draft.operation, {gpa, 0}, "no slot begins there");
  }
  draft.removed.push_back(*at);
  slots.erase(at);
  return {};
}

Status Put(const Space& space, const Draft& draft, Slots& slots, const std::shared_ptr<const Slot>& slot) {
  const auto next = std::lower_bound(slots.begin(), slots.end(), slot->start, StartsBelow);
  const Slot* there = nullptr;
  if (next != slots.begin() && slot->start - (*(next - 1))->start < (*(next - 1))->size) {
    there = (next - 1)->get();
  } else if (next != slots.end() && (*next)->start - slot->start < slot->size) {
    there = next->get();
  }
  if (there != nullptr) {
    const std::string_view name = there->name.view().substr(0, 128);
    return MakeError(space, ErrorKind::kInvalidArgument, draft.operation, {slot->start, slot->size},
                     Text("the slot '%.*s' is there", static_cast<int>(name.size()), name.data()));
  }
  slots.insert(next, slot);
  return {};
}

// Of all pages of locks in these slots, the lowest. With the locks' mutex held.
uint64_t LowestLocked(const Space& space, const Slots& slots, const Slot*& of) {
  uint64_t lowest = std::numeric_limits<uint64_t>::max();
  for (const detail::LockState* lock = space.held; lock != nullptr; lock = lock->next) {
    for (size_t i = 0; i < lock->count; ++i) {
      const Slot& slot = lock->SlotOf(i);
      const uint64_t gpn = slot.start / kPageSize + (lock->pages[i] - slot.backing_offset / kPageSize);
      if (gpn < lowest && std::any_of(slots.begin(), slots.end(), [&](const auto& going) { return going.get() == &slot; })) {
        lowest = gpn;
        of = &slot;
      }
    }
  }
  return lowest;
}

// No lock of them begins any more until they are gone or opened again; or an error, because one is held.
Status Close(Space& space, const Draft& draft) {
  const std::lock_guard lock(space.locks);
  if (std::any_of(draft.removed.begin(), draft.removed.end(), [](const auto& slot) { return slot->locks != 0; })) {
    const Slot* of = nullptr;
    const uint64_t gpn = LowestLocked(space, draft.removed, of);
    return detail::MakeError(&space.name, {.kind = ErrorKind::kLocked,
                                           .operation = draft.operation,
                                           .range = AddressRange{of->start, of->size},
                                           .gpn = gpn});
  }
  for (const auto& slot : draft.removed) {
    slot->closing = true;
  }
  return {};
}

void Reopen(Space& space, const Draft& draft) {
  const std::lock_guard lock(space.locks);
  for (const auto& slot : draft.removed) {
    slot->closing = false;
  }
  space.reopened.notify_all();
}

// A listener that throws ends the process.
Status TellAdded(AddressSpaceListener& listener, const SlotInfo& info) noexcept { return listener.Added(info); }
void TellRemoving(AddressSpaceListener& listener, const SlotInfo& info) noexcept { listener.Removing(info); }
void TellCommitted(AddressSpaceListener& listener) noexcept { listener.Committed(); }

void TellRemoving(const Space& space, const Slot& slot) {
  for (size_t i = space.listeners.size(); i != 0; --i) {
    TellRemoving(*space.listeners[i - 1], slot.info);
  }
}

// What was told is taken back: of `added` slots all, of the next one what `listeners` had taken.
void TakeBack(const Space& space, const Draft& draft, size_t added, size_t listeners) {
  for (; listeners != 0; --listeners) {
    TellRemoving(*space.listeners[listeners - 1], draft.added[added]->info);
  }
  for (; added != 0; --added) {
    TellRemoving(space, *draft.added[added - 1]);
  }
  for (const auto& slot : draft.removed) {
    for (AddressSpaceListener* const listener : space.listeners) {
      if (const Status status = TellAdded(*listener, slot->info); !status.ok()) {
        detail::Fatal("a listener cannot take back a slot whose removal was called off: ", status.ToString());
      }
    }
  }
}

// Tells the listeners what goes and what comes.
Status Tell(const Space& space, const Draft& draft) {
  const Notifying notifying(space);
  for (const auto& slot : draft.removed) {
    TellRemoving(space, *slot);
  }
  for (size_t i = 0; i < draft.added.size(); ++i) {
    const SlotInfo& info = draft.added[i]->info;
    for (size_t told = 0; told < space.listeners.size(); ++told) {
      if (Status status = TellAdded(*space.listeners[told], info); !status.ok()) {
        TakeBack(space, draft, i, told);
        return CallbackError(space, draft.operation, {info.gpa, info.size}, std::move(status));
      }
    }
  }
  return {};
}

// From its end on no access finds what the draft removes. The draft has the old layout then.
void Publish(Space& space, Draft& draft) {
  {
    const std::lock_guard lock(space.locks);
    GUESTMEM_SCHEDULE_POINT(kLayout);
    space.now.store(draft.layout.get(), std::memory_order_seq_cst);  // fence B
    std::swap(space.layout, draft.layout);
    space.reopened.notify_all();
  }
  Rcu::Synchronize();
}

void RequireOutside() {
  if (Rcu::InSection()) {
    detail::Fatal("an address space is changed inside a read-side section of the same thread: it would wait for itself");
  }
}

}  // namespace

Result<std::unique_ptr<AddressSpace>> AddressSpace::Create(std::string_view name, CreateOptions options) {
  return detail::OrOutOfMemory([&]() -> Result<std::unique_ptr<AddressSpace>> {
    if (Status status = detail::PrepareFaultHandler(options); !status.ok()) {
      return status;
    }
    auto space = std::make_shared<Space>();
    space->name = detail::DebugName(name);
    space->layout = std::make_shared<const Layout>(Slots(), space->generation);
    space->now.store(space->layout.get(), std::memory_order_relaxed);
    auto memory = std::make_shared<detail::Memory>();
    memory->name = space->name;
    memory->space = space.get();
    memory->owned.push_back(space);
    return std::unique_ptr<AddressSpace>(new AddressSpace(std::move(space), GuestMemory(std::move(memory))));
  });
}

AddressSpace::~AddressSpace() {
  if (Notifying::Is(*space_)) {
    detail::Fatal("a listener destroys the address space that calls it");
  }
  const std::lock_guard lock(space_->changes);
  const Notifying notifying(*space_);
  const Slots& slots = space_->layout->slots();
  for (auto slot = slots.rbegin(); slot != slots.rend(); ++slot) {
    TellRemoving(*space_, **slot);
  }
  space_->listeners.clear();
}

Status AddressSpace::Apply(Operation operation, std::span<const SlotChange> changes) {
  RequireOutside();
  Space& space = *space_;
  if (Notifying::Is(space)) {
    return MisuseError(space, operation);
  }
  if (changes.empty()) {
    return {};
  }
  Draft draft{operation, {}, {}, {}};
  // With nothing locked: it asks the backings.
  Status status = detail::OrOutOfMemory([&]() -> Status {
    for (const SlotChange& change : changes) {
      if (!change.removes_) {
        auto slot = MakeSlot(space, operation, change.slot_);
        if (!slot.ok()) {
          return slot.status();
        }
        draft.added.push_back(*std::move(slot));
      }
    }
    return {};
  });
  if (!status.ok()) {
    return status;
  }
  const std::lock_guard lock(space.changes);
  status = detail::OrOutOfMemory([&]() -> Status {
    Slots slots = space.layout->slots();
    slots.reserve(slots.size() + draft.added.size());
    Status put;
    for (size_t i = 0; i < changes.size() && put.ok(); ++i) {
      put = changes[i].removes_ ? Take(space, draft, slots, changes[i].slot_.gpa) : Status();
    }
    for (size_t i = 0; i < draft.added.size() && put.ok(); ++i) {
      put = Put(space, draft, slots, draft.added[i]);
    }
    if (put.ok()) {
      draft.layout = std::make_shared<const Layout>(std::move(slots), ++space.generation);
      put = Close(space, draft);
    }
    return put;
  });
  if (!status.ok()) {
    return status;
  }
  status = Tell(space, draft);
  if (!status.ok()) {
    Reopen(space, draft);
    return status;
  }
  Publish(space, draft);
  const Notifying notifying(space);
  for (AddressSpaceListener* const listener : space.listeners) {
    TellCommitted(*listener);
  }
  return {};
}

Status AddressSpace::Add(NewSlot slot) {
  const SlotChange change = SlotChange::Add(std::move(slot));
  return Apply(Operation::kAdd, {&change, 1});
}

Status AddressSpace::Remove(uint64_t gpa) {
  const SlotChange change = SlotChange::Remove(gpa);
  return Apply(Operation::kRemove, {&change, 1});
}

Status AddressSpace::Change(std::span<const SlotChange> changes) { return Apply(Operation::kChange, changes); }

Result<AddressSpace::Registration> AddressSpace::Register(AddressSpaceListener& listener) {
  RequireOutside();
  Space& space = *space_;
  if (Notifying::Is(space)) {
    return MisuseError(space, Operation::kAdd);
  }
  const std::lock_guard lock(space.changes);
  if (std::find(space.listeners.begin(), space.listeners.end(), &listener) != space.listeners.end()) {
    return detail::MakeError(&space.name, ErrorKind::kInvalidArgument, Operation::kAdd, "the listener is registered already");
  }
  Status status = detail::OrOutOfMemory([&]() -> Status {
    space.listeners.reserve(space.listeners.size() + 1);
    return {};
  });
  const Slots& slots = space.layout->slots();
  const Notifying notifying(space);
  for (size_t i = 0; i < slots.size() && status.ok(); ++i) {
    const SlotInfo& info = slots[i]->info;
    status = TellAdded(listener, info);
    if (!status.ok()) {
      status = CallbackError(space, Operation::kAdd, {info.gpa, info.size}, std::move(status));
      while (i != 0) {
        TellRemoving(listener, slots[--i]->info);
      }
      break;
    }
  }
  if (!status.ok()) {
    return status;
  }
  space.listeners.push_back(&listener);
  TellCommitted(listener);
  Registration registration;
  registration.space_ = space_;
  registration.listener_ = &listener;
  return registration;
}

AddressSpace::Registration::~Registration() {
  if (space_ == nullptr) {
    return;
  }
  if (Notifying::Is(*space_)) {
    detail::Fatal("a listener is unregistered by one that its address space calls");
  }
  const std::lock_guard lock(space_->changes);
  const auto at = std::find(space_->listeners.begin(), space_->listeners.end(), listener_);
  if (at == space_->listeners.end()) {
    return;  // the address space is gone, and has said so
  }
  const Notifying notifying(*space_);
  const Slots& slots = space_->layout->slots();
  for (auto slot = slots.rbegin(); slot != slots.rend(); ++slot) {
    TellRemoving(*listener_, (*slot)->info);
  }
  space_->listeners.erase(at);
}

Result<std::vector<SlotInfo>> AddressSpace::Populated(AddressRange range) const {
  return detail::OrOutOfMemory([&]() -> Result<std::vector<SlotInfo>> {
    const auto layout = space_->Current();
    const uint64_t end = range.length > ~range.start ? ~uint64_t{0} : range.start + range.length;
    std::vector<SlotInfo> parts;
    for (const auto& slot : layout->slots()) {
      const uint64_t from = std::max(slot->start, range.start);
      const uint64_t to = std::min(slot->start + slot->size, end);
      if (slot->base == nullptr || from >= to) {
        continue;
      }
      SlotInfo part = slot->info;
      part.gpa = from;
      part.size = to - from;
      part.host += from - slot->start;
      part.file_offset += part.fd < 0 ? 0 : from - slot->start;
      parts.push_back(part);
    }
    return parts;
  });
}

}  // namespace guestmem
