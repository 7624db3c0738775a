#!/usr/bin/env python3
"""The scripts round the fuzz targets, as far as that can be seen without fuzzing. ctest calls it."""

import io
import json
import subprocess
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fuzz
import fuzz_common
import fuzz_report
from fuzz_engines import Afl, LibFuzzer

LOG = b"""INFO: Running with entropic power schedule (0xFF, 100).
INFO: seed corpus: files: 3 min: 80b max: 400b total: 700b rss: 40Mb
#4\tINITED cov: 83 ft: 95 corp: 3/700b exec/s: 0 rss: 41Mb
#1024\tpulse  cov: 90 ft: 120 corp: 7/1Kb lim: 400 exec/s: 512 rss: 42Mb
divergence at step 2
==1== ERROR: libFuzzer: deadly signal
artifact_prefix='x/'; Test unit written to /x/slow-unit-1
artifact_prefix='x/'; Test unit written to /x/crash-2
stat::number_of_executed_units: 2000
stat::peak_rss_mb:              43
"""


class Page(HTMLParser):
    """Tags that are opened and closed in order, and the text."""

    ALONE = {"meta", "line", "polyline", "circle", "i", "br"}

    def __init__(self, content):
        super().__init__()
        self.open, self.links, self.words, self.tags = [], [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.words.append(data)


def record(elapsed, executions, coverage, **more):
    return {"session": "2026-01-02 03:04:05", "turn": 1, "engine": "libfuzzer", "sanitizer": "address", "elapsed": elapsed,
            "executions": executions, "coverage": coverage, "features": coverage * 2, "corpus": 7, **more}


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = Path(folder.name)

    def history(self, target, *records):
        (self.work / "history").mkdir(exist_ok=True)
        path = self.work / "history" / f"{target}.jsonl"
        path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in records))

    def page(self, results=None, coverage=None):
        page = Page(fuzz_report.page(self.work, results, coverage))
        self.assertEqual(page.open, [])
        self.assertTrue(all(link.startswith("#") for link in page.links), page.links)
        self.assertNotIn("script", page.tags)
        return page, " ".join(page.words)

    def test_options_are_laid_over_what_is_there(self):
        path = self.work / "x.options"
        path.write_text("[libfuzzer]\nmax_len = 9\n[asan]\nhandle_segv = 1\n[env]\nWORD=here\n")
        before = {"ASAN_OPTIONS": "handle_segv=2:log_path='a:b':leaks=0", "UBSAN_OPTIONS": "handle_segv=2"}
        after = fuzz_common.laid_over(path, before)
        self.assertEqual(after, {"ASAN_OPTIONS": "handle_segv=1:log_path='a:b':leaks=0", "UBSAN_OPTIONS": "handle_segv=2", "WORD": "here"})
        self.assertEqual(fuzz_common.laid_over(self.work / "none.options", before), before)
        self.assertEqual(fuzz_common.options_file(path)["libfuzzer"], {"max_len": "9"})

    def test_time_is_laid_out_over_the_cores(self):
        for targets, seconds, cores in ((11, 60, 2), (1, 10, 4), (3, 7, 2), (5, 3, 2), (2, 5, 5)):
            with self.subTest(targets=targets, seconds=seconds, cores=cores):
                plan = fuzz.lay_out(range(targets), seconds, cores)
                self.assertEqual([sum(part for _, part in core) for core in plan], [seconds] * cores)
                shares = [sum(part for core in plan for target, part in core if target == wanted) for wanted in range(targets)]
                self.assertLessEqual(max(shares) - min(shares), 1)

    def test_a_log_of_libfuzzer_is_understood(self):
        turn = LibFuzzer("x_fuzzer", self.work, self.work, 5, 1)
        turn.read(io.BytesIO(LOG), io.BytesIO())
        self.assertEqual((turn.executions, turn.coverage, turn.features, turn.corpus, turn.loaded), (2000, 90, 120, 7, True))
        self.assertEqual(turn.artifacts, [Path("/x/crash-2")])  # slow is not wrong
        turn.artifact_folder.mkdir(exist_ok=True)
        turn.judge(77)
        self.assertEqual(turn.failure, "FAILED: crash")
        self.assertEqual(turn.report[0], b"divergence at step 2\n")

    def test_how_a_turn_ended(self):
        def judged(status, stopped=False, **said):
            turn = LibFuzzer("x_fuzzer", self.work, self.work, 5, 1)
            turn.stopped = stopped
            vars(turn).update(said)
            turn.judge(status)
            return turn.failure
        self.assertEqual(judged(0), "")
        self.assertEqual(judged(72, stopped=True), "")
        self.assertEqual(judged(-2, stopped=True), "")
        self.assertEqual(judged(72), "FAILED: exit status 72")
        self.assertEqual(judged(0, hung=True), "FAILED: hung")
        self.assertEqual(judged(0, stability=99.0), "")
        self.assertIn("stability", judged(0, stability=98.9))

    def test_statistics_of_afl_are_understood(self):
        turn = Afl("x_fuzzer", self.work, self.work, 5, 1)
        queue = turn.out / "default" / "queue"
        queue.mkdir(parents=True)
        (queue / "id:000000,time:0,execs:0,orig:a").write_bytes(b"seed")
        (queue / "id:000001,src:000000,time:9,execs:500,op:havoc").write_bytes(b"found")
        turn.look()
        self.assertEqual((turn.executions, turn.corpus, turn.loaded), (500, 2, False))
        (turn.out / "default" / "fuzzer_stats").write_text("execs_done        : 700\nstability         : 99.50%\nedges_found       : 44\n")
        turn.look()
        self.assertEqual((turn.executions, turn.coverage, turn.stability, turn.loaded), (700, 44, 99.5, True))
        left_over = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=turn.environment(),
                                     start_new_session=True)
        left_over.stdin.write(b"\n")
        left_over.stdin.flush()
        left_over.stdout.read(1)  # it runs: only then does /proc tell its environment
        turn.collect()
        self.assertEqual(left_over.wait(10), -9)
        left_over.stdin.close()
        left_over.stdout.close()
        self.assertEqual([path.read_bytes() for path in turn.finds.iterdir()], [b"found"])

    def test_report_of_nothing(self):
        page, words = self.page()
        self.assertIn("Nothing has been fuzzed yet", words)
        self.assertNotIn("svg", page.tags)

    def test_report_of_a_campaign(self):
        crash = self.work / "crash-1"
        Path(f"{crash}.trace").write_text("guestmem trace 1\nread <page1> & so on\n")
        self.history("a_fuzzer", record(0.0, 0, 80), record(2.0, 4000, 90), record(4.0, 9000, 95, end="ok", artifacts=[], report=""),
                     record(3.0, 3000, 85, turn=2, end="ok"), '{"session": "cut sho')
        self.history("b_fuzzer", record(1.0, 10, 5, engine="afl", end="FAILED: crash", artifacts=[str(crash)], report="unused"),
                     record(1.0, 10, 5, turn=2, end="FAILED: hung", artifacts=[], report="what it <said>"))
        results = {"(unchanged)": {"hunts": {}}, "bug_one": {"hunts": {"fuzz": {"killed": True, "seconds": 1.5, "executions": 9, "how": "status"}}},
                   "bug_two": {"hunts": {"fuzz": {"killed": False, "seconds": 60, "executions": 9, "how": ""}}}}
        summary = {"count": 4, "covered": 3, "percent": 75.0}
        none = {"count": 0, "covered": 0, "percent": 0}
        file = {"lines": summary, "branches": summary, "mcdc": none}
        coverage = {"data": [{"files": [{"filename": str(fuzz_common.ROOT / "lib/src/x.cc"), "summary": file}], "totals": file}]}
        page, words = self.page(results, coverage)
        self.assertEqual(page.tags.count("svg"), 2 * len(fuzz_report.PLOTS))
        for expected in ("12.0 k", "read <page1> & so on", "what it <said>", "1 of 2 noticed", "bug_two", "survived", "lib/src/x.cc", "75.0 %"):
            self.assertIn(expected, words)
        line = fuzz_report.lines_of(fuzz_report.read_history(self.work)["a_fuzzer"])["libfuzzer, address"]
        self.assertEqual((line.executions, line.coverage, line.seconds, line.failed), (12000, 95, 7.0, False))
        self.assertEqual([point["coverage"] for _, point in line.points], [80, 90, 95, 95])  # what was reached stays reached

    def test_bad_arguments(self):
        ci = fuzz_common.ROOT / "ci"
        for command, said in ((["fuzz.sh", "--seconds"], "wants a number"), (["fuzz.sh", "--minutes=0"], "wants a number"),
                              (["fuzz.sh", "--seed=x"], "wants a number"), (["fuzz.sh", "--engine=x"], "can be libfuzzer or afl"),
                              (["fuzz.sh", "--sanitizer"], "--sanitizer can be"), (["fuzz.sh", "--engine=afl", "--sanitizer=thread"], "not supported"),
                              (["fuzz.sh", "--report"], "wants a folder"), (["fuzz.sh", "--report=/dev/null/x"], "cannot make"),
                              (["fuzz.sh", "--nonsense"], "unknown option"), (["fuzz.sh", "nonsense"], "unknown target"),
                              (["pick_corpus.sh", "--nonsense"], "unknown option"), (["pick_corpus.sh", "nonsense"], "unknown target"),
                              (["check_oss_fuzz.sh", "--sanitizer=thread"], "cannot check"), (["check_oss_fuzz.sh", "x"], "unknown argument"),
                              (["lib/msan_libcxx.sh", "x"], "unknown argument"), (["lib/fuzz_report.py", "/nonsense", "x"], "is not a folder")):
            with self.subTest(command=command):
                done = subprocess.run([str(ci / command[0]), *command[1:]], capture_output=True, text=True, cwd=self.work, check=False)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(said, done.stderr)
                self.assertEqual(list(self.work.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
