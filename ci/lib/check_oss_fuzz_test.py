#!/usr/bin/env python3
"""Each check of ci/lib/check_oss_fuzz.py passes on a sound target and fails on one that is broken in just its way.

usage: check_oss_fuzz_test.py CLANG++     (ctest calls it)
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import check_oss_fuzz as check

# One target, broken as the environment or a definition says.
SOURCE = r"""
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <unistd.h>

// Many edges, and many accesses for ASan.
#define ONE(n) if (size > (n) && data[(n)] == (n) % 256) sum += data[size - (n) - 1] * sum;
#define TEN(n) ONE(n) ONE(n + 1) ONE(n + 2) ONE(n + 3) ONE(n + 4) ONE(n + 5) ONE(n + 6) ONE(n + 7) ONE(n + 8) ONE(n + 9)
#define HUNDRED(n) TEN(n) TEN(n + 10) TEN(n + 20) TEN(n + 30) TEN(n + 40) TEN(n + 50) TEN(n + 60) TEN(n + 70) TEN(n + 80) TEN(n + 90)

static bool Broken(const char* how) {
  const char* broken = getenv("BROKEN");
  return broken != nullptr && strcmp(broken, how) == 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static volatile unsigned result;
  unsigned sum = 1;
#ifndef FEW_EDGES
  HUNDRED(0) HUNDRED(100) HUNDRED(200) HUNDRED(300) HUNDRED(400) HUNDRED(500)
#endif
  result = sum;
  if (Broken("start")) exit(1);
  if (Broken("writes in OUT")) {
    FILE* file = fopen("written", "w");
    if (file == nullptr) abort();
  }
  if (Broken("memory") && size > 3000) {
    static char* volatile kept = static_cast<char*>(malloc(200 << 20));
    memset(kept, 1, 200 << 20);
  }
  if (Broken("slow") && size > 3000) {
    for (const time_t end = time(nullptr) + 20; time(nullptr) < end;) {}
  }
  if (size > 3 && memcmp(data, "seed", 4) == 0 && Broken("seed")) abort();
  if (size > 3 && memcmp(data, "wild", 4) == 0) {
    if (Broken("swallows")) signal(SIGSEGV, [](int) { _exit(0); });
    *reinterpret_cast<volatile int*>(uintptr_t{8}) = 1;
  }
  return 0;
}
"""

OPTIONS = "[libfuzzer]\nmax_len = 4000\n[asan]\nhandle_segv = 1\n[ubsan]\nhandle_segv = 1\n"
compiler = ""


class Checks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        base = Path(cls.folder.name)
        (base / "target.cc").write_text(SOURCE)
        cls.outs = {}
        for name, flags in (("sound", ["-fsanitize=address"]), ("no sanitizer", []),
                            ("mixed", ["-fsanitize=address,undefined"]), ("few edges", ["-fsanitize=address", "-DFEW_EDGES"]),
                            ("libraries", ["-fsanitize=address", "-Wl,-rpath,/build", "-Wl,--no-as-needed", "-lstdc++"])):
            out = base / name / "out"
            out.mkdir(parents=True)
            cls.outs[name] = out
            subprocess.run([compiler, "-std=c++20", "-O1", "-w", "-fsanitize=fuzzer", *flags, "-static-libstdc++",
                            str(base / "target.cc"), "-o", str(out / "target")], check=True)
            (out / "target.options").write_text(OPTIONS)
            with zipfile.ZipFile(out / "target_seed_corpus.zip", "w") as archive:
                archive.writestr("one", b"seed")
                archive.writestr("two", b"x" * 3500)
        cls.outs["no options"] = base / "no options"
        shutil.copytree(cls.outs["sound"], cls.outs["no options"], ignore=shutil.ignore_patterns("*.options"))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def tearDown(self):
        os.environ.pop("BROKEN", None)

    def judge(self, expected, call, *arguments, out="sound", broken="", **options):
        os.environ["BROKEN"] = broken
        result = call(self.outs[out], "target", *arguments, **options)
        self.assertEqual(result.ok, expected, result.reason)
        return result

    def test_starts(self):
        self.judge(True, check.check_starts)
        self.judge(False, check.check_starts, broken="start")
        self.judge(False, check.check_starts, broken="writes in OUT")

    def test_edges(self):
        self.judge(True, check.check_edges)
        self.judge(False, check.check_edges, out="few edges")

    def test_sanitizer(self):
        self.judge(True, check.check_sanitizer, "address")
        self.judge(False, check.check_sanitizer, "address", out="no sanitizer")
        self.assertIn("ubsan", self.judge(False, check.check_sanitizer, "address", out="mixed").reason)
        self.judge(False, check.check_sanitizer, "undefined")

    def test_libraries(self):
        self.judge(True, check.check_libraries)
        reason = self.judge(False, check.check_libraries, out="libraries").reason
        self.assertIn("/build", reason)

    def test_seeds(self):
        self.judge(True, check.check_seeds)
        self.judge(False, check.check_seeds, broken="seed")
        archive = self.outs["few edges"] / "target_seed_corpus.zip"
        archive.write_bytes(b"no archive")
        self.judge(False, check.check_seeds, out="few edges")
        archive.unlink()
        self.judge(False, check.check_seeds, out="few edges")
        self.judge(False, check.check_files, out="few edges")
        self.judge(True, check.check_files)

    def test_limits(self):
        self.judge(True, check.check_limits, seconds=2, mib=150)
        self.judge(False, check.check_limits, seconds=2, mib=150, broken="memory")
        self.judge(False, check.check_limits, seconds=2, mib=150, broken="slow")

    def test_crash(self):
        self.judge(True, check.check_crash, {"wild": b"wild"})
        self.judge(False, check.check_crash, {"wild": b"wild"}, broken="swallows")
        self.judge(False, check.check_crash, {"tame": b"tame"})

    def test_options_are_laid_over_the_services(self):
        """The program's own handler is in place with them, and not without."""
        self.judge(False, check.check_crash, {"wild": b"wild"}, broken="swallows")
        self.judge(True, check.check_crash, {"wild": b"wild"}, broken="swallows", out="no options")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip())
    if reason := check.cannot_isolate():
        print(f"skipped: no mount namespace: {reason}")
        sys.exit(77)
    compiler = sys.argv.pop(1)
    unittest.main()
