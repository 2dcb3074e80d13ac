"""Time per step of `landmarl eval` and of a PyTorch loop: what `cargo xtask bench eval` builds and starts.

Both sides evaluate the same weights of one agent on the same scans from the same starts, the first
so many of the 19 published ones. Run it with a Python that eval_loop.py needs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

from harness.command import ROOT, BenchError, Words, entry, last_json, number, read, read_text, run


def parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=Path, required=True, help="the program landmarl")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with images.txt and landmarks.txt")
    parser.add_argument("--starts", type=int, required=True)
    return parser.parse_args(arguments)


def published_starts(count: int) -> list[str]:
    """The 19 published starts, in our order, as `--start` takes them."""
    every = itertools.product((0.5, 0.75, 0.25), repeat=3)
    return [",".join(map(str, start)) for start in every if 0.5 in start][:count]


def our_command(options: argparse.Namespace, out: str) -> Words:
    starts = [word for start in published_starts(options.starts) for word in ("--start", start)]
    return [options.program, "eval", "--rules", "reference", "--device", "cpu", "--landmarks", "13", "--no-pictures",
            "--set", "data.allow_mixed_spacing=true", "--load", options.weights,
            "--images", options.data / "images.txt", "--landmarks-files", options.data / "landmarks.txt",
            "--out", out, *starts]


def scans(data: Path) -> list[Path]:
    lines = read_text(data / "images.txt").splitlines()
    return [data / line.strip() for line in lines if line.strip()]


def report(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """From the timing in summary.json and from what eval_loop.py prints."""
    if not ours.get("steps") or not theirs.get("steps"):
        raise BenchError("no step was made")
    a = 1000 * number(ours, "inference_s") / number(ours, "steps")
    b = 1000 * number(theirs, "seconds") / number(theirs, "steps")
    return [f"landmarl eval        {ours['steps']} steps  {a:.1f} ms per step",
            f"PyTorch {theirs.get('torch')} loop  {theirs['steps']} steps  {b:.1f} ms per step",
            f"ratio {a / b:.2f} (f32, two threads each, same weights, scans and starts)"]


def main(arguments: Optional[list[str]] = None) -> None:
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    images = scans(options.data)
    with tempfile.TemporaryDirectory() as out:
        run(our_command(options, out))
        summary = Path(out) / "summary.json"
        try:
            ours = json.loads(read_text(summary))["timing"]
        except (KeyError, TypeError, ValueError) as error:
            raise BenchError(f"{summary} has no timing: {error!r}") from error
    loop = [sys.executable, ROOT / "bench/eval_loop.py", options.weights, *images, "--starts", str(options.starts)]
    _, theirs = last_json(read(loop))
    print("\n".join(report(ours, theirs)))


if __name__ == "__main__":
    entry(main)
