// Every schedule, with up to two preemptions, of one access to an address space against one change of its layout: two neighbouring
// slots are replaced in one step, and what was removed is poisoned as soon as the change has returned. Judged by what may never be
// seen: poison, half a change, a store into what is gone, a locked slot that goes, a deadlock.

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "guestmem/address_space.h"
#include "guestmem/detail/schedule.h"
#include "guestmem/heap_memory.h"
#include "reference/schedule/scheduler.h"

namespace reference::schedule {
namespace {

using guestmem::kPageSize;

constexpr uint64_t kOld = 0x1111111111111111, kNew = 0x2222222222222222, kPoisoned = 0xdddddddddddddddd, kWritten = 0x7777777777777777;
constexpr uint64_t kLeft = kPageSize, kRight = 2 * kPageSize;

struct Ram {
  const std::shared_ptr<guestmem::AlignedHeapMemory> memory = guestmem::AlignedHeapMemory::Create(kPageSize).value();
  void Fill(uint64_t word) const { std::memset(memory->mapping(), static_cast<int>(word & 0xff), kPageSize); }
  bool IsAll(uint64_t word) const {
    for (uint64_t i = 0; i < kPageSize; ++i) {
      if (memory->mapping()[i] != static_cast<std::byte>(word & 0xff)) return false;
    }
    return true;
  }
};

// One run. `wrong` is what a judge says.
struct World {
  using Access = std::function<void(World&)>;

  explicit World(const Access& access) : access(access) {
    for (const Ram& ram : before) ram.Fill(kOld);
    for (const Ram& ram : after) ram.Fill(kNew);
    Must(space->Change({Slot(kLeft, before[0]), Slot(kRight, before[1])}));
    view = memory.Subrange(kLeft, kPageSize).value();
  }
  static guestmem::SlotChange Slot(uint64_t gpa, const Ram& ram) {
    return guestmem::SlotChange::Add({.gpa = gpa, .size = kPageSize, .backing = ram.memory});
  }
  void Must(const guestmem::Status& status) {
    if (!status.ok()) Wrong(status.ToString());
  }
  void Wrong(std::string what) {
    if (wrong.empty()) wrong = std::move(what);
  }
  // What a read may give: all of it old, or all of it new.
  void Saw(std::span<const uint64_t> words) {
    for (const uint64_t word : words) {
      if ((word != kOld && word != kNew) || word != words[0]) Wrong("a read saw " + std::to_string(word) + " after " + std::to_string(words[0]));
    }
  }
  void Change() {
    const auto status = space->Change({guestmem::SlotChange::Remove(kLeft), Slot(kLeft, after[0]),
                                       guestmem::SlotChange::Remove(kRight), Slot(kRight, after[1])});
    if (status.ok()) {
      changed = true;
      if (pinned) Wrong("a locked slot was removed");
      for (const Ram& ram : before) ram.Fill(kPoisoned);
    } else if (status.kind() != guestmem::ErrorKind::kLocked) {
      Wrong(status.ToString());
    }
  }

  const Access& access;
  std::array<Ram, 2> before, after;
  const std::unique_ptr<guestmem::AddressSpace> space = guestmem::AddressSpace::Create("schedule").value();
  const guestmem::GuestMemory memory = space->memory();
  guestmem::GuestMemory view;
  bool changed = false, pinned = false;
  std::string wrong;
};

std::span<std::byte> BytesOf(std::span<uint64_t> words) { return std::as_writable_bytes(words); }

void PlainRead(World& w) {
  const auto word = w.memory.ReadPlain<uint64_t>(kLeft + 8);
  w.Must(word.status());
  w.Saw(std::array{*word});
}
void PlainWrite(World& w) { w.Must(w.memory.WritePlain<uint64_t>(kLeft + 8, kWritten)); }
void Exchange(World& w) {
  const auto seen = w.memory.CompareExchange<uint64_t>(kRight, kOld, kWritten);
  w.Must(seen.status());
  w.Saw(std::array{seen->value});
}
void ReadAcross(World& w) {
  std::array<uint64_t, 4> words{};
  w.Must(w.memory.ReadAt(kRight - 16, BytesOf(words)));
  w.Saw(words);
}
void WriteAcross(World& w) {
  std::array<uint64_t, 4> words;
  words.fill(kWritten);
  w.Must(w.memory.WriteAt(kRight - 16, BytesOf(words)));
  // All of it is in one of the two.
  const bool left = !w.after[0].IsAll(kNew), right = !w.after[1].IsAll(kNew);
  if (left != right) w.Wrong("a write went half here, half there");
}
void ReadTheView(World& w) {
  std::array<uint64_t, 2> words{};
  const auto status = w.view.ReadAt(8, BytesOf(words));
  if (status.ok() ? words != std::array{kOld, kOld} : status.kind() != guestmem::ErrorKind::kOutOfRange) {
    w.Wrong("a view showed something else than its slot: " + status.ToString());
  }
}
void LockAndTouch(World& w) {
  const auto locked = w.memory.LockGpns(guestmem::AccessType::kWrite, true, std::array{kLeft / kPageSize, kRight / kPageSize});
  w.Must(locked.status());
  w.pinned = !w.changed;
  std::array<uint64_t, 2> words{};
  w.Must(locked->spans()[0].CopyTo(BytesOf(std::span(words).first(1))));
  w.Must(locked->spans()[1].CopyTo(BytesOf(std::span(words).last(1))));
  w.Saw(words);
  w.pinned = false;
}
void ProbeBoth(World& w) { w.Must(w.memory.ProbeWritable(kLeft, 2 * kPageSize)); }

struct Case {
  const char* name;
  World::Access access;
};
void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

class SpaceSchedule : public testing::TestWithParam<std::tuple<Case, bool>> {};

void Body(void* context, int thread) {
  auto& world = *static_cast<World*>(context);
  thread == 0 ? world.access(world) : world.Change();
}

TEST_P(SpaceSchedule, NothingIsStaleInAny) {
  static Scheduler scheduler;
  const auto& [access, membarrier] = GetParam();
  Exhaustive all(2);
  uint64_t schedules = 0, changes_first = 0;
  do {
    guestmem::detail::ForgetReaders(membarrier);
    World world(access.access);
    const End end = scheduler.Run(2, Body, [](void*, int, const void*) {}, &world, all);
    ASSERT_EQ(end, End::kFinished) << "schedule " << schedules;
    ASSERT_EQ(world.wrong, "") << "schedule " << schedules;
    for (const Ram& ram : world.before) {
      ASSERT_TRUE(!world.changed || ram.IsAll(kPoisoned)) << "a store into what was removed, schedule " << schedules;
    }
    ++schedules;
    changes_first += world.changed;
  } while (all.Next());
  EXPECT_GT(schedules, 50u);
  EXPECT_GT(changes_first, 0u);
}

INSTANTIATE_TEST_SUITE_P(Schedule, SpaceSchedule,
                         testing::Combine(testing::Values(Case{"PlainRead", PlainRead}, Case{"PlainWrite", PlainWrite},
                                                          Case{"Exchange", Exchange}, Case{"ReadAcross", ReadAcross},
                                                          Case{"WriteAcross", WriteAcross}, Case{"ReadTheView", ReadTheView},
                                                          Case{"LockAndTouch", LockAndTouch}, Case{"ProbeBoth", ProbeBoth}),
                                          testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + (std::get<1>(info.param) ? "" : "WithoutMembarrier");
                         });

}  // namespace
}  // namespace reference::schedule
