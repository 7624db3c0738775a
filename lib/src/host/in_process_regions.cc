// InProcessGuest's regions and ROMs: files that come into the guest and go again.

#include <errno.h>

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

// A descriptor of our own; pieces of one mapping share it.
class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile() { host::Close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

struct FilePiece {
  uint64_t length;
  std::shared_ptr<const OpenFile> file;
  uint64_t file_offset;
  bool writable;
  uint64_t page_size;  // the file's: a piece is of whole ones
};

}  // namespace

// Everything below is guarded by the guest's layout_.
class InProcessGuest::Region final : public MappedMemoryRegion {
 public:
  Region(std::shared_ptr<InProcessGuest> guest, uint64_t length, std::string name)
      : guest_(std::move(guest)), length_(length), name_(std::move(name)) {}

  Status Map(uint64_t offset, int fd, uint64_t file_offset, uint64_t length, bool writable) override {
    const std::lock_guard lock(guest_->layout_);
    Status status = Check(offset, length);
    if (!status.ok() || length == 0) {
      return status;
    }
    const int own = host::Duplicate(fd);
    if (own < 0) {
      return host::HostFailure(name_.c_str(), "dup", errno, AddressRange{offset, length});
    }
    const auto file = std::make_shared<const OpenFile>(own);
    const uint64_t page = host::FilePageSize(own);
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
      return guest_->Relabel(status, name_, offset, length);
    }
    Forget(offset, length);
    pieces_.emplace(offset, FilePiece{length, file, file_offset, writable, page});
    return {};
  }

  Status Unmap(uint64_t offset, uint64_t length) override {
    const std::lock_guard lock(guest_->layout_);
    Status status = Check(offset, length);
    if (!status.ok() || length == 0) {
      return status;
    }
    if (gpa_) {
      if (Status locked = guest_->CheckUnlocked(*gpa_ + offset, length); !locked.ok()) {
        return locked;
      }
      status = guest_->Relabel(guest_->ram_->Unmap(*gpa_ + offset, length), name_, offset, length);
    }
    if (status.ok()) {
      Forget(offset, length);
    }
    return status;
  }

  Status MapToGuest(uint64_t gpa, bool writable) {
    const std::lock_guard lock(guest_->layout_);
    if (gpa_) {
      return guest_->Error(name_, ErrorKind::kInvalidArgument, gpa, length_, "the region is in the guest already");
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
      status = guest_->ram_->MapFile(gpa + offset, piece.length, piece.file->fd(), piece.file_offset,
                                     piece.writable && writable);
      if (!status.ok()) {
        // If even that fails the range stays claimed: nothing else may come where bytes of ours may be.
        (void)guest_->Release(gpa, length_);
        return guest_->Relabel(status, name_, gpa, length_);
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
    return status.ok() || status.kind() == ErrorKind::kLocked ? status : guest_->Relabel(status, name_, *gpa_, length_);
  }

 private:
  Status Check(uint64_t offset, uint64_t length) const {
    if (offset % kPageSize != 0 || length % kPageSize != 0) {
      return guest_->Error(name_, ErrorKind::kInvalidArgument, offset, length, "not a whole number of pages");
    }
    if (offset > length_ || length > length_ - offset) {
      return guest_->Error(name_, ErrorKind::kInvalidArgument, offset, length, "outside the region");
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
    return guest_->Error(name_, ErrorKind::kInvalidArgument, start, length,
                         "not a whole number of the file's pages of " + std::to_string(page) + " bytes");
  }

  // Cuts [offset, offset + length) out of the pieces.
  void Forget(uint64_t offset, uint64_t length) {
    const uint64_t end = offset + length;
    auto next = pieces_.lower_bound(offset);
    if (next != pieces_.begin()) {
      next = std::prev(next);
    }
    while (next != pieces_.end() && next->first < end) {
      const uint64_t start = next->first;
      const FilePiece piece = next->second;
      const uint64_t piece_end = start + piece.length;
      if (piece_end <= offset) {
        ++next;
        continue;
      }
      next = pieces_.erase(next);
      if (start < offset) {
        pieces_.emplace(start, FilePiece{offset - start, piece.file, piece.file_offset, piece.writable, piece.page_size});
      }
      if (piece_end > end) {
        pieces_.emplace(end, FilePiece{piece_end - end, piece.file, piece.file_offset + (end - start), piece.writable, piece.page_size});
      }
    }
  }

  const std::shared_ptr<InProcessGuest> guest_;
  const uint64_t length_;
  const std::string name_;
  std::map<uint64_t, FilePiece> pieces_;  // by offset; never overlap
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

Result<NewMemoryRegion> InProcessGuest::NewRegion(uint64_t length, std::string name) {
  if (length == 0 || length % kPageSize != 0) {
    return Error(name, ErrorKind::kInvalidArgument, 0, length, "not a whole number of pages");
  }
  const auto region = std::make_shared<Region>(shared_from_this(), length, std::move(name));
  return NewMemoryRegion{std::make_unique<RegionInGuest>(region), region};
}

class InProcessGuest::RomInGuest final : public RomMapping {
 public:
  RomInGuest(std::shared_ptr<InProcessGuest> guest, uint64_t gpa, uint64_t length)
      : guest_(std::move(guest)), gpa_(gpa), length_(length) {}
  ~RomInGuest() override {
    const std::lock_guard lock(guest_->layout_);
    (void)guest_->Release(gpa_, length_);
  }

 private:
  const std::shared_ptr<InProcessGuest> guest_;
  const uint64_t gpa_;
  const uint64_t length_;
};

class InProcessGuest::Rom final : public RomMapper {
 public:
  Rom(std::shared_ptr<InProcessGuest> guest, std::shared_ptr<SharedMemory> bytes, uint64_t length, std::string name)
      : guest_(std::move(guest)), bytes_(std::move(bytes)), length_(length), name_(std::move(name)) {}

  Result<std::unique_ptr<RomMapping>> MapRom(uint64_t gpa, uint64_t offset, uint64_t length) override {
    const uint64_t end = bytes_->size();
    if (offset % kPageSize != 0 || offset > end || length > end - offset) {
      return guest_->Error(name_, ErrorKind::kInvalidArgument, gpa, length, "not a whole number of pages of the ROM");
    }
    const std::lock_guard lock(guest_->layout_);
    Status status = guest_->Claim(gpa, length, name_);
    if (!status.ok()) {
      return status;
    }
    status = guest_->ram_->MapFile(gpa, length, bytes_->fd(), offset, false);
    if (!status.ok()) {
      guest_->claims_.erase(gpa);
      return guest_->Relabel(status, name_, gpa, length);
    }
    return std::unique_ptr<RomMapping>(new RomInGuest(guest_, gpa, length));
  }
  uint64_t length() const override { return length_; }

 private:
  const std::shared_ptr<InProcessGuest> guest_;
  const std::shared_ptr<SharedMemory> bytes_;
  const uint64_t length_;
  const std::string name_;
};

Result<std::shared_ptr<RomMapper>> InProcessGuest::NewRom(std::span<const std::byte> image, std::string name) {
  Result<std::shared_ptr<SharedMemory>> bytes = SharedMemory::Create(image.size());
  if (!bytes.ok()) {
    return Relabel(bytes.status(), name, 0, image.size());
  }
  std::memcpy(bytes.value()->mapping(), image.data(), image.size());
  return std::shared_ptr<RomMapper>(
      std::make_shared<Rom>(shared_from_this(), *std::move(bytes), image.size(), std::move(name)));
}

}  // namespace guestmem
