// The vmm tool: shows, runs and encodes traces of the VMM interfaces.

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/trace_files.h"
#include "reference/vmm/guest.h"
#include "reference/vmm/lockstep.h"

namespace {

using namespace reference::vmm;

constexpr int kRight = 0, kWrong = 1, kBadInput = 2;

constexpr char kHelp[] =
    "usage: vmm show|run FILE...\n"
    "       vmm encode FILE... -o DIRECTORY\n"
    "\n"
    "  show     print each trace as text\n"
    "  run      run each on the in-process guest and on its model; print those where they differ\n"
    "  encode   write each as a fuzzer input of the same name to DIRECTORY\n"
    "\n"
    "FILE is a trace in either spelling: text (first line 'guestmem vmm 1') or bytes (an input of vmm_fuzzer).\n"
    "Exit status: 0 all right, 1 they differ, 2 an unusable argument or file.\n";

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "--help") {
    std::printf("%s", kHelp);
    return kRight;
  }
  const bool encode = !words.empty() && words[0] == "encode";
  const bool known = encode ? words.size() >= 4 && words[words.size() - 2] == "-o"
                            : words.size() >= 2 && (words[0] == "show" || words[0] == "run");
  if (!known) {
    std::fprintf(stderr, "%s", kHelp);
    return kBadInput;
  }
  const std::unique_ptr<Machine> guest = MakeGuest();
  Lockstep lockstep(*guest);
  int status = kRight;
  for (size_t i = 1; i < words.size() - (encode ? 2 : 0); ++i) {
    const auto trace = fuzz::Load(words[i], FromBytes, FromText);
    if (!trace) {
      return kBadInput;
    }
    if (encode) {
      if (!fuzz::Write(words.back() + "/" + words[i].substr(words[i].find_last_of('/') + 1), ToBytes(*trace))) {
        return kBadInput;
      }
    } else if (words[0] == "show") {
      std::printf("%s", ToText(*trace).c_str());
    } else if (const Verdict verdict = lockstep.Run(*trace)) {
      std::printf("# %s\n%s\n", words[i].c_str(), Report(*trace, *verdict).c_str());
      status = kWrong;
    }
  }
  return status;
}
