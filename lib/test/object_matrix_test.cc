// Objects that come and go (SPEC 11): programs and plugins with static and shared copies of the library in every mix, loaded
// and unloaded in any order, and ends of processes in which threads fault. Each cell is a process of its own, see
// objects/program.cc. GUESTMEM_OBJECT_RUNS=N runs each end N times (default 1); ci/stress.sh does.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "child.h"

namespace guestmem {
namespace {

struct Program {
  const char* name;
  bool exports;  // its copy of the library serves plugins that bring none
};
void PrintTo(const Program& program, std::ostream* out) { *out << program.name; }
constexpr Program kPrograms[] = {
    {"without", false}, {"static", false}, {"exported", true}, {"shared", false}, {"shared_exported", false}};

int Runs() {
  const char* const runs = std::getenv("GUESTMEM_OBJECT_RUNS");
  return runs == nullptr ? 1 : std::atoi(runs);
}

std::string Path(const std::string& name) { return std::string(GUESTMEM_OBJECTS) + "/" + name; }

class ObjectMatrix : public testing::TestWithParam<Program> {
 protected:
  void SetUp() override {
#if defined(GUESTMEM_ASAN) || defined(GUESTMEM_TSAN) || defined(GUESTMEM_MSAN)
    GTEST_SKIP() << "to a sanitizer several copies of one library are an error (ODR), and its runtime refuses RTLD_DEEPBIND";
#endif
  }
  void Run(std::vector<std::string> arguments, const std::vector<std::string>& plugins, int runs = 1) {
    for (const std::string& plugin : plugins) {
      arguments.push_back(Path("object_" + plugin + ".so"));
    }
    std::string cell;
    for (const std::string& argument : arguments) {
      cell += " " + argument;
    }
    const std::string program = Path(std::string("object_program_") + GetParam().name);
    for (int run = 0; run < runs; ++run) {
      const test::ChildResult child = test::Run(program, arguments);
      EXPECT_TRUE(child.Exited(0)) << program << cell << "\nrun " << run << " of " << runs << ": " << child;
    }
  }
  // Which plugins a program is given, in the order in which it loads them.
  std::vector<std::vector<std::string>> Mixes() const {
    std::vector<std::vector<std::string>> mixes = {{"static_a"},
                                                   {"shared_a"},
                                                   {"static_a", "static_b"},
                                                   {"shared_a", "shared_b"},
                                                   {"static_a", "shared_a", "static_b"},
                                                   {"shared_a", "static_a", "shared_b"}};
    if (GetParam().exports) {
      mixes.push_back({"bare_a"});
      mixes.push_back({"static_a", "bare_a", "shared_a"});
    }
    return mixes;
  }
};

TEST_P(ObjectMatrix, PluginsAreLoadedAndUnloadedInAnyOrder) {
  for (const int bind : {RTLD_NOW, RTLD_LAZY}) {
    for (const int scope : {RTLD_LOCAL, RTLD_GLOBAL, RTLD_LOCAL | RTLD_DEEPBIND}) {
      for (const auto& mix : Mixes()) {
        for (const char* handler : {"lib", "own"}) {
          Run({"steps", handler, std::to_string(bind | scope), "30"}, mix);
        }
      }
    }
  }
}

TEST_P(ObjectMatrix, TenThousandReloadsUseNothingUp) {
  for (const char* plugin : {"static_a", "shared_a", "bare_a"}) {
    if (GetParam().exports || std::string(plugin) != "bare_a") {
      Run({"reload", "lib", std::to_string(RTLD_NOW | RTLD_LOCAL), "10000"}, {plugin});
    }
  }
}

TEST_P(ObjectMatrix, AProcessEndsWhileThreadsFault) {
  for (const char* how : {"return", "exit-in-thread", "quick_exit", "_exit", "pthread_exit", "unload-at-exit", "fork"}) {
    for (const char* handler : {"lib", "own"}) {
      Run({"end", handler, how}, {"static_a", "shared_a", "static_b", "shared_b"}, Runs());
      if (GetParam().exports) {
        Run({"end", handler, how}, {"bare_a"}, Runs());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Programs, ObjectMatrix, testing::ValuesIn(kPrograms),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace guestmem
