"""The bench of the whole system, with programs that stand in for the services."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

import system
from harness.command import BenchError
from harness.procfs import MemoryPeak
from harness.weights_latency import ACTED, RECEIVED, Latencies, Summary

from .stubs import printed_by, program

SERVICE = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(*sys.argv[1:], flush=True)
    time.sleep(60)
"""
LEARNER = """
    import json, pathlib, signal, sys, time
    polls = pathlib.Path(__file__).parent / "polls"
    if sys.argv[1] == "status":
        count = len(polls.read_text()) if polls.exists() else 0
        polls.write_text("x" * (count + 1))
        if count == 0:
            sys.exit("not yet")
        print(json.dumps({"updates": 5 * count, "weights_version": 1 + count}))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(60)
"""
ACTOR = """
    import json, signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for version in (3, 4, 5):
        print(json.dumps({"message": "new weights", "version": version, "received_ms": 20.0}))
        print(json.dumps({"message": "first step with new weights", "version": version, "begun_ms": 30.0,
                          "taken_ms": 40.0, "acted_ms": 50.0}), flush=True)
    time.sleep(60)
"""


class Latency(unittest.TestCase):
    def test_lines_of_the_measured_versions_are_counted(self) -> None:
        def log(*versions: int) -> str:
            lines = []
            for v in versions:
                lines.append(json.dumps({"message": RECEIVED, "version": v, "received_ms": v}))
                lines.append(json.dumps({"message": ACTED, "version": v, "begun_ms": v, "taken_ms": v,
                                         "acted_ms": 10 * v + 0.5}))
            return "\n".join([*lines, '{"message":"acting"}', "no json", "[1]"])

        latencies = Latencies()
        latencies.add(log(1, 2, 3, 4, 5), range(3, 5))
        latencies.add(log(3), range(3, 5))
        stages = latencies.stages()
        self.assertEqual(stages["acted"], Summary(30.5, 40.5, 40.5, 3, 4))
        self.assertEqual([stages[stage].p90 for stage in ("received", "begun", "taken")], [4, 4, 4])
        with self.assertRaisesRegex(BenchError, "measure for longer"):
            Latencies().stages()


class WholeBench(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name, source in [("replay-server", SERVICE), ("learner", LEARNER), ("actor", ACTOR)]:
            program(self.folder, name, source)
        self.arguments = [f"--bins={self.folder}", f"--results={self.folder / 'r.jsonl'}",
                          f"--scratch={self.folder / 'scratch'}", "--actors=2", "--shards=2", "--seconds=0",
                          "--config=c.toml", "--set=pose.share=0"]

    def test_figures_are_kept_and_printed(self) -> None:
        printed = printed_by(system.main, self.arguments)
        self.assertIn("2 shards, a learner, 2 actors, c.toml\n", printed)
        # Version 3 was there before measuring began; of 5, published last, some actors may have no figure.
        self.assertIn("first step with them: median 50 ms, 90 % 50 ms, longest 50 ms (2 of 2 versions", printed)
        self.assertIn("memory of all 5 processes at its peak: 0.", printed)
        record = json.loads((self.folder / "r.jsonl").read_text())
        self.assertGreater(record["updates"], 0)
        self.assertEqual(record["weights"]["received"]["median"], 20.0)
        self.assertEqual(list((self.folder / "scratch").iterdir()), [])

    def test_a_process_that_ends_early_is_quoted(self) -> None:
        program(self.folder, "actor", "raise SystemExit('no such setting: pose.share')")
        with self.assertRaisesRegex(BenchError, r"(?s)actor-\d ended early \(exit status 1\).*log of learner.*"
                                                "no such setting: pose.share"):
            printed_by(system.main, self.arguments)

    def test_a_missing_program_is_named(self) -> None:
        (self.folder / "actor").unlink()
        with self.assertRaisesRegex(BenchError, "cannot start.*actor"):
            printed_by(system.main, self.arguments)


class Report(unittest.TestCase):
    def test_figures_name_their_unit_and_count(self) -> None:
        summary = Summary(61.5, 90.0, 120.4, 70, 80)
        memory = MemoryPeak(11, 3_210_000_000, 1_500_000_000)
        text = "\n".join(system.report(system.Measured(60.0, 300, memory), {"acted": summary}, 2))
        for words in ("300 updates in 60 s: 5.0 updates/s on 2 cores",
                      "first step with them: median 62 ms, 90 % 90 ms, longest 120 ms (70 of 80",
                      "memory of all 11 processes at its peak: 3.21 GB resident",
                      "1.50 GB with shared pages counted once"):
            self.assertIn(words, text)
