#!/usr/bin/env python3
"""One HTML page about all fuzzing so far, from the history that ci/fuzz.sh keeps: no script, no network, light and dark.

  fuzz_report.py WORK DIR     writes DIR/index.html; ci/fuzz.sh --report DIR calls it with WORK = build/fuzz
"""

import html
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzz_common import ROOT, shown
from fuzz_statistics import SHARES

POINTS = 240  # of one line of a plot; more can't be seen
CONFIGURATIONS = 6  # colours in the style sheet
NUMBERS = ("executions", "coverage", "features", "corpus")
PLOTS = ("coverage", "corpus", "executions/s")


def read_history(work):
    """{target: [record, ...]} in the order written. A line cut short by a crash is left out."""
    history = {}
    for path in sorted((work / "history").glob("*.jsonl")):
        records = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                records.append({**record, **{name: int(record[name]) for name in NUMBERS}, "elapsed": float(record["elapsed"])})
            except (ValueError, KeyError, TypeError):
                continue
        if records:
            history[path.stem] = records
    return history


class Line:
    """What one engine with one sanitizer did on one target, over all its turns: numbers by seconds of one core."""

    def __init__(self, records):
        turns = {}
        for record in records:
            turns.setdefault((record["session"], record["turn"]), []).append(record)
        self.points, self.executions, self.seconds = [], 0, 0.0
        best = dict.fromkeys(NUMBERS, 0)
        for turn in turns.values():  # laid end to end; what was reached stays reached
            before = {"elapsed": 0, "executions": 0}
            for record in turn:
                best = {name: max(best[name], record[name]) for name in NUMBERS}
                passed = record["elapsed"] - before["elapsed"]
                if passed >= 1 or not self.points:
                    rate = (record["executions"] - before["executions"]) / passed if passed else 0
                    before = record
                self.points.append((self.seconds + record["elapsed"], {**best, "executions/s": rate}))
            self.seconds += turn[-1]["elapsed"]
            self.executions += turn[-1]["executions"]
        self.coverage, self.features, self.corpus = best["coverage"], best["features"], best["corpus"]
        self.rate = self.executions / self.seconds if self.seconds else 0
        self.shares = [turn[-1].get(name, "-") for name in SHARES]
        self.state = turn[-1].get("end", "running, or ended without a word")
        self.failed = any(record.get("end", "").startswith("FAILED") for record in records)

    def thinned(self):
        step = -(-len(self.points) // POINTS)
        return [*self.points[::step], self.points[-1]]


def lines_of(records):
    """{configuration: Line}"""
    configurations = {}
    for record in records:
        configurations.setdefault(f"{record['engine']}, {record['sanitizer']}", []).append(record)
    return {name: Line(own) for name, own in configurations.items()}


# ------------------------------------------------------------------ numbers for people


def short(number):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            number /= 1e3 if unit == "k" else size
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return f"{number:,.0f}"


def duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ticks(low, high, count):
    """Round numbers that span [low, high]."""
    span = max(high - low, 1)
    size = 10 ** (len(str(int(span / count))) - 1) if span >= count else 1
    step = next(size * times for times in (1, 2, 5, 10, 20) if span / (size * times) <= count)
    first = int(low // step) * step
    found = [first]
    while found[-1] < high:
        found.append(found[-1] + step)
    return found


# ------------------------------------------------------------------ the page


def text(value):
    return html.escape(str(value))


def plot(lines, colours, name):
    """A line a configuration. Only the axis of a rate starts at 0: of the others growth is what one looks for."""
    width, height, left, right, top, bottom = 300, 190, 46, 10, 10, 26
    values = [point[name] for line in lines.values() for _, point in line.points]
    end = max(line.seconds for line in lines.values()) or 1
    marks = ticks(0 if name.endswith("/s") else min(values), max(values), 4)
    low, high = marks[0], marks[-1] if marks[-1] > marks[0] else marks[0] + 1

    def x(seconds):
        return left + (width - left - right) * seconds / end

    def y(value):
        return top + (height - top - bottom) * (1 - (value - low) / (high - low))
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(name)} over time">']
    for mark in marks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
                     f'<text x="{left - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{short(mark)}</text>')
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        parts.append(f'<text x="{x(end * share):.1f}" y="{height - 8}" text-anchor="{anchor}">{duration(end * share)}</text>')
    for configuration, line in lines.items():
        path = " ".join(f"{x(seconds):.1f},{y(point[name]):.1f}" for seconds, point in line.thinned())
        last = line.points[-1][1][name]
        parts.append(f'<polyline class="c{colours[configuration]}" points="{path}"><title>{text(configuration)}: {last:,}</title></polyline>'
                     f'<circle class="c{colours[configuration]}" cx="{x(line.points[-1][0]):.1f}" cy="{y(last):.1f}" r="3"/>')
    return "".join([*parts, "</svg>"])


def grid(head, rows, words=1):
    """A table; the first `words` columns are text, the others numbers. Cells are HTML already."""
    def row(cells, tag):
        return "<tr>" + "".join(f'<{tag}{"" if i < words else " class=n"}>{cell}</{tag}>' for i, cell in enumerate(cells)) + "</tr>"
    return (f'<div class="wide"><table><thead>{row(head, "th")}</thead><tbody>' + "".join(row(cells, "td") for cells in rows) +
            "</tbody></table></div>")


def targets_table(history, colours):
    rows = []
    for target, records in history.items():
        for configuration, line in lines_of(records).items():
            state = f'<span class="{"bad" if line.failed else "good" if line.state == "ok" else ""}">{text(line.state)}</span>'
            rows.append([f'<a href="#{text(target)}">{text(target)}</a>', state, f'<i class="key c{colours[configuration]}"></i>{text(configuration)}',
                         f"{line.rate:,.0f}", short(line.executions), f"{line.coverage:,}", f"{line.features:,}" if line.features else "-",
                         f"{line.corpus:,}", *map(text, line.shares), duration(line.seconds)])
    return grid(["target", "last turn", "engine, sanitizer", "executions/s", "executions", "coverage", "features", "corpus",
                 "move bytes or are refused", "of length 0", "core time"],
                rows, words=3)


def failures(history):
    parts, seen = [], set()
    for target, records in history.items():
        for record in records:
            if not record.get("end", "").startswith("FAILED"):
                continue
            for path in record.get("artifacts") or [""]:
                if path and path in seen:
                    continue
                seen.add(path)
                trace = Path(f"{path}.trace")
                found = path and trace.is_file()
                body = trace.read_text(errors="replace") if found else record.get("report", "")
                where = f"<p><code>ci/repro.sh {text(target)} {text(os.path.relpath(path, ROOT))}</code></p>" if path else ""
                parts.append(f'<details open><summary><b>{text(target)}</b>: {text(record["end"])} <small>{text(record["session"])}, '
                             f'{text(record["engine"])}, {text(record["sanitizer"])}</small></summary>{where}'
                             f'<p>{"minimal trace" if found else "what it printed"}:</p><pre>{text(body)}</pre></details>')
    return parts


def load_json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def mutants(results):
    """Who noticed which seeded bug; the control without a bug is left out."""
    rows, killed = [], 0
    for name, result in results.items():
        if name.startswith("("):
            continue
        by = [(hunt, found) for hunt, found in result["hunts"].items() if found and found["killed"]]
        killed += bool(by)
        rows.append([text(name), f'<span class="{"good" if by else "bad"}">{"killed" if by else "survived"}</span>',
                     text(", ".join(f"{hunt} {found['seconds']:.1f} s" for hunt, found in by)), text(by[0][1]["how"] if by else "")])
    return f"<p>{killed} of {len(rows)} noticed.</p>" + grid(["seeded bug", "", "by, after", "first noticed as"], rows, words=4)


def library_coverage(data):
    def cell(summary):
        if not summary["count"]:
            return "-"
        return f'<meter min=0 max=100 value="{summary["percent"]:.1f}"></meter> {summary["percent"]:.1f} %'
    rows = [[text(os.path.relpath(file["filename"], ROOT)), *(cell(file["summary"][kind]) for kind in ("lines", "branches", "mcdc"))]
            for file in data["files"]]
    rows.append(["<b>in all</b>", *(cell(data["totals"][kind]) for kind in ("lines", "branches", "mcdc"))])
    return grid(["file", "lines", "branches", "MC/DC"], rows)


STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c1c1e; --soft: #5c5c66; --rule: #d8d8de; --card: #f6f6f8; --good: #1a7f37; --bad: #c0262d;
  --c0: #0b62c4; --c1: #c2570c; --c2: #1a7f37; --c3: #8a3ab9; --c4: #00808a; --c5: #6e5a00; }
@media (prefers-color-scheme: dark) { :root { --page: #16171a; --ink: #e8e8ea; --soft: #a0a0aa; --rule: #3a3b40; --card: #202126;
  --good: #5bd078; --bad: #ff7b72; --c0: #6cb0ff; --c1: #ffa657; --c2: #5bd078; --c3: #d2a8ff; --c4: #4fd3dc; --c5: #e3c94c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: .25rem 0; } small, .soft { color: var(--soft); } a { color: var(--c0); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.facts div, .card, details { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .75rem; }
.facts b { display: block; font-size: 1.4rem; line-height: 1.3; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } .n { text-align: right; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 40rem), 1fr)); gap: 1rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: .5rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .85rem; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; } .grid { stroke: var(--rule); }
polyline { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; } circle { fill: var(--c); }
.key { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; background: var(--c); margin-right: .4rem; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
details { margin: .5rem 0; } summary { cursor: pointer; } pre { overflow-x: auto; font-size: .8rem; line-height: 1.35; margin: .5rem 0 0; }
code { overflow-wrap: anywhere; } meter { width: 5rem; height: .7rem; vertical-align: middle; }
"""


def page(work, results, coverage):
    history = read_history(work)
    lines = {target: lines_of(records) for target, records in history.items()}
    everything = [line for own in lines.values() for line in own.values()]
    configurations = list(dict.fromkeys(name for own in lines.values() for name in own))
    colours = {name: i % CONFIGURATIONS for i, name in enumerate(configurations)}
    sessions = sorted({record["session"] for records in history.values() for record in records})
    failed = failures(history)
    seconds = sum(line.seconds for line in everything)
    facts = [(len(history), "targets"), (short(sum(line.executions for line in everything)), "executions"),
             (duration(seconds), "of one core"), (len(sessions), "sessions"),
             (f'<span class="{"bad" if failed else "good"}">{len(failed)}</span>', "failures")]
    parts = ['<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<title>guestmem: fuzzing</title><style>{STYLE}</style></head><body><h1>guestmem: fuzzing</h1>",
             f'<p class="soft">Engine and model in lockstep. Sessions from {text(sessions[0])} to {text(sessions[-1])}; written '
             f'{time.strftime("%Y-%m-%d %H:%M:%S")}.</p>' if sessions else "<p>Nothing has been fuzzed yet: run <code>ci/fuzz.sh</code>.</p>",
             '<div class="facts">' + "".join(f"<div><b>{value}</b>{name}</div>" for value, name in facts) + "</div>"]
    parts += ["<h2>Failures</h2>", *(failed or ["<p>None: no divergence between engine and model, no crash, no hang.</p>"])]
    if history:
        parts += ["<h2>Targets</h2>", targets_table(history, colours), "<h2>Growth</h2>",
                  '<p class="soft">Over time of one core. Coverage: edges that the inputs reach; corpus: inputs worth keeping. Counts of different '
                  "engines and sanitizers don't compare.</p>",
                  "<p>" + " &nbsp; ".join(f'<i class="key c{colours[name]}"></i>{text(name)}' for name in configurations) + "</p>", '<div class="cards">']
        for target, own in lines.items():
            parts.append(f'<section class="card" id="{text(target)}"><h3>{text(target)}</h3><div class="plots">' + "".join(
                f"<figure>{plot(own, colours, name)}<figcaption>{name}</figcaption></figure>" for name in PLOTS) + "</div></section>")
        parts.append("</div>")
    parts += ["<h2>Seeded bugs</h2>", mutants(results) if results else "<p>Not measured here: <code>ci/mutants.sh</code> plants them.</p>"]
    parts += ["<h2>Coverage of <code>lib/</code> by the checked-in corpus</h2>",
              library_coverage(coverage["data"][0]) if coverage else "<p>Not measured here: <code>ci/coverage.sh</code> does.</p>"]
    return "\n".join([*parts, "</body></html>\n"])


def write(work, folder):
    """Writes the page in one step, so that a reader never sees half of it; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    new = folder / ".index.html.new"
    new.write_text(page(work, load_json(ROOT / "build/mutants/results.json"), load_json(ROOT / "build/coverage/summary.json")), encoding="utf-8")
    new.replace(path)
    return path


def main():
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    if not Path(sys.argv[1]).is_dir():
        print(f"fuzz_report.py: '{sys.argv[1]}' is not a folder", file=sys.stderr)
        return 2
    print(f"report: {shown(write(Path(sys.argv[1]).resolve(), Path(sys.argv[2])))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
