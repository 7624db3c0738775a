// The model that fuzzing uses moves bytes page by page; held to the one that moves them one by one, on traces of all kinds.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "proptest/check.h"
#include "proptest/generators.h"
#include "reference/lockstep/trace.h"
#include "reference/model/model.h"

namespace {

using reference::kMaxPages;
using reference::Model;
using reference::Outcome;
using reference::Trace;

// What a model says before a store is that of the same page or bit, in the same order.
class Notes final : public Model::Watch {
 public:
  struct Note {
    uint64_t backing, page, what;
    bool operator==(const Note&) const = default;
  };
  std::vector<Note> notes;

 private:
  void BeforeStore(uint64_t backing, uint64_t page, bool slow) override { notes.push_back({backing, page, slow ? 1u : 0u}); }
  void BeforeBit(uint64_t backing, uint64_t page, reference::Access access) override { notes.push_back({backing, page, 2 + static_cast<uint64_t>(access)}); }
};

bool Same(std::span<const uint8_t> one, std::span<const uint8_t> other) { return std::ranges::equal(one, other); }

TEST(KernelProperty, PageByPageIsByteByByte) {
  Notes plain_notes, fast_notes;
  Model plain(&plain_notes, reference::Pace::kPlain), fast(&fast_notes, reference::Pace::kFast);
  Outcome expected, actual;
  uint64_t moving = 0;
  proptest::CheckAll("Kernel", "PageByPageIsByteByByte", 20'000, [&](const Trace& trace) {
    plain.Start(trace.world);
    fast.Start(trace.world);
    uint64_t seen = 0;
    for (const reference::Op& op : trace.ops) {
      const reference::Step step = Resolve(trace.world, op, seen);
      plain_notes.notes.clear();
      fast_notes.notes.clear();
      plain.Run(step, expected);
      fast.Run(step, actual);
      RC_ASSERT(expected == actual);
      RC_ASSERT(plain_notes.notes == fast_notes.notes);
      moving += plain_notes.notes.empty() ? 0 : 1;
      seen = expected.number.value_or(seen);
      for (uint64_t b = 0; b < trace.world.backings.size(); ++b) {
        for (uint64_t page = 0; page < kMaxPages; ++page) {
          RC_ASSERT(Same(plain.MappedPage(b, page), fast.MappedPage(b, page)));
          RC_ASSERT(Same(plain.SlowPage(b, page), fast.SlowPage(b, page)));
          RC_ASSERT(plain.State(b, page) == fast.State(b, page));
        }
      }
    }
  });
  EXPECT_GT(moving, 20'000u) << "too few steps that store something";
}

}  // namespace
