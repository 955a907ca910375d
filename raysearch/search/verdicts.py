"""Verdicts: who is alive, what was decided, and which failures may be tried again.

Invariants: a hypothesis is alive or decided, never both; controls count nowhere but among those
alive; a failure that is withdrawn is alive again, with all the evidence that it had.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysearch.core.hypothesis import Hypothesis
from raysearch.core.records import Decided, VerdictName
from raysearch.search.trial import HypothesisTest, Trial


@dataclass(frozen=True, slots=True)
class Failure:
    """A hypothesis that failed. `line`: on which it was measured; None where no fit came of it."""

    case: HypothesisTest
    line: Trial | None


class Verdicts:
    """The books of one search on its hypotheses. `alive`: those without a verdict, controls too."""

    def __init__(self) -> None:
        self.alive = 0
        self._controls_alive = 0
        self._decided: dict[str, Decided] = {}
        self._failures: dict[str, Failure] = {}
        self._tally: Counter[VerdictName] = Counter()

    @property
    def decided(self) -> Mapping[str, Decided]:
        """By hypothesis id."""
        return self._decided

    @property
    def asked_alive(self) -> int:
        """Those alive that are no controls."""
        return self.alive - self._controls_alive

    @property
    def failed(self) -> list[str]:
        """The ids of those that failed."""
        return sorted(self._failures)

    @property
    def unfit(self) -> list[str]:
        """The ids of the interventions of which no fit came."""
        return sorted(
            {f.case.hypothesis.intervention.id for f in self._failures.values() if f.line is None}
        )

    def count(self, verdict: VerdictName) -> int:
        """How many have it, controls apart."""
        return self._tally[verdict]

    def enter(self, hypothesis: Hypothesis) -> None:
        """It lives."""
        self.alive += 1
        self._controls_alive += hypothesis.intervention.control is not None

    def decide(self, decided: Decided, case: HypothesisTest, line: Trial | None) -> None:
        """It has its verdict."""
        name, control = decided.hypothesis.id, decided.hypothesis.intervention.control is not None
        self._decided[name] = decided
        self._tally[decided.verdict] += not control
        self.alive -= 1
        self._controls_alive -= control
        if decided.verdict == "failed":
            self._failures[name] = Failure(case, line)

    def withdraw(self, names: Iterable[str]) -> list[Failure]:
        """Those that failed live again."""
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
        judged = Counter(
            d.verdict for d in self._decided.values() if d.hypothesis.intervention.control is None
        )
        assert +self._tally == judged
        assert self._failures.keys() == {
            name for name, d in self._decided.items() if d.verdict == "failed"
        }
