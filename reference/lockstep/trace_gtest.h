// A trace as a GoogleTest program that needs nothing of the harness: the public headers of the engine, its world built
// inline, each operation as a call, and what the model says of it as expectations. For regression tests.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_H_

#include <string>
#include <string_view>

#include "reference/lockstep/trace.h"

namespace reference {

struct TestSource {
  std::string text;     // C++20; several of different names may be compiled as one file
  std::string problem;  // why the text only skips, with this reason: something in the trace has no C++ (yet)
};

// `name`: any text; it becomes the test's name, TEST(Regression, Name).
TestSource ToTestSource(const Trace& trace, std::string_view name);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_H_
