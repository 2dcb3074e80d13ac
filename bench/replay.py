"""The replay service under load: what `cargo xtask bench replay` builds and starts.

Real shards and real clients, each a process of its own, over loopback, against peers on the same
shapes. Every figure is appended to a file as soon as it is there, and what the file holds is not
measured again: a long bench can be stopped and go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from harness.command import BenchError, entry
from harness.procfs import ProcessorTime
from harness.replay import peers, tables
from harness.replay.cases import ACKS, OPERATIONS, Case, Group, selected
from harness.replay.clients import Load
from harness.replay.results import Record, Results, Shape
from harness.replay.shards import Shards


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--server", type=Path, required=True, help="the program replay-server")
    parser.add_argument("--load", type=Path, required=True, help="the example load of replay-server")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for journals")
    parser.add_argument("--peers-python", type=Path, help="a Python with the peers, which are left out otherwise")
    parser.add_argument("--shards", type=int, action="append", required=True)
    parser.add_argument("--clients", type=int, action="append", required=True)
    parser.add_argument("--acks", choices=ACKS, action="append", required=True)
    parser.add_argument("--operations", choices=OPERATIONS, action="append", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    return parser.parse_args(arguments)


def groups(options: argparse.Namespace) -> list[Group]:
    return [Group(shards, clients, ack, options.rows, options.batch, options.seconds)
            for ack in options.acks for shards in options.shards for clients in options.clients]


@dataclass
class Progress:
    """What runs, what remains, and about how long that takes."""

    figures: int
    started: float
    done: int = 0

    def begin(self, case: Case) -> None:
        left = ""
        if self.done > 0:
            seconds = int((time.monotonic() - self.started) / self.done * (self.figures - self.done))
            left = f", about {seconds // 60}:{seconds % 60:02} min left"
        print(f"[{self.done + 1}/{self.figures}{left}] {case}")


class Bench:
    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        self.options, self.results = options, results
        self.progress = Progress(0, time.monotonic())

    def ours(self) -> list[str]:
        """Measures what the file does not hold yet; returns the failures."""
        wanted = selected(self.options.operations)
        every = groups(self.options)
        missing = [(group, [o for o in wanted if self.results.find(Case(group, o)) is None]) for group in every]
        figures = sum(len(operations) for _, operations in missing)
        print(f"{figures} figures to measure, {len(every) * len(wanted) - figures} are in the file")
        self.progress = Progress(figures, time.monotonic())
        failures = []
        for group, operations in missing:
            before = self.progress.done
            try:
                if operations:
                    self.group(group, operations)
            except (BenchError, OSError) as error:
                print(f"  {group}: {error}")
                failures.append(f"{group}: {error}")
            self.progress.done = before + len(operations)
        return failures

    def group(self, group: Group, operations: list[str]) -> None:
        """Starts and fills shards, then does one operation after another."""
        options = self.options
        durable = group.ack == "durable"
        with Shards(options.server, group.shards, group.rows, options.scratch, durable) as shards, shards.explained():
            empty = shards.resident_bytes()
            load = Load(options.load, group, shards.addresses)
            load.fill()
            resident, disk = shards.resident_bytes(), shards.disk_bytes()
            for operation in operations:
                case = Case(group, operation)
                self.progress.begin(case)
                rate = self.half_of_peak(group) if operation == "mixed-half" else None
                before = ProcessorTime.now(shards.pids())
                run = load.run(operation, rate)
                usage = before.until(ProcessorTime.now(shards.pids()), run.processor_s)
                record = Record(case, run.parts, empty, resident, shards.resident_bytes(), disk,
                                shards.disk_bytes(), usage)
                print(f"  {tables.brief(record)}")
                self.results.add(record)
                self.progress.done += 1

    def half_of_peak(self, group: Group) -> float:
        """Rows per second of each operation, half of what `mixed` reached."""
        peak: Optional[Record] = self.results.find(Case(group, "mixed"))
        if peak is None or "sample" not in peak.parts:
            raise BenchError("mixed-half needs the rate of mixed, which was not measured")
        return peak.parts["sample"].rows_per_s / 2


def main(arguments: Optional[list[str]] = None) -> None:
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    options.scratch.mkdir(parents=True, exist_ok=True)
    results = Results(options.results, options.fresh)
    print(f"results: {options.results}")
    failures = Bench(options, results).ours()
    if options.peers_python is not None:
        shape = Shape(options.rows, options.batch, 1, options.seconds)
        try:
            peers.measure(options.peers_python, shape, options.clients, results)
        except (BenchError, OSError) as error:
            failures.append(f"peers: {error}")
    for line in tables.tables(results):
        print(line)
    if failures:
        raise BenchError("not everything was measured:\n" + "\n".join(failures))


if __name__ == "__main__":
    entry(main)
