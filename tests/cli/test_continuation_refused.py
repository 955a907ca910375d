"""What `resume --more-pairs` refuses, each in one line, and leaves the run as it was."""

import json
from pathlib import Path
from typing import Any

import pytest

import raysearch as rs
from raysearch.causal import draw_sample
from raysearch.problems import add_three
from raysearch.store.run_folder import RunFolder
from tests.cli.conftest import QUICKSTART
from tests.cli.test_continuation import LOCAL, QUIET, begun, call, found
from tests.runner.test_new_values import NET, job_at

PLANTED = QUICKSTART.parent / "planted" / "model"
SMALL: dict[str, Any] = {
    "space": {"variables": ["a", "b"], "layers": [0], "positions": ["a", "b"]},
    "pairs": {"test": 12, "fit": 0, "holdout": 8},
    "test": {"max_pairs": 12, "futility": 0},
}


def refused(place: str, more: str = "40") -> str:
    """The one line of the refusal; the run is what it was."""
    before = {p: p.read_bytes() for p in Path(place).rglob("*") if p.is_file()}
    done = call("resume", place, "--more-pairs", more, *LOCAL)
    line = str(done.exception)
    assert done.exit_code
    assert isinstance(done.exception, rs.errors.RaysearchError), line
    assert len(line.splitlines()) == 1
    assert {p: p.read_bytes() for p in Path(place).rglob("*") if p.is_file()} == before
    return line


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> rs.Run:
    """A run of a problem that was given as an object."""
    return rs.run(
        problem=add_three.problem(), model=str(PLANTED), store=tmp_path_factory.mktemp("given"),
        quiet=True, tracking_uri="none", **SMALL,
    )  # fmt: skip


def test_a_problem_that_was_an_object_is_to_be_given_again(given: rs.Run) -> None:
    line = refused(given.place)
    assert "began with a problem that was given as an object" in line
    assert f"rs.resume({given.place!r}, problem=problem, more_pairs=...)" in line


def test_an_object_that_draws_other_pairs_is_refused_and_the_same_one_goes_on(
    given: rs.Run,
) -> None:
    with pytest.raises(rs.errors.ResumeError, match="draws other pairs than"):
        rs.resume(given, problem=add_three.problem(highest=4), more_pairs=40, quiet=True)
    assert not RunFolder.open(given.place).info.continued
    again = rs.resume(given, problem=add_three.problem(), more_pairs=40, quiet=True)
    assert RunFolder.open(again.place).info.continued == {"1": 40}


@pytest.mark.slow
def test_a_problem_of_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    text = "from raysearch.problems import add_three\n\n\ndef problem():\n    return add_three.problem(highest=9)\n"
    mine.write_text(text)
    run = begun(tmp_path, problem={"use": "mine.py:problem", "options": {}})
    assert found(run)["undecided"]
    mine.write_text(text.replace("=9", "=8"))
    line = refused(run.place)
    assert "draws other pairs than when the run began" in line
    assert "put it back as it was, or begin a new run" in line
    mine.write_text(text)
    assert call("resume", run.place, "--more-pairs", "4", *LOCAL, "-q").exit_code == 0


@pytest.mark.slow
def test_a_claim_about_new_values_is_refused(tmp_path: Path) -> None:
    """Four in five sources move the answer, which 20 blocks of values do not decide."""
    job = job_at(tmp_path, pairs={"test": 160}, test={"generalise": "values", "futility": 0})
    half = "torch.where(hidden[:, 0] % 5 < 4, hidden[:, 0], hidden[:, 1])"
    (tmp_path / "net.py").write_text(NET.replace("hidden[:, 0].round()", f"{half}.round()"))
    store = tmp_path / "runs"
    assert call("run", job, "--store", store, *LOCAL, *QUIET).exit_code == 0
    (place,) = (str(p.parent) for p in store.glob("*/run.json"))
    assert found(RunFolder.open(place))["undecided"]
    line = refused(place)
    assert "is about new values (test.generalise: values)" in line
    assert "begin a new run of a problem with more values" in line


def test_a_file_whose_lines_are_used_up_is_refused_with_the_numbers(tmp_path: Path) -> None:
    drawn = draw_sample(add_three.problem(), ("a", "b"), {"test": 14}, 3).pairs
    lines = [
        {
            "base": {"text": p.base.text, "positions": p.base.spans},
            "source": {"text": p.sources["source"].text, "positions": p.sources["source"].spans},
            "answers": p.answers, "counterfactual": p.counterfactual, "split": "test",
        }
        for p in drawn
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = begun(
        tmp_path, problem={"use": None, "pairs": "pairs.jsonl", "options": None},
        pairs={"holdout": 0, "test": 14}, test={"claim": "sampler", "max_pairs": 14},
    )  # fmt: skip
    assert found(run)["undecided"]
    line = refused(run.place)
    assert "all pairs that it may test on are used: pairs.jsonl gave 14 test pairs" in line
    assert "begin a new run with more pairs (a longer file, a larger pairs.test)" in line
