// The operations of a generated test that are about the address space, which a SpaceCast holds (space_cast.h).

#include <array>

#include "reference/vmm/space_world.h"
#include "reference/vmm/vmm_gtest_steps.h"

namespace reference::vmm {

using gtest::Number;
using gtest::Quoted;

std::string Steps::Memory() const {
  if (op()[kOther] == 0) {
    return "memory.";
  }
  return op()[kOther] == 1 ? "cast->memory." : view_ ? "cast->view->" : "";
}

void Steps::Space() {
  constexpr std::string_view kBackings[] = {"kRam", "kGuarded", "kLazy", "kRegisters"};
  const std::string slot = "{" + Gpa() + ", " + Value(kLength) + ", cast->backings[" + std::string(kBackings[op()[kFile]]) + "], " +
                           Value(kOffset) + (op()[kForm] % 2 == 1 ? ", true, " : ", false, ") + Quoted(Slot("s")) + "}";
  const auto call = [&](const std::string& made) {
    if (dropped_) {
      out_.Line("// (it is gone: nothing to do)");
    } else {
      Call("cast->" + made);
    }
  };
  switch (op().kind) {
    case OpKind::kSpaceAdd:
    case OpKind::kSpaceRemove: {
      const bool adds = op().kind == OpKind::kSpaceAdd;
      const std::string step = (adds ? "Add(" + slot : "Remove(" + Gpa()) + ")";
      if (steps_.empty()) {
        call("space->" + step);
      } else {
        out_.Line({steps_, ".push_back(SlotChange::", step, ");"});
      }
      break;
    }
    case OpKind::kSpaceBegin:
      ForgetSteps();
      steps_ = My("steps");
      out_.Line({"std::vector<SlotChange> ", steps_, ";"});
      break;
    case OpKind::kSpaceCommit:
      call("space->Change(" + (steps_.empty() ? "{}" : steps_) + ")");
      ForgetSteps();
      break;
    case OpKind::kSpaceView:
      out_.Line("cast->view.reset();");
      view_ = Keep("GuestMemory", "cast->memory.Subrange(" + Gpa() + ", " + Value(kSize) + ")", "cast->view");
      break;
    case OpKind::kSpaceListen:
      call("Register(" + Value(kSlot) + ", " + (op()[kForm] % 2 == 1 ? Number(op()[kPage] * kPageBytes) : "std::nullopt") + ")");
      break;
    case OpKind::kSpaceUnlisten: out_.Line({"cast->registrations[", Value(kSlot), "].reset();"}); break;
    case OpKind::kSpacePopulated: call("NotePopulated({" + Gpa() + ", " + Value(kLength) + "})"); break;
    default:
      dropped_ = true;
      out_.Line("cast->space.reset();");
      break;
  }
}

// The list of a change holds backings.
void Steps::ForgetSteps() {
  if (!steps_.empty()) {
    out_.Line({steps_, ".clear();"});
  }
  steps_.clear();
}

// What is not expected is found with what is expected next.
void Steps::ExpectTold() {
  std::string list;
  for (const std::string& line : outcome_.told) {
    list += (list.empty() ? "" : ", ") + Quoted(line);
  }
  if (!list.empty()) {
    out_.Line({"EXPECT_THAT(cast->Told(), testing::ElementsAre(", list, "));"});
  }
}

void Steps::ExpectSpace() {
  if (!space_) {
    return;
  }
  out_.Blank();
  out_.Line("// What the backings of the address space hold.");
  Equal("cast->Told()", "std::vector<std::string>()");
  for (uint64_t number = 0; number < kSpaceBackings; ++number) {
    const auto bytes = model_.SpaceBytes(number);
    if (!bytes.empty()) {
      out_.Line({"EXPECT_EQ(Difference(", gtest::BytesExpression(names_, bytes, 0), ", cast->Bytes(", std::to_string(number),
                 ")), \"\");"});
    }
  }
}

}  // namespace reference::vmm
