#!/usr/bin/env python3
"""usage: one_verdict_test.py BUILD/fuzz

One input is one trace and one verdict, whoever reads it: for each target and random inputs, what the target runs (it saves the
text) is what the trace tool shows, and the target fails where the tool says that something is wrong. And the files: what cannot be
read or written is exit status 2 with the reason, and what hangs is named.
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

INPUTS = 12  # a target
failures = 0


def expect(condition, what):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED: {what}")


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=60, **options)


def one_input(fuzz, target, file, saved):
    saved.unlink(missing_ok=True)
    ran = run(fuzz / target, file, env={**os.environ, "GUESTMEM_SAVE_TRACE": str(saved)})
    shown = run(fuzz / "trace", "show", file)
    expect(shown.returncode == 0 and saved.exists() and saved.read_text() == shown.stdout, f"{file}: `trace show` is not what {target} runs")
    verdict = run(fuzz / "trace", "run", file).returncode
    expect(verdict == (0 if ran.returncode == 0 else 1), f"{file}: {target} ends with {ran.returncode}, `trace run` with {verdict}")
    expect(run(fuzz / "trace", "run", saved).returncode == verdict, f"{file}: as text it has another verdict")


def traces(fuzz, folder):
    source = random.Random(1)
    saved = folder / "saved.trace"
    targets = sorted(path.name for path in fuzz.glob("*_fuzzer") if path.name != "trace_codec_fuzzer")
    expect(len(targets) >= 12, f"only {targets} are there")
    for target in targets:
        (folder / target).mkdir()
        for i in range(INPUTS * (5 if target == "concurrent_fuzzer" else 1)):  # hangs, which that target leaves out, take luck
            file = folder / target / f"{i}"
            file.write_bytes(source.randbytes(source.randrange(1, 1500)))
            one_input(fuzz, target, file, saved)


def refused(what, reason, *command, **options):
    done = run(*command, **options)
    expect(done.returncode == 2, f"{what}: exit status {done.returncode}, not 2")
    expect(reason in done.stderr, f"{what}: the reason '{reason}' is not in '{done.stderr.strip()}'")


def files(fuzz, folder):
    good = folder / "good.trace"
    good.write_text("guestmem trace 1\nworld single_region\nbacking 0 pages=1\nops\nread page0 length=1\n")
    missing, empty, mem = folder / "missing", folder / "empty", "/proc/self/mem"
    empty.mkdir()
    broken = folder / "with_broken_link"
    broken.mkdir()
    (broken / "link").symlink_to(missing)
    for command in ("show", "run", "test", "stats"):
        refused(f"trace {command} of nothing", "No such file", fuzz / "trace", command, missing)
        refused(f"trace {command} of a directory", "no files in" if command == "stats" else "Is a directory", fuzz / "trace", command, empty)
        refused(f"trace {command} of what cannot be read", "Input/output error", fuzz / "trace", command, mem)
    for command in ("encode", "test"):
        refused(f"trace {command} to nowhere", "No such file", fuzz / "trace", command, good, "-o", missing / "deep")
        refused(f"trace {command} to a full disk", "No space left", fuzz / "trace", command, good, "-o", "/dev/full")
    full = open("/dev/full", "w")
    for command in ("show", "run", "test", "stats"):
        refused(f"trace {command} on a full disk", "No space left", fuzz / "trace", command, good, stdout=full)
        refused(f"trace {command} without output", "closed", "sh", "-c", 'exec "$@" >&-', "sh", fuzz / "trace", command, good)
    target = fuzz / "access_fuzzer"
    refused("a replay of nothing", "No such file", target, missing)
    refused("a replay of no files", "no files", target, empty)
    refused("a replay of a broken link", "No such file", target, broken)
    refused("a replay of what cannot be read", "Input/output error", target, mem)
    refused("a replay on a full disk", "No space left", target, good, stdout=full)
    refused("a replay without output", "closed", "sh", "-c", 'exec "$@" >&-', "sh", target, good)


def hang(fuzz, folder):
    good = folder / "good.trace"
    done = run(fuzz / "hanging_target", "--seconds", "1", good)
    expect(done.returncode == 1, f"a hang: exit status {done.returncode}, not 1")
    expect(f"replay: hangs, no end after 1 s: {good}" in done.stderr, f"a hang is not named: '{done.stderr.strip()}'")


def main():
    fuzz = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        files(fuzz, Path(name))
        hang(fuzz, Path(name))
        traces(fuzz, Path(name))
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
