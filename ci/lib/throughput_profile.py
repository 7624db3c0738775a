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
ROOMS = {
    "libFuzzer": r"fuzzer::|__sanitizer_cov_|LLVMFuzzer(CustomMutator|Initialize)",
    "lib": r"guestmem::|guestmem_",
    "model": r"reference::(Model|model)::",
    "engine adapter": r"reference::(anonymous::)?(Engine|Scripted|RunPlain|Observe)",
    "decode": r"reference::(FromBytes|Normal|Resolve)\b|LLVMFuzzerTestOneInput|fuzz::|anonymous::OnlyRam",
    "lockstep": r"reference::(Lockstep::|Compare\b)",
}
FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?) \([^()]*\)$", re.M)


def bare(function):
    """Its qualified name alone, without what a template returns and takes."""
    function, depth, kept = function.replace("(anonymous namespace)", "anonymous"), 0, ""
    for character in function:
        depth -= character in ">)"
        kept += character if depth == 0 and character not in ">)<(" else ""
        depth += character in "<("
    return kept.rpartition(" ")[2]


def room_of(stack):
    for function in map(bare, stack):
        for room, pattern in ROOMS.items():
            if re.match(pattern, function):
                return room
    return "elsewhere"


def main():
    name, command = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        try:
            record = subprocess.run(["perf", "record", "--quiet", "-e", "cpu-clock", "-F", str(FREQUENCY), "--call-graph", f"dwarf,{STACK}",
                                     "-o", data, "--", *command], capture_output=True, text=True)
        except FileNotFoundError:
            print(f"no profile of {name}: perf is not installed (Debian: linux-perf)")
            return
        if record.returncode != 0 or not data.is_file():
            reason = (record.stderr.strip().splitlines() or ["and doesn't say why"])[-1]
            print(f"no profile of {name}: perf record failed: {reason}")
            return
        script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym,dso"], capture_output=True, text=True, check=True).stdout
    samples = collections.Counter(room_of(stack) for sample in script.split("\n\n") if (stack := FRAME.findall(sample)))
    print(f"{name}: where the time goes, by {samples.total()} samples")
    for room, count in samples.most_common():
        print(f"  {room:<16} {100 * count / samples.total():5.1f} %")


if __name__ == "__main__":
    main()
