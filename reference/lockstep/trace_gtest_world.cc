// The world of a generated test: how its backings are set up, and what must have become of their memory.

#include <type_traits>

#include "reference/lockstep/trace_gtest_facts.h"

namespace reference::gtest {
namespace {

std::string PageOffset(uint64_t page) { return Number(page * kPageSize); }

std::string Variable(std::string_view name, uint64_t i) { return std::string(name) + std::to_string(i); }

void Expect(Source& out, std::string_view call) { out.Line({"ASSERT_TRUE(", call, ".ok());"}); }

void SetUpPage(const std::string& ram, uint64_t page, PageState state, Source& out) {
  const std::string range = PageOffset(page) + ", kPageSize, ";
  switch (state) {
    case PageState::kRam: break;
    case PageState::kReadOnly: Expect(out, ram + "Protect(" + range + "SparseMapping::Protection::kRead)"); break;
    case PageState::kHole: Expect(out, ram + "Protect(" + range + "SparseMapping::Protection::kNone)"); break;
    case PageState::kBus: Expect(out, ram + "MapFile(" + range + "empty_file, 0, true)"); break;
  }
}

std::string FilesOf(Sharing sharing, size_t i, uint64_t size) {
  const std::string fd = std::to_string(kFirstFile + i);
  const auto file = [&](uint64_t offset, uint64_t gpa, uint64_t length) {
    return "{" + fd + ", " + Number(offset) + ", " + Number(gpa) + ", " + Number(length) + "}";
  };
  constexpr uint64_t kLastPage = 0 - kPageSize;
  switch (sharing) {
    case Sharing::kNone: break;
    case Sharing::kWhole: return "{" + file(0, 0, size) + "}";
    case Sharing::kParts: return "{" + file(8192, 4096, 4096) + ", " + file(0, 0, 100) + "}";
    case Sharing::kWild:
      return "{" + file(kLastPage, 0, ~uint64_t{0}) + ", " + file(0, kLastPage, 8192) + ", " +
             file(4096, 4096, kLastPage) + "}";
  }
  return "{}";
}

void SetUpBits(const Backing& backing, const std::string& self, Source& out) {
  if (backing.managed) {
    bool all = true;
    for (uint64_t page = 0; page < backing.pages; ++page) {
      all &= backing.page[page].readable && backing.page[page].writable && backing.page[page].executable;
    }
    const std::string pages = Number((backing.max_address() + kPageSize - 1) / kPageSize);
    out.Line({self, "->bits = AccessBitmap::Create(\"bitmap\", ", pages, ", ", all ? "true" : "false", ").value();"});
    out.Line({self, "->bitmap = ", self, "->bits->info();"});
    for (uint64_t page = 0; page < backing.pages && !all; ++page) {
      const PageSetup& bits = backing.page[page];
      const int mask = (bits.readable ? 1 : 0) | (bits.writable ? 2 : 0) | (bits.executable ? 4 : 0);
      Expect(out, self + "->bits->Grant({" + Number(page) + ", 1}, " + std::to_string(mask) + ")");
    }
    return;
  }
  out.Line({self, "->MakeBitmaps(", Number(backing.bit_offset), ");"});
  for (const Access access : {Access::kRead, Access::kWrite, Access::kExecute}) {
    if (backing.null_bitmap[static_cast<size_t>(access)]) {
      out.Line({self, "->bitmap->", Name(access), " = nullptr;"});
    }
  }
  for (uint64_t page = 0; page < backing.pages; ++page) {
    const PageSetup& bits = backing.page[page];
    const auto clear = [&](bool allowed, Access access) {
      if (!allowed) {
        out.Line({self, "->SetBit(", Number(page), ", AccessType::", Enumerator(Name(access)), ", false);"});
      }
    };
    clear(bits.readable, Access::kRead);
    clear(bits.writable, Access::kWrite);
    clear(bits.executable, Access::kExecute);
  }
}

void SetUpBacking(const Facts& facts, size_t i, Source& out) {
  const Backing& backing = facts.world.backings[i];
  const std::string self = Variable("backing", i);
  out.Line({"const auto ", self, " = std::make_shared<Backing>(", facts.calls ? "calls, " : "", Number(i), ", ",
            Number(backing.max_address()), ");"});
  const auto set = [&](bool differs, std::string_view field, std::string_view value) {
    if (differs) {
      out.Line({self, "->", field, " = ", value, ";"});
    }
  };
  set(!backing.mapped, "mapped", "false");
  set(facts.lockable && !backing.lockable, "lockable", "false");
  set(backing.has_iova, "iova", Number(kIovaBase));
  set(backing.sharing != Sharing::kNone, "files", FilesOf(backing.sharing, i, backing.max_address()));
  for (uint64_t page = 0; page < backing.pages; ++page) {
    SetUpPage(self + "->ram->", page, backing.page[page].state, out);
    set(facts.tracks && backing.page[page].state != PageState::kRam, Variable("page[", page) + "]",
        "Backing::Page::" + Enumerator(Name(backing.page[page].state)));
  }
  if (backing.has_bitmap) {
    SetUpBits(backing, self, out);
  }
}

std::vector<uint8_t> Initially(uint64_t backing, uint8_t (*pattern)(uint64_t, uint64_t)) {
  std::vector<uint8_t> bytes;
  for (uint64_t offset = 0; offset < kMaxPages * kPageSize; ++offset) {
    bytes.push_back(pattern(backing, offset));
  }
  return bytes;
}

// What the callbacks answer, where the backing has them.
template <typename Answer>
void StartAnswers(std::string_view which, bool asked, const std::vector<Answer>& answers, Source& out) {
  constexpr std::string_view kType = std::is_same_v<Answer, HandlerAnswer>    ? "HandlerAnswer"
                                     : std::is_same_v<Answer, FallbackAnswer> ? "FallbackAnswer"
                                     : std::is_same_v<Answer, LockAnswer>     ? "LockAnswer"
                                                                              : "SubrangeAnswer";
  if (!asked || answers.empty()) {
    return;
  }
  std::string list;
  for (const Answer answer : answers) {
    list += (list.empty() ? "" : ", ") + std::string(kType) + "::" + Enumerator(Name(answer));
  }
  out.Line({"calls.", which, ".Start({", list, "});"});
}

}  // namespace

void BuildWorld(const Facts& facts, Source& out) {
  const World& world = facts.world;
  if (facts.calls) {
    out.Line("Calls calls;");
    StartAnswers("handler", facts.handler, world.handler, out);
    StartAnswers("fallback", !facts.fallbacks.empty(), world.fallback, out);
    StartAnswers("lock", facts.locks, world.lock, out);
    StartAnswers("subrange", facts.hooks, world.subrange, out);
  }
  if (facts.bus) {
    out.Line("const int empty_file = memfd_create(\"empty\", MFD_CLOEXEC);  // whatever maps it gets SIGBUS");
    out.Line("ASSERT_GE(empty_file, 0);");
  }
  if (facts.file) {
    out.Line("const int file = memfd_create(\"file\", MFD_CLOEXEC);");
    out.Line({"const Bytes file_bytes = File(0, ", Number(kFilePages * kPageSize), ");"});
    out.Line(
        "ASSERT_EQ(pwrite(file, file_bytes.data(), file_bytes.size(), 0), static_cast<ssize_t>(file_bytes.size()));");
  }
  std::string list;
  for (size_t i = 0; i < world.backings.size(); ++i) {
    list += list.empty() ? "" : ", ";
    if (facts.used[i]) {
      SetUpBacking(facts, i, out);
    }
    if (!world.backings[i].present) {
      list += "nullptr";
      continue;
    }
    const Backing& backing = world.backings[i];
    const std::string handed = Variable("backing", i) + (backing.sparse ? "->ram" : "");
    const std::string_view type = backing.sparse ? "SparseMapping" : "Backing";
    list += backing.wrapped ? "std::make_shared<SharedBacking<" + std::string(type) + ">>(" + handed + ")" : handed;
  }
  const std::string memory = facts.changes_memory ? "GuestMemory memory" : "const GuestMemory memory";
  if (world.region_pages != 0 || facts.creates) {
    out.Line({"const std::vector<std::shared_ptr<GuestMemoryAccess>> backings = {", list, "};"});
  }
  if (world.region_pages == 0) {
    out.Line({memory, " = GuestMemory::Create(\"world\", ", facts.creates ? "backings[0]" : list, ").value();"});
  } else {
    out.Line({memory, " = GuestMemory::CreateMultiRegion(\"world\", ", Number(world.region_pages),
              " * kPageSize, backings).value();"});
  }
  for (size_t i = 0; i < world.backings.size(); ++i) {
    if (world.backings[i].present && world.backings[i].fickle) {
      out.Line({Variable("backing", i), "->lies = true;"});
    }
  }
  if (facts.host_calls) {
    out.Line({"g_calls_to_failure = ", Number(world.failing_host_call), ";"});
    if (world.host_error != HostError::kNoMemory) {
      out.Line({"g_host_error = ", Name(world.host_error), ";"});
    }
    out.Line("detail::SetHostCallFilter(FailHostCall);");
  }
}

void CompareMemory(const Facts& facts, Source& out) {
  out.Blank();
  out.Line("// Memory is as it was, but for what is put here.");
  if (facts.host_calls) {
    out.Line("detail::SetHostCallFilter(nullptr);");
  }
  for (size_t i = 0; i < facts.world.backings.size(); ++i) {
    if (!facts.used[i]) {
      continue;
    }
    const std::string self = Variable("backing", i), expected = Variable("expected", i);
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      const PageState state = facts.states[i][page];
      if (state == PageState::kHole) {
        Expect(out, self + "->ram->Protect(" + PageOffset(page) + ", kPageSize, SparseMapping::Protection::kRead)");
      } else if (state == PageState::kBus) {
        Expect(out, self + "->ram->Allocate(" + PageOffset(page) + ", kPageSize)");
      }
    }
    out.Line({"Bytes ", expected, " = Initial(", Number(i), ", 0, 4 * kPageSize);"});
    PutChanges(facts.names, expected, Initially(i, MappedPattern), facts.mapped[i], out);
    out.Line({"EXPECT_TRUE(Same(", expected, ", ", self, "->Contents()));"});
    if (!facts.fallbacks.empty()) {
      const std::string slow = Variable("slow", i);
      out.Line({"Bytes ", slow, " = Slow(", Number(i), ", 0, 4 * kPageSize);"});
      PutChanges(facts.names, slow, Initially(i, SlowPattern), facts.slow[i], out);
      out.Line({"EXPECT_TRUE(Same(", slow, ", ", self, "->slow));"});
    }
    if (facts.world.backings[i].present && facts.world.backings[i].has_bitmap) {
      const auto& bits = facts.bits[i];
      out.Line({"EXPECT_THAT(", self, "->Bits(), testing::ElementsAre(", Quoted(bits[0]), ", ", Quoted(bits[1]), ", ",
                Quoted(bits[2]), "));"});
    }
  }
  if (facts.bus) {
    out.Line("close(empty_file);");
  }
  if (facts.file) {
    out.Line("close(file);");
  }
}

}  // namespace reference::gtest
