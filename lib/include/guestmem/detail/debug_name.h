// A debug name. For the library's own headers.

#ifndef GUESTMEM_DETAIL_DEBUG_NAME_H_
#define GUESTMEM_DETAIL_DEBUG_NAME_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace guestmem::detail {

// Each error has the name of its memory, which it may outlive: a copy costs no atomic access and no allocation where the name is
// as short as most are, and never fails. Immutable.
class DebugName {
 public:
  DebugName() = default;
  // Throws std::bad_alloc where the text is long and there is no memory for it.
  explicit DebugName(std::string_view text) {
    if (text.size() <= short_.size()) {
      text.copy(short_.data(), text.size());
      size_ = static_cast<uint8_t>(text.size());
    } else {
      long_ = std::make_shared<const std::string>(text);
    }
  }
  std::string_view view() const { return long_ != nullptr ? std::string_view(*long_) : std::string_view(short_.data(), size_); }

 private:
  std::array<char, 23> short_ = {};
  uint8_t size_ = 0;
  std::shared_ptr<const std::string> long_;  // null: it is short
};

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_DEBUG_NAME_H_
