"""Warnings about accepted hypotheses: short codes, as data, and the same in words.

Invariants: a code is a function of the tables of a run alone, so that it is the same wherever it is
shown; a code is listed once, with its words.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property

from raysearch.report.control_comparison import ControlComparison
from raysearch.report.row_sequence import TableRow
from raysearch.stats.evidence import MATCHINGS

PAIR_COLUMNS = (
    "split",
    "block",
    "base_text",
    "base_tensor",
    "base_positions",
    "sources",
)
"""The columns of pairs.parquet that warnings need."""

SMALL_N = 30
"""Pairs below which an accept is called small: of 28, all matches, the 95 % interval begins below
.8, so that a fifth of all rates is left open (20 (n + 1) p^n = 1 at p = .797; .807 of 30)."""
FEW = 0.5
"""Share of different pairs among the n below which they are called few: n draws of a sampler with
D equally likely pairs have that share at n = 1.6 D (D (1 - e^(-n / D)) = n / 2), so that it is seen
from D below 0.63 n on, where listing the domain would be exact with fewer pairs."""
TRAINED = 0.5
"""Share of a test's inputs that were trained on from which it is said."""

WARNINGS: Mapping[str, str] = {
    "copies_answer": "putting in the source's own answer would have matched as often, as far as "
    "its pairs can tell: the site may carry that answer, and not the variable",
    "few_distinct_pairs": "fewer than half of its pairs are different ones",
    "like_other_variable": "its outputs are as often what another variable would make of them, as "
    "far as its pairs can tell",
    "inputs_trained_on": "half of the inputs of its test pairs, or more, are also inputs of pairs "
    "that subspaces were trained on: only the pairs are new",
    "pairs_used_before": "another run of the store tested on some of the same pairs: a hypothesis "
    "that was chosen by what it saw looks better on them than it is, and K counts this run alone",
    "control_does_as_well": "it is not shown to do better than a control: the IIA is no evidence "
    "for this site",
    "not_above_baseline": "a policy that looks into no network is right on so many of the same "
    "pairs that it is not shown to do better",
    "same_tokens": "another position of the job, named in brackets, has the same tokens in every "
    "test pair, so that the two are one site",
    "small_n": f"it rests on fewer than {SMALL_N} pairs; for a claim about new values only pairs "
    "that share no value count, a quarter of n",
    "few_distinct_holdout_pairs": "fewer than half of its holdout pairs are different ones: the "
    "interval on the holdout holds for draws like these, and is too narrow for other pairs",
    "holdout_below_interval": "its interval on the holdout lies below that on the test pairs",
}
"""Each code in words, in the order in which they are shown."""


def warning_words(code: str) -> str:
    """Returns a code in words; what it names in brackets stands in the code itself."""
    return WARNINGS.get(_kind(code), code)


def _kind(code: str) -> str:
    """Returns a code without what it names in brackets."""
    return code.partition("(")[0]


def warnings_of(
    compared: ControlComparison, pairs: "PairFacts", used_before: bool = False
) -> list[str]:
    """Returns the codes of an accepted hypothesis; `same_tokens(NAME)` names the other position.

    Comparisons go by the paired test alone (`control_comparison.py`).

    Args:
        used_before: whether another run of the store tested on some of its pairs.
    """
    row = compared.row
    n, held, different = row["n"], row["holdout_n"], row["holdout_distinct"]
    if row.get("population") == "new_values":
        # Each value is in a pair of each matching, and matchings of a block of two values repeat
        # its two pairs by design: both rules go by the pairs of one matching, which share no value.
        n /= MATCHINGS
    same = pairs.same_tokens(row["position"])
    rules: Mapping[str, Callable[[], bool]] = {
        "copies_answer": lambda: compared.copies,
        "few_distinct_pairs": lambda: (row["distinct"] or n) < FEW * n,
        "like_other_variable": lambda: bool(compared.alike),
        "inputs_trained_on": lambda: row["fit"] is not None and pairs.trained_share >= TRAINED,
        "pairs_used_before": lambda: used_before,
        "control_does_as_well": lambda: bool(compared.as_well),
        "not_above_baseline": lambda: compared.beats_policy is False,
        "same_tokens": lambda: same is not None,
        "small_n": lambda: n < SMALL_N,
        "few_distinct_holdout_pairs": lambda: (
            None not in (held, different) and different < FEW * held
        ),
        "holdout_below_interval": lambda: (
            None not in (row["holdout_high"], row["low"]) and row["holdout_high"] < row["low"]
        ),
    }
    codes = [code for code in WARNINGS if rules[code]()]
    return [f"{c}({_joinable(same)})" if c == "same_tokens" and same else c for c in codes]


def _joinable(name: str) -> str:
    """Returns a name as it may stand in a list of codes, which are separated by ", "."""
    return re.sub(r",\s+", ",", name)


def warning_lines(rows: Sequence[TableRow]) -> list[str]:
    """Returns a line for each code that accepted hypotheses have, with their number."""
    having: dict[str, list[str]] = {}
    for row in rows:
        for code in (row["warnings"] or "").split(", "):
            having.setdefault(code, []).append(row["variable"])
    having.pop("", None)
    lines = []
    order = {kind: number for number, kind in enumerate(WARNINGS)}
    for code in sorted(having, key=lambda code: order.get(_kind(code), len(order))):
        variables = having[code]
        of = "1 accepted hypothesis" if len(variables) == 1 else f"{len(variables)} accepted"
        lines.append(f"{code} ({of}, {_named(variables)}): {warning_words(code)}")
    return lines


def _named(variables: Sequence[str]) -> str:
    names = list(dict.fromkeys(variables))
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


class PairFacts:
    """Facts about the pairs of a run that weaken its verdicts.

    Args:
        pairs: the rows of pairs.parquet, with PAIR_COLUMNS.
    """

    def __init__(self, pairs: Sequence[TableRow]) -> None:
        self._test = [p for p in pairs if p["split"] == "test" and p["block"] is not None]
        self._fit = [p for p in pairs if p["split"] == "fit" and p["block"] is not None]

    @cached_property
    def trained_share(self) -> float:
        """Share of the inputs of test pairs that are inputs of fit pairs."""
        fit = {content for p in self._fit for content in _inputs(p)}
        test = {content for p in self._test for content in _inputs(p)}
        return len(test & fit) / len(test) if test else 0.0

    def same_tokens(self, position: str | None) -> str | None:
        """Returns the name of another position that has the same tokens of base and sources in
        every pair; None if there is none."""
        places = [
            {p["name"]: p["tokens"] for p in side or ()}
            for pair in self._test
            for side in (pair["base_positions"], *(s["positions"] for s in pair["sources"]))
        ]
        if position is None or not places or any(not at.get(position) for at in places):
            return None
        others = (name for name in places[0] if name != position)
        return next((o for o in others if all(at.get(o) == at[position] for at in places)), None)


def _inputs(pair: TableRow) -> list[Hashable]:
    """Returns the contents of base and sources: texts, or the numbers of tensors."""
    both = [(pair["base_text"], pair.get("base_tensor"))]
    both += [(s["text"], s.get("tensor")) for s in pair["sources"]]
    return [
        text if of is None else (of["dtype"], tuple(of["shape"]), of["data"]) for text, of in both
    ]
