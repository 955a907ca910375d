"""The benchmarks still run: at their smallest, for their last line. What they measure stands in
benchmarks/RESULTS.md, never in a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        (
            "gpu.py",
            ("--cpu", "--seconds", "0.1", "--shapes", "llama_1b"),
            "| llama_1b | float32 | 40 | replay |",
        ),
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
    done = _run(
        "half_precision.py", ("--layers", "1", "--pairs", "16", "--dtypes", "float32"), tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| float32 |")]
    assert row.split(" | ")[1:3] == ["replay", "18"]
    assert row.endswith("| 1.00 | 0 |")
    assert done.stdout.splitlines()[-1].startswith("ratio: ")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_gpu_benchmark_needs_the_checkout_alone_and_nothing_that_a_gpu_machine_lacks(
    tmp_path: Path,
) -> None:
    """From another folder, with PYTHONPATH, without what is not installed there."""
    lacking = ("ray", "mlflow", "pydantic", "duckdb", "beartype", "pyvene")
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({lacking!r}))\n"
        f"sys.argv = ['gpu.py', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
        f"runpy.run_path({str(ROOT / 'benchmarks' / 'gpu.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--cpu" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_program_finds_what_it_imports_where_it_is_now(tmp_path: Path) -> None:
    rooms = [ROOT / "benchmarks", ROOT / "scripts"]
    names = [path.stem for room in rooms for path in sorted(room.glob("*.py"))]
    assert len(names) == len({*names}) > 20
    code = f"import sys; sys.path[:0] = {[*map(str, rooms)]!r}\nfor name in {names!r}: __import__(name)"
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
