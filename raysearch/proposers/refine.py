"""Refine: proposes layers from coarse to fine, and between two known layers only where their
results differ or promise something.

Every `step`-th layer of a grid comes first, and the last; then, again and again, the middle between
two neighbours that are known: where one was accepted and the other not, so that the edges of what
is accepted are found, and where neither was, but one shows promise. What lies between two accepted
layers is not asked about; nor is what hides between two layers that show nothing: an exhaustive
search misses neither.

Invariants: all that is proposed is of the space; each generation is a function of the verdicts of
those before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import Decided
from raysearch.core.space import HypothesisSpace
from raysearch.proposers.base import History, WithinSpace

Rung = list[Hypothesis]
"""The hypotheses of one layer that come together: of all variables, or of one where something is
fit."""


@dataclass(frozen=True)
class Refine(WithinSpace):
    """`step`: between layers at first; `promise`: the IIA in [0, 1] from which what was not
    accepted shows promise."""

    description = "layers from coarse to fine, where there is something to see between two"
    space: HypothesisSpace
    step: int = 4
    promise: float = 0.3
    name: str = "refine"

    def __post_init__(self) -> None:
        if isinstance(self.step, bool) or not isinstance(self.step, int) or self.step < 1:
            raise ValueError(
                f"step is {self.step!r}; it must be a whole number of layers from 1, such as 4"
            )
        if not isinstance(self.promise, int | float) or not 0 <= self.promise <= 1:
            raise ValueError(
                f"promise is {self.promise!r}; it must be an IIA from 0 to 1, such as 0.3"
            )

    def propose(self, known: History) -> Iterable[Hypothesis]:
        if not known.generations:
            for intervention in self.space.sets_outside_grids():
                yield from self.space.hypotheses_on(intervention)
        for ladder in self._ladders():
            for at in self._next(ladder, known) if known.generations else self._coarse(len(ladder)):
                yield from ladder[at]

    def _ladders(self) -> Iterator[list[Rung]]:
        """Groups hypotheses that differ in their layer alone, by layer."""
        for grid in self.space.grids:
            units = list(grid)  # layers vary fastest
            size = len(grid.layers)
            for start in range(0, len(units), size):
                in_order = sorted(
                    units[start : start + size], key=lambda unit: unit.site.layer or 0
                )
                rungs = [list(self.space.hypotheses_on(Intervention((unit,)))) for unit in in_order]
                if rungs[0][0].intervention.is_fitted:
                    yield from (
                        [[rung[i]] for rung in rungs] for i in range(len(self.space.variables))
                    )
                else:
                    yield rungs

    def _coarse(self, length: int) -> list[int]:
        return sorted({*range(0, length, self.step), length - 1})

    def _next(self, ladder: list[Rung], known: History) -> Iterator[int]:
        """Yields the middle of each two neighbouring known layers where the results differ, or
        promise something."""
        seen = [at for at, rung in enumerate(ladder) if all(h.id in known.decided for h in rung)]
        for low, high in pairwise(seen):
            below, above = ([known.decided[h.id] for h in ladder[at]] for at in (low, high))
            if high - low > 1 and any(
                self._is_edge(a, b) for a, b in zip(below, above, strict=True)
            ):
                yield (low + high) // 2

    def _is_edge(self, one: Decided, other: Decided) -> bool:
        accepted = [d.verdict == "accept" for d in (one, other)]
        return accepted[0] != accepted[1] or (
            not any(accepted) and (self._promises(one) or self._promises(other))
        )

    def _promises(self, decided: Decided) -> bool:
        return decided.n > 0 and decided.matches / decided.n >= self.promise
