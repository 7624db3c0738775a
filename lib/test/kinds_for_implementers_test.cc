// Whoever implements an interface can make a status of every kind that its header names; from a backing's callback it keeps its kind
// on the way to the caller, in the caller's coordinates.

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guestmem/doorbell.h"
#include "guestmem/guest_memory.h"
#include "guestmem/memory_mapper.h"
#include "guestmem/rom_mapper.h"
#include "guestmem/shared_backing.h"
#include "guestmem/sparse_mapping.h"
#include "guestmem/stream.h"

namespace guestmem {
namespace {

constexpr ErrorKind kKinds[] = {ErrorKind::kOutOfRange,  ErrorKind::kAccessDenied, ErrorKind::kNotMapped,   ErrorKind::kNotLockable,
                                ErrorKind::kLocked,      ErrorKind::kNoFallback,   ErrorKind::kInvalidGpn,  ErrorKind::kMisaligned,
                                ErrorKind::kInvalidArgument, ErrorKind::kResourceExhausted, ErrorKind::kBackend};

TEST(KindsForImplementers, EachCanBeMadeWithTheKindsOwnTextOrAnother) {
  for (const ErrorKind kind : kKinds) {
    const Status plain = MakeStatus({.kind = kind});
    EXPECT_EQ(plain.kind(), kind);
    EXPECT_FALSE(plain.ToString().empty());
    const Status told = MakeStatus({.kind = kind, .fault_address = 5, .gpn = 7, .transferred = 3}, "for a reason");
    EXPECT_EQ(told.kind(), kind);
    EXPECT_EQ(told.code(), plain.code());
    EXPECT_EQ(told.ToString(), "for a reason");
    EXPECT_EQ(told.info().fault_address, 5U);
    EXPECT_EQ(told.info().gpn, 7U);
    EXPECT_EQ(told.info().transferred, 3U);
  }
  EXPECT_EQ(MakeStatus({.kind = ErrorKind::kLocked, .gpn = 0x12}).ToString(), "there is a lock on page 0x12");
  EXPECT_EQ(MakeStatus({.kind = ErrorKind::kInvalidGpn, .gpn = 0x12}).ToString(), "invalid guest page number 0x12");
  EXPECT_EQ(MakeStatus({.kind = static_cast<ErrorKind>(200)}).kind(), ErrorKind::kBackend);
}

// The case as it was found.
struct Bells final : DoorbellRegistration {
  Result<std::unique_ptr<Doorbell>> RegisterDoorbell(uint64_t, const DoorbellMatch&, const Event&) override {
    return MakeStatus({.kind = ErrorKind::kInvalidArgument}, "a doorbell's length is 1, 2, 4 or 8");
  }
};

TEST(KindsForImplementers, AnInterfaceOfOnesOwnSaysWhatItsHeaderNames) {
  Bells bells;
  const auto refused = bells.RegisterDoorbell(0, {}, Event::Create().value());
  EXPECT_EQ(refused.status().kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status().ToString(), "a doorbell's length is 1, 2, 4 or 8");
}

// Memory whose callbacks all answer the same.
class Answering final : public SharedBacking<SparseMapping> {
 public:
  explicit Answering(bool mapped) : SharedBacking(SparseMapping::Create(4 * kPageSize).value()), mapped_(mapped) {}

  std::byte* mapping() const override { return mapped_ ? SharedBacking::mapping() : nullptr; }
  bool supports_locking() const override { return mapped_; }
  PageFaultAction PageFault(const PageFaultInfo&) override { return PageFaultAction::Fail(answer); }
  Status ReadFallback(uint64_t, std::span<std::byte>) override { return answer; }
  Status WriteFallback(uint64_t, std::span<const std::byte>) override { return answer; }
  Status FillFallback(uint64_t, std::byte, uint64_t) override { return answer; }
  Result<bool> CompareExchangeFallback(uint64_t, std::span<std::byte>, std::span<const std::byte>) override { return answer; }
  Status LockGpns(AccessType, std::span<const uint64_t>) override { return lock_answer; }
  void UnlockGpns(AccessType, std::span<const uint64_t>) override {}
  Status ExposeVa(uint64_t, uint64_t) override { return answer; }
  Result<std::optional<GuestMemory>> Subrange(uint64_t, uint64_t, bool) override { return answer; }
  Result<std::vector<SharedFile>> sharing() const override { return answer; }

  Status answer, lock_answer;

 private:
  const bool mapped_;
};

constexpr uint64_t kGpns[] = {5, 6};
constexpr uint64_t kStart = 5 * kPageSize;  // page 1 of the second region

struct Access {
  const char* name;
  std::function<Status(const GuestMemory&)> call;
};
const Access kAccesses[] = {
    {"read", [](const GuestMemory& m) { std::byte b[2]; return m.ReadAt(kStart, b); }},
    {"write", [](const GuestMemory& m) { return m.WriteAt(kStart, std::as_bytes(std::span("12"))); }},
    {"fill", [](const GuestMemory& m) { return m.FillAt(kStart, std::byte{1}, 9); }},
    {"read plain", [](const GuestMemory& m) { return m.ReadPlain<uint64_t>(kStart).status(); }},
    {"compare exchange", [](const GuestMemory& m) { return m.CompareExchange<uint64_t>(kStart, 0, 1).status(); }},
    {"probe", [](const GuestMemory& m) { return m.ProbeWritable(kStart, 9); }},
    {"range", [](const GuestMemory& m) { return m.FillRange(*PagedRange::Create(0, 5000, kGpns), std::byte{1}); }},
};

void KeepsItsKind(const Access& access, const GuestMemory& memory, Answering& backing) {
  for (const ErrorKind kind : kKinds) {
    SCOPED_TRACE(std::string(access.name) + ", " + Name(kind));
    backing.answer = backing.lock_answer = MakeStatus({.kind = kind, .fault_address = kPageSize + 1, .gpn = 1}, "for a reason");
    const Status status = access.call(memory);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.kind(), kind);
    EXPECT_EQ(status.code(), backing.answer.code());
    EXPECT_EQ(status.info().gpn, 5U) << "in the caller's coordinates";
    EXPECT_NE(status.ToString().find("for a reason"), std::string::npos) << status.ToString();
    EXPECT_EQ(status.ToString().find("guest memory 'two': "), 0U) << status.ToString();
  }
}

TEST(KindsForImplementers, FromEveryCallbackOfABackingTheyArriveAsTheyAre) {
  for (const bool mapped : {true, false}) {
    const auto backing = std::make_shared<Answering>(mapped);
    const GuestMemory memory = GuestMemory::CreateMultiRegion("two", 4 * kPageSize, {nullptr, backing}).value();
    for (const Access& access : kAccesses) {
      KeepsItsKind(access, memory, *backing);
    }
    KeepsItsKind({"subrange", [](const GuestMemory& m) { return m.Subrange(kStart, 8).status(); }}, memory, *backing);
    if (mapped) {
      const Access lock = {"lock", [](const GuestMemory& m) { return m.LockGpns(AccessType::kRead, true, kGpns).status(); }};
      KeepsItsKind(lock, memory, *backing);
      KeepsItsKind({"expose", [&](const GuestMemory& m) { return backing->lock_answer = {}, lock.call(m); }}, memory, *backing);
    }
    backing->answer = MakeStatus({.kind = ErrorKind::kResourceExhausted});
    EXPECT_EQ(memory.sharing().status().kind(), ErrorKind::kResourceExhausted);
  }
}

// A page of the backing's is a page of the caller's only where the two agree on where pages start, and only inside.
TEST(KindsForImplementers, APageThatIsNoneOfTheCallersIsNotNamed) {
  const auto backing = std::make_shared<Answering>(false);
  const GuestMemory memory = GuestMemory::Create("ram", backing).value();
  const auto seen = [](const Status& status) { return status.info().gpn; };
  std::byte byte[1];
  for (const uint64_t outside : {uint64_t{4}, kFirstInvalidGpn, ~uint64_t{0}}) {
    backing->answer = MakeStatus({.kind = ErrorKind::kLocked, .gpn = outside});
    EXPECT_EQ(seen(memory.ReadAt(0, byte)), std::nullopt) << outside;
    EXPECT_EQ(memory.ReadAt(0, byte).kind(), ErrorKind::kLocked);
  }
  backing->answer = MakeStatus({.kind = ErrorKind::kLocked, .gpn = 3});
  EXPECT_EQ(seen(memory.ReadAt(0, byte)), 3U);
}

// What another memory says is the callback's own affair, whatever its kind.
TEST(KindsForImplementers, AnotherMemorysStatusIsABackendsError) {
  const auto backing = std::make_shared<Answering>(true);
  backing->answer = GuestMemory::Empty().ReadPlain<uint8_t>(0).status();
  const Status status = GuestMemory::Create("ram", backing).value().ReadPlain<uint8_t>(0).status();
  EXPECT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_EQ(status.code(), StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace guestmem
