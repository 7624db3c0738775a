#!/usr/bin/env python3
"""usage: coverage_report.py ROOT SUMMARY.json LCOV.info SHOWN.txt EXCEPTIONS

Prints what ci/coverage.sh measured: the table by file, as llvm-cov counts; then every line and branch outcome that no
instantiation reached, less those that EXCEPTIONS explains. A branch outcome is one of the two ways of one condition.

EXCEPTIONS has one entry a line: FILE | FROM | TO | REASON. It explains what is uncovered from the first line of FILE that
contains FROM to the next that contains TO (empty: that line alone; "^X": that is X and no more, so that ^} ends a function). An entry that explains nothing any more is reported; the
exit status is 1 then, else 0. Works from any directory.
"""

import json
import os
import re
import sys

KINDS = ("lines", "branches", "mcdc")


def print_table(root, data):
    rows = [(os.path.relpath(f["filename"], root), f["summary"]) for f in data["files"]]
    rows.append(("lib/ in all", data["totals"]))
    print(f"\n{'file':44s}" + "".join(f"{kind:>22s}" for kind in KINDS))
    for name, summary in rows:
        cells = (
            f"{s['covered']:5d}/{s['count']:<5d} {s['percent']:6.2f} %" if s["count"] else "-"
            for s in (summary[k] for k in KINDS)
        )
        print(f"{name:44s}" + "".join(f"{cell:>22s}" for cell in cells))


def uncovered_lines(root, lcov):
    """{file: set of line numbers}"""
    lines, name = {}, None
    for line in open(lcov):
        if line.startswith("SF:"):
            name = os.path.relpath(line[3:].strip(), root)
            lines[name] = set()
        elif line.startswith("DA:"):
            number, count = line[3:].split(",")[:2]
            if int(count) == 0:
                lines[name].add(int(number))
    return lines


def uncovered_branches(root, shown):
    """{file: {line number: outcomes}}, an outcome counted once however often it was instantiated; constants have none"""
    reached, name = {}, None
    branch = re.compile(r"Branch \((\d+):(\d+)\): \[True: (\S+), False: (\S+)\]")
    for line in open(shown):
        if line.startswith("/"):
            name = os.path.relpath(line.strip().rstrip(":"), root)
        found = branch.search(line)
        if found:
            number, column, true, false = found.groups()
            for way, count in ((True, true), (False, false)):
                place = (name, int(number), int(column), way)
                reached[place] = reached.get(place, False) or count != "0"
    result = {}
    for (name, number, _, _), is_reached in reached.items():
        if not is_reached:
            missing = result.setdefault(name, {})
            missing[number] = missing.get(number, 0) + 1
    return result


def explained_places(root, path):
    """[(entry's text, file, range of line numbers)]"""
    entries = []
    for number, line in enumerate(open(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{os.path.relpath(path, root)}:{number}"
        parts = [part.strip() for part in re.split(r" \|(?= )", line)]
        if len(parts) != 4 or not parts[3]:
            sys.exit(f"{where}: an entry is FILE | FROM | TO | REASON")
        name, start, end, _ = parts
        if not os.path.exists(os.path.join(root, name)):
            entries.append((f"{where}: {name} is gone", name, range(0)))
            continue
        source = open(os.path.join(root, name)).read().splitlines()
        first = next((i for i, text in enumerate(source, 1) if start in text), None)
        last = first
        if first is not None and end:
            ends = (lambda text: text == end[1:]) if end.startswith("^") else (lambda text: end in text)
            last = next((i for i in range(first, len(source) + 1) if ends(source[i - 1])), None)
        found = first is not None and last is not None
        entries.append((f"{where}: {name}: {start}", name, range(first, last + 1) if found else range(0)))
    return entries


def main():
    if len(sys.argv) != 6:
        print(__doc__)
        return 2
    root, summary, lcov, shown, exceptions = sys.argv[1:]
    data = json.load(open(summary))["data"][0]
    print_table(root, data)
    lines, branches = uncovered_lines(root, lcov), uncovered_branches(root, shown)

    explained, stale = set(), []
    for text, name, place in explained_places(root, exceptions):
        here = [n for n in place if n in lines.get(name, ()) or n in branches.get(name, {})]
        explained.update((name, n) for n in here)
        if not here:
            stale.append(text)

    counts = {True: [0, 0], False: [0, 0]}
    open_places = []
    for name in sorted(set(lines) | set(branches)):
        for n in sorted(lines.get(name, set()) | set(branches.get(name, {}))):
            is_explained = (name, n) in explained
            missing = branches.get(name, {}).get(n, 0)
            counts[is_explained][0] += n in lines.get(name, ())
            counts[is_explained][1] += missing
            if not is_explained:
                open_places.append((name, n, n in lines.get(name, ()), missing))

    totals = data["totals"]
    for kind, i in (("lines", 0), ("branches", 1)):
        print(f"{kind}: {totals[kind]['percent']:.2f} %; not reached by any instantiation: {counts[True][i] + counts[False][i]}, "
              f"of them {counts[True][i]} with a reason in {os.path.relpath(exceptions, root)}, {counts[False][i]} without")
    for name, n, line, missing in open_places:
        what = " and ".join((["line"] if line else []) + ([f"{missing} outcome{'s' * (missing > 1)}"] if missing else []))
        source = open(os.path.join(root, name)).read().splitlines()[n - 1].strip()
        print(f"   {name}:{n}: {what}: {source[:90]}")
    for text in stale:
        print(f"   explains nothing any more: {text}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
