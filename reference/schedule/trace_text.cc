// The text spelling. One thing a line: threads, a kernel that refuses membarrier, pages, the handler's answers, the ops (thread
// first), the choices.
//
//   guestmem schedule 1
//   threads 2
//   membarrier refused
//   page rw
//   page r- missing
//   handler grant fail
//   0 write page=0 cell=8 size=8 part=0
//   1 retire page=0 form=1
//   choices 0*12 1 2

#include <algorithm>
#include <optional>

#include "reference/schedule/trace.h"
#include "reference/words.h"

namespace reference::schedule {
namespace {

constexpr std::string_view kHeader = "guestmem schedule 1";
constexpr std::string_view kKindNames[kOpKinds] = {
    "read",   "write",  "compare_exchange", "bulk_read", "bulk_write", "fill",   "revoke", "grant",
    "retire", "restore", "lock",             "touch",     "unlock",     "section", "resolve", "wait_unlocked"};
constexpr std::string_view kAnswerNames[kAnswers] = {"fail", "retry", "grant", "restore", "revoke_other", "retry_forever"};

// The fields that text spells as key=number, with their range; those at their default are left out.
struct Field {
  std::string_view key;
  uint8_t Op::*member;
  uint8_t low, high;
};
constexpr Field kFields[] = {
    {"page", &Op::page, 0, kMaxPages - 1},    {"count", &Op::count, 1, kMaxPages}, {"cell", &Op::cell, 0, kCellCount - 1},
    {"size", &Op::size, 0, 3},                {"part", &Op::part, 0, 7},           {"length", &Op::length, 0, kLengthCount - 1},
    {"access", &Op::access, 1, 3},            {"form", &Op::form, 0, 1},
};

std::string WantsNumber(std::string_view what, std::string_view word, uint64_t low, uint64_t high) {
  return std::string(what) + " wants a number from " + std::to_string(low) + " to " + std::to_string(high) + ", not " +
         Quoted(word);
}

// Each returns why it refuses the line; empty: taken.
std::string ParsePage(const Words& words, Trace& trace) {
  if (words.size() < 2 || words[1].size() != 2 || (words[1][0] != 'r' && words[1][0] != '-') ||
      (words[1][1] != 'w' && words[1][1] != '-') || words.size() > 3 || (words.size() == 3 && words[2] != "missing" && words[2] != "hole")) {
    return "a page is one of rw r- -w --, and perhaps the word missing or hole";
  }
  if (trace.pages.size() == kMaxPages) {
    return "at most " + std::to_string(kMaxPages) + " pages";
  }
  trace.pages.push_back({words[1][0] == 'r', words[1][1] == 'w', words.size() == 3 && words[2] == "missing", words.size() == 3 && words[2] == "hole"});
  return "";
}

std::string ParseHandler(const Words& words, Trace& trace) {
  for (size_t i = 1; i < words.size(); ++i) {
    const auto name = std::find(std::begin(kAnswerNames), std::end(kAnswerNames), words[i]);
    if (name == std::end(kAnswerNames)) {
      return Quoted(words[i]) + " is no answer: fail, retry, grant, restore, revoke_other, retry_forever";
    }
    if (trace.answers.size() == kMaxAnswers) {
      return "at most " + std::to_string(kMaxAnswers) + " answers";
    }
    trace.answers.push_back(static_cast<Answer>(name - std::begin(kAnswerNames)));
  }
  return "";
}

std::string ParseChoices(const Words& words, Trace& trace) {
  for (size_t i = 1; i < words.size(); ++i) {
    const Words parts = Split(words[i], '*');
    const auto value = parts.empty() ? std::nullopt : Number(parts[0], 0, kChoiceValues - 1);
    const auto count = parts.size() == 2 ? Number(parts[1], 1, kMaxChoices) : std::optional<uint64_t>(1);
    if (!value || !count || parts.size() > 2 || trace.choices.size() + *count > kMaxChoices) {
      return Quoted(words[i]) + " is no choice: 0 to 5, or for a row of them 0*12; at most " + std::to_string(kMaxChoices);
    }
    trace.choices.insert(trace.choices.end(), *count, static_cast<uint8_t>(*value));
  }
  return "";
}

std::string ParseOp(const Words& words, Trace& trace) {
  const auto thread = Number(words[0], 0, trace.threads - 1u);
  if (!thread) {
    return Quoted(words[0]) + " is no line: threads, membarrier, page, handler, choices, or a thread's number (below threads) and its op";
  }
  const auto name = std::find(std::begin(kKindNames), std::end(kKindNames), words.size() < 2 ? "" : words[1]);
  if (name == std::end(kKindNames)) {
    return Quoted(words.size() < 2 ? "" : words[1]) + " is no op";
  }
  if (trace.ops.size() == kMaxOps) {
    return "at most " + std::to_string(kMaxOps) + " ops";
  }
  Op op;
  op.thread = static_cast<uint8_t>(*thread);
  op.kind = static_cast<OpKind>(name - std::begin(kKindNames));
  for (size_t i = 2; i < words.size(); ++i) {
    const size_t equals = std::min(words[i].find('='), words[i].size());
    const auto field = std::find_if(std::begin(kFields), std::end(kFields),
                                    [&](const Field& f) { return f.key == words[i].substr(0, equals); });
    if (field == std::end(kFields) || equals == words[i].size()) {
      return Quoted(words[i]) + " is no field: page, count, cell, size, part, length, access, form, each with =NUMBER";
    }
    const auto number = Number(words[i].substr(equals + 1), field->low, field->high);
    if (!number) {
      return WantsNumber(field->key, words[i].substr(equals + 1), field->low, field->high);
    }
    op.*field->member = static_cast<uint8_t>(*number);
  }
  trace.ops.push_back(op);
  return "";
}

std::string ParseLine(const Words& words, Trace& trace) {
  if (words[0] == "threads") {
    const auto number = words.size() == 2 ? Number(words[1], 2, kMaxThreads) : std::nullopt;
    if (!number) {
      return WantsNumber("threads", words.size() < 2 ? "" : words[1], 2, kMaxThreads);
    }
    trace.threads = static_cast<uint8_t>(*number);
    return "";
  }
  if (words[0] == "membarrier") {
    trace.membarrier = false;
    return words.size() == 2 && words[1] == "refused" ? "" : "after membarrier comes the word refused; a trace without the line has it";
  }
  if (words[0] == "page") {
    return ParsePage(words, trace);
  }
  if (words[0] == "handler") {
    return ParseHandler(words, trace);
  }
  return words[0] == "choices" ? ParseChoices(words, trace) : ParseOp(words, trace);
}

}  // namespace

std::string_view Name(OpKind kind) { return kKindNames[static_cast<size_t>(kind)]; }
std::string_view Name(Answer answer) { return kAnswerNames[static_cast<size_t>(answer)]; }

std::string OpText(const Op& op) {
  std::string out(Name(op.kind));
  for (const Field& field : kFields) {
    if (op.*field.member != Op().*field.member || field.key == "page") {
      out += " " + std::string(field.key) + "=" + std::to_string(op.*field.member);
    }
  }
  return out;
}

std::string ToText(const Trace& trace) {
  std::string out = std::string(kHeader) + "\nthreads " + std::to_string(trace.threads) + "\n" +
                    (trace.membarrier ? "" : "membarrier refused\n");
  for (const Page& page : trace.pages) {
    out += std::string("page ") + (page.readable ? 'r' : '-') + (page.writable ? 'w' : '-') + (page.hole ? " hole\n" : page.missing ? " missing\n" : "\n");
  }
  if (!trace.answers.empty()) {
    out += "handler";
    for (const Answer answer : trace.answers) {
      out += " " + std::string(Name(answer));
    }
    out += "\n";
  }
  for (const Op& op : trace.ops) {
    out += std::to_string(op.thread) + " " + OpText(op) + "\n";
  }
  if (!trace.choices.empty()) {
    out += "choices";
    for (size_t i = 0; i < trace.choices.size();) {
      size_t end = i;
      while (end < trace.choices.size() && trace.choices[end] == trace.choices[i]) {
        ++end;
      }
      out += " " + std::to_string(trace.choices[i]) + (end - i > 1 ? "*" + std::to_string(end - i) : "");
      i = end;
    }
    out += "\n";
  }
  return out;
}

std::variant<Trace, TextError> FromText(std::string_view text) {
  Trace trace;
  trace.pages.clear();
  int number = 0;
  bool header = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    line = line.substr(0, line.find('#'));
    const Words words = Split(line, ' ');
    if (words.empty()) {
      continue;
    }
    if (!header) {
      if (line != kHeader) {
        return TextError{number, "the first line must be '" + std::string(kHeader) + "'"};
      }
      header = true;
    } else if (std::string reason = ParseLine(words, trace); !reason.empty()) {
      return TextError{number, std::move(reason)};
    }
  }
  if (!header || trace.pages.empty()) {
    return TextError{number, header ? "a trace has at least one page line" : "empty: no header"};
  }
  return FromBytes(ToBytes(trace));  // brings every op into the range of the world
}

}  // namespace reference::schedule
