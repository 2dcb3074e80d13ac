"""Commands, processes and what the kernel counts of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness import procfs
from harness.command import ROOT, BenchError, append, last_json, read, show
from harness.process import Process


class Commands(unittest.TestCase):
    def test_shown_commands_can_be_pasted(self) -> None:
        self.assertEqual(show(["landmarl", "--set", "run.dir=a b", Path("x"), ""]), "landmarl --set 'run.dir=a b' x ''")

    def test_a_failure_names_the_command_and_its_errors(self) -> None:
        with self.assertRaisesRegex(BenchError, "(?s)exit 3.*exit status 3.*broken"):
            read(["sh", "-c", "echo broken >&2; exit 3"])
        with self.assertRaisesRegex(BenchError, "cannot start.*/no/such/program"):
            read(["/no/such/program"])

    def test_results_are_found_among_messages(self) -> None:
        text, found = last_json('{"old": 1}\n[W] a warning\n  {"a": 2}\nbye\n')
        self.assertEqual((text, found), ('{"a": 2}', {"a": 2}))
        for printed, expected in [("", "no line of JSON"), ("nothing\n", "no line of JSON"), ("{broken", "{broken")]:
            with self.assertRaisesRegex(BenchError, expected):
                last_json(printed)

    def test_a_file_that_cannot_be_written_is_named(self) -> None:
        with self.assertRaisesRegex(BenchError, "/proc/none/x.jsonl cannot be written"):
            append(Path("/proc/none/x.jsonl"), "{}\n")

    def test_a_failing_script_ends_with_one_line(self) -> None:
        code = ("from harness.command import BenchError, entry\n"
                "def main(): raise BenchError('no scans')\n"
                "entry(main)\n")
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "bench", capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (1, "error: no scans\n"))


class Processes(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = Path(folder.name) / "log"

    def start(self, script: str) -> Process:
        process = Process("shard 0", ["sh", "-c", script], self.log)
        self.addCleanup(process.kill)
        return process

    def test_the_log_names_the_address(self) -> None:
        entry = '{"message":"replay shard listens","address":"127.0.0.1:41313"}'
        process = self.start(f"echo starting; echo '[1]'; echo '{entry}'; exec sleep 60")
        self.assertEqual(process.address(), "127.0.0.1:41313")
        self.assertIsNone(process.status())
        process.terminate(10)
        self.assertEqual(process.status(), "signal 15")

    def test_a_shard_that_does_not_serve_is_quoted(self) -> None:
        process = self.start("echo 'error: unexpected argument --journal' >&2; exit 2")
        with self.assertRaisesRegex(BenchError, "(?s)exit status 2.*unexpected argument --journal"):
            process.address()
        with self.assertRaisesRegex(BenchError, "no address within 0 s"):
            self.start("exec sleep 60").address(patience=0.05)

    def test_a_process_that_ignores_sigterm_is_named(self) -> None:
        process = self.start("trap '' TERM; echo '{\"address\":\"x\"}'; while :; do sleep 0.1; done")
        process.address()
        with self.assertRaisesRegex(BenchError, "shard 0 does not end within 0 s"):
            process.terminate(0.1)


class Counters(unittest.TestCase):
    def test_memory(self) -> None:
        text = "VmHWM:\t 9 kB\nVmRSS:\t  124652 kB\n"
        self.assertEqual(procfs.kib_field(text, "VmRSS", "x"), 127_643_648)
        with self.assertRaisesRegex(BenchError, "/proc/7/status has no VmRSS"):
            procfs.kib_field("Name:\tx\n", "VmRSS", "/proc/7/status")
        peak = procfs.MemoryPeak(1)
        peak.sample([os.getpid()])
        self.assertGreater(peak.proportional, 0)
        self.assertGreaterEqual(peak.resident, peak.proportional)
        self.assertGreater(procfs.resident_bytes([os.getpid()]), 1_000_000)

    def test_processor_time(self) -> None:
        ticks = procfs.TICKS_PER_SECOND
        stat = "intr 5\ncpu  100 10 50 9999 77 1 2 3 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
        self.assertEqual(procfs.machine_seconds(stat), 166 / ticks)
        process = "42 (a ) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 5 6 7"
        self.assertEqual(procfs.process_seconds(process), 300 / ticks)
        with self.assertRaises(BenchError):
            procfs.process_seconds("42 (x) S 1")
        first, later = procfs.ProcessorTime(10.0, 100.0, 5.0), procfs.ProcessorTime(12.0, 103.0, 6.0)
        used = first.until(later, 1.5)
        self.assertEqual((used.shards, used.clients, used.others), (0.5, 0.75, 0.25))

    def test_disk(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(procfs.allocated_bytes(Path(folder)), 0)
            deep = Path(folder) / "a"
            deep.mkdir()
            (deep / "b").write_bytes(b"\1" * 10_000)
            self.assertGreaterEqual(procfs.allocated_bytes(Path(folder)), 10_000)
