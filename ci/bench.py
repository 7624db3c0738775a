#!/usr/bin/env python3
"""Makes the table and the plot of a benchmark run; ci/bench.sh measures and calls it.

  bench.py table RUN.json PLOT.svg [EARLIER.json]
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
PLUS = lambda none, bitmap: (lambda libc: libc + none, lambda libc: libc + bitmap)
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
    (r"probe_4096_gpns", TIMES(1.3, 1.3)),
    (r"read_u64_alone", READS_A_SECOND(280)),
    (r"read_u64_beside_revoke", READS_A_SECOND(100)),
    (r"error_out_of_range", AT_MOST(30)),
    (r"error_with_text", AT_MOST(200)),
    (r"fault", AT_MOST(2600)),
]


def medians(path):
    rows = {}
    for b in json.loads(Path(path).read_text())["benchmarks"]:
        if b.get("aggregate_name") == "median":
            row, column = b["run_name"].rsplit("/", 1)
            rows.setdefault(row, {})[column] = b["cpu_time"]
    return rows


def targets_of(row):
    for pattern, targets in TARGETS:
        if re.fullmatch(pattern, row):
            return targets
    return (None, None)


def order(row):
    name, _, size = row.rpartition("_")
    return (name, int(size)) if size.isdigit() else (row, 0)


def table(run, plot, earlier):
    rows, before = medians(run), medians(earlier) if earlier else {}
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
    Path(plot).write_text(svg(rows))


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
                sys.exit(f"{name} did not run:\n{run.stderr}")
            return int(re.search(r"Collected : (\d+)", run.stderr)[1])
    names = subprocess.run([program, "--benchmark_list_tests=true", f"--benchmark_filter={pattern}"], capture_output=True,
                           text=True, check=True).stdout.split()
    print("instructions a call (callgrind, AVX kernels: valgrind knows no AVX-512)")
    for name in names:
        print(f"{name:32s}{(count(name, 2000) - count(name, 1000)) / 1000:10.1f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) >= 4 and sys.argv[1] == "table":
        table(sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else None)
    elif len(sys.argv) == 4 and sys.argv[1] == "instructions":
        instructions(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
