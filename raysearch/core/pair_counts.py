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
    "beyond_max_pairs": ("behind the last pair that the test may use", "raise test.max_pairs"),
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
            return (
                f"they count, though {REASON_TEXTS[AMBIGUOUS][0]}"
                if self.detail == AMBIGUOUS
                else ""
            )
        return REASON_TEXTS[self.reason][0].format(detail=self.detail)

    @property
    def way_out(self) -> str:
        """The remedy in words; empty if they are used."""
        if self.reason is None:
            return REASON_TEXTS[AMBIGUOUS][1] if self.detail == AMBIGUOUS else ""
        return REASON_TEXTS[self.reason][1].format(split=self.split)


def describe_counts(counts: Iterable[PairCount], split: Split) -> list[str]:
    """Returns a line for each variable with pairs left out: how many count, and why others do not.

    Reasons in UNREPORTED are left out.
    """
    lines = []
    own = [c for c in counts if c.split in (split, None) and c.reason not in UNREPORTED]
    for variable, of in groupby(sorted(own, key=lambda c: c.variable), key=lambda c: c.variable):
        lines += _line(variable, split, tuple(of))
    return lines


def summarise_counts(counts: Iterable[PairCount], split: Split) -> list[str]:
    """Returns the same in a line for each set of reasons, over all variables that have it."""
    own = [c for c in counts if c.split in (split, None) and c.reason not in UNREPORTED]
    alike: dict[tuple[str, ...], list[tuple[int, int, str]]] = {}
    for variable, of in groupby(sorted(own, key=lambda c: c.variable), key=lambda c: c.variable):
        found = list(of)
        if why := tuple(dict.fromkeys(f"{c.why} ({c.way_out})" for c in found if c.why)):
            used = sum(c.pairs for c in found if c.reason is None)
            alike.setdefault(why, []).append((used, sum(c.pairs for c in found), variable))
    return [f"{_range(sorted(of), split)}; others: {'; '.join(why)}" for why, of in alike.items()]


def _range(of: Sequence[tuple[int, int, str]], split: Split) -> str:
    """Says how many pairs count for the variables that use the fewest and the most."""
    (fewest, drawn, first), (most, most_drawn, last) = of[0], of[-1]
    if len(of) == 1:
        return f"{first}: {fewest} of {drawn} {split} pairs count"
    whole = f"{drawn}" if drawn == most_drawn else f"{drawn} to {most_drawn}"
    if fewest == most:
        return f"{len(of)} variables: {fewest} of {whole} {split} pairs count for each"
    return f"{fewest} ({first}) to {most} ({last}) of {whole} {split} pairs count"


def _line(variable: str, split: Split, counts: Sequence[PairCount]) -> list[str]:
    left: Counter[tuple[str, str]] = Counter()
    for c in counts:
        if c.why:
            left[c.why, c.way_out] += c.pairs
    if not left:
        return []
    used, drawn = sum(c.pairs for c in counts if c.reason is None), sum(c.pairs for c in counts)
    why = "; ".join(f"{n}: {why} ({out})" for (why, out), n in left.items())
    return [f"{variable}: {used} of {drawn} {split} pairs count; {why}"]
