"""Builds what notices seeded bugs, lets it hunt one, and takes what it found through ci/repro.sh."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fuzz_common as fuzz
from mutants_patches import TREE, UNIT_TESTS, WORK, BadPatch

FUZZ_BUILD, ASAN_BUILD, TEST_BUILD = WORK / "fuzz", WORK / "asan", TREE / "build" / "default"
CLEAN = WORK / "clean"  # the engine without a bug, for the tests that ci/repro.sh writes
TESTS = ("unit", "property", "exhaustive", "schedule")  # hunts of --tests
MOST_OPS = 6  # of a trace that ci/repro.sh calls minimal
SLOW_TESTS = r"stress|wild_crash|crash_target"  # they ask nothing about values, or start many processes
STUCK = 300  # seconds after which a hunt that should be long over counts as a kill
JOBS = str(os.cpu_count())

EXECUTED = re.compile(rb"^(?:#(\d+)\t|stat::number_of_executed_units:\s+(\d+))", re.M)
FIELD = re.compile(r"^\s+field:\s+(?=.)(.+)$", re.M)
SANITIZED = re.compile(r"ERROR: (?:libFuzzer|\w+Sanitizer): (.{0,40})")
CASES = re.compile(r", case (\d+) and on:|(?:Falsifiable|failed) after (\d+) test")
SCHEDULES = re.compile(r"wrong after (\d+) schedules|nothing wrong in (\d+) schedules")
PASSED = re.compile(r"ran (\d+) cases|OK, passed (\d+) tests")


FASTER = [*(["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []), "-DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld"]


def unit_tests():
    return [path.stem for folder in UNIT_TESTS for path in sorted((TREE / folder).glob("*_test.cc")) if not re.search(SLOW_TESTS, path.stem)]


def fuzz_targets():
    return [path.stem for path in sorted((TREE / "fuzz").glob("*_fuzzer.cc"))]


def build(name, options):
    """What the hunts need; raises BadPatch with the compiler's words."""
    log = WORK / "logs" / f"{name}.build.log"
    hunted = name in options.hunted
    tests = [test for kind, test in options.judges[name] if kind == "unit"]
    if hunted:
        tests += ["trace", *([*unit_tests(), "lockstep_property_test", "exhaustive_test"] if options.tests else [])]
    folders = [(TEST_BUILD, "default", tests)]
    if hunted:
        folders.append((FUZZ_BUILD, "fuzz-plain", [*fuzz_targets(), "seeds"]))
    if hunted and options.ablation:
        folders.append((ASAN_BUILD, "fuzz", [*fuzz_targets(), "seeds"]))
    with open(log, "wb") as file:
        for folder, preset, targets in folders:
            commands = [["cmake", "--build", str(folder), "--parallel", JOBS, "--target", *targets]] if targets else []
            if not (folder / "build.ninja").is_file():
                commands.insert(0, ["cmake", "--preset", preset, "-S", str(TREE), "-B", str(folder), *FASTER])
            for command in commands:
                if run(command, file, cwd=TREE) != 0:
                    tail = log.read_text(errors="replace").splitlines()[-25:]
                    raise BadPatch(f"{name} doesn't build:\n" + "\n".join(tail))


def keep_clean_engine():
    """The unchanged engine's libraries and headers, which stay when a bug is planted."""
    shutil.rmtree(CLEAN, ignore_errors=True)
    for name in ("lib/include", "reference"):
        shutil.copytree(TREE / name, CLEAN / name)
    for name in CLEAN_LIBRARIES:
        shutil.copy2(TEST_BUILD / name, CLEAN / Path(name).name)


CLEAN_LIBRARIES = ("lib/libguestmem.a", "lib/libguestmem_scheduled.a", "reference/libguestmem_schedule.a")


# ------------------------------------------------------------------ hunting

running = set()  # processes
lock = threading.Lock()
interrupted = threading.Event()


def interrupt(*_):
    interrupted.set()
    for process in list(running):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own, started below


def run(command, log, timeout=None, **options):
    """The exit status; None if it had to be stopped."""
    if interrupted.is_set():
        raise KeyboardInterrupt
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                               start_new_session=True, **options)
    with lock:
        running.add(process)
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        status = None
    with lock:
        running.discard(process)
    if interrupted.is_set():
        raise KeyboardInterrupt
    return status


class Hunt:
    """One hunter's turn at one mutant."""

    def __init__(self, mutant, name, builds=FUZZ_BUILD, limit=0):
        self.mutant, self.name, self.builds, self.limit = mutant, name, builds, limit
        self.log = WORK / "logs" / f"{mutant}.{name.replace(' ', '_')}.log"
        self.log.unlink(missing_ok=True)
        self.killed, self.executions, self.started, self.how, self.input = False, 0, time.monotonic(), "", None

    def command(self, command, timeout=STUCK, **options):
        """True if `command` noticed."""
        with open(self.log, "ab") as log:
            status = run(command, log, timeout, **options)
        self.killed = status != 0
        if status is None:
            self.how = "it hung"
        return self.killed

    def text(self):
        return self.log.read_bytes().decode(errors="replace")

    def count(self, pattern):
        return sum(int(next(filter(None, match))) for match in pattern.findall(self.text()))

    def result(self):
        field = FIELD.search(self.text())
        return {"killed": self.killed, "seconds": round(time.monotonic() - self.started, 2), "limit": self.limit,
                "executions": self.executions, "how": self.how or (field[1] if field and self.killed else ""), "input": self.input}


def fuzz_once(hunt, target, folders, seconds, seed=1):
    """Runs a libFuzzer target; seconds 0: only over the folders."""
    artifacts = WORK / "artifacts" / f"{hunt.mutant}.{hunt.name.replace(' ', '_')}.{target}-"
    artifacts.parent.mkdir(parents=True, exist_ok=True)
    limit = ["-runs=0"] if seconds == 0 else [f"-max_total_time={seconds}"]
    command = [str(hunt.builds / "fuzz" / target), *fuzz.fuzzer_arguments(hunt.builds, target), *limit, f"-seed={seed}", "-timeout=20",
               "-print_final_stats=1", f"-artifact_prefix={artifacts}", *map(str, folders)]
    before = hunt.log.stat().st_size if hunt.log.exists() else 0
    environment = fuzz.merged_environment(hunt.builds, target)
    if hunt.builds == ASAN_BUILD:
        environment["GUESTMEM_UNJUDGED"] = "1"
    if hunt.name.startswith("plain"):
        environment["GUESTMEM_PLAIN_MUTATOR"] = "1"
    noticed = hunt.command(command, timeout=seconds + 60, env=environment)
    said = hunt.log.read_bytes()[before:]
    hunt.executions += max((int(a or b) for a, b in EXECUTED.findall(said)), default=0)
    if noticed:
        text = hunt.text()
        reasons = FIELD.findall(text) or re.findall(r"^verdict: (.{0,50})", text, re.M) or SANITIZED.findall(text) or [""]
        hunt.how = hunt.how or f"{target.removesuffix('_fuzzer')} {reasons[-1]}".strip()
        if written := re.findall(rb"Test unit written to (\S+)", said):
            hunt.input = [target, os.fsdecode(written[-1])]
    return noticed


def hunt_corpus(hunt, _):
    for target in fuzz_targets():
        if fuzz_once(hunt, target, [f for f in (TREE / "corpus" / target, hunt.builds / "seeds") if f.is_dir()], 0):
            return


def hunt_empty(hunt, seed):
    """From nothing, in three rounds over the targets, each longer than the one before: one that is blind costs little."""
    targets = [t for t in fuzz_targets() if t != "trace_codec_fuzzer"]
    finds = WORK / "finds" / hunt.name.replace(" ", "_")
    shutil.rmtree(finds, ignore_errors=True)
    for turn in (1, 2, 3):
        for target in targets:
            (finds / target).mkdir(parents=True, exist_ok=True)
            if fuzz_once(hunt, target, [finds / target], max(1, turn * hunt.limit // (6 * len(targets))), seed):
                return


def hunt_unit(hunt, test):
    names = test or "|".join(unit_tests())
    hunt.command(["ctest", "--test-dir", str(TEST_BUILD), "-R", f"^({names})/", "--stop-on-failure", "--no-tests=error",
                  "--output-on-failure", "--parallel", JOBS, "--timeout", "60"])
    failed = re.findall(r"^\s*\d+/\d+ Test +#\d+: (\S+) \.*\**(?:Failed|Exception|Timeout|Subprocess)", hunt.text(), re.M)
    hunt.executions = len(re.findall(r"^\s*\d+/\d+ Test +#", hunt.text(), re.M))
    hunt.how = failed[0] if failed else hunt.how


def hunt_compiler(hunt, target):
    hunt.command(["cmake", "--build", str(TEST_BUILD), "--parallel", JOBS, "--target", target])
    hunt.how = "".join(re.findall(r"\berror: (.{0,60})", hunt.text())[:1]) or hunt.how


def hunt_property(hunt, _):
    hunt.command([str(TEST_BUILD / "proptest" / "lockstep_property_test"),
                  "--gtest_filter=*EngineAndModelAgree*"], timeout=STUCK / 3)
    hunt.executions = hunt.count(CASES) or hunt.count(PASSED)


def hunt_exhaustive(hunt, _):
    hunt.command([str(TEST_BUILD / "proptest" / "exhaustive_test"), "--gtest_fail_fast"])
    hunt.executions = hunt.count(PASSED) or hunt.count(CASES)


def hunt_schedule(hunt, _):
    hunt.command([str(TEST_BUILD / "fuzz" / "trace"), "search", "--seconds=10"])
    hunt.executions = hunt.count(SCHEDULES)
    hunt.how = hunt.how or "".join(re.findall(r"^verdict: (.{0,60})", hunt.text(), re.M)[:1])


JUDGES = {"unit": hunt_unit, "compiler": hunt_compiler}
TEST_HUNTERS = {"unit": hunt_unit, "property": hunt_property, "exhaustive": hunt_exhaustive, "schedule": hunt_schedule}


def wanted(name, options):
    """The hunts of a run, each as (where its result is kept, its name, the hunter, its argument, build, limit)."""
    hunts = [("hunts", f"{kind} {test}", JUDGES[kind], test, TEST_BUILD, 0) for kind, test in options.judges[name]]
    if name not in options.hunted:
        return hunts
    for kept, builds in (("hunts", FUZZ_BUILD), *([("unjudged", ASAN_BUILD)] if options.ablation else [])):
        hunts.append((kept, "corpus", hunt_corpus, None, builds, 0))
        hunts += [(kept, f"empty {seed}", hunt_empty, seed, builds, options.seconds) for seed in range(1, options.seeds + 1)]
    if options.mutators:
        hunts += [("plain", f"empty {seed}", hunt_empty, seed, FUZZ_BUILD, options.seconds) for seed in range(1, options.seeds + 1)]
        hunts.sort(key=lambda hunt: hunt[1])  # each pair side by side
    return hunts + [("hunts", test, TEST_HUNTERS[test], None, TEST_BUILD, 0) for test in (TESTS if options.tests else ())]


def is_there(result, hunt):
    kept, name, _, judge, builds, limit = hunt
    if builds == TEST_BUILD and judge:
        return False  # a result's key knows nothing of tests
    known = result.get(kept, {}).get(name)
    return known is not None and (known["killed"] or known["limit"] >= limit)


def carry_out(mutant, result, hunts, progress):
    """Hunts by fuzzing beside each other, one a core; tests and the compiler one after the other, they use all cores."""
    def one(hunt):
        kept, name, hunter, argument, builds, limit = hunt
        turn = Hunt(mutant, name if kept == "hunts" else f"{kept} {name}", builds, limit)
        hunter(turn, argument)
        return turn.result()

    fuzzing = [h for h in hunts if h[4] != TEST_BUILD]
    with ThreadPoolExecutor(int(JOBS)) as pool:
        for hunt, found in zip(fuzzing, pool.map(one, fuzzing)):
            result.setdefault(hunt[0], {})[hunt[1]] = found
    for hunt in [h for h in hunts if h[4] == TEST_BUILD]:
        progress(f"hunted by {hunt[1]}")
        result.setdefault(hunt[0], {})[hunt[1]] = one(hunt)


# ------------------------------------------------------------------ from the kill to a test


def compiler():
    for path in TEST_BUILD.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"):
        return re.search(r'set\(CMAKE_CXX_COMPILER "(.*)"\)', path.read_text())[1]
    return "c++"


def count_ops(text):
    if text.startswith("guestmem schedule"):
        return len(re.findall(r"^\d ", text, re.M))
    if text.startswith("guestmem vmm"):
        return len(text.splitlines()) - 2  # the header and the world
    return len(text.split("\nops\n")[1].splitlines())


def ends(test, log_path):
    """How a test program ends: "passes", "skips" or "fails"."""
    with open(log_path, "wb") as log:
        status = run([str(test)], log, 20)
    return "fails" if status != 0 else "skips" if b"[  SKIPPED ]" in log_path.read_bytes() else "passes"


def try_repro(mutant, target, saved):
    """Takes the input through ci/repro.sh: the size of its trace, and what its test says of the mutant and of the engine."""
    logs = WORK / "logs"
    started = time.monotonic()
    with open(logs / f"{mutant}.repro.log", "wb") as log:
        run([str(TREE / "ci" / "repro.sh"), target, saved], log, STUCK, cwd=TREE)
        repro = {"target": target, "seconds": round(time.monotonic() - started, 1), "ops": None, "on_mutant": "", "on_engine": ""}
        name = "regression_" + hashlib.sha256(Path(saved).read_bytes()).hexdigest()[:12]
        trace, test = (TREE / "build" / "repro" / f"{name}{end}" for end in (".trace", "_test"))
        if not trace.is_file() or not test.is_file():
            return repro
        repro["ops"] = count_ops(trace.read_text())
        repro["on_mutant"] = ends(test, logs / f"{mutant}.test.log")
        libraries = CLEAN_LIBRARIES[:0:-1] if target == "concurrent_fuzzer" else CLEAN_LIBRARIES[:1]
        clean_test = CLEAN / "test"
        built = run([compiler(), "-std=c++20", *(["-DGUESTMEM_SCHEDULED"] if target == "concurrent_fuzzer" else []), f"-I{CLEAN}",
                     f"-I{CLEAN / 'lib' / 'include'}", f"{test}.cc", "-o", str(clean_test), *(str(CLEAN / Path(l).name) for l in libraries),
                     "-lgmock", "-lgtest_main", "-lgtest", "-pthread"], log) == 0
        repro["on_engine"] = ends(clean_test, logs / f"{mutant}.clean_test.log") if built else "doesn't build"
        return repro


def is_reproduced(result):
    repro = result.get("repro")
    return repro is not None and repro["ops"] is not None and repro["ops"] <= MOST_OPS and \
        (repro["on_mutant"], repro["on_engine"]) == ("fails", "passes")
