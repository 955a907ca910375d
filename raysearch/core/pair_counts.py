"""Where the pairs of a search went: for every variable, split and set, how many are used, and how
many were left out for which reason.

Invariants: a reason has the words and the way out that are shown everywhere (plan, run, results,
page, table).
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
        "beyond_max_pairs",
        "same_first_token",
        "keep",
    ]
)
"""Why a pair does not count for a variable. The first that holds, in the order in which a search
comes to them."""

WORDS: Mapping[Reason, tuple[str, str]] = {
    "beyond": ("more than a search can come to ask for", "raise pairs.{split}"),
    "disjoint": ("their values belong to several splits", "name less in pairs.disjoint"),
    "lacks_position": (
        "they lack {detail}",
        "leave that out of space.positions, or search it in a job of its own",
    ),
    "not_asked": ("there were enough before", "raise pairs.{split}"),
    "base_unsolved": (
        "the model does not answer the base as the causal model does",
        "pairs.solved_only: false keeps them",
    ),
    "source_unsolved": (
        "the model does not answer a source as the causal model does",
        "pairs.solved_only: false keeps them",
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
"""In words: what is so, and the way out."""


BLURRED: Reason = "same_first_token"
"""As a detail of pairs that are used, where keep pairs are: they pass for such, and are none."""
QUIET: tuple[Reason, ...] = ("beyond", "not_asked")
"""What every search has that has pairs enough: counted in the table, and not worth a line."""


@dataclass(frozen=True, slots=True)
class PairCount:
    """Pairs of a split (None: of several at once) and a set, with one fate for one variable.
    `reason` None: they are used.

    `detail`: what is lacking, or BLURRED.
    """

    variable: str
    split: Split | None
    set: str | None
    reason: Reason | None
    pairs: int
    detail: str = ""

    @property
    def why(self) -> str:
        """The reason in words; empty where they are used."""
        if self.reason is None:
            return f"they count, though {WORDS[BLURRED][0]}" if self.detail == BLURRED else ""
        return WORDS[self.reason][0].format(detail=self.detail)

    @property
    def way_out(self) -> str:
        """What would let them count; empty where they do."""
        if self.reason is None:
            return WORDS[BLURRED][1] if self.detail == BLURRED else ""
        return WORDS[self.reason][1].format(split=self.split)


def said(counts: Iterable[PairCount], split: Split) -> list[str]:
    """A line for each variable of which pairs of a split are left out: how many count, and why
    others do not. What was not asked for is not spoken of."""
    lines = []
    own = [c for c in counts if c.split in (split, None) and c.reason not in QUIET]
    for variable, of in groupby(sorted(own, key=lambda c: c.variable), key=lambda c: c.variable):
        lines += _line(variable, split, tuple(of))
    return lines


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
