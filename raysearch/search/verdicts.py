"""The verdicts of a search: which hypotheses are alive, which are decided, which may go on: those
that failed, and those that are undecided.

Invariants: a hypothesis is alive or decided, never both; controls count only among those alive; a
verdict that is withdrawn is alive again, with all the evidence that it had.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysearch.core.hypothesis import Hypothesis
from raysearch.core.records import Decided, VerdictName
from raysearch.search.trial import HypothesisTest, Trial


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a hypothesis's test.

    Args:
        trial: None if no fit succeeded.
        reason: why it ended, if before its last pair without being accepted or rejected.
    """

    test: HypothesisTest
    trial: Trial | None
    verdict: VerdictName
    reason: str | None = None


class Verdicts:
    """Keeps the status of every hypothesis; `alive` counts those without a verdict, controls
    included.
    """

    def __init__(self) -> None:
        self.alive = 0
        self._controls_alive = 0
        self._decided: dict[str, Decided] = {}
        self._stopped: dict[str, Ending] = {}
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
        return self._of("failed")

    @property
    def undecided(self) -> list[str]:
        """Ids of the hypotheses that are undecided."""
        return self._of("undecided")

    def _of(self, verdict: VerdictName) -> list[str]:
        return sorted(name for name in self._stopped if self._decided[name].verdict == verdict)

    @property
    def without_fit(self) -> list[str]:
        """Ids of the interventions for which no fit succeeded."""
        return sorted(
            {s.test.hypothesis.intervention.id for s in self._stopped.values() if s.trial is None}
        )

    def parts(self, names: Iterable[str]) -> tuple[int, ...]:
        """Returns the parts of the test pairs that these stopped hypotheses were tested on."""
        return tuple(sorted({self._stopped[name].test.part for name in names}))

    def count(self, verdict: VerdictName) -> int:
        """Returns how many hypotheses have the verdict, controls apart."""
        return self._tally[verdict]

    def enter(self, hypothesis: Hypothesis) -> None:
        """Adds a hypothesis without a verdict."""
        self.alive += 1
        self._controls_alive += hypothesis.intervention.control is not None

    def decide(self, decided: Decided, ending: Ending) -> None:
        """Stores the verdict of a hypothesis."""
        name, control = decided.hypothesis.id, decided.hypothesis.intervention.control is not None
        self._decided[name] = decided
        self._tally[decided.verdict] += not control
        self.alive -= 1
        self._controls_alive -= control
        if decided.verdict in ("failed", "undecided"):
            self._stopped[name] = ending

    def withdraw(self, names: Iterable[str], verdict: VerdictName) -> list[Ending]:
        """Makes hypotheses with the verdict "failed" or "undecided" alive again, and returns
        them.
        """
        withdrawn = []
        for name in names:
            decided = self._decided.pop(name)
            assert decided.verdict == verdict, (name, f"is not {verdict}, and cannot go on")
            self._tally[verdict] -= decided.hypothesis.intervention.control is None
            self.enter(decided.hypothesis)
            withdrawn.append(self._stopped.pop(name))
        return withdrawn

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        tally = Counter(
            d.verdict for d in self._decided.values() if d.hypothesis.intervention.control is None
        )
        assert +self._tally == tally
        assert self._stopped.keys() == {
            name for name, d in self._decided.items() if d.verdict in ("failed", "undecided")
        }
