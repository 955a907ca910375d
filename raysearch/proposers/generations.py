"""Generations: which hypotheses enter the search next; the controls of what was accepted come
before new proposals.

Invariants: the proposer is asked only once the generation before is closed, and never again after
it has proposed nothing new, unless failures are tried again; a control has no controls of its own;
what is fit warm has controls that are fit warm, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.core.controls import controls_of
from raysearch.core.fitted_interventions import is_rotation, size_of_rotation, without_size
from raysearch.core.hypothesis import Hypothesis
from raysearch.core.records import Decided
from raysearch.errors import SearchFailedError
from raysearch.proposers.base import NO_EFFECTS, Effects, History, Proposer

MOST_PROPOSED = 10_000_000
"""Hypotheses that are taken of one generation, repeats counted."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Hypotheses that enter together; `by`: what `proposed_by` says in the tables."""

    hypotheses: Sequence[Hypothesis]
    by: str
    number: int


class Generations:
    """Accepted hypotheses in, generations out. `controls`: which are tested beside every accepted
    hypothesis.

    `warm_start`: rotations begin within larger ones; so the controls of the larger ones are fit as
    well, or those of the accepted would have begun at random, and flattered them.
    """

    def __init__(
        self, proposer: Proposer, controls: Sequence[str], warm_start: bool = False
    ) -> None:
        self._warm_start = warm_start
        self._proposer = proposer
        self._controls = tuple(controls)
        self._uncontrolled: list[Hypothesis] = []
        self._count = 0
        self._silent = False

    @property
    def over(self) -> bool:
        """Says whether nothing more will come."""
        return self._silent and not self._uncontrolled

    def accepted(self, hypothesis: Hypothesis) -> None:
        """Notes an accepted hypothesis, whose controls are in the next generation."""
        if hypothesis.intervention.control is None:
            self._uncontrolled.append(hypothesis)

    def again(self) -> None:
        """Failures are tried again: a proposer that has fallen silent is asked for the same
        generation once more when that is over, for it may have something to say now."""
        if self._silent:
            self._silent = False
            self._count -= 1

    def next(
        self,
        decided: Mapping[str, Decided],
        size_of: Callable[[Hypothesis], int | None],
        effects: Effects = NO_EFFECTS,
    ) -> Generation | None:
        """Returns the next generation, now that all before are `decided`. `size_of`: returns how
        many features training found for a subspace."""
        if self._uncontrolled:
            controls = [
                c for h in self._uncontrolled for c in controls_of(h, self._controls, size_of(h))
            ]
            if self._warm_start:
                larger = {h.id: h for of in self._uncontrolled for h in _larger(of, decided)}
                of_larger = [
                    c for h in larger.values() for c in controls_of(h, self._controls, None)
                ]
                controls += [c for c in of_larger if c.intervention.is_fitted]
            self._uncontrolled = []
            return Generation(controls, "control", self._count - 1)
        if self._silent:
            return None
        tested = {k: d for k, d in decided.items() if d.hypothesis.intervention.control is None}
        proposals = self._ask(History(self._count, tested, effects))
        self._silent = all(h.id in decided for h in proposals)
        self._count += 1
        return Generation(proposals, self._proposer.name, self._count - 1)

    def _ask(self, known: History) -> list[Hypothesis]:
        """Returns the proposals of a generation, each once.

        Raises:
            SearchFailedError: there is no end of them.
        """
        found: dict[str, Hypothesis] = {}
        for count, hypothesis in enumerate(self._proposer.propose(known)):
            if count == MOST_PROPOSED:
                raise SearchFailedError(
                    f"propose.use: {self._proposer.name} has proposed {MOST_PROPOSED} hypotheses "
                    "in one generation and goes on; let propose return as many as are to be tested"
                )
            found[hypothesis.id] = hypothesis
        return list(found.values())


def _larger(hypothesis: Hypothesis, decided: Mapping[str, Decided]) -> list[Hypothesis]:
    """Returns the larger rotations of the hypothesis's variable and unit."""
    if not is_rotation(hypothesis.intervention):
        return []
    alike = without_size(hypothesis.intervention)
    others = [d.hypothesis for d in decided.values() if is_rotation(d.hypothesis.intervention)]
    return [
        h
        for h in others
        if h.variable == hypothesis.variable
        and size_of_rotation(h.intervention) > size_of_rotation(hypothesis.intervention)
        and without_size(h.intervention) == alike
    ]
