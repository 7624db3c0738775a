#!/usr/bin/env python3
"""Makes the table and the plot of a benchmark run; ci/bench.sh measures and calls it.

  bench.py table RUN.json UNMASKED.json FOLDER_FOR_PLOTS [EARLIER.json]
  bench.py instructions PROGRAM FILTER
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = ("libc", "none", "bitmap")

# row -> how the two targets (no bitmap, bitmap) follow from the row's libc column. Issue 6 has the source of each.
PLUS = lambda none, bitmap: (lambda libc: libc + none, bitmap and (lambda libc: libc + bitmap))
TIMES = lambda none, bitmap: (lambda libc: libc * none, lambda libc: libc * bitmap)
AT_MOST = lambda none: (lambda libc: none, None)
READS_A_SECOND = lambda millions: (None, lambda libc: 1e3 / millions)  # ns a read
TARGETS = [
    (r"(read|write|compare_exchange)_u64", PLUS(1.9, 3.1)),
    (r"(read|write)_(1|8|16|64|256)", PLUS(1.0, 2.2)),
    (r"(read|write)_(1023|1024)", PLUS(1.2, 2.2)),
    (r"(read|write)_4096", TIMES(1.06, 1.10)),
    (r"(read|write)_(65536|1048576)", TIMES(1.02, 1.02)),
    (r"fill_256", TIMES(1.2, 1.5)),
    (r"fill_4096", TIMES(1.05, 1.10)),
    (r"bitmap_check_1g", AT_MOST(2000)),
    (r"probe_gpns_(hot|spread)", TIMES(1.3, 1.5)),
    (r"lock_gpns_read_(hot|spread)", TIMES(1.6, 1.6)),
    (r"lock_gpns_write_(hot|spread)", TIMES(1.3, 1.3)),
    (r"(read|write)_range_64_pages", TIMES(1.03, 1.05)),
    (r"read_u64_alone", READS_A_SECOND(280)),
    (r"read_u64_beside_revoke", READS_A_SECOND(100)),
    (r"error_out_of_range", AT_MOST(30)),
    (r"error_with_text", AT_MOST(200)),
    (r"fault", PLUS(100, None)),
    # The libc column is a fixed memory with a bitmap. SPEC 14; 20,000 changes a second.
    (r"space_last", PLUS(1.0, 1.0)),
    (r"space_random", PLUS(2.0, 2.0)),
    (r"space_change", AT_MOST(50_000)),
]


def medians(path):
    rows = {}
    for b in json.loads(Path(path).read_text())["benchmarks"]:
        if b.get("aggregate_name") == "median":
            row, column = b["run_name"].split("/")[:2]  # a third part counts threads
            rows.setdefault(row, {})[column] = b["cpu_time"]
    for name in ("hot", "spread"):  # what a read lock touches is what a read probe does
        if "libc" in rows.get(f"probe_gpns_{name}", {}) and f"lock_gpns_read_{name}" in rows:
            rows[f"lock_gpns_read_{name}"]["libc"] = rows[f"probe_gpns_{name}"]["libc"]
    return rows


def targets_of(row):
    for pattern, targets in TARGETS:
        if re.fullmatch(pattern, row):
            return targets
    return (None, None)


def order(row):
    name, _, size = row.rpartition("_")
    return (name, int(size)) if size.isdigit() else (row, 0)


def table(run, unmasked, folder, earlier):
    everything, before = medians(run), medians(earlier) if earlier else {}
    rows = {row: values for row, values in everything.items() if ":" not in row}
    curves = {}
    for row in sorted(everything.keys() - rows.keys(), key=lambda row: int(row.rpartition(":")[2])):
        curves.setdefault(row.rpartition(":")[0], {})[int(row.rpartition(":")[2])] = everything[row]
    print(f"\n{'row (ns, median)':22s}{'libc/raw':>10s} {'no bitmap':>11s}{'target':>10s}   {'bitmap':>11s}{'target':>10s}"
          + ("   earlier" if earlier else ""))
    missed = 0
    for row in sorted(rows, key=order):
        values, libc = rows[row], rows[row].get("libc", math.nan)
        line = f"{row:22s}{libc:10.2f}" if "libc" in values else f"{row:22s}{'-':>10s}"
        for column, target in zip(COLUMNS[1:], targets_of(row)):
            value = values.get(column)
            if value is None:
                line += f"{'':>12s}{'':>10s}  "
                continue
            goal = target(libc) if target else None
            late = goal is not None and value > goal
            missed += late
            line += f"{value:12.2f}" + (f"{goal:10.2f}" if goal is not None else f"{'-':>10s}") + (" !" if late else "  ")
        if row in before:
            line += "   " + " ".join(f"{before[row][c]:.2f}" for c in COLUMNS if c in before[row])
        print(line)
    print(f"\n{missed} figures over their target (marked !)")
    for row, values in medians(unmasked).items():
        print(f"limiting speculation costs, {row}: "
              + ", ".join(f"{c} {rows[row][c] - values[c]:+.2f} ns" for c in COLUMNS[1:] if c in rows.get(row, {})))
    reader = [rows.get(row, {}).get(column) for row, column in (("read_u64_beside_revoke", "bitmap"), ("read_u64_alone", "bitmap"), ("read_u64", "none"))]
    if all(reader):
        beside, alone, free = (1e3 / cost for cost in reader)
        print(f"a reader beside a thread that revokes in a loop: {beside:.0f} M reads/s; alone {alone:.0f} M/s, ratio {beside / alone:.2f}; "
              f"without a bitmap {free:.0f} M/s, ratio {beside / free:.2f}")
    Path(folder, "cost.svg").write_text(svg(rows))
    if curves:
        print_curves(curves)
        Path(folder, "curves.svg").write_text(curves_svg(curves))


# What each curve is there to show.
SHOWN = {
    "regions": "an access costs the same in each of many regions; the first is found without looking for it",
    "views": "a view costs what its memory costs, however deep it is nested",
    "readers": "readers do not slow each other down",
    "synchronize": "a grace period looks at each registered thread once; waking none, it hardly grows with their number",
    "reserve_gib": "reserved address space costs nothing until it is populated",
    "read_host_at": "the host buffer's alignment matters no more than to memcpy",
    "write_host_at": "the host buffer's alignment matters no more than to memcpy",
    "read_step": "no size is far from its neighbours (cliffs would be listed)",
    "write_step": "no size is far from its neighbours (cliffs would be listed)",
}


def print_curves(curves):
    print("\ncurves (ns, median)")
    for name, points in sorted(curves.items()):
        print(f"{name}: {SHOWN[name]}")
        for column in COLUMNS:
            at = {x: values[column] for x, values in points.items() if column in values}
            if at:
                print(f"{name:16s}{column:8s}" + "  ".join(f"{x}: {cost:.2f}" for x, cost in at.items()))
    for name in ("read_step", "write_step"):
        points = curves.get(name, {})
        for x in points:
            if x + 1 not in points or "libc" not in points[x]:
                continue
            libc = points[x + 1]["libc"] - points[x]["libc"]
            for column in COLUMNS[1:]:
                here, there = points[x][column], points[x + 1][column]
                if there > here + max(libc, 0) + 0.15 * here:
                    print(f"cliff: {name} {column}, from {x} to {x + 1} bytes {here:.2f} -> {there:.2f} ns (memcpy {libc:+.2f})")


def curves_svg(curves):
    """A panel a curve, cost in ns against x, both logarithmic."""
    width, height, margin = 360, 220, 40
    colours = {"libc": "#888", "none": "#1f77b4", "bitmap": "#d62728"}
    rows = (len(curves) + 2) // 3
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * 3} {height * rows}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for i, (name, points) in enumerate(sorted(curves.items())):
        left, top = i % 3 * width, i // 3 * height
        costs = [cost for values in points.values() for cost in values.values()]
        high, widest = math.log(max(costs) * 1.5), math.log(max(points) + 1) or 1
        x = lambda v: left + margin + math.log(v + 1) / widest * (width - 2 * margin)
        y = lambda cost: top + height - margin - max(math.log(cost), 0) / (high or 1) * (height - 2 * margin)
        out.append(f'<text x="{left + margin}" y="{top + 18}" font-size="14">{name}: ns</text>')
        for v in points:
            out.append(f'<text x="{x(v):.1f}" y="{top + height - margin + 14}" text-anchor="middle" font-size="7">{v}</text>')
        for cost in (min(costs), max(costs)):
            out.append(f'<text x="{left + margin - 4}" y="{y(cost):.1f}" text-anchor="end">{cost:.3g}</text>')
        for column, colour in colours.items():
            line = " ".join(f"{x(v):.1f},{y(values[column]):.1f}" for v, values in points.items() if column in values)
            if line:
                out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "\n".join(out + ["</svg>\n"])


def svg(rows):
    """Cost in ns against size in bytes, both logarithmic, one panel each for read, write and fill."""
    panels, width, height, margin = ("read", "write", "fill"), 360, 300, 45
    colours = {"libc": "#888", "none": "#1f77b4", "bitmap": "#d62728"}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * 3} {height + 30}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for i, operation in enumerate(panels):
        points = {}
        for row, values in rows.items():
            if match := re.fullmatch(operation + r"_(\d+)", row):
                for column, value in values.items():
                    points.setdefault(column, []).append((int(match[1]), value))
        if not points:
            continue
        everything = [p for ps in points.values() for p in ps]
        x_max, y_max = (math.log(max(p[k] for p in everything)) for k in (0, 1))
        x = lambda size: i * width + margin + math.log(size) / (x_max or 1) * (width - 2 * margin)
        y = lambda cost: height - margin - max(math.log(cost), 0) / (y_max or 1) * (height - 2 * margin)
        out.append(f'<text x="{i * width + margin}" y="20" font-size="14">{operation}: ns against bytes</text>')
        for size in sorted({p[0] for p in everything}):
            out.append(f'<text x="{x(size):.1f}" y="{height - margin + 15}" text-anchor="middle" font-size="8">{size}</text>')
        for power in range(int(y_max / math.log(10)) + 1):
            out.append(f'<text x="{i * width + margin - 5}" y="{y(10 ** power):.1f}" text-anchor="end">{10 ** power}</text>')
        for column, ps in points.items():
            line = " ".join(f"{x(s):.1f},{y(c):.1f}" for s, c in sorted(ps))
            out.append(f'<polyline points="{line}" fill="none" stroke="{colours[column]}" stroke-width="1.5"/>')
    for k, (column, colour) in enumerate(colours.items()):
        label = {"libc": "memcpy / memset", "none": "guestmem, no bitmap", "bitmap": "guestmem, bitmap and section"}[column]
        out.append(f'<text x="{margin + k * 220}" y="{height + 15}" fill="{colour}">{label}</text>')
    return "\n".join(out + ["</svg>\n"])


def instructions(program, pattern):
    """Instructions of one call, as the difference of two callgrind runs with different iteration counts."""
    def count(name, iterations):
        with tempfile.NamedTemporaryFile() as out:
            run = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program,
                                  f"--benchmark_filter=^{re.escape(name)}/iterations", "--fixed_iterations", str(iterations)],
                                 capture_output=True, text=True, env=os.environ | {"GUESTMEM_KERNELS": "avx"})
            if name not in run.stdout:
                return None
            return int(re.search(r"Collected : (\d+)", run.stderr)[1])
    names = subprocess.run([program, "--benchmark_list_tests=true", f"--benchmark_filter={pattern}"], capture_output=True,
                           text=True, check=True).stdout.split()
    print("instructions a call (callgrind, AVX kernels: valgrind knows no AVX-512)")
    failed = 0
    for name in names:
        more, fewer = count(name, 2000), count(name, 1000)
        if more is None or fewer is None:  # a signal on the main stack, now and then: valgrind may not extend it for the frame
            failed += 1
            print(f"{name:32s}         -  does not run under valgrind here", flush=True)
        else:
            print(f"{name:32s}{(more - fewer) / 1000:10.1f}", flush=True)
    if failed == len(names):
        sys.exit(f"none of {failed} rows ran under valgrind")


if __name__ == "__main__":
    if len(sys.argv) >= 5 and sys.argv[1] == "table":
        table(*sys.argv[2:5], sys.argv[5] if len(sys.argv) > 5 else None)
    elif len(sys.argv) == 4 and sys.argv[1] == "instructions":
        instructions(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
