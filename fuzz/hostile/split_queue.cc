#include <guestmem/hostile/split_queue.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace guestmem::hostile {
namespace {

constexpr uint64_t kDescriptorBytes = 16;
constexpr uint64_t kUsedBytes = 8;
enum Flags : uint16_t { kNext = 1, kWrite = 2, kIndirect = 4 };

// Where the fields of a descriptor stand in it.
enum Field : uint64_t { kAddress = 0, kLength = 8, kFlags = 12, kNextIndex = 14 };

}  // namespace

struct SplitQueue::State {
  Layout layout;
  // Of one run.
  uint16_t offered = 0;         // what the guest put into the available index
  uint16_t completed = 0;       // what the device put into the used index
  std::vector<uint16_t> heads;  // fetched from the available ring, and not completed
  uint64_t writable = 0;        // bytes that descriptors give for writing, since the last completion

  uint64_t available_index() const { return layout.available + 2; }
  uint64_t available_entry(uint64_t i) const { return layout.available + 4 + i % layout.size * 2; }
  uint64_t used_event() const { return layout.available + 4 + uint64_t{layout.size} * 2; }
  uint64_t used_index() const { return layout.used + 2; }
  uint64_t used_entry(uint64_t i) const { return layout.used + 4 + i % layout.size * kUsedBytes; }
  AddressRange used_ring() const { return {layout.used, 4 + layout.size * kUsedBytes + 2}; }

  static void ForbidFetch(Access& access, AddressRange range, const char* what);
  void FetchAvailable(Access& access);
  void FetchDescriptors(Access& access, AddressRange table);
  void StoreUsedIndex(Access& access);
  void PutDescriptors(Guest& guest, uint64_t table, uint64_t first, uint64_t size, std::initializer_list<Buffer> buffers) const;
  void Offer(Guest& guest, uint16_t head);
};

// A device must not read there, unless something else of the guest's names the bytes, too.
void SplitQueue::State::ForbidFetch(Access& access, AddressRange range, const char* what) {
  access.OnFetch(range, [what](Access& a) {
    if (!a.IsNamed({a.gpa(), a.length()})) {
      a.Forbid(std::string("the device reads ") + what);
    }
  });
}

// Every entry that was fetched names a chain.
void SplitQueue::State::FetchAvailable(Access& access) {
  for (uint64_t i = 0; i < layout.size; ++i) {
    const uint64_t entry = available_entry(i);
    if (entry < access.gpa() || entry - access.gpa() >= access.length()) {
      continue;
    }
    const auto head = access.First<uint16_t>(entry);
    if (head && *head >= layout.size) {
      ForbidFetch(access, {layout.descriptors + uint64_t{*head} * kDescriptorBytes, kDescriptorBytes},
                  "a descriptor that an index beyond the table names");
    } else if (head && access.Points(entry, {layout.descriptors + uint64_t{*head} * kDescriptorBytes, kDescriptorBytes})) {
      heads.push_back(*head);
    }
  }
}

// What the descriptors that this fetch met say, as far as their fields are known by now.
void SplitQueue::State::FetchDescriptors(Access& access, AddressRange table) {
  if (access.gpa() + access.length() <= table.start || access.gpa() - table.start >= table.length + kDescriptorBytes) {
    return;
  }
  const uint64_t first = access.gpa() <= table.start ? 0 : (access.gpa() - table.start) / kDescriptorBytes;
  const uint64_t end = std::min(table.length, access.gpa() + access.length() - table.start);
  for (uint64_t i = first; i * kDescriptorBytes < end; ++i) {
    const uint64_t descriptor = table.start + i * kDescriptorBytes;
    const auto flags = access.First<uint16_t>(descriptor + kFlags);
    const auto address = access.First<uint64_t>(descriptor + kAddress);
    const auto length = access.First<uint32_t>(descriptor + kLength);
    const auto next = access.First<uint16_t>(descriptor + kNextIndex);
    if (flags && next && (*flags & (kNext | kIndirect)) == kNext) {
      const AddressRange target{table.start + uint64_t{*next} * kDescriptorBytes, kDescriptorBytes};
      if (uint64_t{*next} < table.length / kDescriptorBytes) {
        access.Points(descriptor + kNextIndex, target);
      } else {
        ForbidFetch(access, target, "a descriptor that an index beyond the table names");
      }
    }
    if (!flags || !address || !length) {
      continue;
    }
    if ((*flags & kIndirect) != 0 && table.start != layout.descriptors) {
      ForbidFetch(access, {*address, *length}, "a table that a descriptor of an indirect table names");
      continue;
    }
    if (!access.Points(descriptor + kAddress, {*address, *length})) {
      continue;
    }
    const AddressRange buffer{*address, *length};
    if ((*flags & kIndirect) != 0) {
      access.OnFetch(buffer, [this, buffer](Access& a) { FetchDescriptors(a, buffer); });
    } else if ((*flags & kWrite) != 0) {
      access.MayStore(buffer);
      writable += *length;
    }
  }
}

// What the device says to have completed was offered, once, and has room for the bytes. Where the guest gave the used ring itself
// as a buffer, nothing can be said.
void SplitQueue::State::StoreUsedIndex(Access& access) {
  const auto index = access.Now<uint16_t>(used_index());
  const auto count = static_cast<uint16_t>(index - completed);
  const uint64_t room = std::exchange(writable, 0);
  const uint16_t from = std::exchange(completed, index);
  if (access.MayStoreInto(used_ring())) {
    heads.clear();
    return;
  }
  if (count > layout.size) {
    return access.Forbid("the used index went back, or further than the queue is long");
  }
  for (uint16_t i = 0; i < count; ++i) {
    const uint64_t entry = used_entry(static_cast<uint16_t>(from + i));
    const auto id = access.Now<uint32_t>(entry);
    const auto found = std::find(heads.begin(), heads.end(), id);
    if (found == heads.end()) {
      return access.Forbid("a completion of a chain that was not offered, or was completed before");
    }
    heads.erase(found);
    if (access.Now<uint32_t>(entry + 4) > room) {
      return access.Forbid("a completion with more bytes than the chain's buffers for writing have");
    }
  }
}

SplitQueue::SplitQueue(Setup& setup, const Layout& layout) : state_(std::make_shared<State>()) {
  State& state = *state_;
  state.layout = layout;
  const auto keep = state_;
  setup.Fixed({layout.available, 4 + uint64_t{layout.size} * 2 + 2});
  setup.Fixed(state.used_ring());
  setup.Polled({layout.available, 4});         // flags and index
  setup.Polled({state.used_event(), 2});
  setup.Polled({layout.used, 4});              // a device may read back its own
  setup.MayStore(state.used_ring());
  setup.RequestEndsAtStore({state.used_index(), 2});
  setup.OnFetch({layout.available + 4, uint64_t{layout.size} * 2}, [keep](Access& a) { keep->FetchAvailable(a); });
  const AddressRange table{layout.descriptors, layout.size * kDescriptorBytes};
  setup.OnFetch(table, [keep, table](Access& a) { keep->FetchDescriptors(a, table); });
  setup.OnStore({state.used_index(), 2}, [keep](Access& a) { keep->StoreUsedIndex(a); });
  setup.OnStart([keep] {
    keep->offered = keep->completed = 0;
    keep->heads.clear();
    keep->writable = 0;
  });
  setup.Interesting(layout.descriptors);
  setup.Interesting(layout.size);
}

void SplitQueue::State::PutDescriptors(Guest& guest, uint64_t table, uint64_t first, uint64_t size,
                                       std::initializer_list<Buffer> buffers) const {
  uint64_t i = first;
  for (const Buffer& buffer : buffers) {
    const uint64_t descriptor = table + i * kDescriptorBytes;
    i = (i + 1) % size;
    const bool last = &buffer == buffers.end() - 1;
    guest.Put(descriptor + kAddress, buffer.gpa);
    guest.Put(descriptor + kLength, buffer.length);
    guest.Put(descriptor + kFlags, static_cast<uint16_t>((buffer.device_writes ? kWrite : 0) | (last ? 0 : kNext)));
    guest.Put(descriptor + kNextIndex, static_cast<uint16_t>(last ? 0 : i));
  }
}

void SplitQueue::State::Offer(Guest& guest, uint16_t head) {
  guest.Put(available_entry(offered), head);
  guest.Put(layout.available, uint16_t{0});
  guest.Put(used_event(), offered);  // tell about this one
  guest.Put(available_index(), ++offered);
}

void SplitQueue::Chain(Guest& guest, std::initializer_list<Buffer> buffers) const {
  State& state = *state_;
  const uint16_t head = state.offered % state.layout.size;
  state.PutDescriptors(guest, state.layout.descriptors, head, state.layout.size, buffers);
  state.Offer(guest, head);
}

void SplitQueue::IndirectChain(Guest& guest, uint64_t table, std::initializer_list<Buffer> buffers) const {
  State& state = *state_;
  const uint16_t head = state.offered % state.layout.size;
  state.PutDescriptors(guest, table, 0, buffers.size(), buffers);
  const uint64_t descriptor = state.layout.descriptors + head * kDescriptorBytes;
  guest.Put(descriptor + kAddress, table);
  guest.Put(descriptor + kLength, static_cast<uint32_t>(buffers.size() * kDescriptorBytes));
  guest.Put(descriptor + kFlags, uint16_t{kIndirect});
  guest.Put(descriptor + kNextIndex, uint16_t{0});
  state.Offer(guest, head);
}

}  // namespace guestmem::hostile
