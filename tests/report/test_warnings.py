"""Warnings about accepted hypotheses: each code where it is due, and nowhere else."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from raysearch.causal import Split
from raysearch.causal.value_matchings import matched_values
from raysearch.core.events import Event, Screened, Task
from raysearch.report.control_comparison import ControlComparison
from raysearch.report.results_table import read_results, results
from raysearch.report.run_results import compare_controls
from raysearch.report.warnings import WARNINGS, PairFacts, _joinable, warning_lines, warnings_of
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.stats.evidence import MATCHINGS, looks
from raysearch.storage.open_folder import open_folder
from tests.search.worlds import World
from tests.test_check_run import run_of

CLEAN: dict[str, Any] = {
    "variable": "v",
    "position": "here",
    "n": 40,
    "distinct": 40,
    "low": 0.86,
    "holdout_iia": 0.95,
    "holdout_high": 0.99,
    "holdout_n": 40,
    "holdout_distinct": 40,
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


def compared(row: dict[str, Any], **found: Any) -> ControlComparison:
    return ControlComparison({**CLEAN, **row}, {}, **{"as_well": (), **found})


def test_an_accept_that_nothing_speaks_against_has_no_warning() -> None:
    assert warnings_of(compared({}), facts()) == []


@pytest.mark.parametrize(
    ("code", "row", "pairs", "found"),
    [
        ("copies_answer", {}, facts(), {"copies": True}),
        ("few_distinct_pairs", {"distinct": 19}, facts(), {}),
        ("like_other_variable", {}, facts(), {"alike": ("w",)}),
        ("not_above_baseline", {"margin_low": 0.0}, facts(), {}),
        (
            "inputs_trained_on",
            {"fit": "digest"},
            PairFacts([pair(i, split) for i in range(9) for split in ("test", "fit")]),
            {},
        ),
        ("control_does_as_well", {}, facts(), {"as_well": ("self_swap",)}),
        ("same_tokens(there)", {}, facts(other_at=3), {}),
        ("small_n", {"n": 29, "distinct": 29}, facts(), {}),
        ("few_distinct_holdout_pairs", {"holdout_distinct": 19}, facts(), {}),
        ("holdout_below_interval", {"holdout_high": 0.85}, facts(), {}),
    ],
)
def test_each_warning_is_given_where_it_is_due(
    code: str, row: dict[str, Any], pairs: PairFacts, found: dict[str, Any]
) -> None:
    assert warnings_of(compared(row, **found), pairs) == [code]


def test_pairs_that_another_run_tested_on_are_warned_about() -> None:
    assert warnings_of(compared({}), facts(), used_before=True) == ["pairs_used_before"]


@pytest.mark.parametrize(
    ("row", "pairs"),
    [
        ({"distinct": 20}, facts()),
        ({"distinct": None}, facts()),
        ({"margin_low": 0.01}, facts()),
        ({}, PairFacts([pair(i, split) for i in range(9) for split in ("test", "fit")])),
        ({}, PairFacts([*(pair(i, other_at=3) for i in range(9)), pair(9)])),
        ({"position": None}, facts(other_at=3)),
        ({"holdout_distinct": 20}, facts()),
        ({"holdout_distinct": None}, facts()),
        ({"holdout_high": None, "holdout_n": None}, facts()),
        ({"holdout_high": 0.86}, facts()),
    ],
)
def test_a_warning_begins_where_it_says_and_no_earlier(
    row: dict[str, Any], pairs: PairFacts
) -> None:
    assert warnings_of(compared(row), pairs) == []


def tensor(i: int, split: str, of: int) -> dict[str, Any]:
    """A pair whose inputs are numbers."""
    base, source = ({"dtype": "float32", "shape": [1], "data": bytes([n])} for n in (i, of))
    sources = [{"text": None, "tensor": source, "positions": []}]
    return {**pair(i, split), "base_text": None, "base_tensor": base, "sources": sources}


@pytest.mark.parametrize(("shift", "codes"), [(0, ["inputs_trained_on"]), (100, [])])
def test_inputs_that_are_numbers_are_trained_on_as_texts_are(shift: int, codes: list[str]) -> None:
    test = [tensor(i, "test", i + 20) for i in range(9)]
    fit = [tensor(i + shift, "fit", i + shift + 20) for i in range(9)]
    assert warnings_of(compared({"fit": "digest"}), PairFacts([*test, *fit])) == codes


@pytest.mark.parametrize(
    ("population", "n", "distinct", "codes"),
    [
        ("new_values", 119, 50, ["small_n"]),
        ("new_values", 120, 50, []),
        ("new_values", 120, 15, []),
        ("new_values", 120, 14, ["few_distinct_pairs"]),
        ("sampler", 119, 119, []),
        ("sampler", 119, 59, ["few_distinct_pairs"]),
    ],
)
def test_of_new_values_the_pairs_of_one_matching_are_counted(
    population: str, n: int, distinct: int, codes: list[str]
) -> None:
    row = {"population": population, "n": n, "distinct": distinct}
    assert warnings_of(compared(row), facts()) == codes


@pytest.mark.parametrize("seed", range(5))
def test_matchings_of_new_values_that_are_as_they_should_be_are_not_called_few(seed: int) -> None:
    values = [str(i) for i in range(80)]
    drawn = matched_values(values, looks(40), MATCHINGS, random.Random(seed))
    row = {
        "population": "new_values",
        "n": len(drawn),
        "distinct": len({(base, source) for _, base, source in drawn}),
    }
    assert warnings_of(compared(row), facts()) == []


def test_every_code_is_said_in_words_once_for_all_that_have_it() -> None:
    rows = [{"variable": v, "warnings": w} for v, w in (("a", "small_n"), ("b", "small_n"))]
    rows.append({"variable": "c", "warnings": None})
    (line,) = warning_lines(rows)
    assert line == f"small_n (2 accepted, a, b): {WARNINGS['small_n']}"
    assert len(warning_lines([{"variable": "a", "warnings": ", ".join(WARNINGS)}])) == len(WARNINGS)


@dataclass
class Copied(World):
    """A world in which the source's answer is v's counterfactual on a share `same` of the pairs."""

    same: float = 0.0

    def _expected(self, pair: int, split: Split) -> ExpectedAnswers:
        e = super()._expected(pair, split)
        is_same = random.Random(f"same {pair}").random() < self.same
        return replace(e, sources={"source": e.counterfactual["v"]}) if is_same else e

    def run(self, task: Task) -> list[Event]:
        return [
            replace(e, sources={"source": tuple(self.pairs[p].sources["source"] for p in e.pairs)})
            if isinstance(e, Screened)
            else e
            for e in super().run(task)
        ]


@pytest.mark.parametrize(
    ("same", "copies"), [(1.0, True), (0.97, True), (0.5, False), (0.0, False)]
)
def test_a_site_that_matches_no_more_often_than_the_sources_answer_would_is_said_to_copy(
    same: float, copies: bool, tmp_path: Path
) -> None:
    world = Copied(2, layers=1, rates=lambda layer: 0.97, same=same)
    run = open_folder(run_of(world, tmp_path))
    found = next(b for b in compare_controls(read_results(run)) if b.row["variable"] == "v")
    assert found.copies is copies
    codes = results(run, accepted=True, variable="v").to_pylist()[0]["warnings"]
    assert ("copies_answer" in codes) is copies


def test_a_position_of_the_same_tokens_is_named_wherever_the_warning_is_shown() -> None:
    rows = [{"variable": "a", "warnings": "same_tokens(there), small_n"}]
    said, _ = warning_lines(rows)
    assert said == f"same_tokens(there) (1 accepted hypothesis, a): {WARNINGS['same_tokens']}"
    comma = [pair(i, other_at=3) for i in range(9)]
    for one in comma:
        one["base_positions"][1]["name"] = "a, b"
    assert warnings_of(compared({}), PairFacts(comma)) == ["same_tokens(a,b)"]


def test_a_position_whose_name_has_commas_and_blanks_breaks_no_list_of_codes() -> None:
    assert _joinable("a,  b, c") == "a,b,c"
    lines = warning_lines([{"warnings": "same_tokens(a, b), small_n", "variable": "x"}])
    assert len(lines) == 3, "a code that is not known, of an older table, is told as it stands"
