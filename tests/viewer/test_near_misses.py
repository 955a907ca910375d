"""Where nothing was accepted, a page says of the best why, in the words of its own row."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysearch.report.results_table import results
from raysearch.viewer.near_misses import near_misses, why
from raysearch.viewer.run_view import RunView
from tests.store.books import new_run
from tests.viewer.books import closed, decided, few, hypothesis, measured, proposed

JOB = {"pairs": {"kinds": "both"}, "test": {"threshold": 0.8, "keep_threshold": 0.9}}


def rejected(**more: Any) -> dict[str, Any]:
    keys = {"verdict": "reject", "reason": None, "high": 0.99, "keep_iia": 0.5, "keep_n": 7}
    return keys | more


def test_the_best_is_that_of_the_page_and_none_where_one_is_accepted() -> None:
    variables = [0, 0, 0, 1, 1, 2, 3]
    verdicts = ["reject", "undecided", "undecided", "accept", "undecided", "failed", None]
    means = [0.5, 0.9, 0.9000000001, 0.8, 1.0, 1.0, 0.25]
    assert sorted(near_misses(variables, verdicts, means)) == [1, 6]


@pytest.mark.parametrize(
    ("row", "job", "words"),
    [
        (rejected(), JOB, "its keep pairs show that it changes answers that should stay: IIA 0.500 "
         "on 7 keep pairs, below the threshold 0.9"),
        (rejected(units='[{"operation":"zero"}]'), JOB, "its keep pairs show that answers stay "
         "without the site: IIA 0.500 on 7 keep pairs"),
        (rejected(), {**JOB, "test": {"threshold": 0.8}}, "on 7 keep pairs, below the threshold 0.8"),
        (rejected(high=0.6), JOB, "below the threshold 0.8"),
        (rejected(keep_iia=0.95), JOB, "its pairs show that it is below the threshold 0.8"),
        (rejected(), {"test": {"threshold": 0.8}}, "its pairs show that it is below the threshold"),
        (rejected(), {}, ""),
        (rejected(verdict="undecided", reason="for K"), JOB, "for K"),
        (rejected(verdict=None), JOB, ""),
    ],
)  # fmt: skip
def test_a_reject_is_laid_to_the_pairs_that_rejected(
    row: dict[str, Any], job: dict[str, Any], words: str
) -> None:
    said = why(row, job)
    assert words in said if words else said == ""
    assert ("keep pairs" in said) == ("keep pairs" in words)


@pytest.mark.parametrize("kinds", ["both", "change"])
def test_an_undecided_row_says_what_its_keep_pairs_show_where_they_decide(
    tmp_path: Path, kinds: str
) -> None:
    """All change pairs match, and yet no verdict is likely: keep pairs are few."""
    h, job = hypothesis("country", 0), {**JOB, "pairs": {"kinds": kinds}}
    none, some = (
        replace(decided(h, "undecided", 3, reason="futile"), keep_n=n, keep_matches=n // 2)
        for n in (0, 4)
    )
    for end, words in ((none, "; 0 keep pairs, which"), (some, "; 4 keep pairs, which")):
        run = closed(new_run(tmp_path / words, job_text=json.dumps(job)), [*proposed([h]), end])
        (row,) = results(run.folder).to_pylist()
        assert (words in row["reason"]) == (kinds == "both")
        assert ("decide too give 0.500, threshold 0.9" in row["reason"]) == (
            kinds == "both" and end is some
        )


def test_an_undecided_best_has_the_reason_of_its_row(tmp_path: Path) -> None:
    h = [hypothesis("country", layer) for layer in range(2)]
    high = replace(decided(h[1], "undecided", 3), low=0.84, high=1.0, reason="futile")
    records = [*proposed(h), measured(h[0]), decided(h[0], "reject"), measured(h[1], 3), high]
    run = closed(new_run(tmp_path), records)
    (row,) = results(run.folder, where="verdict = 'undecided'").to_pylist()
    assert RunView(run.folder).index()["reasons"] == {1: row["reason"]}
    assert row["reason"].startswith("futile: ")
    assert "on both sides" not in json.dumps(RunView(run.folder).index())
    assert RunView(few(tmp_path / "accepted").folder).index()["reasons"] == {}
