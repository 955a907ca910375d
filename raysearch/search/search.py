"""The search: a state machine without I/O that hands out tasks (`ask`), takes events, and returns
records (`tell`).

It uses no clock, no torch and no Ray. Invariants (`validate` checks them): verdicts are a function
of the job and the outputs alone, whatever the order of arrival, the losses and the repeats;
evidence is counted in block order; no further task is made for a decided hypothesis; nothing is
cancelled.
"""

from collections.abc import Mapping, Sequence

from raysearch.causal import Split
from raysearch.core.events import (
    Attributed,
    Failed,
    Fitted,
    JournalledEvent,
    Lost,
    Measured,
    Retried,
    Screened,
    Task,
)
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import (
    Conflicted,
    Decided,
    Estimated,
    Proposed,
    Reading,
    Record,
    Snapshot,
    Stage,
    VerdictName,
)
from raysearch.proposers.base import AlphaSpending, AttributionPlan, Proposer
from raysearch.proposers.generations import Generation, Generations
from raysearch.search.criteria import Criterion, DecisionRule
from raysearch.search.fit_results import WaitingForFits
from raysearch.search.holdout import HoldoutEstimates
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.preparation import Preparation
from raysearch.search.scheduler import QUARANTINE
from raysearch.search.screening import ScreeningPlan
from raysearch.search.trial import NO_RELABELLING, HypothesisTest, Trial
from raysearch.search.trial_registry import TrialRegistry
from raysearch.search.verdicts import Verdicts
from raysearch.stats.e_process import AnytimeTest

EVIDENCE_VERSION = 7
"""Raised when numerics, tests, looks or proposers change: verdicts of two versions do not mix in a
run.
"""


class Search:
    """A search over the hypotheses that `proposer` proposes.

    Args:
        test: the test for independent draws; with `these_pairs` its population is set to the number
            of each variable's change pairs.
        pairs: expected answers by pair index, in the order of measuring.
        rows: size of a task in pairs x interventions, about what a replica runs in a second or a
            few.
        fit: how subspaces are fit; None if the proposer proposes none that are.
        controls: names of the controls that are tested for every accepted hypothesis.
        rule: which pairs decide, and when evidence is looked at.
        attribution: what is estimated before the first proposal, for a proposer that asks for it.
    """

    def __init__(
        self,
        proposer: Proposer,
        test: AnytimeTest,
        pairs: Mapping[int, ExpectedAnswers],
        plan: ScreeningPlan,
        these_pairs: bool = False,
        rows: int = 64,
        fit: FitKeys | None = None,
        controls: Sequence[str] = (),
        rule: DecisionRule = DecisionRule(),
        attribution: AttributionPlan | None = None,
    ) -> None:
        self._generations = Generations(proposer, controls, fit is not None and fit.warm_start)
        self._spending = AlphaSpending(proposer)
        self._pairs = pairs
        self.these_pairs = these_pairs
        self.preparation = Preparation(
            pairs, plan, test, these_pairs, fit is not None, rule, attribution
        )
        self.screening = self.preparation.screening
        self._registry = TrialRegistry(rows)
        self._fit = fit
        self._enough = test.threshold / 2
        self._fits = WaitingForFits(fit or FitKeys(), self._enough, ())
        self._rule = rule
        self._verdicts = Verdicts()
        self._estimates = HoldoutEstimates()
        self._next_task = 0
        self._pairs_seen = 0
        self._conflicts = 0

    @property
    def done(self) -> bool:
        """Whether every proposed hypothesis has its verdict, every accepted one its estimate, and
        nothing more will be proposed.
        """
        return self._generations.over and not self._verdicts.alive and not self._estimates.open

    @property
    def verdicts(self) -> Mapping[str, Decided]:
        """Verdicts so far, by hypothesis id."""
        return self._verdicts.decided

    @property
    def failed(self) -> Retried:
        """The failures that may be retried, controls included, as an event to journal and to pass
        to a search that has seen the same history.
        """
        verdicts = self._verdicts
        return Retried(
            tuple(verdicts.failed), tuple(verdicts.without_fit), tuple(self._estimates.incomplete)
        )

    @property
    def estimates(self) -> Mapping[str, Estimated]:
        """Holdout estimates of accepted hypotheses, by hypothesis id."""
        return self._estimates.done

    def ask(self, n: int) -> list[Task]:
        """Returns up to `n` tasks for `n` idle workers; fewer, or none, if no more can run now."""
        tasks: list[Task] = []
        while len(tasks) < n:
            task = self._next(n - len(tasks))
            if task is None:
                break
            self._next_task += 1
            tasks.append(task)
        return tasks

    def _next(self, idle: int) -> Task | None:
        if not self.preparation.done:
            return self.preparation.ask(self._next_task)
        return self._fits.halving.ask(self._next_task) or self._registry.scheduler.ask(
            self._next_task, idle
        )

    def tell(self, events: Sequence[JournalledEvent]) -> list[Record]:
        """Takes events and returns the records that follow from them.

        Raises:
            SearchFailedError: screening or attribution failed three times on a block.
        """
        records: list[Record] = []
        for event in events:
            if isinstance(event, Retried):
                self._on_retried(event)
                continue
            self._next_task = max(self._next_task, event.task + 1)
            match event:
                case Screened() | Attributed():
                    self._on_prepared(event, records)
                case Fitted():
                    self._on_fitted(event, records)
                case Measured():
                    self._on_measured(event, records)
                case Lost():
                    self._on_lost(event, records)
                case Failed():
                    self._on_failed(event, records)
        return records

    def snapshot(self) -> Snapshot:
        """Returns the current state in numbers."""
        halving, scheduler, verdicts = (
            self._fits.halving,
            self._registry.scheduler,
            self._verdicts,
        )
        return Snapshot(
            stage=self._stage,
            alive=verdicts.alive_without_controls,
            accepted=verdicts.count("accept"),
            rejected=verdicts.count("reject"),
            undecided=verdicts.count("undecided"),
            failed=verdicts.count("failed"),
            pairs=self._pairs_seen,
            at_most=self._registry.at_most + len(self._fits) * self._test_pairs,
            queued=scheduler.queued + halving.queued + self.preparation.queued,
            out=scheduler.out + halving.out + self.preparation.out,
            conflicts=self._conflicts,
            fitting=halving.running,
            training=halving.training,
        )

    @property
    def _stage(self) -> Stage:
        if self.done:
            return "done"
        if not self.preparation.done:
            return self.preparation.stage
        return "searching" if self._verdicts.alive_without_controls else "estimating"

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        self._registry.validate(self.verdicts)
        self._verdicts.validate()
        assert self._verdicts.alive == self._registry.tests + self._fits.tests
        assert self.done == (self._generations.over and self._registry.closed and not self._fits)
        self._fits.halving.validate()

    # --- preparation

    def _on_prepared(self, event: Screened | Attributed, records: list[Record]) -> None:
        was_done = self.preparation.done
        records += self.preparation.tell(event)
        if was_done or not self.preparation.done:
            return
        if self._fit is not None:
            self._fits = WaitingForFits(self._fit, self._enough, self.screening.blocks("fit"))
        self._propose(records)

    # --- proposals and trials

    def _propose(self, records: list[Record]) -> None:
        """Asks for generations until one has a new hypothesis, or there are no more."""
        while not self._verdicts.alive:
            generation = self._generations.next(
                self.verdicts, self._fits.size_of, self.preparation.effects
            )
            if generation is None:
                return
            self._enter(generation, records)

    def _enter(self, generation: Generation, records: list[Record]) -> None:
        """Adds each new hypothesis once; those with a fitted subspace wait for their fit."""
        by_intervention: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}
        new = {h.id: h for h in generation.hypotheses if h.id not in self.verdicts}.values()
        self._spending.enter(new)
        for hypothesis in new:
            tests = by_intervention.setdefault(
                hypothesis.intervention.id, (hypothesis.intervention, [])
            )[1]
            tests.append(self._new_test(hypothesis))
            records.append(Proposed(hypothesis, generation.by, generation.number))
            self._verdicts.enter(hypothesis)
        self._fits.add([found for found in by_intervention.values() if found[0].is_fitted])
        for intervention, tests in by_intervention.values():
            if (trial := self._registry.trial(("test", intervention.key))) is not None:
                self._reopen(trial, tests, records)
            elif not intervention.is_fitted:
                self._open(intervention, "test", tests, records)

    def _new_test(self, hypothesis: Hypothesis, reading: Reading | None = None) -> HypothesisTest:
        arbitrary = hypothesis.intervention.control == "arbitrary_labels"
        labels = (
            self.preparation.criteria.labels[hypothesis.variable] if arbitrary else NO_RELABELLING
        )
        unfiltered = self._rule.kinds == "unfiltered"
        return HypothesisTest(
            hypothesis,
            labels=labels,
            reading=reading,
            unfiltered=unfiltered,
            score_scale=self.preparation.score_scale,
        )

    def _criterion(self, hypothesis: Hypothesis) -> Criterion:
        criterion, among = (
            self.preparation.criteria.of(hypothesis),
            self._spending.of(hypothesis),
        )
        return criterion if among is None else criterion.with_hypotheses(among)

    @property
    def _test_pairs(self) -> int:
        return (
            sum(len(b.pairs) for b in self.screening.blocks("test")) if self.preparation.done else 0
        )

    # --- fits

    def _on_fitted(self, event: Fitted, records: list[Record]) -> None:
        new_records, contradicts = self._fits.halving.tell(event)
        records += new_records
        if contradicts:
            self._conflicts += 1
            records.append(Conflicted(event))
        self._open_fitted(records)

    def _open_fitted(self, records: list[Record]) -> None:
        """Opens trials for the interventions whose training has ended, with what was fit."""
        for finished in self._fits.take_finished():
            if finished.failure is None:
                self._open(finished.intervention, "test", finished.tests, records)
                continue
            for test in finished.tests:
                self._decide(None, test, "failed", finished.failure, records)

    def _open(
        self,
        intervention: Intervention,
        split: Split,
        tests: list[HypothesisTest],
        records: list[Record],
    ) -> None:
        trial = Trial(intervention, split, self.screening.blocks(split), tests)
        self._registry.open(trial)
        if trial.exhausted:
            self._finish(trial, records)

    def _on_measured(self, event: Measured, records: list[Record]) -> None:
        trial = self._registry.trial((event.split, event.intervention))
        assert trial is not None, (event.key, "was never asked for")
        status = trial.take(event)
        if status == "first":
            self._pairs_seen += len(event.pairs)
        elif status == "conflict":
            self._conflicts += 1
            records.append(Conflicted(event))
        self._count(trial, records)
        self._registry.settle(trial, event)

    def _count(self, trial: Trial, records: list[Record]) -> None:
        while (counted := trial.next_counted()) is not None:
            records.append(counted)
            self._registry.counted(counted.observation)
            pairs = [self._pairs[p] for p in counted.observation.pairs]
            for test in trial.tests:
                test.count(counted.observation, pairs)
            for test in tuple(trial.tests) if trial.split == "test" else ():
                self._judge(trial, test, trial.counted, records)
            if trial.exhausted and not trial.closed:
                self._finish(trial, records)

    def _reopen(self, trial: Trial, tests: list[HypothesisTest], records: list[Record]) -> None:
        """Adds hypotheses to an existing trial and counts all that it has measured for them.

        This happens when a control of one variable is, in a later generation, a control of another
        too.
        """
        for test in tests:
            self._registry.reopen(trial, test)
        for test in tests:
            for blocks, seen in enumerate(trial.observations, start=1):
                if test in trial.tests:
                    test.count(seen, [self._pairs[p] for p in seen.pairs])
                    self._judge(trial, test, blocks, records)
            if test in trial.tests and trial.exhausted:
                self._decide(trial, test, "undecided", None, records)

    def _judge(
        self, trial: Trial, test: HypothesisTest, blocks: int, records: list[Record]
    ) -> None:
        """Decides a hypothesis if its evidence after so many blocks is enough."""
        if self._rule.at_end and blocks < len(trial.blocks):
            return
        verdict = self._criterion(test.hypothesis).verdict(test.evidence, test.keep)
        if verdict is not None:
            self._decide(trial, test, verdict, None, records)

    def _finish(self, trial: Trial, records: list[Record]) -> None:
        """Ends a trial that has counted all of its blocks: open hypotheses are undecided, or
        estimated.
        """
        for test in tuple(trial.tests):
            if trial.split == "test":
                self._decide(trial, test, "undecided", None, records)
            else:
                self._end_reading(trial, test, records)

    def _decide(
        self,
        trial: Trial | None,
        test: HypothesisTest,
        verdict: VerdictName,
        reason: str | None,
        records: list[Record],
    ) -> None:
        variable, fit = test.hypothesis.variable, None if trial is None else trial.intervention.fit
        decided = test.decided(
            verdict,
            self._criterion(test.hypothesis),
            self.preparation.criteria.base_match[variable],
            reason,
            fit,
        )
        records.append(decided)
        self._verdicts.decide(decided, test, trial)
        if trial is not None:
            self._registry.drop(trial, test)
        if verdict == "accept" and trial is not None:
            self._generations.accepted(test.hypothesis)
            self._open_estimate(test.hypothesis, trial.intervention, records)
        if not self._verdicts.alive:
            self._propose(records)

    # --- holdout estimates

    def _open_estimate(
        self, hypothesis: Hypothesis, intervention: Intervention, records: list[Record]
    ) -> None:
        seeds = self._fits.seeds(intervention)
        for reading, read in self._estimates.readings_of(hypothesis, intervention, seeds):
            self._open_reading(self._new_test(hypothesis, reading), read, records)

    def _open_reading(
        self, test: HypothesisTest, intervention: Intervention, records: list[Record]
    ) -> None:
        trial = self._registry.trial(("holdout", intervention.key))
        if trial is None:
            self._open(intervention, "holdout", [test], records)
            return
        for seen in trial.observations:
            test.count(seen, [self._pairs[p] for p in seen.pairs])
        if trial.exhausted or trial.failed_attempts >= QUARANTINE:
            trial.tests.append(test)
            self._end_reading(trial, test, records)
            return
        self._registry.join(trial, test)

    def _end_reading(self, trial: Trial, test: HypothesisTest, records: list[Record]) -> None:
        """Adds a finished reading; records the estimate if it was the hypothesis's last reading."""
        self._registry.drop(trial, test)
        estimated = self._estimates.add_reading(test, trial)
        if estimated is not None:
            records.append(estimated)

    # --- losses and failures

    def _on_lost(self, event: Lost, records: list[Record]) -> None:
        self.preparation.requeue(event)
        if event.counts_as_attempt and len(event.group) == 1:
            self._count_failure(
                event, event.group[0], event.blocks, f"{event.message} ({event.cause})", records
            )
        self._registry.release(self._registry.scheduler.on_lost(event))
        records += self._fits.halving.on_lost(event)
        self._open_fitted(records)

    def _on_failed(self, event: Failed, records: list[Record]) -> None:
        self.preparation.requeue(event)
        reason = f"{event.error_type}: {event.message}"
        if event.intervention is not None and event.block is not None:
            self._count_failure(event, event.intervention, (event.block,), reason, records)
        elif len(event.group) == 1:
            self._count_failure(event, event.group[0], event.blocks, reason, records)
        self._registry.release(self._registry.scheduler.on_failed(event))
        records += self._fits.halving.on_failed(event)
        self._open_fitted(records)

    def _count_failure(
        self,
        event: Lost | Failed,
        intervention: str,
        blocks: tuple[int, ...],
        reason: str,
        records: list[Record],
    ) -> None:
        """Counts a failed attempt of a single intervention; quarantines it after three in a row at
        its next block.

        A failure further ahead, or in a run of several blocks, only makes the trial go block by
        block. The blocks before decide whether that block is reached at all, so no verdict may
        depend on how far ahead a task was cut.
        """
        trial = self._registry.trial((event.split, intervention))
        if trial is None or trial.closed:
            return
        trial.one_block = True
        if blocks != (trial.counted,):
            return
        trial.failed_attempts += 1
        if trial.failed_attempts >= QUARANTINE:
            for test in tuple(trial.tests):
                if trial.split == "test":
                    self._decide(trial, test, "failed", reason, records)
                else:
                    self._end_reading(trial, test, records)

    def _on_retried(self, event: Retried) -> None:
        """Opens failed hypotheses again: they are measured on after their last counted block, or
        fit anew.
        """
        assert not event.is_empty, "nothing is tried again"
        without_fit: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}
        for failure in self._verdicts.withdraw(event.hypotheses):
            intervention = failure.test.hypothesis.intervention
            if failure.trial is not None:
                self._registry.retry(failure.trial, failure.test)
            else:
                without_fit.setdefault(intervention.id, (intervention, []))[1].append(failure.test)
        self._fits.retry(list(without_fit.values()))
        for name in event.estimates:
            for trial, test in self._estimates.retry(name):
                self._registry.retry(trial, test)
        if event.hypotheses:
            self._generations.again()
