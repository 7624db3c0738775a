// Bytes as a person would name them: where they come from, not what they are.

#include <algorithm>
#include <utility>

#include "reference/test_source.h"

namespace reference::gtest {
namespace {

constexpr size_t kShortest = 4;  // bytes worth a name
constexpr uint64_t kPage = 4096;

// The longest name found yet for a part of the bytes.
struct Best {
  size_t length = 0;
  bool likely = false;
  std::string text;
};

class Describer {
 public:
  Describer(std::span<const NamedBytes> names, std::span<const uint8_t> bytes, uint64_t offset)
      : names_(names), bytes_(bytes), offset_(offset) {}

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
  Best Find(size_t at) const {
    Best best;
    const auto longest = [&](const uint8_t* with, size_t most) {
      size_t length = 0;
      while (length < most && bytes_[at + length] == with[length]) {
        ++length;
      }
      return length;
    };
    const auto better = [&](size_t length, bool likely) {
      return length > best.length || (length == best.length && likely && !best.likely);
    };
    size_t same = 0;
    while (at + same < bytes_.size() && bytes_[at + same] == bytes_[at]) {
      ++same;
    }
    best = {same, true, "Repeat(" + std::to_string(same) + ", " + Number(bytes_[at]) + ")"};
    for (const NamedBytes& name : names_) {
      for (uint64_t offset = 0; offset < name.offsets; ++offset) {
        const size_t length =
            longest(name.bytes.data() + offset, std::min(name.bytes.size() - offset, bytes_.size() - at));
        const bool likely = name.placed ? offset % kPage == (offset_ + at) % kPage : offset == 0;
        if (better(length, likely)) {
          best = {length, likely, name.spell(offset, std::to_string(length))};
        }
      }
    }
    return best;
  }

  const std::span<const NamedBytes> names_;
  const std::span<const uint8_t> bytes_;
  const uint64_t offset_;
};

}  // namespace

std::string BytesExpression(std::span<const NamedBytes> names, std::span<const uint8_t> bytes, uint64_t offset) {
  return Describer(names, bytes, offset).Run();
}

void PutChanges(std::span<const NamedBytes> names, const std::string& expected, std::span<const uint8_t> before,
                std::span<const uint8_t> now, Source& out) {
  constexpr uint64_t kGap = 8;  // so many bytes as they were don't end a run
  for (uint64_t start = 0; start < now.size(); ++start) {
    if (now[start] == before[start]) {
      continue;
    }
    uint64_t end = start + 1;
    for (uint64_t i = end; i < std::min<uint64_t>(now.size(), end + kGap); ++i) {
      if (now[i] != before[i]) {
        end = i + 1;
      }
    }
    out.Line({"Put(", expected, ", ", Number(start), ", ",
              BytesExpression(names, now.subspan(start, end - start), start), ");"});
    start = end;
  }
}

}  // namespace reference::gtest
