"""How soon actors act with published weights: what `cargo xtask bench system` builds and starts.

Shards, a learner and actors run as processes of this machine, with configs/mouse-small.toml where
its scans are, else with phantoms. Memory is that of all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from harness.command import ROOT, BenchError, append, entry, run
from harness.procfs import MemoryPeak
from harness.services import Services, Setup
from harness.weights_latency import Summary

# Between two readings of memory.
LOOK_EVERY_SECONDS = 0.5
# Scans are read and the first rows gathered before the first update.
FIRST_UPDATE_SECONDS = 300


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bins", type=Path, required=True, help="folder with the programs")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for logs and journals")
    for name in ("actors", "shards", "seconds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    return parser.parse_args(arguments)


def setup(options: argparse.Namespace, scratch: Path) -> Setup:
    """The configuration, with phantoms for it where its own scans are not there."""
    settings, config = list(options.set), options.config
    if config is None:
        config = ROOT / "configs/mouse-small.toml"
        if not (ROOT / "../shared/data/mouse/train/images.txt").is_file():
            config = ROOT / "configs/phantom.toml"
            data = scratch / "data"
            run([options.bins / "landmarl", "phantom", "--seed", "1", "--train", "12", "--validation", "0",
                 "--test", "0", "--out", data])
            settings += [f"data.train_{kind}={data}/train/{kind}.txt" for kind in ("images", "landmarks")]
    return Setup(options.bins, scratch, config, settings, options.shards, options.actors)


@dataclass(frozen=True)
class Measured:
    seconds: float
    updates: int
    memory: MemoryPeak


def measure(services: Services, seconds: float) -> Measured:
    memory = MemoryPeak(len(services.processes))
    started = time.monotonic()
    # When measuring began, and the updates done by then.
    begun: Optional[tuple[float, int]] = None
    while True:
        time.sleep(LOOK_EVERY_SECONDS)
        services.check()
        try:
            memory.sample(services.pids())
        except BenchError:
            # The memory of a process that ends goes before its exit status is there.
            time.sleep(LOOK_EVERY_SECONDS)
            services.check()
            raise
        updates = services.updates()
        now = time.monotonic()
        if begun is None:
            if updates > 0:
                print(f"training after {now - started:.0f} s")
                services.begin()
                begun = (time.monotonic(), updates)
            elif now - started > FIRST_UPDATE_SECONDS:
                raise BenchError(f"no update within {FIRST_UPDATE_SECONDS} s")
        elif now - begun[0] >= seconds:
            return Measured(now - begun[0], updates - begun[1], memory)


def report(measured: Measured, stages: dict[str, Summary], cores: int) -> list[str]:
    names = {"received": "received", "begun": "the step before is done", "taken": "the network is read",
             "acted": "the end of the first step with them"}
    rate = measured.updates / measured.seconds
    memory = measured.memory
    return [
        f"{measured.updates} updates in {measured.seconds:.0f} s: {rate:.1f} updates/s on {cores} cores",
        *(f"weights published → {names[stage]}: median {s.median:.0f} ms, 90 % {s.p90:.0f} ms, "
          f"longest {s.max:.0f} ms ({s.count} of {s.possible} versions and actors; "
          "a version that a slow actor skips has none)"
          for stage, s in stages.items()),
        f"memory of all {memory.processes} processes at its peak: {memory.resident / 1e9:.2f} GB resident (each "
        f"process by itself), {memory.proportional / 1e9:.2f} GB with shared pages counted once",
    ]


def main(arguments: Optional[list[str]] = None) -> None:
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="system-", dir=options.scratch) as scratch:
        what = setup(options, Path(scratch))
        print(f"{what.shards} shards, a learner, {what.actors} actors, {what.config}")
        with Services(what) as services:
            with services.explained():
                measured = measure(services, options.seconds)
                services.end()
            services.stop()
            stages = services.latencies().stages()
    cores = len(os.sched_getaffinity(0))
    record = {
        "config": str(what.config), "actors": what.actors, "shards": what.shards, "seconds": measured.seconds,
        "updates": measured.updates, "updates_per_s": measured.updates / measured.seconds, "cores": cores,
        # Milliseconds from the publication on.
        "weights": {stage: asdict(summary) for stage, summary in stages.items()}, "memory": asdict(measured.memory)}
    append(options.results, json.dumps(record) + "\n")
    print("\n".join(report(measured, stages, cores)))
    print(f"kept in {options.results}")


if __name__ == "__main__":
    entry(main)
