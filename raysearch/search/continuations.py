"""Continuations of a search: undecided hypotheses go on on further pairs, by the same evidence, or
where the horizon is fixed anew, on the further pairs alone.

Invariants: a function of the events and the pairs; what is decided is not touched.
"""

from collections.abc import Sequence
from dataclasses import replace

from raysearch.core.events import Continued
from raysearch.core.records import Record
from raysearch.search.criteria import DecisionRule
from raysearch.search.judge import Judge
from raysearch.search.preparation import Preparation
from raysearch.search.trial import HypothesisTest, Trial, TrialKey
from raysearch.search.trial_counting import Decisions
from raysearch.search.trial_registry import TrialRegistry
from raysearch.search.verdicts import Ending

NO_FURTHER_PAIR = (
    "the model solves no further pair, so the evidence is that of before the continuation"
)


class Continuations:
    """Withdraws undecided verdicts, and tests their hypotheses on once the further pairs are
    screened.
    """

    def __init__(
        self,
        rule: DecisionRule,
        judge: Judge,
        preparation: Preparation,
        registry: TrialRegistry,
        decisions: Decisions,
    ) -> None:
        self._rule = rule
        self._judge = judge
        self._preparation = preparation
        self._registry = registry
        self._decisions = decisions
        self.count = 0
        self._waiting: list[Ending] = []
        self._blocks: dict[int, int] = {}
        """The number of blocks that a part had before, for each part that may get further pairs."""

    @property
    def waiting(self) -> int:
        """Number of hypotheses that wait."""
        return len(self._waiting)

    def pairs_for(self, event: Continued) -> tuple[int, int]:
        """Returns how many test pairs that are at hand a continuation would use, and how many more
        it needs.
        """
        if self._rule.fixed_horizon:
            return 0, event.pairs
        screening = self._preparation.screening
        parts = self._decisions.verdicts.parts(event.hypotheses)
        left = sum(min(event.pairs, screening.left_over(part)) for part in parts)
        return left, screening.lacking(event.pairs, parts)

    def start(self, event: Continued) -> list[Record]:
        """Makes the hypotheses alive again, and asks for their further pairs."""
        verdicts, screening = self._decisions.verdicts, self._preparation.screening
        parts: Sequence[int] = verdicts.parts(event.hypotheses)
        self._waiting = verdicts.withdraw(event.hypotheses, "undecided")
        self._decisions.selection.withdraw(event.hypotheses)
        self.count += 1
        miss = None
        if self._rule.fixed_horizon:
            parts = (len(screening.parts),)
            miss = self._rule.reserved(self.count)
        self._blocks = {part: len(screening.test_blocks(part)) for part in parts}
        return self._preparation.extend(event.pairs, parts, miss)

    def go_on(self) -> list[Record]:
        """Tests the hypotheses on, now that the further pairs are known; those without any are
        undecided again, by the evidence that they have.
        """
        records: list[Record] = []
        for ending in self._without_further_pairs():
            records += self._decisions.record(replace(ending, reason=NO_FURTHER_PAIR))
        for trial, tests in self._joined():
            records += self._decisions.reopen(trial, tests)
        return records

    def _without_further_pairs(self) -> list[Ending]:
        """Returns the hypotheses that wait for pairs that there are none of; they wait no
        longer.
        """
        blocks, fixed = self._preparation.screening.test_blocks, self._rule.fixed_horizon
        more = {part for part, before in self._blocks.items() if len(blocks(part)) > before}
        left = [s for s in self._waiting if not (more if fixed else s.test.part in more)]
        self._waiting = [s for s in self._waiting if s not in left]
        return left

    def _joined(self) -> list[tuple[Trial, list[HypothesisTest]]]:
        """Returns trials with the hypotheses that join them; nothing waits after that."""
        waiting, self._waiting = self._waiting, []
        screening = self._preparation.screening
        self._registry.extend(screening.test_blocks, range(len(screening.parts)))
        found: dict[TrialKey, tuple[Trial, list[HypothesisTest]]] = {}
        for ending in waiting:
            trial = ending.trial
            assert trial is not None, ending
            ending.test.repeats = self._preparation.repeats
            found.setdefault(trial.key, (trial, []))[1].append(ending.test)
        trials = list(found.values())
        return self._renewed(trials) if self._rule.fixed_horizon else trials

    def _renewed(
        self, trials: Sequence[tuple[Trial, list[HypothesisTest]]]
    ) -> list[tuple[Trial, list[HypothesisTest]]]:
        """Returns new trials and tests on the last part alone, at the level that is reserved."""
        part = len(self._preparation.screening.parts) - 1
        blocks = self._preparation.screening.test_blocks(part)
        hypotheses = [test.hypothesis for _, tests in trials for test in tests]
        renewed = self._judge.renew(hypotheses, self._rule.reserved(self.count), part)
        new = {test.hypothesis.id: test for test in renewed}
        found = []
        for old, tests in trials:
            trial = Trial(old.intervention, "test", blocks, [], part, keeps=True)
            self._registry.open(trial)
            found.append((trial, [new[test.hypothesis.id] for test in tests]))
        return found
