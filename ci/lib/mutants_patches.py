"""The seeded bugs of ci/mutants/*.patch, and a copy of the tree to plant them in."""

import hashlib
import itertools
import os
import re
import subprocess
import sys

from fuzz_common import ROOT, table

PATCHES = ROOT / "ci" / "mutants"
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
SOURCES = ("lib", "reference", "fuzz", "proptest", "corpus", "CMakeLists.txt", "CMakePresets.json")
NEW_IS_NO_REASON_TO_HUNT_AGAIN = re.compile(r"_test\.cc$|/test/|^proptest/")
UNIT_TESTS = ("lib/test", "reference/model", "reference/lockstep", "reference/schedule", "reference/vmm")
JUDGE = re.compile(r"^# (unit|compiler): (\w+)$", re.M)
FOR_REPRO_ONLY = re.compile(r"gtest|minimis|test_source|_tool\.cc$|in_child|trace_files")  # of the rest
LIVE = sys.stdout.isatty()


class BadPatch(Exception):
    pass


def patches():
    return {path.stem: path for path in sorted(PATCHES.glob("*.patch"))}


def mistake(path):
    return path.read_text().splitlines()[0].removeprefix("# ")


def judge(path):
    """("unit", test program) or ("compiler", target that must not build), where the patch's head names one; else fuzzing judges it."""
    found = JUDGE.search(path.read_text())
    return found and found.groups()


def has_judge(kind, name):
    if kind == "unit":
        return any((ROOT / folder / f"{name}.cc").is_file() for folder in UNIT_TESTS)
    return f"add_library({name} " in (ROOT / "lib" / "CMakeLists.txt").read_text()


def say(line, over=False):
    """`over`: the next line may take its place on a terminal."""
    if LIVE:
        line = f"\r{line[:os.get_terminal_size().columns - 1] if over else line}\x1b[K"
    if LIVE or not over:
        print(line, end="" if over else "\n", flush=True)


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
        for path in [ROOT / ".clang-format", ROOT / "README.md", *(ROOT / "ci").glob("*.sh"), *(ROOT / "ci" / "lib").glob("*.*")]:  # CMake; repro.sh
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


def list_all(_):
    table([["mutant", "imitates"], *([name, mistake(path)] for name, path in patches().items())], right=())
    return 0


def why_not(path):
    """Nothing if the patch applies to this tree, and in one place only: where the code moves, another would be taken silently. And
    if there is the judge that its head names."""
    named = judge(path)
    if named and not has_judge(*named):
        return f"its head names a judge that does not exist: {' '.join(named)}"
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
            print(f"{name}: {reason}")
    print(f"{len(patches()) - bad} patches apply and have their judge, {bad} don't")
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
        text = "".join(line + "\n" for line in itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines()))
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
