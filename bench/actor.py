"""Environment steps, and acted windows beside a PyTorch loop: what `cargo xtask bench actor` builds and starts.

`acting`, an example of the actor, and one environment of learner_loop.py take turns. Run it with
a Python that learner_loop.py needs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, Optional

from harness.command import ROOT, Words, append, entry, last_json, number, read, show


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=Path, required=True, help="the example acting of the actor")
    parser.add_argument("--results", type=Path, required=True)
    for name in ("slots", "steps", "turns", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--precision", choices=("f32", "bf16"), required=True)
    return parser.parse_args(arguments)


def measure(command: Words, results: Path) -> dict[str, Any]:
    """Runs one side and keeps what it printed."""
    print(f"$ {show(command)}")
    text, found = last_json(read(command))
    append(results, text + "\n")
    return found


def report(precision: str, environment: dict[str, Any], ours: list[dict[str, Any]],
           theirs: list[dict[str, Any]]) -> list[str]:
    # Of an even number of turns, the slower one in the middle.
    a, b = (statistics.median_high(number(run, "ms_per_window") for run in side) for side in (ours, theirs))
    rendering = statistics.mean(number(run, "render_share") for run in ours)
    strides = ", ".join(f"{rate:.0f}" for rate in environment["steps_per_s_by_stride"])
    return [
        "environment, 2 agents, windows of 45³, one thread: "
        f"{number(environment, 'steps_per_s'):.0f} steps/s (strides 1, 2, 3: {strides})",
        f"landmarl {precision}: {a:.1f} ms per acted window, {100 * rendering:.1f} % of it rendering",
        f"PyTorch f32, one environment: {b:.1f} ms per acted window",
        f"ratio {a / b:.2f}",
    ]


def main(arguments: Optional[list[str]] = None) -> None:
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # One thread; enough steps for a second or so.
    environment = measure([options.program, "environment", "--steps", "2000", "--warmup", "100"], options.results)
    ours, theirs = [], []
    for _ in range(options.turns):
        ours.append(measure([options.program, "network", "--precision", options.precision,
                             "--slots", str(options.slots), "--steps", str(options.steps),
                             "--threads", str(options.threads)], options.results))
        theirs.append(measure([sys.executable, ROOT / "bench/learner_loop.py", "--act",
                               "--threads", str(options.threads)], options.results))
    print("\n".join(report(options.precision, environment, ours, theirs)))


if __name__ == "__main__":
    entry(main)
