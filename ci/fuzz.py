#!/usr/bin/env python3
"""Drives the libFuzzer targets; ci/fuzz.sh sets up, builds and calls it.

  fuzz.py run --build DIR --seconds N [--seed N] TARGET...   fuzz, with progress and a table
  fuzz.py with-options TARGET COMMAND...                      run COMMAND with the sanitizer options of
                                                              fuzz/TARGET.options merged over the environment's
"""

import argparse
import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = ("asan", "lsan", "msan", "tsan", "ubsan")
PROGRESS_PERIOD = 1 if sys.stdout.isatty() else 5
INTERRUPTED = 72  # libFuzzer's exit status after SIGINT
GRACE = 60  # seconds past its time after which a target counts as hung
REPORT_LINES = 60

# "#1024  pulse  cov: 83 ft: 95 corp: 7/1Kb lim: 4 exec/s: 512 rss: 40Mb"
STATUS = re.compile(rb"^#(\d+)\s+(\w+)\s+(?:cov: (\d+) )?(?:ft: (\d+) )?(?:corp: (\d+)/\S+ )?.*exec/s:")
FINAL = re.compile(rb"^stat::(\w+):\s+(\d+)")
SAVED = re.compile(rb"Test unit written to (.+)")
NOT_A_FAILURE = "slow-unit-"


def options_file(path):
    """The sections of a .options file as dictionaries; none if there is no such file."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return {name: dict(parser[name]) for name in parser.sections()}


def options_of(target):
    return ROOT / "fuzz" / f"{target}.options"


def laid_over(path, environment):
    """`environment` with each sanitizer's section of a .options file laid over what its variable says already, as ClusterFuzz does."""
    environment = dict(environment)
    sections = options_file(path)
    for sanitizer in SANITIZERS:
        if sanitizer not in sections:
            continue
        variable = sanitizer.upper() + "_OPTIONS"
        # a colon separates options, but not inside quotes
        outside = re.findall(r"(\w+)=('[^']*'|\"[^\"]*\"|[^:]*)", environment.get(variable, ""))
        merged = {**dict(outside), **sections[sanitizer]}
        environment[variable] = ":".join(f"{name}={value}" for name, value in merged.items())
    environment.update(sections.get("env", {}))
    return environment


def merged_environment(target):
    return laid_over(options_of(target), os.environ)


def fuzzer_arguments(target):
    return [f"-{name}={value}" for name, value in options_file(options_of(target)).get("libfuzzer", {}).items()]


def input_folders(build, target):
    """Where a run starts from: the checked-in inputs and the encoded seeds."""
    return [folder for folder in (ROOT / "corpus" / target, build / "seeds") if folder.is_dir()]


def shown(path):
    return os.path.relpath(path)


def table(rows, right):
    """Aligned columns; `right` holds the indices of the numeric ones."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths)))
        print("  ".join(cells).rstrip())


class Run:
    """One target's turn."""

    def __init__(self, target, build, seconds, seed):
        self.target, self.build, self.seconds = target, build, seconds
        self.executions = self.rate = self.coverage = self.features = self.corpus = 0
        self.artifacts, self.report = [], []
        self.loaded = False  # the initial corpus has run
        self.stopped = self.interrupted = self.hung = False
        self.failure = ""  # why it counts as failed, in a few words
        self.started = self.elapsed = 0.0
        self.finds = build / "corpus" / target
        self.artifact_folder = build / "artifacts" / target
        self.log = build / "logs" / f"{target}.log"
        for folder in (self.finds, self.artifact_folder, self.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.finds_before = sum(1 for _ in self.finds.iterdir())
        self.command = [str(build / "fuzz" / target), *fuzzer_arguments(target)]
        dictionary = ROOT / "fuzz" / f"{target}.dict"
        if dictionary.exists():
            self.command.append(f"-dict={dictionary}")
        if seed:
            self.command.append(f"-seed={seed}")
        self.command += [f"-max_total_time={seconds}", "-print_final_stats=1",
                         f"-artifact_prefix={self.artifact_folder}/", str(self.finds)]
        self.command += map(str, input_folders(build, target))

    def read(self, stream, log):
        for line in stream:
            log.write(line)
            if status := STATUS.match(line):
                executions, event, coverage, features, corpus = status.groups()
                self.loaded = self.loaded or event == b"INITED"
                self.executions = int(executions)
                self.rate = int(self.executions / (time.monotonic() - self.started))
                self.coverage = int(coverage or self.coverage)
                self.features = int(features or self.features)
                self.corpus = int(corpus or self.corpus)
                continue
            if final := FINAL.match(line):
                name, value = final[1], int(final[2])
                if name == b"number_of_executed_units":
                    self.executions = value
                continue
            if saved := SAVED.search(line):
                path = Path(os.fsdecode(saved[1]))
                if not path.name.startswith(NOT_A_FAILURE):
                    self.artifacts.append(path)
            if self.report or not line.startswith((b"INFO:", b"Running", b"Done", b"NEW_FUNC")):
                self.report.append(line)

    def go(self, tell, stopping):
        """Runs to the end of its time, a failure, or an interruption; `tell` is called every period."""
        self.started = time.monotonic()
        with open(self.log, "wb") as log:
            log.write((shlex.join(self.command) + "\n").encode())
            # A session of its own: Ctrl-C reaches us alone, and we tell the fuzzer.
            process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, env=merged_environment(self.target),
                                       start_new_session=True)
            reader = threading.Thread(target=self.read, args=(process.stdout, log))
            reader.start()
            told = self.started
            while process.poll() is None:
                stopping.wait(0.1)
                now = time.monotonic()
                self.elapsed = now - self.started
                self.hung = self.elapsed > self.seconds + GRACE
                self.interrupted = stopping.is_set()
                # libFuzzer counts whole seconds and overshoots; a corpus still loading has to be seen to its end
                if self.interrupted or self.hung or (self.loaded and self.elapsed >= self.seconds):
                    self.stopped = True
                    self.stop(process)
                elif now - told >= PROGRESS_PERIOD:
                    told = now
                    tell(self)
            reader.join()
        self.elapsed = time.monotonic() - self.started
        self.judge(process.returncode)

    @staticmethod
    def stop(process):
        process.send_signal(signal.SIGINT)  # libFuzzer saves, prints its statistics and ends
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def judge(self, status):
        self.rate = int(self.executions / self.elapsed)
        if self.artifacts:
            kinds = sorted({path.name.split("-")[0] for path in self.artifacts})
            self.failure = "FAILED: " + ", ".join(kinds)
        elif self.hung:
            self.failure = "FAILED: hung"
        elif status != 0 and not (self.stopped and status == INTERRUPTED):
            self.failure = f"FAILED: exit status {status}"

    def new_finds(self):
        return sum(1 for _ in self.finds.iterdir()) - self.finds_before

    def verdict(self):
        return self.failure or ("interrupted" if self.interrupted else "ok")

    def row(self):
        return [self.target, f"{self.executions:,}", f"{self.rate:,}", f"{self.coverage:,}", f"{self.features:,}",
                f"{self.corpus:,}", f"{max(0, self.new_finds()):,}", str(len(self.artifacts)), f"{self.elapsed:.0f}",
                self.verdict()]

    def explain(self):
        """For a failed run: what it printed, the saved inputs, and how to see it again."""
        print(f"\n{self.target}: {self.failure}")
        lines = self.report[:REPORT_LINES]
        for line in lines:
            print("  | " + line.decode(errors="replace").rstrip())
        if len(self.report) > len(lines):
            print(f"  | ... {len(self.report) - len(lines)} more lines")
        print(f"  log     {shown(self.log)}")
        binary, trace = (shown(self.build / "fuzz" / name) for name in (self.target, "trace"))
        for path in self.artifacts:
            path = shlex.quote(shown(path))
            print(f"  saved   {path}\n  replay  {binary} {path}")
            if self.target != "trace_codec_fuzzer":  # that one is about the bytes, not about what they do
                print(f"  trace   {trace} run {path}   (also: show; the bytes as they are, without the target's profile)")
        if not self.artifacts:
            print(f"  again   {shlex.join(self.command)}")


def share_out(seconds, count):
    """`seconds` in `count` whole parts, as even as can be, none below one."""
    return [max(1, seconds // count + (i < seconds % count)) for i in range(count)]


def run(arguments):
    build = Path(arguments.build).resolve()
    live = sys.stdout.isatty()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())

    shares = share_out(arguments.seconds, len(arguments.target))
    if sum(shares) > arguments.seconds:
        print(f"note: a target gets at least 1 s, so this takes {sum(shares)} s")
    for target in arguments.target:
        if not (ROOT / "corpus" / target).is_dir():
            print(f"note: there is no corpus/{target}/; {target} starts from the seeds alone")
    runs = []

    def tell(current):
        later = sum(shares[len(runs):])
        left = max(0, current.seconds - current.elapsed) + later
        failures = sum(len(r.artifacts) for r in runs)
        line = (f"[{len(runs)}/{len(shares)}] {current.target}: {current.rate:,} exec/s, coverage {current.coverage:,}, "
                f"corpus {current.corpus:,}, crashes {failures}, {left:.0f} s left")
        if live:
            width = os.get_terminal_size().columns
            line = f"\r{line[:width - 1]}\x1b[K"
        print(line, end="" if live else "\n", flush=True)

    for target, seconds in zip(arguments.target, shares):
        if stopping.is_set():
            break
        runs.append(Run(target, build, seconds, arguments.seed))
        runs[-1].go(tell, stopping)
    if live:
        print("\r\x1b[K", end="")

    failed = [r for r in runs if r.failure]
    for r in failed:
        r.explain()
    print()
    if runs:
        table([["target", "executions", "exec/s", "coverage", "features", "corpus", "new", "crashes", "seconds", "verdict"],
               *(r.row() for r in runs)], right=range(1, 9))
    skipped = arguments.target[len(runs):]
    if skipped:
        print(f"not started: {' '.join(skipped)}")
    print(f"\n{len(runs) - len(failed)} target(s) without a finding, {len(failed)} failed" +
          (", interrupted" if stopping.is_set() else ""))
    if failed:
        return 1
    if stopping.is_set():
        return 130
    if any(r.new_finds() > 0 for r in runs):
        print(f"next: {shown(ROOT / 'ci' / 'minimize.sh')}   takes the best new inputs into corpus/")
    return 0


def with_options(arguments):
    os.execvpe(arguments.command[0], arguments.command, merged_environment(arguments.target))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="run|with-options")
    command = commands.add_parser("run", help="fuzz")
    command.add_argument("--build", required=True)
    command.add_argument("--seconds", type=int, required=True)
    command.add_argument("--seed", type=int)
    command.add_argument("target", nargs="+")
    command.set_defaults(call=run)
    command = commands.add_parser("with-options", help="run a command with a target's sanitizer options")
    command.add_argument("target")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(call=with_options)
    arguments = parser.parse_args()
    return arguments.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
