"""The benchmarks still run: at their smallest, for their last line. What they measure stands in benchmarks/RESULTS.md, never in a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ("--layers", "2", "--positions", "2", "--pairs", "4", "--threads", "1")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "flags", "says"),
    [
        ("static_vs_pyvene.py", SMALL, "ratio: "),
        ("roofline.py", SMALL, "share: "),
        ("gpu.py", ("--cpu", "--seconds", "0.1", "--shapes", "llama_1b"), "| llama_1b | float32 | 40 | replay |"),
        ("cluster_scale.py", ("search", "--hypotheses", "200"), "results, top 100"),
    ],
)
def test_a_benchmark_runs_to_its_last_line(script: str, flags: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *flags],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(says), done.stdout


@pytest.mark.timeout(300)
def test_the_gpu_benchmark_needs_the_checkout_alone_and_nothing_that_a_gpu_machine_lacks(tmp_path: Path) -> None:
    """From another folder, with PYTHONPATH, without what is not installed there."""
    lacking = ("ray", "mlflow", "pydantic", "duckdb", "beartype", "pyvene", "yaml")
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
