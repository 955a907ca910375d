"""Warnings about accepted hypotheses: short codes, as data, and the same in words.

Invariants: a code is a function of the tables of a run alone, so that it is the same wherever it is
shown; a code is listed once, with its words.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

Row = Mapping[str, Any]

PAIR_COLUMNS = (
    "split",
    "block",
    "base_text",
    "base_positions",
    "base_answer_ids",
    "sources",
    "counterfactual",
)
"""The columns of pairs.parquet that warnings need."""

SMALL_N = 30
"""Pairs below which an accept is called small."""
FEW = 0.5
"""Share of different pairs among the n below which they are called few."""
TRAINED = 0.5
"""Share of a test's inputs that were trained on from which it is said."""

WARNINGS: Mapping[str, str] = {
    "copies_answer": "putting in the source's own answer would have matched as often: the site may "
    "carry that answer, and not the variable",
    "few_distinct_pairs": "fewer than half of its pairs are different ones",
    "like_other_variable": "another variable predicts the same answers on so many pairs that a "
    "site which carries that one would be accepted too",
    "inputs_trained_on": "half of the inputs of its test pairs, or more, are also inputs of pairs "
    "that subspaces were trained on: only the pairs are new",
    "control_does_as_well": "a control does as well: the IIA is no evidence for this site",
    "not_above_baseline": "a policy that looks into no network is right on so many of the same pairs "
    "that it is not shown to do better",
    "same_tokens": "another position of the job is the same token in every test pair, so that the "
    "two are one site",
    "small_n": f"it rests on fewer than {SMALL_N} pairs",
    "holdout_below_interval": "its IIA on the holdout is below its interval on the test pairs",
}
"""Each code in words, in the order in which they are shown."""


def warnings_of(
    row: Row, pairs: "PairFacts", as_well: Sequence[str], threshold: float
) -> list[str]:
    """Returns the codes of an accepted hypothesis.

    Args:
        row: its row of `results`.
        as_well: its controls that do as well.
    """
    rules: Mapping[str, Callable[[], bool]] = {
        "copies_answer": lambda: (
            None not in (row["copies"], row["low"]) and row["copies"] >= row["low"] * row["n"]
        ),
        "few_distinct_pairs": lambda: (row["distinct"] or row["n"]) < FEW * row["n"],
        "like_other_variable": lambda: pairs.has_like(row["variable"], 1 - threshold),
        "inputs_trained_on": lambda: row["fit"] is not None and pairs.trained_share >= TRAINED,
        "control_does_as_well": lambda: bool(as_well),
        "not_above_baseline": lambda: row.get("margin_low") is not None and row["margin_low"] <= 0,
        "same_tokens": lambda: pairs.has_same_tokens(row["position"]),
        "small_n": lambda: row["n"] < SMALL_N,
        "holdout_below_interval": lambda: (
            None not in (row["holdout_iia"], row["low"]) and row["holdout_iia"] < row["low"]
        ),
    }
    return [code for code in WARNINGS if rules[code]()]


def warning_lines(rows: Sequence[Row]) -> list[str]:
    """Returns a line for each code that accepted hypotheses have, with their number."""
    having: dict[str, list[str]] = {}
    for row in rows:
        for code in (row["warnings"] or "").split(", "):
            having.setdefault(code, []).append(row["variable"])
    lines = []
    for code, words in WARNINGS.items():
        if variables := having.get(code):
            of = "1 accepted hypothesis" if len(variables) == 1 else f"{len(variables)} accepted"
            lines.append(f"{code} ({of}, {_named(variables)}): {words}")
    return lines


def _named(variables: Sequence[str]) -> str:
    names = list(dict.fromkeys(variables))
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


class PairFacts:
    """Facts about the pairs of a run that weaken its verdicts.

    Args:
        pairs: the rows of pairs.parquet, with PAIR_COLUMNS.
    """

    def __init__(self, pairs: Sequence[Row]) -> None:
        self._test = [p for p in pairs if p["split"] == "test" and p["block"] is not None]
        self._fit = [p for p in pairs if p["split"] == "fit" and p["block"] is not None]

    def has_like(self, variable: str, share: float) -> bool:
        """Whether another variable's counterfactual differs on at most a share of the variable's
        change pairs.
        """
        changing = [
            answers
            for p in self._test
            if (answers := {c["variable"]: c["ids"] for c in p["counterfactual"]})[variable]
            != p["base_answer_ids"]
        ]
        return any(
            other != variable
            and sum(a[other] != a[variable] for a in changing) <= share * len(changing) + 1e-9
            for other in (changing[0] if changing else ())
        )

    @cached_property
    def trained_share(self) -> float:
        """Share of the inputs of test pairs that are inputs of fit pairs."""
        fit = {t for p in self._fit for t in _texts(p)}
        test = {t for p in self._test for t in _texts(p)}
        return len(test & fit) / len(test) if test else 0.0

    def has_same_tokens(self, position: str | None) -> bool:
        """Whether another named position has the same tokens of base and sources in every pair."""
        places = [
            {p["name"]: p["tokens"] for p in side or ()}
            for pair in self._test
            for side in (pair["base_positions"], *(s["positions"] for s in pair["sources"]))
        ]
        if position is None or not places or any(not at.get(position) for at in places):
            return False
        return any(
            other != position and all(at.get(other) == at[position] for at in places)
            for other in places[0]
        )


def _texts(pair: Row) -> list[str]:
    texts = (pair["base_text"], *(s["text"] for s in pair["sources"]))
    return [text for text in texts if text is not None]
