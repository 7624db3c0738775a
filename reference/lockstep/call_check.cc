#include "reference/lockstep/call_check.h"

#include <algorithm>

#include "reference/lockstep/trace.h"
#include "reference/trace/words.h"

namespace reference {
namespace {

bool Lists(const Call& call, uint64_t page) { return std::find(call.gpns.begin(), call.gpns.end(), page) != call.gpns.end(); }

std::string WrongRange(const Backing& setup, const Call& call) {
  if (call.length == 0 && call.kind != CallKind::kSubrange) {
    return "no bytes";
  }
  if (call.address > setup.max_address() || call.length > setup.max_address() - call.address) {
    return "bytes that are not below max_address";
  }
  return {};
}

std::string WrongPages(const Backing& setup, const Call& call) {
  if (call.gpns.empty()) {
    return "an empty list";
  }
  const uint64_t pages = (setup.max_address() + kPageSize - 1) / kPageSize;
  const bool inside = std::all_of(call.gpns.begin(), call.gpns.end(), [&](uint64_t gpn) { return gpn < pages; });
  return inside ? "" : "a page that is not below max_address";
}

std::string Wrong(const Backing& setup, const Call& call, std::span<const Call> held) {
  const std::string range = WrongRange(setup, call);
  switch (call.kind) {
    case CallKind::kReadFallback:
    case CallKind::kWriteFallback:
    case CallKind::kFillFallback:
    case CallKind::kSubrange:
      return range;
    case CallKind::kPageFault:
      return call.access > Access::kExecute ? "no type of access" : range;
    case CallKind::kCompareExchangeFallback:
      if (call.length != 1 && call.length != 2 && call.length != 4 && call.length != 8) {
        return "a size that is not 1, 2, 4 or 8";
      }
      return call.address % call.length != 0 ? "an unaligned address" : range;
    case CallKind::kExposeVa: {
      if (!range.empty()) {
        return range;
      }
      const auto locks = [&](uint64_t page) {
        return std::any_of(held.begin(), held.end(), [&](const Call& lock) { return Lists(lock, page); });
      };
      const bool locked = locks(call.address / kPageSize) && locks((call.address + call.length - 1) / kPageSize);
      return locked ? "" : "a page that is not locked";
    }
    case CallKind::kLockGpns:
      return call.access > Access::kExecute ? "no type of access" : WrongPages(setup, call);
    case CallKind::kUnlockGpns: {
      const bool matches = std::any_of(held.begin(), held.end(), [&](const Call& lock) {
        return lock.access == call.access && lock.gpns == call.gpns;
      });
      return matches ? "" : "a list that no lock has locked for this access";
    }
  }
  return {};
}

}  // namespace

std::string WrongCall(const Backing& setup, const Call& call, std::span<const Call> held) {
  std::string wrong = Wrong(setup, call, held);
  if (wrong.empty()) {
    return wrong;
  }
  std::string text = std::string(Name(call.kind)) + " of backing " + std::to_string(call.backing) + ": " + wrong + ":";
  if (call.kind == CallKind::kLockGpns || call.kind == CallKind::kUnlockGpns) {
    for (const uint64_t gpn : call.gpns) {
      text += " " + trace::HexText(gpn);
    }
  } else {
    text += " " + trace::HexText(call.address) + "+" + trace::HexText(call.length);
  }
  if (call.kind == CallKind::kPageFault || call.kind == CallKind::kLockGpns || call.kind == CallKind::kUnlockGpns) {
    text += " access " + std::string(Name(call.access));
  }
  return text;
}

}  // namespace reference
