"""Counts of the pairs of a search: for every variable, split and set, how many are used or left
out, and why.

Invariants: a reason has the same words and the same remedy wherever it is shown (plan, run,
results, page, table).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from raysearch.causal import LeftOutReason, Split

Reason = (
    LeftOutReason
    | Literal[
        "not_asked",
        "base_unsolved",
        "source_unsolved",
        "trained_on",
        "tested",
        "beyond_max_pairs",
        "same_first_token",
        "keep",
    ]
)
"""Why a pair does not count for a variable: the first reason that applies, in the order in which a
search checks them.
"""

REASON_TEXTS: Mapping[Reason, tuple[str, str]] = {
    "beyond": ("more than a search can come to ask for", "raise pairs.{split}"),
    "disjoint": ("their values belong to several splits", "name less in pairs.disjoint"),
    "lacks_position": (
        "they lack {detail}",
        "leave that out of space.positions, or search it in a job of its own",
    ),
    "used_before": ("another run of the store tested on them", "leave out pairs.fresh"),
    "not_asked": ("there were enough before", "raise pairs.{split}"),
    "base_unsolved": (
        "the model does not answer the base as the causal model does",
        "pairs.solved_only: false keeps them",
    ),
    "source_unsolved": (
        "the model does not answer a source as the causal model does",
        "pairs.solved_only: false keeps them",
    ),
    "trained_on": (
        "they are pairs that subspaces are trained on",
        "a larger domain, or a smaller pairs.fit, leaves more",
    ),
    "tested": (
        "they are pairs that hypotheses are tested on",
        "a larger domain, or a smaller pairs.test, leaves more",
    ),
    "beyond_max_pairs": (
        "behind the last pair that the test may use",
        "raise test.max_pairs, of a fixed test test.pairs",
    ),
    "same_first_token": (
        "the counterfactual begins with the same token as the base's answer, so that the two "
        "cannot be told apart",
        "answer.compare: sequence",
    ),
    "keep": (
        "the variable leaves the base's answer as it is",
        "pairs.kinds: both lets them decide too",
    ),
}
"""Each reason in words, and its remedy."""


AMBIGUOUS: Reason = "same_first_token"
"""Detail of pairs that are used though they look like keep pairs by the compared tokens, and are
none.
"""
_COUNTED = "they count, though"
"""Begins the reason of such pairs."""
UNREPORTED: tuple[Reason, ...] = ("beyond", "not_asked")
"""Reasons that every search with enough pairs has: counted in the table, and not worth a line."""


@dataclass(frozen=True, slots=True)
class PairCount:
    """A number of pairs of a split (None: of several) and a set with the same result for one
    variable.

    Args:
        reason: why they are left out; None if they are used.
        detail: the positions that they lack, or AMBIGUOUS.
    """

    variable: str
    split: Split | None
    set: str | None
    reason: Reason | None
    pairs: int
    detail: str = ""

    @property
    def why(self) -> str:
        """The reason in words; empty if they are used."""
        if self.reason is None:
            return f"{_COUNTED} {REASON_TEXTS[AMBIGUOUS][0]}" if self.detail == AMBIGUOUS else ""
        return REASON_TEXTS[self.reason][0].format(detail=self.detail)

    @property
    def way_out(self) -> str:
        """The remedy in words; empty if they are used."""
        if self.reason is None:
            return REASON_TEXTS[AMBIGUOUS][1] if self.detail == AMBIGUOUS else ""
        return REASON_TEXTS[self.reason][1].format(split=self.split)


def summarise_counts(counts: Iterable[PairCount], split: Split) -> list[str]:
    """Returns a line for each set of reasons, over all variables that have it: how many pairs
    count, and why others do not.

    Reasons in UNREPORTED are left out.
    """
    own = [c for c in counts if c.split in (split, None) and c.reason not in UNREPORTED]
    alike: dict[tuple[str, ...], list[tuple[int, int, str]]] = {}
    left: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for variable, of in groupby(sorted(own, key=lambda c: c.variable), key=lambda c: c.variable):
        found = list(of)
        if why := _left(found):
            used = sum(c.pairs for c in found if c.reason is None)
            texts = tuple(why)
            alike.setdefault(texts, []).append((used, sum(c.pairs for c in found), variable))
            left.setdefault(texts, []).append(tuple(why.values()))
    return [f"{_range(sorted(of), split)}; {_why(why, left[why])}" for why, of in alike.items()]


def _left(counts: Sequence[PairCount]) -> Counter[str]:
    """Counts the pairs of one variable by reason and remedy, in words."""
    left: Counter[str] = Counter()
    for c in counts:
        if c.why:
            left[f"{c.why} ({c.way_out})"] += c.pairs
    return left


def _why(reasons: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Says each reason after its fewest and most pairs of any variable; one that all others have
    needs no number."""
    if len(reasons) == 1 and not reasons[0].startswith(_COUNTED):
        return f"others: {reasons[0]}"
    ends = [(min(of), max(of)) for of in zip(*counts, strict=True)]
    return "; ".join(
        f"{low if low == high else f'{low} to {high}'}: {text}"
        for text, (low, high) in zip(reasons, ends, strict=True)
    )


def _range(of: Sequence[tuple[int, int, str]], split: Split) -> str:
    """Says how many pairs count for the variables that use the fewest and the most."""
    (fewest, drawn, first), (most, most_drawn, last) = of[0], of[-1]
    if len(of) == 1:
        return f"{first}: {fewest} of {drawn} {split} pairs count"
    whole = f"{drawn}" if drawn == most_drawn else f"{drawn} to {most_drawn}"
    if fewest == most:
        return f"{len(of)} variables: {fewest} of {whole} {split} pairs count for each"
    return f"{fewest} ({first}) to {most} ({last}) of {whole} {split} pairs count"
