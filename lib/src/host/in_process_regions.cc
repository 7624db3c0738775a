// InProcessGuest's regions and ROMs: files that come into the guest and go again.

#include <errno.h>
#include <inttypes.h>

#include <cstring>
#include <iterator>
#include <mutex>
#include <utility>

#include "guestmem/in_process_guest.h"
#include "guestmem/shared_memory.h"
#include "host/host_calls.h"
#include "host/host_error.h"

namespace guestmem {
namespace {

// A descriptor of our own; pieces of one file share it.
struct OpenFile {
  OpenFile() = default;
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (fd >= 0) {
      host::Close(fd);
    }
  }

  int fd = -1;
};

struct FilePiece {
  uint64_t length;
  std::shared_ptr<OpenFile> file;
  uint64_t file_offset;
  bool writable;
  uint64_t page_size;  // the file's: a piece is of whole ones
};
using Pieces = std::map<uint64_t, FilePiece>;

}  // namespace

// Everything below is guarded by the guest's layout_.
class InProcessGuest::Region final : public MappedMemoryRegion {
 public:
  Region(std::shared_ptr<InProcessGuest> guest, uint64_t length, detail::DebugName name)
      : guest_(std::move(guest)), length_(length), name_(std::move(name)) {}

  Status Map(uint64_t offset, int fd, uint64_t file_offset, uint64_t length, bool writable) override {
    const std::lock_guard lock(guest_->layout_);
    Status status = Check(offset, length);
    if (!status.ok() || length == 0) {
      return status;
    }
    // What needs memory comes first: none is needed once the file is mapped.
    Pieces made;
    host::Rollback joined([&] { JoinAt(offset), JoinAt(offset + length); });
    status = detail::OrOutOfMemory([&] {
      SplitAt(offset);
      SplitAt(offset + length);
      made.emplace(offset, FilePiece{length, OneOf(fd), file_offset, writable, kPageSize});
      return Status();
    });
    if (!status.ok()) {
      return status;
    }
    int& own = made.begin()->second.file->fd;
    if (own < 0 && (own = host::Duplicate(fd)) < 0) {
      return host::HostFailure(name_, "dup", errno, AddressRange{offset, length});
    }
    const uint64_t page = made.begin()->second.page_size = host::FilePageSize(own);
    if (offset % page != 0) {
      return NotWholePages(page, offset, length);
    }
    // Elsewhere first, so that what cannot be mapped is refused now, whether the guest sees the region or not.
    const Result<std::shared_ptr<SparseMapping>> trial = SparseMapping::Create(length);
    status = trial.ok() ? trial.value()->MapFile(0, length, own, file_offset, writable) : trial.status();
    if (status.ok() && gpa_) {
      if (Status locked = guest_->CheckUnlocked(*gpa_ + offset, length); !locked.ok()) {
        return locked;
      }
      status = guest_->ram_->MapFile(*gpa_ + offset, length, own, file_offset, writable && writable_);
    }
    if (!status.ok()) {
      return Relabel(status, name_, offset, length);
    }
    Forget(offset, length);
    pieces_.merge(made);
    return {};
  }

  Status Unmap(uint64_t offset, uint64_t length) override {
    const std::lock_guard lock(guest_->layout_);
    Status status = Check(offset, length);
    if (!status.ok() || length == 0) {
      return status;
    }
    host::Rollback joined([&] { JoinAt(offset), JoinAt(offset + length); });
    status = detail::OrOutOfMemory([&] {
      SplitAt(offset);
      SplitAt(offset + length);
      return Status();
    });
    if (status.ok() && gpa_) {
      if (Status locked = guest_->CheckUnlocked(*gpa_ + offset, length); !locked.ok()) {
        return locked;
      }
      status = Relabel(guest_->ram_->Unmap(*gpa_ + offset, length), name_, offset, length);
    }
    if (status.ok()) {
      Forget(offset, length);
    }
    return status;
  }

  Status MapToGuest(uint64_t gpa, bool writable) {
    const std::lock_guard lock(guest_->layout_);
    if (gpa_) {
      return Error(name_, ErrorKind::kInvalidArgument, gpa, length_, "the region is in the guest already");
    }
    for (const auto& [offset, piece] : pieces_) {
      if (gpa % piece.page_size != 0) {
        return NotWholePages(piece.page_size, gpa, length_);
      }
    }
    Status status = guest_->Claim(gpa, length_, name_);
    if (!status.ok()) {
      return status;
    }
    for (const auto& [offset, piece] : pieces_) {
      status = guest_->ram_->MapFile(gpa + offset, piece.length, piece.file->fd, piece.file_offset,
                                     piece.writable && writable);
      if (!status.ok()) {
        // Piece by piece, which needs no memory of ours: each has its edges. If even that fails the range stays claimed: nothing else
        // may come where bytes of ours may be.
        bool undone = true;
        for (const auto& [mapped, done] : pieces_) {
          if (mapped == offset) {
            break;
          }
          undone = guest_->ram_->Unmap(gpa + mapped, done.length).ok() && undone;
        }
        if (undone) {
          guest_->claims_.erase(gpa);
        }
        return Relabel(status, name_, gpa, length_);
      }
    }
    gpa_ = gpa;
    writable_ = writable;
    return {};
  }

  Status UnmapFromGuest() {
    const std::lock_guard lock(guest_->layout_);
    if (!gpa_) {
      return {};
    }
    Status status = guest_->Release(*gpa_, length_);
    if (status.ok()) {
      gpa_.reset();
    }
    return status.ok() || status.kind() == ErrorKind::kLocked ? status : Relabel(status, name_, *gpa_, length_);
  }

 private:
  Status Check(uint64_t offset, uint64_t length) const {
    if (offset % kPageSize != 0 || length % kPageSize != 0) {
      return Error(name_, ErrorKind::kInvalidArgument, offset, length, "not a whole number of pages");
    }
    if (offset > length_ || length > length_ - offset) {
      return Error(name_, ErrorKind::kInvalidArgument, offset, length, "outside the region");
    }
    // A page of a file stays whole, also while the guest does not see it.
    for (const uint64_t edge : {offset, offset + length}) {
      const auto next = pieces_.upper_bound(edge);
      if (next == pieces_.begin()) {
        continue;
      }
      const auto& [start, piece] = *std::prev(next);
      if (edge - start < piece.length && (edge - start) % piece.page_size != 0) {
        return NotWholePages(piece.page_size, offset, length);
      }
    }
    return {};
  }

  Status NotWholePages(uint64_t page, uint64_t start, uint64_t length) const {
    return Error(name_, ErrorKind::kInvalidArgument, start, length,
                 detail::Text("not a whole number of the file's pages of %" PRIu64 " bytes", page));
  }

  // Our own descriptor of the file behind `fd`, or one that is yet to be filled in: a region of thousands of pieces of a file has one.
  std::shared_ptr<OpenFile> OneOf(int fd) const {
    for (const auto& [offset, piece] : pieces_) {
      if (host::AreOneFile(piece.file->fd, fd)) {
        return piece.file;
      }
    }
    return std::make_shared<OpenFile>();
  }

  // Makes two of the piece that `offset` is inside of, if it is; they show what the one showed. May throw, and has changed nothing then.
  void SplitAt(uint64_t offset) {
    const auto next = pieces_.lower_bound(offset);
    if (next == pieces_.begin()) {
      return;
    }
    auto& [start, piece] = *std::prev(next);
    const uint64_t before = offset - start;
    if (before < piece.length) {
      pieces_.emplace_hint(next, offset,
                           FilePiece{piece.length - before, piece.file, piece.file_offset + before, piece.writable, piece.page_size});
      piece.length = before;
    }
  }

  // Undoes SplitAt, where what is on both sides still shows what one piece would.
  void JoinAt(uint64_t offset) {
    const auto next = pieces_.find(offset);
    if (next == pieces_.end() || next == pieces_.begin()) {
      return;
    }
    auto& [start, piece] = *std::prev(next);
    const FilePiece& behind = next->second;
    if (start + piece.length == offset && piece.file == behind.file && piece.file_offset + piece.length == behind.file_offset &&
        piece.writable == behind.writable) {
      piece.length += behind.length;
      pieces_.erase(next);
    }
  }

  // Drops the pieces of [offset, offset + length), which is split off on both sides.
  void Forget(uint64_t offset, uint64_t length) {
    pieces_.erase(pieces_.lower_bound(offset), pieces_.lower_bound(offset + length));
  }

  const std::shared_ptr<InProcessGuest> guest_;
  const uint64_t length_;
  const detail::DebugName name_;
  Pieces pieces_;  // by offset; never overlap
  std::optional<uint64_t> gpa_;           // where the guest sees it
  bool writable_ = false;
};

class InProcessGuest::RegionInGuest final : public MappableGuestMemory {
 public:
  explicit RegionInGuest(std::shared_ptr<Region> region) : region_(std::move(region)) {}
  ~RegionInGuest() override { (void)UnmapFromGuest(); }
  Status MapToGuest(uint64_t gpa, bool writable) override { return region_->MapToGuest(gpa, writable); }
  Status UnmapFromGuest() override { return region_->UnmapFromGuest(); }

 private:
  const std::shared_ptr<Region> region_;
};

Result<NewMemoryRegion> InProcessGuest::NewRegion(uint64_t length, std::string_view name) {
  if (length == 0 || length % kPageSize != 0) {
    return detail::MakeNamedError(
        name, {.kind = ErrorKind::kInvalidArgument, .operation = Operation::kCreate, .range = AddressRange{0, length}},
        "not a whole number of pages");
  }
  return detail::OrOutOfMemory([&]() -> Result<NewMemoryRegion> {
    detail::DebugName kept(name);
    const auto region = std::make_shared<Region>(shared_from_this(), length, std::move(kept));
    return NewMemoryRegion{std::make_unique<RegionInGuest>(region), region};
  });
}

class InProcessGuest::RomInGuest final : public RomMapping {
 public:
  explicit RomInGuest(std::shared_ptr<InProcessGuest> guest) : guest_(std::move(guest)) {}
  ~RomInGuest() override {
    if (length_ != 0) {
      const std::lock_guard lock(guest_->layout_);
      (void)guest_->Release(gpa_, length_);
    }
  }
  // It is in the guest.
  void Is(uint64_t gpa, uint64_t length) {
    gpa_ = gpa;
    length_ = length;
  }

 private:
  const std::shared_ptr<InProcessGuest> guest_;
  uint64_t gpa_ = 0;
  uint64_t length_ = 0;  // 0: nowhere in the guest
};

class InProcessGuest::Rom final : public RomMapper {
 public:
  Rom(std::shared_ptr<InProcessGuest> guest, std::shared_ptr<SharedMemory> bytes, uint64_t length, detail::DebugName name)
      : guest_(std::move(guest)), bytes_(std::move(bytes)), length_(length), name_(std::move(name)) {}

  Result<std::unique_ptr<RomMapping>> MapRom(uint64_t gpa, uint64_t offset, uint64_t length) override {
    const uint64_t end = bytes_->size();
    if (offset % kPageSize != 0 || offset > end || length > end - offset) {
      return Error(name_, ErrorKind::kInvalidArgument, gpa, length, "not a whole number of pages of the ROM");
    }
    return detail::OrOutOfMemory([&]() -> Result<std::unique_ptr<RomMapping>> {
      auto mapped = std::make_unique<RomInGuest>(guest_);
      const std::lock_guard lock(guest_->layout_);
      Status status = guest_->Claim(gpa, length, name_);
      if (!status.ok()) {
        return status;
      }
      status = guest_->ram_->MapFile(gpa, length, bytes_->fd(), offset, false);
      if (!status.ok()) {
        guest_->claims_.erase(gpa);
        return Relabel(status, name_, gpa, length);
      }
      mapped->Is(gpa, length);
      return std::unique_ptr<RomMapping>(std::move(mapped));
    });
  }
  uint64_t length() const override { return length_; }

 private:
  const std::shared_ptr<InProcessGuest> guest_;
  const std::shared_ptr<SharedMemory> bytes_;
  const uint64_t length_;
  const detail::DebugName name_;
};

Result<std::shared_ptr<RomMapper>> InProcessGuest::NewRom(std::span<const std::byte> image, std::string_view name) {
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<RomMapper>> {
    detail::DebugName kept(name);
    Result<std::shared_ptr<SharedMemory>> bytes = SharedMemory::Create(image.size());
    if (!bytes.ok()) {
      return Relabel(bytes.status(), kept, 0, image.size());
    }
    std::memcpy(bytes.value()->mapping(), image.data(), image.size());
    return std::shared_ptr<RomMapper>(
        std::make_shared<Rom>(shared_from_this(), *std::move(bytes), image.size(), std::move(kept)));
  });
}

}  // namespace guestmem
