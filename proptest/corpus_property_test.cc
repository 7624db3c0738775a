// What fuzzing found, taken further by rapidcheck: inputs of the corpus with generated operations between theirs, or in
// a generated world, must agree, too.
//
// GUESTMEM_SAVE_TRACES, if set, names a folder to which each trace of the run goes as a fuzzer's input; ci/pick_corpus.sh
// --rapidcheck keeps those that reach something new.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/detail/TestListenerAdapter.h>

#include "proptest/generators.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/lockstep/lockstep.h"
#include "reference/lockstep/trace.h"

namespace {

using reference::Op;
using reference::Trace;
using reference::Verdict;

constexpr int kCases = 20'000;
constexpr size_t kMostGenerated = 6;

// Inputs of every target: each is a trace, whatever it was found for.
std::vector<Trace> ReadCorpus() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(GUESTMEM_CORPUS)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Trace> corpus;
  for (const std::filesystem::path& path : paths) {
    std::ifstream stream(path, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
    if (path.extension() != ".trace") {
      corpus.push_back(reference::FromBytes({reinterpret_cast<const uint8_t*>(content.data()), content.size()}));
    } else if (auto parsed = reference::FromText(content); std::holds_alternative<Trace>(parsed)) {
      corpus.push_back(std::get<Trace>(std::move(parsed)));
    }
  }
  return corpus;
}

void Save(const Trace& trace) {
  static int count = 0;
  const char* const folder = std::getenv("GUESTMEM_SAVE_TRACES");
  if (folder == nullptr) return;
  const std::vector<uint8_t> bytes = reference::ToBytes(trace);
  std::ofstream stream(std::filesystem::path(folder) / ("rapidcheck-" + std::to_string(count++)), std::ios::binary);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  RC_ASSERT(static_cast<bool>(stream));
}

TEST(CorpusProperty, EngineAndModelAgreeOnTheCorpusWithGeneratedParts) {
  const std::vector<Trace> corpus = ReadCorpus();
  ASSERT_FALSE(corpus.empty());
  const std::unique_ptr<reference::Subject> engine = reference::MakeEngineSubject();
  reference::Lockstep lockstep(*engine);
  const auto property = [&] {
    Trace trace = corpus[*rc::gen::inRange<size_t>(0, corpus.size())];
    if (*rc::gen::inRange(0, 4) == 0) trace.world = *proptest::Worlds();
    const size_t generated = *rc::gen::inRange<size_t>(0, kMostGenerated + 1);
    for (const Op& op : *rc::gen::container<std::vector<Op>>(generated, proptest::Ops())) {
      const auto at = static_cast<ptrdiff_t>(*rc::gen::inRange<size_t>(0, trace.ops.size() + 1));
      trace.ops.insert(trace.ops.begin() + at, op);
    }
    trace.ops.resize(std::min(trace.ops.size(), reference::kMaxOps));
    Save(trace);
    if (const Verdict verdict = lockstep.Run(trace)) RC_FAIL(reference::Report(trace, *verdict));
  };
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  params.maxSuccess = std::max(params.maxSuccess, kCases);
  const rc::detail::TestMetadata metadata{"Corpus/AgreesWithGeneratedParts", "AgreesWithGeneratedParts"};
  const auto result = rc::detail::checkTestable(property, metadata, params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << text.str();
  std::cout << text.str() << '\n';
}

}  // namespace
