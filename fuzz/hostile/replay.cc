// hostile::Replay, for tests.

#include <memory>

#include "report.h"

namespace guestmem::hostile {

std::string Replay(const std::function<void(Setup&)>& describe, std::string_view finding) {
  using namespace detail;
  static Shared& shared = NewShared();
  Machine machine(describe, shared);
  const std::string wrong = FromText(finding, machine.example_names(), machine.size(), shared.plan);
  if (!wrong.empty()) {
    return wrong;
  }
  static const bool installed = (InstallFaultReport(), true);
  (void)installed;
  machine.OnStop([&machine] {
    std::fputs(Story(machine, "this test").c_str(), stderr);
    std::abort();
  });
  machine.RunPlan();
  return Name(shared.verdict);
}

}  // namespace guestmem::hostile
