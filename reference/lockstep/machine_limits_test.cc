// A machine that has no more descriptors or mappings is named as such, with an exit status of its own: neither a divergence of the
// engine nor a crash of the harness.

#include <sys/mman.h>
#include <sys/resource.h>

#include <memory>
#include <string>
#include <variant>

#include <gtest/gtest.h>

#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"
#include "reference/setup.h"

namespace reference {
namespace {

// Runs a world without ops first, so that what the harness sets up once is there; then `text` within the limits.
void RunWithin(void (*limit)(), const std::string& text) {
  const auto parsed = [](const std::string& trace) { return std::get<Trace>(FromText("guestmem trace 1\nworld single_region\n" + trace)); };
  const std::unique_ptr<Subject> subject = MakeEngineSubject();
  Lockstep lockstep(*subject);
  (void)lockstep.Run(parsed("backing 0 pages=4\nops\n"));
  const Trace trace = parsed(text);
  limit();
  const Verdict verdict = lockstep.Run(trace);
  std::fprintf(stderr, "%s\n", verdict ? verdict->field.c_str() : "agree");
  std::_Exit(verdict ? 1 : 0);
}

void NoLimit() {}

void NoMoreFiles() {
  const rlimit none = {3, 3};  // those that are open stay so
  setrlimit(RLIMIT_NOFILE, &none);
}

// vm.max_map_count: neighbouring pages of unlike protection are mappings of their own.
void NoMoreMappings() {
  constexpr size_t kPage = 4096, kPages = size_t{1} << 21;
  auto* const pages = static_cast<char*>(mmap(nullptr, kPages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  for (size_t i = 0; i < kPages; i += 2) {
    if (mprotect(pages + i * kPage, kPage, PROT_READ) != 0) return;
  }
  std::fprintf(stderr, "this machine has no such limit\n");
}

TEST(MachineLimits, AFileThatCannotBeHadIsNotTheEngines) {
  const std::string text = "backing 0 pages=4\nops\nmake slot=1 choice=shared bytes=4096\n";
  EXPECT_EXIT(RunWithin(NoLimit, text), testing::ExitedWithCode(0), "agree");
  EXPECT_EXIT(RunWithin(NoMoreFiles, text), testing::ExitedWithCode(kCannotSetUp), "could not set up: make: a file descriptor: Too many open files");
}

TEST(MachineLimits, AFileOfTheHarnessThatCannotBeHadIsNoCrash) {
  const std::string text = "backing 0 pages=4 page1=bus\nops\nread page1 length=8\n";
  EXPECT_EXIT(RunWithin(NoLimit, text), testing::ExitedWithCode(0), "agree");
  EXPECT_EXIT(RunWithin(NoMoreFiles, text), testing::ExitedWithCode(kCannotSetUp), "could not set up: memfd_create: Too many open files");
}

TEST(MachineLimits, AMappingThatCannotBeHadIsNotTheEngines) {
  const std::string text = "backing 0 pages=4\nops\nprotect backing=0 page=1 count=1 choice=none\n";
  EXPECT_EXIT(RunWithin(NoLimit, text), testing::ExitedWithCode(0), "agree");
  EXPECT_EXIT(RunWithin(NoMoreMappings, text), testing::ExitedWithCode(kCannotSetUp), "could not set up: protect: .*mapping: Cannot allocate memory");
}

}  // namespace
}  // namespace reference
