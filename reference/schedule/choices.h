// Where a schedule's choices come from.

#ifndef GUESTMEM_REFERENCE_SCHEDULE_CHOICES_H_
#define GUESTMEM_REFERENCE_SCHEDULE_CHOICES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "reference/trace/draw.h"

namespace reference::schedule {

// The threads that can run now, in turn from the current one on (or from the next, if the current one can't).
struct Options {
  const int* threads;
  int count;               // at least 2
  bool current_can_go_on;  // threads[0] is the current one: any other choice is a preemption
};

class Choices {
 public:
  virtual ~Choices() = default;
  // 0..count-1
  virtual int Choose(const Options& options) = 0;
};

// A recorded list; beyond its end, the current thread goes on.
class Replay final : public Choices {
 public:
  explicit Replay(std::span<const uint8_t> list) : list_(list) {}
  int Choose(const Options& options) override;

 private:
  std::span<const uint8_t> list_;
  size_t next_ = 0;
};

// Any choice with equal chance, but stays with the current thread more often than not: long stretches reach deep states.
class RandomWalk final : public Choices {
 public:
  explicit RandomWalk(uint64_t seed) : random_(seed) {}
  int Choose(const Options& options) override;

 private:
  trace::Random random_;
};

// PCT (Burckhardt et al., ASPLOS 2010): random priorities, and depth - 1 points at which the running thread gets the lowest.
// A bug that needs d ordering constraints is found with probability >= 1 / (threads * points^(d-1)).
class Pct final : public Choices {
 public:
  // `points`: about how many choices a run has.
  Pct(uint64_t seed, int depth, uint64_t points);
  int Choose(const Options& options) override;

 private:
  static constexpr int kThreads = 8;
  std::array<int, kThreads> priority_;  // by thread; higher runs
  std::vector<uint64_t> changes_;
  uint64_t chosen_ = 0;
  int lowest_ = 0;
};

// Every schedule with at most `preemptions` preemptions: run, then Next, until it is false.
class Exhaustive final : public Choices {
 public:
  explicit Exhaustive(int preemptions) : bound_(preemptions) {}
  int Choose(const Options& options) override;
  bool Next();

 private:
  struct Branch {
    uint8_t choice;
    uint8_t count;
    bool preempts;  // any choice but 0
  };
  int bound_;
  size_t depth_ = 0;       // in the present run
  int preempted_ = 0;
  std::vector<Branch> path_;
};

}  // namespace reference::schedule

#endif  // GUESTMEM_REFERENCE_SCHEDULE_CHOICES_H_
