// Real threads, production kernels, and judges that need no model: what each role does is bounded and follows from its
// seed; only the interleaving is the machine's. GUESTMEM_STRESS_ROUNDS sets the revocations a test makes (ci/stress.sh).
//
// Judges: after Revoke returned, nothing of the engine touches the page (it is poisoned or unmapped at once); no value from
// nowhere; no reader sees a writer's counter go back; no torn word; a compare-exchange loses no update.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "guestmem/access_bitmap.h"
#include "guestmem/guest_memory.h"
#include "guestmem/rcu.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"

namespace {

using namespace guestmem;

constexpr uint64_t kPages = 8;
constexpr uint64_t kPoison = 0xdddddddddddddddd;
constexpr uint64_t kTag = 0x5aa5;  // the top 16 bits of every word that a role wrote

uint64_t Rounds() {
  const char* text = std::getenv("GUESTMEM_STRESS_ROUNDS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20'000;
}

uint64_t Word(uint64_t count) { return kTag << 48 | (count & 0xffffff) << 24 | (count & 0xffffff); }
bool IsWord(uint64_t word) { return word >> 48 == kTag && (word >> 24 & 0xffffff) == (word & 0xffffff); }

uint64_t Random(uint64_t& state) {  // xorshift64 (Marsaglia 2003)
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

// RAM whose bits an AccessBitmap owns. Refusals are final; a fault of the mapping is one the bits should have prevented.
class Ram final : public GuestMemoryAccess {
 public:
  Ram() : pages(SparseMapping::Create(kPages * kPageSize).value()), bits(AccessBitmap::Create("ram", kPages, true).value()) {
    if (!pages->Allocate(0, kPages * kPageSize).ok()) {
      std::abort();
    }
    for (uint64_t i = 0; i < kPages * kPageSize / 8; ++i) {
      Store(i * 8, Word(0));
    }
  }
  std::byte* mapping() const override { return pages->mapping(); }
  uint64_t max_address() const override { return pages->max_address(); }
  std::optional<BitmapInfo> access_bitmap() const override { return bits->info(); }
  PageFaultAction PageFault(const PageFaultInfo& fault) override {
    EXPECT_FALSE(Rcu::InSection()) << "a handler runs outside sections";
    (fault.bitmap_failure ? refused : stale).fetch_add(1, std::memory_order_relaxed);
    return GuestMemoryAccess::PageFault(fault);
  }
  Status LockGpns(AccessType, std::span<const uint64_t> gpns) override { return bits->Lock(gpns); }
  void UnlockGpns(AccessType, std::span<const uint64_t> gpns) override { EXPECT_TRUE(bits->Unlock(gpns).ok()); }
  void Store(uint64_t offset, uint64_t word) {
    __atomic_store_n(reinterpret_cast<uint64_t*>(pages->mapping() + offset), word, __ATOMIC_RELAXED);
  }
  uint64_t Load(uint64_t offset) const {
    return __atomic_load_n(reinterpret_cast<uint64_t*>(pages->mapping() + offset), __ATOMIC_RELAXED);
  }

  const std::shared_ptr<SparseMapping> pages;
  const std::shared_ptr<AccessBitmap> bits;
  std::atomic<uint64_t> refused = 0;
  std::atomic<uint64_t> stale = 0;
};

struct Bench {
  std::shared_ptr<Ram> ram = std::make_shared<Ram>();
  GuestMemory memory = GuestMemory::Create("ram", ram).value();
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> poison_seen = 0, nonsense_seen = 0, went_back = 0, reads = 0, writes = 0, locked = 0;

  void Judge() {
    EXPECT_EQ(ram->stale, 0u) << "an access touched a page after its revocation had returned";
    EXPECT_EQ(poison_seen, 0u) << "a read returned bytes from after the revocation";
    EXPECT_EQ(nonsense_seen, 0u) << "a value from nowhere, or a torn one";
    EXPECT_EQ(went_back, 0u) << "a reader saw a word go back";
  }

  // Writes ever larger words to one offset of each page; then a burst over the page's second half.
  void Writer(uint64_t offset) {
    std::array<uint64_t, 64> burst;
    for (uint64_t count = 1; !stop.load(std::memory_order_relaxed); ++count) {
      const uint64_t page = count % kPages;
      writes += memory.WritePlain<uint64_t>(page * kPageSize + offset, Word(count)).ok();
      burst.fill(Word(count));
      writes += memory.WriteAt(page * kPageSize + 2048, std::as_bytes(std::span(burst))).ok();
    }
  }

  // Locks a page and uses its host memory directly: as long as it is locked nothing may take it away.
  void Locker(uint64_t seed) {
    std::array<uint64_t, kPageSize / 8> buffer;
    while (!stop.load(std::memory_order_relaxed)) {
      const std::array<uint64_t, 1> gpn = {Random(seed) % kPages};
      const Result<LockedPages> lock = memory.LockGpns(AccessType::kRead, false, gpn);
      if (!lock.ok()) {
        continue;  // revoked just now
      }
      for (int i = 0; i < 4; ++i) {
        EXPECT_TRUE(lock->spans()[0].CopyTo(std::as_writable_bytes(std::span(buffer))).ok());
        for (const uint64_t word : buffer) {
          poison_seen += word == kPoison;
          nonsense_seen += word != kPoison && !IsWord(word);
        }
      }
      ++locked;
    }
  }

  void Reader(uint64_t seed, uint64_t written_offset) {
    std::array<uint64_t, 320> buffer;
    std::array<uint64_t, kPages> last = {};
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t page = Random(seed) % kPages;
      if (const auto word = memory.ReadPlain<uint64_t>(page * kPageSize + written_offset); word.ok()) {
        poison_seen += *word == kPoison;
        nonsense_seen += *word != kPoison && !IsWord(*word);
        went_back += (*word & 0xffffff) < last[page] && last[page] - (*word & 0xffffff) < 0x800000;
        last[page] = *word & 0xffffff;
        ++reads;
      }
      const uint64_t start = page * kPageSize + Random(seed) % 192 * 8;
      if (memory.ReadAt(start, std::as_writable_bytes(std::span(buffer))).ok()) {
        for (const uint64_t word : buffer) {
          poison_seen += word == kPoison;
          nonsense_seen += word != kPoison && !IsWord(word);
        }
        ++reads;
      }
    }
  }
};

// False: the page is locked, and was left alone.
bool Revoke(Ram& ram, uint64_t page) {
  const Status status = ram.bits->Revoke({page, 1}, kAllAccess);
  EXPECT_TRUE(status.ok() || status.kind() == ErrorKind::kLocked) << status.ToString();
  return status.ok();
}

// Revokes a page, makes it unfit for use at once, looks whether anything touches it, puts it back.
void Flip(Bench& bench, uint64_t rounds, bool unmap) {
  Ram& ram = *bench.ram;
  uint64_t touched = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    const uint64_t page = round * 5 % kPages;
    while (!Revoke(ram, page)) {
      std::this_thread::yield();
    }
    if (unmap) {
      ASSERT_TRUE(ram.pages->Protect(page * kPageSize, kPageSize, SparseMapping::Protection::kNone).ok());
      ASSERT_TRUE(ram.pages->Protect(page * kPageSize, kPageSize, SparseMapping::Protection::kReadWrite).ok());
    } else {
      std::array<uint64_t, kPageSize / 8> kept;
      for (uint64_t i = 0; i < kept.size(); ++i) {
        kept[i] = ram.Load(page * kPageSize + i * 8);
        ram.Store(page * kPageSize + i * 8, kPoison);
      }
      for (uint64_t i = 0; i < kept.size(); ++i) {
        touched += ram.Load(page * kPageSize + i * 8) != kPoison;
        ram.Store(page * kPageSize + i * 8, kept[i]);
      }
    }
    ASSERT_TRUE(ram.bits->Grant({page, 1}, kAllAccess).ok());
  }
  EXPECT_EQ(touched, 0u) << "a write landed after the revocation had returned";
}

// A short test must not be over before the others have begun.
void AwaitNonZero(const std::atomic<uint64_t>& count) {
  while (count.load(std::memory_order_relaxed) == 0) {
    std::this_thread::yield();
  }
}

void RunAgainstAccesses(bool unmap) {
  Bench bench;
  std::vector<std::thread> threads;
  threads.emplace_back([&] { bench.Writer(64); });
  threads.emplace_back([&] { bench.Reader(1, 64); });
  threads.emplace_back([&] { bench.Reader(2, 64); });
  AwaitNonZero(bench.reads);
  AwaitNonZero(bench.writes);
  Flip(bench, Rounds(), unmap);
  bench.stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  bench.Judge();
  EXPECT_GT(bench.reads, 0u);
  EXPECT_GT(bench.writes, 0u);
}

TEST(Stress, NothingTouchesAPoisonedPageAfterRevoke) { RunAgainstAccesses(false); }
TEST(Stress, NothingTouchesAnUnmappedPageAfterRevoke) { RunAgainstAccesses(true); }

// Transfers that run from the last bytes of a page into a hole: those bytes are moved after the fault, by itself, and in
// the section that allowed them.
TEST(Stress, NothingTouchesAPageBelowAHoleAfterRevoke) {
  const auto ram = std::make_shared<Ram>();
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  constexpr uint64_t kEnd = 7 * kPageSize;  // of page 6
  ASSERT_TRUE(ram->pages->Protect(kEnd, kPageSize, SparseMapping::Protection::kNone).ok());
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> faults = 0;
  const auto write = [&](uint64_t seed) {
    std::array<std::byte, 100> bytes;
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t below = 1 + Random(seed) % 40;
      bytes.fill(std::byte(seed));
      const bool fill = seed % 3 == 0;
      const Status status = fill ? memory.FillAt(kEnd - below, static_cast<std::byte>(seed), bytes.size())
                                 : memory.WriteAt(kEnd - below, bytes);
      EXPECT_FALSE(status.ok());
      faults += status.kind() == ErrorKind::kNotMapped;
    }
  };
  std::thread first(write, 1), second(write, 2);
  AwaitNonZero(faults);
  uint64_t touched = 0;
  const uint64_t rounds = Rounds() / 20;  // a fault takes its time
  for (uint64_t round = 0; round < rounds; ++round) {
    ASSERT_TRUE(ram->bits->Revoke({6, 1}, kAllAccess).ok());
    for (uint64_t at = kEnd - 40; at < kEnd; at += 8) {
      ram->Store(at, kPoison);
    }
    for (int i = 0; i < 300; ++i) {
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    for (uint64_t at = kEnd - 40; at < kEnd; at += 8) {
      touched += ram->Load(at) != kPoison;
    }
    ASSERT_TRUE(ram->bits->Grant({6, 1}, kAllAccess).ok());
    const uint64_t before = faults.load();
    while (faults.load(std::memory_order_relaxed) == before) {
      std::this_thread::yield();
    }
  }
  stop = true;
  first.join();
  second.join();
  EXPECT_EQ(touched, 0u);
}

// Pages of a file go and come back under running transfers, with no revocation: a transfer ends where a page is missing, with
// all before it moved and nothing behind. The file's own mapping shows what reached the guest.
class VanishingPages {
 public:
  static constexpr uint64_t kHalf = kPages / 2 * kPageSize;

  VanishingPages() {
    for (uint64_t i = 0; i < kPages * kPageSize; ++i) {
      file_->mapping()[i] = std::byte(i * 37 + i / kPageSize);
    }
    Map(0, kPages);
  }
  void Map(uint64_t page, uint64_t count) {
    ASSERT_TRUE(pages_->MapFile(page * kPageSize, count * kPageSize, file_->fd(), page * kPageSize, true).ok());
  }
  void Vanish(uint64_t page) {
    ASSERT_TRUE(pages_->Unmap(page * kPageSize, kPageSize).ok());
    Map(page, 1);
  }
  // The bytes of both sides, host first, before and after one transfer.
  enum class Kind { kRead, kWrite, kFill };
  void Transfer(Kind kind, uint64_t gpa, std::span<std::byte> host) {
    const std::span<const std::byte> guest(file_->mapping() + gpa, host.size());
    const std::vector<std::byte> host_before(host.begin(), host.end()), guest_before(guest.begin(), guest.end());
    const Status status = kind == Kind::kRead    ? memory_.ReadAt(gpa, host)
                          : kind == Kind::kWrite ? memory_.WriteAt(gpa, host)
                                                 : memory_.FillAt(gpa, host[0], host.size());
    const uint64_t moved = status.ok() ? host.size() : status.info().transferred;
    faults += !status.ok();
    wrong += !status.ok() && (status.kind() != ErrorKind::kNotMapped || *status.info().fault_address != gpa + moved);
    const auto& from = kind == Kind::kRead ? guest_before : host_before;
    const auto& onto = kind == Kind::kRead ? host_before : guest_before;
    const std::span<const std::byte> now = kind == Kind::kRead ? std::span<const std::byte>(host) : guest;
    for (uint64_t i = 0; i < now.size(); ++i) {
      wrong += now[i] != (i >= moved ? onto[i] : kind == Kind::kFill ? host_before[0] : from[i]);
    }
    ++done;
  }

  std::atomic<uint64_t> faults = 0, done = 0, wrong = 0;

 private:
  const std::shared_ptr<SharedMemory> file_ = SharedMemory::Create(kPages * kPageSize).value();
  const std::shared_ptr<SparseMapping> pages_ = SparseMapping::Create(kPages * kPageSize).value();
  const GuestMemory memory_ = GuestMemory::Create("pages", pages_).value();
};

TEST(Stress, TransfersEndExactlyWherePagesVanish) {
  VanishingPages pages;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (uint64_t half = 0; half < 2; ++half) {  // reads of one half, writes and fills to the other
    threads.emplace_back([&, half, random = half + 1]() mutable {
      std::array<std::byte, 3 * kPageSize> buffer;
      while (!stop.load(std::memory_order_relaxed)) {
        const uint64_t length = Random(random) % buffer.size() + 1;
        const uint64_t gpa = half * VanishingPages::kHalf + Random(random) % (VanishingPages::kHalf - length);
        buffer.fill(std::byte(Random(random)));
        pages.Transfer(half == 0           ? VanishingPages::Kind::kRead
                       : random % 2 == 0 ? VanishingPages::Kind::kWrite
                                         : VanishingPages::Kind::kFill,
                       gpa, std::span(buffer).first(length));
      }
    });
  }
  for (uint64_t round = 0; round < Rounds() / 10 || pages.faults == 0 || pages.done == pages.faults; ++round) {
    pages.Vanish(round * 3 % kPages);
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(pages.wrong, 0u);
}

TEST(Stress, ALockedPageStaysUntilItIsUnlocked) {
  Bench bench;
  std::vector<std::thread> threads;
  threads.emplace_back([&] { bench.Writer(64); });
  threads.emplace_back([&] { bench.Locker(3); });
  threads.emplace_back([&] { bench.Locker(4); });
  AwaitNonZero(bench.locked);
  Flip(bench, Rounds() / 100, false);  // each waits for the lockers
  bench.stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  bench.Judge();
  EXPECT_GT(bench.locked, 0u);
}

TEST(Stress, CompareExchangeLosesNoUpdateWhileBitsFlip) {
  constexpr int kThreads = 3;
  const uint64_t each = Rounds() / 4;
  auto ram = std::make_shared<Ram>();
  const GuestMemory memory = GuestMemory::Create("ram", ram).value();
  ram->Store(0, 0);
  std::atomic<int> running = kThreads;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (uint64_t done = 0; done < each;) {
        const auto seen = memory.ReadPlain<uint64_t>(0);
        if (!seen.ok()) {
          continue;  // revoked just now
        }
        const auto result = memory.CompareExchange<uint64_t>(0, *seen, *seen + 1);
        done += result.ok() && result->swapped;
      }
      --running;
    });
  }
  while (running != 0) {
    ASSERT_TRUE(ram->bits->Revoke({0, 1}, kWriteAccess).ok());
    ASSERT_TRUE(ram->bits->Grant({0, 1}, kWriteAccess).ok());
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(ram->Load(0), kThreads * each);
  EXPECT_EQ(ram->stale, 0u);
}

TEST(Stress, NeighbouringBitsChangedAtOnceAreAllKept) {
  // Each thread owns one page's bits of one word; a non-atomic change by one would undo another's.
  auto ram = std::make_shared<Ram>();
  std::vector<std::thread> threads;
  std::atomic<uint64_t> lost = 0;
  for (uint64_t page = 0; page < 3; ++page) {
    threads.emplace_back([&, page] {
      for (uint64_t i = 0; i < Rounds() / 4; ++i) {
        lost += !ram->bits->Revoke({page, 1}, kReadAccess).ok() || ram->bits->IsAllowed(page, AccessType::kRead);
        lost += !ram->bits->Grant({page, 1}, kReadAccess).ok() || !ram->bits->IsAllowed(page, AccessType::kRead);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(lost, 0u);
}

}  // namespace
