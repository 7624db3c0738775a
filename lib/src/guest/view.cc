// Views of memory, and the files behind it.

#include <algorithm>
#include <memory>
#include <utility>

#include "guest/layout.h"
#include "guest/piece.h"
#include "guestmem/guest_memory.h"
#include "types/error_rep.h"

namespace guestmem {

using detail::Memory;
using detail::Region;

Result<std::optional<GuestMemory>> GuestMemoryAccess::Subrange(uint64_t, uint64_t, bool) {
  return std::optional<GuestMemory>();
}

namespace {

// The default view of [offset, offset + length) of a region. `slot`: whose region it is, in an address space.
Result<std::shared_ptr<const Memory>> MakeView(const std::shared_ptr<const Memory>& memory, const Region& region, uint64_t offset,
                                               uint64_t length, std::shared_ptr<const detail::Slot> slot = nullptr) {
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<const Memory>> {
    auto view = std::make_shared<Memory>();
    view->name = memory->name;
    // A view of a view owns what that one owns: a chain of views would end in as many destructors, one within the other.
    view->is_view = true;
    if (memory->is_view || memory->space != nullptr) {
      view->owned = memory->owned;
    } else {
      // Safe because ownership is all that `owned` is for: nothing is reached through it.
      view->owned.push_back(std::const_pointer_cast<Memory>(memory));
    }
    view->space = memory->space;
    (slot == nullptr ? view->only : view->part) = region.Part(offset, length, 0);
    view->slot = std::move(slot);
    return std::shared_ptr<const Memory>(std::move(view));
  });
}

// Where [offset, offset + length) lies: in one region, or, if it has no bytes, at the end of one.
template <typename Find>
const Region* FindView(uint64_t offset, uint64_t length, uint64_t& in_region, Find find) {
  const Region* region = find(offset);
  in_region = detail::OffsetIn(*region, offset);
  if (detail::EndsBelow(region->limit, in_region, length)) {
    return region;
  }
  if (length != 0 || offset == 0) {
    return nullptr;
  }
  region = find(offset - 1);
  in_region = detail::OffsetIn(*region, offset - 1);
  if (!detail::EndsBelow(region->limit, in_region, 1)) {
    return nullptr;
  }
  ++in_region;
  return region;
}

}  // namespace

Result<GuestMemory> GuestMemory::Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking) const {
  ErrorInfo info;
  info.operation = Operation::kSubrange;
  info.range = {offset, length};
  info.fault_address = offset;
  const std::shared_ptr<const Memory> memory = memory_;  // the backing may drop this handle
  const Region* region;
  uint64_t in_region;
  std::shared_ptr<const detail::Slot> slot;
  if (memory->space != nullptr) {
    const detail::ReadSection section;
    const detail::Layout& layout = memory->space->Now();
    region = FindView(offset, length, in_region, [&](uint64_t gpa) { return detail::LiveRegion(*memory, layout, gpa); });
    if (region != nullptr) {
      slot = detail::SlotOf(*memory, region);
    }
  } else {
    region = FindView(offset, length, in_region, [&](uint64_t gpa) { return &RegionOf(gpa); });
  }
  if (region == nullptr) {
    info.kind = ErrorKind::kOutOfRange;
    return detail::MakeError(&memory->name, std::move(info));
  }
  if (slot != nullptr) {
    auto view = MakeView(memory, *region, in_region, length, std::move(slot));
    return view.ok() ? Result<GuestMemory>(GuestMemory(*std::move(view))) : Result<GuestMemory>(view.status());
  }
  const uint64_t start = region->backing_offset + in_region;
  auto own = region->backing->Subrange(start, length, allow_preemptive_locking);
  if (own.ok() && *own && (*own)->Extent() != length) {
    own = BackendError(StatusCode::kInternal, "the backing's own view is not of the size that was asked for");
  }
  if (!own.ok()) {
    const ErrorInfo& cause = own.status().info();
    if (cause.operation == Operation::kNone && cause.fault_address && *cause.fault_address >= start &&
        *cause.fault_address - start < length) {
      info.fault_address = offset + (*cause.fault_address - start);
    }
    Status status = detail::MakeCallbackError(&memory->name, Operation::kSubrange, own.status(), false);
    if (ErrorInfo* const made = detail::Editable(status)) {
      made->range = info.range;
      made->fault_address = info.fault_address;
      made->gpn = detail::NamedGpn(*region, made->cause);
    }
    return status;
  }
  if (*own) {
    return **std::move(own);
  }
  auto view = MakeView(memory, *region, in_region, length);
  return view.ok() ? Result<GuestMemory>(GuestMemory(*std::move(view))) : Result<GuestMemory>(view.status());
}

Result<GuestMemory> GuestMemory::LockableSubrange(uint64_t offset, uint64_t length) const {
  const std::shared_ptr<const Memory> memory = memory_;  // the backing may drop this handle
  auto view = Subrange(offset, length, true);
  if (!view.ok() || view->supports_locking()) {
    return view;
  }
  ErrorInfo info;
  info.kind = ErrorKind::kNotLockable;
  info.operation = Operation::kSubrange;
  info.range = {offset, length};
  return detail::MakeError(&memory->name, std::move(info));
}

// Where the last byte of any backing ends.
uint64_t GuestMemory::Extent() const {
  if (memory_->slot != nullptr) {
    return memory_->part.size;
  }
  if (memory_->space != nullptr) {
    const auto layout = memory_->space->Current();
    return layout->slots().empty() ? 0 : layout->slots().back()->start + layout->slots().back()->size;
  }
  uint64_t extent = 0;
  for (const Region& region : memory_->regions) {
    if (region.backing != nullptr) {
      extent = region.start + region.size;
    }
  }
  return extent;
}

Status detail::AppendFiles(const Region& region, std::vector<SharedFile>& files) {
  const auto all = region.backing->sharing();
  if (!all.ok()) {
    return all.status();
  }
  const uint64_t start = region.backing_offset;
  const uint64_t end = start + region.size;
  for (SharedFile file : *all) {
    // The part that this memory shows. A backing may say anything: nothing here may wrap.
    const uint64_t first = std::max(file.gpa, start);
    const uint64_t last = file.size > end - std::min(end, file.gpa) ? end : file.gpa + file.size;
    if (first >= last || __builtin_add_overflow(file.file_offset, first - file.gpa, &file.file_offset)) {
      continue;
    }
    file.gpa = region.start + (first - start);
    file.size = last - first;
    files.push_back(file);
  }
  return {};
}

Result<std::vector<SharedFile>> GuestMemory::sharing() const {
  return detail::OrOutOfMemory([memory = memory_]() -> Result<std::vector<SharedFile>> {  // a backing may drop this handle
    std::vector<SharedFile> files;
    Status status;
    for (const Region& region : memory->regions) {
      if (region.backing != nullptr && status.ok()) {
        status = detail::AppendFiles(region, files);
      }
    }
    const auto layout = memory->space != nullptr ? memory->space->Current() : nullptr;
    for (size_t i = 0; layout != nullptr && i < layout->slots().size() && status.ok(); ++i) {
      const auto& slot = layout->slots()[i];
      if (memory->slot == nullptr || memory->slot == slot) {
        status = detail::AppendFiles(memory->slot == nullptr ? *slot : memory->part, files);
      }
    }
    return status.ok() ? Result<std::vector<SharedFile>>(std::move(files)) : Result<std::vector<SharedFile>>(std::move(status));
  });
}

}  // namespace guestmem
