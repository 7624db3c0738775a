#!/usr/bin/env python3
"""Where an execution's time goes, by room: runs COMMAND under perf and prints one line a room. ci/throughput.sh calls it.

usage: throughput_profile.py NAME COMMAND...

A sample counts for the innermost function on its stack that stands in a room; libc's, the C++ library's and the sanitizers'
functions count for whoever called them. Where perf is not there or may not record, a line says so, and the exit status is 0.
"""

import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FREQUENCY = 500  # samples a second
STACK = 8192  # bytes of it that a sample keeps

# By the beginning of a function's name. What none of them knows (helpers that several rooms use) is its caller's.
ROOMS = [
    ("libFuzzer", r"fuzzer::|__sanitizer_cov_|LLVMFuzzer(CustomMutator|Initialize)"),
    ("lib", r"guestmem::|guestmem_"),
    ("model", r"reference::Model::"),
    ("engine adapter", r"reference::(\(anonymous namespace\)::)?(Engine|Scripted|RunPlain|Observe|Atomic)"),
    ("decode", r"reference::(FromBytes|Normal|Resolve)\b|LLVMFuzzerTestOneInput|fuzz::|\(anonymous namespace\)::OnlyRam"),
    ("lockstep", r"reference::(Lockstep::|Compare\b|operator==)"),
]
ROOMS = [(name, re.compile(pattern)) for name, pattern in ROOMS]
FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?)(?:\+0x[0-9a-f]+)?(?: \([^()]*(?:\([^()]*\))?[^()]*\))?$")


def room_of(stack):
    for function in stack:
        # A template's function is printed after what it returns.
        for name, pattern in ROOMS:
            if pattern.match(function):
                return name
    return "elsewhere"


def stacks(script):
    """The functions of each sample, the innermost first."""
    for sample in script.split("\n\n"):
        functions = [match[1] for line in sample.splitlines() if (match := FRAME.match(line))]
        if functions:
            yield functions


def main():
    name, command = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        try:
            record = subprocess.run(["perf", "record", "--quiet", "-e", "cpu-clock", "-F", str(FREQUENCY), "--call-graph", f"dwarf,{STACK}",
                                     "-o", data, "--", *command], capture_output=True, text=True)
            if not data.is_file() or record.returncode != 0:
                reason = (record.stderr.strip().splitlines() or ["it says nothing"])[-1]
                print(f"no profile of {name}: perf record failed: {reason}")
                return
            script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], capture_output=True, text=True, check=True).stdout
        except FileNotFoundError:
            print(f"no profile of {name}: perf is not installed (Debian: linux-perf)")
            return
    samples = collections.Counter(map(room_of, stacks(script)))
    total = samples.total()
    print(f"{name}: where its time goes, of {total} samples")
    for room, count in samples.most_common():
        print(f"  {room:<16} {100 * count / total:5.1f} %")


if __name__ == "__main__":
    main()
