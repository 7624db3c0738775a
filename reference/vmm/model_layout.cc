// What lies where in the guest: RAM, regions, ROMs, and what they show.

#include <algorithm>

#include "reference/vmm/model.h"

namespace reference::vmm {
namespace {

constexpr uint64_t kFileEnd = (uint64_t{1} << 63) - 1;

bool WholePages(uint64_t bytes) { return bytes % kPageBytes == 0; }

}  // namespace

bool Model::MisfitsRegion(const Region& region, uint64_t offset, uint64_t length) {
  const bool fits = WholePages(offset) && WholePages(length) && offset <= region.length && length <= region.length - offset;
  return !fits && Fails("invalid argument", region.name, offset, length);
}

bool Model::Misplaced(uint64_t gpa, uint64_t length, const std::string& name) {
  if (!WholePages(gpa) || !WholePages(length) || length == 0 || gpa > size_ || length > size_ - gpa) {
    return Fails("invalid argument", name, gpa, length);
  }
  const Placement* lowest = nullptr;
  for (const Placement& other : placements_) {
    const bool overlaps = other.gpa < gpa + length && gpa < other.gpa + other.length;
    if (overlaps && (lowest == nullptr || other.gpa < lowest->gpa)) {
      lowest = &other;
    }
  }
  return lowest != nullptr && Fails("invalid argument", name, gpa, length, lowest->name);
}

void Model::Leave(uint64_t gpa) {
  std::erase_if(placements_, [&](const Placement& placement) { return placement.gpa == gpa; });
}

void Model::Paint() {
  views_.fill({});
  for (const Placement& placement : placements_) {
    for (uint64_t offset = 0; offset < placement.length; offset += kPageBytes) {
      View& view = views_[(placement.gpa + offset) / kPageBytes];
      if (placement.ram) {
        view = {placement.ram->data() + offset, true};
      } else if (placement.rom) {
        view = {placement.rom->bytes.data() + placement.rom_offset + offset, false};
      } else if (const auto page = placement.region->pages.find(offset / kPageBytes); page != placement.region->pages.end()) {
        const FilePage& from = page->second;
        const bool in_file = from.page < kFilePages[from.file];
        view = {in_file ? &files_[from.file][from.page * kPageBytes] : nullptr, from.writable && placement.region->writable};
      }
    }
  }
}

std::span<const uint8_t> Model::Page(uint64_t page) {
  const View& view = views_[page];
  return view.bytes == nullptr ? std::span<const uint8_t>() : std::span<const uint8_t>(view.bytes, kPageBytes);
}

bool Model::IsWritable(uint64_t page) { return views_[page].bytes != nullptr && views_[page].writable; }

void Model::AddRam(const Op& op) {
  const uint64_t length = op[kLength];
  if (Misplaced(op.gpa(), length, kGuest) || HostFails(kGuest, op.gpa(), length)) {
    return;
  }
  Take({op.gpa(), length, kGuest, std::make_shared<Bytes>(length, 0)});
}

void Model::NewRegion(const Op& op) {
  Halves& halves = regions_[op[kSlot]];
  if (halves.guest) {
    const bool failed = std::exchange(host_call_failed_, false);  // the old one goes before the op begins
    UnmapFromGuest(*halves.guest);
    host_call_failed_ = failed;
    outcome_.error.reset();
  }
  halves = {};
  const uint64_t length = op[kLength];
  const std::string name = "region" + std::to_string(op[kSlot]);
  if (length == 0 || !WholePages(length)) {
    Fails("invalid argument", name, 0, length);
    return;
  }
  halves.guest = halves.region = std::make_shared<Region>(Region{name, length});
}

void Model::RegionMap(const Op& op) {
  const auto region = regions_[op[kSlot]].region;
  if (!region) {
    return;
  }
  const uint64_t offset = op[kOffset], length = op[kLength], from = op[kFrom], file = op[kFile];
  const bool writable = op[kForm] == 0;
  if (MisfitsRegion(*region, offset, length) || length == 0 || HostFails(region->name, offset, length)) {
    return;
  }
  const bool can = WholePages(from) && from <= kFileEnd && length <= kFileEnd - from && file != 3 && !(file == 2 && writable);
  if (!can) {
    Fails("invalid argument", region->name, offset, length);
    return;
  }
  if (region->gpa && LockedIn(*region->gpa + offset, length)) {
    return;
  }
  for (uint64_t i = 0; i < length / kPageBytes; ++i) {
    region->pages[offset / kPageBytes + i] = FilePage{file == 2 ? 0 : file, from / kPageBytes + i, writable};
  }
}

void Model::RegionUnmap(const Op& op) {
  const auto region = regions_[op[kSlot]].region;
  if (!region) {
    return;
  }
  const uint64_t offset = op[kOffset], length = op[kLength];
  if (MisfitsRegion(*region, offset, length) || length == 0) {
    return;
  }
  if (region->gpa && (HostFails(region->name, offset, length) || LockedIn(*region->gpa + offset, length))) {
    return;
  }
  std::erase_if(region->pages, [&](const auto& page) {
    const uint64_t at = page.first * kPageBytes;
    return at >= offset && at < offset + length;
  });
}

void Model::MapToGuest(const Op& op) {
  const auto region = regions_[op[kSlot]].guest;
  if (!region) {
    return;
  }
  if (region->gpa) {
    Fails("invalid argument", region->name, op.gpa(), region->length);
    return;
  }
  if (Misplaced(op.gpa(), region->length, region->name) || HostFails(region->name, op.gpa(), region->length)) {
    return;
  }
  region->gpa = op.gpa();
  region->writable = op[kForm] % 2 == 0;
  Take({op.gpa(), region->length, region->name, {}, region});
}

void Model::UnmapFromGuest(Region& region) {
  if (!region.gpa || LockedIn(*region.gpa, region.length) || HostFails(region.name, *region.gpa, region.length)) {
    return;
  }
  Leave(*region.gpa);
  region.gpa.reset();
}

void Model::NewRom(const Op& op) {
  const uint64_t slot = op[kSlot];
  const uint64_t length = std::min(op[kLength], kMaxPages * kPageBytes);  // as much as there is of an image
  roms_[slot].reset();
  Rom rom{"rom" + std::to_string(slot), length, Bytes((length + kPageBytes - 1) / kPageBytes * kPageBytes, 0)};
  for (uint64_t i = 0; i < length; ++i) {
    rom.bytes[i] = RomByte(slot, i);
  }
  if (length == 0) {
    Fails("invalid argument", rom.name, 0, length);
  } else if (!HostFails(rom.name, 0, length)) {
    roms_[slot] = std::make_shared<Rom>(std::move(rom));
  }
}

void Model::MapRom(const Op& op) {
  const bool failed = std::exchange(host_call_failed_, false);  // the old one goes before the op begins
  DropPart(op[kOther]);
  host_call_failed_ = failed;
  const auto rom = roms_[op[kSlot]];
  if (!rom) {
    return;
  }
  outcome_.number = rom->length;
  const uint64_t offset = op[kOffset], length = op[kLength], end = rom->bytes.size();
  if (!WholePages(offset) || offset > end || length > end - offset) {
    Fails("invalid argument", rom->name, op.gpa(), length);
    return;
  }
  if (Misplaced(op.gpa(), length, rom->name) || HostFails(rom->name, op.gpa(), length)) {
    return;
  }
  Take({op.gpa(), length, rom->name, {}, {}, rom, offset});
  parts_[op[kOther]] = op.gpa();
}

void Model::DropPart(uint64_t slot) {
  for (const Placement& placement : placements_) {
    if (parts_[slot] && placement.gpa == *parts_[slot]) {
      const bool stays = host_call_failed_ || LockedIn(placement.gpa, placement.length);
      outcome_.error.reset();  // a destructor cannot say so
      if (!stays) {
        Leave(*parts_[slot]);
      }
      break;
    }
  }
  parts_[slot].reset();
}

}  // namespace reference::vmm
