"""Files of tests are shared among workers whole, the longest first; slow tests and slow cells of
grids are left to `make test-rest`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.exclusive import exclusive
from tests.scheduling import BUILD, IN_CI, KNOWN, known_seconds, seconds_by_file

ROOT = Path(__file__).parents[1]
HEAD = """
import os
from pathlib import Path
import pytest

LOG = Path(__file__).with_name("log")

@pytest.fixture(scope="module")
def server():
    "What a machine has once: a second one at the same time would be an error."
    with LOG.open("a") as log:
        log.write(f"{__name__}\\n")
"""
BODY = """
@pytest.mark.parametrize("n", range(12))
def test_it(server, n):
    pass
"""
GRID = """
import pytest

@pytest.mark.slow
def test_of_a_program_that_few_machines_have():
    pass

@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.slow_unless(dtype=["float32"], family=["gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_of_a_grid(family, dtype):
    pass

@pytest.mark.slow_unless(family=["llama"])
def test_without_parameters():
    pass
"""
SETTINGS = "[pytest]\nmarkers =\n ci\n slow\n slow_unless\naddopts = --strict-markers -p tests.scheduling -p no:cacheprovider\n"


def _pytest(folder: Path, *flags: str, code: int = 0) -> str:
    (folder / "pytest.ini").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(folder), "-c", str(folder / "pytest.ini"), str(folder), *flags],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_what_a_file_starts_is_started_once_however_tests_are_to_be_shared(tmp_path: Path) -> None:
    """With as few files as workers, `worksteal` would take tests of the one file to the worker that
    is done with the other."""
    (tmp_path / "test_long.py").write_text(HEAD + BODY)
    (tmp_path / "test_short.py").write_text("def test_it():\n    pass\n")
    _pytest(tmp_path, "-n", "2", "--dist", "worksteal")
    assert (tmp_path / "log").read_text() == "test_long\n"


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_test_that_kills_its_worker_fails_and_all_others_run_once(
    tmp_path: Path, workers: str
) -> None:
    """It stands between others of its file; files that are done, and one that is not begun, are of
    the same worker."""
    for name in ("a", "b", "d", "e"):
        (tmp_path / f"test_{name}.py").write_text(HEAD + BODY.replace("12", "1"))
    deadly = "\ndef test_that_kills():\n    os._exit(1)\n"
    again = BODY.replace("test_it", "test_later")
    (tmp_path / "test_c.py").write_text(HEAD + BODY.replace("12", "2") + deadly + again)
    said = _pytest(tmp_path, "-n", workers, "-v", code=1)
    assert "crashed while running 'test_c.py::test_that_kills'" in said
    assert "1 failed, 18 passed" in said


def test_the_longest_file_goes_first(tmp_path: Path) -> None:
    """All on one worker: `tests/` in their names stands for those of the table and of the
    last timings, which are of this checkout."""
    seconds = known_seconds(KNOWN, BUILD)
    longest = max(seconds, key=seconds.__getitem__)
    for name in ("tests/a_test.py", longest):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def test_it():\n    pass\n")
    said = _pytest(
        tmp_path, "-n", "1", "-v", "-o", "python_files=*test*.py", "--import-mode=importlib"
    )
    assert said.index(longest + "::test_it") < said.index("tests/a_test.py::test_it")


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (
            "not slow",
            [
                "grid[gpt2-float32]",
                "grid[llama-bfloat16]",
                "grid[llama-float32]",
                "without_parameters",
            ],
        ),
        (
            "slow",
            [
                "grid[gpt2-bfloat16]",
                "grid[opt-bfloat16]",
                "grid[opt-float32]",
                "program_that_few_machines_have",
            ],
        ),
    ],
)
def test_each_test_is_quick_or_slow_and_of_a_grid_those_are_quick_that_are_named(
    tmp_path: Path, chosen: str, wanted: list[str]
) -> None:
    (tmp_path / "test_grid.py").write_text(GRID)
    said = _pytest(tmp_path, "--collect-only", "-q", "-m", chosen)
    named = [
        line.split("::test_")[1].removeprefix("of_a_") for line in said.splitlines() if "::" in line
    ]
    assert sorted(named) == wanted


def test_ci_runs_the_slow_tests_of_a_few_rooms_too(tmp_path: Path) -> None:
    for room in ("tests/viewer/", "tests/stats/"):
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "test_grid.py").write_text(GRID)
    said = _pytest(
        tmp_path, "--collect-only", "-q", "-m", "not slow or ci", "--import-mode=importlib"
    )
    assert said.count("tests/viewer/test_grid.py::") == 8
    assert said.count("tests/stats/test_grid.py::") == 4
    assert [place for place in IN_CI if not (ROOT / place).exists()] == []


def test_a_mark_that_keeps_no_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_grid.py").write_text(GRID.replace('"gpt2"', '"gpt3"', 1))
    assert "slow_unless" in GRID.partition('"gpt2"')[0]
    said = _pytest(tmp_path, "--collect-only", "-q", code=4)
    assert "test_grid.py::test_of_a_grid: slow_unless(" in said


def test_seconds_come_from_the_last_timings_and_else_from_the_table(tmp_path: Path) -> None:
    case = '<testcase classname="{}" name="test_it" time="{}" />'.format
    cases = case("tests.proposers.test_proposers.TestRefine", 2) + case(
        "tests.proposers.test_proposers", 0.5
    )
    (tmp_path / "junit.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    (tmp_path / "table.json").write_text(
        '{"tests/proposers/test_proposers.py": 9, "tests/test_readme.py": 70}'
    )
    expected = {"tests/proposers/test_proposers.py": 2.5, "tests/test_readme.py": 70}
    assert known_seconds(tmp_path / "table.json", tmp_path) == expected
    (tmp_path / "junit-rest.xml").write_text("<testsuites><testsu")  # killed in the middle
    assert seconds_by_file(tmp_path / "junit-rest.xml") == {}
    assert known_seconds(tmp_path / "table.json", tmp_path) == expected


def test_what_is_exclusive_is_waited_for_by_other_processes(tmp_path: Path) -> None:
    code = f"from tests.exclusive import exclusive\nwith exclusive({tmp_path.name!r}): print('in')"
    with exclusive(tmp_path.name):
        other = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=1)
    assert other.communicate()[0] == "in\n"
