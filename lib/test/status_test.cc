// Status and Result<T>: text, codes, ownership, and what becomes of a callback's own status.

#include "guestmem/status.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "guestmem/guest_memory.h"
#include "scripted_backing.h"
#include "types/error_rep.h"

namespace guestmem {
namespace {

using test::ScriptedBacking;

static_assert(sizeof(Status) == sizeof(void*), "one word");
static_assert(std::is_nothrow_move_constructible_v<Status> && std::is_nothrow_copy_constructible_v<Status>);

Status Made(ErrorInfo info, std::string message = {}) {
  const detail::DebugName name("ram");
  return detail::MakeError(&name, std::move(info), std::move(message));
}

std::string TextOf(ErrorKind kind, std::optional<AddressRange> range, std::optional<uint64_t> fault,
                   Operation operation = Operation::kRead) {
  ErrorInfo info;
  info.kind = kind;
  info.operation = operation;
  info.range = range;
  info.fault_address = fault;
  return Made(std::move(info)).ToString();
}

TEST(StatusText, SaysOkWhenOk) { EXPECT_EQ(Status().ToString(), "OK"); }

TEST(StatusText, NamesMemoryOperationRangeAndFaultAddress) {
  EXPECT_EQ(TextOf(ErrorKind::kNotMapped, AddressRange{0x1000, 0x20}, 0x1008),
            "guest memory 'ram': read error: failed to access 0x1000-0x1020 at 0x1008: the page is not mapped");
}

TEST(StatusText, LeavesOutAFaultAddressThatIsTheStart) {
  EXPECT_EQ(TextOf(ErrorKind::kNotMapped, AddressRange{0x1000, 0x20}, 0x1000),
            "guest memory 'ram': read error: failed to access 0x1000-0x1020: the page is not mapped");
}

TEST(StatusText, LeavesOutAFaultAddressThatIsNotKnown) {
  EXPECT_EQ(TextOf(ErrorKind::kNotMapped, AddressRange{0x1000, 0x20}, std::nullopt),
            "guest memory 'ram': read error: failed to access 0x1000-0x1020: the page is not mapped");
}

TEST(StatusText, SaysMemoryWhereThereIsNoSingleRange) {
  EXPECT_EQ(TextOf(ErrorKind::kNotMapped, std::nullopt, std::nullopt),
            "guest memory 'ram': read error: failed to access memory: the page is not mapped");
  EXPECT_EQ(TextOf(ErrorKind::kNotMapped, std::nullopt, 0x3000),
            "guest memory 'ram': read error: failed to access memory at 0x3000: the page is not mapped");
  EXPECT_EQ(TextOf(ErrorKind::kNotMapped, std::nullopt, 0),
            "guest memory 'ram': read error: failed to access memory at 0x0: the page is not mapped");
}

TEST(StatusText, D22_WritesAnEndThatReaches2To64AsALength) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  const struct {
    AddressRange range;
    const char* text;
  } cases[] = {
      {{kMax - 15, 15}, "0xfffffffffffffff0-0xffffffffffffffff"},
      {{kMax - 15, 16}, "0xfffffffffffffff0+0x10"},
      {{kMax - 15, 17}, "0xfffffffffffffff0+0x11"},
      {{kMax, 1}, "0xffffffffffffffff+0x1"},
      {{1, kMax}, "0x1+0xffffffffffffffff"},
      {{0, kMax}, "0x0-0xffffffffffffffff"},
      {{kMax, kMax}, "0xffffffffffffffff+0xffffffffffffffff"},
      {{0, 1}, "0x0-0x1"},
  };
  for (const auto& one : cases) {
    const std::string text = TextOf(ErrorKind::kOutOfRange, one.range, one.range.start);
    EXPECT_NE(text.find(std::string("failed to access ") + one.text + ": "), std::string::npos) << text;
  }
}

TEST(StatusText, NamesEachOperation) {
  const std::pair<Operation, const char*> names[] = {
      {Operation::kCreate, "create"}, {Operation::kRead, "read"},
      {Operation::kWrite, "write"},   {Operation::kFill, "fill"},
      {Operation::kLock, "lock"},     {Operation::kCompareExchange, "compare exchange"},
      {Operation::kProbe, "probe"},   {Operation::kSubrange, "subrange"},
      {Operation::kRevoke, "revoke"}, {Operation::kAdd, "add"},
      {Operation::kRemove, "remove"}, {Operation::kChange, "change"},
  };
  for (const auto& [operation, name] : names) {
    EXPECT_STREQ(Name(operation), name);
    const std::string text = TextOf(ErrorKind::kOutOfRange, AddressRange{0, 1}, 0, operation);
    EXPECT_EQ(text.rfind(std::string("guest memory 'ram': ") + name + " error: failed to access 0x0-0x1: ", 0), 0U)
        << text;
  }
}

TEST(StatusText, EveryKindHasACauseOfItsOwn) {
  std::vector<std::string> texts;
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::kBackend); ++kind) {
    const std::string text = TextOf(static_cast<ErrorKind>(kind), AddressRange{0, 1}, 0);
    const size_t cause = text.rfind(": ");
    ASSERT_NE(cause, std::string::npos);
    EXPECT_GT(text.size(), cause + 2) << text;
    for (const std::string& other : texts) {
      EXPECT_NE(text, other);
    }
    texts.push_back(text);
  }
}

TEST(StatusText, SaysWhichGpnIsInvalidOrLocked) {
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidGpn;
  info.operation = Operation::kProbe;
  info.gpn = 0xfffffffffffff;
  EXPECT_NE(Made(info).ToString().find("0xfffffffffffff"), std::string::npos);
  info.kind = ErrorKind::kLocked;
  info.operation = Operation::kRevoke;
  info.gpn = 0x123;
  EXPECT_NE(Made(info).ToString().find("0x123"), std::string::npos);
}

TEST(StatusText, AMessageReplacesTheKindsOwnCause) {
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidArgument;
  info.operation = Operation::kCreate;
  EXPECT_EQ(Made(info, "no such thing").ToString(),
            "guest memory 'ram': create error: failed to access memory: no such thing");
}

TEST(StatusText, ANameIsTakenAsItIs) {
  ErrorInfo info;
  info.kind = ErrorKind::kInvalidArgument;
  info.operation = Operation::kCreate;
  const detail::DebugName name("a%s'b");
  EXPECT_EQ(detail::MakeError(&name, info, "x%n").ToString(),
            "guest memory 'a%s'b': create error: failed to access memory: x%n");
}

TEST(StatusText, ANameOfAnyLengthOutlivesItsMemory) {
  for (const size_t length : {0, 1, 22, 23, 24, 25, 1000}) {
    const std::string name(length, 'n');
    Status status;
    {
      const auto memory = GuestMemory::Create(name, std::make_shared<ScriptedBacking>(1, 1)).value();
      status = memory.FillAt(kPageSize, std::byte{0}, 1);
    }
    const Status copy = status;
    status = Status();
    EXPECT_EQ(copy.ToString(),
              "guest memory '" + name + "': fill error: failed to access 0x1000-0x1001: the range is not inside memory");
  }
}

TEST(StatusCodes, AreTheTables) {
  const std::pair<ErrorKind, StatusCode> table[] = {
      {ErrorKind::kOutOfRange, StatusCode::kOutOfRange},
      {ErrorKind::kAccessDenied, StatusCode::kPermissionDenied},
      {ErrorKind::kNotMapped, StatusCode::kFailedPrecondition},
      {ErrorKind::kNotLockable, StatusCode::kFailedPrecondition},
      {ErrorKind::kLocked, StatusCode::kFailedPrecondition},
      {ErrorKind::kNoFallback, StatusCode::kUnimplemented},
      {ErrorKind::kInvalidGpn, StatusCode::kInvalidArgument},
      {ErrorKind::kMisaligned, StatusCode::kInvalidArgument},
      {ErrorKind::kInvalidArgument, StatusCode::kInvalidArgument},
      {ErrorKind::kResourceExhausted, StatusCode::kResourceExhausted},
  };
  for (const auto& [kind, code] : table) {
    ErrorInfo info;
    info.kind = kind;
    const Status status = Made(info);
    EXPECT_EQ(status.code(), code) << Name(kind);
    EXPECT_EQ(status.kind(), kind);
    EXPECT_FALSE(status.ok());
  }
  EXPECT_EQ(Status().code(), StatusCode::kOk);
}

TEST(StatusOwnership, CopiesMovesAndAssignmentsShareOneError) {
  Status error = BackendError(StatusCode::kAborted, "gone");
  const Status copy = error;
  EXPECT_EQ(copy.rep(), error.rep());
  Status moved = std::move(error);
  EXPECT_TRUE(error.ok());  // NOLINT: the moved-from state is the claim
  EXPECT_EQ(moved.rep(), copy.rep());
  error = moved;
  EXPECT_EQ(error.rep(), copy.rep());
  Status& self = error;
  error = self;
  EXPECT_EQ(error.code(), StatusCode::kAborted);
  error = std::move(self);
  EXPECT_EQ(error.code(), StatusCode::kAborted);
  error = Status();
  EXPECT_TRUE(error.ok());
  moved = std::move(error);
  EXPECT_TRUE(moved.ok());
  EXPECT_EQ(copy.ToString(), "gone");
}

TEST(StatusOwnership, CopiesMayBeDroppedByAnyThread) {
  const Status error = BackendError(StatusCode::kAborted, "gone");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([error] {
      for (int round = 0; round < 10000; ++round) {
        const Status copy = error;  // NOLINT: made and dropped
        if (copy.ok()) {
          std::abort();
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(error.rep()->references.load(), 1U);
}

TEST(StatusOwnership, AnErrorOutlivesItsMemory) {
  Status error;
  {
    const GuestMemory memory = GuestMemory::Allocate(kPageSize).value();
    error = memory.FillAt(kPageSize, std::byte{0}, 1);
  }
  EXPECT_EQ(error.ToString(),
            "guest memory 'heap': fill error: failed to access 0x1000-0x1001: the range is not inside memory");
}

TEST(StatusDeathTest, FactsOfAnOkStatusAreAHostBug) {
  EXPECT_DEATH((void)Status().info(), "guestmem: fatal: .*OK status");
  EXPECT_DEATH((void)Status().kind(), "guestmem: fatal: ");
}

// --- a callback's own status ---

TEST(BackendErrors, CarryCodeTextAddressAndCount) {
  const Status status = BackendError(StatusCode::kUnavailable, "link down", 0x40, 3);
  EXPECT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.ToString(), "link down");
  EXPECT_EQ(status.info().fault_address, 0x40U);
  EXPECT_EQ(status.info().transferred, 3U);
  EXPECT_EQ(status.info().operation, Operation::kNone);
}

TEST(BackendErrors, WithCodeOkAreUnknown) {
  const Status status = BackendError(StatusCode::kOk, "");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::kUnknown);
  EXPECT_NE(status.ToString(), "");
}

Status ReadWithHandler(PageFaultAction (*answer)()) {
  auto backing = std::make_shared<ScriptedBacking>(2, 1);
  backing->handler = [answer](const PageFaultInfo&) { return answer(); };
  const GuestMemory memory = GuestMemory::Create("ram", backing).value();
  std::array<std::byte, 16> host;
  return memory.ReadAt(kPageSize - 8, host);
}

TEST(BackendErrors, ReachTheCallerAsKBackendWithTheirCodeAndText) {
  const Status status =
      ReadWithHandler([] { return PageFaultAction::Fail(BackendError(StatusCode::kDataLoss, "lost")); });
  EXPECT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(status.info().cause.ToString(), "lost");
  EXPECT_EQ(status.info().transferred, 8U);
  EXPECT_EQ(status.ToString(), "guest memory 'ram': read error: failed to access 0xff8-0x1008 at 0x1000: lost");
}

TEST(BackendErrors, FailWithOkIsOneToo) {
  const Status status = ReadWithHandler([] { return PageFaultAction::Fail(Status()); });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_NE(status.code(), StatusCode::kOk);
  EXPECT_EQ(status.info().fault_address, kPageSize);
  const std::string text = status.ToString();
  EXPECT_EQ(text.rfind("guest memory 'ram': read error: failed to access 0xff8-0x1008 at 0x1000: ", 0), 0U) << text;
}

TEST(BackendErrors, TheThreeWellKnownStatusesKeepTheirKind) {
  const std::pair<Status (*)(), ErrorKind> statuses[] = {{AccessDenied, ErrorKind::kAccessDenied},
                                                         {NotMapped, ErrorKind::kNotMapped},
                                                         {NoFallback, ErrorKind::kNoFallback}};
  for (const auto& [make, kind] : statuses) {
    auto backing = std::make_shared<ScriptedBacking>(2, 1);
    backing->handler = [make = make](const PageFaultInfo&) { return PageFaultAction::Fail(make()); };
    const GuestMemory memory = GuestMemory::Create("ram", backing).value();
    const Status status = memory.FillAt(kPageSize - 8, std::byte{1}, 16);
    EXPECT_EQ(status.kind(), kind);
    EXPECT_EQ(status.code(), [make = make] { return make().code(); }());
    EXPECT_EQ(status.info().cause.kind(), status.kind());
    EXPECT_EQ(status.info().operation, Operation::kFill);
    EXPECT_EQ(status.info().transferred, 8U);
  }
}

TEST(BackendErrors, WithoutMemoryForThemKeepKindAndCodeAndSayNoMore) {
  const auto backing = std::make_shared<test::ScriptedBacking>(1, 0);
  const GuestMemory memory = GuestMemory::Create("ram", backing).value();
  const Status cause = BackendError(StatusCode::kUnavailable, "asleep");
  backing->handler = [&cause](const PageFaultInfo&) { return PageFaultAction::Fail(cause); };
  detail::g_no_error_memory = true;
  const Status status = memory.ReadPlain<uint8_t>(0).status();
  detail::g_no_error_memory = false;
  EXPECT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(status.info().range);
}

TEST(BackendErrors, AnotherMemorysStatusIsTheCallbacksOwn) {
  auto backing = std::make_shared<ScriptedBacking>(2, 1);
  const GuestMemory inner = GuestMemory::Create("inner", std::make_shared<ScriptedBacking>(1, 0)).value();
  backing->handler = [&inner](const PageFaultInfo&) {
    return PageFaultAction::Fail(inner.ReadPlain<uint32_t>(4).status());
  };
  const GuestMemory memory = GuestMemory::Create("outer", backing).value();
  const Status status = memory.WritePlain<uint64_t>(kPageSize, 1);
  EXPECT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);  // its own
  EXPECT_EQ(status.info().cause.kind(), ErrorKind::kNotMapped);
  EXPECT_EQ(status.info().fault_address, kPageSize);
  EXPECT_EQ(status.ToString(),
            "guest memory 'outer': write error: failed to access 0x1000-0x1008: "
            "guest memory 'inner': read error: failed to access 0x4-0x8: the page is not mapped");
}

// --- Result<T> ---

struct Counted {
  static inline int alive = 0;
  explicit Counted(int v) : value(v) { ++alive; }
  Counted(const Counted& other) : value(other.value) { ++alive; }
  Counted(Counted&& other) noexcept : value(std::exchange(other.value, -1)) { ++alive; }
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --alive; }
  int value;
};

TEST(Results, HoldAValueOrAStatus) {
  const Result<int> value = 3;
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*value, 3);
  EXPECT_EQ(value.value(), 3);
  EXPECT_EQ(value.value_or(4), 3);
  EXPECT_TRUE(value.status().ok());
  const Result<int> error = BackendError(StatusCode::kAborted, "gone");
  ASSERT_FALSE(error.ok());
  EXPECT_EQ(error.value_or(4), 4);
  EXPECT_EQ(error.status().code(), StatusCode::kAborted);
}

TEST(Results, TakeMoveOnlyValues) {
  Result<std::unique_ptr<int>> first = std::make_unique<int>(7);
  Result<std::unique_ptr<int>> second = std::move(first);
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(first.ok());  // NOLINT: a moved-from value is still a value
  const std::unique_ptr<int> taken = *std::move(second);
  EXPECT_EQ(*taken, 7);
  first = Result<std::unique_ptr<int>>(BackendError(StatusCode::kAborted, "gone"));
  EXPECT_FALSE(first.ok());
  first = Result<std::unique_ptr<int>>(std::make_unique<int>(8));
  EXPECT_EQ(**first, 8);
}

TEST(Results, MakeAndDestroyEachValueOnce) {
  {
    Result<Counted> a = Counted(1);
    Result<Counted> b = a;
    Result<Counted> c = std::move(a);
    EXPECT_EQ(Counted::alive, 3);
    EXPECT_EQ(b->value, 1);
    EXPECT_EQ(c->value, 1);
    b = Result<Counted>(BackendError(StatusCode::kAborted, "gone"));
    EXPECT_EQ(Counted::alive, 2);
    c = b;
    EXPECT_EQ(Counted::alive, 1);
    EXPECT_FALSE(c.ok());
    c = Counted(5);
    const Result<Counted>& self = c;
    c = self;
    EXPECT_EQ(c->value, 5);
    EXPECT_EQ(Counted::alive, 2);
  }
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Results, AMovedFromErrorIsStillAnError) {
  Result<std::string> error = BackendError(StatusCode::kAborted, "gone");
  const Result<std::string> other = std::move(error);
  EXPECT_FALSE(other.ok());
  EXPECT_FALSE(error.ok());  // NOLINT: the moved-from state is the claim
  EXPECT_EQ(error.status().code(), StatusCode::kAborted);
}

TEST(Results, MadeFromAnOkStatusAreAnError) {
  const Result<int> result = Status();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().kind(), ErrorKind::kBackend);
}

TEST(ResultDeathTest, TheValueOfAnErrorIsAHostBugThatSaysWhy) {
  const Result<int> error = BackendError(StatusCode::kAborted, "gone away");
  EXPECT_DEATH((void)error.value(), "guestmem: fatal: .*gone away");
  EXPECT_DEATH((void)*error, "guestmem: fatal: .*gone away");
}

}  // namespace
}  // namespace guestmem
