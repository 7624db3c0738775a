#!/usr/bin/env python3
"""Plants the bugs of ci/mutants/*.patch one at a time and sees who notices; ci/mutants.sh says how to call it."""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import shutil
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fuzz_common as fuzz

ROOT = fuzz.ROOT
PATCHES = ROOT / "ci" / "mutants"
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
FUZZ_BUILD, ASAN_BUILD, TEST_BUILD = WORK / "fuzz", WORK / "asan", TREE / "build" / "default"
CLEAN = WORK / "clean"  # the engine without a bug, for the tests that ci/repro.sh writes
RESULTS = WORK / "results.json"
CONTROL = "(unchanged)"
TESTS = ("unit", "property", "exhaustive", "schedule")  # hunts of --tests
SOURCES = ("lib", "reference", "fuzz", "proptest", "corpus", "CMakeLists.txt", "CMakePresets.json")
NEW_IS_NO_REASON_TO_HUNT_AGAIN = re.compile(r"_test\.cc$|/test/|^proptest/")
FOR_REPRO_ONLY = re.compile(r"gtest|minimis|test_source|_tool\.cc$|in_child|trace_files")  # of the rest
MOST_OPS = 6  # of a trace that ci/repro.sh calls minimal
SLOW_TESTS = r"stress|wild_crash|crash_target"  # they ask nothing about values, or start many processes
STUCK = 300  # seconds after which a hunt that should be long over counts as a kill
JOBS = str(os.cpu_count())
LIVE = sys.stdout.isatty()

EXECUTED = re.compile(rb"^(?:#(\d+)\t|stat::number_of_executed_units:\s+(\d+))", re.M)
FIELD = re.compile(r"^(?:\s+field:\s+(?=.)|# (?:at the end: )?(?=.+\n#   expected:))(.+)$", re.M)  # the second: of vmm_fuzzer
SANITIZED = re.compile(r"ERROR: (?:libFuzzer|\w+Sanitizer): (.{0,40})")
CASES = re.compile(r", case (\d+) and on:|(?:Falsifiable|failed) after (\d+) test")
SCHEDULES = re.compile(r"wrong after (\d+) schedules|nothing wrong in (\d+) schedules")
PASSED = re.compile(r"ran (\d+) cases|OK, passed (\d+) tests")


class BadPatch(Exception):
    pass


def patches():
    return {path.stem: path for path in sorted(PATCHES.glob("*.patch"))}


def mistake(path):
    return path.read_text().splitlines()[0].removeprefix("# ")


def say(line, over=False):
    """`over`: the next line may take its place on a terminal."""
    if LIVE:
        line = f"\r{line[:os.get_terminal_size().columns - 1] if over else line}\x1b[K"
    if LIVE or not over:
        print(line, end="" if over else "\n", flush=True)


# ------------------------------------------------------------------ the copy of the tree


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES],
                            cwd=ROOT, check=True, capture_output=True).stdout
    return sorted(name for name in map(os.fsdecode, listed.split(b"\0")) if name and (ROOT / name).is_file())


def put(path, content, mode):
    """Writes only what differs: the rest is not built again."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


class Tree:
    """The sources as they are now, in memory and in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {name: ((ROOT / name).read_bytes(), (ROOT / name).stat().st_mode) for name in tracked_files()}
        (folder / "ci").mkdir(parents=True, exist_ok=True)
        for path in [ROOT / ".clang-format", *(ROOT / "ci").glob("*.sh"), *(ROOT / "ci").glob("*.py")]:  # CMake names some; repro.sh
            put(folder / path.relative_to(ROOT), path.read_bytes(), path.stat().st_mode)
        hunted, repro = hashlib.sha256(), hashlib.sha256((ROOT / "ci" / "repro.sh").read_bytes())
        for name, (content, _) in self.files.items():
            if not NEW_IS_NO_REASON_TO_HUNT_AGAIN.search(name):
                digest = repro if FOR_REPRO_ONLY.search(name) else hunted
                digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        self.digest, self.repro_digest = hunted.hexdigest(), repro.hexdigest()[:16]
        for name in SOURCES:
            for path in (folder / name).rglob("*") if (folder / name).is_dir() else ():
                if path.is_file() and str(path.relative_to(folder)) not in self.files:
                    path.unlink()

    def restore(self):
        for name, (content, mode) in self.files.items():
            put(self.folder / name, content, mode)

    def plant(self, patch):
        self.restore()
        # Its own root: inside another repository git apply would skip what it takes for files elsewhere.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(self.folder.parent)}
        applied = subprocess.run(["git", "apply", "--unidiff-zero", str(patch)], cwd=self.folder, env=environment,
                                 capture_output=True, text=True)
        if applied.returncode != 0:
            raise BadPatch(f"{patch.stem} doesn't apply (try ci/mutants.sh refresh):\n{applied.stderr}")
        if all((self.folder / name).read_bytes() == content for name, (content, _) in self.files.items()):
            raise BadPatch(f"{patch.stem} changes nothing")

    def key(self, patch):
        text = self.digest + (patch.read_text() if patch else "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]


UNIT_TESTS = ("lib/test", "reference/model", "reference/lockstep", "reference/schedule", "reference/vmm")
FASTER = [*(["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []), "-DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld"]


def unit_tests():
    return [path.stem for folder in UNIT_TESTS for path in sorted((TREE / folder).glob("*_test.cc")) if not re.search(SLOW_TESTS, path.stem)]


def fuzz_targets():
    return [path.stem for path in sorted((TREE / "fuzz").glob("*_fuzzer.cc"))]


def build(name, options):
    """What the hunts need; raises BadPatch with the compiler's words."""
    log = WORK / "logs" / f"{name}.build.log"
    tests = [*unit_tests(), "lockstep_property_test", "exhaustive_test"] if options.tests else []
    folders = [(FUZZ_BUILD, "fuzz-plain", [*fuzz_targets(), "seeds"]), (TEST_BUILD, "default", ["trace", "schedule", "vmm", *tests])]
    if options.ablation:
        folders.append((ASAN_BUILD, "fuzz", [*fuzz_targets(), "seeds"]))
    with open(log, "wb") as file:
        for folder, preset, targets in folders:
            commands = [["cmake", "--build", str(folder), "--parallel", JOBS, "--target", *targets]]
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
    command = [str(hunt.builds / "fuzz" / target), *fuzz.fuzzer_arguments(target), *limit, f"-seed={seed}", "-timeout=20",
               "-print_final_stats=1", f"-artifact_prefix={artifacts}", *map(str, folders)]
    before = hunt.log.stat().st_size if hunt.log.exists() else 0
    environment = fuzz.merged_environment(target)
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


def hunt_unit(hunt, _):
    names = "|".join(unit_tests())
    hunt.command(["ctest", "--test-dir", str(TEST_BUILD), "-R", f"^({names})/", "--stop-on-failure", "--no-tests=error",
                  "--output-on-failure", "--parallel", JOBS, "--timeout", "60"])
    failed = re.findall(r"^\s*\d+/\d+ Test +#\d+: (\S+) \.*\**(?:Failed|Exception|Timeout|Subprocess)", hunt.text(), re.M)
    hunt.executions = len(re.findall(r"^\s*\d+/\d+ Test +#", hunt.text(), re.M))
    hunt.how = failed[0] if failed else hunt.how


def hunt_property(hunt, _):
    hunt.command([str(TEST_BUILD / "proptest" / "lockstep_property_test"),
                  "--gtest_filter=*EngineAndModelAgree*"], timeout=STUCK / 3)
    hunt.executions = hunt.count(CASES) or hunt.count(PASSED)


def hunt_exhaustive(hunt, _):
    hunt.command([str(TEST_BUILD / "proptest" / "exhaustive_test"), "--gtest_fail_fast"])
    hunt.executions = hunt.count(PASSED) or hunt.count(CASES)


def hunt_schedule(hunt, _):
    hunt.command([str(TEST_BUILD / "fuzz" / "schedule"), "search", "--seconds", "10"])
    hunt.executions = hunt.count(SCHEDULES)
    hunt.how = hunt.how or "".join(re.findall(r"^verdict: (.{0,60})", hunt.text(), re.M)[:1])


TEST_HUNTERS = {"unit": hunt_unit, "property": hunt_property, "exhaustive": hunt_exhaustive, "schedule": hunt_schedule}


def wanted(name, options):
    """The hunts of a run, each as (where its result is kept, its name, the hunter, its argument, build, limit)."""
    hunts = []
    for kept, builds in (("hunts", FUZZ_BUILD), *([("unjudged", ASAN_BUILD)] if options.ablation else [])):
        hunts.append((kept, "corpus", hunt_corpus, None, builds, 0))
        hunts += [(kept, f"empty {seed}", hunt_empty, seed, builds, options.seconds) for seed in range(1, options.seeds + 1)]
    if options.mutators:
        hunts += [("plain", f"empty {seed}", hunt_empty, seed, FUZZ_BUILD, options.seconds) for seed in range(1, options.seeds + 1)]
        hunts.sort(key=lambda hunt: hunt[1])  # each pair side by side
    return hunts + [("hunts", test, TEST_HUNTERS[test], None, TEST_BUILD, 0) for test in (TESTS if options.tests else ())]


def is_there(result, hunt):
    kept, name, _, _, _, limit = hunt
    known = result.get(kept, {}).get(name)
    return known is not None and (known["killed"] or known["limit"] >= limit)


def carry_out(mutant, result, hunts, progress):
    """Hunts by fuzzing beside each other, one a core; tests one after the other, they use all cores."""
    def one(hunt):
        kept, name, hunter, argument, builds, limit = hunt
        turn = Hunt(mutant, name if kept == "hunts" else f"{kept} {name}", builds, limit)
        hunter(turn, argument)
        return turn.result()

    fuzzing = [h for h in hunts if h[1] not in TESTS]
    with ThreadPoolExecutor(int(JOBS)) as pool:
        for hunt, found in zip(fuzzing, pool.map(one, fuzzing)):
            result.setdefault(hunt[0], {})[hunt[1]] = found
    for hunt in [h for h in hunts if h[1] in TESTS]:
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


# ------------------------------------------------------------------ telling


def median(numbers):
    return statistics.median(numbers) if numbers else 0


def told(hunt):
    if hunt is None:
        return "-"
    text = f"{hunt['seconds']:.1f} s, {hunt['executions']:,}"
    return text if hunt["killed"] else f"quiet ({text})"


def empties(result, kept="hunts"):
    return [hunt for name, hunt in result.get(kept, {}).items() if name.startswith("empty")]


def told_empty(result, kept="hunts"):
    hunts = empties(result, kept)
    killed = [h for h in hunts if h["killed"]]
    text = f"{len(killed)} of {len(hunts)}"
    return text + (f", {median([h['seconds'] for h in killed]):.1f} s, {median([h['executions'] for h in killed]):,.0f}" if killed else "")


def told_repro(result):
    repro = result.get("repro")
    if repro is None or repro["ops"] is None:
        return "-" if repro is None else f"NO TEST of {repro['target']}"
    good = (repro["on_mutant"], repro["on_engine"]) == ("fails", "passes")
    verdict = "ok" if good else f"TEST {repro['on_mutant'].upper()} ON THE MUTANT, {repro['on_engine'].upper()} ON THE ENGINE"
    return f"{repro['ops']} ops, {repro['seconds']:.0f} s, {verdict}"


def is_killed(result):
    """From the corpus, or from nothing with every seed; or, where those were not asked, by a test."""
    hunts = empties(result)
    return result["hunts"]["corpus"]["killed"] or (bool(hunts) and all(h["killed"] for h in hunts))


def first_how(result):
    return next((hunt["how"] for hunt in result["hunts"].values() if hunt["killed"]), "")


def tell_mutators(mutants, options):
    """From nothing, with the mutator that knows traces and with libFuzzer's own alone: pairs of the same mutant and seed."""
    pairs = [(r["hunts"][name], r["plain"][name]) for r in mutants for name in r.get("plain", {})]
    for told_as, hunts in (("ours", [a for a, _ in pairs]), ("libFuzzer's own", [b for _, b in pairs])):
        seconds = [h["seconds"] if h["killed"] else options.seconds for h in hunts]
        print(f"mutator, {told_as}: {sum(h['killed'] for h in hunts)} of {len(hunts)} hunts from nothing killed, "
              f"median {median(seconds):.2f} s, in all {sum(seconds):.0f} s")


def tell(rows, options):
    head = ["mutant", "corpus: s, runs", "from nothing: seeds, s, runs"]
    if options.ablation:
        head += ["unjudged corpus", "unjudged from nothing"]
    head += [*(TESTS if options.tests else ()), "repro: ops, s, test", "first noticed as"]
    table = [head]
    for name, result in rows:
        row = [name, told(result["hunts"]["corpus"]), told_empty(result)]
        if options.ablation:
            row += [told(result.get("unjudged", {}).get("corpus")), told_empty(result, "unjudged")]
        table.append([*row, *(told(result["hunts"].get(test)) for test in (TESTS if options.tests else ())), told_repro(result), first_how(result)])
    print()
    fuzz.table(table, right=())
    mutants = [result for name, result in rows if name != CONTROL]
    from_corpus = [r["hunts"]["corpus"] for r in mutants if r["hunts"]["corpus"]["killed"]]
    print(f"\nfrom the corpus: {len(from_corpus)} of {len(mutants)} killed, median {median([h['seconds'] for h in from_corpus]):.2f} s")
    seeds = max((len(empties(r)) for r in mutants), default=0)
    for seed in range(1, seeds + 1):
        hunts = [r["hunts"].get(f"empty {seed}") for r in mutants]
        killed = [h for h in hunts if h and h["killed"]]
        both = [r for r in mutants if r["hunts"]["corpus"]["killed"] or r["hunts"].get(f"empty {seed}", {}).get("killed")]
        print(f"from nothing, seed {seed}: {len(killed)} of {len(mutants)} killed, median {median([h['seconds'] for h in killed]):.2f} s; "
              f"with the corpus {len(both)}")
    if options.ablation:
        corpus = [r for r in mutants if r.get("unjudged", {}).get("corpus", {}).get("killed")]
        nothing = [r for r in mutants if any(h["killed"] for h in empties(r, "unjudged"))]
        print(f"without the model (ASan and UBSan only): {len(corpus)} of {len(mutants)} from the corpus, {len(nothing)} from nothing")
    if options.mutators:
        tell_mutators(mutants, options)
    repros = [r["repro"] for r in mutants if r.get("repro")]
    small = [r["ops"] for r in repros if r["ops"] is not None]
    good = [r for r in mutants if is_reproduced(r)]
    print(f"tests by ci/repro.sh: {len(good)} of {len(mutants)} of at most {MOST_OPS} ops, failing on the mutant and passing on the engine; "
          f"ops: median {median(small):g}, most {max(small, default=0)}; time: median {median([r['seconds'] for r in repros]):.0f} s, most {max((r['seconds'] for r in repros), default=0):.0f} s")


def load_results():
    try:
        return json.loads(RESULTS.read_text())
    except (OSError, ValueError):
        return {}


def hunt_one(name, patch, tree, result, options, progress):
    """Adds to `result` what is missing in it."""
    def saved():
        return next((h["input"] for h in result["hunts"].values() if h.get("input")), None)

    missing = [hunt for hunt in wanted(name, options) if not is_there(result, hunt)]
    needs_repro = patch is not None and (missing or saved()) and result.get("repro", {}).get("by") != tree.repro_digest
    if not missing and not needs_repro and (patch or CLEAN.is_dir()):
        return False
    (WORK / "logs").mkdir(parents=True, exist_ok=True)
    if patch:
        tree.plant(patch)
    else:
        tree.restore()
    progress("builds")
    started = time.monotonic()
    build(name, options)
    result["build"] = round(time.monotonic() - started, 1)
    if not patch:
        keep_clean_engine()
    progress(f"hunted, {len(missing)} hunts")
    carry_out(name, result, missing, progress)
    if needs_repro and saved():
        progress("repro")
        result["repro"] = {**try_repro(name, *saved()), "by": tree.repro_digest}
    return True


def run_all(options):
    known = patches()
    if unknown := [name for name in options.mutant if name not in known]:
        print(f"mutants.sh: unknown mutant '{unknown[0]}'; known: {' '.join(known)}", file=sys.stderr)
        return 2
    chosen = options.mutant or list(known)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    tree = Tree(TREE)
    results = {} if options.again else load_results()
    rows, bad = [], []
    started = time.monotonic()
    print(f"== mutants: {len(chosen)} in {fuzz.shown(TREE)}; the corpus, then {options.seeds} times {options.seconds} s from nothing each")
    try:
        for i, name in enumerate([CONTROL, *chosen]):
            patch = known.get(name)
            key = tree.key(patch)
            result = results.get(name, {})
            if result.get("key") != key:
                result = results[name] = {"key": key, "hunts": {}}
            try:
                done = not hunt_one(name, patch, tree, result, options, lambda what: say(
                    f"[{i}/{len(chosen)}] {name} {what}, {time.monotonic() - started:.0f} s so far", True))
            except BadPatch as problem:
                say(f"[{i}/{len(chosen)}] {problem}")
                bad.append(name)
                continue
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            rows.append((name, result))
            alarms = [h for kept in ("hunts", "unjudged", "plain") for h, found in result.get(kept, {}).items() if found["killed"]]
            if name == CONTROL:
                verdict = f"KILLED BY {', '.join(alarms)}" if alarms else "quiet, as it should"
            else:
                verdict = "killed" if is_killed(result) else "SURVIVED"
                verdict += f": corpus {told(result['hunts']['corpus'])}; from nothing {told_empty(result)}; repro {told_repro(result)}"
            say(f"[{i}/{len(chosen)}] {name}: {verdict}{' (earlier run)' if done else ''}")
            if name == CONTROL and alarms:
                print(f"\nthe unchanged tree isn't quiet, so no kill would mean anything; logs: {fuzz.shown(WORK / 'logs')}/")
                return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
    finally:
        tree.restore()

    tell(rows, options)
    survivors = [name for name, result in rows if name != CONTROL and not is_killed(result)]
    for name in survivors:
        print(f"survived: {name}: {mistake(known[name])}\n  {fuzz.shown(known[name])}")
    without_test = [name for name, result in rows if name != CONTROL and name not in survivors and not is_reproduced(result)]
    for name in without_test:
        print(f"no test of at most {MOST_OPS} ops: {name}: {told_repro(dict(rows)[name])}; {fuzz.shown(WORK / 'logs')}/{name}.repro.log")
    killed = len([name for name, _ in rows if name != CONTROL]) - len(survivors)
    print(f"\n{killed} mutants killed, {len(survivors)} survived" + (f", {len(bad)} unusable: {' '.join(bad)}" if bad else "") +
          (", interrupted" if interrupted.is_set() else ""))
    print(f"more seeds: ci/mutants.sh --seeds {options.seeds + 7}" + ("" if options.ablation else "; without the model: ci/mutants.sh --ablation"))
    if survivors or without_test:
        return 1
    return 130 if interrupted.is_set() else 2 if bad else 0


def list_all(_):
    fuzz.table([["mutant", "imitates"], *([name, mistake(path)] for name, path in patches().items())], right=())
    return 0


def why_not(path):
    """Nothing if the patch applies to this tree, and in one place only: where the code moves, another would be taken silently."""
    file, hunk, hunks = None, None, []
    for line in path.read_text().splitlines():
        if line.startswith("+++ b/"):
            file, hunk = line[len("+++ b/"):], None
        elif line.startswith("@@"):
            hunk = []
            hunks.append((file, hunk))
        elif hunk is not None and line[:1] in " -" and not line.startswith("--- "):
            hunk.append(line[1:])
    for file, hunk in hunks:
        places = ("\n" + (ROOT / file).read_text()).count("\n" + "\n".join(hunk) + "\n")
        if places > 1:
            return f"{places} places in {file} look like this; give it more lines around: {hunk[0].strip()}"
    return subprocess.run(["git", "apply", "--check", "--unidiff-zero", str(path)], cwd=ROOT, capture_output=True, text=True).stderr.strip()


def check_all(_):
    bad = 0
    for name, path in patches().items():
        if reason := why_not(path):
            bad += 1
            print(f"{name} doesn't apply: {reason}")
    print(f"{len(patches()) - bad} patches apply, {bad} don't")
    return 2 if bad else 0


def refresh_all(_):
    """patch(1) finds moved and changed surroundings that git apply does not."""
    tree = Tree(TREE)
    bad = 0
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(WORK)}
    for name, path in patches().items():
        if not why_not(path):
            continue
        tree.restore()
        done = subprocess.run(["patch", "-p1", "--fuzz=2", "--no-backup-if-mismatch", "--force", "--quiet", "-r", "-", "-i", str(path)],
                              cwd=TREE, capture_output=True, text=True)
        if done.returncode != 0:
            bad += 1
            print(f"{name}: write it anew: {done.stdout.strip()}")
            continue
        text = f"# {mistake(path)}\n"
        for file, (content, _) in tree.files.items():
            if (TREE / file).read_bytes() != content:
                diff = subprocess.run(["git", "diff", "--no-index", "--no-color", "-U3", str(ROOT / file), str(TREE / file)],
                                      env=environment, capture_output=True, text=True).stdout
                hunks = diff[diff.index("@@"):]
                text += f"diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n{hunks}"
        path.write_text(text)
        print(f"{name}: refreshed; look at it: git diff {path.relative_to(ROOT)}")
    tree.restore()
    return 2 if bad else 0


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "list | head" ends quietly
    parser = argparse.ArgumentParser(prog="mutants.sh", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run|list|check|refresh")
    command = commands.add_parser("run")
    command.add_argument("--seconds", type=int, default=60)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--ablation", action="store_true")
    command.add_argument("--mutators", action="store_true")
    command.add_argument("--tests", action="store_true")
    command.add_argument("--again", action="store_true")
    command.add_argument("mutant", nargs="*")
    command.set_defaults(call=run_all)
    for name, call in (("list", list_all), ("check", check_all), ("refresh", refresh_all)):
        commands.add_parser(name).set_defaults(call=call)
    options = parser.parse_args()
    return options.call(options)


if __name__ == "__main__":
    sys.exit(main())
