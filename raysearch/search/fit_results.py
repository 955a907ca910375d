"""Hypotheses with a fitted subspace, which wait here until their training has ended.

Invariants: a hypothesis waits until all seeds of its intervention have ended, and leaves once, with
the best seed or with the reason why there is none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from raysearch.core.events import Block, Fitted
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.search.successive_halving import SuccessiveHalving
from raysearch.search.trial import HypothesisTest


@dataclass(frozen=True, slots=True)
class FitResult:
    """An intervention whose training has ended, with its hypotheses; `failure` says why nothing was
    fit, if so.
    """

    intervention: Intervention
    tests: list[HypothesisTest]
    failure: str | None


def by_intervention(
    tests: Iterable[HypothesisTest],
) -> list[tuple[Intervention, list[HypothesisTest]]]:
    """Groups tests by their intervention, in the order of the first test of each."""
    found: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}
    for test in tests:
        intervention = test.hypothesis.intervention
        found.setdefault(intervention.id, (intervention, []))[1].append(test)
    return list(found.values())


class WaitingForFits:
    """Takes interventions that must be fit and yields each when its training has ended."""

    def __init__(self, keys: FitKeys, enough: float) -> None:
        self._keys, self._enough = keys, enough
        self.start(())
        self._waiting: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}

    def start(self, blocks: tuple[Block, ...]) -> None:
        """Fixes the fit pairs, before anything is added."""
        self.halving = SuccessiveHalving(self._keys, self._enough, blocks)

    def __len__(self) -> int:
        """Returns the number of interventions that wait."""
        return len(self._waiting)

    @property
    def tests(self) -> int:
        """Number of hypotheses that wait; for the invariants."""
        return sum(len(tests) for _, tests in self._waiting.values())

    def add(self, found: Sequence[tuple[Intervention, list[HypothesisTest]]]) -> None:
        """Adds the interventions of one generation."""
        self._waiting.update(
            {intervention.id: (intervention, tests) for intervention, tests in found}
        )
        self.halving.add([intervention for intervention, _ in found])

    def retry(self, found: Sequence[tuple[Intervention, list[HypothesisTest]]]) -> None:
        """Fits interventions again whose fits all failed; their hypotheses wait once more."""
        self._waiting.update(
            {intervention.id: (intervention, tests) for intervention, tests in found}
        )
        self.halving.retry([intervention.id for intervention, _ in found])

    def take_finished(self) -> Iterator[FitResult]:
        """Yields the interventions whose training has ended since the last call."""
        for name in self.halving.ended():
            intervention, tests = self._waiting.pop(name)
            best = self.halving.best(name)
            if best is None:
                yield FitResult(intervention, tests, self.halving.failure(name))
            else:
                yield FitResult(replace(intervention, fit=best.fit), tests, None)

    def seeds(self, intervention: Intervention) -> list[Fitted]:
        """Returns the last event of each seed that did not fail; empty if the intervention has
        nothing to fit.
        """
        return self.halving.seeds(intervention.id) if intervention.is_fitted else []

    def size_of(self, hypothesis: Hypothesis) -> int | None:
        """Returns the number of features that training found for the subspace; None if it was not
        learned.
        """
        if not hypothesis.intervention.is_fitted:
            return None
        best = self.halving.best(hypothesis.intervention.id)
        width = best.found.get("width") if best is not None else None
        return None if width is None else max(1, round(width))
