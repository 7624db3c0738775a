#!/usr/bin/env python3
"""Holds the targets in $OUT to what OSS-Fuzz asks of a build; ci/check_oss_fuzz.sh builds them and calls this."""

import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzz_common import ROOT, laid_over, options_file, table

MEMORY_MIB = 2048
SECONDS_AN_INPUT = 25
LEAST_EDGES = 100

# Calls into the sanitizers' runtimes that a build with one of them has at least, and one without has at most. The UBSan
# runtime is in every sanitizer's, with calls of its own.
LEAST_CALLS = {"address": ("asan", 1000), "undefined": ("ubsan", 168)}
MOST_CALLS = {"asan": 0, "msan": 0, "tsan": 0, "ubsan": 200}

# Libraries that the image which runs the targets has for sure.
BASE_LIBRARIES = re.compile(r"^(ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|gcc_s))\.so(\.\d+)?$")

# What the service says before the target's own .options are laid over it; the worst that has been seen.
SERVICE = {
    "ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=1:detect_stack_use_after_return=1:handle_abort=1:"
                    "handle_segv=2:handle_sigbus=2:max_uar_stack_size_log=16:strict_memcmp=1:symbolize=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:silence_unsigned_overflow=1:handle_segv=2:handle_sigbus=2:symbolize=1",
}

# $1: the folder to mount read-only elsewhere; the rest: the command to run in it.
SANDBOX = """
set -e
mount --make-rprivate /
cd "$1"
awk '{print $2}' /proc/self/mounts | while read -r point; do mount -o remount,bind,ro "$point" 2>/dev/null || true; done
shift
mount -t tmpfs none /tmp
mkdir /tmp/out
mount --no-canonicalize --bind . /tmp/out
mount -o remount,bind,ro /tmp/out
cd /tmp/out
if touch ./probe 2>/dev/null || touch "$HOME/.probe" 2>/dev/null; then echo 'SANDBOX: something is writable'; exit 99; fi
set +e
"$@"
status=$?
ls /tmp | sed 's/^/LEFT: /'
exit $status
"""


NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def cannot_isolate():
    """Why there can be no mount namespace here; empty if there can."""
    try:
        done = subprocess.run([*NAMESPACE, "mount", "--make-rprivate", "/"], capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() if done.returncode != 0 else ""


class Result:
    """What a check found: `text` for the table, `reason` in full where it failed."""

    def __init__(self, ok, text="", reason=""):
        self.ok, self.text, self.reason = ok, (text or "ok") if ok else f"FAIL {text}".rstrip(), reason


class Run:
    """One execution of a target as the service runs it."""

    def __init__(self, out, target, arguments, timeout=600):
        command = [f"./{target}", *arguments]
        environment = laid_over(out / f"{target}.options", {**os.environ, **SERVICE})
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen([*NAMESPACE, "sh", "-c", SANDBOX, "sh", str(out), *command], env=environment,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            # wait4 tells the peak memory of this one, whatever ran before
            deadline = time.monotonic() + timeout
            self.hung = False
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid != 0:
                    break
                if time.monotonic() > deadline and not self.hung:
                    self.hung = True
                    os.killpg(process.pid, 9)
                time.sleep(0.02)
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            self.output = log.read().decode(errors="replace")
        self.status = process.returncode
        self.mib = usage.ru_maxrss // 1024

    def why(self):
        lines = self.output.strip().splitlines()
        return f"exit status {self.status}{', hung' if self.hung else ''}\n" + "\n".join(lines[-25:])


def check_starts(out, target):
    run = Run(out, target, ["-seed=1337", "-runs=4"])
    return Result(run.status == 0 and "Done 4 runs" in run.output, "", run.why())


def check_edges(out, target):
    run = Run(out, target, ["-seed=1337", "-runs=4"])
    found = re.search(r"Loaded \d+ modules?\s+\((\d+) (?:inline 8-bit counters|guards)\)", run.output)
    edges = int(found[1]) if found else 0
    return Result(edges >= LEAST_EDGES, str(edges), f"{edges} edges, and {LEAST_EDGES} are the least")


def runtime_calls(path):
    """How often each sanitizer's runtime is called: {"asan": N, ...}."""
    calls = dict.fromkeys(MOST_CALLS, 0)
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(path)], check=True, stdout=subprocess.PIPE, text=True).stdout
    for found in re.finditer(r"call\s+[0-9a-f]+ <__([a-z]+)_", code):
        if found[1] in calls:
            calls[found[1]] += 1
    return calls


def check_sanitizer(out, target, sanitizer):
    calls = runtime_calls(out / target)
    wanted, least = LEAST_CALLS[sanitizer]
    text = " ".join(f"{name}:{count}" for name, count in calls.items() if count)
    wrong = [f"{calls[wanted]} calls of {wanted}, and {least} are the least"] if calls[wanted] < least else []
    wrong += [f"{calls[name]} calls of {name}, and {most} are the most" for name, most in MOST_CALLS.items()
              if name != wanted and calls[name] > most]
    return Result(not wrong, text, "; ".join(wrong))


def check_libraries(out, target):
    dynamic = subprocess.run(["readelf", "-d", str(out / target)], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    wrong = [f"needs {name}" for name in needed if not BASE_LIBRARIES.match(name)]
    wrong += [f"looks for libraries in {path}" for path in re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.+)\]", dynamic)]
    return Result(not wrong, str(len(needed)), "; ".join(wrong))


def seeds_of(out, target):
    """Content of the seed corpus by name; none if there is no sound archive with a file in it."""
    try:
        with zipfile.ZipFile(out / f"{target}_seed_corpus.zip") as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return {}


def with_inputs(out, target, inputs, arguments):
    """Runs the target over `inputs`, unpacked beside it in a copy of $OUT."""
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        copy = Path(scratch) / "out"
        (copy / "inputs").mkdir(parents=True)
        for path in out.glob(f"{target}*"):
            os.link(path, copy / path.name)
        for name, content in inputs.items():
            (copy / "inputs" / name.replace("/", "_")).write_bytes(content)
        return Run(copy, target, [*arguments, "inputs"])


def check_seeds(out, target):
    seeds = seeds_of(out, target)
    if not seeds:
        return Result(False, "", f"{target}_seed_corpus.zip has no file in it, or isn't there")
    run = with_inputs(out, target, seeds, ["-runs=0", "-artifact_prefix=/tmp/"])
    loaded = re.search(r"seed corpus: files: (\d+)", run.output)
    read = int(loaded[1]) if loaded else 0
    return Result(run.status == 0 and read == len(seeds), str(len(seeds)), f"{read} of {len(seeds)} seeds loaded; {run.why()}")


def demanding_inputs(out, target):
    """The seeds, and the longest inputs: of one byte each, and random."""
    longest = int(options_file(out / f"{target}.options").get("libfuzzer", {}).get("max_len", 4096))
    chance = random.Random(1)
    inputs = {f"filled-{byte}": bytes([byte]) * longest for byte in range(0, 256, 5)}
    inputs.update({f"random-{i}": chance.randbytes(longest) for i in range(50)})
    return {**seeds_of(out, target), **inputs}


def check_limits(out, target, seconds=SECONDS_AN_INPUT, mib=MEMORY_MIB):
    """Memory in all and time an input: libFuzzer's own limits end the run, the kernel's account of memory is looked at too."""
    run = with_inputs(out, target, demanding_inputs(out, target),
                      ["-runs=0", f"-timeout={seconds}", f"-rss_limit_mb={mib}", "-artifact_prefix=/tmp/", "-print_final_stats=1"])
    return Result(run.status == 0 and run.mib < mib, f"{run.mib} MiB", f"{run.mib} MiB of {mib}; {run.why()}")


def check_files(out, target):
    missing = [name for name in (f"{target}.options", f"{target}_seed_corpus.zip") if not (out / name).is_file()]
    if "max_len" not in options_file(out / f"{target}.options").get("libfuzzer", {}):
        missing.append("max_len in its .options")
    return Result(not missing, "", "missing: " + ", ".join(missing))


def check_crash(out, target, inputs):
    """A target that crashes for good on `inputs`, as they are, is reported, with a stack, and the input saved."""
    run = with_inputs(out, target, inputs, ["-runs=0", "-artifact_prefix=/tmp/"])
    wrong = [] if run.status != 0 else ["the run ended with 0"]
    if not re.search(r"ERROR: (libFuzzer: deadly signal|\w+Sanitizer: (SEGV|BUS))|UndefinedBehaviorSanitizer:DEADLYSIGNAL", run.output):
        wrong.append("no report")
    if not re.search(r"^ *#\d+ 0x", run.output, re.M):
        wrong.append("no stack")
    if "LEFT: crash-" not in run.output:
        wrong.append("no saved input")
    return Result(not wrong, "", f"{', '.join(wrong)}; {run.why()}")


CHECKS = (
    ("files", check_files, "TARGET.options with max_len and TARGET_seed_corpus.zip are there"),
    ("starts", check_starts, "4 runs end well, $OUT elsewhere and read-only, only /tmp writable, handle_segv=2 by default"),
    ("edges", check_edges, f"instrumented edges, at least {LEAST_EDGES}"),
    ("instrumented", None, "calls into this sanitizer's runtime; no other's"),
    ("libraries", check_libraries, "shared libraries, each one that the running image has; no search path"),
    ("seeds", check_seeds, "files of the seed corpus, all loaded and run without a crash"),
    ("limits", check_limits, f"peak memory below {MEMORY_MIB} MiB and each input below {SECONDS_AN_INPUT} s, over the seeds and the longest inputs"),
)


def build_crash_target(out, work):
    """lib/test/crash_target.cc, built with the same flags and the same library as the targets."""
    command = [os.environ["CXX"], "-std=c++20", *shlex.split(os.environ["CXXFLAGS"]), *shlex.split(os.environ.get("LDFLAGS", "")),
               "-I", str(ROOT / "lib/include"), str(ROOT / "lib/test/crash_target.cc"), str(work / "guestmem/lib/libguestmem.a"),
               *shlex.split(os.environ["LIB_FUZZING_ENGINE"]), "-o", str(out / "crash_target")]
    subprocess.run(command, check=True)
    (out / "crash_target.options").write_bytes((work / "guestmem/fuzz/fault_fuzzer.options").read_bytes())


def main():
    out, work, sanitizer = Path(os.environ["OUT"]), Path(os.environ["WORK"]), os.environ["SANITIZER"]
    if reason := cannot_isolate():
        sys.exit(f"check_oss_fuzz: the targets can't be run with everything but /tmp read-only: {reason}")
    targets = sorted(path.name for path in out.iterdir() if os.access(path, os.X_OK) and path.is_file())
    wanted = sorted(path.stem for path in (ROOT / "fuzz").glob("*_fuzzer.cc"))
    if targets != wanted:
        sys.exit(f"check_oss_fuzz: $OUT has {targets}, and the targets are {wanted}")
    rows, failures = [["target", *(name for name, _, _ in CHECKS)]], []
    for target in targets:
        print(f"   check {target}", flush=True)
        row = [target]
        for name, check, _ in CHECKS:
            result = check(out, target) if check else check_sanitizer(out, target, sanitizer)
            row.append(result.text)
            if not result.ok:
                failures.append(f"{target}, {name}: {result.reason}")
        rows.append(row)

    print("   check that a planted wild crash is reported", flush=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        planted = Path(scratch)
        build_crash_target(planted, work)
        crash = check_crash(planted, "crash_target", {"wild": b"W wild"})
        if not crash.ok:
            failures.append(f"planted wild crash: {crash.reason}")
    print()
    table(rows, right=())
    print()
    for name, _, meaning in CHECKS:
        print(f"{name:13s} {meaning}")
    print(f"{'wild crash':13s} {crash.text}: planted, run as the targets are; it must be reported with a stack and a saved input")
    for failure in failures:
        print(f"\nFAILED {failure}")
    checks = len(targets) * len(CHECKS) + 1
    print(f"\n{checks - len(failures)} checks passed, {len(failures)} failed ({sanitizer})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
