// The backing of a generated test, with as much in it as the trace needs.

#include "reference/lockstep/trace_gtest_facts.h"

namespace reference::gtest {
namespace {

void Handler(const Facts& facts, Source& out) {
  out.Blank();
  out.Line("PageFaultAction PageFault(const PageFaultInfo& fault) override {");
  out.Line(
      "Note(\"page_fault on \" + AccessName(fault.access) + (fault.bitmap_failure ? \" by the bitmap\" : \"\"), "
      "{{fault.address, fault.length}});");
  if (facts.world.handler.empty()) {
    out.Line("return GuestMemoryAccess::PageFault(fault);");
    out.Line("}");
    return;
  }
  out.Line("const HandlerAnswer answer = calls_.handler.Next(index_, fault.address / kPageSize);");
  out.Line("const Handling handling = HandlingOf(answer, fault.address, fault.length);");
  out.Line("switch (handling.ends) {");
  out.Line("case Handling::Ends::kDefault: return GuestMemoryAccess::PageFault(fault);");
  out.Line("case Handling::Ends::kFail: return PageFaultAction::Fail(StatusOf(handling.failure));");
  out.Line("case Handling::Ends::kFallback: return PageFaultAction::Fallback();");
  out.Line("case Handling::Ends::kRetry: break;");
  out.Line("}");
  if (facts.fixes) {
    out.Line("if (handling.fixes) {");
    out.Line("if (Status status = PutInOrder(fault, handling.last); !status.ok()) return PageFaultAction::Fail(status);");
    out.Line("}");
  }
  if (facts.bitmaps) {
    out.Line("if (handling.refuses_at) SetBit(*handling.refuses_at / kPageSize, fault.access, false);");
  }
  if (facts.vanishes) {
    out.Line("if (handling.vanishes) {");
    out.Line("if (Status status = ram->Protect(0, kPageSize, SparseMapping::Protection::kNone); !status.ok()) {");
    out.Line("return PageFaultAction::Fail(status);");
    out.Line("}");
    out.Line("if (page[0] != Page::kBus) page[0] = Page::kHole;");
    out.Line("}");
  }
  out.Line("return PageFaultAction::Retry();");
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
    out.Line("Status status = missing ? ram->Allocate(i * kPageSize, kPageSize)");
    out.Line(
        "                        : ram->Protect(i * kPageSize, kPageSize, SparseMapping::Protection::kReadWrite);");
    out.Line("if (!status.ok()) return status;");
    out.Line("page[i] = Page::kRam;");
  }
  out.Line("}");
  out.Line("return {};");
  out.Line("}");
}

// A fallback that moves bytes: `parameters` after the address, what is noted, and how `moved` of `length` bytes are
// moved.
void Fallback(const Facts& facts, Source& out, std::string_view method, std::string_view parameters,
              std::string_view name, std::string_view length, std::string_view noted, std::string_view move) {
  out.Line({"Status ", method, "(uint64_t address, ", parameters, ") override {"});
  out.Line({"Note(\"", name, "\", {{address, ", length, noted, "}});"});
  out.Line({"if (!IsInside(address, ", length, ")) return NoFallback();"});
  if (facts.world.fallback.empty()) {
    out.Line({"const uint64_t moved = ", length, ";"});
  } else {
    out.Line({"const Reply reply = NextReply(address, ", length, ");"});
    out.Line("const uint64_t moved = reply.moved;");
  }
  out.Line(move);
  out.Line(facts.world.fallback.empty() ? "return {};" : "return StatusOf(reply);");
  out.Line("}");
}

void Fallbacks(const Facts& facts, Source& out) {
  if (facts.fallbacks.empty()) {
    return;
  }
  out.Blank();
  if (!facts.world.fallback.empty()) {
    out.Line("Reply NextReply(uint64_t address, uint64_t length, bool exchange = false) {");
    out.Line("return ReplyOf(calls_.fallback.Next(index_, address / kPageSize), exchange, address, length);");
    out.Line("}");
  }
  out.Line("// What is asked of a fallback lies in the backing, or the caller is wrong.");
  out.Line("bool IsInside(uint64_t address, uint64_t length) const {");
  out.Line("EXPECT_TRUE(address <= size && length <= size - address) << address << \"+\" << length;");
  out.Line("return address <= size && length <= size - address;");
  out.Line("}");
  if (facts.fallbacks.contains(CallKind::kReadFallback)) {
    Fallback(facts, out, "ReadFallback", "std::span<std::byte> destination", "read_fallback", "destination.size()", "",
             "std::memcpy(destination.data(), slow.data() + address, moved);");
  }
  if (facts.fallbacks.contains(CallKind::kWriteFallback)) {
    Fallback(facts, out, "WriteFallback", "std::span<const std::byte> source", "write_fallback", "source.size()", "",
             "std::memcpy(slow.data() + address, source.data(), moved);");
  }
  if (facts.fallbacks.contains(CallKind::kFillFallback)) {
    Fallback(facts, out, "FillFallback", "std::byte value, uint64_t length", "fill_fallback", "length", ", std::to_integer<uint64_t>(value)",
             "std::memset(slow.data() + address, std::to_integer<int>(value), moved);");
  }
  if (!facts.fallbacks.contains(CallKind::kCompareExchangeFallback)) {
    return;
  }
  out.Line("Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current,");
  out.Line("                                     std::span<const std::byte> desired) override {");
  out.Line("uint64_t words[2] = {};");
  out.Line("std::memcpy(&words[0], current.data(), std::min<size_t>(current.size(), 8));");
  out.Line("std::memcpy(&words[1], desired.data(), std::min<size_t>(desired.size(), 8));");
  out.Line("Note(\"compare_exchange_fallback\", {{address, desired.size(), words[0], words[1]}});");
  out.Line("if (!IsInside(address, desired.size()) || current.size() != desired.size()) return NoFallback();");
  if (!facts.world.fallback.empty()) {
    out.Line("const Reply reply = NextReply(address, desired.size(), true);");
    out.Line("if (reply.says != Reply::Says::kOk) return StatusOf(reply);");
  }
  out.Line("const bool swapped = std::memcmp(slow.data() + address, current.data(), current.size()) == 0;");
  out.Line("std::memcpy(current.data(), slow.data() + address, current.size());");
  out.Line("if (swapped) std::memcpy(slow.data() + address, desired.data(), desired.size());");
  out.Line("return swapped;");
  out.Line("}");
}

void Locks(const Facts& facts, Source& out) {
  const bool scripted = !facts.world.lock.empty();
  out.Blank();
  out.Line("Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {");
  out.Line("Note(\"lock_gpns to \" + AccessName(access), gpns);");
  if (scripted) {
    out.Line("if (gpns.empty()) return NotMapped();");
    out.Line({facts.managed ? "Status status = " : "return ", "StatusOf(ReplyOf(calls_.lock.Next(index_, gpns.front()), gpns));"});
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
  out.Line(scripted ? "return StatusOf(ReplyOf(calls_.lock.Next(index_, address / kPageSize), address, length));" : "return {};");
  out.Line("}");
}

void Hook(const Facts& facts, Source& out) {
  out.Blank();
  out.Line(
      "Result<std::optional<GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool allow_preemptive_locking) "
      "override {");
  out.Line("Note(\"subrange\", {{offset, length, allow_preemptive_locking}});");
  if (facts.world.subrange.empty()) {
    out.Line("return std::optional<GuestMemory>();");
    out.Line("}");
    return;
  }
  out.Line("const SubrangeAnswer answer = calls_.subrange.Next(index_, offset / kPageSize);");
  if (facts.own) {
    out.Line("if (answer == SubrangeAnswer::kOwn) return std::optional(OwnView().Subrange(offset, length).value());");
    out.Line("if (answer == SubrangeAnswer::kWrongSize) {");
    out.Line("if (length == size) return std::optional(OwnView().Subrange(0, length - 1).value());");
    out.Line(
        "return std::optional(GuestMemory::CreateMultiRegion(\"own\", 4 * kPageSize, "
        "{std::make_shared<Own>(*this), nullptr}).value());");
    out.Line("}");
  }
  out.Line("const Reply reply = ReplyOf(answer, offset, length);");
  out.Line("if (reply.says == Reply::Says::kOk) return std::optional<GuestMemory>();");
  out.Line("return StatusOf(reply);");
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
    Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
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
    out.Line("Result<std::vector<SharedFile>> sharing() const override { return files; }");
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
