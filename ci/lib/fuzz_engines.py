"""One process of a fuzzing engine on one target, for a while: its command, its progress, its findings."""

import hashlib
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from fuzz_common import dictionary, fuzzer_arguments, input_folders, merged, merged_environment, options_file, options_of

GRACE = 300  # seconds past its time after which a process counts as hung; a corpus on a busy machine takes its time
LEAST_STABILITY = 99.0  # percent of edges that the same input reaches every time


class Turn:
    """`build` has the target; finds, failing inputs and logs go to `work`, which all engines and sanitizers share."""

    def __init__(self, target, build, work, seconds, number, seed=None):
        self.target, self.build, self.seconds, self.number, self.seed = target, build, seconds, number, seed
        self.executions = self.coverage = self.features = self.corpus = 0
        self.stability = None  # percent, where the engine tells
        self.artifacts, self.report = [], []
        self.loaded = False  # the initial corpus has run
        self.stopped = self.interrupted = self.hung = self.over = False
        self.failure = ""  # why it counts as failed, in a few words
        self.started = self.elapsed = 0.0
        self.finds = work / "corpus" / target
        self.artifact_folder = work / "artifacts" / target
        self.log = work / "logs" / f"{target}.{number}.log"
        self.scratch = work / "scratch" / f"{target}.{number}"
        self.trace = self.scratch / "failing.trace"
        for folder in (self.finds, self.artifact_folder, self.log.parent, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        self.trace.unlink(missing_ok=True)

    def environment(self):
        return {**merged_environment(self.build, self.target), "GUESTMEM_FUZZ_RUN": str(self.scratch)}  # a mark, for end_left_over

    def keep_trace(self, artifact):
        """The failing input as text, minimised where that can be done."""
        kept = Path(f"{artifact}.trace")
        if kept.exists():
            return
        fuzz = self.build / "fuzz"
        tool = fuzz / "trace"
        environment = {**merged_environment(self.build, self.target), "GUESTMEM_SAVE_TRACE": str(self.trace)}
        for command in ([fuzz / self.target, artifact], [tool, "minimise", self.trace, "-o", kept]):
            try:
                subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
            except (OSError, subprocess.TimeoutExpired):
                break
        if self.trace.exists() and not kept.exists():
            shutil.move(self.trace, kept)

    def rate(self):
        return int(self.executions / self.elapsed) if self.elapsed > 0 else 0

    def go(self, stopping):
        """Runs to the end of its time, a failure, or an interruption."""
        self.started = time.monotonic()
        with open(self.log, "wb") as log:
            command = self.command()
            log.write((shlex.join(command) + "\n").encode())
            # A session of its own: Ctrl-C reaches us alone, and we tell the fuzzer.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       env=self.environment(), start_new_session=True)
            reader = threading.Thread(target=self.read, args=(process.stdout, log))
            reader.start()
            looked = 0.0
            while process.poll() is None:
                stopping.wait(0.1)
                self.elapsed = time.monotonic() - self.started
                if self.elapsed >= looked + 1:
                    looked = self.elapsed
                    self.look()
                self.hung = self.elapsed > self.seconds + GRACE
                self.interrupted = stopping.is_set()
                # engines count whole seconds and overshoot; a corpus still loading has to be seen to its end
                if self.interrupted or self.hung or (self.loaded and self.elapsed >= self.seconds):
                    self.stopped = True
                    self.stop(process)
            reader.join()
        self.elapsed = time.monotonic() - self.started
        self.look()
        self.collect()
        self.judge(process.returncode)
        self.over = True

    def look(self):
        """For engines that tell their progress elsewhere than on standard output."""

    def collect(self):
        """For engines that keep their finds and failing inputs elsewhere."""

    @staticmethod
    def stop(process):
        process.send_signal(signal.SIGINT)  # both engines save, print their statistics and end
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def judge(self, status):
        if self.artifacts:
            self.keep_trace(self.artifacts[0])
            self.failure = "FAILED: " + ", ".join(sorted({path.name.split("-")[0] for path in self.artifacts}))
        elif self.hung:
            self.failure = "FAILED: hung"
        elif status != 0 and not (self.stopped and status in (self.INTERRUPTED, -signal.SIGINT)):  # the latter before it listens
            self.failure = f"FAILED: exit status {status}"
        elif self.stability is not None and self.stability < LEAST_STABILITY:
            self.failure = f"FAILED: stability {self.stability:g} %, below {LEAST_STABILITY:g} %"


class LibFuzzer(Turn):
    INTERRUPTED = 72  # its exit status after SIGINT
    NOT_A_FAILURE = "slow-unit-"

    # "#1024  pulse  cov: 83 ft: 95 corp: 7/1Kb lim: 4 exec/s: 512 rss: 40Mb"
    STATUS = re.compile(rb"^#(\d+)\s+(\w+)\s+(?:cov: (\d+) )?(?:ft: (\d+) )?(?:corp: (\d+)/\S+ )?.*exec/s:")
    FINAL = re.compile(rb"^stat::(\w+):\s+(\d+)")
    SAVED = re.compile(rb"Test unit written to (.+)")

    def command(self):
        seed = [f"-seed={self.seed + self.number}"] if self.seed else []
        return [str(self.build / "fuzz" / self.target), *fuzzer_arguments(self.build, self.target),
                *(f"-dict={path}" for path in dictionary(self.target)), *seed, f"-max_total_time={math.ceil(self.seconds)}",
                "-print_final_stats=1", f"-artifact_prefix={self.artifact_folder}/", str(self.finds),
                *map(str, input_folders(self.build, self.target))]

    def read(self, stream, log):
        for line in stream:
            log.write(line)
            if status := self.STATUS.match(line):
                executions, event, coverage, features, corpus = status.groups()
                self.loaded = self.loaded or event == b"INITED"
                self.executions = int(executions)
                self.coverage = int(coverage or self.coverage)
                self.features = int(features or self.features)
                self.corpus = int(corpus or self.corpus)
                continue
            if final := self.FINAL.match(line):
                if final[1] == b"number_of_executed_units":
                    self.executions = int(final[2])
                continue
            if saved := self.SAVED.search(line):
                path = Path(os.fsdecode(saved[1]))
                if not path.name.startswith(self.NOT_A_FAILURE):
                    self.artifacts.append(path)
            if self.report or not line.startswith((b"INFO:", b"Running", b"Done", b"NEW_FUNC", b"Dictionary:")):
                self.report.append(line)


class Afl(Turn):
    """AFL++ in persistent mode, the target its own CmpLog binary. Inputs and finds are files named by their content, as
    libFuzzer's: what one engine finds the other starts from."""

    INTERRUPTED = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.out, self.inputs = self.scratch / "out", self.scratch / "inputs"

    def environment(self):
        environment = {**super().environment(), "AFL_NO_UI": "1", "AFL_NO_COLOR": "1", "AFL_SKIP_CPUFREQ": "1", "AFL_NO_AFFINITY": "1",
                       "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES": "1", "AFL_CMPLOG_ONLY_NEW": "1",
                       "AFL_FAST_CAL": "1"}
        # how afl-fuzz wants to learn of a report: by a signal, and of MSan's by this status
        for variable, options in (("ASAN_OPTIONS", {"abort_on_error": "1", "symbolize": "0", "detect_leaks": "0"}),
                                  ("UBSAN_OPTIONS", {"abort_on_error": "1", "symbolize": "0", "halt_on_error": "1"}),
                                  ("TSAN_OPTIONS", {"abort_on_error": "1", "symbolize": "0", "halt_on_error": "1"}),
                                  ("MSAN_OPTIONS", {"abort_on_error": "1", "symbolize": "0", "exit_code": "86"})):
            environment[variable] = merged(environment.get(variable, ""), options)
        return environment

    def command(self):
        for folder in (self.out, self.inputs):
            shutil.rmtree(folder, ignore_errors=True)
        self.inputs.mkdir()
        for folder in (*input_folders(self.build, self.target), self.finds):
            for path in folder.rglob("*"):
                content = path.read_bytes() if path.is_file() else b""
                if content:  # afl-fuzz has no use for the empty input
                    (self.inputs / hashlib.sha1(content).hexdigest()).write_bytes(content)
        options = options_file(options_of(self.build, self.target)).get("libfuzzer", {})
        seed = ["-s", str(self.seed + self.number)] if self.seed else []
        return ["afl-fuzz", "-i", str(self.inputs), "-o", str(self.out), "-V", str(math.ceil(self.seconds)), "-c", "0", "-m", "none",
                "-G", options.get("max_len", "4096"), "-t", str(1000 * int(options.get("timeout", 10))), *seed,
                *(word for path in dictionary(self.target) for word in ("-x", str(path))), "--",
                str(self.build / "fuzz" / self.target)]

    def read(self, stream, log):
        for line in stream:
            log.write(line)
            self.report.append(line)

    def look(self):
        """Debian's afl-fuzz writes its statistics once a minute; between them the names of queue entries tell."""
        stats = self.out / "default" / "fuzzer_stats"
        said = dict(re.findall(r"^(\w+)\s*:\s*(.*)$", stats.read_text(errors="replace"), re.M)) if stats.exists() else {}
        if "edges_found" in said:  # else just being written
            self.loaded = True
            self.executions = max(self.executions, int(said["execs_done"]))
            self.coverage = int(said["edges_found"])
            self.stability = float(said["stability"].rstrip("%"))
        entries = sorted((self.out / "default" / "queue").glob("id:*"))
        self.corpus = len(entries)
        if entries and (found := re.search(r",execs:(\d+)", entries[-1].name)):
            self.executions = max(self.executions, int(found[1]))

    def end_left_over(self):
        """afl-fuzz may leave a stopped child of its fork server behind, in a session of its own: known by our environment."""
        mark = f"GUESTMEM_FUZZ_RUN={self.scratch}".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)
            except OSError:  # gone, or another user's
                continue

    def collect(self):
        """Queue entries become finds; failing inputs become artifacts, and the first one's report is made by running it."""
        self.end_left_over()
        queue = self.out / "default" / "queue"
        for path in queue.iterdir() if queue.is_dir() else ():
            if path.is_file() and ",orig:" not in path.name:
                content = path.read_bytes()
                (self.finds / hashlib.sha1(content).hexdigest()).write_bytes(content)
        for folder, kind in (("crashes", "crash"), ("hangs", "timeout")):
            for path in sorted((self.out / "default" / folder).glob("id:*")):
                content = path.read_bytes()
                artifact = self.artifact_folder / f"{kind}-{hashlib.sha1(content).hexdigest()}"
                artifact.write_bytes(content)
                self.artifacts.append(artifact)
        if self.artifacts:
            done = subprocess.run([str(self.build / "fuzz" / self.target), str(self.artifacts[0])], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=super().environment(), check=False)
            self.report = done.stdout.splitlines()
            if self.artifacts[0].name.startswith("crash") and done.returncode == 0:
                self.report.append(b"(run by itself it passes: it takes the inputs before it)")
        shutil.rmtree(self.inputs, ignore_errors=True)


ENGINES = {"libfuzzer": LibFuzzer, "afl": Afl}
