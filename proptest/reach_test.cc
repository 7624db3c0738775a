// The generators say, in time, everything that a trace can say: each kind, each field of each kind, each named value.

#include <set>
#include <string>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "proptest/generators.h"
#include "reference/lockstep/trace_parts.h"

namespace {

TEST(Reach, GeneratorsSayEverythingThatATraceCanSay) {
  std::set<std::string> said;
  const auto traces = proptest::Traces();
  rc::Random random(1);
  for (int i = 0; i < 8'000; ++i) reference::AddParts(traces(random.split(), 100).value(), said);
  const std::set<std::string> all = reference::EveryPart();
  EXPECT_GT(all.size(), 400u);
  for (const std::string& part : all) EXPECT_TRUE(said.contains(part)) << part << ": never generated";
}

}  // namespace
