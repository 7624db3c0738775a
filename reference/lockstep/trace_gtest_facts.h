// What the parts of trace_gtest.cc share: the trace as the model ran it, and what of it the test must have.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_FACTS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_FACTS_H_

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/lockstep/trace.h"
#include "reference/model/model.h"
#include "reference/test_source.h"

namespace reference::gtest {

using States = std::array<std::array<PageState, kMaxPages>, kMaxBackings>;  // by backing and page

// A page of memory that a step has made.
struct MadePage {
  uint64_t made = 0;  // the n-th
  uint64_t page = 0;
  std::vector<uint8_t> bytes = {};
  bool operator==(const MadePage&) const = default;
};

// A step as the model did it.
struct Ran {
  std::string text;  // the op's, or what the step is for
  Step step;
  Outcome outcome;
  size_t members_before = 0;         // kRangeAppend: of the buffer
  States states = {};                // afterwards
  std::vector<MadePage> made = {};   // where it moved bytes
  std::vector<Span> forgotten = {};  // bytes of backings that it left unspecified; from here on they are zero
};

// The run, and what of the world a test of it must have.
struct Facts {
  explicit Facts(const Trace& trace);
  bool Has(StepKind kind) const;
  // By a step, whatever it says of it.
  bool Fills(uint8_t slot, StepKind kind) const;

  const World& world;
  std::vector<Ran> steps;                          // the ops, then the unlocking of what is held
  std::vector<std::vector<uint8_t>> mapped, slow;  // afterwards, by backing
  std::vector<std::array<std::string, 3>> bits;  // afterwards, by backing and access, a 0 or 1 a page; empty: no bitmap
  States states = {};                            // afterwards
  std::vector<NamedBytes> names;

  // By backing: whether the test has such an object, which one that is absent from the memory may be, too.
  std::vector<bool> used;
  bool bitmaps = false, unmapped = false, iova = false, fickle = false, managed = false, files = false;
  bool handler = false;          // PageFault
  bool fixes = false;            // the handler puts pages in order
  bool vanishes = false;         // or takes one away
  bool tracks = false;           // and must know what each page is
  std::set<CallKind> fallbacks;  // asked for
  bool locks = false, hooks = false, own = false;
  bool lockable = false;          // somebody asks for what is not the default
  bool creates = false;           // memory over the backings once more
  bool takes_heap = false;        // out of its memory, which nothing else may have then
  bool changes_memory = false;    // so that handle 0 isn't const
  bool host_calls = false;        // one fails
  bool second_host_call = false;  // of a change that takes two
  bool file = false, bus = false;
  bool calls = false;  // the backing writes down what it is asked

 private:
  void Run(const Trace& trace);
  void LookAtSteps();
  void LookAtWorld();
  void KeepBytes(const Model& model);
  void NameBytes();
};

// What the emitted backing notes of a call.
std::string Noted(const Call& call);

// The parts of the test. trace_gtest_backing.cc, trace_gtest_world.cc, trace_gtest_steps.cc
std::string BackingClass(const Facts& facts);
void BuildWorld(const Facts& facts, Source& out);
void CompareMemory(const Facts& facts, Source& out);
// The op's kind where it can't be spelled; else empty.
std::string Operations(const Facts& facts, Source& out);

}  // namespace reference::gtest

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_FACTS_H_
