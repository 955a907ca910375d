"""What is left of a session of tests: skips by reason at the end, the processor time of each test
in a file that a script reads."""

import re
import subprocess
import sys
from pathlib import Path

from tests.timing import CPU

ROOT = Path(__file__).parent.parent
TESTS = """
import subprocess, sys, time, unittest
import pytest

def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

@pytest.fixture
def slow():
    burn(0.2)

def test_that_works(slow):
    burn(0.2)

def test_whose_child_works():
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.4: pass"], check=True)

@pytest.mark.parametrize("n", [1, 2])
def test_that_cannot(n):
    pytest.skip("no slurmctld on this machine")

@pytest.mark.skipif(True, reason="no kubectl here")
def test_that_is_not_tried():
    pass

@unittest.skip("no kubectl here")
def test_that_is_not_tried_either():
    pass
"""


def test_skips_are_listed_by_reason_and_processor_time_is_kept(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    kept = tmp_path / "junit.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.timing",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    command += ["-c", "/dev/null", "--junitxml", str(kept), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    listed = [line for line in done.stdout.splitlines() if line.startswith("skipped: ")]
    assert listed == ["skipped: 2 x no kubectl here", "skipped: 2 x no slurmctld on this machine"]
    seconds = [float(s) for s in re.findall(rf'name="{CPU}" value="([\d.]+)"', kept.read_text())]
    assert len(seconds) == 6
    assert seconds[0] >= 0.4, "with its fixture"
    assert seconds[1] >= 0.3, "with its child"
    said = subprocess.run(
        [sys.executable, "scripts/slowest_tests.py", str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.splitlines()[0].endswith("all 6 tests")
    assert re.search(r"^ +\d+\.\d +\d+\.\d  test_it \(6 tests\)$", said, re.MULTILINE)
    assert re.search(r"^ +\d+\.\d +\d+\.\d  test_it::test_that_works$", said, re.MULTILINE)
