"""Training updates of both sides side by side, and their ratios."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Iterable, Optional

from .command import BenchError, last_json, number

SIDES = {"landmarl": "landmarl", "pytorch": "PyTorch"}
PRECISIONS = ("f32", "bf16")


@dataclass(frozen=True)
class Run:
    """Some updates of one side."""

    side: str
    precision: str
    batch: int
    # The median over updates.
    ms_per_update: float
    # Its part for windows: ours renders, theirs stacks and copies.
    render_ms: Optional[float]
    gflop_per_update: Optional[float]


def find(printed: str) -> tuple[str, dict[str, Any]]:
    """The result in the output of a side, as text and parsed."""
    text, found = last_json(printed)
    if found.get("side") not in (*SIDES, "ceiling"):
        raise BenchError(f"printed {text}: side is none of {', '.join(SIDES)}, ceiling")
    return text, found


def run_from(found: dict[str, Any], side: str) -> Run:
    if found["side"] == "ceiling":
        raise BenchError(f"{SIDES[side]} measured no update")
    time = number(found, "ms_per_update")
    if not (math.isfinite(time) and time > 0):
        raise BenchError(f"ms_per_update is {time}: no time of an update")
    if found.get("precision") not in PRECISIONS:
        raise BenchError(f"precision is {found.get('precision')!r}, expected one of {', '.join(PRECISIONS)}")
    render = found.get("render_ms", found.get("sample_ms"))
    return Run(side, found["precision"], int(number(found, "batch")), time, render, found.get("gflop_per_update"))


def ceiling_of(ceiling: dict[str, Any], precision: str) -> Optional[tuple[str, float]]:
    """What large matrix products reach in a precision on this machine, and its name."""
    name = precision
    # On a GPU convolutions of f32 numbers may use TF32.
    if precision == "f32" and ceiling.get("cudnn_allow_tf32") and ceiling.get("tf32_tflops") is not None:
        name = "tf32"
    top = ceiling.get(f"{name}_tflops")
    return None if top is None else (name, top)


def median(values: Iterable[Optional[float]]) -> Optional[float]:
    kept = [value for value in values if value is not None]
    return statistics.median(kept) if kept else None


@dataclass(frozen=True)
class Row:
    """All turns of one side in one precision."""

    side: str
    precision: str
    turns: int
    ms: float
    render_ms: Optional[float]
    gflop: Optional[float]

    def line(self, gflop: Optional[float], ceiling: Optional[dict[str, Any]]) -> str:
        """Both sides do the same arithmetic; `gflop` is for one that did not count it."""
        work = self.gflop if self.gflop is not None else gflop
        # Thousands of both kinds cancel: GFLOP per ms is TFLOP per s.
        tflops = None if work is None else work / self.ms
        top = ceiling_of(ceiling, self.precision) if ceiling else None
        share = f"{100 * tflops / top[1]:.0f} % of {top[0]}" if tflops is not None and top else "-"
        render = "-" if self.render_ms is None else f"{100 * self.render_ms / self.ms:.1f} %"
        shown = "-" if tflops is None else f"{tflops:.3f}"
        return (f"{SIDES[self.side]:9} {self.precision:9} {self.turns:>5} {self.ms:>13.2f} {1000 / self.ms:>10.2f} "
                f"{shown:>9} {share:>13} {render:>8}")


def rows_of(runs: list[Run]) -> list[Row]:
    rows = []
    for precision in PRECISIONS:
        for side in SIDES:
            same = [run for run in runs if (run.side, run.precision) == (side, precision)]
            if same:
                rows.append(Row(side, precision, len(same), statistics.median(run.ms_per_update for run in same),
                                median(run.render_ms for run in same), median(run.gflop_per_update for run in same)))
    return rows


def table(runs: list[Run], ceiling: Optional[dict[str, Any]]) -> list[str]:
    """The table and, below it, our speed relative to theirs."""
    if not runs:
        return ["nothing was measured"]
    rows = rows_of(runs)
    gflop = median(row.gflop for row in rows)
    return [
        f"batch {runs[0].batch}, medians over turns",
        f"{'side':9} {'precision':9} {'turns':>5} {'ms per update':>13} {'updates/s':>10} {'TFLOP/s':>9} "
        f"{'of ceiling':>13} {'windows':>8}",
        *(row.line(gflop, ceiling) for row in rows),
        *ratios(rows),
        "windows: rendered by us; stacked and copied to the device by PyTorch",
    ]


def ratios(rows: list[Row]) -> list[str]:
    """Against the same precision, and our bf16 against their f32 as well."""
    return [f"landmarl {ours.precision} is {theirs.ms / ours.ms:.2f} times as fast as PyTorch {theirs.precision}"
            for ours in rows if ours.side == "landmarl"
            for theirs in rows if theirs.side == "pytorch" and theirs.precision in (ours.precision, "f32")]
