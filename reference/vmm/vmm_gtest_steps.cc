#include "reference/vmm/vmm_gtest_steps.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <utility>

namespace reference::vmm {
namespace {

using gtest::Literal;
using gtest::Number;
using gtest::Quoted;

std::string Type(uint64_t size) { return "uint" + std::to_string(size * 8) + "_t"; }

bool Makes(const Trace& trace, std::initializer_list<OpKind> kinds, Field field, uint64_t slot) {
  return std::any_of(trace.ops.begin(), trace.ops.end(), [&](const Op& op) {
    return op[field] == slot && std::find(kinds.begin(), kinds.end(), op.kind) != kinds.end();
  });
}

}  // namespace

Steps::Steps(const Trace& trace, const std::vector<bool>& host_call_failed, gtest::Source& out)
    : trace_(trace), host_call_failed_(host_call_failed), out_(out) {
  model_.Start(trace.world);
  NameBytes(trace);
  Declare(trace);
}

void Steps::NameBytes(const Trace& trace) {
  const auto add = [&](uint64_t size, uint64_t offsets, bool placed, auto byte, auto spell) {
    std::vector<uint8_t> bytes;
    for (uint64_t i = 0; i < size; ++i) {
      bytes.push_back(byte(i));
    }
    names_.push_back({std::move(bytes), offsets, placed, spell});
  };
  const auto add_placed = [&](uint64_t size, auto byte, const std::string& call) {
    add(size, size, true, byte,
        [call](uint64_t offset, const std::string& n) { return call + Number(offset) + ", " + n + ")"; });
  };
  for (uint64_t number = 0; number < kSpaceBackings && std::any_of(trace.ops.begin(), trace.ops.end(), [](const Op& op) { return op.InSpace(); });
       ++number) {
    add_placed(
        kSpaceBackingPages[number] * kPageBytes, [&](uint64_t i) { return SpaceByte(number, i); }, "Pattern(" + Number(number) + ", ");
  }
  std::set<std::pair<int, uint64_t>> known;
  for (const Op& op : trace.ops) {
    const uint64_t which = op.kind == OpKind::kRegionMap ? op[kFile] % 2
                           : op.kind == OpKind::kNewRom  ? op[kSlot]
                                                         : op[kValue];
    if (!known.insert({static_cast<int>(op.kind), which}).second) {
      continue;
    }
    if (op.kind == OpKind::kRegionMap) {
      add_placed(
          kFileBytes[which], [&](uint64_t i) { return FileByte(which, i); }, "File(" + Number(which) + ", ");
    } else if (op.kind == OpKind::kNewRom) {
      add_placed(
          kMaxPages * kPageBytes, [&](uint64_t i) { return RomByte(which, i); }, "Rom(" + Number(which) + ", ");
    } else if (op.kind == OpKind::kWrite) {
      add(
          kMaxPages * kPageBytes, 1, false, [&](uint64_t i) { return static_cast<uint8_t>(which >> (i % 8 * 8)); },
          [which](uint64_t, const std::string& n) { return "Words(" + Number(which) + ", " + n + ")"; });
    }
  }
}

// What outlives the op that makes it, and may be made anew by another.
void Steps::Declare(const Trace& trace) {
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    const std::string end = std::to_string(slot) + ";";
    const auto declare = [&](std::initializer_list<OpKind> kinds, Field field,
                             std::initializer_list<std::string_view> variables) {
      for (const std::string_view variable : variables) {
        if (Makes(trace, kinds, field, slot)) {
          out_.Line({variable, end});
        }
      }
    };
    declare({OpKind::kNewRegion}, kSlot,
            {"std::unique_ptr<MappableGuestMemory> in_guest", "std::shared_ptr<MappedMemoryRegion> region"});
    declare({OpKind::kNewRom}, kSlot, {"std::shared_ptr<RomMapper> rom"});
    declare({OpKind::kMapRom}, kOther, {"std::unique_ptr<RomMapping> part"});
    declare({OpKind::kNewEvent}, kSlot, {"std::optional<Event> event"});
    declare({OpKind::kRegister}, kSlot, {"std::unique_ptr<Doorbell> bell"});
    declare({OpKind::kLock}, kSlot, {"LockedPages pages"});
  }
  constexpr std::string_view kAnswers[] = {"kPopulates", "kRemoves", "kReplaces", "kFails", "kFallsBack", "kRemovesAndFallsBack"};
  space_ = std::any_of(trace.ops.begin(), trace.ops.end(), [](const Op& op) { return op.InSpace(); });
  if (space_) {
    out_.Line({"auto cast = std::make_unique<SpaceCast>(", kAnswers[trace.world.lazy], ");"});
  }
}

void Steps::Run() {
  for (const Op& op : trace_.ops) {
    op_ = &op;
    fails_ = op[kFail] != 0 && (number_ >= host_call_failed_.size() || host_call_failed_[number_]);
    ++number_;
    for (uint64_t event = 0; event < kSlots; ++event) {
      signalled_[event] = model_.IsSignalled(event);
    }
    bool failed = fails_;
    outcome_ = model_.Run(op, failed);
    out_.Blank();
    out_.Line({"// ", OpText(op)});
    DropOld();
    if (fails_) {
      out_.Line({"HostCallFailure ", My("failure"), "(", std::to_string(op[kFail]), ");"});
    } else if (op[kFail] != 0) {
      out_.Line("// (it makes fewer host calls: none fails)");
    }
    RunOp();
    ExpectSignals();
  }
  ExpectGuest();
  ExpectSpace();
}

// What the op's result takes the place of goes before it begins.
void Steps::DropOld() {
  switch (op().kind) {
    case OpKind::kNewRegion:
      Drop(in_guest_, "in_guest", op()[kSlot]);
      Drop(region_, "region", op()[kSlot]);
      break;
    case OpKind::kNewRom: Drop(rom_, "rom", op()[kSlot]); break;
    case OpKind::kMapRom: Drop(part_, "part", op()[kOther]); break;
    case OpKind::kRegister: Drop(bell_, "bell", op()[kSlot]); break;
    case OpKind::kLock:
      if (std::exchange(pages_[op()[kSlot]], false)) {
        out_.Line({Slot("pages"), " = {};"});
      }
      break;
    default: break;
  }
}

void Steps::Drop(Flags& held, std::string_view name, uint64_t slot) {
  if (std::exchange(held[slot], false)) {
    out_.Line({name, std::to_string(slot), ".reset();"});
  }
}

void Steps::DropAll() {
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    if (std::exchange(pages_[slot], false)) {
      out_.Line({"pages", std::to_string(slot), " = {};"});
    }
  }
  if (space_) {
    ForgetSteps();
    out_.Line("cast.reset();");
  }
  constexpr std::string_view kNames[] = {"bell", "part", "rom", "in_guest", "region", "event"};
  Flags* const held[] = {&bell_, &part_, &rom_, &in_guest_, &region_, &event_};
  for (size_t i = 0; i < std::size(held); ++i) {
    for (uint64_t slot = 0; slot < kSlots; ++slot) {
      Drop(*held[i], kNames[i], slot);
    }
  }
}

// ------------------------------------------------------------------ calls, and what they must give

void Steps::EndFailure() {
  if (std::exchange(fails_, false)) {
    out_.Line({"if (!", My("failure"),
               ".Happened()) GTEST_SKIP() << \"it makes fewer host calls than it did: none failed\";"});
  }
}

void Steps::ExpectError(const std::string& status) {
  const Error& error = *outcome_.error;
  gtest::ExpectError(status,
                     {gtest::Enumerator(error.kind), gtest::Enumerator(error.operation), error.range,
                      error.fault_address, error.gpn, error.transferred},
                     out_);
  const auto text = [&](const std::string& matcher) {
    out_.Line({"EXPECT_THAT(", status, ".ToString(), ", matcher, ");"});
  };
  text("testing::StartsWith(" + Quoted("guest memory '" + error.name + "': ") + ")");
  const std::string read_only = "testing::HasSubstr(\"read-only\")", is_there = "testing::HasSubstr(\"' is there\")";
  if (error.note == "read-only") {
    text(read_only);
  } else if (!error.note.empty()) {
    text("testing::HasSubstr(" + Quoted("'" + error.note + "' is there") + ")");
  } else if (error.kind == "not mapped") {
    text("testing::Not(" + read_only + ")");
  } else if (error.kind == "invalid argument") {
    text("testing::Not(" + is_there + ")");
  }
}

void Steps::Call(const std::string& call) {
  out_.Line({"const Status ", My("status"), " = ", call, ";"});
  EndFailure();
  if (outcome_.error) {
    ExpectError(My("status"));
  } else {
    out_.Line({"EXPECT_TRUE(", My("status"), ".ok()) << ", My("status"), ".ToString();"});
  }
}

bool Steps::CallResult(const std::string& type, const std::string& call, bool moved_from) {
  out_.Line({moved_from ? "Result<" : "const Result<", type, "> ", My("result"), " = ", call, ";"});
  EndFailure();
  if (!outcome_.error) {
    out_.Line({"ASSERT_TRUE(", My("result"), ".ok()) << ", My("result"), ".status().ToString();"});
    return true;
  }
  out_.Line({"const Status ", My("status"), " = ", My("result"), ".status();"});
  ExpectError(My("status"));
  return false;
}

bool Steps::Keep(const std::string& type, const std::string& call, const std::string& place) {
  if (!CallResult(type, call, true)) {
    return false;
  }
  out_.Line({place, " = *std::move(", My("result"), ");"});
  return true;
}

// ------------------------------------------------------------------ the operations

void Steps::RunOp() {
  switch (op().kind) {
    case OpKind::kAddRam: Call("guest->AddRam(" + Gpa() + ", " + Value(kLength) + ")"); break;
    case OpKind::kNewRegion:
    case OpKind::kRegionMap:
    case OpKind::kRegionUnmap:
    case OpKind::kMapToGuest:
    case OpKind::kUnmapFromGuest:
    case OpKind::kDropGuestHalf:
    case OpKind::kDropRegionHalf: Region(); break;
    case OpKind::kNewRom:
    case OpKind::kMapRom:
    case OpKind::kDropPart:
    case OpKind::kDropRom: Rom(); break;
    case OpKind::kRegister:
    case OpKind::kDropBell: Bell(); break;
    case OpKind::kNewEvent:
    case OpKind::kCloneEvent:
    case OpKind::kSignal:
    case OpKind::kTake: Event(); break;
    case OpKind::kRead:
    case OpKind::kWrite:
    case OpKind::kCompareExchange:
    case OpKind::kProbe: Access(); break;
    case OpKind::kLock:
    case OpKind::kUnlock: Lock(); break;
    case OpKind::kSpaceAdd:
    case OpKind::kSpaceRemove:
    case OpKind::kSpaceBegin:
    case OpKind::kSpaceCommit:
    case OpKind::kSpaceView:
    case OpKind::kSpaceListen:
    case OpKind::kSpaceUnlisten:
    case OpKind::kSpacePopulated:
    case OpKind::kSpaceDrop: Space(); break;
  }
  EndFailure();
  ExpectTold();
}

void Steps::NewRegion() {
  if (CallResult("NewMemoryRegion", "guest->NewRegion(" + Value(kLength) + ", " + Quoted(Slot("region")) + ")", true)) {
    out_.Line({Slot("in_guest"), " = std::move(", My("result"), "->guest);"});
    out_.Line({Slot("region"), " = std::move(", My("result"), "->region);"});
    in_guest_[op()[kSlot]] = region_[op()[kSlot]] = true;
  }
}

void Steps::Region() {
  const uint64_t slot = op()[kSlot];
  constexpr std::string_view kFds[] = {"file0", "file1", "read_only_file", "-1"};
  const std::string range = Value(kOffset) + ", ";
  switch (op().kind) {
    case OpKind::kNewRegion: NewRegion(); break;
    case OpKind::kRegionMap:
      if (region_[slot]) {
        Call(Slot("region") + "->Map(" + range + std::string(kFds[op()[kFile]]) + ", " + Value(kFrom) + ", " +
             Value(kLength) + (op()[kForm] == 0 ? ", true)" : ", false)"));
      }
      break;
    case OpKind::kRegionUnmap:
      if (region_[slot]) {
        Call(Slot("region") + "->Unmap(" + range + Value(kLength) + ")");
      }
      break;
    case OpKind::kMapToGuest:
      if (in_guest_[slot]) {
        Call(Slot("in_guest") + "->MapToGuest(" + Gpa() + (op()[kForm] % 2 == 0 ? ", true)" : ", false)"));
      }
      break;
    case OpKind::kUnmapFromGuest:
      if (in_guest_[slot]) {
        Call(Slot("in_guest") + "->UnmapFromGuest()");
      }
      break;
    case OpKind::kDropGuestHalf: Drop(in_guest_, "in_guest", slot); break;
    default: Drop(region_, "region", slot); break;
  }
}

void Steps::Rom() {
  const uint64_t slot = op()[kSlot];
  switch (op().kind) {
    case OpKind::kNewRom:
      out_.Line({"const Bytes ", My("image"), " = Rom(", std::to_string(slot), ", 0, ",
                 Number(std::min(op()[kLength], kMaxPages * kPageBytes)), ");"});
      rom_[slot] = Keep("std::shared_ptr<RomMapper>",
                        "guest->NewRom(std::as_bytes(std::span(" + My("image") + ")), " + Quoted(Slot("rom")) + ")",
                        Slot("rom"));
      break;
    case OpKind::kMapRom:
      if (rom_[slot]) {
        Equal(Slot("rom") + "->length()", Literal(outcome_.number));
        part_[op()[kOther]] = Keep(
            "std::unique_ptr<RomMapping>",
            Slot("rom") + "->MapRom(" + Gpa() + ", " + Value(kOffset) + ", " + Value(kLength) + ")", Other("part"));
      }
      break;
    case OpKind::kDropPart: Drop(part_, "part", slot); break;
    default: Drop(rom_, "rom", slot); break;
  }
}

void Steps::Bell() {
  const uint64_t slot = op()[kSlot];
  if (op().kind == OpKind::kDropBell) {
    Drop(bell_, "bell", slot);
  } else if (event_[op()[kOther]]) {
    const std::string value = op()[kForm] % 2 == 0 ? ".value = " + Value(kValue) : "",
                      length = op()[kForm] < 2 ? ".length = DoorbellLength{" + Value(kSize) + "}" : "",
                      match = value + (value.empty() || length.empty() ? "" : ", ") + length;
    bell_[slot] = Keep("std::unique_ptr<Doorbell>",
                       "guest->RegisterDoorbell(" + Gpa() + ", {" + match + "}, *" + Other("event") + ")", Slot("bell"));
  }
}

void Steps::Event() {
  const uint64_t slot = op()[kSlot];
  if (op().kind != OpKind::kNewEvent && !event_[slot]) {
    return;
  }
  if (op().kind == OpKind::kNewEvent || op().kind == OpKind::kCloneEvent) {
    if (CallResult("Event", op().kind == OpKind::kNewEvent ? "Event::Create()" : Slot("event") + "->Clone()", true)) {
      out_.Line({Slot("event"), ".emplace(*std::move(", My("result"), "));"});
      event_[slot] = true;
    }
  } else if (op().kind == OpKind::kSignal) {
    const bool through = op()[kForm] % 2 == 1;
    out_.Line({through ? "Event::FromFd(dup(" : "", Slot("event"), through ? "->fd())).Signal();" : "->Signal();"});
  } else {
    Take();
  }
}

void Steps::Take() {
  const std::string event = Slot("event");
  if (op()[kForm] % 2 == 1 && signalled_[op()[kSlot]]) {
    out_.Line({"ASSERT_TRUE(IsSignalled(*", event, "));  // else it would wait"});
    Call(event + "->Wait()");
  } else if (CallResult("bool", event + "->TryWait()")) {
    Equal("*" + My("result"), outcome_.flag ? "true" : "false");
  }
}

void Steps::Lock() {
  const uint64_t slot = op()[kSlot];
  if (op().kind == OpKind::kUnlock) {
    if (std::exchange(pages_[slot], false)) {
      out_.Line({Slot("pages"), " = {};"});
    }
    return;
  }
  if (Memory().empty()) {
    return;
  }
  const std::string next = op()[kForm] < 2 ? "" : ", " + Number(op()[kPage] + 1);
  out_.Line({"const std::vector<uint64_t> ", My("gpns"), " = {", Value(kPage), next, "};"});
  pages_[slot] = Keep("LockedPages",
                      Memory() + "LockGpns(AccessType::" + std::string(op()[kForm] % 2 == 0 ? "kRead" : "kWrite") +
                          ", false, " + My("gpns") + ")",
                      Slot("pages"));
}

bool Steps::IsPlain() const {
  const uint64_t size = op()[kSize];
  const bool form =
      op().kind == OpKind::kCompareExchange || (op().kind == OpKind::kRead ? op()[kForm] % 2 == 1 : op()[kForm] == 1);
  return form && op().kind != OpKind::kProbe && (size == 1 || size == 2 || size == 4 || size == 8);
}

void Steps::Access() {
  constexpr std::string_view kProbes[] = {"ProbeReadable", "ProbeWritable", "ProbeExecutable"};
  const std::string gpa = "(" + Gpa() + ", ";
  if (Memory().empty()) {
    return;
  }
  if (IsPlain()) {
    PlainAccess();
  } else if (op().kind == OpKind::kProbe) {
    Call(Memory() + std::string(kProbes[op()[kForm] % 3]) + gpa + Value(kSize) + ")");
  } else if (op().kind == OpKind::kRead) {
    out_.Line({"Bytes ", My("buffer"), "(", Value(kSize), ", 0xa5);"});
    Call(Memory() + "ReadAt" + gpa + "std::as_writable_bytes(std::span(" + My("buffer") + ")))");
    out_.Line(
        {"EXPECT_EQ(Difference(", gtest::BytesExpression(names_, outcome_.data, op()[kAt]), ", ", My("buffer"), "), \"\");"});
  } else if (op().kind == OpKind::kWrite && op()[kForm] >= 2) {
    Call(Memory() + "FillAt" + gpa + "std::byte{" + Number(op()[kValue] & 0xff) + "}, " + Value(kSize) + ")");
  } else if (op().kind == OpKind::kWrite) {
    out_.Line({"const Bytes ", My("data"), " = Words(", Value(kValue), ", ", Value(kSize), ");"});
    Call(Memory() + "WriteAt" + gpa + "std::as_bytes(std::span(" + My("data") + ")))");
  }
}

void Steps::PlainAccess() {
  const uint64_t size = op()[kSize];
  const uint64_t mask = size == 8 ? ~uint64_t{0} : (uint64_t{1} << size * 8) - 1;
  const std::string type = Type(size), value = Number(op()[kValue] & mask);
  if (op().kind == OpKind::kWrite) {
    Call(Memory() + "WritePlain<" + type + ">(" + Gpa() + ", " + value + ")");
  } else if (op().kind == OpKind::kRead) {
    if (CallResult(type, Memory() + "ReadPlain<" + type + ">(" + Gpa() + ")")) {
      uint64_t read = 0;
      for (size_t i = outcome_.data.size(); i > 0; --i) {
        read = read << 8 | outcome_.data[i - 1];
      }
      Equal("*" + My("result"), Literal(read));
    }
  } else if (CallResult("CompareExchangeResult<" + type + ">", Memory() + "CompareExchange<" + type + ">(" + Gpa() + ", " +
                                                                   value + ", " + Number(~op()[kValue] & mask) + ")")) {
    Equal(My("result") + "->swapped", outcome_.flag ? "true" : "false");
    Equal(My("result") + "->value", Literal(outcome_.number));
  }
}

// ------------------------------------------------------------------ what must have come of it

void Steps::ExpectSignals() {
  for (uint64_t event = 0; event < kSlots; ++event) {
    if (event_[event] && model_.IsSignalled(event) != signalled_[event]) {
      out_.Line({model_.IsSignalled(event) ? "EXPECT_TRUE" : "EXPECT_FALSE", "(IsSignalled(*event",
                 std::to_string(event), "));"});
    }
  }
}

void Steps::ExpectGuest() {
  std::string shape;
  for (uint64_t page = 0; page < trace_.world.pages; ++page) {
    shape += model_.Page(page).empty() ? '-' : model_.IsWritable(page) ? 'w' : 'r';
  }
  out_.Blank();
  out_.Line("// What the guest has now: each page, and the events.");
  Equal("Shape(memory, " + std::to_string(trace_.world.pages) + ")", Quoted(shape));
  for (uint64_t page = 0; page < trace_.world.pages; ++page) {
    if (const auto bytes = model_.Page(page); !bytes.empty()) {
      out_.Line({"EXPECT_EQ(Difference(", gtest::BytesExpression(names_, bytes, 0), ", Page(memory, ", std::to_string(page),
                 ")), \"\");"});
    }
  }
  for (uint64_t event = 0; event < kSlots; ++event) {
    if (event_[event]) {
      out_.Line({model_.IsSignalled(event) ? "EXPECT_TRUE" : "EXPECT_FALSE", "(IsSignalled(*event",
                 std::to_string(event), "));"});
    }
  }
}

}  // namespace reference::vmm
