// Runs a trace on a subject and on the model, one op at a time, and says where they first differ.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_LOCKSTEP_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_LOCKSTEP_H_

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "reference/lockstep/trace.h"
#include "reference/model/vocabulary.h"
#include "reference/trace/verdict.h"

namespace reference {

// What the lockstep drives: the engine, or any other guest memory. It carries steps out and reports what a caller
// sees; it never decides what is right. A subject in another language implements these five calls. Start
// builds the world's backings, with the scripted handler and fallbacks that vocabulary.h describes, and records the calls
// they receive into the running step's outcome.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual void Start(const World& world) = 0;
  // `outcome` arrives cleared.
  virtual void Run(const Step& step, Outcome& outcome) = 0;
  // 4096 bytes each, valid until the next call. From kMaxBackings on, `backing` is memory that a step has made (File::file); these
  // are asked for only after a step that stored there, and never `final`. MappedPage must make a page visible that the guest cannot see
  // just now (`final` is true: after the last step) or may return an empty span then (`final` is false).
  virtual std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page, bool final) = 0;
  virtual std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) = 0;
  // One bit as the backing's bitmap has it after the last step; true where there is no bitmap.
  virtual bool Bit(uint64_t backing, uint64_t page, Access access) = 0;
};

// A divergence's field is the first of Outcome's that differs, or "memory", "slow memory", "bitmap". What differs is named at the step
// that made it differ, whether or not the step was to touch it; bytes that cannot be seen just then, at the end.
using trace::Divergence;
using trace::Verdict;

class Lockstep {
 public:
  explicit Lockstep(Subject& subject, Pace model = Pace::kFast);
  ~Lockstep();
  Verdict Run(const Trace& trace);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

inline std::string Report(const Trace& trace, const Divergence& divergence) { return trace::Report(Rows(), &trace, divergence); }
// "field: expected/actual" of two outcomes of one step; nullopt if equal. Exposed for the oracle's own test.
Verdict Compare(const Outcome& expected, const Outcome& actual);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_LOCKSTEP_H_
