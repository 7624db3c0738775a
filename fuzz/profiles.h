// What each lockstep target makes of the trace that its bytes decode to. A target names its profile once, by GUESTMEM_TARGET; the trace
// tool is built with all of them, so that an input is the same trace there.

#ifndef GUESTMEM_FUZZ_PROFILES_H_
#define GUESTMEM_FUZZ_PROFILES_H_

#include <map>
#include <string>

#include "reference/lockstep/trace.h"

namespace fuzz {

// Keeps a target on its subject by editing the decoded trace; all of them read the same bytes.
using Profile = void (*)(reference::Trace& trace);

// By target; of those in this program.
inline std::map<std::string, Profile, std::less<>>& Profiles() {
  static auto* const profiles = new std::map<std::string, Profile, std::less<>>;
  return *profiles;
}

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_PROFILES_H_
