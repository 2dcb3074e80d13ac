"""The bench of the replay service, with programs that stand in for shards and clients."""

from __future__ import annotations

import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import replay
from harness.command import BenchError
from harness.procfs import Cores
from harness.replay import peers, tables
from harness.replay.cases import OPERATIONS, Case, Group, selected
from harness.replay.clients import together
from harness.replay.measures import Measure, joined
from harness.replay.results import PeerRecord, Record, Results, Shape

from .stubs import printed_by, program

RESULT = '{"parts":{"insert":{"rows_per_s":5.0,"max_ms":1.0,"histogram_us":[[10,2]]}},"processor_s":0.5}'


def record(operation: str, rows_per_s: float) -> Record:
    case = Case(Group(1, 4, "memory", 1000, 256, 5), operation)
    parts = {operation: Measure(rows_per_s, 1.0, 2.0, 3.0, 4.0)}
    return Record(case, parts, 10, 110_010, 120_000, None, 9, Cores(2.0, 1.0, 0.5, 0.25))


def peer_record(op: str, api: str, clients: int, rows_per_s: float) -> PeerRecord:
    return PeerRecord("reverb", "0.14.0", op, api, clients, 256, 1000, rows_per_s, 1.0, None, None, None)


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class Plans(Folder):
    def test_combinations_and_their_names(self) -> None:
        words = ["--server=a", "--load=b", "--results=c", "--scratch=d", "--shards=1", "--shards=2", "--clients=4",
                 "--acks=memory", "--acks=durable", "--operations=sample", "--rows=9", "--batch=3", "--seconds=1"]
        found = [str(group) for group in replay.groups(replay.parse_options(words))]
        self.assertEqual(len(found), 4)
        self.assertEqual(found[3], "2 shards, 4 clients, durable acknowledgements")

    def test_half_of_the_peak_brings_the_peak_along(self) -> None:
        self.assertEqual(selected(["mixed-half", "insert"]), ["insert", "mixed", "mixed-half"])
        self.assertEqual(selected(list(OPERATIONS)), list(OPERATIONS))


class Clients(Folder):
    def test_nobody_begins_before_all_are_ready(self) -> None:
        flag = self.folder / "slow-is-ready"
        slow = ["sh", "-c", f"sleep 0.2; touch {flag}; echo ready >&2; read x; echo '{RESULT}'"]
        quick = ["sh", "-c", f"echo ready >&2; read x; test -e {flag} && echo '{RESULT}'"]
        self.assertEqual(together([quick, slow]), [json.loads(RESULT)] * 2)

    def test_a_client_that_fails_is_quoted(self) -> None:
        with self.assertRaisesRegex(BenchError, "no shard\nat all"):
            together([["sh", "-c", "echo no shard >&2; echo at all >&2; exit 1"]])
        with self.assertRaisesRegex(BenchError, "exit status 1.*lost it"):
            together([["sh", "-c", "echo ready >&2; read x; echo lost it >&2; exit 1"]])

    def test_clients_join_as_if_they_were_one(self) -> None:
        fast = {"rows_per_s": 10.0, "max_ms": 1.0, "histogram_us": [[100, 980], [200, 10]]}
        slow = {"rows_per_s": 5.0, "max_ms": 9.5, "histogram_us": [[200, 5], [9000, 5]]}
        self.assertEqual(joined([fast, slow]), Measure(15.0, 0.1, 0.2, 9.0, 9.5))
        self.assertEqual(joined([]), Measure(0.0, 0.0, 0.0, 0.0, 0.0))


class ResultsFile(Folder):
    def test_a_second_run_finds_what_the_first_left(self) -> None:
        path = self.folder / "deep/results.jsonl"
        one, two = record("insert", 5.0), record("sample", 6.0)
        Results(path, False).add(one)
        again = Results(path, False)
        self.assertEqual((again.find(one.case), again.find(two.case)), (one, None))
        again.add(two)
        asked = Shape(1000, 256, 1, 5)
        again.add_peer(replace(peer_record("insert", "writer", 1, 5.0), asked=asked))
        last = Results(path, False)
        self.assertEqual(last.records, [one, two])
        self.assertTrue(last.has_peer("reverb", asked))
        self.assertFalse(last.has_peer("reverb", replace(asked, clients=2)))
        self.assertEqual(Results(path, True).records, [])
        self.assertEqual(path.read_text(), "")

    def test_results_of_earlier_versions_are_read(self) -> None:
        path = self.folder / "results.jsonl"
        path.write_text(
            '{"kind":"replay","shards":1,"clients":4,"ack":"durable","rows":1000,"batch":256,"seconds":5,'
            '"operation":"mixed-half","parts":{"sample":{"rows_per_s":5.5,"p50_ms":1.0,"p99_ms":2.0,"p999_ms":3.0,'
            '"max_ms":4.0}},"resident_bytes_empty":10,"resident_bytes":110010,"disk_bytes":7,'
            '"resident_bytes_after":120000,"disk_bytes_after":9,'
            '"usage":{"all":2.0,"shards":1.0,"clients":0.5,"others":0.25}}\n'
            '{"kind":"peer","peer":"cpprb","version":"11.0.0","op":"insert","api":"add","clients":1,"batch":256,'
            '"rows_held":1000,"rows_per_s":5.0,"p50_ms":1.0,"p99_ms":null,"p999_ms":null,"asked":null}\n')
        results = Results(path, False)
        case = Case(Group(1, 4, "durable", 1000, 256, 5), "mixed-half")
        found = results.find(case)
        assert found is not None
        self.assertEqual((found.parts["sample"].rows_per_s, found.disk_bytes, found.usage.others), (5.5, 7, 0.25))
        self.assertEqual((results.peers[0].peer, results.peers[0].asked), ("cpprb", None))

    def test_a_foreign_file_is_refused_by_line(self) -> None:
        path = self.folder / "results.jsonl"
        for line in ['{"a": 1}', "no json", "[]", '{"kind":"replay"}', '{"kind":"other"}']:
            path.write_text(line + "\n")
            with self.assertRaisesRegex(BenchError, "results.jsonl, line 1 .*--fresh"):
                Results(path, False)


class Tables(Folder):
    def test_ratios_are_to_the_fastest_way_of_the_same_shape(self) -> None:
        results = Results(self.folder / "r.jsonl", True)
        results.add(record("insert", 1_234_567.4))
        for api, clients, rate in [("slow", 4, 10.0), ("fast", 4, 20.0), ("other", 1, 500.0)]:
            results.add_peer(peer_record("insert", api, clients, rate))
        self.assertEqual(tables.ratios(results)[1:], [
            "insert, 4 clients: 61728.4 times reverb (1,234,567 to 20 rows/s with fast)"])

    def test_disturbed_figures_say_so(self) -> None:
        mixed = record("mixed", 600.0)
        self.assertTrue(tables.brief(mixed).endswith("others used 0.2 of 2 cores)"))
        quiet = replace(mixed, usage=Cores(2.0, 1.0, 0.5, 0.1))
        self.assertEqual(tables.brief(quiet), "mixed 600 rows/s, p99 2.00 ms")

    def test_memory_per_row_leaves_out_the_empty_process(self) -> None:
        found = record("insert", 600.0)
        lines = tables.room([found, found])
        self.assertEqual([line.split() for line in lines[2:]], [["1", "memory", "1000", "0.1", "110.0", "none"]])

    def test_columns_stand_below_their_headings(self) -> None:
        _, heading, line, _ = tables.rates([record("insert", 6_190_000.0)])
        self.assertEqual(heading, "shards clients acks    operation             rows/s   p50 ms   p99 ms p99.9 ms   "
                         "max ms   cores s/c/o")
        self.assertEqual(line, "     1       4 memory  insert             6,190,000     1.00     2.00     3.00     "
                         "4.00  1.0/0.5/0.2")


class Peers(unittest.TestCase):
    def test_results_are_separated_from_messages(self) -> None:
        line = ('{"peer":"reverb","version":"0.14.0","op":"insert","api":"writer","clients":4,"batch":256,'
                '"rows_held":1000,"rows_per_s":5.0,"p50_ms":1.0,"p99_ms":null,"p999_ms":null,"extra":1}')
        asked = Shape(1000, 256, 4, 5)
        found = peers.parse(f"[reverb] Starting server\n{line}\n", asked)
        self.assertEqual(found, [replace(peer_record("insert", "writer", 4, 5.0), asked=asked)])
        with self.assertRaisesRegex(BenchError, 'replay_peers.py printed {"peer": 1}'):
            peers.parse('{"peer": 1}\n', asked)


SERVER = """
    import json, pathlib, sys, time
    options = dict(word[2:].split("=", 1) for word in sys.argv[2:])
    if "journal" in options:
        pathlib.Path(options["journal"]).mkdir(parents=True)
        pathlib.Path(options["journal"], "segment").write_bytes(b"1" * 8192)
    print(json.dumps({"level": "info", "address": "127.0.0.1:1" + options["shard"]}), file=sys.stderr, flush=True)
    print(json.dumps({"level": "warn", "message": "capacity " + options["capacity"]}), file=sys.stderr, flush=True)
    time.sleep(60)
"""
LOAD = """
    import json, pathlib, sys
    options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
    with open(pathlib.Path(__file__).parent / "loads", "a") as file:
        file.write(json.dumps(options) + "\\n")
    print("ready", file=sys.stderr, flush=True)
    sys.stdin.readline()
    if options["operation"] == "update":
        sys.exit("no keys")
    operation = options["operation"]
    names = {"fill": ["insert"], "mixed": ["sample", "update", "insert"]}.get(operation, [operation])
    part = {"rows_per_s": 1000.0, "max_ms": 3.0, "histogram_us": [[1500, 4]]}
    print(json.dumps({"parts": {name: part for name in names}, "processor_s": 0.1}))
"""


class WholeBench(Folder):
    def arguments(self, *operations: str) -> list[str]:
        server, load = program(self.folder, "server", SERVER), program(self.folder, "load", LOAD)
        return [f"--server={server}", f"--load={load}", f"--results={self.folder / 'r.jsonl'}",
                f"--scratch={self.folder / 'scratch'}", "--shards=2", "--clients=2", "--acks=durable", "--rows=9",
                "--batch=3", "--seconds=1", *(f"--operations={operation}" for operation in operations)]

    def loads(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "loads").read_text().splitlines()]

    def test_figures_are_measured_once_and_printed(self) -> None:
        first = printed_by(replay.main, self.arguments("mixed-half"))
        self.assertIn("2 figures to measure, 0 are in the file", first)
        self.assertIn("[1/2] 2 shards, 2 clients, durable acknowledgements: mixed\n", first)
        rows = [line.split()[:9] for line in first.splitlines() if "durable mixed-half" in line]
        expected = [["mixed-half", operation, "2,000"] for operation in ("insert", "sample", "update")]
        self.assertEqual([row[3:6] for row in rows], expected)
        self.assertEqual(rows[0][6:9], ["1.50", "1.50", "1.50"])
        loads = self.loads()
        self.assertEqual([load["operation"] for load in loads], ["fill", "mixed", "mixed", "mixed", "mixed"])
        self.assertEqual(loads[0]["shards"], "127.0.0.1:10,127.0.0.1:11")
        # Half of the joint peak, shared by two clients.
        self.assertEqual([load.get("rate") for load in loads[3:]], ["500.0", "500.0"])
        again = printed_by(replay.main, self.arguments("mixed-half"))
        self.assertIn("0 figures to measure, 2 are in the file", again)
        self.assertEqual(len(self.loads()), 5)
        self.assertEqual(list((self.folder / "scratch").iterdir()), [])

    def test_a_failure_does_not_stop_the_rest_and_quotes_the_shards(self) -> None:
        arguments = self.arguments("update") + ["--acks=memory"]
        with self.assertRaises(BenchError) as failure:
            printed_by(replay.main, arguments)
        text = str(failure.exception)
        self.assertEqual(text.count("no keys"), 2)
        for words in ("not everything was measured", "durable acknowledgements: ", "memory acknowledgements: ",
                      "warnings and errors of the shards", "capacity 5"):
            self.assertIn(words, text)
