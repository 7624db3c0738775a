// What each target is about. A target names its profile once, by GUESTMEM_TARGET; the trace tool is built with all of them, so that an
// input is the same trace there.

#ifndef GUESTMEM_FUZZ_PROFILES_H_
#define GUESTMEM_FUZZ_PROFILES_H_

#include <map>
#include <string>

#include "reference/trace/schema.h"

namespace fuzz {

// By target; of those in this program.
inline std::map<std::string, reference::trace::Profile, std::less<>>& Profiles() {
  static auto* const profiles = new std::map<std::string, reference::trace::Profile, std::less<>>;
  return *profiles;
}
inline const reference::trace::Profile& ProfileOf(const std::string& target) {
  static constexpr reference::trace::Profile kEverything;
  const auto found = Profiles().find(target);
  return found == Profiles().end() ? kEverything : found->second;
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_PROFILES_H_
