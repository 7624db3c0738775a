#include "reference/vmm/minimise.h"

#include <algorithm>
#include <utility>

#include "reference/minimising.h"

namespace reference::vmm {
namespace {

// "page 3" is about pages, whichever.
std::string Subject(const std::string& field) { return field.substr(0, field.find_last_not_of("0123456789") + 1); }

class Minimiser {
 public:
  Minimiser(const Judge& judge, const Trace& trace, const Divergence& divergence)
      : judge_(judge), field_(Subject(divergence.field)), best_{trace, divergence} {}

  Minimised Run() {
    TryChange([&](Trace& t) { t.ops.resize(std::min(t.ops.size(), best_.divergence.op + 1)); });
    for (bool smaller = true; smaller;) {
      smaller = DropRuns(best_.trace.ops, [&](size_t begin, size_t end) {
        return TryChange([&](Trace& t) { Erase(t.ops, begin, end); });
      });
      smaller |= SimplifyWorld();
      smaller |= SimplifyOps();
    }
    return std::move(best_);
  }

 private:
  // Takes the changed trace if it is another one that diverges alike.
  template <typename Change>
  bool TryChange(Change change) {
    Trace candidate = best_.trace;
    change(candidate);
    if (candidate == best_.trace) {
      return false;
    }
    Verdict verdict = judge_(candidate);
    if (!verdict || Subject(verdict->field) != field_) {
      return false;
    }
    best_ = {std::move(candidate), std::move(*verdict)};
    return true;
  }

  bool SimplifyWorld() {
    bool smaller = TryChange([](Trace& t) { t.world = World(); });
    for (uint8_t World::*const member : {&World::pages, &World::trim, &World::guest_first, &World::fail}) {
      smaller |= TryChange([&](Trace& t) { t.world.*member = World().*member; });
    }
    return smaller;
  }

  // Fields are indices: 0 is the default, and those above it get odder.
  bool SimplifyOps() {
    bool smaller = false;
    for (size_t i = 0; i < best_.trace.ops.size(); ++i) {
      for (size_t field = 0; field < kFields; ++field) {
        smaller |= Lower([&](auto change) {
          return TryChange(
              [&](Trace& t) { t.ops[i].index[field] = static_cast<uint8_t>(change(t.ops[i].index[field])); });
        });
      }
    }
    return smaller;
  }

  const Judge& judge_;
  const std::string field_;
  Minimised best_;
};

}  // namespace

Minimised Minimise(const Judge& judge, const Trace& trace, const Divergence& divergence) {
  return Minimiser(judge, trace, divergence).Run();
}

}  // namespace reference::vmm
