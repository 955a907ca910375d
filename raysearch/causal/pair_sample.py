"""The result of drawing or reading pairs: the pairs, and how many were left out and why.

Invariants: every pair that was drawn or read is in the sample or counted as left out.
"""

from dataclasses import dataclass
from typing import Literal

from raysearch.causal.pairs import Pair, Split

LeftOutReason = Literal["beyond", "disjoint", "lacks_position", "used_before"]
"""Why a pair is left out before any model sees it: its split has enough pairs ("beyond"), its
values belong to several splits (pairs.disjoint; "disjoint"), one of its inputs lacks a position
that the job names ("lacks_position"), or another run tested on it (pairs.fresh; "used_before").
"""


@dataclass(frozen=True, slots=True)
class LeftOutCount:
    """A number of pairs of a split (None: of several) and a set that were left out for one reason.

    `detail` names the positions that they lack.
    """

    reason: LeftOutReason
    split: Split | None
    set: str | None
    pairs: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PairSample:
    """Pairs in the order of the run, with counts of those left out.

    Args:
        values: number of values that are held out for the test (pairs.disjoint); None if there are
            none, or the domain of a variable is not declared.
        listed: whether the test pairs are all pairs of the domain, each once, in a random order.
    """

    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOutCount, ...] = ()
    values: int | None = None
    listed: bool = False
