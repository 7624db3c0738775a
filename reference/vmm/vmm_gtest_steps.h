// The operations of a generated test: each as the call that a program would make, and what the model says of it.

#ifndef GUESTMEM_REFERENCE_VMM_VMM_GTEST_STEPS_H_
#define GUESTMEM_REFERENCE_VMM_VMM_GTEST_STEPS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "reference/test_source.h"
#include "reference/vmm/machine.h"
#include "reference/vmm/model.h"
#include "reference/vmm/trace.h"

namespace reference::vmm {

class Steps {
 public:
  Steps(const Trace& trace, const std::vector<bool>& host_call_failed, gtest::Source& out);
  // The operations, and what the guest then is.
  void Run();
  // Takes down what is held.
  void DropAll();

 private:
  using Flags = std::array<bool, kSlots>;

  const Op& op() const { return *op_; }
  // `name` with the op's number, so that every op has its own.
  std::string My(std::string_view name) const { return std::string(name) + std::to_string(number_); }
  std::string Slot(std::string_view name) const { return std::string(name) + std::to_string(op()[kSlot]); }
  std::string Other(std::string_view name) const { return std::string(name) + std::to_string(op()[kOther]); }
  std::string Value(Field field) const { return gtest::Number(op()[field]); }
  std::string Gpa() const { return gtest::Number(op().gpa()); }
  bool IsPlain() const;

  void NameBytes(const Trace& trace);
  void Declare(const Trace& trace);
  void DropOld();
  void RunOp();
  void Region();
  void NewRegion();
  void Rom();
  void Bell();
  void Event();
  void Take();
  void Lock();
  void Space();
  void ExpectTold();
  void ForgetSteps();
  void ExpectSpace();
  // What an access is to: the guest's memory, the address space's, or the view; nothing: there is no view.
  std::string Memory() const;
  void Access();
  void PlainAccess();
  void ExpectSignals();
  void ExpectGuest();

  void Drop(Flags& held, std::string_view name, uint64_t slot);
  void Equal(std::string_view actual, std::string_view expected) {
    out_.Line({"EXPECT_EQ(", actual, ", ", expected, ");"});
  }
  void ExpectError(const std::string& status);
  // If a host call is to fail in the op, ends that, and the test where none did.
  void EndFailure();
  // A call that returns a Status.
  void Call(const std::string& call);
  // A call that returns a Result: whether there is a value to look at.
  bool CallResult(const std::string& type, const std::string& call, bool moved_from = false);
  // The same, of a value that `place` takes.
  bool Keep(const std::string& type, const std::string& call, const std::string& place);

  const Trace& trace_;
  const std::vector<bool>& host_call_failed_;
  gtest::Source& out_;
  Model model_;
  std::vector<gtest::NamedBytes> names_;

  const Op* op_ = nullptr;
  size_t number_ = 0;
  bool fails_ = false;    // a host call, in the op
  Outcome outcome_;       // of the op
  Flags signalled_ = {};  // before it
  bool space_ = false, dropped_ = false, view_ = false;
  std::string steps_;  // the list of a change that has begun
  Flags in_guest_ = {}, region_ = {}, rom_ = {}, part_ = {}, bell_ = {}, event_ = {}, pages_ = {};
};

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_VMM_GTEST_STEPS_H_
