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
