// A memory that calls its backings in a way that the contract forbids is a verdict that names the call and the argument, never a crash of the
// harness: relays between the engine and its backings spoil one argument each. And of the answers: a call more shifts nothing.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "guestmem/shared_backing.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"

namespace reference {
namespace {

using guestmem::AccessType;
using guestmem::GuestMemory;
using guestmem::GuestMemoryAccess;
using guestmem::PageFaultAction;
using guestmem::PageFaultInfo;
using guestmem::Result;
using guestmem::Status;
using Base = guestmem::SharedBacking<GuestMemoryAccess>;
using Backing = std::shared_ptr<GuestMemoryAccess>;

constexpr uint64_t kFar = uint64_t{1} << 60;

Trace Parsed(const std::string& text) {
  auto parsed = FromText("guestmem trace 1\n" + text);
  if (const auto* error = std::get_if<TextError>(&parsed)) {
    ADD_FAILURE() << "line " << error->line << ": " << error->reason << "\n" << text;
    return {};
  }
  return std::get<Trace>(std::move(parsed));
}

// Spoils what it passes on.
struct Spoiler {
  std::function<Status(Base&, uint64_t, std::span<std::byte>)> read = {};
  std::function<Status(Base&, uint64_t, std::span<const std::byte>)> write = {};
  std::function<Status(Base&, uint64_t, std::byte, uint64_t)> fill = {};
  std::function<Result<bool>(Base&, uint64_t, std::span<std::byte>, std::span<const std::byte>)> exchange = {};
  std::function<PageFaultAction(Base&, PageFaultInfo)> fault = {};
  std::function<Status(Base&, AccessType, std::span<const uint64_t>)> lock = {};
  std::function<void(Base&, AccessType, std::span<const uint64_t>)> unlock = {};
  std::function<Status(Base&, uint64_t, uint64_t)> expose = {};
  std::function<Result<std::optional<GuestMemory>>(Base&, uint64_t, uint64_t)> subrange = {};
  std::function<void(Base&)> asked_for_mapping = {};
};

class Relay final : public Base {
 public:
  Relay(Backing inner, const Spoiler& spoiler) : Base(std::move(inner)), spoiler_(spoiler), honest_(Base::inner()) {}
  std::byte* mapping() const override {
    if (spoiler_.asked_for_mapping) spoiler_.asked_for_mapping(honest_);
    return Base::mapping();
  }
  PageFaultAction PageFault(const PageFaultInfo& info) override {
    return spoiler_.fault ? spoiler_.fault(honest_, info) : Base::PageFault(info);
  }
  Status ReadFallback(uint64_t address, std::span<std::byte> bytes) override {
    return spoiler_.read ? spoiler_.read(honest_, address, bytes) : Base::ReadFallback(address, bytes);
  }
  Status WriteFallback(uint64_t address, std::span<const std::byte> bytes) override {
    return spoiler_.write ? spoiler_.write(honest_, address, bytes) : Base::WriteFallback(address, bytes);
  }
  Status FillFallback(uint64_t address, std::byte value, uint64_t length) override {
    return spoiler_.fill ? spoiler_.fill(honest_, address, value, length) : Base::FillFallback(address, value, length);
  }
  Result<bool> CompareExchangeFallback(uint64_t address, std::span<std::byte> current, std::span<const std::byte> desired) override {
    return spoiler_.exchange ? spoiler_.exchange(honest_, address, current, desired) : Base::CompareExchangeFallback(address, current, desired);
  }
  Status LockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    return spoiler_.lock ? spoiler_.lock(honest_, access, gpns) : Base::LockGpns(access, gpns);
  }
  void UnlockGpns(AccessType access, std::span<const uint64_t> gpns) override {
    spoiler_.unlock ? spoiler_.unlock(honest_, access, gpns) : Base::UnlockGpns(access, gpns);
  }
  Status ExposeVa(uint64_t address, uint64_t length) override {
    return spoiler_.expose ? spoiler_.expose(honest_, address, length) : Base::ExposeVa(address, length);
  }
  Result<std::optional<GuestMemory>> Subrange(uint64_t offset, uint64_t length, bool preemptive) override {
    return spoiler_.subrange ? spoiler_.subrange(honest_, offset, length) : Base::Subrange(offset, length, preemptive);
  }

 private:
  const Spoiler& spoiler_;
  mutable Base honest_;
};

constexpr char kSlow[] = R"(world single_region
backing 0 pages=3 trim=4 unmapped
ops
read page0+8 length=16
write page0+8 length=16 value=0x1
fill page0+8 length=16 value=0x2
compare_exchange page0+8 size=8 value=0x1 desired=0x2
)";
constexpr char kMapped[] = R"(world single_region
backing 0 pages=3 trim=4 page1=hole
ops
read page1 length=16
lock_gpns 0 access=read form=kernel
unlock
subrange page0 slot=1 length=64
)";

struct Wrong {
  const char* name;
  const char* trace;
  const char* said;  // of the call
  Spoiler spoiler;
};

std::vector<Wrong> EveryWrongCall() {
  std::vector<Wrong> all;
  const auto add = [&](const char* name, const char* trace, const char* said) -> Spoiler& {
    all.push_back({name, trace, said, {}});
    return all.back().spoiler;
  };
  static constexpr char kBeyond[] = "bytes that are not below max_address";
  add("ReadBeyond", kSlow, kBeyond).read = [](Base& b, uint64_t a, auto bytes) { return b.ReadFallback(a + 3 * 4096, bytes); };
  add("ReadAtTheEndOfNumbers", kSlow, kBeyond).read = [](Base& b, uint64_t, auto bytes) { return b.ReadFallback(~uint64_t{0}, bytes); };
  add("ReadPastTheTrimmedEnd", kSlow, kBeyond).read = [](Base& b, uint64_t, auto bytes) { return b.ReadFallback(3 * 4096 - 4, bytes); };
  add("ReadNothing", kSlow, "no bytes").read = [](Base& b, uint64_t a, auto bytes) { return b.ReadFallback(a, bytes.first(0)); };
  add("WriteBeyond", kSlow, kBeyond).write = [](Base& b, uint64_t a, auto bytes) { return b.WriteFallback(a + kFar, bytes); };
  add("WriteNothing", kSlow, "no bytes").write = [](Base& b, uint64_t a, auto bytes) { return b.WriteFallback(a, bytes.first(0)); };
  add("FillTooLong", kSlow, kBeyond).fill = [](Base& b, uint64_t a, std::byte v, uint64_t) { return b.FillFallback(a, v, kFar); };
  add("FillThatWraps", kSlow, kBeyond).fill = [](Base& b, uint64_t a, std::byte v, uint64_t) { return b.FillFallback(a, v, ~uint64_t{0}); };
  add("FillNothing", kSlow, "no bytes").fill = [](Base& b, uint64_t a, std::byte v, uint64_t) { return b.FillFallback(a, v, 0); };
  add("ExchangeOfThreeBytes", kSlow, "a size that is not 1, 2, 4 or 8").exchange = [](Base& b, uint64_t a, auto current, auto desired) {
    return b.CompareExchangeFallback(a, current.first(3), desired.first(3));
  };
  add("ExchangeOfNothing", kSlow, "a size that is not 1, 2, 4 or 8").exchange = [](Base& b, uint64_t a, auto current, auto desired) {
    return b.CompareExchangeFallback(a, current.first(0), desired.first(0));
  };
  add("ExchangeUnaligned", kSlow, "an unaligned address").exchange = [](Base& b, uint64_t a, auto current, auto desired) {
    return b.CompareExchangeFallback(a + 1, current, desired);
  };
  add("ExchangeOfUnequalSpans", kSlow, "spans of unequal length").exchange = [](Base& b, uint64_t a, auto current, auto desired) {
    return b.CompareExchangeFallback(a, current.first(4), desired);
  };
  add("ExchangeBeyond", kSlow, kBeyond).exchange = [](Base& b, uint64_t, auto current, auto desired) {
    return b.CompareExchangeFallback(3 * 4096, current, desired);
  };
  const auto fault = [&](const char* name, const char* said, void (*spoil)(PageFaultInfo&)) {
    add(name, kMapped, said).fault = [spoil](Base& b, PageFaultInfo info) {
      spoil(info);
      return b.PageFault(info);
    };
  };
  fault("FaultBeyond", kBeyond, [](PageFaultInfo& info) { info.address += kFar; });
  fault("FaultTooLong", kBeyond, [](PageFaultInfo& info) { info.length = ~uint64_t{0}; });
  fault("FaultOfNothing", "no bytes", [](PageFaultInfo& info) { info.length = 0; });
  fault("FaultOfNoAccess", "no type of access", [](PageFaultInfo& info) { info.access = static_cast<AccessType>(7); });
  add("LockOfNoPages", kMapped, "an empty list").lock = [](Base& b, AccessType access, auto) { return b.LockGpns(access, {}); };
  add("LockBeyond", kMapped, "a page that is not below max_address").lock = [](Base& b, AccessType access, auto) {
    constexpr uint64_t kPages[] = {0, 3};
    return b.LockGpns(access, kPages);
  };
  add("LockForNoAccess", kMapped, "no type of access").lock = [](Base& b, AccessType, auto gpns) {
    return b.LockGpns(static_cast<AccessType>(9), gpns);
  };
  static constexpr char kUnmatched[] = "a list that no lock has locked for this access";
  add("UnlockOfOtherPages", kMapped, kUnmatched).unlock = [](Base& b, AccessType access, auto) {
    constexpr uint64_t kPages[] = {2};
    b.UnlockGpns(access, kPages);
  };
  add("UnlockTwice", kMapped, kUnmatched).unlock = [](Base& b, AccessType access, auto gpns) {
    b.UnlockGpns(access, gpns);
    b.UnlockGpns(access, gpns);
  };
  add("UnlockForAnotherAccess", kMapped, kUnmatched).unlock = [](Base& b, AccessType, auto gpns) { b.UnlockGpns(AccessType::kWrite, gpns); };
  add("UnlockOfALockThatFailed", kMapped, kUnmatched).lock = [](Base& b, AccessType access, auto gpns) {
    b.UnlockGpns(access, gpns);
    return b.LockGpns(access, gpns);
  };
  add("ExposeBeyond", kMapped, kBeyond).expose = [](Base& b, uint64_t a, uint64_t) { return b.ExposeVa(a, 3 * 4096); };
  add("ExposeNothing", kMapped, "no bytes").expose = [](Base& b, uint64_t a, uint64_t) { return b.ExposeVa(a, 0); };
  add("ExposeUnlocked", kMapped, "a page that is not locked").expose = [](Base& b, uint64_t a, uint64_t n) { return b.ExposeVa(a + 4096, n); };
  add("ViewBeyond", kMapped, kBeyond).subrange = [](Base& b, uint64_t offset, uint64_t) { return b.Subrange(offset, kFar, false); };
  add("ViewThatWraps", kMapped, kBeyond).subrange = [](Base& b, uint64_t, uint64_t n) { return b.Subrange(~uint64_t{0}, n, false); };
  add("CallWithoutAStep", kSlow, "read_fallback where no step runs").asked_for_mapping = [](Base& b) {
    std::byte byte;
    (void)b.ReadFallback(0, {&byte, 1});
  };
  return all;
}

class WrongCalls : public testing::TestWithParam<Wrong> {};

TEST_P(WrongCalls, AreAVerdictThatNamesThem) {
  const Trace trace = Parsed(GetParam().trace);
  {
    const auto honest = MakeEngineSubject();
    ASSERT_FALSE(Lockstep(*honest).Run(trace)) << "the trace itself must agree";
  }
  const auto subject = MakeEngineSubject([](Backing inner) -> Backing { return std::make_shared<Relay>(std::move(inner), GetParam().spoiler); });
  Lockstep lockstep(*subject);
  const Verdict verdict = lockstep.Run(trace);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->field, "call");
  EXPECT_NE(verdict->actual.find(GetParam().said), std::string::npos) << verdict->actual;
  const Verdict again = lockstep.Run(trace);  // nothing is left behind
  ASSERT_TRUE(again);
  EXPECT_EQ(again->actual, verdict->actual);
}

INSTANTIATE_TEST_SUITE_P(Every, WrongCalls, testing::ValuesIn(EveryWrongCall()), [](const auto& info) { return info.param.name; });

TEST(Answers, APageGoesRoundFromItsOwnEntryOnceThenGetsTheDefault) {
  using enum HandlerAnswer;
  Answers<HandlerAnswer> answers;
  answers.Start({kFail, kRetry, kFallback});
  for (const uint64_t backing : {0, 1}) {
    for (const uint64_t page : {0, 1, 2, 3}) {
      constexpr HandlerAnswer kList[] = {kFail, kRetry, kFallback};
      for (uint64_t n = 0; n < 3; ++n) EXPECT_EQ(answers.Next(backing, page), kList[(backing + page + n) % 3]);
      EXPECT_EQ(answers.Next(backing, page), kDefault);
      EXPECT_EQ(answers.Next(backing, page), kDefault);
    }
  }
  answers.Start({});
  EXPECT_EQ(answers.Next(0, 0), kDefault);
}

// A memory that asks once more than need be about one page, and is forgiven for it, gets the same answers for all others.
TEST(Answers, OneCallMoreShiftsNoOtherPage) {
  using enum FallbackAnswer;
  const std::vector<FallbackAnswer> list = {kFail, kNone, kFailAt, kDo};
  for (uint64_t more = 0; more < 4; ++more) {
    Answers<FallbackAnswer> expected, actual;
    expected.Start(list);
    actual.Start(list);
    for (int round = 0; round < 5; ++round) {
      for (uint64_t page = 0; page < 4; ++page) {
        if (page == more && round == 1) (void)actual.Next(0, page);
        const FallbackAnswer answer = actual.Next(0, page);
        if (page != more) EXPECT_EQ(answer, expected.Next(0, page));
      }
    }
  }
}

}  // namespace
}  // namespace reference
