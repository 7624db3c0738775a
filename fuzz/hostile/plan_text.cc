// A finding as text:
//
//   guestmem hostile 1
//   # comment
//   request read
//     0x1008 4: 00 02 00 00          4 bytes
//     0x5000 512: 41                 512 bytes, all the same
//     page 5 not-mapped after 3      from its 4th access on
//   request write
//     change before 7: 0x1008 4: ff ff 00 00

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>

#include "plan.h"

namespace guestmem::hostile::detail {
namespace {

constexpr std::string_view kHead = "guestmem hostile 1";

std::string_view NextWord(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

std::optional<uint64_t> Number(std::string_view word, int base = 10) {
  if (word.starts_with("0x")) {
    word.remove_prefix(2);
    base = 16;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  return error == std::errc() && end == word.data() + word.size() && !word.empty() ? std::optional(value) : std::nullopt;
}

// "0x1008 4: 00 02 00 00"
bool ParseWrite(std::string_view line, uint64_t memory_size, Write& write) {
  const auto gpa = Number(NextWord(line));
  std::string_view length_word = NextWord(line);
  if (!gpa || !length_word.ends_with(':')) {
    return false;
  }
  length_word.remove_suffix(1);
  const auto length = Number(length_word);
  if (!length || *length == 0 || *gpa >= memory_size || *length > memory_size - *gpa) {
    return false;
  }
  write.gpa = *gpa;
  write.length = static_cast<uint32_t>(*length);
  write.size = 0;
  for (std::string_view word = NextWord(line); !word.empty(); word = NextWord(line)) {
    const auto byte = Number(word, 16);
    if (!byte || *byte > 0xff || write.size == write.bytes.size()) {
      return false;
    }
    write.bytes[write.size++] = std::byte{static_cast<uint8_t>(*byte)};
  }
  return write.size != 0;
}

// "page 5 not-mapped after 3", without its first word
bool ParseAnswer(std::string_view line, uint64_t memory_size, Answer& answer) {
  const auto page = Number(NextWord(line));
  const std::string_view kind = NextWord(line);
  const bool has_after = NextWord(line) == "after";
  const auto after = Number(NextWord(line));
  if (!page || *page >= memory_size / 4096 || !has_after || !after || *after > UINT32_MAX) {
    return false;
  }
  answer.page = *page;
  answer.after = static_cast<uint32_t>(*after);
  for (size_t i = 0; i < kAnswerKinds; ++i) {
    answer.kind = static_cast<AnswerKind>(i);
    if (kind == Name(answer.kind)) {
      return true;
    }
  }
  return false;
}

// "7: 0x1008 4: ff ff 00 00"
bool ParseChange(std::string_view line, uint64_t memory_size, Change& change) {
  std::string_view access_word = NextWord(line);
  if (!access_word.ends_with(':')) {
    return false;
  }
  access_word.remove_suffix(1);
  const auto access = Number(access_word);
  if (!access || *access > UINT32_MAX || change.present || !ParseWrite(line, memory_size, change.write)) {
    return false;
  }
  change.access = static_cast<uint32_t>(*access);
  change.present = true;
  return true;
}

// A line below the head. Returns what is wrong with it.
const char* ParseLine(std::string_view line, std::span<const std::string> examples, uint64_t memory_size, Plan& plan) {
  std::string_view rest = line;
  const std::string_view word = NextWord(rest);
  if (word == "request") {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const auto found = std::find(examples.begin(), examples.end(), rest);
    if (found == examples.end()) {
      return "the device has no example of this name";
    }
    if (plan.requests == kMaxRequests) {
      return "too many requests";
    }
    plan.examples[plan.requests++] = static_cast<uint8_t>(found - examples.begin());
    return nullptr;
  }
  if (plan.requests == 0) {
    return "this belongs below a request";
  }
  const auto request = static_cast<uint8_t>(plan.requests - 1);
  if (word == "page") {
    if (plan.answer_count == kMaxAnswers) {
      return "too many pages";
    }
    Answer& answer = plan.answers[plan.answer_count++];
    answer.request = request;
    return ParseAnswer(rest, memory_size, answer) ? nullptr : "expected 'page N KIND after N'";
  }
  if (word == "change") {
    const bool before = NextWord(rest) == "before";
    plan.change.write.request = request;
    return before && ParseChange(rest, memory_size, plan.change) ? nullptr : "expected one 'change before N: ADDRESS LENGTH: BYTES'";
  }
  if (plan.write_count == kMaxWrites) {
    return "too many writes";
  }
  Write& write = plan.writes[plan.write_count++];
  write.request = request;
  return ParseWrite(line, memory_size, write) ? nullptr : "expected 'ADDRESS LENGTH: BYTES' inside memory";
}

}  // namespace

std::string WriteText(const Write& write) {
  char text[64];
  std::snprintf(text, sizeof(text), "0x%llx %u:", static_cast<unsigned long long>(write.gpa), write.length);
  std::string out = text;
  for (size_t i = 0; i < write.size; ++i) {
    std::snprintf(text, sizeof(text), " %02x", std::to_integer<unsigned>(write.bytes[i]));
    out += text;
  }
  return out;
}

std::string ToText(const Plan& plan, std::span<const std::string> examples, std::string_view comment) {
  std::string out(kHead);
  out += '\n';
  if (!comment.empty()) {
    out.append("# ").append(comment) += '\n';
  }
  for (uint32_t r = 0; r < plan.requests; ++r) {
    out.append("request ").append(examples[plan.examples[r]]) += '\n';
    for (const Write& write : std::span(plan.writes).first(plan.write_count)) {
      if (write.request == r) {
        out.append("  ").append(WriteText(write)) += '\n';
      }
    }
    for (const Answer& answer : std::span(plan.answers).first(plan.answer_count)) {
      if (answer.request == r) {
        out += "  page " + std::to_string(answer.page) + ' ' + Name(answer.kind) + " after " + std::to_string(answer.after) + '\n';
      }
    }
    if (plan.change.present && plan.change.write.request == r) {
      out += "  change before " + std::to_string(plan.change.access) + ": " + WriteText(plan.change.write) + '\n';
    }
  }
  return out;
}

std::string FromText(std::string_view text, std::span<const std::string> examples, uint64_t memory_size, Plan& plan) {
  plan.Clear();
  bool head = false;
  for (int number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (line.empty() || line.starts_with('#')) {
      continue;
    }
    const char* wrong = nullptr;
    if (!head) {
      wrong = line == kHead ? nullptr : "expected 'guestmem hostile 1'";
      head = true;
    } else {
      wrong = ParseLine(line, examples, memory_size, plan);
    }
    if (wrong != nullptr) {
      return "line " + std::to_string(number) + ": " + wrong;
    }
  }
  return plan.requests == 0 ? "no request" : "";
}

}  // namespace guestmem::hostile::detail
