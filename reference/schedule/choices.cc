#include "reference/schedule/choices.h"

#include <algorithm>

namespace reference::schedule {

int Replay::Choose(const Options& options) {
  return next_ < list_.size() ? list_[next_++] % options.count : 0;
}

int RandomWalk::Choose(const Options& options) {
  constexpr uint64_t kStayOneIn = 2;
  if (options.current_can_go_on && !random_.OnceIn(kStayOneIn)) {
    return 0;
  }
  return static_cast<int>(random_.Below(static_cast<uint64_t>(options.count)));
}

Pct::Pct(uint64_t seed, int depth, uint64_t points) {
  trace::Random random(seed);
  for (int i = 0; i < kThreads; ++i) {
    priority_[i] = i + 1;
    std::swap(priority_[i], priority_[random.Below(static_cast<uint64_t>(i + 1))]);
  }
  for (int i = 1; i < depth; ++i) {
    changes_.push_back(random.Below(std::max<uint64_t>(points, 1)));
  }
}

int Pct::Choose(const Options& options) {
  const uint64_t now = chosen_++;
  if (options.current_can_go_on && std::find(changes_.begin(), changes_.end(), now) != changes_.end()) {
    priority_[options.threads[0]] = --lowest_;
  }
  int best = 0;
  for (int i = 1; i < options.count; ++i) {
    if (priority_[options.threads[i]] > priority_[options.threads[best]]) {
      best = i;
    }
  }
  return best;
}

int Exhaustive::Choose(const Options& options) {
  if (depth_ == path_.size()) {
    path_.push_back({0, static_cast<uint8_t>(options.count), options.current_can_go_on});
  }
  const Branch& branch = path_[depth_++];
  preempted_ += branch.preempts && branch.choice != 0;
  return branch.choice;
}

bool Exhaustive::Next() {
  path_.resize(std::min(path_.size(), depth_));
  depth_ = 0;
  while (!path_.empty()) {
    Branch& last = path_.back();
    const int before = preempted_ - (last.preempts && last.choice != 0);
    const bool allowed = !last.preempts || before < bound_;
    if (allowed && last.choice + 1 < last.count) {
      ++last.choice;
      preempted_ = 0;
      return true;
    }
    preempted_ = before;
    path_.pop_back();
  }
  return false;
}

}  // namespace reference::schedule
