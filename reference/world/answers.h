// What the callbacks of a world's backings answer: whose turn which answer is, and what it stands for. Written once: the
// model, the scripted backings and the tests that are made of traces go by it; those tests carry its text, by the sections
// that the lines of dashes name. Knows the C++ library alone.

#ifndef GUESTMEM_REFERENCE_WORLD_ANSWERS_H_
#define GUESTMEM_REFERENCE_WORLD_ANSWERS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace reference {

// ---- Answers
// A list of answers. Each page of each backing takes them on its own, so that a call about one page shifts nothing for another:
// page p of backing b begins with entry b + p, goes on in order and round (modulo their number), and after one round
// gets Answer(), the default, for ever.
template <typename Answer>
class Answers {
 public:
  void Start(const std::vector<Answer>& list) {
    list_ = list;
    askers_.clear();
  }
  Answer Next(uint64_t backing, uint64_t page) {
    if (list_.empty()) return Answer();
    const auto is_it = [&](const Asker& asker) { return asker.backing == backing && asker.page == page; };
    auto asker = std::find_if(askers_.begin(), askers_.end(), is_it);
    if (asker == askers_.end()) asker = askers_.insert(asker, {backing, page, 0});
    return asker->answered < list_.size() ? list_[(backing + page + asker->answered++) % list_.size()] : Answer();
  }

 private:
  struct Asker {
    uint64_t backing, page, answered;
  };
  std::vector<Answer> list_;
  std::vector<Asker> askers_;
};

// ---- Reply
// How a callback ends: so many bytes of its range are moved, and its status says so.
struct Reply {
  enum class Says : uint8_t {
    kOk,
    kScripted,    // an error of the backing's own: ABORTED, "scripted"
    kNoFallback,  // NoFallback(), which keeps its kind
    kNotMapped,   // NotMapped(), likewise
    kBlank,       // no text, and the code OK (UNKNOWN counts)
    kForeign,     // the error of a read of the empty memory at `address`: not the backing's own, so what it says of addresses is ignored
    kOkAsError,   // a Result made of an OK status, which counts as an error
  };
  Says says = Says::kOk;
  uint64_t moved = 0;
  std::optional<uint64_t> address = {};  // that the status names
  uint64_t count = 0;                    // and how many bytes it says were moved
};

// ---- HandlerAnswer
// What PageFault answers.
enum class HandlerAnswer : uint8_t {
  kDefault,          // the default handler's answer
  kFail,             // Fail(an error of the backing's own)
  kFailOk,           // Fail(OK)
  kFailNoFallback,   // Fail(NoFallback())
  kFailElsewhere,    // as kFail, with an address (start of the range handed over + 1) and a count of 1: no influence
  kRetry,            // changes nothing
  kFixRetry,         // puts the page at `address` in order, then Retry
  kFixAllRetry,      // the same for every page from `address` to the end of the range handed over
  kRefuseRetry,      // kFixRetry, then clears the bit of the asked access on the backing's page 0
  kVanishRetry,      // kFixRetry, then makes the backing's page 0 inaccessible
  kFallback,
  kRefuseLastRetry,  // kFixRetry, then clears the bit of the asked access on the page of the last byte handed over
};
// What a handler does when asked about [address, address + length).
struct Handling {
  enum class Ends : uint8_t { kDefault, kFail, kRetry, kFallback };
  Ends ends = Ends::kRetry;
  Reply failure = {};                  // kFail: with its status
  bool fixes = false;                  // puts pages in order, from that of `address` to that of `last`
  uint64_t last = 0;
  std::optional<uint64_t> refuses_at = {};  // then clears the bit on the page of this address
  bool vanishes = false;               // then makes page 0 inaccessible
};
inline Handling HandlingOf(HandlerAnswer answer, uint64_t address, uint64_t length) {
  const auto fail = [](const Reply& failure) { return Handling{Handling::Ends::kFail, failure}; };
  Handling fix;
  fix.fixes = true;
  fix.last = answer == HandlerAnswer::kFixAllRetry ? address + length - 1 : address;
  switch (answer) {
    case HandlerAnswer::kDefault: return {Handling::Ends::kDefault};
    case HandlerAnswer::kFail: return fail({Reply::Says::kScripted});
    case HandlerAnswer::kFailOk: return fail({Reply::Says::kOk});
    case HandlerAnswer::kFailNoFallback: return fail({Reply::Says::kNoFallback});
    case HandlerAnswer::kFailElsewhere: return fail({Reply::Says::kScripted, 0, address + 1, 1});
    case HandlerAnswer::kRetry: return {};
    case HandlerAnswer::kFallback: return {Handling::Ends::kFallback};
    case HandlerAnswer::kRefuseRetry: fix.refuses_at = 0; break;
    case HandlerAnswer::kRefuseLastRetry: fix.refuses_at = address + length - 1; break;
    case HandlerAnswer::kVanishRetry: fix.vanishes = true; break;
    case HandlerAnswer::kFixRetry:
    case HandlerAnswer::kFixAllRetry: break;
  }
  return fix;
}

// ---- FallbackAnswer
// What a fallback does.
enum class FallbackAnswer : uint8_t {
  kDo,            // carries the operation out on the backing's slow bytes
  kNone,          // NoFallback()
  kFail,          // moves nothing, names nothing
  kFailMoved,     // moves min(3, length) bytes; its status says so and names start + min(3, length)
  kFailAt,        // moves nothing; its status names start + length / 2
  kFailOutside,   // moves nothing; its status names start + length + 1 and a count of length + 1: both to be ignored
  kFailBlank,     // moves nothing; its status is blank and names start - 1
  kFailForeign,   // moves nothing; the status is another memory's
  kFailOkResult,  // of a compare-exchange: a Result made of an OK status; else kFail
};
// `exchange`: of a compare-exchange, which moves nothing in kFailMoved either: its status says 0 and names the start.
inline Reply ReplyOf(FallbackAnswer answer, bool exchange, uint64_t start, uint64_t length) {
  const uint64_t some = exchange ? 0 : std::min<uint64_t>(3, length);
  switch (answer) {
    case FallbackAnswer::kDo: return {Reply::Says::kOk, length};
    case FallbackAnswer::kNone: return {Reply::Says::kNoFallback};
    case FallbackAnswer::kFail: break;
    case FallbackAnswer::kFailMoved: return {Reply::Says::kScripted, some, start + some, some};
    case FallbackAnswer::kFailAt: return {Reply::Says::kScripted, 0, start + length / 2};
    case FallbackAnswer::kFailOutside: return {Reply::Says::kScripted, 0, start + length + 1, length + 1};
    case FallbackAnswer::kFailBlank: return {Reply::Says::kBlank, 0, start != 0 ? start - 1 : UINT64_MAX};
    case FallbackAnswer::kFailForeign: return {Reply::Says::kForeign, 0, start};
    case FallbackAnswer::kFailOkResult: return {exchange ? Reply::Says::kOkAsError : Reply::Says::kScripted};
  }
  return {Reply::Says::kScripted};
}

// ---- LockAnswer
// What LockGpns and ExposeVa say. A list is asked about its first page.
enum class LockAnswer : uint8_t {
  kOk,
  kFail,           // names nothing
  kFailNotMapped,  // NotMapped()
  kFailAt,         // names the middle of the range, or of the page listed last
  kFailOutside,    // names the first byte behind the range, or behind the highest page listed
  kFailForeign,    // the status of another memory, from byte 1 of the range or of the first page listed
};
inline Reply ReplyOf(LockAnswer answer, uint64_t start, uint64_t length) {
  switch (answer) {
    case LockAnswer::kOk: return {};
    case LockAnswer::kFail: break;
    case LockAnswer::kFailNotMapped: return {Reply::Says::kNotMapped};
    case LockAnswer::kFailAt: return {Reply::Says::kScripted, 0, start + length / 2};
    case LockAnswer::kFailOutside: return {Reply::Says::kScripted, 0, start + length};
    case LockAnswer::kFailForeign: return {Reply::Says::kForeign, 0, start + 1};
  }
  return {Reply::Says::kScripted};
}
// Precondition: the list is not empty.
inline Reply ReplyOf(LockAnswer answer, std::span<const uint64_t> gpns) {
  const uint64_t page = answer == LockAnswer::kFailOutside   ? *std::max_element(gpns.begin(), gpns.end())
                        : answer == LockAnswer::kFailForeign ? gpns.front()
                                                             : gpns.back();
  return ReplyOf(answer, page * 4096, 4096);
}

// ---- SubrangeAnswer
// What a backing gives for a view of its bytes [start, start + length).
enum class SubrangeAnswer : uint8_t {
  kDefault,       // none: the default view
  kOwn,           // a view of the backing's own, named "own": the same addresses, but without mapping, IOVA, or a hook of its own
  kWrongSize,     // one that is not of the size asked for
  kFail,          // names nothing
  kFailAt,        // names start + length / 2
  kFailOutside,   // names start + length + 1
  kFailBelow,     // names start - 1
  kFailForeign,   // the status of another memory
  kFailOkResult,  // a Result made of an OK status
};
// kOk for what gives a view.
inline Reply ReplyOf(SubrangeAnswer answer, uint64_t start, uint64_t length) {
  switch (answer) {
    case SubrangeAnswer::kDefault:
    case SubrangeAnswer::kOwn:
    case SubrangeAnswer::kWrongSize: return {};
    case SubrangeAnswer::kFail: break;
    case SubrangeAnswer::kFailAt: return {Reply::Says::kScripted, 0, start + length / 2};
    case SubrangeAnswer::kFailOutside: return {Reply::Says::kScripted, 0, start + length + 1};
    case SubrangeAnswer::kFailBelow: return {Reply::Says::kScripted, 0, start != 0 ? start - 1 : UINT64_MAX};
    case SubrangeAnswer::kFailForeign: return {Reply::Says::kForeign, 0, start};
    case SubrangeAnswer::kFailOkResult: return {Reply::Says::kOkAsError};
  }
  return {Reply::Says::kScripted};
}

// ----
inline constexpr int kHandlerAnswers = 12;
inline constexpr int kFallbackAnswers = 9;
inline constexpr int kLockAnswers = 6;
inline constexpr int kSubrangeAnswers = 9;

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_WORLD_ANSWERS_H_
