#include "reference/vmm/guest.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "guestmem/detail/host_calls.h"
#include "guestmem/guest_memory.h"
#include "guestmem/in_process_guest.h"
#include "guestmem/lock.h"
#include "reference/setup.h"
#include "reference/vmm/guest_space.h"

namespace reference::vmm {
namespace {

using guestmem::AccessType;
using guestmem::Status;

constexpr char kName[] = "vm";

uint64_t g_calls_to_failure = 0;  // 0: none will
bool g_failed = false;

bool FailHostCall(guestmem::detail::HostCall call) {
  if (call == guestmem::detail::HostCall::kCountLocks) {
    return false;  // unit tests fail these
  }
  const bool now = g_calls_to_failure != 0 && --g_calls_to_failure == 0;
  g_failed |= now;
  return now;
}

// While it lives, the n-th host call fails.
class Failing {
 public:
  explicit Failing(uint64_t n) {
    g_calls_to_failure = n;
    g_failed = false;
    if (n != 0) {
      guestmem::detail::SetHostCallFilter(FailHostCall);
    }
  }
  ~Failing() { guestmem::detail::SetHostCallFilter(nullptr); }
};

// A file that all runs share, and its bytes.
struct File {
  explicit File(uint64_t number) : size(kFilePages[number] * kPageBytes), number(number) {
    fd = memfd_create("vmm file", MFD_CLOEXEC);
    Require(fd >= 0 && ftruncate(fd, static_cast<off_t>(kFileBytes[number])) == 0, "vmm: a file");
    void* const mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    Require(mapped != MAP_FAILED, "vmm: mmap of a file");
    bytes = static_cast<uint8_t*>(mapped);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    munmap(bytes, size);
    close(fd);
  }
  void Reset() const {
    for (uint64_t i = 0; i < size; ++i) {
      bytes[i] = i < kFileBytes[number] ? FileByte(number, i) : 0;
    }
  }
  const uint64_t size, number;
  int fd;
  uint8_t* bytes;
};

// Which of the low descriptors are open: more than a run can hold.
std::array<bool, 128> OpenFiles() {
  std::array<pollfd, 128> files;
  for (size_t i = 0; i < files.size(); ++i) {
    files[i] = {static_cast<int>(i), 0, 0};
  }
  Require(poll(files.data(), files.size(), 0) >= 0, "vmm: poll");
  std::array<bool, 128> open;
  for (size_t i = 0; i < files.size(); ++i) {
    open[i] = (files[i].revents & POLLNVAL) == 0;
  }
  return open;
}

class Guest final : public Machine {
 public:
  Guest() {
    const std::string path = "/proc/self/fd/" + std::to_string(files_[0].fd);
    read_only_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    Require(read_only_ >= 0, "vmm: opening a file again");
  }
  ~Guest() override { close(read_only_); }

  void Start(const World& world) override;
  Outcome Run(const Op& op, bool& host_call_failed) override;
  std::span<const uint8_t> Page(uint64_t page) override {
    return memory_.ReadAt(page * kPageBytes, std::as_writable_bytes(std::span(page_))).ok() ? std::span<const uint8_t>(page_)
                                                                                           : std::span<const uint8_t>();
  }
  bool IsWritable(uint64_t page) override { return memory_.ProbeWritable(page * kPageBytes, 1).ok(); }
  bool IsSignalled(uint64_t event) override {
    pollfd poll_for = {events_[event] ? events_[event]->fd() : -1, POLLIN, 0};
    return poll(&poll_for, 1, 0) == 1;
  }
  std::span<const uint8_t> SpaceBytes(uint64_t backing) override {
    return space_ ? space_->Bytes(backing) : std::span<const uint8_t>();
  }
  std::string End() override;

 private:
  void Carry(const Op& op);
  void Access(const Op& op);
  // What it accesses; null: a view that there is not.
  const guestmem::GuestMemory* MemoryOf(const Op& op) const;
  void Observe(const Status& status);
  template <typename T, typename U>
  void Keep(guestmem::Result<T> result, U& place) {
    Observe(result.status());
    if (result.ok()) {
      place = *std::move(result);
    }
  }
  template <typename T>
  void PlainAccess(const guestmem::GuestMemory& memory, const Op& op);

  std::array<File, kFiles> files_{File(0), File(1)};
  int read_only_;
  std::array<uint8_t, kPageBytes> page_;
  std::array<bool, 128> open_before_;
  bool guest_first_ = false;
  std::string creation_;  // what was wrong with it

  std::shared_ptr<guestmem::InProcessGuest> guest_;
  guestmem::GuestMemory memory_;
  struct Halves {
    std::unique_ptr<guestmem::MappableGuestMemory> guest;
    std::shared_ptr<guestmem::MappedMemoryRegion> region;
  };
  std::array<Halves, kSlots> regions_;
  std::array<std::shared_ptr<guestmem::RomMapper>, kSlots> roms_;
  std::array<std::unique_ptr<guestmem::RomMapping>, kSlots> parts_;
  std::array<std::unique_ptr<guestmem::Doorbell>, kSlots> bells_;
  std::array<std::optional<guestmem::Event>, kSlots> events_;
  std::array<std::optional<guestmem::LockedPages>, kSlots> locks_;
  World world_;
  std::optional<GuestSpace> space_;

  Outcome outcome_;
};

void Guest::Start(const World& world) {
  for (const File& file : files_) {
    file.Reset();
  }
  open_before_ = OpenFiles();
  guest_first_ = world.guest_first != 0;
  world_ = world;
  creation_.clear();
  const uint64_t size = world.pages * kPageBytes - (world.trim != 0 ? 100 : 0);
  {
    const Failing failing(world.fail);
    auto made = guestmem::InProcessGuest::Create(kName, size);
    if (made.ok() == g_failed || (g_failed && made.status().kind() != guestmem::ErrorKind::kResourceExhausted)) {
      creation_ = "creating the guest with a failing host call: " + made.status().ToString();
    }
  }
  guest_ = guestmem::InProcessGuest::Create(kName, size).value();
  memory_ = guestmem::GuestMemory::Create(kName, guest_).value();
}

Outcome Guest::Run(const Op& op, bool& host_call_failed) {
  outcome_ = Outcome();
  // What the op's result takes the place of goes before it begins.
  if (op.kind == OpKind::kNewRegion) {
    regions_[op[kSlot]].guest.reset();
    regions_[op[kSlot]].region.reset();
  } else if (op.kind == OpKind::kNewRom) {
    roms_[op[kSlot]].reset();
  } else if (op.kind == OpKind::kMapRom) {
    parts_[op[kOther]].reset();
  } else if (op.kind == OpKind::kRegister) {
    bells_[op[kSlot]].reset();
  } else if (op.kind == OpKind::kLock) {
    locks_[op[kSlot]].reset();
  }
  if (op.InSpace() && !space_) {
    space_.emplace(world_.lazy);
  }
  {
    const Failing failing(op[kFail]);
    Carry(op);
  }
  host_call_failed = g_failed;
  if (space_) {
    outcome_.told = space_->Told();
  }
  return outcome_;
}

// A Status as everything that SPEC says of it; the words of the cause that a caller may rely on are noted.
void Guest::Observe(const Status& status) {
  if (status.ok()) {
    return;
  }
  const guestmem::ErrorInfo& info = status.info();
  Error error{guestmem::Name(info.kind), guestmem::Name(info.operation), ""};
  if (info.range) {
    error.range = std::pair(info.range->start, info.range->length);
  }
  error.fault_address = info.fault_address;
  error.gpn = info.gpn;
  error.transferred = info.transferred;
  const std::string text = status.ToString();
  const std::string_view start = "guest memory '";
  if (text.starts_with(start)) {
    error.name = text.substr(start.size(), text.find('\'', start.size()) - start.size());
  }
  if (const size_t end = text.find("' is there"); end != text.npos) {
    const size_t begin = text.rfind('\'', end - 1) + 1;
    error.note = text.substr(begin, end - begin);
  } else if (text.find("read-only") != text.npos) {
    error.note = "read-only";
  }
  outcome_.error = std::move(error);
}

void Guest::Carry(const Op& op) {
  const uint64_t slot = op[kSlot], length = op[kLength];
  Halves& region = regions_[slot];
  auto& event = events_[slot];
  switch (op.kind) {
    case OpKind::kAddRam:
      Observe(guest_->AddRam(op.gpa(), length));
      break;
    case OpKind::kNewRegion: {
      auto made = guest_->NewRegion(length, "region" + std::to_string(slot));
      Observe(made.status());
      if (made.ok()) {
        region = {std::move(made->guest), std::move(made->region)};
      }
      break;
    }
    case OpKind::kRegionMap: {
      const int fds[] = {files_[0].fd, files_[1].fd, read_only_, -1};
      if (region.region) Observe(region.region->Map(op[kOffset], fds[op[kFile]], op[kFrom], length, op[kForm] == 0));
      break;
    }
    case OpKind::kRegionUnmap:
      if (region.region) Observe(region.region->Unmap(op[kOffset], length));
      break;
    case OpKind::kMapToGuest:
      if (region.guest) Observe(region.guest->MapToGuest(op.gpa(), op[kForm] % 2 == 0));
      break;
    case OpKind::kUnmapFromGuest:
      if (region.guest) Observe(region.guest->UnmapFromGuest());
      break;
    case OpKind::kDropGuestHalf:
      region.guest.reset();
      break;
    case OpKind::kDropRegionHalf:
      region.region.reset();
      break;
    case OpKind::kNewRom: {
      std::vector<uint8_t> image(std::min(length, kMaxPages * kPageBytes));
      for (uint64_t i = 0; i < image.size(); ++i) {
        image[i] = RomByte(slot, i);
      }
      Keep(guest_->NewRom(std::as_bytes(std::span(image)), "rom" + std::to_string(slot)), roms_[slot]);
      break;
    }
    case OpKind::kMapRom:
      if (roms_[slot]) {
        outcome_.number = roms_[slot]->length();
        Keep(roms_[slot]->MapRom(op.gpa(), op[kOffset], length), parts_[op[kOther]]);
      }
      break;
    case OpKind::kDropPart:
      parts_[slot].reset();
      break;
    case OpKind::kDropRom:
      roms_[slot].reset();
      break;
    case OpKind::kRegister:
      if (events_[op[kOther]]) {
        guestmem::DoorbellMatch match;
        if (op[kForm] % 2 == 0) {
          match.value = op[kValue];
        }
        if (op[kForm] < 2) {
          match.length = static_cast<guestmem::DoorbellLength>(op[kSize]);
        }
        Keep(guest_->RegisterDoorbell(op.gpa(), match, *events_[op[kOther]]), bells_[slot]);
      }
      break;
    case OpKind::kDropBell:
      bells_[slot].reset();
      break;
    case OpKind::kNewEvent:
      Keep(guestmem::Event::Create(), event);
      break;
    case OpKind::kCloneEvent:
      if (event) Keep(event->Clone(), event);
      break;
    case OpKind::kSignal:
      if (event && op[kForm] % 2 == 1) {
        guestmem::Event::FromFd(fcntl(event->fd(), F_DUPFD_CLOEXEC, 0)).Signal();
      } else if (event) {
        event->Signal();
      }
      break;
    case OpKind::kTake:
      if (event && op[kForm] % 2 == 1 && IsSignalled(slot)) {
        const Status status = event->Wait();
        Observe(status);
        outcome_.flag = status.ok();
      } else if (event) {
        Keep(event->TryWait(), outcome_.flag);
      }
      break;
    case OpKind::kLock: {
      const uint64_t gpns[] = {op[kPage], op[kPage] + 1};
      const AccessType access = op[kForm] % 2 == 0 ? AccessType::kRead : AccessType::kWrite;
      if (const auto* const memory = MemoryOf(op)) {
        Keep(memory->LockGpns(access, false, {gpns, op[kForm] < 2 ? size_t{1} : size_t{2}}), locks_[slot]);
      }
      break;
    }
    case OpKind::kUnlock:
      locks_[slot].reset();
      break;
    default:
      Observe(space_->Run(op));
      break;
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kCompareExchange:
    case OpKind::kProbe:
      Access(op);
      break;
  }
}

template <typename T>
void Guest::PlainAccess(const guestmem::GuestMemory& memory, const Op& op) {
  const T value = static_cast<T>(op[kValue]);
  if (op.kind == OpKind::kRead) {
    const auto read = memory.ReadPlain<T>(op.gpa());
    Observe(read.status());
    if (read.ok()) {
      std::memcpy(outcome_.data.data(), &read.value(), sizeof(T));
    }
  } else if (op.kind == OpKind::kWrite) {
    Observe(memory.WritePlain<T>(op.gpa(), value));
  } else {
    const auto exchanged = memory.CompareExchange<T>(op.gpa(), value, static_cast<T>(~value));
    Observe(exchanged.status());
    if (exchanged.ok()) {
      outcome_.number = exchanged->value;
      outcome_.flag = exchanged->swapped;
    }
  }
}

const guestmem::GuestMemory* Guest::MemoryOf(const Op& op) const {
  return op[kOther] == 0 ? &memory_ : space_->Memory(op[kOther] == 2);
}

void Guest::Access(const Op& op) {
  const uint64_t length = op[kSize];
  if (MemoryOf(op) == nullptr) {
    return;
  }
  const guestmem::GuestMemory& memory = *MemoryOf(op);
  if (op.kind == OpKind::kRead) {
    outcome_.data.assign(length, kUntouched);
  }
  if (op.kind == OpKind::kProbe) {
    const auto probes = {&guestmem::GuestMemory::ProbeReadable, &guestmem::GuestMemory::ProbeWritable,
                         &guestmem::GuestMemory::ProbeExecutable};
    Observe((memory.*probes.begin()[op[kForm] % 3])(op.gpa(), length));
    return;
  }
  const bool plain = op.kind == OpKind::kCompareExchange || (op.kind == OpKind::kRead ? op[kForm] % 2 == 1 : op[kForm] == 1);
  switch (plain ? length : 0) {
    case 1: return PlainAccess<uint8_t>(memory, op);
    case 2: return PlainAccess<uint16_t>(memory, op);
    case 4: return PlainAccess<uint32_t>(memory, op);
    case 8: return PlainAccess<uint64_t>(memory, op);
    default: break;
  }
  if (op.kind == OpKind::kRead) {
    Observe(memory.ReadAt(op.gpa(), std::as_writable_bytes(std::span(outcome_.data))));
  } else if (op.kind == OpKind::kWrite && op[kForm] >= 2) {
    Observe(memory.FillAt(op.gpa(), static_cast<std::byte>(op[kValue]), length));
  } else if (op.kind == OpKind::kWrite) {
    std::vector<uint8_t> bytes(length);
    for (uint64_t i = 0; i < length; ++i) {
      bytes[i] = static_cast<uint8_t>(op[kValue] >> (i % 8 * 8));
    }
    Observe(memory.WriteAt(op.gpa(), std::as_bytes(std::span(bytes))));
  }
}

std::string Guest::End() {
  if (guest_first_) {
    guest_.reset();
    memory_ = guestmem::GuestMemory();
  }
  locks_ = {};
  space_.reset();
  bells_ = {};
  parts_ = {};
  roms_ = {};
  regions_ = {};
  events_ = {};
  memory_ = guestmem::GuestMemory();
  const bool last = guest_ == nullptr || guest_.use_count() == 1;
  guest_.reset();
  if (!creation_.empty()) {
    return creation_;
  }
  if (!last) {
    return "something still holds the guest";
  }
  return OpenFiles() == open_before_ ? "" : "file descriptors leaked";
}

}  // namespace

std::unique_ptr<Machine> MakeGuest() { return std::make_unique<Guest>(); }

}  // namespace reference::vmm
