// Accesses of an address space, byte by byte, and its locks.

#include <algorithm>

#include "reference/vmm/model_space.h"
#include "reference/vmm/model_values.h"

namespace reference::vmm {

// ------------------------------------------------------------------ accesses

std::optional<SpaceModel::Place> SpaceModel::Find(bool view, uint64_t gpa) const {
  for (const Slot& slot : layout_) {
    if (view) {
      if (slot.id == view_->slot && gpa < view_->length) {
        return Place{&slot, slot.offset + view_->offset + gpa};
      }
    } else if (gpa >= slot.gpa && gpa - slot.gpa < slot.size) {
      return Place{&slot, slot.offset + (gpa - slot.gpa)};
    }
  }
  return std::nullopt;
}

void SpaceModel::MakeView(const Op& op) {
  const uint64_t gpa = op.gpa(), length = op[kSize];
  view_.reset();
  for (const Slot& slot : layout_) {
    const bool inside = gpa >= slot.gpa && gpa - slot.gpa <= slot.size && length <= slot.size - (gpa - slot.gpa);
    // What starts at an end and has no bytes belongs to the slot that begins there, if one does: its view shows nothing either way.
    if (inside && (gpa - slot.gpa < slot.size || length == 0)) {
      view_ = View{slot.id, gpa - slot.gpa, length};
    }
  }
  if (!view_) {
    Fail("out of range", "subrange");
    outcome_.error->range = {gpa, length};
    outcome_.error->fault_address = gpa;
  }
}

bool SpaceModel::FailAccess(const Doing& doing, const char* kind, uint64_t at, const char* note) {
  Fail(kind, doing.operation);
  outcome_.error->range = {doing.gpa, doing.length};
  outcome_.error->fault_address = doing.gpa + at;
  outcome_.error->transferred = doing.moves && !doing.whole ? doing.at : 0;
  outcome_.error->note = note;
  return true;
}

void SpaceModel::Access(const Op& op) {
  const bool view = op[kOther] == 2;
  if (view && !view_) {
    return;
  }
  const uint64_t length = op[kSize];
  Doing doing = {Act::kRead, "read", op.gpa(), length, {}, false, false, true, view};
  if (op.kind == OpKind::kRead) {
    doing.whole = op[kForm] % 2 == 1 && IsPowerOfTwoUpTo8(length);
    outcome_.data.assign(length, kUntouched);
  } else if (op.kind == OpKind::kWrite) {
    const bool fill = op[kForm] >= 2;
    doing.act = fill ? Act::kFill : Act::kWrite;
    doing.operation = fill ? "fill" : "write";
    doing.whole = op[kForm] == 1 && IsPowerOfTwoUpTo8(length);
    doing.stores = true;
  } else if (op.kind == OpKind::kCompareExchange) {
    if (!IsPowerOfTwoUpTo8(length)) {
      return;
    }
    doing.act = Act::kExchange;
    doing.operation = "compare exchange";
    doing.whole = doing.stores = true;
  } else {
    doing.operation = "probe";
    doing.act = std::array{Act::kProbeRead, Act::kProbeWrite, Act::kProbeExecute}[op[kForm] % 3];
    doing.stores = doing.act == Act::kProbeWrite;
    doing.moves = false;
  }
  for (uint64_t i = 0; i < length; ++i) {
    doing.bytes.push_back(ByteOf(op[kValue], doing.act == Act::kFill ? 0 : i % 8));
  }
  // Each round is a look at the layout: all of the rest must lie in it.
  while (doing.at < length && !outcome_.error) {
    for (uint64_t i = doing.at; i < length && !outcome_.error; ++i) {
      const auto place = doing.gpa + i < doing.gpa ? std::nullopt : Find(view, doing.gpa + i);
      if (!place || (doing.whole && place->slot != Find(view, doing.gpa)->slot)) {
        FailAccess(doing, "out of range", doing.at);
      }
    }
    if (!outcome_.error && doing.act == Act::kExchange && Find(view, doing.gpa)->address % length != 0) {
      FailAccess(doing, "misaligned", 0);
    }
    const uint64_t layout = layouts_;
    while (doing.at < length && !outcome_.error && layouts_ == layout && DoPiece(doing)) {
    }
  }
}

// Goes on with the piece at hand. False: something stopped it.
bool SpaceModel::DoPiece(Doing& doing) {
  const Place place = *Find(doing.view, doing.gpa + doing.at);
  uint64_t end = doing.at;
  while (end < doing.length && Find(doing.view, doing.gpa + end)->slot == place.slot) {
    ++end;
  }
  const auto page_of = [&](uint64_t i) { return (place.address + (i - doing.at)) / kPageBytes; };
  Backing& backing = backings_[place.slot->backing];
  if (doing.stores && place.slot->read_only) {
    return !FailAccess(doing, "access denied", doing.at, "read-only");
  }
  if (!backing.mapped) {
    return DoFallback(doing, place, doing.at, end - doing.at);
  }
  for (uint64_t i = doing.at; i < end; ++i) {
    if (doing.stores && !backing.writable[page_of(i)]) {
      return !FailAccess(doing, "access denied", i);
    }
  }
  uint64_t stop = doing.at;
  while (stop < end && backing.present[page_of(stop)]) {
    ++stop;
  }
  if (doing.act == Act::kExchange && stop == end) {
    Exchange(doing, place);
  }
  for (uint64_t i = doing.at; i < stop && (!doing.whole || stop == end); ++i) {
    DoByte(doing, i, backing.bytes[place.address + (i - doing.at)]);
  }
  const uint64_t address = place.address + (stop - doing.at);
  const uint64_t asked_from = doing.whole ? doing.at : stop;
  const Place rest = {place.slot, place.address + (asked_from - doing.at)};
  if (stop == end) {
    doing.at = end;
    return true;
  }
  const Slot slot = *place.slot;  // a handler may remove it
  const std::string access = doing.act == Act::kProbeExecute ? "execute" : doing.stores ? "write" : "read";
  doing.at = asked_from;
  switch (AskLazy(access, address, end - stop)) {
    case Answer::kRetry: return false;
    case Answer::kFail: return !FailAccess(doing, "backend", stop);
    case Answer::kFallback: break;
  }
  return DoFallback(doing, {&slot, rest.address}, asked_from, end - asked_from);
}

void SpaceModel::DoByte(Doing& doing, uint64_t i, uint8_t& byte) {
  if (doing.act == Act::kRead) {
    outcome_.data[i] = byte;
  } else if (doing.act == Act::kWrite || doing.act == Act::kFill) {
    byte = doing.bytes[i];
  }
}

void SpaceModel::Exchange(Doing& doing, const Place& place) {
  std::vector<uint8_t>& bytes = backings_[place.slot->backing].bytes;
  outcome_.flag = true;
  for (uint64_t i = doing.length; i > 0; --i) {
    outcome_.number = outcome_.number * 256 + bytes[place.address + i - 1];
    outcome_.flag = outcome_.flag && bytes[place.address + i - 1] == doing.bytes[i - 1];
  }
  for (uint64_t i = 0; outcome_.flag && i < doing.length; ++i) {
    bytes[place.address + i] = static_cast<uint8_t>(255 - doing.bytes[i]);
  }
}

// The fallbacks: registers load and store their bytes; of lazy memory a read is 0x5a and a write goes nowhere; there are no others.
bool SpaceModel::DoFallback(Doing& doing, const Place& place, uint64_t from, uint64_t length) {
  const bool registers = place.slot->backing == kRegisters;
  for (uint64_t done = 0; done < length;) {
    const uint64_t address = place.address + done;
    const uint64_t page_rest = kPageBytes - address % kPageBytes;
    const uint64_t asked = doing.moves ? length : 1;
    doing.at = from + done;
    const bool reads = doing.act == Act::kRead || doing.act == Act::kProbeRead;
    if (!reads && doing.act != Act::kWrite) {
      return !FailAccess(doing, "no fallback", from + done);
    }
    outcome_.told.push_back(std::string(reads ? "read" : "write") + "_fallback " + SpaceHex(address) + "+" + SpaceHex(asked));
    for (uint64_t i = 0; i < asked && doing.moves; ++i) {
      uint8_t nowhere = 0x5a;
      DoByte(doing, from + i, registers ? backings_[kRegisters].bytes[address + i] : nowhere);
    }
    done += doing.moves ? length : std::min(length - done, page_rest);
  }
  doing.at = from + length;
  return true;
}

// What the handler of lazy memory does about a page that is not there (World::lazy).
SpaceModel::Answer SpaceModel::AskLazy(const std::string& access, uint64_t address, uint64_t length) {
  outcome_.told.push_back("fault " + access + " " + SpaceHex(address) + "+" + SpaceHex(length));
  const Step remove = {true, {kLazyGpa, 0, 0, 0, false, "", 0}};
  const Step put = {false, {kLazyGpa, 3 * kPageBytes, kRam, 0, false, "put", 0}};
  bool changed = true;
  if (lazy_ == kRemoves || lazy_ == kRemovesAndFallsBack || lazy_ == kReplaces) {
    const auto replaced = [](const Slot& slot) { return slot.gpa == kLazyGpa && slot.name == "put"; };
    if (lazy_ == kReplaces && std::any_of(layout_.begin(), layout_.end(), replaced)) {
      changed = false;
    } else {
      Change("change", lazy_ == kReplaces ? std::vector{remove, put} : std::vector{remove});
      changed = !outcome_.error && !dropped_;
      outcome_.error.reset();  // the access is not at fault
    }
  }
  if (lazy_ == kPopulates) {
    backings_[kLazy].present[address / kPageBytes] = true;
    return Answer::kRetry;
  }
  if (lazy_ == kFallsBack || lazy_ == kRemovesAndFallsBack) {
    return Answer::kFallback;
  }
  return lazy_ == kFails || !changed ? Answer::kFail : Answer::kRetry;
}

// ------------------------------------------------------------------ locks

bool SpaceModel::CheckLocked(const Op& op, const std::vector<uint64_t>& gpns, std::vector<Place>& places) {
  const bool view = op[kOther] == 2;
  const auto fail = [&](const char* kind, std::optional<uint64_t> address, const char* note = "") {
    Fail(kind, "lock");
    outcome_.error->fault_address = address;
    outcome_.error->note = note;
    return false;
  };
  for (const uint64_t gpn : gpns) {
    if (gpn >= kFirstInvalidGpn) {
      fail("invalid GPN", std::nullopt);
      outcome_.error->gpn = gpn;
      return false;
    }
    const uint64_t gpa = gpn * kPageBytes;
    const auto first = Find(view, gpa), last = Find(view, gpa + kPageBytes - 1);
    if (!first || !last || first->slot != last->slot) {
      return fail("out of range", gpa);
    }
    if (!backings_[first->slot->backing].mapped || first->address % kPageBytes != 0) {
      return fail("not lockable", std::nullopt);
    }
    if (op[kForm] % 2 == 1 && first->slot->read_only) {
      return fail("access denied", gpa, "read-only");
    }
    places.push_back(*first);
  }
  return true;
}

void SpaceModel::Lock(const Op& op) {
  if (op[kOther] == 2 && !view_) {
    return;
  }
  const bool stores = op[kForm] % 2 == 1;
  std::vector<uint64_t> gpns = {op[kPage]};
  if (op[kForm] >= 2) {
    gpns.push_back(op[kPage] + 1);
  }
  for (;;) {
    std::vector<Place> places;
    if (!CheckLocked(op, gpns, places)) {
      return;
    }
    bool asked = false;
    const uint64_t layout = layouts_;
    for (size_t i = 0; i < gpns.size() && layouts_ == layout; ++i) {
      const Place place = places[i];
      const uint64_t page = place.address / kPageBytes;
      const Backing& backing = backings_[place.slot->backing];
      if (stores && !backing.writable[page]) {
        Fail("access denied", "lock");
      } else if (!backing.present[page]) {
        asked = true;
        const Answer answer = AskLazy(stores ? "write" : "read", place.address, kPageBytes);
        if (answer != Answer::kRetry) {
          Fail(answer == Answer::kFail ? "backend" : "not lockable", "lock");
        }
      }
      if (outcome_.error) {
        outcome_.error->fault_address = gpns[i] * kPageBytes;
        return;
      }
    }
    if (!asked) {
      for (size_t i = 0; i < gpns.size(); ++i) {
        const Slot& slot = *places[i].slot;
        locks_[op[kSlot]].push_back({slot.id, (slot.gpa + (places[i].address - slot.offset)) / kPageBytes});
      }
      return;
    }
  }
}

}  // namespace reference::vmm
