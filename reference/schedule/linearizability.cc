#include "reference/schedule/linearizability.h"

#include <vector>

namespace reference::schedule {
namespace {

uint64_t Mask(const GranuleOp& op) { return op.size == 8 ? ~uint64_t{0} : (uint64_t{1} << (op.size * 8)) - 1; }

struct State {
  uint32_t done;  // a bit an operation
  uint64_t value;
  bool operator==(const State&) const = default;
};

class Search {
 public:
  explicit Search(std::span<const GranuleOp> history) : history_(history) {
    for (size_t i = 0; i < history.size(); ++i) {
      for (size_t j = 0; j < history.size(); ++j) {
        before_[i] |= static_cast<uint32_t>(history[j].end < history[i].start) << j;
      }
    }
  }

  bool From(State state) {
    if (state.done == (uint64_t{1} << history_.size()) - 1) {
      return true;
    }
    for (const State& tried : tried_) {
      if (tried == state) {
        return false;
      }
    }
    for (size_t i = 0; i < history_.size(); ++i) {
      const GranuleOp& op = history_[i];
      const unsigned shift = op.offset * 8u;
      if ((state.done >> i & 1) != 0 || (before_[i] & ~state.done) != 0 ||
          (op.reads && (state.value >> shift & Mask(op)) != op.seen)) {
        continue;
      }
      const uint64_t value = op.writes ? (state.value & ~(Mask(op) << shift)) | op.written << shift : state.value;
      if (From({state.done | uint32_t{1} << i, value})) {
        return true;
      }
    }
    tried_.push_back(state);
    return false;
  }

 private:
  std::span<const GranuleOp> history_;
  uint32_t before_[kMaxGranuleOps] = {};  // the operations that ended before this one began
  std::vector<State> tried_;              // in vain
};

}  // namespace

bool IsLinearizable(std::span<const GranuleOp> history, uint64_t initial) { return Search(history).From({0, initial}); }

}  // namespace reference::schedule
