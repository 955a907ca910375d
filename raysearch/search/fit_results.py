"""Fitting: hypotheses whose subspace is fit first wait here for the end of their training.

Invariants: each waits until all seeds of its intervention have ended, and leaves once, with the
best of them or with why there is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from raysearch.core.events import Block, Fitted
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.search.successive_halving import SuccessiveHalving
from raysearch.search.trial import HypothesisTest


@dataclass(frozen=True, slots=True)
class FitResult:
    """An intervention whose training has ended, as it is to be measured, with the hypotheses on it;
    or why nothing came of it."""

    intervention: Intervention
    cases: list[HypothesisTest]
    failure: str | None


class WaitingForFits:
    """Interventions that are to be fit in, with the hypotheses on them; those whose training has
    ended out."""

    def __init__(self, keys: FitKeys, enough: float, blocks: tuple[Block, ...]) -> None:
        self.training = SuccessiveHalving(keys, enough, blocks)
        self._waiting: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}

    def __len__(self) -> int:
        """How many interventions wait."""
        return len(self._waiting)

    @property
    def cases(self) -> int:
        """How many hypotheses wait; for the invariants."""
        return sum(len(cases) for _, cases in self._waiting.values())

    def add(self, found: Sequence[tuple[Intervention, list[HypothesisTest]]]) -> None:
        """Those of one generation."""
        self._waiting.update(
            {intervention.id: (intervention, cases) for intervention, cases in found}
        )
        self.training.add([intervention for intervention, _ in found])

    def again(self, found: Sequence[tuple[Intervention, list[HypothesisTest]]]) -> None:
        """Those of which no fit came wait once more, for fits that begin anew."""
        self._waiting.update(
            {intervention.id: (intervention, cases) for intervention, cases in found}
        )
        self.training.again([intervention.id for intervention, _ in found])

    def through(self) -> Iterator[FitResult]:
        """Those whose training has ended since."""
        for name in self.training.ended():
            intervention, cases = self._waiting.pop(name)
            best = self.training.best(name)
            if best is None:
                yield FitResult(intervention, cases, self.training.failure(name))
            else:
                yield FitResult(replace(intervention, fit=best.fit), cases, None)

    def seeds(self, intervention: Intervention) -> list[Fitted]:
        """What came of each seed of an intervention that did not fail; none where nothing was fit."""
        return self.training.seeds(intervention.id) if intervention.is_fitted else []

    def size_of(self, hypothesis: Hypothesis) -> int | None:
        """How many features the subspace has that was found, where training found it."""
        if not hypothesis.intervention.is_fitted:
            return None
        best = self.training.best(hypothesis.intervention.id)
        width = best.found.get("width") if best is not None else None
        return None if width is None else max(1, round(width))
