// The operations of a generated test: each as the call that a program would make, and what the model says of it.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_STEPS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_STEPS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/lockstep/trace_gtest_facts.h"

namespace reference::gtest {

class Steps {
 public:
  Steps(const Facts& facts, Source& out) : facts_(facts), out_(out) {}
  // The kind of a step that can't be spelled; empty: all of them could.
  std::string Run();

 private:
  // What is on hand of the step that is being written.
  const Step& step() const { return ran_->step; }
  const Outcome& outcome() const { return ran_->outcome; }
  const Backing& backing() const { return facts_.world.backings[step().backing]; }
  std::string Self() const { return "backing" + std::to_string(step().backing); }
  // `name` with the step's number, so that every step has its own.
  std::string My(std::string_view name) const { return std::string(name) + std::to_string(number_); }
  std::string Object(std::string_view name) const { return std::string(name) + std::to_string(step().object); }
  std::string Slot(uint8_t slot) const;
  bool IsHeld(uint8_t slot) const { return slot == 0 || held_handles_[slot]; }
  std::string Handle() const { return IsHeld(step().target) ? Slot(step().target) : Slot(0); }
  std::string Gpa() const { return Number(step().gpa); }
  std::string Length() const;
  std::string AccessWord() const;
  std::string Byte() const { return Number(step().value & 0xff); }
  std::string FillByte() const { return "std::byte{" + Byte() + "}"; }
  std::string Buffer(uint8_t object) const { return (is_list_[object] ? "list" : "range") + std::to_string(object); }
  std::string Buffer() const { return Buffer(step().object); }
  static std::string Type(uint8_t size) { return "uint" + std::to_string(size * 8) + "_t"; }
  std::string Bytes(std::span<const uint8_t> bytes, uint64_t offset) const {
    return BytesExpression(facts_.names, bytes, offset);
  }

  // Calls and what they must give. trace_gtest_steps.cc
  bool RunStep();
  void Declare();
  bool Has(std::initializer_list<StepKind> kinds, uint8_t object) const;
  void Equal(std::string_view actual, std::string_view expected);
  void True(std::string_view what, bool is = true);
  // What `status` must be. `asserted`: what follows needs it to be OK.
  void ExpectStatus(const std::string& status, bool asserted = false);
  // A call that returns a Status.
  void Call(const std::string& call);
  // A call that returns a Result, a variable `name`: whether there is a value to look at.
  bool CallResult(const std::string& type, const std::string& call, bool moved_from = false) {
    return CallResult(type, call, moved_from, "result", outcome().ok);
  }
  bool CallResult(const std::string& type, const std::string& call, bool moved_from, std::string_view name, bool ok);
  void Calls();
  void MadePages();
  void ForgetUnspecified();
  // The pointer to where a span of host memory begins, as C++.
  static std::string HostPlace(const Span& span);
  void Gpns();
  // The host buffer, made for `length` bytes or of what is to be written.
  void MakeHost(uint64_t length, bool written);
  // Whether the host buffer is guest memory itself.
  bool Within() const;
  std::string Host() const;
  void ExpectHost(const std::string& host);

  // On a handle. trace_gtest_steps.cc
  bool AccessStep();
  void CompareExchange();
  bool HandleStep();

  // On a backing, by its host. trace_gtest_steps_host.cc
  bool HostStep();
  void Advise(const std::string& call);
  void ChangeBitmap();
  void Change(const std::string& call);
  void Try();
  void ForeignFault();

  // Memory that steps make. trace_gtest_steps_made.cc
  bool MadeStep();
  void Make();
  void MakeHeap();
  void MakeShared();
  void MakeSparse();
  void KeepMade(const std::string& mapping, uint64_t size);
  void TakeHandle(uint8_t slot);
  void Create();
  void ShowFiles();
  void InnerBuffer();

  // trace_gtest_steps_locks.cc
  bool LockStep();
  void Lock();
  void LockedCopy();

  // Ranges and streams. trace_gtest_steps_ranges.cc
  bool RangeStep();
  void MakeRange(bool append);
  void CutRange();
  void Iterate();
  void AccessRange();
  struct Stream {
    std::string name;
    bool optional = false;
    std::string call() const { return name + (optional ? "->" : "."); }
  };
  // A stream and the limits around it; the outermost is last.
  struct Chain {
    std::vector<Stream> streams;
    std::string host;  // the buffer under a writer of host bytes
  };
  bool StreamStep();
  void RunStream(const std::string& last);
  void Open(Chain& chain, const std::string& word, const std::string& name);
  void Limit(Chain& chain, const std::string& word);
  void Array(const std::string& type, const std::string& call);

  const Facts& facts_;
  Source& out_;
  const Ran* ran_ = nullptr;
  size_t number_ = 0;
  size_t made_ = 0;  // how many memories steps have made
  std::array<bool, kHandles> held_handles_ = {};
  std::array<bool, kObjects> is_list_ = {true, true, true, true};
  std::array<std::string, kObjects> held_;
  std::array<bool, kObjects> held_for_writing_ = {};
  std::array<std::vector<Span>, kObjects> spans_;
  std::array<Chain, kObjects> readers_, writers_;
};

}  // namespace reference::gtest

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_STEPS_H_
