// Memory that steps make, and what is behind it.

#include <algorithm>

#include "reference/lockstep/trace_gtest_steps.h"
#include "reference/trace/words.h"

namespace reference::gtest {
namespace {

std::string Created(std::string_view how) { return "GuestMemory::" + std::string(how) + "(\"" + kMadeName + "\", "; }
std::string MadeName(uint64_t made) { return "made" + std::to_string(made); }

uint64_t WholePages(uint64_t bytes) { return (bytes + kPageSize - 1) / kPageSize * kPageSize; }

}  // namespace

bool Steps::MadeStep() {
  switch (step().kind) {
    case StepKind::kMake: Make(); return true;
    case StepKind::kCreate: Create(); return true;
    case StepKind::kSharing: ShowFiles(); return true;
    case StepKind::kInnerBuffer: InnerBuffer(); return true;
    case StepKind::kMove:
      if (step().target != 0 && IsHeld(step().target)) {
        const bool itself = step().slot == step().target;
        if (itself) {
          out_.Line({"GuestMemory& ", My("itself"), " = ", Slot(step().target), ";"});
        }
        out_.Line({Slot(step().slot), " = std::move(", itself ? My("itself") : Slot(step().target), ");"});
        held_handles_[step().slot] = true;
      }
      return true;
    case StepKind::kStarve:
      out_.Line({"detail::SetErrorMemory(", step().choice == 0 ? "true" : "false", ");"});
      return true;
    default: return false;
  }
}

// `result` becomes the handle.
void Steps::TakeHandle(uint8_t slot) {
  out_.Line({Slot(slot), " = *std::move(", My("result"), ");"});
  held_handles_[slot] = true;
}

void Steps::Make() {
  const std::string bytes = Number(step().bytes);
  switch (static_cast<Made>(step().choice)) {
    case Made::kEmpty:
      out_.Line({Slot(step().slot), " = GuestMemory::Empty();"});
      held_handles_[step().slot] = true;
      break;
    case Made::kHeap: MakeHeap(); break;
    case Made::kShared: MakeShared(); break;
    case Made::kSparse: MakeSparse(); break;
    case Made::kBitmap:
      if (CallResult("std::shared_ptr<AccessBitmap>", "AccessBitmap::Create(\"bitmap\", " + bytes + ", false)")) {
        Equal("(*" + My("result") + ")->pages()", Literal(*outcome().number));
      }
      break;
    case Made::kBare:
      if (CallResult("GuestMemory", Created("Create") + "std::make_shared<Bare>(" + bytes + "))", true)) {
        ++made_;
        TakeHandle(step().slot);
      }
      break;
  }
}

// Where the new memory is on the host, and that it is aligned as well as its size allows.
void Steps::KeepMade(const std::string& mapping, uint64_t size) {
  uint64_t alignment = kPageSize;
  for (const uint64_t page : {uint64_t{1} << 21, uint64_t{1} << 30}) {
    alignment = size >= page ? page : alignment;
  }
  const std::string made = MadeName(made_++);
  out_.Line({"const auto* const ", made, " = reinterpret_cast<const uint8_t*>(", mapping, ");"});
  Equal("reinterpret_cast<uintptr_t>(" + made + ") % " + Number(alignment), Literal(*outcome().number));
}

void Steps::MakeHeap() {
  if (CallResult("GuestMemory", "GuestMemory::Allocate(" + Number(step().bytes) + ")", true)) {
    KeepMade(My("result") + "->InnerBuffer()->data()", WholePages(step().bytes));
    TakeHandle(step().slot);
  }
}

void Steps::MakeShared() {
  if (CallResult("std::shared_ptr<SharedMemory>", "SharedMemory::Create(" + Number(step().bytes) + ")", true)) {
    const auto is_shown = [&](const Ran& ran) {
      return std::any_of(ran.outcome.files.begin(), ran.outcome.files.end(),
                         [&](const File& file) { return file.file == kMaxBackings + made_; });
    };
    if (std::any_of(facts_.steps.begin(), facts_.steps.end(), is_shown)) {
      out_.Line({"const int ", MadeName(made_), "_file = (*", My("result"), ")->fd();"});
    }
    KeepMade("(*" + My("result") + ")->mapping()", WholePages(step().bytes));
    out_.Line({Slot(step().slot), " = " + Created("Create") + "*std::move(", My("result"), ")).value();"});
    held_handles_[step().slot] = true;
  }
}

void Steps::MakeSparse() {
  const bool no_bits = outcome().text.starts_with("guest memory 'bitmap'");
  if (!CallResult("std::shared_ptr<SparseMapping>", "SparseMapping::Create(" + Number(step().bytes) + ")", true,
                  "result", outcome().ok || no_bits)) {
    return;
  }
  const uint64_t size = WholePages(step().bytes);
  std::string backing = "*std::move(" + My("result") + ")";
  if (step().form == 1) {
    const std::string pages = Number(size / kPageSize);
    if (!CallResult("std::shared_ptr<AccessBitmap>", "AccessBitmap::Create(\"bitmap\", " + pages + ", false)", true,
                    "bits", !no_bits)) {
      return;
    }
    const std::string bits = "(*" + My("bits") + ")->";
    True(bits + "Grant({0, " + pages + "}, kAllAccess).ok()");
    if (step().value < size / kPageSize) {
      True(bits + "Revoke({" + Number(step().value) + ", 1}, kAllAccess).ok()");
    } else {
      out_.Line(
          {"(void)", bits, "Revoke({", Number(step().value), ", 1}, kAllAccess);  // beyond the last page: refused"});
    }
    backing = "std::make_shared<Guarded>(" + backing + ", *std::move(" + My("bits") + "))";
  }
  KeepMade("(*" + My("result") + ")->mapping()", size);
  out_.Line({Slot(step().slot), " = " + Created("Create"), backing, ").value();"});
  held_handles_[step().slot] = true;
}

void Steps::Create() {
  const auto promise = static_cast<Promise>(step().choice);
  const bool breaks = promise != Promise::kNone && promise != Promise::kNull && backing().present;
  const auto lie = [&](std::string_view lies) {
    for (size_t i = 0; i < facts_.world.backings.size(); ++i) {
      if (facts_.world.backings[i].present && facts_.world.backings[i].fickle) {
        out_.Line({"backing", std::to_string(i), "->lies = ", lies, ";"});
      }
    }
  };
  constexpr std::string_view kBroken[] = {"", "", "kSize", "kMapping", "kBitOffset"};
  lie("false");
  if (breaks) {
    out_.Line({Self(), "->broken = Backing::Promise::", kBroken[step().choice], ";"});
  }
  const std::string options =
      step().slot == 1 ? ", {.install_fault_handler = false})" : ")";  // one is installed already
  std::string backings = "backings";
  if (step().form == 0) {
    backings = promise == Promise::kNull ? "nullptr" : "backings[" + std::to_string(step().backing) + "]";
  } else if (promise == Promise::kNull) {
    backings = My("some");
    out_.Line({"std::vector<std::shared_ptr<GuestMemoryAccess>> ", backings, " = backings;"});
    out_.Line({backings, "[", std::to_string(step().backing), "] = nullptr;"});
  }
  const std::string call = step().form == 1 ? Created("CreateMultiRegion") + Number(step().bytes) + ", "
                                            : Created("Create");
  if (CallResult("GuestMemory", call + backings + options, true)) {
    TakeHandle(step().slot);
  }
  if (breaks) {
    out_.Line({Self(), "->broken = Backing::Promise::kNone;"});
  }
  lie("true");
}

void Steps::ShowFiles() {
  std::string list;
  const auto fd = [](const File& file) {
    return file.file < kMaxBackings ? std::to_string(kFirstFile + file.file)
                                    : MadeName(file.file - kMaxBackings) + "_file";
  };
  for (const File& file : outcome().files) {
    list += (list.empty() ? "" : ", ") + ("SharedFile{" + fd(file)) + ", " + Number(file.offset) + ", " +
            Number(file.address) + ", " + Number(file.size) + "}";
  }
  out_.Line({"EXPECT_THAT(", Handle(), ".sharing().value(), ",
             list.empty() ? "testing::IsEmpty());" : "testing::ElementsAre(" + list + "));"});
  if (!outcome().number) {
    return;
  }
  // Of SharedMemory: a file that nobody can make smaller, with the memory's bytes in it.
  const File& file = outcome().files.back();
  Equal("fcntl(" + fd(file) + ", F_GET_SEALS) & (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)",
        "F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW");
  out_.Line({"Bytes ", My("bytes"), "(", std::to_string(outcome().data.size()), ");"});
  Equal("pread(" + fd(file) + ", " + My("bytes") + ".data(), " + My("bytes") + ".size(), " + Number(file.offset) + ")",
        "static_cast<ssize_t>(" + My("bytes") + ".size())");
  True("Same(" + Bytes(outcome().data, 0) + ", " + My("bytes") + ")");
}

void Steps::InnerBuffer() {
  const std::string buffer = My("buffer");
  constexpr std::string_view kCalls[] = {".InnerBuffer()", ".InnerBufferMutable()", ").TakeInnerBuffer()"};
  const bool takes = step().choice == 2;
  if (!IsHeld(step().target)) {
    out_.Line("// (of a handle that is not there)");
    return;
  }
  out_.Line({"const auto ", buffer, " = ", takes ? "std::move(" : "", Handle(), kCalls[step().choice], ";"});
  if (!outcome().number) {
    Equal(buffer, takes ? "nullptr" : "std::nullopt");
    return;
  }
  out_.Line({takes ? "ASSERT_NE(" : "ASSERT_TRUE(", buffer, takes ? ", nullptr);" : ".has_value());"});
  Equal(buffer + (takes ? "->max_address()" : "->size()"), Literal(*outcome().number));
  if (*outcome().number != 0) {
    const std::string first = takes ? buffer + "->mapping()[0]" : "(*" + buffer + ")[0]";
    out_.Line({first, " = ", step().choice == 0 ? Byte() : FillByte(), ";"});
  }
}

}  // namespace reference::gtest
