"""A problem that an installed package adds by an entry point, and the list of the ready ones."""

import sys
from pathlib import Path

import pytest

from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.problems.load_problem import load_problem, ready_problems
from raysearch.runner.resolution.job_code import code_of

CODE = """
from dataclasses import replace

import raysearch as rs
from raysearch.problems import add_three


def sums(highest: int = 9) -> rs.Problem:
    return replace(add_three.problem(highest=highest), name="sums")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    info = tmp_path / "raysearch_sums-0.1.dist-info"
    info.mkdir()
    (tmp_path / "sums_problem.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: raysearch-sums\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[raysearch.problems]\nsums = sums_problem:sums\n")
    monkeypatch.delitem(sys.modules, "sums_problem", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_it_is_named_by_one_word_and_its_code_is_told(package: Path) -> None:
    assert load_problem("sums", {"highest": 4}).name == "sums"
    job = Job.parse({"name": "x", "model": {"path": "o/m"}, "problem": {"use": "sums"}})
    assert code_of(job)[0].startswith(f"runs code of: sums_problem, {package / 'sums_problem.py'}")


def test_a_mistake_names_all_that_there_are(package: Path) -> None:
    with pytest.raises(JobError, match=r"options: sums: .*; it takes highest"):
        load_problem("sums", {"lowest": 4})
    with pytest.raises(JobError, match=f"{', '.join(ready_problems())}, sums, or my_file.py:prob"):
        load_problem("some", {})


def test_every_ready_problem_has_a_page_or_a_job() -> None:
    root = Path(__file__).parents[2]
    said = "".join(p.read_text() for p in (root / "jobs").glob("*.yaml"))
    assert [name for name in ready_problems() if name not in said] == []
