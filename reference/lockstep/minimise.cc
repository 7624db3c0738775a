#include "reference/lockstep/minimise.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>

#include "reference/lockstep/op_fields.h"

namespace reference {
namespace {

// "memory of backing 0 page 2" is about memory, wherever.
std::string Subject(const std::string& field) { return field.substr(0, field.find(" of ")); }

// All of them are evaluated, in order.
bool Any(std::initializer_list<bool> tries) { return std::find(tries.begin(), tries.end(), true) != tries.end(); }

class Minimiser {
 public:
  Minimiser(Lockstep& lockstep, const Trace& trace, const Divergence& divergence, uint64_t most_runs)
      : lockstep_(lockstep), field_(Subject(divergence.field)), most_runs_(most_runs), best_{trace, divergence, 0} {}

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
    Verdict verdict = lockstep_.Run(candidate);
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

  // Runs of ops, halved until single ones.
  bool DropOps() {
    bool smaller = false;
    for (size_t run = std::max<size_t>(best_.trace.ops.size() / 2, 1);; run /= 2) {
      for (size_t end = best_.trace.ops.size(); end > 0;) {
        const size_t begin = end > run ? end - run : 0;
        smaller |= TryChange([&](Trace& t) {
          t.ops.erase(t.ops.begin() + static_cast<ptrdiff_t>(begin), t.ops.begin() + static_cast<ptrdiff_t>(end));
        });
        end = begin;
      }
      if (run <= 1) {
        return smaller;
      }
    }
  }

  template <typename Answer>
  bool ShortenScript(std::vector<Answer> World::*script) {
    bool smaller = false;
    for (size_t i = (best_.trace.world.*script).size(); i > 0; --i) {
      smaller |= TryChange([&](Trace& t) { (t.world.*script).erase((t.world.*script).begin() + static_cast<ptrdiff_t>(i - 1)); });
    }
    return smaller;
  }

  bool SimplifyWorld() {
    bool smaller = TryChange([](Trace& t) { t.world = World(); });
    smaller |= TryChange([](Trace& t) { t.world.failing_host_call = 0; });
    smaller |= TryChange([](Trace& t) { t.world.host_error = HostError::kNoMemory; });
    smaller |= TryChange([](Trace& t) { t.world.region_pages = 0; });
    smaller |= TryChange([](Trace& t) { t.world.backings.resize(std::max<size_t>(t.world.backings.size() - 1, 1)); });
    smaller |= Any({ShortenScript(&World::handler), ShortenScript(&World::fallback), ShortenScript(&World::lock),
                    ShortenScript(&World::subrange)});
    for (size_t i = 0; i < best_.trace.world.backings.size(); ++i) {
      const auto with = [&](auto change) { return TryChange([&](Trace& t) { change(t.world.backings[i]); }); };
      smaller |= with([](Backing& b) { b = Backing(); });
      smaller |= with([](Backing& b) { b.trim = 0; });
      smaller |= with([](Backing& b) { b.has_iova = false; });
      smaller |= with([](Backing& b) { b.mapped = true; });
      smaller |= with([](Backing& b) { b.has_bitmap = false; });
      smaller |= with([](Backing& b) { b.bit_offset = 0; });
      smaller |= with([](Backing& b) { b.null_bitmap = {}; });
      smaller |= with([](Backing& b) { b.fickle = false; });
      smaller |= with([](Backing& b) { b.wrapped = false; });
      smaller |= with([](Backing& b) { b.managed = false; });
      smaller |= with([](Backing& b) { b.sharing = Sharing::kNone; });
      smaller |= with([](Backing& b) { b.pages = static_cast<uint8_t>(std::max(b.pages - 1, 1)); });
      for (size_t page = 0; page < kMaxPages; ++page) {
        smaller |= with([&](Backing& b) { b.page[page] = PageSetup(); });
        smaller |= with([&](Backing& b) { b.page[page].state = PageState::kRam; });
      }
    }
    return smaller;
  }

  bool SimplifyOps() {
    bool smaller = false;
    for (size_t i = 0; i < best_.trace.ops.size(); ++i) {
      const auto with = [&](auto change) { return TryChange([&](Trace& t) { change(t.ops[i]); }); };
      smaller |= with([](Op& op) { op.target = 0; });
      smaller |= with([](Op& op) { op.choice = 0; });
      smaller |= with([](Op& op) { op.form = 0; });
      smaller |= with([](Op& op) { op.value = 0; });
      smaller |= with([](Op& op) { op.value = 1; });
      smaller |= with([](Op& op) { op.desired = 0; });
      smaller |= with([](Op& op) { op.seen = false; });
      smaller |= with([](Op& op) { op.at = Address(); });
      smaller |= with([](Op& op) { op.at.delta = 0; });
      smaller |= with([](Op& op) { op.at.delta = static_cast<int8_t>(op.at.delta / 2); });
      smaller |= with([](Op& op) { op.at.index = op.at.index / 2; });
      smaller |= with([](Op& op) { op.offset = 0; });
      smaller |= with([](Op& op) { op.size = 0; });
      smaller |= with([](Op& op) { op.object = 0; });
      smaller |= with([](Op& op) { op.bytes = 0; });
      smaller |= with([](Op& op) { op.within = 0; });
      for (size_t gpn = best_.trace.ops[i].gpns.size(); gpn > 0; --gpn) {
        smaller |= with([&](Op& op) { op.gpns.erase(op.gpns.begin() + static_cast<ptrdiff_t>(gpn - 1)); });
      }
      while (with([](Op& op) { op.length = op.length / 2; }) || with([](Op& op) { op.length -= op.length > 0; })) {
        smaller = true;
      }
    }
    return smaller;
  }

  Lockstep& lockstep_;
  const std::string field_;
  const uint64_t most_runs_;
  Minimised best_;
};

}  // namespace

Minimised Minimise(Lockstep& lockstep, const Trace& trace, const Divergence& divergence, uint64_t most_runs) {
  return Minimiser(lockstep, trace, divergence, most_runs).Run();
}

}  // namespace reference
