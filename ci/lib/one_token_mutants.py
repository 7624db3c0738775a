#!/usr/bin/env python3
"""Makes one-token mutants of the engine and sees who notices; ci/one_token_mutants.sh says how to call it."""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mutants_hunt
import mutants_patches
from fuzz_common import ROOT, shown, table

WORK = ROOT / "build" / "one_token_mutants"
RESULTS = WORK / "results.json"
KNOWN = ROOT / "ci" / "lib" / "one_token_survivors.txt"
CLASSES = ("equivalent", "performance", "elsewhere", "hole")
SECONDS = 60  # that a judge may take; the unchanged engine takes a few
# Tests that ask nothing about values, or take long.
SLOW = r"absl|crash_target|objects_test|trap_sweep"
SCHEDULED = r"(rcu|access_bitmap|access|lock|piece|read_section|region|schedule\w*)\.(cc|h)$"  # what schedules can see

TOKEN = re.compile(r"""
    (?P<skip> //[^\n]* | /\*.*?\*/ | ^[ \t]*\#(?:\\\n|[^\n])* | R"\((?:.*?)\)" | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | \s+ )
  | (?P<number> (?:0x[0-9a-fA-F']+|\d[\d']*)[uUlLzZ]* )
  | (?P<word> [A-Za-z_]\w* )
  | (?P<op> <=> | <<= | >>= | -> | \+\+ | -- | == | != | <= | >= | && | \|\| | << | >> | \+= | -= | \|= | &= | \*= | /= | :: | [^\w\s] )
""", re.X | re.S | re.M)

RELATIONAL = {"==": ["!="], "!=": ["=="], "<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"]}
ARITHMETIC = {"+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["/"], "&": ["|"], "|": ["&"], "^": ["|"], "<<": [">>"], ">>": ["<<"],
              "&&": ["||"], "||": ["&&"], "+=": ["-="], "-=": ["+="], "|=": ["&="], "&=": ["|="], "++": ["--"], "--": ["++"]}
NOT_A_STATEMENT = {"using", "namespace", "static_assert", "template", "typedef", "friend", "class", "struct", "enum", "union", "return", "case",
                   "default", "public", "private", "protected", "extern", "const", "constexpr", "static", "inline", "virtual", "explicit", "if", "for",
                   "while", "switch", "do", "else", "goto", "auto", "operator", "asm", "EXPECT", "GUESTMEM_SCHEDULE_POINT", "assert"}
SECOND_OF_STATEMENT = {"(", ".", "->", "=", "+=", "-=", "|=", "&=", "*=", "++", "--", "::", "["}
UNTOUCHED_CALLS = {"static_assert", "assert", "asm", "GUESTMEM_SCHEDULE_POINT", "alignas", "__attribute__"}


class Token:
    def __init__(self, kind, text, start):
        self.kind, self.text, self.start, self.end = kind, text, start, start + len(text)


def tokens_of(text):
    return [Token(m.lastgroup, m[0], m.start()) for m in TOKEN.finditer(text) if m.lastgroup != "skip"]


def closing(tokens, i):
    """The index of the parenthesis that closes tokens[i]."""
    depth = 0
    for j in range(i, len(tokens)):
        depth += (tokens[j].text == "(") - (tokens[j].text == ")")
        if depth == 0:
            return j
    return len(tokens) - 1


def mutations(text):
    """(operator, start, end, replacement) of each mutant of a file."""
    tokens = tokens_of(text)
    skip_to = 0
    for i, token in enumerate(tokens):
        if i < skip_to:
            continue
        before = tokens[i - 1].text if i else ";"
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if token.text in UNTOUCHED_CALLS and after in ("(", "volatile"):
            skip_to = closing(tokens, i + (after == "volatile") + 1) + 1
            continue
        spaced = text[token.start - 1:token.start].isspace() and text[token.end:token.end + 1].isspace()
        if token.text in RELATIONAL and spaced:
            yield from (("relational", token.start, token.end, other) for other in RELATIONAL[token.text])
        elif token.text in ARITHMETIC and (spaced or token.text in ("++", "--")) and before not in ("operator", ",", "("):
            yield from (("arithmetic", token.start, token.end, other) for other in ARITHMETIC[token.text])
        elif token.kind == "number" and before not in ("[[", "GUESTMEM"):
            digits = re.sub(r"[uUlLzZ']", "", token.text)
            value = int(digits, 16 if digits.startswith("0x") else 10)
            yield from (("constant", token.start, token.end, str(other)) for other in {value + 1, max(value - 1, 0), 0 if value > 1 else 1} - {value})
        elif token.text in ("true", "false"):
            yield "constant", token.start, token.end, "false" if token.text == "true" else "true"
        elif token.text in ("if", "while") and (after == "(" or after == "constexpr"):
            opens = i + (after == "constexpr") + 1
            end = closing(tokens, opens)
            inner = [j for j in range(opens + 1, end) if tokens[j].text == ";"]
            start = tokens[inner[-1] + 1 if inner else opens + 1].start  # behind an init statement
            condition = text[start:tokens[end].start]
            yield "condition", start, tokens[end].start, f"!({condition})"
            forced = ("true", "false") if token.text == "if" else ("false",)
            yield from (("branch", start, tokens[end].start, f"({condition}) {'||' if other == 'true' else '&&'} {other}") for other in forced)
        elif before in (";", "{", "}", ")", "else") and token.kind == "word" and token.text not in NOT_A_STATEMENT and after in SECOND_OF_STATEMENT \
                or token.text in ("break", "continue") and after == ";":
            depth, j = 0, i
            while j < len(tokens) and not (tokens[j].text == ";" and depth == 0) and depth >= 0:
                depth += (tokens[j].text in "({[") - (tokens[j].text in ")}]")
                j += 1
            if j < len(tokens) and tokens[j].text == ";":
                yield "statement", token.start, tokens[j].end, ";"


class Mutant:
    def __init__(self, file, text, operator, start, end, replacement, seen):
        self.file, self.operator, self.start, self.end, self.replacement = file, operator, start, end, replacement
        self.line = text.count("\n", 0, start) + 1
        self.old = " ".join(text[start:end].split())
        begin = text.rfind("\n", 0, start) + 1
        finish = text.find("\n", end)
        self.before = " ".join(text[begin:finish].split())
        self.after = " ".join((text[begin:start] + replacement + text[end:finish]).split())
        # By what it says, not where: lines above may come and go.
        identity = f"{file}\0{self.before}\0{self.after}"
        seen[identity] = seen.get(identity, 0) + 1
        self.key = hashlib.sha256(f"{identity}\0{seen[identity]}".encode()).hexdigest()[:12]

    def diff(self):
        return f"{self.file}:{self.line}\n    - {self.before}\n    + {self.after}"


def all_mutants():
    found = []
    files = [*(ROOT / "lib" / "src").rglob("*"), *(ROOT / "lib" / "include").rglob("*.h")]
    for path in sorted(path for path in files if path.suffix in (".cc", ".h", ".inc") and not path.name.startswith("schedule")):
        text, seen, places = path.read_text(), {}, set()
        for operator, start, end, replacement in mutations(text):
            if (start, end, replacement) not in places:
                places.add((start, end, replacement))
                found.append(Mutant(str(path.relative_to(ROOT)), text, operator, start, end, replacement, seen))
    return found


def sample(found, count, seed):
    """`count` of them, each operator in turn, so that rare ones are not drowned. A change of the code leaves the others as they were."""
    by_operator = {}
    for mutant in found:
        by_operator.setdefault(mutant.operator, []).append(mutant)
    for operator in sorted(by_operator):
        by_operator[operator].sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
    chosen = []
    while len(chosen) < min(count, len(found)):
        for operator in sorted(by_operator):
            if by_operator[operator] and len(chosen) < count:
                chosen.append(by_operator[operator].pop())
    return chosen


def known_survivors():
    """Key -> (class, reason), from ci/lib/one_token_survivors.txt."""
    known = {}
    for line in KNOWN.read_text().splitlines() if KNOWN.is_file() else ():
        if line and not line.startswith("#"):
            key, kind, reason = (line.split(None, 2) + ["", ""])[:3]
            known[key] = (kind, reason)
    return known


class Place:
    """A tree of its own with a build, for one mutant at a time."""

    def __init__(self, number, traces):
        self.tree = mutants_patches.Tree(WORK / str(number))
        self.folder, self.traces = self.tree.folder, traces
        self.build = self.folder / "build" / "one_token_mutants"
        self.log = WORK / f"{number}.log"
        self.unit_tests = [p.stem for p in sorted((ROOT / "lib" / "test").glob("*_test.cc")) if not re.search(SLOW, p.stem)]
        self.clean = None

    def run(self, command, seconds=SECONDS, **options):
        with open(self.log, "wb") as log:
            return mutants_hunt.run(command, log, seconds, cwd=self.folder, **options)

    def make(self, *targets):
        return self.run(["cmake", "--build", str(self.build), "--parallel", "1", "--target", *targets], 600) == 0

    def prepare(self):
        """Builds the unchanged engine, which every judge must pass."""
        self.tree.restore()
        if not (self.build / "build.ninja").is_file():
            launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
            self.run(["cmake", "--preset", "default", "-S", str(self.folder), "-B", str(self.build), "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1",
                      "-DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld", *launcher], 600)
        tests = [*self.unit_tests, "trap_sweep_test", "lockstep_property_test"]
        if not self.make("trace", *tests):
            raise mutants_patches.BadPatch("the unchanged engine doesn't build:\n" + self.tail())
        for judge in self.judges("/trap/rcu.cc"):  # all of them
            if judge[2]() != 0:
                raise mutants_patches.BadPatch(f"the unchanged engine doesn't pass {judge[0]}:\n" + self.tail())
        self.clean = self.code()

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def code(self):
        """What was compiled: the engine's objects and a program that has its inline parts."""
        digest = hashlib.sha256()
        for path in [*sorted((self.build / "lib" / "CMakeFiles" / "guestmem.dir").rglob("*.o")), self.build / "fuzz" / "trace"]:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def judges(self, file):
        """(name, targets to build, how to ask it), the fast ones first."""
        def unit():
            return next((1 for name in self.unit_tests if self.run([str(self.build / "lib" / name), "--gtest_fail_fast", "--gtest_brief=1"]) != 0), 0)

        def properties():
            return self.run([str(self.build / "proptest" / "lockstep_property_test"), "--gtest_filter=*EngineAndModelAgree*"],
                            env={**os.environ, "RC_PARAMS": "seed=1 max_success=300"})

        def corpus(traces):
            return lambda: self.run([str(self.build / "fuzz" / "trace"), "run", *map(str, traces)])

        def schedules():
            return self.run([str(self.build / "fuzz" / "trace"), "search", "--seconds=2"])

        judges = [("corpus", ["trace"], corpus(self.traces)), ("corpus", ["trace"], corpus(vmm_traces())),
                  ("unit tests", self.unit_tests, unit), ("properties", ["lockstep_property_test"], properties)]
        if "/trap/" in file or "trap_inline" in file:
            judges.append(("every byte before a fault", ["trap_sweep_test"], lambda: self.run([str(self.build / "lib" / "trap_sweep_test"), "--gtest_fail_fast"], 300)))
        if re.search(SCHEDULED, file):
            judges.append(("schedules", ["trace"], schedules))
        return judges

    def hunt(self, mutant):
        """Plants, builds, asks: what became of it."""
        self.tree.restore()
        path = self.folder / mutant.file
        text = path.read_text()
        path.write_text(text[:mutant.start] + mutant.replacement + text[mutant.end:])
        started = time.monotonic()
        if not self.make("trace"):
            return {"end": "does not compile", "seconds": round(time.monotonic() - started, 1)}
        end = "survived"
        if self.code() == self.clean:
            end = "same code"
        else:
            for name, targets, ask in self.judges(mutant.file):
                if not self.make(*targets):
                    end = "does not compile"  # a header's mutant may only fail where it is instantiated
                elif ask() != 0:
                    end = f"killed by {name}"
                if end != "survived":
                    break
        return {"end": end, "seconds": round(time.monotonic() - started, 1)}


def traces_of_corpora():
    """What each target makes of each of its inputs, as texts: one program can then run them all."""
    folder = WORK / "traces"
    stamp = folder / "stamp"
    inputs = [path for path in sorted((ROOT / "corpus").glob("*_fuzzer/*")) if path.parent.name not in ("concurrent_fuzzer", "trace_codec_fuzzer", "vmm_fuzzer", "space_fuzzer")]
    listing = hashlib.sha256("\n".join(map(str, inputs)).encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != listing:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build = ROOT / "build" / "default"
        targets = sorted({path.parent.name for path in inputs})
        subprocess.run(["cmake", "--preset", "default"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["cmake", "--build", str(build), "--target", *targets], check=True, capture_output=True)
        for path in inputs:
            out = folder / f"{path.parent.name}_{path.name}.trace"
            subprocess.run([str(build / "fuzz" / path.parent.name), str(path)], check=True, capture_output=True,
                           env={**os.environ, "GUESTMEM_SAVE_TRACE": str(out)})
        stamp.write_text(listing)
    return [*sorted(folder.glob("*.trace")), *sorted((ROOT / "corpus" / "seeds").glob("*.trace"))]


def vmm_traces():
    return [*sorted((ROOT / "corpus").glob("vmm_fuzzer/*")), *sorted((ROOT / "corpus").glob("space_fuzzer/*")), *sorted((ROOT / "corpus" / "seeds" / "vmm").iterdir())]


def tell(chosen, results, known):
    ends = {}
    for mutant in chosen:
        end = results[mutant.key]["end"]
        ends.setdefault(mutant.operator, {}).setdefault(end, []).append(mutant)
    columns = sorted({end for by_end in ends.values() for end in by_end})
    print()
    table([["operator", *columns], *([operator, *(str(len(ends[operator].get(c, []))) for c in columns)] for operator in sorted(ends))],
                       right=range(1, len(columns) + 1))
    survivors = [mutant for mutant in chosen if results[mutant.key]["end"] == "survived"]
    real = [m for m in chosen if results[m.key]["end"] not in ("does not compile", "same code")]
    open_ones = [mutant for mutant in survivors if mutant.key not in known]
    for mutant in survivors:
        kind, reason = known.get(mutant.key, ("UNCLASSIFIED", ""))
        print(f"\n{mutant.key} {kind} {mutant.operator} {mutant.diff()}" + (f"\n    {reason}" if reason else ""))
    counts = {kind: sum(known.get(m.key, ("",))[0] == kind for m in survivors) for kind in CLASSES}
    print(f"\n{len(chosen)} mutants, {len(real)} compile to something else: {len(real) - len(survivors)} killed, {len(survivors)} survived (" +
          ", ".join(f"{counts[kind]} {kind}" for kind in CLASSES) + f", {len(open_ones)} unclassified)")
    return 1 if open_ones or counts["hole"] else 0


def run_all(options):
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, mutants_hunt.interrupt)
    found = all_mutants()
    by_key = {mutant.key: mutant for mutant in found}
    chosen = [by_key[key] for key in options.mutant] if options.mutant else sample(found, options.sample, options.seed)
    if options.list:
        for mutant in chosen:
            print(f"{mutant.key} {mutant.operator} {mutant.diff()}")
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    print(f"== one-token mutants: {len(chosen)} of {len(found)} mutants, {options.jobs} at a time, in {shown(WORK)}")
    traces = traces_of_corpora()
    places = [Place(number, traces) for number in range(options.jobs)]
    digest = hashlib.sha256(b"".join(content for content, _ in places[0].tree.files.values())).hexdigest()  # tests too, unlike Tree's
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() and not options.again else {}
    # On other sources, or with other tests, a kill is believed still; a survival is not.
    todo = [m for m in chosen if m.key not in results or (options.again_survivors and results[m.key]["end"] == "survived")
            or (results[m.key]["end"] in ("survived", "same code") and results[m.key]["tree"] != digest)]
    started, done, lock, free = time.monotonic(), 0, threading.Lock(), list(places)

    def one(mutant):
        nonlocal done
        with lock:
            place = free.pop()
        try:
            if place.clean is None:
                place.prepare()
            result = {**place.hunt(mutant), "tree": digest, "operator": mutant.operator, "diff": mutant.diff()}
        except mutants_patches.BadPatch:
            mutants_hunt.interrupt()  # the others needn't try
            raise
        finally:
            with lock:
                free.append(place)
        with lock:
            done += 1
            results[mutant.key] = result
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            mutants_patches.say(f"[{done}/{len(todo)}] {mutant.key} {mutant.operator} {mutant.file}:{mutant.line}: {result['end']} "
                        f"({result['seconds']:.0f} s; {time.monotonic() - started:.0f} s so far)", result["end"] != "survived")

    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            for _ in pool.map(one, todo):
                pass
    except (KeyboardInterrupt, mutants_patches.BadPatch) as problem:
        mutants_patches.say(f"{problem}\nstopped; the same command goes on from here" if str(problem) else "interrupted; the same command goes on from here")
    status = tell([m for m in chosen if m.key in results], results, known_survivors())
    print(f"classify a survivor: a line 'KEY CLASS REASON' in {shown(KNOWN)}, CLASS one of {', '.join(CLASSES)}")
    return 130 if mutants_hunt.interrupted.is_set() else status


def main():
    parser = argparse.ArgumentParser(prog="one_token_mutants.sh", description=__doc__)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--again-survivors", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("mutant", nargs="*")
    return run_all(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
