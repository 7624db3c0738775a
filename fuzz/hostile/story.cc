#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "report.h"

namespace guestmem::hostile::detail {
namespace {

constexpr size_t kStoryLines = 12;
constexpr size_t kShownFrames = 3;

struct Function {
  std::string name;   // without arguments
  std::string place;  // file:line
};

// The functions of a frame, the innermost first. Empty where nothing can say.
std::vector<Function> Functions(const void* pc) {
  std::vector<Function> functions;
  Dl_info info;
  if (dladdr(pc, &info) == 0) {
    return functions;
  }
  const auto offset = reinterpret_cast<uintptr_t>(pc) - reinterpret_cast<uintptr_t>(info.dli_fbase) - 1;  // inside of the call
  char exe[384] = {};
  if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) <= 0 || std::strchr(exe, '\'') != nullptr) {
    return functions;
  }
  // LLVM's, by any of its names, follows what clang inlined; binutils' does not always.
  char command[1024];
  std::snprintf(command, sizeof(command),
                "for s in llvm-symbolizer llvm-symbolizer-22 llvm-symbolizer-19 llvm-symbolizer-17; do "
                "command -v $s >/dev/null && exec $s --output-style=GNU -Cfie '%s' 0x%llx; done 2>/dev/null; "
                "exec addr2line -Cfie '%s' 0x%llx 2>/dev/null",
                exe, static_cast<unsigned long long>(offset), exe, static_cast<unsigned long long>(offset));
  FILE* const pipe = popen(command, "r");
  if (pipe == nullptr) {
    return functions;
  }
  char name[1024], place[512];
  while (std::fgets(name, sizeof(name), pipe) != nullptr && std::fgets(place, sizeof(place), pipe) != nullptr) {
    name[std::strcspn(name, "(<\n")] = '\0';
    place[std::strcspn(place, " \n")] = '\0';
    functions.push_back({name, place});
  }
  pclose(pipe);
  return functions;
}

bool HasAny(const std::string& text, std::initializer_list<const char*> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](const char* part) { return text.find(part) != std::string::npos; });
}

// Whether a place is the library's, the kit's or the C++ library's.
bool IsForeign(const std::string& place) {
  return HasAny(place, {"/guestmem/", "/lib/src/", "/hostile/machine", "/hostile/hooks", "/c++/"});
}

// The device's own functions among those of a stack.
std::string StackText(std::span<void* const> frames) {
  std::string text;
  size_t shown = 0;
  for (void* const frame : frames) {
    const std::vector<Function> functions = Functions(frame);
    for (const Function& function : functions) {
      if (function.name.find("RunOnce") != std::string::npos || shown == kShownFrames) {
        return text;
      }
      // A short name is told by its place; the outermost function, whose name is whole, may stand where it inlined the library's.
      const bool foreign = IsForeign(function.place);
      if (HasAny(function.name, {"guestmem::", "std::", "operator", "??"}) || (foreign && (&function != &functions.back() || !HasAny(function.name, {"::"})))) {
        continue;
      }
      text += (shown++ == 0 ? "" : " < ") + function.name;
      if (!foreign) {
        text += ' ' + function.place.substr(function.place.find_last_of('/') + 1);
      }
    }
  }
  return text;
}

std::string EventText(const Event& event, size_t times) {
  char text[160];
  const unsigned shown = std::min<uint32_t>(event.length, sizeof(event.value));
  const int width = static_cast<int>(2 * shown);
  if (event.kind == EventKind::kCallOut) {
    std::snprintf(text, sizeof(text), "call out, %u bytes", event.length);
  } else if (event.kind == EventKind::kLock || event.kind == EventKind::kUnlock) {
    std::snprintf(text, sizeof(text), "%s of %u pages from 0x%llx%s", Name(event.kind), event.length / 4096,
                  static_cast<unsigned long long>(event.gpa), event.ok ? "" : ": refused");
  } else if (event.kind == EventKind::kChange) {
    std::snprintf(text, sizeof(text), "the guest writes 0x%llx = 0x%0*llx", static_cast<unsigned long long>(event.gpa), width,
                  static_cast<unsigned long long>(event.value));
  } else {
    std::snprintf(text, sizeof(text), "access %u: %s 0x%llx, %u bytes%s", event.access, Name(event.kind),
                  static_cast<unsigned long long>(event.gpa), event.length, event.ok ? "" : ": fails");
    if (event.ok && event.kind != EventKind::kRawStore) {
      char value[40];
      std::snprintf(value, sizeof(value), " -> 0x%0*llx%s", width, static_cast<unsigned long long>(event.value),
                    event.length > shown ? "..." : "");
      std::strncat(text, value, sizeof(text) - std::strlen(text) - 1);
    }
  }
  return times == 1 ? text : std::to_string(times) + " times alike; " + text;
}

bool Alike(const Event& a, const Event& b) { return a.kind == b.kind && a.length == b.length && a.ok == b.ok; }

// The last events of `events`, as at most `lines` lines; what repeats is one.
std::vector<std::string> LastEvents(std::span<const Event> events, size_t lines) {
  std::vector<std::string> out;
  while (!events.empty() && out.size() < lines) {
    // A loop of up to four accesses that repeats is told once.
    size_t period = 1;
    size_t times = 1;
    for (const size_t p : {1, 2, 3, 4}) {
      size_t n = 1;
      while ((n + 1) * p <= events.size() &&
             std::equal(events.end() - static_cast<ptrdiff_t>((n + 1) * p), events.end() - static_cast<ptrdiff_t>(n * p),
                        events.end() - static_cast<ptrdiff_t>(p), Alike)) {
        ++n;
      }
      if (n > 2 && n * p > times * period) {
        period = p, times = n;
      }
    }
    if (times < 3) {
      period = times = 1;
    }
    for (size_t i = 0; i < period && out.size() < lines; ++i) {
      out.push_back(EventText(events[events.size() - 1 - i], times));
    }
    events = events.first(events.size() - period * times);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

std::string Story(Machine& machine, const std::string& replay) {
  const Shared& shared = machine.shared();
  const Plan& plan = shared.plan;
  const bool stopped = shared.verdict != VerdictKind::kCrash && shared.verdict != VerdictKind::kHang;
  const std::span events = std::span(shared.events).first(stopped ? shared.verdict_event : shared.event_count);
  const uint8_t request = plan.change.present ? plan.change.write.request : events.empty() ? 0 : events.back().request;
  std::vector<std::string> lines;
  lines.push_back(std::string(Name(shared.verdict)) + ": " + shared.why.data());
  std::string guest = "request " + std::to_string(request) + ", \"" + machine.example_names()[plan.examples[request]] + "\"";
  size_t deviations = 0;
  for (const Write& write : std::span(plan.writes).first(plan.write_count)) {
    if (++deviations <= 4) {
      guest += (deviations == 1 ? ", with " : "; ") + WriteText(write);
    }
  }
  for (const Answer& answer : std::span(plan.answers).first(plan.answer_count)) {
    if (++deviations <= 4) {
      guest += (deviations == 1 ? ", with page " : "; page ") + std::to_string(answer.page) + ' ' + Name(answer.kind);
    }
  }
  if (deviations > 4) {
    guest += "; and " + std::to_string(deviations - 4) + " more";
  }
  lines.push_back("  " + guest);
  const auto stack = [&](size_t which) {
    const std::string text = StackText(std::span(shared.stacks[which]).first(static_cast<size_t>(shared.frames[which])));
    if (!text.empty()) {
      lines.push_back("      " + text);
    }
  };
  if (shared.verdict == VerdictKind::kDoubleFetch) {
    size_t i = static_cast<size_t>(shared.first_fetch);
    lines.push_back("  " + EventText(events[i], 1));
    stack(0);
    while (i < events.size() && events[i].kind != EventKind::kChange) {
      ++i;
    }
    for (size_t n = 0; n < 2 && i < events.size(); ++n, ++i) {
      lines.push_back("  " + EventText(events[i], 1));
    }
    stack(1);
    const std::span rest = events.subspan(i);
    const auto next = std::find_if(rest.begin(), rest.end(), [&](const Event& e) { return e.request != request; });
    for (const std::string& line : LastEvents(rest.first(std::min<size_t>(static_cast<size_t>(next - rest.begin()), 8)), 3)) {
      lines.push_back("  " + line);
    }
  } else {
    for (const std::string& line : LastEvents(events, kStoryLines - 5)) {
      lines.push_back("  " + line);
    }
    stack(1);
  }
  lines.push_back("again: " + replay);
  std::string out;
  for (const std::string& line : lines) {
    out += line + '\n';
  }
  return out;
}

std::string TestText(Machine& machine) {
  const Shared& shared = machine.shared();
  std::string name;
  bool upper = true;
  for (const char* c = Name(shared.verdict); *c != '\0'; ++c) {
    if (*c == ' ') {
      upper = true;
    } else {
      name += upper ? static_cast<char>(*c - 'a' + 'A') : *c;
      upper = false;
    }
  }
  return "#include <gtest/gtest.h>\n#include <guestmem/hostile/device_fuzzer.h>\n\nTEST(HostileGuest, " + name +
         ") {\n  EXPECT_EQ(guestmem::hostile::Replay(guestmem::hostile::DescribeDevice, R\"(" +
         ToText(shared.plan, machine.example_names(), shared.why.data()) + ")\"),\n            \"none\");\n}\n";
}

}  // namespace guestmem::hostile::detail
