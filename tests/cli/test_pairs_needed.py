"""The number of further pairs that is named suffices; where none would help, the reason is said."""

import re
from pathlib import Path

import pytest

from raysearch.cli.results import further
from raysearch.report.results_table import results
from raysearch.store.run_folder import RunFolder
from tests.cli.test_continuation import LOCAL, begun, call, found

PROBLEM = """
from raysearch import Problem
from raysearch.problems import add_three


def problem() -> Problem:
    return add_three.problem()
"""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is done, and could accept nothing."""
    return begun(tmp_path_factory.mktemp("more"))


@pytest.mark.slow  # a whole run
def test_too_few_further_pairs_are_said_and_the_number_named_then_decides_all(
    short: RunFolder,
) -> None:
    once = call("resume", short.place, "--more-pairs", "1", *LOCAL)
    assert "nothing can be accepted: K = 4 hypotheses" in once.output
    assert "a test has at most 13;" in once.output
    assert found(short)["undecided"] == 2
    for row in results(short.folder, where="verdict = 'undecided'").to_pylist():
        assert " pairs of at most 13 (test.max_pairs and --more-pairs) give" in row["reason"]
        assert "level 0.0125: test.false_accept 0.05 over K = 4 hypotheses" in row["reason"]
    shown = call("results", short.place).output
    assert "over K = 4 hypotheses" in shown
    (more,) = re.findall(r"go on with: raysearch (resume \S+ --more-pairs [0-9]+)\n", shown)
    assert call(*more.split(), *LOCAL, "-q").exit_code == 0
    assert "undecided" not in found(short)


def test_a_problem_whose_file_is_gone_is_named_and_no_resume_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROBLEM)
    run = begun(tmp_path, problem={"use": "mine.py:problem", "options": None})
    assert "--more-pairs" in further(run)[0]
    (tmp_path / "mine.py").unlink()
    command, why = further(run)
    assert "resume" not in command
    assert f"there is no {tmp_path / 'mine.py'}" in why
    assert "no further pairs: " in call("results", run.place).output
