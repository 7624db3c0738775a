#!/usr/bin/env python3
"""Drives the fuzz targets; ci/fuzz.sh sets up, builds and calls it.

  fuzz.py run --build DIR --work DIR --seconds N ... TARGET...   fuzz on all cores, with progress and a table
  fuzz.py with-options FILE.options COMMAND...                   run COMMAND with the sanitizer options of the file laid
                                                                 over the environment's
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fuzz_report
from fuzz_common import ROOT, laid_over, shown, table
from fuzz_engines import ENGINES
from fuzz_statistics import SHARES, statistics_of

LIVE = sys.stdout.isatty()
PROGRESS_PERIOD = 1 if LIVE else 5
SAMPLE_PERIOD = 2  # seconds between two points of a plot, at first
SAMPLES = 300  # of one turn, about
REPORT_PERIOD = 60
REPORT_LINES = 60


def share_out(seconds, count):
    """`seconds` in `count` whole parts, as even as can be, none below one."""
    return [max(1, seconds // count + (i < seconds % count)) for i in range(count)]


def lay_out(targets, seconds, cores):
    """What each core does, [(target, seconds), ...]: the shares laid end to end and cut where a core's time is over."""
    plan, core = [], []
    left = seconds
    for target, share in zip(targets, share_out(seconds * cores, len(targets))):
        while share > 0:
            if left == 0:
                plan.append(core)
                core, left = [], seconds
            part = min(share, left)
            core.append((target, part))
            share -= part
            left -= part
    return [*plan, core]


class Session:
    """One target in this run: its turns, on whatever cores, and the history that the report is made from."""

    def __init__(self, target, build, work, engine, sanitizer):
        self.target, self.build, self.engine, self.sanitizer = target, build, engine, sanitizer
        self.turns, self.lock, self.shares = [], threading.Lock(), {}
        self.finds = work / "corpus" / target
        self.finds.mkdir(parents=True, exist_ok=True)
        self.finds_before = sum(1 for _ in self.finds.iterdir())
        self.history = work / "history" / f"{target}.jsonl"
        self.history.parent.mkdir(parents=True, exist_ok=True)
        self.start = time.strftime("%Y-%m-%d %H:%M:%S")

    def write(self, turn, **more):
        """One line of history. `elapsed` is time on one core."""
        record = {"session": self.start, "turn": turn.number, "engine": self.engine, "sanitizer": self.sanitizer,
                  "elapsed": round(turn.elapsed, 1), "executions": turn.executions, "coverage": turn.coverage,
                  "features": turn.features, "corpus": turn.corpus, **more}
        with self.lock, open(self.history, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def run(self, turn, stopping):
        self.turns.append(turn)
        over = threading.Event()

        def sample():
            while not over.wait(max(SAMPLE_PERIOD, turn.seconds / SAMPLES)):
                if turn.loaded:
                    self.write(turn)
        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            turn.go(stopping)
        finally:
            over.set()
            sampler.join()
        report = b"\n".join(line.rstrip() for line in turn.report[:REPORT_LINES]).decode(errors="replace")
        self.shares = statistics_of(self.build, self.target, self.finds)
        self.write(turn, end=turn.failure or ("interrupted" if turn.interrupted else "ok"), **self.shares,
                   artifacts=[str(path) for path in turn.artifacts], report=report if turn.failure else "")

    def total(self, name):
        return sum(getattr(turn, name) for turn in self.turns)

    def best(self, name):
        return max((getattr(turn, name) for turn in self.turns), default=0)

    def rate(self):
        return int(self.total("executions") / self.total("elapsed")) if self.total("elapsed") else 0

    def new_finds(self):
        return max(0, sum(1 for _ in self.finds.iterdir()) - self.finds_before)

    def artifacts(self):
        return [path for turn in self.turns for path in turn.artifacts]

    def failure(self):
        return "; ".join(sorted({turn.failure for turn in self.turns if turn.failure}))

    def verdict(self):
        return self.failure() or ("interrupted" if any(turn.interrupted for turn in self.turns) else "ok")

    def row(self):
        known = [turn.stability for turn in self.turns if turn.stability is not None]
        return [self.target, f"{self.total('executions'):,}", f"{self.rate():,}", f"{self.best('coverage'):,}",
                f"{min(known):g} %" if self.engine == "afl" and known else f"{self.best('features'):,}",
                f"{self.best('corpus'):,}", f"{self.new_finds():,}", *(self.shares.get(name, "-") for name in SHARES),
                str(len(self.artifacts())), f"{self.total('elapsed'):.0f}", self.verdict()]

    def explain(self):
        """For a failed target: what it printed, the saved inputs, and how to see it again."""
        for turn in self.turns:
            if not turn.failure:
                continue
            print(f"\n{self.target}: {turn.failure}")
            lines = turn.report[:REPORT_LINES]
            for line in lines:
                print("  | " + line.decode(errors="replace").rstrip())
            if len(turn.report) > len(lines):
                print(f"  | ... {len(turn.report) - len(lines)} more lines")
            print(f"  log     {shown(turn.log)}")
            binary = shown(self.build / "fuzz" / self.target)
            for path in turn.artifacts:
                path = shlex.quote(shown(path))
                print(f"  saved   {path}\n  replay  {binary} {path}\n  to a minimal trace and a regression: "
                      f"{shown(ROOT / 'ci' / 'repro.sh')} {self.target} {path}")
            if not turn.artifacts:
                print(f"  again   {shlex.join(turn.command())}")


class Campaign:
    def __init__(self, arguments):
        self.arguments = arguments
        self.build, self.work = Path(arguments.build).resolve(), Path(arguments.work).resolve()
        self.stopping = threading.Event()
        self.sessions = {target: Session(target, self.build, self.work, arguments.engine, arguments.sanitizer)
                         for target in dict.fromkeys(arguments.target)}
        cores = len(os.sched_getaffinity(0))
        if arguments.seconds * cores < len(self.sessions):
            arguments.seconds = -(-len(self.sessions) // cores)
            print(f"note: a target gets at least 1 s, so this takes {arguments.seconds} s")
        self.plan = lay_out(sorted(self.sessions, key=self.time_so_far), arguments.seconds, cores)  # none starves if interrupted often
        self.problems = []

    def time_so_far(self, target):
        lines = fuzz_report.lines_of(fuzz_report.read_history(self.work).get(target, []))
        own = lines.get(f"{self.arguments.engine}, {self.arguments.sanitizer}")
        return own.seconds if own else 0

    def one_core(self, turns):
        try:
            for number, target, seconds in turns:
                if self.stopping.is_set():
                    break
                turn = ENGINES[self.arguments.engine](target, self.build, self.work, seconds, number, self.arguments.seed)
                self.sessions[target].run(turn, self.stopping)
        except Exception as error:  # a thread's own words would be lost in the progress
            self.problems.append(repr(error))
            self.stopping.set()

    def tell(self, began):
        turns = [turn for session in self.sessions.values() for turn in session.turns]
        running = [turn for turn in turns if not turn.over]
        left = max(0, self.arguments.seconds - (time.monotonic() - began))
        line = (f"{left:.0f} s left, {sum(len(turn.artifacts) for turn in turns)} crashes | " +
                " | ".join(f"{turn.target}: {turn.rate():,} exec/s, coverage {turn.coverage:,}, corpus {turn.corpus:,}"
                           for turn in running))
        if LIVE:
            line = f"\r{line[:os.get_terminal_size().columns - 1]}\x1b[K"
        print(line, end="" if LIVE else "\n", flush=True)

    def write_report(self):
        if self.arguments.report:
            return fuzz_report.write(self.work, Path(self.arguments.report))
        return None

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())
        shutil.rmtree(self.work / "scratch", ignore_errors=True)
        numbers = iter(range(1, 1_000_000))
        cores = [threading.Thread(target=self.one_core, args=([(next(numbers), *turn) for turn in core],)) for core in self.plan]
        began = reported = told = time.monotonic()
        for thread in cores:
            thread.start()
        while any(thread.is_alive() for thread in cores):
            cores[0].join(0.2) if cores[0].is_alive() else time.sleep(0.2)
            now = time.monotonic()
            if now - told >= PROGRESS_PERIOD:
                told = now
                self.tell(began)
            if now - reported >= REPORT_PERIOD:
                reported = now
                self.write_report()
        if LIVE:
            print("\r\x1b[K", end="")
        return self.end()

    def end(self):
        run = [session for session in self.sessions.values() if session.turns]
        failed = [session for session in run if session.failure()]
        for session in failed:
            session.explain()
        print()
        if run:
            fifth = "stability" if self.arguments.engine == "afl" else "features"
            table([["target", "executions", "exec/s", "coverage", fifth, "corpus", "new", "useful", "length 0", "crashes", "seconds", "verdict"],
                   *(session.row() for session in run)], right=range(1, 11))
        skipped = [target for target, session in self.sessions.items() if not session.turns]
        if skipped:
            print(f"not started: {' '.join(skipped)}")
        print(f"\n{len(run) - len(failed)} target(s) without a finding, {len(failed)} failed" +
              (", interrupted; the same command goes on from here" if self.stopping.is_set() else ""))
        if page := self.write_report():
            print(f"report: {shown(page)}")
        for problem in self.problems:
            print(f"fuzz.py: {problem}", file=sys.stderr)
        if failed or self.problems:
            return 1
        if self.stopping.is_set():
            return 130
        if any(session.new_finds() > 0 for session in run):
            print(f"next: {shown(ROOT / 'ci' / 'pick_corpus.sh')}   takes the best new inputs into corpus/")
        return 0


def with_options(arguments):
    if not Path(arguments.options).is_file():
        sys.exit(f"fuzz.py: there is no {arguments.options}")
    os.execvpe(arguments.command[0], arguments.command, laid_over(arguments.options, os.environ))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="run|with-options")
    command = commands.add_parser("run", help="fuzz")
    command.add_argument("--build", required=True, help="where the targets are")
    command.add_argument("--work", required=True, help="where finds, failing inputs, logs and history go")
    command.add_argument("--seconds", type=int, required=True)
    command.add_argument("--seed", type=int)
    command.add_argument("--engine", choices=ENGINES, default="libfuzzer")
    command.add_argument("--sanitizer", default="address", help="only said in the report")
    command.add_argument("--report")
    command.add_argument("target", nargs="+")
    command.set_defaults(call=lambda arguments: Campaign(arguments).run())
    command = commands.add_parser("with-options", help="run a command with a target's sanitizer options")
    command.add_argument("options")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(call=with_options)
    arguments = parser.parse_args()
    return arguments.call(arguments)


if __name__ == "__main__":
    sys.exit(main())
