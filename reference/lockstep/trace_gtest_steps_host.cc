// What the host does: to a backing's mapping and bits, and with the primitives under all accesses.

#include <optional>

#include "reference/lockstep/trace_gtest_steps.h"
#include "reference/trace/words.h"

namespace reference::gtest {

bool Steps::HostStep() {
  const std::string range = Number(step().page * kPageSize) + ", " + Number(step().count * kPageSize);
  constexpr std::string_view kProtections[] = {"kNone", "kRead", "kReadWrite"};
  switch (step().kind) {
    case StepKind::kSetBit:
      if (backing().present && backing().has_bitmap && step().page < backing().pages) {
        out_.Line({Self(), "->SetBit(", Number(step().page), ", ", AccessWord(), ", ",
                   (step().choice & 1) != 0 ? "true" : "false", ");"});
      }
      return true;
    case StepKind::kAllocate: Change("Allocate(" + range + ")"); return true;
    case StepKind::kMapZero: Change("MapZero(" + range + ")"); return true;
    case StepKind::kUnmap: Change("Unmap(" + range + ")"); return true;
    case StepKind::kDecommit: Change("Decommit(" + range + ")"); return true;
    case StepKind::kProtect:
      Change("Protect(" + range + ", SparseMapping::Protection::" + std::string(kProtections[step().choice % 3]) + ")");
      return true;
    case StepKind::kMapFile:
      Change("MapFile(" + range + ", file, " + Number(step().choice * kPageSize) +
             (step().form == 1 ? ", true)" : ", false)"));
      return true;
    case StepKind::kUnmapBytes: Change("Unmap(" + Number(step().offset) + ", " + Length() + ")"); return true;
    case StepKind::kMapFileBytes:
      Change("MapFile(0, " + Length() + ", file, " + Number(step().offset) + ", false)");
      return true;
    case StepKind::kAdviseHugePages:
      Advise("AdviseHugePages(" + range +
             ", SparseMapping::HugePages::" + (step().choice == 0 ? "kAdvised)" : "kRefused)"));
      return true;
    case StepKind::kBindToNode:
      Advise("BindToNode(" + range + (step().choice == 0 ? ", 0)" : step().choice == 1 ? ", 1023)" : ", 1024)"));
      return true;
    case StepKind::kRevoke:
    case StepKind::kGrant:
    case StepKind::kWaitUnlocked:
    case StepKind::kHold: ChangeBitmap(); return true;
    case StepKind::kTry: Try(); return true;
    case StepKind::kForeignFault: ForeignFault(); return true;
    default: return false;
  }
}

// Not every machine takes this advice.
void Steps::Advise(const std::string& call) {
  if (outcome().ok) {
    out_.Line({"(void)", Self(), "->ram->", call, ";"});
  } else {
    Change(call);
  }
}

void Steps::ChangeBitmap() {
  if (!backing().present || !backing().managed) {
    return;
  }
  const std::string pages = "{" + Number(step().page) + ", " + Number(step().count) + "}";
  const std::string mask = ", " + std::to_string(step().choice) + ")";
  switch (step().kind) {
    case StepKind::kRevoke: Call(Self() + "->bits->Revoke(" + pages + mask); break;
    case StepKind::kGrant: Call(Self() + "->bits->Grant(" + pages + mask); break;
    case StepKind::kWaitUnlocked: Call(Self() + "->bits->WaitUnlocked(" + pages + ", {})"); break;
    default:
      Gpns();
      Call(Self() + "->bits->" + (step().form == 0 ? "Lock(" : "Unlock(") + My("gpns") + ")");
      break;
  }
  if (outcome().ok) {  // what a status that is no error says
    Equal(My("status") + ".code()", "StatusCode::kOk");
    Equal(My("status") + ".ToString()", Quoted("OK"));
  }
}

void Steps::Change(const std::string& call) {
  const bool second =
      facts_.second_host_call && (step().kind == StepKind::kMapFile || step().kind == StepKind::kMapFileBytes);
  if (second) {
    out_.Line("g_two_host_calls = true;");
  }
  Call(Self() + "->ram->" + call);
  if (second) {
    out_.Line("g_two_host_calls = false;");
  }
  for (uint64_t page = 0; facts_.tracks && outcome().ok && page < kMaxPages; ++page) {
    out_.Line({Self(), "->page[", std::to_string(page),
               "] = Backing::Page::", Enumerator(Name(ran_->states[step().backing][page])), ";"});
  }
}

void Steps::Try() {
  constexpr std::string_view kAccesses[] = {
      "TryCopy(GuestSide::kSource", "TryCopy(GuestSide::kDestination", "TryFill(", "TryRead(", "TryWrite(",
      "TryCompareExchange("};
  const uint64_t start = step().page * kPageSize + step().offset;
  const uint64_t length = step().choice < 3 ? step().length : step().size;
  const bool fits = start <= kMaxPages * kPageSize && start >= step().offset && length <= kMaxPages * kPageSize - start;
  if (!fits || (step().choice == 5 && step().offset % step().size != 0)) {
    out_.Line("// (beyond the mapping, or not aligned: not tried)");
    return;
  }
  out_.Line({"std::byte* const ", My("guest"), " = ", Self(), "->ram->mapping() + ", Number(start), ";"});
  std::string call(kAccesses[step().choice]);
  if (step().choice < 2) {
    MakeHost(length, step().choice == 1);
    const std::string host = My("host") + ".bytes().data()";
    call += ", " + (step().choice == 0 ? host + ", " + My("guest") : My("guest") + ", " + host) + ", " + Length() + ")";
    call.insert(7, step().form == 1 ? "Shared" : "");
  } else if (step().choice == 2) {
    call += My("guest") + ", " + FillByte() + ", " + Length() + ")";
  } else {
    out_.Line({Type(step().size), " ", My("value"), " = ", Number(step().value), ";"});
    call += My("guest") + ", " + My("value");
    if (step().choice == 5) {
      out_.Line({"const ", Type(step().size), " ", My("desired"), " = ", Number(step().desired), ";"});
      out_.Line({"bool ", My("swapped"), " = false;"});
      call += ", " + My("desired") + ", " + My("swapped");
    }
    call += ")";
  }
  out_.Line({"const std::optional<Fault> ", My("fault"), " = ", call, ";"});
  if (outcome().ok) {
    True(My("fault") + ".has_value()", false);
  } else {
    const std::string offset = Number(*outcome().fault_address - start);
    out_.Line({"ASSERT_TRUE(", My("fault"), ".has_value());"});
    Equal(My("fault") + "->offset", offset + "u");
    Equal(My("fault") + "->address", "reinterpret_cast<uintptr_t>(" + My("guest") + ") + " + offset);
    True(My("fault") + "->side == Fault::Side::" + Enumerator(Name(outcome().operation)));
  }
  if (step().choice < 2) {
    ExpectHost(My("host"));
  } else if (outcome().number) {
    Equal(My("value"), Literal(*outcome().number));
  }
  if (step().choice == 5) {
    True(My("swapped"), outcome().swapped);
  }
}

// One that no Try access has made: where it happened, nothing recovers.
void Steps::ForeignFault() {
  constexpr std::pair<std::string_view, std::string_view> kFaults[] = {
      {"SIGSEGV", "SEGV_MAPERR"}, {"SIGSEGV", "SEGV_ACCERR"},  {"SIGSEGV", "SEGV_PKUERR"}, {"SIGSEGV", "SI_USER"},
      {"SIGBUS", "BUS_ADRERR"},   {"SIGBUS", "BUS_MCEERR_AR"}, {"SIGBUS", "BUS_ADRALN"},   {"SIGTRAP", "TRAP_BRKPT"}};
  const auto [signal, code] = kFaults[step().choice];
  out_.Line({"siginfo_t ", My("info"), " = {};"});
  out_.Line({My("info"), ".si_signo = ", signal, ";"});
  out_.Line({My("info"), ".si_code = ", code, ";"});
  out_.Line({"ucontext_t ", My("context"), " = {};"});
  out_.Line({My("context"), ".uc_mcontext.gregs[REG_RIP] = ", step().choice % 2 == 0 ? "0" : "-1", ";"});
  out_.Line({"const uint64_t ", My("recovered"), " = RecoveredFaults();"});
  True("TryHandleFault(" + std::string(signal) + ", &" + My("info") + ", &" + My("context") + ")", false);
  Equal("RecoveredFaults()", My("recovered"));
  True("FaultHandlerIsInstalled()");
}

}  // namespace reference::gtest
