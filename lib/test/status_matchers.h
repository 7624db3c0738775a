// Short ways to hold a Status to what it should say.

#ifndef GUESTMEM_LIB_TEST_STATUS_MATCHERS_H_
#define GUESTMEM_LIB_TEST_STATUS_MATCHERS_H_

#include <gtest/gtest.h>

#include <optional>
#include <ostream>
#include <string>

#include "guestmem/status.h"
#include "guestmem/types.h"

namespace guestmem {

inline void PrintTo(const Status& status, std::ostream* out) { *out << status.ToString(); }
inline void PrintTo(const AddressRange& range, std::ostream* out) { *out << range.start << '+' << range.length; }

}  // namespace guestmem

namespace guestmem::test {

// `status` is an error of this kind at this address with this count.
inline testing::AssertionResult Failed(const Status& status, ErrorKind kind, std::optional<uint64_t> fault_address,
                                       uint64_t transferred = 0) {
  if (status.ok()) {
    return testing::AssertionFailure() << "it succeeded";
  }
  const ErrorInfo& info = status.info();
  if (info.kind == kind && info.fault_address == fault_address && info.transferred == transferred) {
    return testing::AssertionSuccess();
  }
  auto failure = testing::AssertionFailure() << Name(info.kind);
  if (info.fault_address) {
    failure << " at " << *info.fault_address;
  }
  return failure << ", " << info.transferred << " transferred: " << status.ToString();
}

inline testing::AssertionResult Ok(const Status& status) {
  return status.ok() ? testing::AssertionSuccess() : testing::AssertionFailure() << status.ToString();
}

inline testing::AssertionResult Says(const Status& status, const std::string& text) {
  const std::string all = status.ToString();
  return all.find(text) != std::string::npos ? testing::AssertionSuccess() : testing::AssertionFailure() << all;
}

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_STATUS_MATCHERS_H_
