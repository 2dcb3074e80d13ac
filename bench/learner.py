"""Training updates beside those of a PyTorch loop: what `cargo xtask bench learner` builds and starts.

`updates`, an example of the learner, and learner_loop.py take turns. Run it with a Python that
learner_loop.py needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Optional

from harness.command import ROOT, BenchError, Words, append, entry, read, show
from harness.learner_table import PRECISIONS, Run, find, run_from, table

# learner_loop.py knows no other number by default.
AGENTS = 2
# Batch, timed updates and updates before them.
SIZES = {"cpu": (16, 10, 2), "cuda": (128, 100, 10)}


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=Path, required=True, help="the example updates of the learner")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--device", choices=tuple(SIZES), required=True)
    for name in ("batch", "updates", "warmup"):
        parser.add_argument(f"--{name}", type=int, help="depends on the device unless given")
    for name in ("turns", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--only-precision", choices=PRECISIONS)
    parser.add_argument("--their-bf16", action="store_true")
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Sides and precisions in order: in turns, so that what disturbs the machine for a while disturbs both."""
    steps = []
    for precision in [options.only_precision] if options.only_precision else PRECISIONS:
        # Ours in bf16 is compared with their f32 on a CPU.
        theirs = "f32" if options.device == "cpu" and not options.their_bf16 else precision
        steps += [("landmarl", precision), ("pytorch", theirs)] * options.turns
    return steps


def shape(options: argparse.Namespace, precision: str) -> list[str]:
    """The arguments that both sides take alike."""
    given = (options.batch, options.updates, options.warmup)
    batch, updates, warmup = (size if value is None else value for value, size in zip(given, SIZES[options.device]))
    return ["--device", options.device, "--precision", precision, "--batch", str(batch), "--updates", str(updates),
            "--warmup", str(warmup), "--threads", str(options.threads), "--agents", str(AGENTS)]


def measure(command: Words, results: Path) -> dict[str, Any]:
    """Runs one side and keeps what it printed, whole."""
    print(f"$ {show(command)}")
    try:
        text, found = find(read(command))
    except BenchError as error:
        raise BenchError(f"`{show(command)}`: {error}") from error
    append(results, text + "\n")
    return found


def main(arguments: Optional[list[str]] = None) -> None:
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    print(f"results: {options.results}")
    programs: dict[str, Words] = {
        "landmarl": [options.program], "pytorch": [sys.executable, ROOT / "bench/learner_loop.py"]}
    runs: list[Run] = []
    failures: list[str] = []
    for side, precision in plan(options):
        try:
            found = measure([*programs[side], *shape(options, precision)], options.results)
            runs.append(run_from(found, side))
            print(f"  {runs[-1].ms_per_update:.2f} ms per update")
        except BenchError as error:
            failures.append(str(error))
    ceiling = None
    try:
        found = measure([*programs["pytorch"], *shape(options, "f32"), "--ceiling"], options.results)
        ceiling = found if found["side"] == "ceiling" else None
    except BenchError as error:
        failures.append(str(error))
    print("\n".join(table(runs, ceiling)))
    if failures:
        raise BenchError("not everything was measured:\n" + "\n".join(failures))


if __name__ == "__main__":
    entry(main)
