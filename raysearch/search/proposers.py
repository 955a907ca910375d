"""Proposers: which hypotheses to test next, from what closed generations have shown.

Invariants: pure; the same knowledge gives the same proposals; a proposer never sees a generation that is still open, so that
what it proposes does not depend on the order in which results arrive.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from raysearch.search.hypothesis import Hypothesis
from raysearch.search.notes import Decided
from raysearch.search.space import HypothesisSpace


@dataclass(frozen=True, slots=True)
class Known:
    """What closed generations have shown: how many there were, and the verdict of each hypothesis by its id."""

    generations: int
    decided: Mapping[str, Decided]


class Proposer(Protocol):
    """Proposes one generation at a time; an empty one ends the search."""

    @property
    def name(self) -> str:
        """What `proposed_by` says in the tables."""
        ...

    def propose(self, known: Known) -> Iterable[Hypothesis]:
        """The next generation. Hypotheses that are already known are left out by the search."""
        ...


@dataclass(frozen=True)
class Exhaustive:
    """The whole space, at once."""

    space: HypothesisSpace
    name: str = "exhaustive"

    def propose(self, known: Known) -> Iterable[Hypothesis]:
        return () if known.generations else self.space
