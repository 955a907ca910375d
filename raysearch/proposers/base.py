"""Proposers: which hypotheses to test next, from what closed generations have shown.

Invariants: pure; the same knowledge gives the same proposals; a proposer never sees a generation
that is still open, so that what it proposes does not depend on the order in which results arrive.
What is not fit is proposed once, for all variables that are to be asked of it, since one intervened
run serves them all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from raysearch.core.hypothesis import Hypothesis, Unit
from raysearch.core.records import Decided
from raysearch.core.space import HypothesisSpace
from raysearch.errors import SearchFailedError

Effects = Mapping[str, Mapping[Unit, float | None]]
"""By variable and unit (the whole vector) what its interchange would do on fit pairs; None where it
cannot be interchanged on one."""

NOT_ASKED: Effects = MappingProxyType({})
"""Where nobody asked for effects."""


@dataclass(frozen=True, slots=True)
class History:
    """What closed generations have shown: how many there were, and the verdict of each hypothesis
    by its id.

    `effects`: from fit pairs alone, made before the first generation, for a proposer that asks for
    them.
    """

    generations: int
    decided: Mapping[str, Decided]
    effects: Effects = field(default_factory=lambda: NOT_ASKED)


class Proposer(Protocol):
    """Proposes one generation at a time; an empty one ends the search."""

    @property
    def name(self) -> str:
        """What `proposed_by` says in the tables."""
        ...

    @property
    def most(self) -> int | None:
        """K: how many hypotheses there are in the set, fixed before the first pair, that all
        proposals are from. None: no such set."""
        ...

    def propose(self, known: History) -> Iterable[Hypothesis]:
        """The next generation. Hypotheses that are already known are left out by the search."""
        ...


@dataclass(frozen=True)
class Exhaustive:
    """The whole space, at once."""

    space: HypothesisSpace
    name: str = "exhaustive"

    @property
    def most(self) -> int:
        return len(self.space)

    def propose(self, known: History) -> Iterable[Hypothesis]:
        return () if known.generations else self.space


class AlphaSpending:
    """How the chance of a false accept is spent where proposals are from no set fixed before: the
    j-th spends its 1/(j(j+1)).

    j counts in order of (generation, id), so that it depends on no order of arrival. Controls spend
    nothing; one is judged as the latest proposal was. Raises: SearchFailedError for more proposals
    than a proposer said there could be.
    """

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._proposed = 0
        self._of: dict[str, int] = {}

    def enter(self, hypotheses: Iterable[Hypothesis]) -> None:
        """Those of a generation that are new."""
        for hypothesis in sorted(hypotheses, key=lambda h: h.id):
            self._proposed += hypothesis.intervention.control is None
            if self._proposer.most is None:
                self._of[hypothesis.id] = self._proposed * (self._proposed + 1)
        if self._proposer.most is not None and self._proposed > self._proposer.most:
            raise SearchFailedError(
                f"propose.use: {self._proposer.name} says that its proposals are from "
                f"{self._proposer.most} hypotheses (most), and has "
                f"made {self._proposed}; let most say how many there are, or be None"
            )

    def of(self, hypothesis: Hypothesis) -> int | None:
        """At which K it is judged; None: at the one that all share."""
        return self._of.get(hypothesis.id)
