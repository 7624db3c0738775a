// What the public headers say does not throw: a lost noexcept does not compile here. Built with the header checks. (A Try call between two destructors, a handle in a
// vector that grows, an access in a noexcept device model: all become larger or slower without one, and nothing else would say so.)

#include <memory>
#include <type_traits>
#include <utility>

#include "guestmem/detail/read_section.h"
#include "guestmem/detail/region.h"
#include "guestmem/detail/trap_inline.h"
#include "guestmem/event.h"
#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/lock.h"
#include "guestmem/paged_range.h"
#include "guestmem/status.h"

namespace guestmem {
namespace {

template <typename T>
constexpr bool kMovesWithoutThrowing =
    std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> && std::is_nothrow_destructible_v<T>;
template <typename T>
constexpr bool kCopiesWithoutThrowing = std::is_nothrow_copy_constructible_v<T> && std::is_nothrow_copy_assignable_v<T>;

// Objects.
static_assert(kMovesWithoutThrowing<Status> && kCopiesWithoutThrowing<Status> && std::is_nothrow_default_constructible_v<Status>);
static_assert(kMovesWithoutThrowing<Result<uint64_t>> && std::is_nothrow_constructible_v<Result<uint64_t>, Status> &&
              std::is_nothrow_constructible_v<Result<uint64_t>, uint64_t>);
static_assert(kMovesWithoutThrowing<Result<std::unique_ptr<int>>>);
static_assert(kMovesWithoutThrowing<GuestMemory>);
static_assert(kMovesWithoutThrowing<LockedPages> && kMovesWithoutThrowing<LockedRange>);
static_assert(kMovesWithoutThrowing<Event>);
static_assert(kMovesWithoutThrowing<PagedRange> && kCopiesWithoutThrowing<PagedRange>);
static_assert(kMovesWithoutThrowing<PagedRanges> && kCopiesWithoutThrowing<PagedRanges>);
static_assert(kMovesWithoutThrowing<Fault> && kCopiesWithoutThrowing<Fault>);

// Functions: called with what declval gives.
template <typename T>
T& Any() noexcept;

static_assert(noexcept(Any<Status>().ok()) && noexcept(Any<Status>().code()));
static_assert(noexcept(Any<Status>().rep()) && noexcept(std::move(Any<Status>()).Release()));
static_assert(noexcept(Any<Result<int>>().ok()) && noexcept(Any<const Result<int>>().status()));
// What is said where there is no memory.
static_assert(noexcept(Any<Status>().ToString()) && noexcept(MakeStatus({})) && noexcept(BackendError(StatusCode::kAborted, "")));
static_assert(noexcept(AccessDenied()) && noexcept(NotMapped()) && noexcept(NoFallback()));
static_assert(std::is_nothrow_move_constructible_v<GuestMemory> && std::is_nothrow_move_assignable_v<GuestMemory>);

static_assert(noexcept(TryHandleFault(0, nullptr, nullptr)) && noexcept(RecoveredFaults()));
static_assert(noexcept(TryCopy(GuestSide::kSource, nullptr, nullptr, 0)) && noexcept(TryFill(nullptr, std::byte{}, 0)));
static_assert(noexcept(TryCopyShared(GuestSide::kSource, nullptr, nullptr, 0)));

template <typename T>
constexpr bool kTryCallsDoNotThrow = noexcept(TryRead(nullptr, Any<T>())) && noexcept(TryWrite(nullptr, Any<T>())) &&
                                     noexcept(TryCompareExchange(nullptr, Any<T>(), Any<T>(), Any<bool>()));
static_assert(kTryCallsDoNotThrow<uint8_t> && kTryCallsDoNotThrow<uint16_t> && kTryCallsDoNotThrow<uint32_t> && kTryCallsDoNotThrow<uint64_t>);

static_assert(noexcept(PagedRange::Create(0, 0, {})) && noexcept(Any<PagedRange>().length()) && noexcept(Any<PagedRange>().empty()) &&
              noexcept(Any<PagedRange>().offset()) && noexcept(Any<PagedRange>().gpns()));
static_assert(noexcept(Any<PagedRange>().Subrange(0, 0)) && noexcept(Any<PagedRange>().Split(0)) && noexcept(Any<PagedRange>().Skip(0)) &&
              noexcept(Any<PagedRange>().Truncate(0)) && noexcept(Any<PagedRange>().ranges()));
static_assert(noexcept(PagedRanges::Create({})) && noexcept(Any<PagedRanges>().length()) && noexcept(Any<PagedRanges>().empty()));
static_assert(noexcept(Any<PagedRanges>().Subrange(0, 0)) && noexcept(Any<PagedRanges>().Split(0)) &&
              noexcept(Any<PagedRanges>().Skip(0)) && noexcept(Any<PagedRanges>().Truncate(0)));

template <typename Range>
constexpr bool kIterationDoesNotThrow = noexcept(Any<Range>().begin()) && noexcept(Any<Range>().end()) && noexcept(*Any<Range>().begin()) &&
                                        noexcept(Any<decltype(Any<Range>().begin())>().operator->()) && noexcept(++Any<Range>().begin()) &&
                                        noexcept(Any<Range>().begin()++) && noexcept(Any<Range>().begin() == Any<Range>().end()) &&
                                        std::is_nothrow_default_constructible_v<decltype(Any<Range>().begin())>;
static_assert(kIterationDoesNotThrow<decltype(Any<PagedRange>().ranges())> && kIterationDoesNotThrow<PagedRanges>);

static_assert(noexcept(Any<const Event>().Signal()));

// The inline halves of the layers.
static_assert(noexcept(detail::TrapLoad<8>(nullptr, Any<uint64_t>(), Any<detail::TrapResult>())));
static_assert(noexcept(detail::TrapStore<8>(nullptr, 0, Any<detail::TrapResult>())));
static_assert(noexcept(detail::TrapCompareExchange<8>(nullptr, 0, 0, Any<uint64_t>(), Any<detail::TrapResult>())));
static_assert(noexcept(detail::TrapTouchWrite(nullptr, Any<detail::TrapResult>())));
static_assert(noexcept(detail::MakeFault(nullptr, 0, {})) && noexcept(detail::FinishFill(nullptr, std::byte{}, 0, {})));
static_assert(noexcept(detail::FinishCopy(GuestSide::kSource, nullptr, nullptr, 0, {}, detail::HostSide::kOwn)));
static_assert(noexcept(detail::ToWord(Any<int>())) && noexcept(detail::FromWord(0, Any<int>())) && noexcept(detail::Overlaps(nullptr, nullptr, 1)));
static_assert(noexcept(detail::Below(0, Any<uint64_t>())) && noexcept(detail::EndsBelow(0, Any<uint64_t>(), 0)));
static_assert(noexcept(detail::ReadSection()) && noexcept(detail::EnterSlowly()) && noexcept(detail::SetReaderSlot(nullptr)));
static_assert(noexcept(Any<detail::Window>().Allows(nullptr, 0)) && noexcept(Any<detail::Window>().OnOnePage(0, 0)) &&
              noexcept(Any<detail::Window>().Guards(AccessType::kRead)) && noexcept(Any<detail::Window>().Bitmap(AccessType::kRead)) &&
              noexcept(Any<detail::Window>().FirstRefused(nullptr, 0, 0)));

}  // namespace
}  // namespace guestmem
