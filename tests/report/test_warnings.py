"""Warnings about accepted hypotheses: each code where it is due, and nowhere else."""

from typing import Any

import pytest

from raysearch.report.warnings import WARNINGS, PairFacts, warning_lines, warnings_of

CLEAN: dict[str, Any] = {
    "variable": "v",
    "position": "here",
    "n": 40,
    "distinct": 40,
    "copies": 4,
    "low": 0.86,
    "holdout_iia": 0.95,
    "holdout_high": 0.99,
    "fit": None,
}


def pair(
    i: int, split: str = "test", v: int = 1, w: int = 2, other_at: int = 5, text: str | None = None
) -> dict[str, Any]:
    positions = [{"name": "here", "tokens": [3]}, {"name": "there", "tokens": [other_at]}]
    return {
        "split": split,
        "block": 0,
        "base_text": text or f"base {i}",
        "base_positions": positions,
        "base_answer_ids": [0],
        "sources": [{"text": f"source {i}", "positions": positions}],
        "counterfactual": [{"variable": "v", "ids": [v]}, {"variable": "w", "ids": [w]}],
    }


def facts(**changes: Any) -> PairFacts:
    return PairFacts([pair(i, **changes) for i in range(10)])


def test_an_accept_that_nothing_speaks_against_has_no_warning() -> None:
    assert warnings_of(CLEAN, facts(), (), 0.8) == []


@pytest.mark.parametrize(
    ("code", "row", "pairs", "as_well"),
    [
        ("copies_answer", {"copies": 35}, facts(), ()),
        ("few_distinct_pairs", {"distinct": 19}, facts(), ()),
        ("like_other_variable", {}, PairFacts([pair(i, w=1 + (i < 2)) for i in range(10)]), ()),
        (
            "inputs_trained_on",
            {"fit": "digest"},
            PairFacts([pair(i, split) for i in range(9) for split in ("test", "fit")]),
            (),
        ),
        ("control_does_as_well", {}, facts(), ("self_swap",)),
        ("same_tokens", {}, facts(other_at=3), ()),
        ("small_n", {"n": 29, "distinct": 29}, facts(), ()),
        ("holdout_below_interval", {"holdout_high": 0.85}, facts(), ()),
    ],
)
def test_each_warning_is_given_where_it_is_due(
    code: str, row: dict[str, Any], pairs: PairFacts, as_well: tuple[str, ...]
) -> None:
    assert warnings_of({**CLEAN, **row}, pairs, as_well, 0.8) == [code]


@pytest.mark.parametrize(
    ("row", "pairs"),
    [
        ({"copies": 34}, facts()),
        ({"distinct": 20}, facts()),
        ({"distinct": None}, facts()),
        ({}, PairFacts([pair(i, w=1 + (i < 3)) for i in range(10)])),
        ({}, PairFacts([pair(i, v=0, w=0) for i in range(10)])),
        ({}, PairFacts([pair(i, split) for i in range(9) for split in ("test", "fit")])),
        ({}, PairFacts([*(pair(i, other_at=3) for i in range(9)), pair(9)])),
        ({"position": None}, facts(other_at=3)),
        ({"holdout_high": None}, facts()),
        ({"holdout_high": 0.86}, facts()),
    ],
)
def test_a_warning_begins_where_it_says_and_no_earlier(
    row: dict[str, Any], pairs: PairFacts
) -> None:
    assert warnings_of({**CLEAN, **row}, pairs, (), 0.8) == []


def test_every_code_is_said_in_words_once_for_all_that_have_it() -> None:
    rows = [{"variable": v, "warnings": w} for v, w in (("a", "small_n"), ("b", "small_n"))]
    rows.append({"variable": "c", "warnings": None})
    (line,) = warning_lines(rows)
    assert line == f"small_n (2 accepted, a, b): {WARNINGS['small_n']}"
    assert len(warning_lines([{"variable": "a", "warnings": ", ".join(WARNINGS)}])) == len(WARNINGS)
