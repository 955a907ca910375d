"""Training: the same on the same pairs comes out as well by raysearch as by pyvene 0.1.8. The small
form of a benchmark."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "das_equals_pyvene.py"


def means(*, seeds: int, steps: int) -> tuple[float, float, float]:
    """Holdout IIA of low-rank rotations by pyvene and by raysearch, and the last line's difference."""
    command = [
        sys.executable,
        str(SCRIPT),
        "--methods",
        "low_rank",
        "--seeds",
        str(seeds),
        "--steps",
        str(steps),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^low_rank +pyvene ([\d.]+) .*, ours ([\d.]+) ", done.stdout, re.MULTILINE)
    *_, last = done.stdout.splitlines()
    assert found is not None, done.stdout
    return float(found[1]), float(found[2]), float(last.removeprefix("difference: "))


@pytest.mark.slow
def test_trained_alike_both_sides_find_the_planted_subspace_equally_well() -> None:
    theirs, ours, difference = means(seeds=2, steps=200)
    assert min(theirs, ours) >= 0.97
    assert difference <= 0.02


@pytest.mark.slow
def test_one_step_is_not_enough_for_either_side() -> None:
    assert max(means(seeds=1, steps=1)) < 0.5
