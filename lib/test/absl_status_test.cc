// Conversions to and from Abseil: every code, the whole text, values moved and not copied.

#include "guestmem/absl_status.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "guestmem/guest_memory.h"

namespace guestmem {
namespace {

std::string Text(const absl::Status& status) { return {status.message().data(), status.message().size()}; }

TEST(AbslStatus, OkIsOk) {
  EXPECT_TRUE(ToAbsl(Status()).ok());
  EXPECT_TRUE(FromAbsl(absl::OkStatus()).ok());
}

TEST(AbslStatus, EveryCodeKeepsItsMeaning) {
  const std::pair<StatusCode, absl::StatusCode> codes[] = {
      {StatusCode::kCancelled, absl::StatusCode::kCancelled},
      {StatusCode::kUnknown, absl::StatusCode::kUnknown},
      {StatusCode::kInvalidArgument, absl::StatusCode::kInvalidArgument},
      {StatusCode::kDeadlineExceeded, absl::StatusCode::kDeadlineExceeded},
      {StatusCode::kNotFound, absl::StatusCode::kNotFound},
      {StatusCode::kAlreadyExists, absl::StatusCode::kAlreadyExists},
      {StatusCode::kPermissionDenied, absl::StatusCode::kPermissionDenied},
      {StatusCode::kResourceExhausted, absl::StatusCode::kResourceExhausted},
      {StatusCode::kFailedPrecondition, absl::StatusCode::kFailedPrecondition},
      {StatusCode::kAborted, absl::StatusCode::kAborted},
      {StatusCode::kOutOfRange, absl::StatusCode::kOutOfRange},
      {StatusCode::kUnimplemented, absl::StatusCode::kUnimplemented},
      {StatusCode::kInternal, absl::StatusCode::kInternal},
      {StatusCode::kUnavailable, absl::StatusCode::kUnavailable},
      {StatusCode::kDataLoss, absl::StatusCode::kDataLoss},
      {StatusCode::kUnauthenticated, absl::StatusCode::kUnauthenticated},
  };
  for (const auto& [ours, theirs] : codes) {
    const absl::Status converted = ToAbsl(BackendError(ours, "text"));
    EXPECT_EQ(converted.code(), theirs);
    EXPECT_EQ(Text(converted), "text");
    const Status back = FromAbsl(converted, 5, 3);
    EXPECT_EQ(back.code(), ours);
    EXPECT_EQ(back.ToString(), "text");
    EXPECT_EQ(back.info().fault_address, 5U);
    EXPECT_EQ(back.info().transferred, 3U);
  }
}

TEST(AbslStatus, AnErrorKeepsItsWholeText) {
  const Result<uint32_t> result = GuestMemory::Empty().ReadPlain<uint32_t>(8);
  const absl::StatusOr<uint32_t> converted = ToAbsl(result);
  ASSERT_FALSE(converted.ok());
  EXPECT_EQ(converted.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Text(converted.status()), result.status().ToString());
}

TEST(AbslStatus, AValueIsMovedOutOfATemporary) {
  absl::StatusOr<std::unique_ptr<int>> moved = ToAbsl(Result<std::unique_ptr<int>>(std::make_unique<int>(7)));
  ASSERT_TRUE(moved.ok());
  EXPECT_EQ(**moved, 7);
  const Result<std::string> kept(std::string("text"));
  EXPECT_EQ(*ToAbsl(kept), "text");
  EXPECT_EQ(*kept, "text");
}

class FailsWithAbseil final : public GuestMemoryAccess {
 public:
  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return 64; }
  Status ReadFallback(uint64_t address, std::span<std::byte>) override {
    return FromAbsl(absl::UnavailableError("the link is down"), address + 1, 1);
  }
};

TEST(AbslStatus, ACallbacksStatusReachesTheCaller) {
  const GuestMemory memory = GuestMemory::Create("remote", std::make_shared<FailsWithAbseil>()).value();
  const Status status = memory.ReadPlain<uint64_t>(8).status();
  ASSERT_EQ(status.kind(), ErrorKind::kBackend);
  EXPECT_EQ(ToAbsl(status).code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Text(ToAbsl(status)).find("at 0x9: the link is down"), std::string::npos) << status.ToString();
}

}  // namespace
}  // namespace guestmem
