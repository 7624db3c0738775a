// What the fault handler must not swallow: crashes of the host's own stay crashes, where they happened, with whatever
// report the build gives them. Each claim is a child process that must die of it.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "child.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/sparse_mapping.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::Hole;
using test::kPage;
using test::Pages;
using test::RunMode;
using test::Say;

// Installs, and shows that what is ours is still recovered.
void Prepare() {
  CHILD_CHECK(InstallFaultHandler().ok());
  const Pages pages(1, 1, Hole::kInaccessible);
  uint64_t value = 0;
  CHILD_CHECK(TryRead(pages.hole(), value).has_value());
  CHILD_CHECK(RecoveredFaults() == 1);
}

// The access about to be made is the one that must kill. `volatile` so that the compiler keeps it.
void Store(std::byte* address) {
  Say("now:");
  *const_cast<volatile std::byte*>(address) = std::byte{1};
  Say("survived");
}

void StoreToInaccessiblePage() {
  Prepare();
  const Pages pages(1, 1, Hole::kInaccessible);
  Store(pages.hole() + 8);
}

void StoreToReadOnlyPage() {
  Prepare();
  const Pages pages(1, 1, Hole::kReadOnly);
  Store(pages.hole() + 8);
}

void StoreBehindTheEndOfAFile() {
  Prepare();
  const Pages pages(1, 1, Hole::kTruncated);
  Store(pages.hole() + 8);
}

void StoreToUnmappedAddress() {
  Prepare();
  // Page 0 is never mapped: no run-time library puts anything there.
  std::byte* volatile nowhere = reinterpret_cast<std::byte*>(uintptr_t{64});
  Store(nowhere);
}

void StoreToNonCanonicalAddress() {
  Prepare();
  std::byte* volatile nowhere = reinterpret_cast<std::byte*>(uintptr_t{1} << 62);
  Say("now:");
  // Not through instrumented code: AddressSanitizer's own look-up would be what faults.
  asm volatile("movb $1, (%0)" : : "r"(nowhere) : "memory");
  Say("survived");
}

void LoadInsideTheGuestRangeByOrdinaryCode() {
  Prepare();
  auto ram = SparseMapping::Create(kPage).value();
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  CHILD_CHECK(memory.ReadPlain<uint32_t>(0).status().kind() == ErrorKind::kNotMapped);
  Say("now:");
  (void)*static_cast<const volatile std::byte*>(ram->mapping());
  Say("survived");
}

void JumpToInaccessiblePage() {
  Prepare();
  const Pages pages(1, 1, Hole::kInaccessible);
  Say("now:");
  asm volatile("jmp *%0" : : "r"(pages.hole()));
  Say("survived");
}

// One store with a table entry whose flags are `Flags`; true: it was recovered.
#define STORE_WITH_ENTRY(instruction, flags)                                                                   \
  asm volatile goto(                                                                                           \
      "771: " instruction                                                                                      \
      "\n772:\n .pushsection guestmem_traps,\"aR?\",@progbits\n .balign 4\n .long 771b - .\n .long 772b - .\n" \
      " .long %l[fault] - .\n .long " flags "\n .popsection"                                                   \
      :                                                                                                        \
      : "D"(guest), "S"(other)                                                                                 \
      : "rax", "rdx", "memory"                                                                                 \
      : fault)

bool StoreSaidToBeAStore(std::byte* guest, std::byte* other) {
  STORE_WITH_ENTRY("movb %%al, (%%rdi)", "0x102");
  return false;
fault:
  return true;
}

bool StoreSaidToBeALoad(std::byte* guest, std::byte* other) {
  STORE_WITH_ENTRY("movb %%al, (%%rdi)", "0x101");
  return false;
fault:
  return true;
}

bool StoreBesideTheGuestRange(std::byte* guest, std::byte* other) {
  STORE_WITH_ENTRY("movb %%al, (%%rsi)", "0x102");
  return false;
fault:
  return true;
}

void FaultWithTheWrongDirection() {
  Prepare();
  const Pages pages(1, 1, Hole::kInaccessible);
  CHILD_CHECK(StoreSaidToBeAStore(pages.hole(), pages.hole()));  // else this test says nothing
  Say("now:");
  if (!StoreSaidToBeALoad(pages.hole(), pages.hole())) {
    return;
  }
  Say("survived");
}

void FaultBesideTheGuestRange() {
  Prepare();
  const Pages pages(1, 1, Hole::kInaccessible);
  CHILD_CHECK(StoreBesideTheGuestRange(pages.hole(), pages.hole()));
  Say("now:");
  StoreBesideTheGuestRange(pages.begin(), pages.hole());
  Say("survived");
}

GuestMemory Ram(uint64_t size) { return GuestMemory::Allocate(size).value(); }

// The host buffer is good for `good` bytes of `length`, then faults.
void HostBufferFault(size_t good, size_t length, Hole hole, bool read) {
  const GuestMemory memory = Ram(8 * kPage);
  Prepare();
  const Pages pages(4, 4, hole);
  Say("now:");
  const std::span<std::byte> buffer(pages.hole() - good, length);
  const Status status = read ? memory.ReadAt(16, buffer) : memory.WriteAt(16, buffer);
  Say("survived: ");
  Say(status.ToString().c_str());
}

void ReadIntoInaccessibleBuffer() { HostBufferFault(0, 64, Hole::kInaccessible, true); }
void ReadIntoBufferThatEndsInAHole() { HostBufferFault(3 * kPage + 100, 4 * kPage, Hole::kInaccessible, true); }
void ReadIntoReadOnlyBuffer() { HostBufferFault(5, 11, Hole::kReadOnly, true); }
void ReadIntoTruncatedBuffer() { HostBufferFault(100, 300, Hole::kTruncated, true); }
void WriteFromInaccessibleBuffer() { HostBufferFault(0, 64, Hole::kInaccessible, false); }
void WriteFromBufferThatEndsInAHole() { HostBufferFault(3 * kPage + 100, 4 * kPage, Hole::kInaccessible, false); }
void WriteFromTruncatedBuffer() { HostBufferFault(100, 300, Hole::kTruncated, false); }

// The guest is read up to its own hole; the host buffer's comes first.
void HostHoleBeforeGuestHole() {
  auto ram = SparseMapping::Create(4 * kPage).value();
  CHILD_CHECK(ram->Allocate(0, 2 * kPage).ok());
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  Prepare();
  const Pages pages(1, 3, Hole::kInaccessible);
  Say("now:");
  const Status status = memory.ReadAt(0, {pages.hole() - 100, 3 * kPage});
  Say("survived: ");
  Say(status.ToString().c_str());
}

template <bool Read>
void SpanLongerThanItsHeapBuffer() {
  const GuestMemory memory = Ram(kPage);
  const auto buffer = std::make_unique<std::byte[]>(64);
  Say("now:");
  const std::span<std::byte> wrong(buffer.get(), 65);
  (void)(Read ? memory.ReadAt(0, wrong) : memory.WriteAt(0, wrong));
  Say("survived");
}

struct Crash {
  const char* mode;
  int signal;
};
void PrintTo(const Crash& crash, std::ostream* out) { *out << crash.mode; }

class WildCrash : public testing::TestWithParam<Crash> {};

TEST_P(WildCrash, DiesWhereItHappened) {
  const test::ChildResult child = RunMode(GetParam().mode);
  EXPECT_TRUE(test::Crashed(child, GetParam().signal));
#if defined(GUESTMEM_ASAN)
  if (std::strncmp(GetParam().mode, "StoreTo", 7) == 0 && std::strstr(GetParam().mode, "NonCanonical") == nullptr) {
    EXPECT_TRUE(child.Says("caused by a WRITE memory access")) << child;  // the access's own context, not a later one's
  }
#endif
}

#define MODE(function) \
  { #function, function }
#define CRASH(function, signal) \
  Crash { #function, signal }

INSTANTIATE_TEST_SUITE_P(
    OfTheHost, WildCrash,
    testing::Values(CRASH(StoreToInaccessiblePage, SIGSEGV), CRASH(StoreToReadOnlyPage, SIGSEGV),
                    CRASH(StoreBehindTheEndOfAFile, SIGBUS), CRASH(StoreToUnmappedAddress, SIGSEGV),
                    CRASH(StoreToNonCanonicalAddress, SIGSEGV), CRASH(LoadInsideTheGuestRangeByOrdinaryCode, SIGSEGV),
                    CRASH(JumpToInaccessiblePage, SIGSEGV), CRASH(FaultWithTheWrongDirection, SIGSEGV),
                    CRASH(FaultBesideTheGuestRange, SIGSEGV)),
    [](const auto& test) { return std::string(test.param.mode); });

INSTANTIATE_TEST_SUITE_P(
    D21_OfTheHostBuffer, WildCrash,
    testing::Values(CRASH(ReadIntoInaccessibleBuffer, SIGSEGV), CRASH(ReadIntoBufferThatEndsInAHole, SIGSEGV),
                    CRASH(ReadIntoReadOnlyBuffer, SIGSEGV), CRASH(ReadIntoTruncatedBuffer, SIGBUS),
                    CRASH(WriteFromInaccessibleBuffer, SIGSEGV), CRASH(WriteFromBufferThatEndsInAHole, SIGSEGV),
                    CRASH(WriteFromTruncatedBuffer, SIGBUS), CRASH(HostHoleBeforeGuestHole, SIGSEGV)),
    [](const auto& test) { return std::string(test.param.mode); });

#if defined(GUESTMEM_ASAN)
TEST(WildCrashUnderAddressSanitizer, ASpanLongerThanItsHeapBufferIsAHeapBufferOverflow) {
  for (const char* mode : {"SpanLongerThanItsHeapBuffer<true>", "SpanLongerThanItsHeapBuffer<false>"}) {
    const test::ChildResult child = RunMode(mode);
    EXPECT_FALSE(child.Exited(0)) << child;
    EXPECT_TRUE(child.Says("now:") && child.Says("AddressSanitizer: heap-buffer-overflow")) << child;
    EXPECT_FALSE(child.Says("survived")) << child;
  }
}
#else
TEST(WildCrashUnderAddressSanitizer, ASpanLongerThanItsHeapBufferIsAHeapBufferOverflow) {
  GTEST_SKIP() << "nothing but AddressSanitizer can see it: build with -DGUESTMEM_SANITIZE=address";
}
#endif

TEST(WildCrashControl, AChildWithoutACrashSurvives) {  // or the others prove nothing
  const test::ChildResult child = RunMode("Prepare");
  EXPECT_TRUE(child.Exited(0)) << child;
}

}  // namespace
}  // namespace guestmem

int main(int argc, char** argv) {
  using namespace guestmem;
  return test::TestMain(argc, argv,
                        {MODE(Prepare),
                         MODE(StoreToInaccessiblePage),
                         MODE(StoreToReadOnlyPage),
                         MODE(StoreBehindTheEndOfAFile),
                         MODE(StoreToUnmappedAddress),
                         MODE(StoreToNonCanonicalAddress),
                         MODE(LoadInsideTheGuestRangeByOrdinaryCode),
                         MODE(JumpToInaccessiblePage),
                         MODE(FaultWithTheWrongDirection),
                         MODE(FaultBesideTheGuestRange),
                         MODE(ReadIntoInaccessibleBuffer),
                         MODE(ReadIntoBufferThatEndsInAHole),
                         MODE(ReadIntoReadOnlyBuffer),
                         MODE(ReadIntoTruncatedBuffer),
                         MODE(WriteFromInaccessibleBuffer),
                         MODE(WriteFromBufferThatEndsInAHole),
                         MODE(WriteFromTruncatedBuffer),
                         MODE(HostHoleBeforeGuestHole),
                         MODE(SpanLongerThanItsHeapBuffer<true>),
                         MODE(SpanLongerThanItsHeapBuffer<false>)});
}
