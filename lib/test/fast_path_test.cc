// What an access costs, in instructions rather than time: the CPU's trap flag stops before each one. An access that nothing refuses
// stays on its short path, makes no system call and no locked access, and limits speculation; the same on every machine.

#include <gtest/gtest.h>
#include <signal.h>
#include <ucontext.h>
#include <x86intrin.h>

#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/backing.h"
#include "guestmem/detail/host_side.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"

namespace guestmem {
namespace {

constexpr uint64_t kTrapFlag = 0x100;

struct Counts {
  int all = 0;
  int calls = 0;
  int conditional_moves = 0;
  int locked = 0;  // lock prefix, exchange with memory, fence
  int system_calls = 0;
};
Counts g_counts;  // for the handler

void CountInstruction(const uint8_t* code) {
  ++g_counts.all;
  bool locked = false;
  for (; *code == 0xf0 || *code == 0x66 || *code == 0xf2 || *code == 0xf3; ++code) {
    locked = locked || *code == 0xf0;
  }
  if ((*code & 0xf0) == 0x40) {
    ++code;  // REX
  }
  const bool of_memory = code[1] < 0xc0;
  const bool exchange = (*code == 0x86 || *code == 0x87) && of_memory;
  const bool fence = code[0] == 0x0f && code[1] == 0xae && code[2] >= 0xe8;
  g_counts.calls += *code == 0xe8 || (*code == 0xff && (code[1] >> 3 & 7) == 2);
  g_counts.locked += locked || exchange || fence;
  g_counts.conditional_moves += code[0] == 0x0f && (code[1] & 0xf0) == 0x40;
  g_counts.system_calls += code[0] == 0x0f && code[1] == 0x05;
}

void Step(int, siginfo_t*, void* context) {
  CountInstruction(reinterpret_cast<const uint8_t*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]));
}

// The instructions of one run of `operation`, with some thirty for the calls and the flag.
template <typename Operation>
Counts CountsOf(Operation operation) {
  struct sigaction action = {}, before = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = Step;
  sigaction(SIGTRAP, &action, &before);
  const auto call = [&]() __attribute__((noinline)) { operation(); };  // so that nothing of the caller's gets between
  call();  // a first access registers the thread, and lazily bound functions are looked up
  g_counts = {};
  __writeeflags(__readeflags() | kTrapFlag);
  call();
  __writeeflags(__readeflags() & ~kTrapFlag);
  sigaction(SIGTRAP, &before, nullptr);
  EXPECT_GT(g_counts.all, 5) << "the trap flag stops nothing here";
  return g_counts;
}

class Ram final : public GuestMemoryAccess {
 public:
  explicit Ram(bool bitmap) : pages_(SparseMapping::Create(kBytes).value()) {
    EXPECT_TRUE(pages_->Allocate(0, kBytes - kPageSize).ok());  // the last page is a hole
    if (bitmap) {
      bits_ = AccessBitmap::Create("ram", kBytes / kPageSize, true).value();
    }
  }
  std::byte* mapping() const override { return pages_->mapping(); }
  uint64_t max_address() const override { return kBytes; }
  std::optional<BitmapInfo> access_bitmap() const override {
    return bits_ == nullptr ? std::nullopt : std::optional(bits_->info());
  }

  static constexpr uint64_t kBytes = 16 * kPageSize;
  static constexpr uint64_t kHole = kBytes - kPageSize;

 private:
  std::shared_ptr<SparseMapping> pages_;
  std::shared_ptr<AccessBitmap> bits_;
};

struct Subject {
  std::string name;
  GuestMemory memory;
  uint64_t start;  // of the backing, in `memory`
  int more;        // instructions than the first region without a bitmap takes
};

// Every way from a handle to a byte.
std::vector<Subject> Subjects() {
  constexpr int kWithBitmap = 30, kLaterRegion = 22, kRegions = 64;
  std::vector<Subject> subjects;
  for (const bool bitmap : {false, true}) {
    const std::string with = bitmap ? " with bitmap" : "";
    const int more = bitmap ? kWithBitmap : 0;
    const auto ram = std::make_shared<Ram>(bitmap);
    GuestMemory one = GuestMemory::Create("one", ram).value();
    std::vector<std::shared_ptr<GuestMemoryAccess>> many(kRegions);
    many.back() = ram;
    subjects.push_back({"one region" + with, one, 0, more});
    subjects.push_back({"a view" + with, one.Subrange(kPageSize, Ram::kBytes - kPageSize).value(), uint64_t{0} - kPageSize, more});
    subjects.push_back({"the last of many regions" + with, GuestMemory::CreateMultiRegion("many", Ram::kBytes, many).value(),
                        Ram::kBytes * (kRegions - 1), more + kLaterRegion});
  }
  return subjects;
}

// Why counts say nothing here; null where they do.
const char* WhyNot() {
#if !defined(__OPTIMIZE__)
  return "not optimized: what is inline elsewhere is called";
#elif defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
  return "a sanitizer's instructions are not the library's";
#else
  return nullptr;
#endif
}

struct Access {
  const char* name;
  int most;     // instructions in the first region without a bitmap: some more than clang 19 and gcc 12 make of it at -O2
  int calls;    // of functions out of line
  int locked;   // how many of them are
  void (*run)(const GuestMemory& memory, uint64_t address);
};

std::array<std::byte, 64> g_buffer;
template <typename T>
void Use(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

constexpr int kPlain = 58, kKernel = 85;
constexpr Access kAccesses[] = {
    {"read of 1", kPlain, 0, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.ReadPlain<uint8_t>(address)); }},
    {"read of 2", kPlain, 0, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.ReadPlain<uint16_t>(address)); }},
    {"read of 4", kPlain, 0, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.ReadPlain<uint32_t>(address)); }},
    {"read of 8", kPlain, 0, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.ReadPlain<uint64_t>(address)); }},
    {"write of 1", kPlain, 0, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.WritePlain<uint8_t>(address, 1)); }},
    {"write of 8", kPlain, 0, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.WritePlain<uint64_t>(address, 1)); }},
    {"compare-exchange of 1", kPlain + 10, 0, 1,
     [](const GuestMemory& memory, uint64_t address) { Use(memory.CompareExchange<uint8_t>(address, 1, 2)); }},
    {"compare-exchange of 8", kPlain + 10, 0, 1,
     [](const GuestMemory& memory, uint64_t address) { Use(memory.CompareExchange<uint64_t>(address, 1, 2)); }},
    {"bulk read of 64", kKernel, 1, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.ReadAt(address, g_buffer)); }},
    {"bulk write of 64", kKernel, 1, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.WriteAt(address, g_buffer)); }},
    {"fill of 64", kKernel, 1, 0, [](const GuestMemory& memory, uint64_t address) { Use(memory.FillAt(address, std::byte{7}, 64)); }},
};

TEST(FastPath, AnAccessThatNothingRefusesTakesFewInstructionsNoneOfThemLockedOrASystemCall) {
  if (const char* why = WhyNot()) {
    GTEST_SKIP() << why;
  }
  for (const Subject& subject : Subjects()) {
    for (const Access& access : kAccesses) {
      SCOPED_TRACE(std::string(access.name) + ", " + subject.name);
      const Counts counts = CountsOf([&] { access.run(subject.memory, subject.start + 2 * kPageSize); });
      EXPECT_LE(counts.all, access.most + subject.more);
      EXPECT_LE(counts.calls, access.calls + 2) << "two are the test's own";
      EXPECT_EQ(counts.locked, access.locked);
      EXPECT_EQ(counts.system_calls, 0);
      // Both halves of EndsBelow: what a mispredicted branch runs ahead with is not the guest's address.
      EXPECT_GE(counts.conditional_moves, GUESTMEM_MASK_SPECULATION ? 2 : 0);
      const Counts refused = CountsOf([&] { access.run(subject.memory, subject.start + Ram::kHole); });
      EXPECT_GT(refused.all, 2 * (access.most + subject.more)) << "the bound is no bound";
    }
  }
}

TEST(FastPath, ATryCallTakesNoMoreInstructionsThanAFewBesideItsAccess) {
  if (const char* why = WhyNot()) {
    GTEST_SKIP() << why;
  }
  const Ram ram(false);
  std::byte* const guest = ram.mapping();
  constexpr int kTry = 45;
  uint64_t value = 1;
  bool swapped = false;
  EXPECT_LE(CountsOf([&] { Use(TryRead(guest, value)); }).all, kTry);
  EXPECT_LE(CountsOf([&] { Use(TryWrite(guest, value)); }).all, kTry);
  EXPECT_LE(CountsOf([&] { Use(TryCompareExchange(guest, value, uint64_t{2}, swapped)); }).all, kTry + 5);
  EXPECT_LE(CountsOf([&] { Use(TryCopy(GuestSide::kSource, g_buffer.data(), guest, g_buffer.size())); }).all, kKernel);
  EXPECT_LE(CountsOf([&] { Use(TryFill(guest, std::byte{1}, g_buffer.size())); }).all, kKernel);
}

// What a processor that runs ahead of the comparison gets for an address.
TEST(FastPath, AnAddressOutOfBoundsBecomesZero) {
  if (!GUESTMEM_MASK_SPECULATION) {
    GTEST_SKIP() << "this build leaves out the mask";
  }
  const uint64_t limits[] = {0, 1, 2, 4096, uint64_t{1} << 62, ~uint64_t{0}};
  for (const uint64_t limit : limits) {
    for (const uint64_t base : limits) {
      for (uint64_t value = base - 2; value != base + 3; ++value) {
        uint64_t index = value;
        EXPECT_EQ(detail::Below(limit, index), value < limit);
        EXPECT_EQ(index, value < limit ? value : 0);
        for (const uint64_t length : {0, 1, 8, 4096}) {
          uint64_t offset = value;
          const bool inside = length < limit && value < limit - length;
          EXPECT_EQ(detail::EndsBelow(limit, offset, length), inside);
          EXPECT_EQ(offset, inside ? value : 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace guestmem
