// Views of memory, and the files behind it.

#include <algorithm>
#include <memory>
#include <utility>

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

// The default view of [offset, offset + length) of a region.
Result<std::shared_ptr<const Memory>> MakeView(const std::shared_ptr<const Memory>& memory, const Region& region, uint64_t offset,
                                               uint64_t length) {
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<const Memory>> {
    auto view = std::make_shared<Memory>();
    view->name = memory->name;
    // A view of a view owns what that one owns: a chain of views would end in as many destructors, one within the other.
    view->is_view = true;
    if (memory->is_view) {
      view->owned = memory->owned;
    } else {
      // Safe because ownership is all that `owned` is for: nothing is reached through it.
      view->owned.push_back(std::const_pointer_cast<Memory>(memory));
    }
    Region& part = view->only;
    part = region;
    part.base = region.base == nullptr ? nullptr : region.base + offset;
    part.start = 0;
    part.Resize(length);
    part.backing_offset += offset;
    part.bit_bytes += offset;
    if (part.iova) {
      *part.iova += offset;
    }
    return std::shared_ptr<const Memory>(std::move(view));
  });
}

}  // namespace

Result<GuestMemory> GuestMemory::Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking) const {
  ErrorInfo info;
  info.operation = Operation::kSubrange;
  info.range = {offset, length};
  info.fault_address = offset;
  uint64_t in_region = 0;
  const Region* region = Locate(offset, length, in_region);
  uint64_t previous_in_region = 0;
  if (region == nullptr && length == 0 && offset != 0) {
    // Not inside a backing: perhaps at the end of one.
    region = Locate(offset - 1, 1, previous_in_region);
    in_region = previous_in_region + 1;
  }
  if (region == nullptr) {
    info.kind = ErrorKind::kOutOfRange;
    return detail::MakeError(&memory_->name, std::move(info));
  }
  const std::shared_ptr<const Memory> memory = memory_;  // the backing may drop this handle
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
  uint64_t extent = 0;
  for (const Region& region : memory_->regions) {
    if (region.backing != nullptr) {
      extent = region.start + region.size;
    }
  }
  return extent;
}

Result<std::vector<SharedFile>> GuestMemory::sharing() const {
  return detail::OrOutOfMemory([memory = memory_]() -> Result<std::vector<SharedFile>> {  // a backing may drop this handle
    std::vector<SharedFile> files;
    for (const Region& region : memory->regions) {
      if (region.backing == nullptr) {
        continue;
      }
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
    }
    return files;
  });
}

}  // namespace guestmem
