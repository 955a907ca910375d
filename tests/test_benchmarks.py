"""The benchmarks still run: at their smallest, for their last line. What they measure stands in
benchmarks/RESULTS.md, never in a test."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import half_precision

ROOT = Path(__file__).parent.parent
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct"
OLD_PATHS_FAIL = ("-W", "error:raysearch.:DeprecationWarning")
"""Of Python: the warning of an older import path (raysearch/old_paths.py) is an error."""
SMALL = ("--layers", "2", "--positions", "2", "--pairs", "4", "--threads", "1")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "flags", "says"),
    [
        ("static_vs_pyvene.py", SMALL, "ratio: "),
        ("roofline.py", SMALL, "share: "),
        ("weak_training.py", ("--tiny",), "ratio: "),
        ("row_cost.py", ("--tiny",), "ratio: "),
        ("cpu_kernels.py", ("--tiny",), "ratio: "),
        ("language_training.py", ("--tiny",), "ms: "),
        ("starting.py", ("--runs", "1", "--only", "plan"), "ratio: "),
        (
            "weak_cases.py",
            ("--pairs", "2", "--layers", "15", "--tokens", "10", "--steps", "5"),
            "share: ",
        ),
        ("gpu.py", ("--cpu", "--only", "d"), "ratio: none, since e was not run"),
        ("cluster_scale.py", ("search", "--hypotheses", "200"), "results, top 100"),
    ],
)
def test_a_benchmark_runs_to_its_last_line(
    script: str, flags: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = _run(script, flags, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(says), done.stdout


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="no SmolLM2 in models/; make install fetches it")
@pytest.mark.timeout(600)
def test_a_precision_is_timed_through_the_door_of_a_job(tmp_path: Path) -> None:
    """Without float32 there is nothing to compare with, which is said in a line."""
    done = _run(
        "half_precision.py", ("--layers", "1", "--pairs", "16", "--dtypes", "bfloat16"), tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| bfloat16 |")]
    assert row.split(" | ")[1:3] == ["replay", "18"]
    assert row.endswith("| - | - |")
    assert done.stdout.splitlines()[-1] == "ratio: none; float32 was not among --dtypes"


@pytest.mark.slow
def test_precisions_are_compared_with_float32_where_it_is_among_them() -> None:
    row = {"variable": "x", "verdict": "accept", "iia": 0.9, "low": 0.7, "high": 1.0}
    first = half_precision.Ran(half_precision.Clock(1.0, 10.0), {"h": row}, 0.0, "replay")
    other = half_precision.Ran(
        half_precision.Clock(1.0, 12.0), {"h": row | {"verdict": "reject"}}, 0.05, "replay"
    )
    assert half_precision._lines("float32", first, first)[0].endswith("| 1.00 | 0 |")
    line, differs = half_precision._lines("bfloat16", other, first)
    assert line == "| bfloat16 | replay | 1 | x 0 | 1.0 | 12.0 | 5.0% | 1.20 | 1 |"
    assert differs.strip().startswith("h: reject (0.900 in [0.700, 1.000]) here, accept")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_gpu_benchmark_needs_the_checkout_alone_and_nothing_that_a_gpu_machine_lacks(
    tmp_path: Path,
) -> None:
    """From another folder, with PYTHONPATH, without what is not installed there."""
    lacking = ("ray", "mlflow", "duckdb", "beartype", "pyvene")
    paths = [str(ROOT / "benchmarks"), str(ROOT)]  # as Python has them when it runs the script
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({lacking!r}))\n"
        f"sys.argv = ['gpu.py', '--help']; sys.path[:0] = {paths!r}\n"
        f"runpy.run_path({str(ROOT / 'benchmarks' / 'gpu.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--cpu" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_gpu_benchmark_in_miniature_runs_each_workload_with_its_counts(tmp_path: Path) -> None:
    done = _run("gpu.py", ("--cpu",), tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    starts = ["a, bfloat16", "e, bfloat16", "b, bfloat16", "c, float32", "c, bfloat16"]
    for start in [*starts, "d, bfloat16"]:
        (line,) = [at for at in lines if at.startswith(start)]
        assert start[0] == "e" or "path replay, argmax as plain 24/24;" in line
        assert "a sample" not in line
    for dtype in ("float32", "bfloat16", "float16"):
        assert f"{dtype}: path replay" in lines
    counts = [line for line in lines if line.startswith("  counted on ")]
    assert len(counts) == 8, "of a, b, c in two dtypes, d, and a wave in three"
    assert all("host waits 1.00 a wave; captures again 0;" in of for of in counts if "wave;" in of)
    (of_steps,) = [line for line in counts if "a step;" in line]
    assert "host waits 0.00 a step; captures again 0" in of_steps
    assert float(lines[-1].removeprefix("ratio: ")) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_gpu_benchmark_says_what_is_a_sample_and_which_goal_is_missed_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    gpu, workloads = (importlib.import_module(of) for of in ("gpu", "gpu_workloads"))
    bench = gpu.Bench(torch.device("cpu"), gpu.MINIATURE, 60.0, False)
    model = gpu.build(gpu.MINIATURE.llama, torch.device("cpu"), "float32")
    replica = bench._open(model, "float32", gpu.Grid(12, 4, 8, 32))
    tasks = workloads.residual_tasks(replica)
    firsts = [str(task.interventions[0].units[0].site.position) for task in tasks]
    assert firsts == ["token_8", "token_10", "token_9", "token_11"]
    part = workloads.sweep("a", replica, tasks, 0.0, 1e12, True, False)
    assert (part.tasks, part.of_tasks, part.rows) == (1, 4, 32)
    assert "32 rows in 1 tasks (a sample, of 4 tasks), 1 waves" in str(part)
    assert part.operations == _by_hand(model, tokens=4, prefix=8, pairs=8)
    fast = dataclasses.replace(part, seconds=part.operations / 0.25e12, captures=0.0)
    slow = dataclasses.replace(part, name="c", rows=1000, seconds=0.1, captures=0.1)
    slower = dataclasses.replace(slow, dtype="bfloat16", seconds=0.4)
    assert gpu.reached([fast, slow, slower]) == pytest.approx({"a": 0.5, "c": 0.02})
    assert gpu.last_line([fast, slow, slower], False) == "share: 0.02 (a 0.50, c 0.02)"
    assert gpu.last_line([], False) == "share: none was run"


def _by_hand(model: torch.nn.Module, tokens: int, prefix: int, pairs: int) -> float:
    """Operations of a swap of the residual in each layer: of the blocks above it, the answers'
    head left out."""
    config = model.config
    weights = sum(p.numel() for p in model.model.layers[0].parameters() if p.ndim == 2)
    seen = sum(prefix + at + 1 for at in range(tokens))
    of_block = 2 * tokens * weights + 4 * seen * config.hidden_size
    above = sum(config.num_hidden_layers - 1 - at for at in range(config.num_hidden_layers))
    return float(pairs * above * of_block)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_program_finds_what_it_imports_where_it_is_now(tmp_path: Path) -> None:
    rooms = [ROOT / "benchmarks", ROOT / "scripts"]
    names = [path.stem for room in rooms for path in sorted(room.glob("*.py"))]
    assert len(names) == len({*names}) > 20
    code = f"import sys; sys.path[:0] = {[*map(str, [*rooms, ROOT])]!r}\nfor name in {names!r}: __import__(name)"
    done = _python(OLD_PATHS_FAIL, ("-c", code), tmp_path)
    assert done.returncode == 0, done.stderr


def _run(script: str, flags: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    return _python(OLD_PATHS_FAIL, (str(ROOT / "benchmarks" / script), *flags), folder)


def _python(
    options: tuple[str, ...], what: tuple[str, ...], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, *what],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
