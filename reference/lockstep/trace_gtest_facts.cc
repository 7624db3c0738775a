#include "reference/lockstep/trace_gtest_facts.h"

#include <algorithm>

#include "reference/lockstep/trace_rows.h"
#include "reference/trace/words.h"

namespace reference::gtest {
namespace {

bool Contains(const auto& list, const auto& value) { return std::find(list.begin(), list.end(), value) != list.end(); }

bool IsFix(HandlerAnswer answer) {
  return answer == HandlerAnswer::kFixRetry || answer == HandlerAnswer::kFixAllRetry ||
         answer == HandlerAnswer::kRefuseRetry || answer == HandlerAnswer::kVanishRetry ||
         answer == HandlerAnswer::kRefuseLastRetry;
}

bool IsFallback(CallKind kind) {
  return kind == CallKind::kReadFallback || kind == CallKind::kWriteFallback || kind == CallKind::kFillFallback ||
         kind == CallKind::kCompareExchangeFallback;
}

States StatesOf(const Model& model, const World& world) {
  States states = {};
  for (size_t backing = 0; backing < world.backings.size(); ++backing) {
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      states[backing][page] = model.State(backing, page);
    }
  }
  return states;
}

// Where the test can store it makes unspecified bytes zero; elsewhere nobody could have stored either.
void Forget(Model& model, Ran& ran) {
  for (const auto& [backing, start, length, gpa] : model.Unspecified()) {
    for (uint64_t address = start; address < start + length; ++address) {
      if (ran.states[backing][address / kPageSize] != PageState::kRam) {
        continue;
      }
      model.Become(backing, address, 0);
      if (ran.forgotten.empty() || ran.forgotten.back().backing != backing ||
          ran.forgotten.back().address + ran.forgotten.back().length != address) {
        ran.forgotten.push_back({backing, address, 0, 0});
      }
      ++ran.forgotten.back().length;
    }
  }
}

// Of memory that has bytes from the start on; others' pages are not there.
bool IsPopulated(const std::vector<Ran>& steps, uint64_t made) {
  for (const Ran& ran : steps) {
    const Made choice = static_cast<Made>(ran.step.choice);
    const bool makes =
        ran.step.kind == StepKind::kMake && ran.outcome.ok && choice != Made::kEmpty && choice != Made::kBitmap;
    if (makes && made-- == 0) {
      return choice == Made::kHeap || choice == Made::kShared;
    }
  }
  return false;
}

void RunOn(Model& model, const World& world, const std::vector<Ran>& steps, Ran& ran) {
  if (ran.step.kind == StepKind::kRangeAppend) {
    Step look = ran.step;
    look.kind = StepKind::kRangeIterate;  // changes nothing
    model.Run(look, ran.outcome);
    ran.members_before = ran.outcome.parts.size();
  }
  model.Run(ran.step, ran.outcome);
  ran.states = StatesOf(model, world);
  for (const auto& [backing, page] : model.TouchedPages()) {
    if (backing < kMaxBackings || !IsPopulated(steps, backing - kMaxBackings)) {
      continue;
    }
    const MadePage touched = {
        backing - kMaxBackings, page, {model.MappedPage(backing, page).begin(), model.MappedPage(backing, page).end()}};
    if (!Contains(ran.made, touched)) {
      ran.made.push_back(touched);
    }
  }
  Forget(model, ran);
}

}  // namespace

Facts::Facts(const Trace& trace) : world(trace.world), used(trace.world.backings.size()) {
  Run(trace);
  LookAtSteps();
  LookAtWorld();
  // An engine that is wrong may ask for one that the model does not.
  if (unmapped || own || Contains(world.handler, HandlerAnswer::kFallback) || !world.fallback.empty()) {
    fallbacks.insert({CallKind::kReadFallback, CallKind::kWriteFallback, CallKind::kFillFallback,
                      CallKind::kCompareExchangeFallback});
  }
  calls = handler || !fallbacks.empty() || locks || hooks;
  NameBytes();
}

void Facts::Run(const Trace& trace) {
  Model model;
  model.Start(world);
  uint64_t seen = 0;
  for (const Op& op : trace.ops) {
    steps.push_back({OpText(op), Resolve(world, op, seen), {}});
    RunOn(model, world, steps, steps.back());
    seen = steps.back().outcome.number.value_or(seen);
  }
  for (uint8_t object = 0; object < kObjects; ++object) {
    if (model.Holds(object)) {
      Step unlock;
      unlock.kind = StepKind::kUnlock;
      unlock.object = object;
      steps.push_back({"what is still locked is unlocked", unlock, {}});
      RunOn(model, world, steps, steps.back());
    }
  }
  states = StatesOf(model, world);
  KeepBytes(model);
  for (size_t i = 0; i < world.backings.size(); ++i) {
    const Backing& backing = world.backings[i];
    bits.emplace_back();
    for (size_t access = 0; access < bits[i].size() && backing.present && backing.has_bitmap; ++access) {
      // An AccessBitmap says of pages that it doesn't have that they are refused.
      for (uint64_t page = 0; !backing.null_bitmap[access] && page < (backing.managed ? kMaxPages : backing.pages);
           ++page) {
        bits[i][access] += page < backing.pages && model.Bit(i, page, static_cast<Access>(access)) ? '1' : '0';
      }
    }
  }
}

void Facts::KeepBytes(const Model& model) {
  for (size_t i = 0; i < world.backings.size(); ++i) {
    mapped.emplace_back();
    slow.emplace_back();
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      const std::span<const uint8_t> seen_there = model.MappedPage(i, page), slow_there = model.SlowPage(i, page);
      mapped.back().insert(mapped.back().end(), seen_there.begin(), seen_there.end());
      slow.back().insert(slow.back().end(), slow_there.begin(), slow_there.end());
    }
  }
}

bool Facts::Has(StepKind kind) const {
  return std::any_of(steps.begin(), steps.end(), [&](const Ran& ran) { return ran.step.kind == kind; });
}

bool Facts::Fills(uint8_t slot, StepKind kind) const {
  return std::any_of(steps.begin(), steps.end(),
                     [&](const Ran& ran) { return ran.step.kind == kind && ran.step.slot == slot; });
}

void Facts::LookAtSteps() {
  for (const Ran& ran : steps) {
    if (HasField(ran.step.kind, "backing") && ran.step.backing < used.size()) {
      used[ran.step.backing] = true;
    }
    if (HasField(ran.step.kind, "within") && ran.step.within != 0 && ran.step.HostBacking() < used.size()) {
      used[ran.step.HostBacking()] = true;
    }
    const bool takes = ran.step.kind == StepKind::kInnerBuffer && ran.step.choice != 0;
    takes_heap |= takes;
    changes_memory |= takes && ran.step.target == 0;
    for (const Call& call : ran.outcome.calls) {
      handler |= call.kind == CallKind::kPageFault;
      if (IsFallback(call.kind)) {
        fallbacks.insert(call.kind);
      }
    }
  }
  locks = Has(StepKind::kLockGpns) || Has(StepKind::kLockRange);
  hooks = Has(StepKind::kSubrange) || Has(StepKind::kLockableSubrange);
  file = Has(StepKind::kMapFile) || Has(StepKind::kMapFileBytes);
  creates = Has(StepKind::kCreate);
}

void Facts::LookAtWorld() {
  handler |= !world.handler.empty();
  fixes = std::any_of(world.handler.begin(), world.handler.end(), IsFix);
  for (const Ran& ran : steps) {
    tracks |= fixes && (ran.step.kind == StepKind::kMapFileBytes || ran.step.kind == StepKind::kUnmapBytes ||
                        (HasField(ran.step.kind, "page") && ran.step.kind != StepKind::kSetBit));
  }
  vanishes = Contains(world.handler, HandlerAnswer::kVanishRetry);
  tracks |= vanishes;
  own = Contains(world.subrange, SubrangeAnswer::kOwn) || Contains(world.subrange, SubrangeAnswer::kWrongSize);
  const bool asks = locks || Has(StepKind::kSupportsLocking) || Has(StepKind::kLockableSubrange);
  for (size_t i = 0; i < world.backings.size(); ++i) {
    const Backing& backing = world.backings[i];
    used[i] = used[i] || backing.present;
    bitmaps |= backing.present && backing.has_bitmap;
    unmapped |= backing.present && !backing.mapped;
    iova |= backing.has_iova;
    managed |= backing.present && backing.managed;
    lockable |= asks && backing.present && (!backing.lockable || !backing.mapped || backing.fickle);
    fickle |= backing.fickle;
    files |= backing.present && backing.sharing != Sharing::kNone;
    for (uint64_t page = 0; page < backing.pages; ++page) {
      bus |= used[i] && backing.page[page].state == PageState::kBus;
      tracks |= fixes && backing.page[page].state != PageState::kRam;
    }
  }
  host_calls = world.failing_host_call != 0;
  second_host_call = host_calls && world.failing_host_call % 2 == 0 && file;
}

void Facts::NameBytes() {
  constexpr uint64_t kDataPeriod = 256;
  std::set<uint64_t> seeds;
  uint64_t longest = kPageSize;
  for (const Ran& ran : steps) {
    longest = std::max<uint64_t>(longest, ran.outcome.data.size());
    if (HasField(ran.step.kind, "value")) {
      seeds.insert(ran.step.value);
    }
  }
  const auto add = [&](uint64_t size, uint64_t offsets, bool placed, auto pattern, auto spell) {
    std::vector<uint8_t> bytes;
    for (uint64_t i = 0; i < size; ++i) {
      bytes.push_back(pattern(i));
    }
    names.push_back({std::move(bytes), offsets, placed, spell});
  };
  for (const uint64_t seed : seeds) {
    add(
        kDataPeriod + longest, kDataPeriod, false, [&](uint64_t i) { return DataPattern(seed, i); },
        [seed](uint64_t skip, const std::string& n) {
          return "Data(" + Number(seed) + ", " + n + (skip == 0 ? ")" : ", " + Number(skip) + ")");
        });
  }
  const auto add_placed = [&](uint64_t size, auto pattern, const std::string& call) {
    add(size, size, true, pattern,
        [call](uint64_t offset, const std::string& n) { return call + Number(offset) + ", " + n + ")"; });
  };
  for (size_t b = 0; b < world.backings.size(); ++b) {
    add_placed(
        kMaxPages * kPageSize, [&](uint64_t i) { return MappedPattern(b, i); }, "Initial(" + Number(b) + ", ");
    if (!fallbacks.empty()) {
      add_placed(
          kMaxPages * kPageSize, [&](uint64_t i) { return SlowPattern(b, i); }, "Slow(" + Number(b) + ", ");
    }
  }
  if (file) {
    add_placed(kFilePages * kPageSize, FilePattern, "File(");
  }
}

std::string Noted(const Call& call) {
  std::string text(Name(call.kind));
  std::vector<uint64_t> numbers = {call.address, call.length};
  switch (call.kind) {
    case CallKind::kLockGpns:
    case CallKind::kUnlockGpns:
      text += " to " + std::string(Name(call.access));
      numbers = call.gpns;
      break;
    case CallKind::kPageFault:
      text += " on " + std::string(Name(call.access)) + (call.bitmap_failure ? " by the bitmap" : "");
      break;
    case CallKind::kFillFallback:
    case CallKind::kSubrange: numbers.push_back(call.value); break;
    case CallKind::kCompareExchangeFallback:
      numbers.push_back(call.value);
      numbers.push_back(call.desired);
      break;
    default: break;
  }
  text += " of backing " + std::to_string(call.backing) + ":";
  for (const uint64_t number : numbers) {
    text += " " + trace::HexText(number);
  }
  return text;
}

}  // namespace reference::gtest
