// A trace as a GoogleTest program in one file that needs the engine's public headers alone: what it uses of reference/world and
// reference/support, its world, each operation as a call, and what the model says of it as expectations. For regression tests.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_H_

#include <string>
#include <string_view>

#include "reference/lockstep/trace.h"

namespace reference {

// C++20; several of different names may be compiled as one file. `name`: any text; it becomes the test's name, TEST(Regression, Name).
std::string ToTestSource(const Trace& trace, std::string_view name);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_TRACE_GTEST_H_
