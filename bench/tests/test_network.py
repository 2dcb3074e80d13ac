"""Evaluation, acting and training beside PyTorch loops."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import actor
import eval as evaluation
import learner
from harness.command import BenchError
from harness.learner_table import Run, ceiling_of, find, run_from, table

from .stubs import printed_by, program


class Evaluation(unittest.TestCase):
    def test_nineteen_starts_of_which_the_centre_is_first(self) -> None:
        every = evaluation.published_starts(99)
        self.assertEqual((len(every), every[0]), (19, "0.5,0.5,0.5"))
        self.assertNotIn("0.25,0.25,0.75", every)
        self.assertEqual(len(evaluation.published_starts(3)), 3)

    def test_time_per_step_and_ratio(self) -> None:
        ours, theirs = {"inference_s": 2.0, "steps": 100}, {"torch": "2.11.0", "seconds": 4.0, "steps": 100}
        self.assertEqual(evaluation.report(ours, theirs), [
            "landmarl eval        100 steps  20.0 ms per step",
            "PyTorch 2.11.0 loop  100 steps  40.0 ms per step",
            "ratio 0.50 (f32, two threads each, same weights, scans and starts)"])
        with self.assertRaisesRegex(BenchError, "no step"):
            evaluation.report({"inference_s": 0.0, "steps": 0}, theirs)

    def test_both_sides_get_the_same_scans_and_starts(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            (data / "images.txt").write_text("a.nii.gz\n\nb.nii.gz\n")
            ours = program(data, "landmarl", """
                import json, pathlib, sys
                out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
                steps = 10 * sys.argv.count("--start")
                (out / "summary.json").write_text(json.dumps({"timing": {"inference_s": 1.0, "steps": steps}}))
            """)
            loop = mock.Mock(return_value='{"torch": "2.11.0", "steps": 20, "seconds": 2.0}\n')
            with mock.patch.object(evaluation, "read", loop):
                printed = printed_by(evaluation.main, [
                    f"--program={ours}", "--weights=w.safetensors", f"--data={data}", "--starts=2"])
            (command,), _ = loop.call_args
            self.assertEqual(list(map(str, command))[2:], [
                "w.safetensors", str(data / "a.nii.gz"), str(data / "b.nii.gz"), "--starts", "2"])
            self.assertIn("ratio 0.50", printed)


class Acting(unittest.TestCase):
    def test_the_ratio_is_of_medians(self) -> None:
        environment = {"steps_per_s_by_stride": [30_000.4, 25_000.0, 20_000.0], "steps_per_s": 24_324.0}
        measured = [(30.0, 0.02), (35.0, 0.04), (90.0, 0.03)]
        ours = [{"ms_per_window": ms, "render_share": share} for ms, share in measured]
        theirs = [{"ms_per_window": ms} for ms in (70.0, 10.0, 75.0)]
        self.assertEqual(actor.report("f32", environment, ours, theirs), [
            "environment, 2 agents, windows of 45³, one thread: 24324 steps/s (strides 1, 2, 3: 30000, 25000, 20000)",
            "landmarl f32: 35.0 ms per acted window, 3.0 % of it rendering",
            "PyTorch f32, one environment: 70.0 ms per acted window",
            "ratio 0.50"])

    def test_sides_take_turns_and_are_kept(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            results = Path(name) / "bench/actor.jsonl"
            printed = ['{"steps_per_s_by_stride": [1.0], "steps_per_s": 1.0}',
                       *['{"ms_per_window": 5.0, "render_share": 0.1}', '{"ms_per_window": 10.0}'] * 2]
            with mock.patch.object(actor, "read", side_effect=printed) as read:
                shown = printed_by(actor.main, [
                    "--program=acting", f"--results={results}", "--slots=8", "--steps=10", "--turns=2", "--threads=3",
                    "--precision=bf16"])
            self.assertEqual(results.read_text().splitlines(), printed)
            self.assertIn("acting network --precision bf16 --slots 8 --steps 10 --threads 3\n", shown)
            self.assertIn("--act --threads 3", " ".join(map(str, read.call_args.args[0])))
            self.assertIn("ratio 0.50", shown)


def options(*words: str) -> Any:
    return learner.parse_options(["--program=updates", "--results=r", "--turns=1", "--threads=2", *words])


class Plans(unittest.TestCase):
    def test_sides_take_turns_and_a_cpu_compares_with_f32(self) -> None:
        cases = {
            ("--device=cpu",): "landmarl f32, pytorch f32, landmarl bf16, pytorch f32",
            ("--device=cuda",): "landmarl f32, pytorch f32, landmarl bf16, pytorch bf16",
            ("--device=cpu", "--turns=2", "--only-precision=bf16", "--their-bf16"):
                "landmarl bf16, pytorch bf16, landmarl bf16, pytorch bf16",
        }
        for words, expected in cases.items():
            self.assertEqual(", ".join(map(" ".join, learner.plan(options(*words)))), expected)

    def test_sizes_follow_the_device_unless_given(self) -> None:
        cases = {
            ("--device=cpu",): "--device cpu --precision f32 --batch 16 --updates 10 --warmup 2",
            ("--device=cuda",): "--device cuda --precision f32 --batch 128 --updates 100 --warmup 10",
            ("--device=cuda", "--batch=64", "--updates=7", "--warmup=0"):
                "--device cuda --precision f32 --batch 64 --updates 7 --warmup 0",
        }
        for words, expected in cases.items():
            self.assertEqual(" ".join(learner.shape(options(*words), "f32")), f"{expected} --threads 2 --agents 2")


def some_updates(side: str, precision: str, ms: float, gflop: Optional[float]) -> Run:
    return Run(side, precision, 16, ms, ms / 50 if side == "landmarl" else None, gflop)


class Training(unittest.TestCase):
    def test_results_of_both_sides(self) -> None:
        ours = ('{"side":"landmarl","precision":"bf16","batch":16,"ms_per_update":900.5,"render_ms":12.0,'
                '"gflop_per_update":314.2,"new":[1]}')
        theirs = '{"side":"pytorch","precision":"f32","batch":16,"ms_per_update":2000,"sample_ms":20.5}'
        for text, expected in [(ours, Run("landmarl", "bf16", 16, 900.5, 12.0, 314.2)),
                               (theirs, Run("pytorch", "f32", 16, 2000, 20.5, None))]:
            kept, found = find(f"[W] a warning\n  {text}\nbye\n")
            self.assertEqual((kept, run_from(found, expected.side)), (text, expected))

    def test_what_is_no_result_is_named(self) -> None:
        cases = {
            '{"side": 1}': "side is none of",
            '{"side":"landmarl","precision":"f32","batch":2,"ms_per_update":0}': "no time of an update",
            '{"side":"landmarl","precision":"f32","batch":2}': "no number 'ms_per_update'",
            '{"side":"landmarl","precision":"f8","batch":2,"ms_per_update":1}': "precision is 'f8'",
            '{"side":"ceiling"}': "measured no update",
        }
        for printed, expected in cases.items():
            with self.assertRaisesRegex(BenchError, expected):
                run_from(find(printed)[1], "landmarl")

    def test_each_precision_has_its_ceiling(self) -> None:
        cpu = {"f32_tflops": 0.1, "bf16_tflops": 0.2, "tf32_tflops": None, "cudnn_allow_tf32": True}
        gpu = {"f32_tflops": 50, "bf16_tflops": 700, "tf32_tflops": 400, "cudnn_allow_tf32": True}
        off = {"f32_tflops": 50, "tf32_tflops": 400}
        cases: list[tuple[dict[str, Any], Any, Any]] = [
            (cpu, ("f32", 0.1), ("bf16", 0.2)), (gpu, ("tf32", 400), ("bf16", 700)), (off, ("f32", 50), None)]
        for ceiling, f32, bf16 in cases:
            self.assertEqual((ceiling_of(ceiling, "f32"), ceiling_of(ceiling, "bf16")), (f32, bf16))

    def test_speed_share_and_ratio(self) -> None:
        runs = [some_updates("landmarl", "f32", 100.0, 5.0), some_updates("pytorch", "f32", 190.0, None),
                some_updates("landmarl", "f32", 300.0, 5.0), some_updates("pytorch", "f32", 210.0, None),
                some_updates("landmarl", "bf16", 100.0, 5.0)]
        self.assertEqual(table(runs, {"f32_tflops": 0.1, "cudnn_allow_tf32": True}), [
            "batch 16, medians over turns",
            "side      precision turns ms per update  updates/s   TFLOP/s    of ceiling  windows",
            "landmarl  f32           2        200.00       5.00     0.025   25 % of f32    2.0 %",
            "PyTorch   f32           2        200.00       5.00     0.025   25 % of f32        -",
            "landmarl  bf16          1        100.00      10.00     0.050             -    2.0 %",
            "landmarl f32 is 1.00 times as fast as PyTorch f32",
            "landmarl bf16 is 2.00 times as fast as PyTorch f32",
            "windows: rendered by us; stacked and copied to the device by PyTorch"])

    def test_a_side_that_is_missing_leaves_the_other(self) -> None:
        lines = table([some_updates("pytorch", "f32", 4.0, None)], None)
        self.assertEqual((len(lines), lines[2].split()[0]), (4, "PyTorch"))
        self.assertEqual(table([], None), ["nothing was measured"])

    def test_a_side_that_fails_is_named_after_the_table(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            results = Path(name) / "r.jsonl"
            ours = {"side": "landmarl", "precision": "f32", "batch": 16, "ms_per_update": 100.0}
            ceiling = {"side": "ceiling", "f32_tflops": 0.1}
            sides = [json.dumps(ours), BenchError("no module named torch"), json.dumps(ceiling)]
            arguments = ["--program=updates", f"--results={results}", "--device=cpu", "--turns=1", "--threads=2",
                         "--only-precision=f32"]
            with mock.patch.object(learner, "read", side_effect=sides):
                with self.assertRaisesRegex(BenchError, "(?s)not everything.*learner_loop.py.*no module named torch"):
                    printed_by(learner.main, arguments)
            self.assertEqual([json.loads(line) for line in results.read_text().splitlines()], [ours, ceiling])
