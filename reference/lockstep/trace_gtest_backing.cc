// The backing of a generated test, with as much in it as the trace needs.

#include <algorithm>
#include <functional>

#include "reference/lockstep/trace_gtest_facts.h"

namespace reference::gtest {
namespace {

constexpr std::string_view kScripted = "BackendError(StatusCode::kAborted, \"scripted\"";

// One `case` an answer, those that answer alike together; kDefault is the default.
template <typename Answer>
void Cases(const std::vector<Answer>& script, Answer after, Source& out,
           const std::function<void(Answer)>& statements) {
  for (size_t i = 0; i < script.size(); ++i) {
    if (script[i] == after) {
      continue;
    }
    out.Line({"case ", std::to_string(i), ":"});
    if (i + 1 < script.size() && script[i + 1] == script[i]) {
      continue;
    }
    statements(script[i]);
  }
}

void HandlerStatements(HandlerAnswer answer, bool bitmaps, Source& out) {
  const auto fix = [&](std::string_view last) {
    out.Line(
        {"  if (Status status = PutInOrder(fault, ", last, "); !status.ok()) return PageFaultAction::Fail(status);"});
  };
  switch (answer) {
    case HandlerAnswer::kDefault: break;
    case HandlerAnswer::kFail: out.Line({"  return PageFaultAction::Fail(", kScripted, "));"}); return;
    case HandlerAnswer::kFailOk: out.Line("  return PageFaultAction::Fail(Status());"); return;
    case HandlerAnswer::kFailNoFallback: out.Line("  return PageFaultAction::Fail(NoFallback());"); return;
    case HandlerAnswer::kFailElsewhere:
      out.Line({"  return PageFaultAction::Fail(", kScripted, ", fault.address + 1, 1));"});
      return;
    case HandlerAnswer::kFallback: out.Line("  return PageFaultAction::Fallback();"); return;
    case HandlerAnswer::kRetry: break;
    case HandlerAnswer::kFixRetry: fix("fault.address"); break;
    case HandlerAnswer::kFixAllRetry: fix("fault.address + fault.length - 1"); break;
    case HandlerAnswer::kRefuseRetry:
    case HandlerAnswer::kRefuseLastRetry:
      fix("fault.address");
      if (bitmaps) {
        out.Line({"  SetBit(",
                  answer == HandlerAnswer::kRefuseRetry ? "0" : "(fault.address + fault.length - 1) / kPageSize",
                  ", fault.access, false);"});
      }
      break;
    case HandlerAnswer::kVanishRetry:
      fix("fault.address");
      out.Line("  if (Status status = ram->Protect(0, kPageSize, SparseMapping::Protection::kNone); !status.ok()) {");
      out.Line("    return PageFaultAction::Fail(status);");
      out.Line("  }");
      out.Line("  if (page[0] != Page::kBus) page[0] = Page::kHole;");
      break;
  }
  out.Line("  return PageFaultAction::Retry();");
}

void Handler(const Facts& facts, Source& out) {
  out.Blank();
  out.Line("PageFaultAction PageFault(const PageFaultInfo& fault) override {");
  out.Line(
      "Note(\"page_fault on \" + AccessName(fault.access) + (fault.bitmap_failure ? \" by the bitmap\" : \"\"), "
      "{{fault.address, fault.length}});");
  if (!facts.world.handler.empty()) {
    out.Line("switch (calls_.handler++) {");
    Cases<HandlerAnswer>(facts.world.handler, HandlerAnswer::kDefault, out,
                         [&](HandlerAnswer answer) { HandlerStatements(answer, facts.bitmaps, out); });
    out.Line("}");
  }
  out.Line("return GuestMemoryAccess::PageFault(fault);");
  out.Line("}");
}

void PutInOrder(const Facts& facts, Source& out) {
  out.Blank();
  out.Line("// Allows the access on each page from the fault's to that of `last`, or makes them memory again.");
  out.Line("Status PutInOrder(const PageFaultInfo& fault, uint64_t last) {");
  out.Line("for (uint64_t i = fault.address / kPageSize; i <= last / kPageSize; ++i) {");
  if (facts.bitmaps) {
    out.Line("if (fault.bitmap_failure) {");
    out.Line("SetBit(i, fault.access, true);");
    out.Line("continue;");
    out.Line("}");
  }
  if (facts.tracks) {
    out.Line("if (page[i] == Page::kRam) continue;");
    out.Line("const bool missing = page[i] == Page::kBus;");
    if (facts.second_host_call) {
      out.Line("g_two_host_calls = missing;");
    }
    out.Line("Status status = missing ? ram->Allocate(i * kPageSize, kPageSize)");
    out.Line(
        "                        : ram->Protect(i * kPageSize, kPageSize, SparseMapping::Protection::kReadWrite);");
    if (facts.second_host_call) {
      out.Line("g_two_host_calls = false;");
    }
    out.Line("if (!status.ok()) return status;");
    out.Line("page[i] = Page::kRam;");
  }
  out.Line("}");
  out.Line("return {};");
  out.Line("}");
}

void NextFallback(const Facts& facts, Source& out) {
  out.Blank();
  out.Line("// How much of a fallback is done, and what it then says. `partly`: what it may do before it fails.");
  out.Line("std::pair<uint64_t, Status> NextFallback([[maybe_unused]] uint64_t address, uint64_t length,");
  out.Line("                                         [[maybe_unused]] uint64_t partly) {");
  out.Line("switch (calls_.fallback++) {");
  Cases<FallbackAnswer>(facts.world.fallback, FallbackAnswer::kDo, out, [&](FallbackAnswer answer) {
    const auto give = [&](std::string_view moved, std::string_view status) {
      out.Line({"  return {", moved, ", ", status, "};"});
    };
    const std::string scripted(kScripted);
    switch (answer) {
      case FallbackAnswer::kDo: break;
      case FallbackAnswer::kNone: give("0", "NoFallback()"); break;
      case FallbackAnswer::kFail: give("0", scripted + ")"); break;
      case FallbackAnswer::kFailMoved: give("partly", scripted + ", address + partly, partly)"); break;
      case FallbackAnswer::kFailAt: give("0", scripted + ", address + length / 2)"); break;
      case FallbackAnswer::kFailOutside: give("0", scripted + ", address + length + 1, length + 1)"); break;
      case FallbackAnswer::kFailBlank: give("0", "BackendError(StatusCode::kOk, \"\", address - 1)"); break;
      case FallbackAnswer::kFailForeign: give("0", "ForeignError(address)"); break;
      case FallbackAnswer::kFailOkResult:
        give("0", "partly == 0 ? Result<bool>(Status()).status() : " + scripted + ")");  // only an exchange moves nothing in part
        break;
    }
  });
  out.Line("}");
  out.Line("return {length, Status()};");
  out.Line("}");
}

// A fallback that moves bytes: `parameters` after the address, what is noted, and how `moved` of `length` bytes are
// moved.
void Fallback(const Facts& facts, Source& out, std::string_view method, std::string_view parameters,
              std::string_view name, std::string_view length, std::string_view noted, std::string_view move) {
  out.Line({"Status ", method, "(uint64_t address, ", parameters, ") override {"});
  out.Line({"Note(\"", name, "\", {{address, ", length, noted, "}});"});
  if (facts.world.fallback.empty()) {
    out.Line({"const uint64_t moved = ", length, ";"});
  } else {
    out.Line({"auto [moved, status] = NextFallback(address, ", length, ", std::min<uint64_t>(3, ", length, "));"});
  }
  out.Line(move);
  out.Line(facts.world.fallback.empty() ? "return {};" : "return status;");
  out.Line("}");
}

void Fallbacks(const Facts& facts, Source& out) {
  if (!facts.world.fallback.empty()) {
    NextFallback(facts, out);
  }
  if (!facts.fallbacks.empty()) {
    out.Blank();
  }
  if (facts.fallbacks.contains(CallKind::kReadFallback)) {
    Fallback(facts, out, "ReadFallback", "std::span<std::byte> destination", "read_fallback", "destination.size()", "",
             "std::memcpy(destination.data(), slow.data() + address, moved);");
  }
  if (facts.fallbacks.contains(CallKind::kWriteFallback)) {
    Fallback(facts, out, "WriteFallback", "std::span<const std::byte> source", "write_fallback", "source.size()", "",
             "std::memcpy(slow.data() + address, source.data(), moved);");
  }
  if (facts.fallbacks.contains(CallKind::kFillFallback)) {
    Fallback(facts, out, "FillFallback", "uint8_t value, uint64_t length", "fill_fallback", "length", ", value",
             "std::memset(slow.data() + address, value, moved);");
  }
  if (!facts.fallbacks.contains(CallKind::kCompareExchangeFallback)) {
    return;
  }
  out.Line("Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,");
  out.Line("                                     std::span<const std::byte> desired) override {");
  out.Line("uint64_t words[2] = {};");
  out.Line("std::memcpy(&words[0], current.data(), current.size());");
  out.Line("std::memcpy(&words[1], desired.data(), desired.size());");
  out.Line("Note(\"compare_exchange_fallback\", {{address, desired.size(), words[0], words[1]}});");
  if (!facts.world.fallback.empty()) {
    out.Line("if (Status status = NextFallback(address, desired.size(), 0).second; !status.ok()) return status;");
  }
  out.Line("const bool swapped = std::memcmp(slow.data() + address, current.data(), current.size()) == 0;");
  out.Line("std::memcpy(current.data(), slow.data() + address, current.size());");
  out.Line("if (swapped) std::memcpy(slow.data() + address, desired.data(), desired.size());");
  out.Line("return swapped;");
  out.Line("}");
}

void Locks(const Facts& facts, Source& out) {
  const auto& script = facts.world.lock;
  if (!script.empty()) {
    out.Blank();
    out.Line("// What the next LockGpns or ExposeVa says; it may name an address inside its range, or one outside.");
    out.Line(
        "Status NextLock([[maybe_unused]] uint64_t inside, [[maybe_unused]] uint64_t outside, [[maybe_unused]] "
        "uint64_t foreign) {");
    out.Line("switch (calls_.lock++) {");
    Cases<LockAnswer>(script, LockAnswer::kOk, out, [&](LockAnswer answer) {
      switch (answer) {
        case LockAnswer::kOk: break;
        case LockAnswer::kFail: out.Line({"  return ", kScripted, ");"}); break;
        case LockAnswer::kFailNotMapped: out.Line("  return NotMapped();"); break;
        case LockAnswer::kFailAt: out.Line({"  return ", kScripted, ", inside);"}); break;
        case LockAnswer::kFailOutside: out.Line({"  return ", kScripted, ", outside);"}); break;
        case LockAnswer::kFailForeign: out.Line("  return ForeignError(foreign);"); break;
      }
    });
    out.Line("}");
    out.Line("return {};");
    out.Line("}");
  }
  out.Blank();
  out.Line("Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {");
  out.Line("Note(\"lock_gpns to \" + AccessName(access), gpns);");
  if (!script.empty()) {
    out.Line({facts.managed ? "Status status = " : "return ", "NextLock(gpns.back() * kPageSize + kPageSize / 2, ",
              "(*std::max_element(gpns.begin(), gpns.end()) + 1) * kPageSize, gpns.front() * kPageSize + 1);"});
    if (facts.managed) {
      out.Line("return status.ok() && bits ? bits->Lock(gpns) : status;");
    }
  } else {
    out.Line(facts.managed ? "return bits ? bits->Lock(gpns) : Status();" : "return {};");
  }
  out.Line("}");
  out.Line("void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override {");
  out.Line("Note(\"unlock_gpns to \" + AccessName(access), gpns);");
  if (facts.managed) {
    out.Line("if (bits) (void)bits->Unlock(gpns);");
  }
  out.Line("}");
  out.Line("Status ExposeVa(uint64_t address, uint64_t length) override {");
  out.Line("Note(\"expose_va\", {{address, length}});");
  out.Line(script.empty() ? "return {};" : "return NextLock(address + length / 2, address + length, address + 1);");
  out.Line("}");
}

void Hook(const Facts& facts, Source& out) {
  out.Blank();
  out.Line(
      "Result<std::optional<GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking) "
      "override {");
  out.Line("Note(\"subrange\", {{offset, length, allow_preemptive_locking}});");
  if (!facts.world.subrange.empty()) {
    out.Line("switch (calls_.subrange++) {");
    Cases<SubrangeAnswer>(facts.world.subrange, SubrangeAnswer::kDefault, out, [&](SubrangeAnswer answer) {
      switch (answer) {
        case SubrangeAnswer::kDefault: break;
        case SubrangeAnswer::kOwn:
          out.Line("  return std::optional(OwnView().Subrange(offset, length).value());");
          break;
        case SubrangeAnswer::kWrongSize:
          out.Line("  if (length == size) return std::optional(OwnView().Subrange(0, length - 1).value());");
          out.Line(
              "  return std::optional(GuestMemory::CreateMultiRegion(\"own\", 4 * kPageSize, "
              "{std::make_shared<Own>(*this), nullptr}).value());");
          break;
        case SubrangeAnswer::kFail: out.Line({"  return ", kScripted, ");"}); break;
        case SubrangeAnswer::kFailAt: out.Line({"  return ", kScripted, ", offset + length / 2);"}); break;
        case SubrangeAnswer::kFailOutside: out.Line({"  return ", kScripted, ", offset + length + 1);"}); break;
        case SubrangeAnswer::kFailBelow: out.Line({"  return ", kScripted, ", offset - 1);"}); break;
        case SubrangeAnswer::kFailForeign: out.Line("  return ForeignError(offset);"); break;
        case SubrangeAnswer::kFailOkResult: out.Line("  return Status();"); break;
      }
    });
    out.Line("}");
  }
  out.Line("return std::optional<GuestMemory>();");
  out.Line("}");
}

// The views that a backing gives of its own.
constexpr std::string_view kOwnClass = R"(
  // The backing as its own views show it: no mapping, all by the fallbacks.
  class Own final : public GuestMemoryAccess {
   public:
    explicit Own(Backing& of) : of_(of) {}
    std::byte* mapping() const override { return nullptr; }
    uint64_t max_address() const override { return of_.size; }
    Status ReadFallback(uint64_t address, std::span<std::byte> destination) override {
      return of_.ReadFallback(address, destination);
    }
    Status WriteFallback(uint64_t address, std::span<const std::byte> source) override {
      return of_.WriteFallback(address, source);
    }
    Status FillFallback(uint64_t address, uint8_t value, uint64_t length) override {
      return of_.FillFallback(address, value, length);
    }
    Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,
                                         std::span<const std::byte> desired) override {
      return of_.CompareExchangeFallback(address, current, desired);
    }

   private:
    Backing& of_;
  };
  GuestMemory OwnView() { return GuestMemory::Create("own", std::make_shared<Own>(*this)).value(); }
)";

constexpr std::string_view kBitmaps = R"(
  // A bitmap for each access, all bits set. Each ends where nothing is mapped, and bits of no page are unlike their neighbours.
  void MakeBitmaps(uint8_t bit_offset) {
    const uint64_t pages = (size + kPageSize - 1) / kPageSize;
    const uint64_t bytes = (bit_offset + pages + 7) / 8;
    for (uint64_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(bitmap_pages_->Allocate(2 * i * kPageSize, kPageSize).ok());
      bits_[i] = reinterpret_cast<uint8_t*>(bitmap_pages_->mapping()) + (2 * i + 1) * kPageSize - bytes;
      std::memset(bits_[i] - 8, 0x5a, 8 + bytes);
    }
    bitmap = BitmapInfo{bits_[0], bits_[1], bits_[2], bit_offset};
    for (uint64_t i = 0; i < pages; ++i) {
      for (const AccessType access : {AccessType::kRead, AccessType::kWrite, AccessType::kExecute}) {
        SetBit(i, access, true);
      }
    }
  }
  void SetBit(uint64_t i, AccessType access, bool bit) {
)";
// Where bits are managed.
constexpr std::string_view kSetManagedBit = R"(    if (bits) {
      if (bits->IsAllowed(i, access) == bit) return;
      const auto mask = static_cast<AccessMask>(1 << static_cast<int>(access));
      (void)(bit ? bits->Grant({i, 1}, mask) : bits->Revoke({i, 1}, mask));  // a locked page stays as it is
      return;
    }
)";
constexpr std::string_view kSetBit = R"(    if (!bitmap) return;
    uint8_t& byte = bits_[static_cast<size_t>(access)][(bitmap->bit_offset + i) / 8];
    const auto mask = static_cast<uint8_t>(1u << (bitmap->bit_offset + i) % 8);
    byte = static_cast<uint8_t>(bit ? byte | mask : byte & ~mask);
  }
)";

constexpr std::string_view kBits = R"(
  // Those for reading, writing and executing, a page each; what has no bitmap has none.
  std::vector<std::string> Bits() const {
    const uint8_t* const bitmaps[] = {bitmap->read, bitmap->write, bitmap->execute};
    std::vector<std::string> all(3);
    for (size_t access = 0; access < 3; ++access) {
)";
constexpr std::string_view kManagedBits = R"(      for (uint64_t i = 0; bits && i < 4; ++i) {
        all[access] += bits->IsAllowed(i, static_cast<AccessType>(access)) ? '1' : '0';
      }
      if (bits) continue;
)";
constexpr std::string_view kOwnBits =
    R"(      for (uint64_t i = 0; bitmaps[access] != nullptr && i < (size + kPageSize - 1) / kPageSize; ++i) {
        const uint64_t bit = bitmap->bit_offset + i;
        all[access] += (bitmaps[access][bit / 8] >> bit % 8 & 1) != 0 ? '1' : '0';
      }
    }
    return all;
  }
)";

// What GuestMemory asks first.
void Promises(const Facts& facts, Source& out) {
  const std::string mapping =
      facts.creates ? "ram->mapping() + (broken == Promise::kMapping ? 8 : 0)" : "ram->mapping()";
  const std::string_view lie = facts.fickle ? " != lies" : "";
  if (facts.unmapped || facts.fickle) {
    out.Line({"std::byte* mapping() const override { return mapped", lie, " ? ", mapping, " : nullptr; }"});
  } else {
    out.Line({"std::byte* mapping() const override { return ", mapping, "; }"});
  }
  out.Line({"uint64_t max_address() const override { return ",
            facts.creates ? "broken == Promise::kSize ? uint64_t{1} << 63 : " : "", facts.fickle ? "lies ? 1 : " : "",
            "size; }"});
  if (facts.bitmaps || facts.fickle) {
    const std::string_view info = facts.fickle ? "bitmap.has_value() == lies ? std::nullopt : bitmap;" : "bitmap;";
    if (facts.creates) {
      out.Line("std::optional<BitmapInfo> access_bitmap() const override {");
      out.Line({"std::optional<BitmapInfo> info = ", info});
      out.Line("if (info && broken == Promise::kBitOffset) info->bit_offset = 8;");
      out.Line("return info;");
      out.Line("}");
    } else {
      out.Line({"std::optional<BitmapInfo> access_bitmap() const override { return ", info, " }"});
    }
  }
  if (facts.iova || facts.fickle) {
    out.Line({"std::optional<uint64_t> base_iova() const override { return ",
              facts.fickle ? "iova.has_value() == lies ? std::nullopt : " : "", "iova; }"});
  }
  if (facts.lockable) {
    out.Line({"bool supports_locking() const override { return lockable", lie, "; }"});
  }
  if (facts.files) {
    out.Line("std::vector<SharedFile> sharing() const override { return files; }");
  }
}

void Fields(const Facts& facts, Source& out) {
  out.Blank();
  out.Line("const std::shared_ptr<SparseMapping> ram = SparseMapping::Create(4 * kPageSize).value();");
  out.Line("const uint64_t size;");
  if (facts.unmapped || facts.fickle) {
    out.Line("bool mapped = true;");
  }
  if (facts.lockable) {
    out.Line("bool lockable = true;");
  }
  if (facts.fickle) {
    out.Line("bool lies = false;  // of what must be stable; nobody may ask again");
  }
  if (facts.creates) {
    out.Line("enum class Promise : uint8_t { kNone, kSize, kMapping, kBitOffset };");
    out.Line("Promise broken = Promise::kNone;  // while memory is made over it");
  }
  if (facts.iova || facts.fickle) {
    out.Line("std::optional<uint64_t> iova;");
  }
  if (facts.bitmaps || facts.fickle) {
    out.Line("std::optional<BitmapInfo> bitmap;");
  }
  if (facts.managed) {
    out.Line("std::shared_ptr<AccessBitmap> bits;  // null: `bitmap` is the backing's own");
  }
  if (facts.files) {
    out.Line("std::vector<SharedFile> files;");
  }
  if (facts.tracks) {
    out.Line("enum class Page : uint8_t { kRam, kReadOnly, kHole, kBus };");
    out.Line("std::array<Page, 4> page = {};  // what each is now");
  }
  if (!facts.fallbacks.empty()) {
    out.Line("Bytes slow;  // what the fallbacks work on");
  }
  if (facts.calls || facts.bitmaps) {
    out.Blank();
    out.Line("private:");
  }
  if (facts.calls) {
    out.Line("void Note(const std::string& what, std::span<const uint64_t> numbers) {");
    out.Line("calls_.Note(what + \" of backing \" + std::to_string(index_), numbers);");
    out.Line("}");
    out.Blank();
    out.Line("Calls& calls_;");
    out.Line("const uint64_t index_;");
  }
  if (facts.bitmaps) {
    out.Line("const std::shared_ptr<SparseMapping> bitmap_pages_ = SparseMapping::Create(6 * kPageSize).value();");
    out.Line("std::array<uint8_t*, 3> bits_ = {};");
  }
}

}  // namespace

std::string BackingClass(const Facts& facts) {
  Source out;
  out.Line("// Four pages of memory, of which `size` bytes are shown.");
  out.Line("class Backing final : public GuestMemoryAccess {");
  out.Line("public:");
  out.Line({facts.calls
                ? "Backing(Calls& calls, uint64_t index, uint64_t size) : size(size), calls_(calls), index_(index) {"
                : "Backing(uint64_t index, uint64_t size) : size(size) {"});
  out.Line("EXPECT_TRUE(ram->Allocate(0, 4 * kPageSize).ok());");
  out.Line("for (uint64_t i = 0; i < 4 * kPageSize; ++i) {");
  out.Line("ram->mapping()[i] = std::byte{InitialByte(index, i)};");
  out.Line("}");
  if (!facts.fallbacks.empty()) {
    out.Line("slow = Slow(index, 0, 4 * kPageSize);");
  }
  out.Line("}");
  Promises(facts, out);
  if (facts.handler) {
    Handler(facts, out);
  }
  if (facts.fixes) {
    PutInOrder(facts, out);
  }
  Fallbacks(facts, out);
  if (facts.locks) {
    Locks(facts, out);
  }
  if (facts.hooks) {
    Hook(facts, out);
  }
  if (facts.own) {
    out.Block(kOwnClass);
  }
  if (facts.bitmaps) {
    out.Block(kBitmaps);
    out.Block(facts.managed ? kSetManagedBit : "");
    out.Block(kSetBit);
    out.Block(kBits);
    out.Block(facts.managed ? kManagedBits : "");
    out.Block(kOwnBits);
  }
  out.Blank();
  out.Line("Bytes Contents() const {");
  out.Line("Bytes bytes(4 * kPageSize);");
  out.Line("std::memcpy(bytes.data(), ram->mapping(), bytes.size());");
  out.Line("return bytes;");
  out.Line("}");
  Fields(facts, out);
  out.Line("};");
  out.Blank();
  return out.text();
}

}  // namespace reference::gtest
