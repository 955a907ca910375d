"""Generations: which hypotheses enter the search next; the controls of what was accepted come before new proposals.

Invariants: the proposer is asked only once the generation before is closed, and never again after it has proposed nothing new; a
control has no controls of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.search.controls import controls_of
from raysearch.search.hypothesis import Hypothesis
from raysearch.search.notes import Decided
from raysearch.search.proposers import Known, Proposer


@dataclass(frozen=True, slots=True)
class Generation:
    """Hypotheses that enter together; `by`: what `proposed_by` says in the tables."""

    hypotheses: Sequence[Hypothesis]
    by: str
    number: int


class Generations:
    """Accepted hypotheses in, generations out. `controls`: which are tested beside every accepted hypothesis."""

    def __init__(self, proposer: Proposer, controls: Sequence[str]) -> None:
        self._proposer = proposer
        self._controls = tuple(controls)
        self._uncontrolled: list[Hypothesis] = []
        self._count = 0
        self._silent = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._silent and not self._uncontrolled

    def accepted(self, hypothesis: Hypothesis) -> None:
        """Its controls are in the next generation."""
        if hypothesis.intervention.control is None:
            self._uncontrolled.append(hypothesis)

    def next(self, decided: Mapping[str, Decided], size_of: Callable[[Hypothesis], int | None]) -> Generation | None:
        """The next generation, now that all before are `decided`. `size_of`: how many features the subspace has that training found."""
        if self._uncontrolled:
            controls = [c for h in self._uncontrolled for c in controls_of(h, self._controls, size_of(h))]
            self._uncontrolled = []
            return Generation(controls, "control", self._count - 1)
        if self._silent:
            return None
        judged = {k: d for k, d in decided.items() if d.hypothesis.intervention.control is None}
        proposals = list(self._proposer.propose(Known(self._count, judged)))
        self._silent = all(h.id in decided for h in proposals)
        self._count += 1
        return Generation(proposals, self._proposer.name, self._count - 1)
