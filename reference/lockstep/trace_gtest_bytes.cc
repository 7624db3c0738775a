// Bytes as a person would name them: where they come from, not what they are.

#include <algorithm>
#include <functional>
#include <utility>

#include "reference/lockstep/trace_gtest_facts.h"
#include "reference/lockstep/trace_words.h"

namespace reference::gtest {
namespace {

constexpr uint64_t kArenaSize = kMaxPages * kPageSize;
constexpr uint64_t kDataPeriod = 256;       // of DataPattern
constexpr size_t kShortest = 4;             // bytes worth a name

// The longest name found yet for a part of the bytes.
struct Best {
  size_t length = 0;
  bool likely = false;
  std::string text;
};

class Describer {
 public:
  Describer(const Facts& facts, std::span<const uint8_t> bytes, uint64_t offset) : facts_(facts), bytes_(bytes), offset_(offset) {}

  std::string Run() {
    std::vector<std::string> parts;
    std::string literal;
    const auto flush = [&] {
      if (!literal.empty()) {
        parts.push_back("Bytes{" + std::exchange(literal, "") + "}");
      }
    };
    for (size_t at = 0; at < bytes_.size();) {
      const Best best = Find(at);
      if (best.length < kShortest) {
        literal += (literal.empty() ? "" : ", ") + Number(bytes_[at]);
        ++at;
        continue;
      }
      flush();
      parts.push_back(best.text);
      at += best.length;
    }
    flush();
    if (parts.size() == 1) {
      return parts[0];
    }
    std::string joined;
    for (const std::string& part : parts) {
      joined += (joined.empty() ? "" : ", ") + part;
    }
    return parts.empty() ? "Bytes()" : "Join({" + joined + "})";
  }

 private:
  template <typename Pattern>
  size_t Length(size_t at, Pattern pattern, uint64_t most) {
    size_t length = 0;
    while (length < most && at + length < bytes_.size() && bytes_[at + length] == pattern(length)) {
      ++length;
    }
    return length;
  }

  void Consider(Best& best, size_t length, bool likely, const std::function<std::string(const std::string&)>& text) {
    if (length > best.length || (length == best.length && likely && !best.likely)) {
      best = {length, likely, text(DecimalText(length))};
    }
  }

  Best Find(size_t at) {
    Best best;
    const uint8_t first = bytes_[at];
    Consider(best, Length(at, [&](size_t) { return first; }, bytes_.size()), true,
             [&](const std::string& n) { return "Repeat(" + n + ", " + Number(first) + ")"; });
    for (const uint64_t seed : facts_.seeds) {
      for (uint64_t skip = 0; skip < kDataPeriod; ++skip) {
        const size_t length = Length(at, [&](size_t i) { return DataPattern(seed, skip + i); }, bytes_.size());
        Consider(best, length, skip == 0, [&](const std::string& n) {
          return "Data(" + Number(seed) + ", " + n + (skip == 0 ? ")" : ", " + Number(skip) + ")");
        });
      }
    }
    for (uint64_t offset = 0; offset < kArenaSize; ++offset) {
      const bool likely = offset % kPageSize == (offset_ + at) % kPageSize;
      const uint64_t most = kArenaSize - offset;
      for (size_t b = 0; b < facts_.world.backings.size(); ++b) {
        Consider(best, Length(at, [&](size_t i) { return MappedPattern(b, offset + i); }, most), likely,
                 [&](const std::string& n) { return "Initial(" + Number(b) + ", " + Number(offset) + ", " + n + ")"; });
        if (!facts_.fallbacks.empty()) {
          Consider(best, Length(at, [&](size_t i) { return SlowPattern(b, offset + i); }, most), likely,
                   [&](const std::string& n) { return "Slow(" + Number(b) + ", " + Number(offset) + ", " + n + ")"; });
        }
      }
      if (facts_.file && offset < kFilePages * kPageSize) {
        Consider(best, Length(at, [&](size_t i) { return FilePattern(offset + i); }, kFilePages * kPageSize - offset), likely,
                 [&](const std::string& n) { return "File(" + Number(offset) + ", " + n + ")"; });
      }
    }
    return best;
  }

  const Facts& facts_;
  const std::span<const uint8_t> bytes_;
  const uint64_t offset_;
};

}  // namespace

std::string BytesExpression(const Facts& facts, std::span<const uint8_t> bytes, uint64_t offset) {
  return Describer(facts, bytes, offset).Run();
}

}  // namespace reference::gtest
