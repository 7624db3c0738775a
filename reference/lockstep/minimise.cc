#include "reference/lockstep/minimise.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "reference/lockstep/op_fields.h"
#include "reference/minimising.h"

namespace reference {
namespace {

// "memory of backing 0 page 2" is about memory, wherever.
std::string Subject(const std::string& field) { return field.substr(0, field.find(" of ")); }

// All of them are evaluated, in order.
bool Any(std::initializer_list<bool> tries) { return std::find(tries.begin(), tries.end(), true) != tries.end(); }

class Minimiser {
 public:
  Minimiser(const Judge& judge, const Trace& trace, const Divergence& divergence, uint64_t most_runs)
      : judge_(judge), field_(Subject(divergence.field)), most_runs_(most_runs), best_{trace, divergence, 0} {}

  Minimised Run() {
    Trace shorter = best_.trace;
    shorter.ops.resize(std::min(shorter.ops.size(), best_.divergence.step + 1));
    Try(std::move(shorter));
    bool smaller = true;
    while (smaller && best_.runs < most_runs_) {
      smaller = Any({DropOps(), SimplifyWorld(), SimplifyOps()});
    }
    return std::move(best_);
  }

 private:
  // Takes `candidate` if it is another trace that diverges alike.
  bool Try(Trace candidate) {
    candidate.world = Normal(candidate.world);
    for (Op& op : candidate.ops) {
      op = Normal(op);
    }
    if (candidate == best_.trace || best_.runs >= most_runs_) {
      return false;
    }
    ++best_.runs;
    Verdict verdict = judge_(candidate);
    if (!verdict || Subject(verdict->field) != field_) {
      return false;
    }
    best_.trace = std::move(candidate);
    best_.divergence = std::move(*verdict);
    return true;
  }

  // Tries one change to a copy of the best trace.
  bool TryChange(const std::function<void(Trace&)>& change) {
    Trace candidate = best_.trace;
    change(candidate);
    return Try(std::move(candidate));
  }

  bool DropOps() {
    return DropRuns(best_.trace.ops, [&](size_t begin, size_t end) { return TryChange([&](Trace& t) { Erase(t.ops, begin, end); }); });
  }

  template <typename Answer>
  bool ShortenScript(std::vector<Answer> World::*script) {
    return DropRuns(best_.trace.world.*script, [&](size_t begin, size_t end) {
      return TryChange([&](Trace& t) { Erase(t.world.*script, begin, end); });
    });
  }

  bool SimplifyWorld() {
    // As many pages as now: else the number would go up and down for ever.
    const auto plain = [](const Backing& backing) {
      Backing out;
      out.pages = backing.pages;
      return out;
    };
    bool smaller = TryChange([&](Trace& t) {
      const Backing first = plain(t.world.backings[0]);
      t.world = World();
      t.world.backings = {first};
    });
    smaller |= TryChange([](Trace& t) { t.world.failing_host_call = 0; });
    smaller |= TryChange([](Trace& t) { t.world.host_error = HostError::kNoMemory; });
    smaller |= TryChange([](Trace& t) { t.world.region_pages = 0; });
    smaller |= TryChange([](Trace& t) { t.world.region_pages = t.world.region_pages / 2; });
    smaller |= TryChange([](Trace& t) { t.world.backings.resize(std::max<size_t>(t.world.backings.size() - 1, 1)); });
    smaller |= Any({ShortenScript(&World::handler), ShortenScript(&World::fallback), ShortenScript(&World::lock),
                    ShortenScript(&World::subrange)});
    for (size_t i = 0; i < best_.trace.world.backings.size(); ++i) {
      const auto with = [&](auto change) { return TryChange([&](Trace& t) { change(t.world.backings[i]); }); };
      smaller |= with([&](Backing& b) { b = plain(b); });
      smaller |= with([](Backing& b) { b.trim = 0; });
      smaller |= with([](Backing& b) { b.has_iova = false; });
      smaller |= with([](Backing& b) { b.mapped = true; });
      smaller |= with([](Backing& b) { b.lockable = true; });
      smaller |= with([](Backing& b) { b.has_bitmap = false; });
      smaller |= with([](Backing& b) { b.bit_offset = 0; });
      smaller |= with([](Backing& b) { b.null_bitmap = {}; });
      smaller |= with([](Backing& b) { b.fickle = false; });
      smaller |= with([](Backing& b) { b.wrapped = false; });
      smaller |= with([](Backing& b) { b.managed = false; });
      smaller |= with([](Backing& b) { b.sparse = false; });
      smaller |= with([](Backing& b) { b.sharing = Sharing::kNone; });
      smaller |= with([](Backing& b) { b.pages = static_cast<uint8_t>(std::max(b.pages - 1, 1)); });
      for (size_t page = 0; page < kMaxPages; ++page) {
        smaller |= with([&](Backing& b) { b.page[page] = PageSetup(); });
        smaller |= with([&](Backing& b) { b.page[page].state = PageState::kRam; });
        smaller |= with([&](Backing& b) { b.page[page].readable = true; });
        smaller |= with([&](Backing& b) { b.page[page].writable = true; });
        smaller |= with([&](Backing& b) { b.page[page].executable = true; });
      }
    }
    return smaller;
  }

  // Each number toward 0, the halves first.
  bool SimplifyOps() {
    bool smaller = false;
    for (size_t i = 0; i < best_.trace.ops.size(); ++i) {
      const auto with = [&](auto change) { return TryChange([&](Trace& t) { change(t.ops[i]); }); };
      // `field` is a reference to a number of the op.
      const auto lower = [&](auto field) {
        return Lower([&](auto change) {
          return with([&](Op& op) { field(op) = static_cast<std::remove_reference_t<decltype(field(op))>>(change(field(op))); });
        });
      };
      smaller |= lower([](Op& op) -> uint8_t& { return op.target; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.choice; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.form; });
      smaller |= with([](Op& op) { op.slot = 1; });
      smaller |= with([](Op& op) { op.seen = false; });
      smaller |= LowerValue(i, &Op::value);
      smaller |= LowerValue(i, &Op::desired);
      smaller |= with([](Op& op) { op.at = Address(); });
      smaller |= with([](Op& op) { op.at.anchor = Anchor::kPage; });
      smaller |= lower([](Op& op) -> int8_t& { return op.at.delta; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.at.index; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.offset; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.size; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.object; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.backing; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.page; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.count; });
      smaller |= with([](Op& op) { op.access = Access::kRead; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.bytes; });
      smaller |= lower([](Op& op) -> uint8_t& { return op.within; });
      for (size_t gpn = best_.trace.ops[i].gpns.size(); gpn > 0; --gpn) {
        smaller |= with([&](Op& op) { op.gpns.erase(op.gpns.begin() + static_cast<ptrdiff_t>(gpn - 1)); });
      }
      for (size_t gpn = 0; gpn < best_.trace.ops[i].gpns.size(); ++gpn) {
        smaller |= lower([gpn](Op& op) -> uint8_t& { return op.gpns[gpn]; });
      }
      smaller |= lower([](Op& op) -> uint8_t& { return op.length; });
    }
    return smaller;
  }

  // Data matters byte by byte: 0, 1, then fewer and fewer bytes that are not 0.
  bool LowerValue(size_t i, uint64_t Op::*value) {
    const auto with = [&](auto change) { return TryChange([&](Trace& t) { t.ops[i].*value = change(t.ops[i].*value); }); };
    if (with([](uint64_t) { return 0; }) || with([](uint64_t v) { return v > 1 ? 1 : v; })) {
      return true;
    }
    bool smaller = false;
    for (unsigned byte = 0; byte < 8; ++byte) {
      smaller |= with([&](uint64_t v) { return v & ~(uint64_t{0xff} << byte * 8); });
    }
    return smaller;
  }

  const Judge& judge_;
  const std::string field_;
  const uint64_t most_runs_;
  Minimised best_;
};

}  // namespace

Minimised Minimise(const Judge& judge, const Trace& trace, const Divergence& divergence, uint64_t most_runs) {
  return Minimiser(judge, trace, divergence, most_runs).Run();
}

Minimised Minimise(Lockstep& lockstep, const Trace& trace, const Divergence& divergence, uint64_t most_runs) {
  return Minimise([&](const Trace& candidate) { return lockstep.Run(candidate); }, trace, divergence, most_runs);
}

}  // namespace reference
