"""What a sampler or a file gave: the pairs that are kept, and how many were left out, and why.

Invariants: a pair that was drawn or read is kept or counted here.
"""

from dataclasses import dataclass
from typing import Literal

from raysearch.causal.pairs import Pair, Split

LeftOutReason = Literal["beyond", "disjoint", "lacks_position"]
"""Why a pair is left out before any model sees it. beyond: its split has all that can be asked for;
disjoint: its values belong to several splits (pairs.disjoint); lacks_position: one of its inputs
lacks a position that the job names."""


@dataclass(frozen=True, slots=True)
class LeftOutCount:
    """So many pairs of a split (None: of several at once) and a set were left out for one reason.
    `detail`: the positions they lack."""

    reason: LeftOutReason
    split: Split | None
    set: str | None
    pairs: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PairSample:
    """Pairs in the order of the run, and what was left out on the way to them."""

    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOutCount, ...] = ()
