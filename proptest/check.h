// Running a property as often as it needs, in place of rapidcheck's hundred cases.

#ifndef GUESTMEM_PROPTEST_CHECK_H_
#define GUESTMEM_PROPTEST_CHECK_H_

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/detail/TestListenerAdapter.h>

namespace proptest {

// At least `cases` cases; RC_PARAMS may ask for more, for another seed, or for one case again.
template <typename Property>
void CheckAll(const std::string& suite, const char* what, int cases, const Property& property) {
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = std::max(params.maxSuccess, cases);
  const rc::detail::TestMetadata metadata{suite + "/" + what, what};
  const auto result = rc::detail::checkTestable(property, metadata, params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.template is<rc::detail::SuccessResult>()) << text.str();
  std::printf("%s\n", text.str().c_str());
}

}  // namespace proptest

#endif  // GUESTMEM_PROPTEST_CHECK_H_
