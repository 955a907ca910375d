"""Counts what trials have measured, and ends the tests of their hypotheses: by a verdict, and with
the start of an estimate for those that are accepted.

Invariants: blocks are counted in order; a test ends once, unless its verdict is withdrawn; what
enters next is chosen elsewhere, once no hypothesis is alive.
"""

from collections.abc import Mapping, Sequence

from raysearch.core.hypothesis import Intervention
from raysearch.core.records import Record, VerdictName
from raysearch.proposers.generations import Generations
from raysearch.search.fit_results import WaitingForFits
from raysearch.search.holdout import HoldoutEstimates
from raysearch.search.judge import NO_PAIRS_LEFT, Judge
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.preparation import Preparation
from raysearch.search.selection import Selection
from raysearch.search.trial import HypothesisTest, Trial
from raysearch.search.trial_registry import TrialRegistry
from raysearch.search.verdicts import Ending, Verdicts


class Decisions:
    """Opens trials, counts them block by block, and decides their hypotheses.

    Args:
        fdr: whether undecided hypotheses may be accepted together (`Selection`).
        keeps: whether a hypothesis that ends undecided may go on later.
    """

    def __init__(
        self,
        pairs: Mapping[int, ExpectedAnswers],
        preparation: Preparation,
        registry: TrialRegistry,
        judge: Judge,
        estimates: HoldoutEstimates,
        fits: WaitingForFits,
        generations: Generations,
        fdr: bool,
        keeps: bool,
    ) -> None:
        self._pairs = pairs
        self._preparation = preparation
        self._registry = registry
        self._judge = judge
        self._estimates = estimates
        self._fits = fits
        self._generations = generations
        self._keeps = keeps
        self.selection = Selection(judge, fdr)
        self.verdicts = Verdicts()

    def open(self, intervention: Intervention, tests: list[HypothesisTest]) -> list[Record]:
        """Opens the trial of an intervention for the tests that it decides."""
        part = tests[0].part
        blocks = self._preparation.screening.test_blocks(part)
        trial = Trial(intervention, "test", blocks, tests, part, keeps=self._keeps)
        self._registry.open(trial)
        return self.end(trial, "undecided", NO_PAIRS_LEFT) if trial.exhausted else []

    def reopen(self, trial: Trial, tests: Sequence[HypothesisTest]) -> list[Record]:
        """Adds hypotheses to an existing trial and counts what it has measured for them since they
        left it.

        This happens when a control of one variable is, in a later generation, a control of another
        too; and when hypotheses go on that ended undecided.
        """
        records: list[Record] = []
        for test in tests:
            self._registry.reopen(trial, test)
        for test in tests:
            for seen in trial.observations[test.blocks : trial.counted]:
                if test in trial.tests:
                    test.count(seen, [self._pairs[p] for p in seen.pairs])
                    records += self._look(trial, test, test.blocks)
            if test in trial.tests and trial.exhausted:
                records += self.decide(Ending(test, trial, "undecided"))
        return records

    def count(self, trial: Trial) -> list[Record]:
        """Counts what a trial has measured, and ends the tests and readings that need no more."""
        if trial.split == "holdout":
            return self._estimates.count(trial)
        records: list[Record] = []
        while (counted := trial.next_counted()) is not None:
            records.append(counted)
            self._registry.counted(counted.observation)
            pairs = [self._pairs[p] for p in counted.observation.pairs]
            for test in trial.tests:
                test.count(counted.observation, pairs)
            for test in tuple(trial.tests):
                records += self._look(trial, test, trial.counted)
            if trial.exhausted and not trial.closed:
                records += self.end(trial, "undecided", None)
        return records

    def _look(self, trial: Trial, test: HypothesisTest, blocks: int) -> list[Record]:
        """Decides a hypothesis if its evidence after so many blocks is enough."""
        verdict = self._judge.verdict(test, blocks == len(trial.blocks))
        return [] if verdict is None else self.decide(Ending(test, trial, *verdict))

    def end(self, trial: Trial, verdict: VerdictName, reason: str | None) -> list[Record]:
        """Ends a trial: its open hypotheses get the verdict, or their readings fail."""
        records: list[Record] = []
        for test in tuple(trial.tests):
            if trial.split == "test":
                records += self.decide(Ending(test, trial, verdict, reason))
            else:
                records += self._estimates.fail(test, trial)
        return records

    def decide(self, ending: Ending) -> list[Record]:
        """Ends a test: with its verdict, or in wait for what all tests together accept."""
        if ending.trial is not None:
            ending.trial.waits |= ending.verdict in ("undecided", "failed")
            self._registry.drop(ending.trial, ending.test)
        records = [] if self.selection.takes(ending) else self.record(ending)
        if self.selection.waiting == self.verdicts.alive:
            for settled in self.selection.settle():
                records += self.record(settled)
        return records

    def record(self, ending: Ending) -> list[Record]:
        """Returns the record of a verdict; starts the estimate of what is accepted."""
        test, trial = ending.test, ending.trial
        decided = self._judge.decided(ending)
        self.verdicts.decide(decided, ending)
        self.selection.add(test, ending.verdict)
        if ending.verdict != "accept" or trial is None:
            return [decided]
        self._generations.accepted(test.hypothesis)
        seeds = self._fits.seeds(trial.intervention)
        return [decided, *self._estimates.start(test, trial.intervention, seeds)]
