"""The verdicts of a search: which hypotheses are alive, which are decided, which failures may be
retried.

Invariants: a hypothesis is alive or decided, never both; controls count only among those alive; a
failure that is withdrawn is alive again, with all the evidence that it had.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysearch.core.hypothesis import Hypothesis
from raysearch.core.records import Decided, VerdictName
from raysearch.search.trial import HypothesisTest, Trial


@dataclass(frozen=True, slots=True)
class Failure:
    """A hypothesis that failed, with its trial; `trial` is None if no fit succeeded."""

    test: HypothesisTest
    trial: Trial | None


class Verdicts:
    """Keeps the status of every hypothesis; `alive` counts those without a verdict, controls
    included.
    """

    def __init__(self) -> None:
        self.alive = 0
        self._controls_alive = 0
        self._decided: dict[str, Decided] = {}
        self._failures: dict[str, Failure] = {}
        self._tally: Counter[VerdictName] = Counter()

    @property
    def decided(self) -> Mapping[str, Decided]:
        """Verdicts by hypothesis id."""
        return self._decided

    @property
    def alive_without_controls(self) -> int:
        """Number of hypotheses without a verdict, controls apart."""
        return self.alive - self._controls_alive

    @property
    def failed(self) -> list[str]:
        """Ids of the hypotheses that failed."""
        return sorted(self._failures)

    @property
    def without_fit(self) -> list[str]:
        """Ids of the interventions for which no fit succeeded."""
        return sorted(
            {f.test.hypothesis.intervention.id for f in self._failures.values() if f.trial is None}
        )

    def count(self, verdict: VerdictName) -> int:
        """Returns how many hypotheses have the verdict, controls apart."""
        return self._tally[verdict]

    def enter(self, hypothesis: Hypothesis) -> None:
        """Adds a hypothesis without a verdict."""
        self.alive += 1
        self._controls_alive += hypothesis.intervention.control is not None

    def decide(self, decided: Decided, test: HypothesisTest, trial: Trial | None) -> None:
        """Stores the verdict of a hypothesis."""
        name, control = decided.hypothesis.id, decided.hypothesis.intervention.control is not None
        self._decided[name] = decided
        self._tally[decided.verdict] += not control
        self.alive -= 1
        self._controls_alive -= control
        if decided.verdict == "failed":
            self._failures[name] = Failure(test, trial)

    def withdraw(self, names: Iterable[str]) -> list[Failure]:
        """Makes failed hypotheses alive again, and returns their failures."""
        withdrawn = []
        for name in names:
            assert name in self._failures, (name, "has not failed, and cannot be tried again")
            hypothesis = self._decided.pop(name).hypothesis
            self._tally["failed"] -= hypothesis.intervention.control is None
            self.enter(hypothesis)
            withdrawn.append(self._failures.pop(name))
        return withdrawn

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        tally = Counter(
            d.verdict for d in self._decided.values() if d.hypothesis.intervention.control is None
        )
        assert +self._tally == tally
        assert self._failures.keys() == {
            name for name, d in self._decided.items() if d.verdict == "failed"
        }
