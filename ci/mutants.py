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
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fuzz  # table(), shown(), merged_environment(), fuzzer_arguments()

ROOT = fuzz.ROOT
PATCHES = ROOT / "ci" / "mutants"
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
FUZZ_BUILD, TEST_BUILD = WORK / "fuzz", WORK / "test"
RESULTS = WORK / "results.json"
CONTROL = "(unchanged)"
HUNTS = ("seeds", "fuzz", "unit", "property", "exhaustive", "schedule")
SOURCES = ("lib", "reference", "fuzz", "proptest", "corpus", "CMakeLists.txt", "CMakePresets.json")
SLOW_TESTS = r"stress|wild_crash|crash_target"  # they ask nothing about values, or start many processes
STUCK = 300  # seconds after which a hunt that should be long over counts as a kill
JOBS = str(os.cpu_count())
LIVE = sys.stdout.isatty()

EXECUTED = re.compile(rb"^(?:#(\d+)\t|stat::number_of_executed_units:\s+(\d+))", re.M)
FIELD = re.compile(r"^\s+field:\s+(.+)$", re.M)
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
    """The sources as they are now, in memory and in build/mutants/tree."""

    def __init__(self):
        self.files = {name: ((ROOT / name).read_bytes(), (ROOT / name).stat().st_mode) for name in tracked_files()}
        (TREE / "ci").mkdir(parents=True, exist_ok=True)
        for name in ("check_layers.sh", "fuzz.py"):  # CMake names them
            put(TREE / "ci" / name, (ROOT / "ci" / name).read_bytes(), 0o755)
        digest = hashlib.sha256()
        for name, (content, _) in self.files.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        self.digest = digest.hexdigest()
        for folder in SOURCES:
            for path in (TREE / folder).rglob("*") if (TREE / folder).is_dir() else ():
                if path.is_file() and str(path.relative_to(TREE)) not in self.files:
                    path.unlink()

    def restore(self):
        for name, (content, mode) in self.files.items():
            put(TREE / name, content, mode)

    def plant(self, patch):
        self.restore()
        # Its own root: inside another repository git apply would skip what it takes for files elsewhere.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(WORK)}
        applied = subprocess.run(["git", "apply", "--unidiff-zero", str(patch)], cwd=TREE, env=environment,
                                 capture_output=True, text=True)
        if applied.returncode != 0:
            raise BadPatch(f"{patch.stem} doesn't apply (try ci/mutants.sh refresh):\n{applied.stderr}")
        if all((TREE / name).read_bytes() == content for name, (content, _) in self.files.items()):
            raise BadPatch(f"{patch.stem} changes nothing")

    def key(self, patch, options):
        text = self.digest + (patch.read_text() if patch else "") + repr(options)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def build(name, fuzz_targets):
    """Both builds; raises BadPatch with the compiler's words."""
    log = WORK / "logs" / f"{name}.build.log"
    unit_tests = [path.stem for folder in ("lib/test", "reference/model", "reference/lockstep", "reference/schedule")
                  for path in sorted((TREE / folder).glob("*_test.cc")) if not re.search(SLOW_TESTS, path.stem)]
    commands = []
    for folder, preset, targets in ((FUZZ_BUILD, "fuzz-plain", [*fuzz_targets, "seeds"]),
                                    (TEST_BUILD, "default", [*unit_tests, "lockstep_property_test", "exhaustive_test", "schedule"])):
        if not (folder / "build.ninja").is_file():
            commands.append(["cmake", "--preset", preset, "-S", str(TREE), "-B", str(folder)])
        commands.append(["cmake", "--build", str(folder), "--parallel", JOBS, "--target", *targets])
    with open(log, "wb") as file:
        for command in commands:
            done = run(command, file, cwd=TREE)
            if done != 0:
                tail = log.read_text(errors="replace").splitlines()[-25:]
                raise BadPatch(f"{name} doesn't build:\n" + "\n".join(tail))
    return unit_tests


# ------------------------------------------------------------------ hunting

current = None  # the process that runs now
interrupted = threading.Event()


def interrupt(*_):
    interrupted.set()
    if current is not None and current.poll() is None:
        os.killpg(current.pid, signal.SIGKILL)  # its session is its own, started below


def run(command, log, timeout=None, **options):
    """The exit status; None if it had to be stopped."""
    global current
    if interrupted.is_set():
        raise KeyboardInterrupt
    current = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                               start_new_session=True, **options)
    try:
        status = current.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(current.pid, signal.SIGKILL)
        current.wait()
        status = None
    if interrupted.is_set():
        raise KeyboardInterrupt
    return status


class Hunt:
    """One hunter's turn at one mutant."""

    def __init__(self, name, mutant):
        self.log = WORK / "logs" / f"{mutant}.{name}.log"
        self.killed, self.executions, self.started, self.how = False, 0, time.monotonic(), ""

    def command(self, command, log_mode="wb", timeout=STUCK, **options):
        """True if `command` noticed."""
        with open(self.log, log_mode) as log:
            status = run(command, log, timeout, **options)
        self.killed = status != 0
        if status is None:
            self.how = "it hung"
        return self.killed

    def text(self):
        return self.log.read_bytes().decode(errors="replace")

    def count(self, pattern):
        found = [int(next(filter(None, match))) for match in pattern.findall(self.text())]
        return sum(found)

    def result(self):
        field = FIELD.search(self.text())
        return {"killed": self.killed, "seconds": round(time.monotonic() - self.started, 2),
                "executions": self.executions, "how": self.how or (field[1] if field and self.killed else "")}


def libfuzzer_executions(log):
    numbers = [int(a or b) for a, b in EXECUTED.findall(log)]
    return max(numbers, default=0)


def fuzz_once(hunt, target, folders, seconds):
    """Runs a libFuzzer target; seconds 0: only over the folders."""
    artifacts = WORK / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    limit = ["-runs=0"] if seconds == 0 else [f"-max_total_time={seconds}"]
    command = [str(FUZZ_BUILD / "fuzz" / target), *fuzz.fuzzer_arguments(target), *limit, "-timeout=20", "-print_final_stats=1",
               f"-artifact_prefix={artifacts}/", *map(str, folders)]
    before = hunt.log.stat().st_size if hunt.log.exists() else 0
    noticed = hunt.command(command, "ab", timeout=STUCK + seconds, env=fuzz.merged_environment(target))
    hunt.executions += libfuzzer_executions(hunt.log.read_bytes()[before:])
    if noticed:
        hunt.how = hunt.how or " ".join(filter(None, [target.removesuffix("_fuzzer"), (FIELD.findall(hunt.text()) or [""])[-1]]))
    return noticed


def empty(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


def corpus_of(target):
    return [folder for folder in (TREE / "corpus" / target, FUZZ_BUILD / "seeds") if folder.is_dir()]


def hunt_seeds(hunt, targets, **_):
    for target in targets:
        if fuzz_once(hunt, target, corpus_of(target), 0):
            return


def hunt_fuzz(hunt, targets, seconds, seeds_noticed, **_):
    lockstep_targets = [t for t in targets if t != "trace_codec_fuzzer"]
    # In two rounds, so that one target's blindness costs a quarter of the time, not half.
    share = max(1, seconds // (2 * len(lockstep_targets)))
    for turn in range(2):
        for target in lockstep_targets:
            finds = WORK / "finds" / target
            if turn == 0:
                empty(finds)
            if fuzz_once(hunt, target, [finds, *([] if seeds_noticed else corpus_of(target))], share):
                return


def hunt_unit(hunt, unit_tests, **_):
    names = "|".join(unit_tests)
    hunt.command(["ctest", "--test-dir", str(TEST_BUILD), "-R", f"^({names})/", "--stop-on-failure", "--no-tests=error",
                  "--output-on-failure", "--parallel", JOBS, "--timeout", "60"])
    failed = re.findall(r"^\s*\d+/\d+ Test +#\d+: (\S+) \.*\**(?:Failed|Exception|Timeout|Subprocess)", hunt.text(), re.M)
    hunt.executions = len(re.findall(r"^\s*\d+/\d+ Test +#", hunt.text(), re.M))
    hunt.how = failed[0] if failed else hunt.how


def hunt_property(hunt, **_):
    hunt.command([str(TEST_BUILD / "proptest" / "lockstep_property_test"),
                  "--gtest_filter=*EngineAndModelAgree*"], timeout=STUCK / 3)
    hunt.executions = hunt.count(CASES) or hunt.count(PASSED)


def hunt_exhaustive(hunt, **_):
    hunt.command([str(TEST_BUILD / "proptest" / "exhaustive_test"), "--gtest_fail_fast"])
    hunt.executions = hunt.count(PASSED) or hunt.count(CASES)


def hunt_schedule(hunt, seconds, **_):
    hunt.command([str(TEST_BUILD / "fuzz" / "schedule"), "search", "--seconds", str(min(seconds, 10))])
    hunt.executions = hunt.count(SCHEDULES)
    hunt.how = hunt.how or "".join(re.findall(r"^verdict: (.{0,60})", hunt.text(), re.M)[:1])


HUNTERS = {"seeds": hunt_seeds, "fuzz": hunt_fuzz, "unit": hunt_unit, "property": hunt_property, "exhaustive": hunt_exhaustive,
           "schedule": hunt_schedule}


def hunt_all(name, options, progress):
    (WORK / "logs").mkdir(parents=True, exist_ok=True)
    targets = [path.stem for path in sorted((TREE / "fuzz").glob("*_fuzzer.cc"))]
    progress("builds")
    started = time.monotonic()
    unit_tests = build(name, targets)
    result = {"build": round(time.monotonic() - started, 1), "hunts": {}}
    for hunter in HUNTS:
        progress(f"hunted by {hunter}")
        hunt = Hunt(hunter, name)
        hunt.log.unlink(missing_ok=True)
        seeds_noticed = result["hunts"].get("seeds", {}).get("killed", False)
        HUNTERS[hunter](hunt, targets=targets, unit_tests=unit_tests, seconds=options.seconds, seeds_noticed=seeds_noticed)
        result["hunts"][hunter] = hunt.result()
        if hunt.killed and options.quick and name != CONTROL:
            break
    return result


# ------------------------------------------------------------------ telling


def amount(hunt, hunter):
    if hunt is None:
        return "-"
    unit = {"seeds": "runs", "fuzz": "runs", "unit": "tests", "property": "traces", "exhaustive": "cases", "schedule": "schedules"}[hunter]
    text = f"{hunt['seconds']:.1f} s, {hunt['executions']:,} {unit}"
    return text if hunt["killed"] else f"quiet ({text})"


def killers(result):
    return [hunter for hunter, hunt in result["hunts"].items() if hunt["killed"]]


def tell_table(rows):
    fuzz.table([["mutant", *HUNTS, "first noticed as"],
                *([name, *(amount(result["hunts"].get(h), h) for h in HUNTS),
                   next((hunt["how"] for hunt in result["hunts"].values() if hunt["killed"]), "")] for name, result in rows)], right=())


def load_results():
    try:
        return json.loads(RESULTS.read_text())
    except (OSError, ValueError):
        return {}


def run_all(options):
    known = patches()
    if unknown := [name for name in options.mutant if name not in known]:
        print(f"mutants.sh: unknown mutant '{unknown[0]}'; known: {' '.join(known)}", file=sys.stderr)
        return 2
    chosen = options.mutant or list(known)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    tree = Tree()
    results = {} if options.again else load_results()
    rows, bad = [], []
    started = time.monotonic()
    print(f"== mutants: {len(chosen)} in {fuzz.shown(TREE)}, at most {options.seconds} s of fuzzing each")
    try:
        for i, name in enumerate([CONTROL, *chosen]):
            patch = known.get(name)
            key = tree.key(patch, [options.seconds, options.quick])
            done = results.get(name, {}).get("key") == key
            try:
                if not done:
                    if patch:
                        tree.plant(patch)
                    else:
                        tree.restore()
                    results[name] = {"key": key, **hunt_all(
                        name, options, lambda what: say(f"[{i}/{len(chosen)}] {name} {what}, {time.monotonic() - started:.0f} s so far", True))}
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            except BadPatch as problem:
                say(f"[{i}/{len(chosen)}] {problem}")
                bad.append(name)
                continue
            rows.append((name, results[name]))
            seen = ", ".join(f"{h} {results[name]['hunts'][h]['seconds']:.1f} s" for h in killers(results[name]))
            verdict = (f"KILLED BY {seen}" if seen else "quiet") if name == CONTROL else (f"killed: {seen}" if seen else "SURVIVED")
            say(f"[{i}/{len(chosen)}] {name}: {verdict}{' (earlier run)' if done else ''}")
            if name == CONTROL and seen:
                print(f"\nthe unchanged tree isn't quiet, so no kill would mean anything; logs: {fuzz.shown(WORK / 'logs')}/")
                return 1
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        tree.restore()

    print()
    tell_table(rows)
    survivors = [name for name, result in rows if name != CONTROL and not killers(result)]
    for name in survivors:
        print(f"survived: {name}: {mistake(known[name])}\n  {fuzz.shown(known[name])}")
    killed = len([name for name, _ in rows if name != CONTROL]) - len(survivors)
    print(f"\n{killed} mutants killed, {len(survivors)} survived" + (f", {len(bad)} unusable: {' '.join(bad)}" if bad else "") +
          (", interrupted" if interrupted.is_set() else ""))
    if survivors:
        return 1
    return 130 if interrupted.is_set() else 2 if bad else 0


def list_all(_):
    fuzz.table([["mutant", "imitates"], *([name, mistake(path)] for name, path in patches().items())], right=())
    return 0


def why_not(path):
    """Nothing if the patch applies to this tree."""
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
    tree = Tree()
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
                diff = subprocess.run(["git", "diff", "--no-index", "--no-color", "-U1", str(ROOT / file), str(TREE / file)],
                                      env=environment, capture_output=True, text=True).stdout
                hunks = diff[diff.index("@@"):]
                text += f"diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n{hunks}"
        path.write_text(text)
        print(f"{name}: refreshed")
    tree.restore()
    return 2 if bad else 0


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "list | head" ends quietly
    parser = argparse.ArgumentParser(prog="mutants.sh", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run|list|check|refresh")
    command = commands.add_parser("run")
    command.add_argument("--seconds", type=int, default=60)
    command.add_argument("--quick", action="store_true")
    command.add_argument("--again", action="store_true")
    command.add_argument("mutant", nargs="*")
    command.set_defaults(call=run_all)
    for name, call in (("list", list_all), ("check", check_all), ("refresh", refresh_all)):
        commands.add_parser(name).set_defaults(call=call)
    options = parser.parse_args()
    return options.call(options)


if __name__ == "__main__":
    sys.exit(main())
