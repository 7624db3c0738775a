#!/usr/bin/env python3
"""Chooses the inputs of corpus/<target>/; ci/pick_corpus.sh builds and calls it."""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz_common import ROOT, fuzzer_arguments, merged_environment, shown, table

MAX_FILES = 300
MAX_BYTES = 256 * 1024
KEPT_FOR_EVER = "regression-"


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def features_of(build, target, folders):
    """What each file reaches, from the control file of libFuzzer's merge: {path: set of features}."""
    with tempfile.TemporaryDirectory() as scratch:
        control, out = Path(scratch) / "control", Path(scratch) / "out"
        out.mkdir()
        # set_cover_merge records every feature of a file, a plain merge only those not seen before it
        command = [str(build / "fuzz" / target), *fuzzer_arguments(build, target), "-set_cover_merge=1",
                   f"-merge_control_file={control}", f"-artifact_prefix={scratch}/", str(out), *map(str, folders)]
        done = subprocess.run(command, env=merged_environment(build, target), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or not control.exists():
            sys.stdout.buffer.write(done.stdout[-4000:])
            sys.exit(f"pick_corpus: the merge of {target} failed (above)")
        # number of files, number of them in the first folder, the names; then STARTED/FT/COV lines by index
        lines = control.read_text(errors="surrogateescape").split("\n")
        count = int(lines[0])
        paths = [Path(name) for name in lines[2:2 + count]]
        features, started = {}, set()
        for line in lines[2 + count:]:
            words = line.split()
            if words and words[0] == "STARTED":
                started.add(int(words[1]))
            elif words and words[0] == "FT":
                features[paths[int(words[1])]] = set(map(int, words[2:]))
        crashed = [paths[index] for index in started if paths[index] not in features]
        return features, crashed


def choose(features, free, candidates):
    """Greedy set cover: most new features first, the smaller file where equal. Stops at the limits."""
    covered = set().union(*(features.get(path, set()) for path in free))
    rest = {path: features[path] - covered for path in candidates if path in features}
    chosen, size = [], 0
    while rest and len(chosen) < MAX_FILES:
        best = min(rest, key=lambda path: (-len(rest[path]), path.stat().st_size, path.name))
        gained = rest.pop(best)
        if not gained:
            break
        if size + best.stat().st_size > MAX_BYTES:
            continue
        chosen.append(best)
        size += best.stat().st_size
        rest = {path: left for path, missing in rest.items() if (left := missing - gained)}
    left_out = set().union(*rest.values())
    return chosen, left_out


def pick(build, target, more, dry_run):
    corpus = ROOT / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    before = files_of(corpus)
    found = [folder for folder in (build / "corpus" / target, *more) if folder.is_dir()]
    features, crashed = features_of(build, target, [corpus, *found, build / "seeds"])
    seeds = files_of(build / "seeds")
    kept = [path for path in before if path.name.startswith(KEPT_FOR_EVER)]
    # one of several equal files is enough, and the checked-in one is the one to keep
    candidates = {}
    for path in [*before, *(path for folder in found for path in files_of(folder))]:
        if path not in kept:
            candidates.setdefault(hashlib.sha1(path.read_bytes()).hexdigest(), path)
    chosen, left_out = choose(features, seeds + kept, candidates.values())
    contents = {hashlib.sha1(data).hexdigest(): data for data in (path.read_bytes() for path in chosen)}
    sizes = sum(len(data) for data in contents.values()) + sum(path.stat().st_size for path in kept)
    row = [target, str(len(before)), f"{sum(p.stat().st_size for p in before):,}", str(len(contents) + len(kept)),
           f"{sizes:,}", f"{len(set().union(*features.values())):,}", str(len(left_out)), str(len(crashed))]
    if not dry_run:
        for path in before:
            if path not in kept and path.name not in contents:
                path.unlink()
        for name, data in contents.items():
            (corpus / name).write_bytes(data)
    for path in crashed:
        print(f"note: {target} fails on {shown(path)}; run it, mend it, and keep it as corpus/{target}/{KEPT_FOR_EVER}...")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--more", type=Path, action="append", default=[], help="a folder of inputs for any target")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("target", nargs="+")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    rows = [["target", "files before", "bytes", "files now", "bytes", "features", "left out", "failing"]]
    for target in arguments.target:
        print(f"{target}: running every input once", flush=True)
        rows.append(pick(build, target, arguments.more, arguments.dry_run))
    print()
    table(rows, right=range(1, 8))
    if arguments.dry_run:
        print("\nnothing was written (--dry-run)")
    else:
        print(f"\nnext: git -C {os.path.relpath(ROOT)} status --short corpus")


if __name__ == "__main__":
    main()
