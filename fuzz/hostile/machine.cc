#include "machine.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
// ASan's, where the program has it.
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* start, size_t size);
// Of the library without schedule points: a program that mixes the two does not link.
extern const char guestmem_production_build;
}

namespace guestmem::hostile {

const GuestMemory& Run::memory() const { return machine_.memory(); }
void Run::CallOut(std::string_view name, std::span<const std::byte> data) { machine_.CallOut(name, data); }
void Guest::PutBytes(uint64_t gpa, std::span<const std::byte> bytes) { machine_.Put(gpa, bytes); }
bool Access::FirstBytes(uint64_t gpa, std::span<std::byte> bytes) const { return machine_.FirstBytes(gpa, bytes); }
void Access::NowBytes(uint64_t gpa, std::span<std::byte> bytes) const { machine_.NowBytes(gpa, bytes); }
bool Access::Points(uint64_t source, AddressRange target) { return machine_.AddPointer(source, target); }
bool Access::IsNamed(AddressRange range) const { return machine_.IsNamed(range); }
void Access::MayStore(AddressRange range) { machine_.AllowStore(range); }
void Access::OnFetch(AddressRange range, std::function<void(Access&)> hook) { machine_.AddHook(range, std::move(hook)); }
bool Access::MayStoreInto(AddressRange range) const { return machine_.MayStoreInto(range); }
void Access::Forbid(std::string_view why) { machine_.Found(detail::VerdictKind::kForbidden, why); }

namespace detail {
namespace {

[[noreturn]] void BadDescription(const char* what) {
  std::fprintf(stderr, "guestmem/hostile: %s\n", what);
  std::abort();
}

}  // namespace

const char* Name(VerdictKind kind) {
  switch (kind) {
    case VerdictKind::kNone: return "none";
    case VerdictKind::kDoubleFetch: return "double fetch";
    case VerdictKind::kStoreOutside: return "store outside";
    case VerdictKind::kForbidden: return "forbidden";
    case VerdictKind::kUseAfterUnlock: return "use after unlock";
    case VerdictKind::kReadLock: return "store through a lock for reading";
    case VerdictKind::kAccesses: return "accesses";
    case VerdictKind::kWork: return "work";
    case VerdictKind::kMemory: return "memory";
    case VerdictKind::kSpins: return "spinning";
    case VerdictKind::kCrash: return "crash";
    case VerdictKind::kHang: return "hang";
  }
  return "?";
}

const char* Name(EventKind kind) {
  switch (kind) {
    case EventKind::kFetch: return "fetch";
    case EventKind::kStore: return "store";
    case EventKind::kExchange: return "compare-exchange";
    case EventKind::kRawFetch: return "locked fetch";
    case EventKind::kRawStore: return "locked store";
    case EventKind::kLockedStore: return "stored under the lock";
    case EventKind::kLock: return "lock";
    case EventKind::kUnlock: return "unlock";
    case EventKind::kCallOut: return "call out";
    case EventKind::kChange: return "the guest writes";
  }
  return "?";
}

// All bits are clear: each access asks PageFault, which answers Fallback, and so arrives here as it was made.
class Machine::Backing final : public GuestMemoryAccess {
 public:
  explicit Backing(Machine& machine) : machine_(machine) {}

  std::byte* mapping() const override { return machine_.front(); }
  uint64_t max_address() const override { return machine_.size(); }
  std::optional<BitmapInfo> access_bitmap() const override {
    return BitmapInfo{machine_.bits(AccessType::kRead), machine_.bits(AccessType::kWrite), machine_.bits(AccessType::kRead), 0};
  }
  PageFaultAction PageFault(const PageFaultInfo& fault) override { return machine_.Fault(fault); }
  Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
    return machine_.Fetch(address, destination);
  }
  Status WriteFallback(uint64_t address, std::span<const std::byte> source) override { return machine_.Store(address, source); }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return machine_.Fill(address, value, length);
  }
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                       std::span<const std::byte> desired) override {
    return machine_.Exchange(address, current, desired);
  }
  bool supports_locking() const override { return true; }
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override { return machine_.Lock(access, gpns); }
  void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override { machine_.Unlock(access, gpns); }

 private:
  Machine& machine_;
};

Machine::Machine(const std::function<void(Setup&)>& describe, Shared& shared) : shared_(shared) {
  if (guestmem_production_build != 1) {
    BadDescription("linked with another build of guestmem");
  }
  describe(setup_);
  Describe();
  const int fd = memfd_create("hostile guest", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(size_)) != 0) {
    BadDescription("no memory for the guest");
  }
  const auto map = [&](int protection) { return static_cast<std::byte*>(mmap(nullptr, size_, protection, MAP_SHARED, fd, 0)); };
  front_ = map(PROT_NONE);
  bytes_ = map(PROT_READ | PROT_WRITE);
  close(fd);
  if (front_ == MAP_FAILED || bytes_ == MAP_FAILED) {
    BadDescription("no memory for the guest");
  }
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(front_, size_);
  }
  const uint64_t pages = size_ / kPageSize;
  read_bits_.resize((pages + 7) / 8);
  write_bits_.resize((pages + 7) / 8);
  known_.resize(size_ / kWordBytes / 64);
  touched_.resize(pages);
  stamps_.resize(size_);
  first_.resize(size_);
  snapshot_.resize(size_);
  locked_.resize(pages);
  auto memory = GuestMemory::Create("hostile", std::make_shared<Backing>(*this));
  if (!memory.ok()) {
    BadDescription(memory.status().ToString().c_str());
  }
  memory_ = *std::move(memory);
  // What runs add to, so that a run allocates nothing.
  allowed_.reserve(256);
  pointers_.reserve(256);
  hooks_.reserve(64);
  g_watch.machine = this;
}

Machine::~Machine() {
  g_watch = {};
  memory_ = {};
  munmap(front_, size_);
  munmap(bytes_, size_);
}

void Machine::Describe() {
  const Options& options = setup_.options;
  size_ = options.memory_size;
  if (size_ == 0 || size_ % kPageSize != 0 || size_ > 16 << 20) {
    BadDescription("Options::memory_size must be whole pages, up to 16 MiB");
  }
  if (options.requests == 0 || options.requests > kMaxRequests) {
    BadDescription("Options::requests must be 1 to 16");
  }
  if (setup_.examples_.empty() || setup_.examples_.size() > UINT8_MAX || !setup_.build_) {
    BadDescription("a description needs examples and a device");
  }
  for (const Setup::NamedExample& example : setup_.examples_) {
    example_names_.push_back(example.name);
  }
  interesting_ = setup_.interesting_;
  for (const auto* ranges : {&setup_.fixed_, &setup_.polled_, &setup_.may_store_}) {
    for (const AddressRange& range : *ranges) {
      interesting_.push_back(range.start);
    }
  }
}

void Machine::Found(VerdictKind kind, std::string_view why) {
  if (shared_.verdict != VerdictKind::kNone) {
    return;
  }
  shared_.verdict = kind;
  shared_.verdict_event = shared_.event_count;
  const size_t length = std::min(why.size(), shared_.why.size() - 1);
  std::copy_n(why.begin(), length, shared_.why.begin());
  shared_.why[length] = '\0';
  if (kind != VerdictKind::kDoubleFetch) {  // which has its stacks already
    shared_.frames[1] = CaptureStack(shared_.stacks[1]);
  }
  stopped_ = true;
}

void Machine::Stop(VerdictKind kind, std::string_view why) {
  Found(kind, why);
  if (on_stop_) {
    on_stop_();
  }
  std::fprintf(stderr, "guestmem/hostile: %s: %s\n", Name(shared_.verdict), shared_.why.data());
  std::abort();
}

}  // namespace detail
}  // namespace guestmem::hostile
