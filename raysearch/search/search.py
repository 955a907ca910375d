"""The search: a state machine without I/O that hands out tasks (`ask`), takes events, and returns
records (`tell`).

It uses no clock, no torch and no Ray. Invariants (`validate` checks them): verdicts are a function
of the job and the outputs alone, whatever the order of arrival, the losses and the repeats;
evidence is counted in block order; no further task is made for a decided hypothesis; nothing is
cancelled.
"""

from collections.abc import Container, Mapping, Sequence

from raysearch.core.events import (
    Attributed,
    Continued,
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
from raysearch.core.hypothesis import Intervention
from raysearch.core.population import SAMPLER, Population
from raysearch.core.records import (
    Conflicted,
    Decided,
    Estimated,
    Proposed,
    Record,
    Snapshot,
    Stage,
    VerdictName,
)
from raysearch.proposers.base import AlphaSpending, AttributionPlan, Proposer
from raysearch.proposers.generations import Generation, Generations
from raysearch.proposers.weights import weights
from raysearch.search.continuations import NO_FURTHER_PAIR, Continuations
from raysearch.search.criteria import DecisionRule
from raysearch.search.failed_attempts import failed_attempt
from raysearch.search.fit_results import WaitingForFits, by_intervention
from raysearch.search.holdout import HoldoutEstimates
from raysearch.search.judge import NO_PAIRS_LEFT, Judge
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.preparation import Preparation
from raysearch.search.screening import ScreeningPlan
from raysearch.search.selection import Selection
from raysearch.search.trial import HypothesisTest, Trial
from raysearch.search.trial_registry import TrialRegistry
from raysearch.search.verdicts import Verdicts
from raysearch.stats.e_process import AnytimeTest

EVIDENCE_VERSION = 9
"""Raised when numerics, tests, looks or proposers change: verdicts of two versions do not mix in a
run.
"""


class Search:
    """A search over the hypotheses that `proposer` proposes.

    Args:
        test: the test for independent draws; for a fixed population, each variable's change pairs
            set its size.
        population: what the verdicts are about.
        pairs: expected answers by pair index, in the order of measuring.
        rows: size of a task in pairs x interventions.
        fit: how subspaces are fit; None if the proposer proposes none that are.
        controls: names of the controls that are tested for every accepted hypothesis.
        rule: which pairs decide, and when evidence is looked at.
        attribution: the effects that are computed before the first proposal.
        declared: as in `AlphaSpending`.
        continued: whether it may be told that undecided hypotheses go on.
    """

    def __init__(
        self,
        proposer: Proposer,
        test: AnytimeTest,
        pairs: Mapping[int, ExpectedAnswers],
        plan: ScreeningPlan,
        population: Population = SAMPLER,
        rows: int = 64,
        fit: FitKeys | None = None,
        controls: Sequence[str] = (),
        rule: DecisionRule = DecisionRule(),
        attribution: AttributionPlan | None = None,
        declared: Container[str] | None = None,
        continued: bool = False,
    ) -> None:
        self._proposer = proposer
        self._generations = Generations(proposer, controls, fit is not None and fit.warm_start)
        self._pairs = pairs
        self.preparation = Preparation(
            pairs, plan, test, population, fit is not None, rule, attribution
        )
        self.screening = self.preparation.screening
        self._registry = TrialRegistry(rows)
        self._fit = fit
        self._enough = test.threshold / 2
        self._fits = WaitingForFits(fit or FitKeys(), self._enough, ())
        self._judge = Judge(self.preparation, AlphaSpending(proposer, declared), rule)
        self._selection = Selection(self._judge, rule.fdr)
        self._verdicts = Verdicts()
        self._estimates = HoldoutEstimates(
            self._registry, self.preparation, pairs, test, rule.holdout_width
        )
        self._continued = continued
        self._continuations = Continuations(rule, self._judge, self.preparation, self._registry)
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

    def continuation(self, pairs: int) -> Continued:
        """Returns the event after which all undecided hypotheses, controls included, have up to
        `pairs` further pairs; to journal and to pass to a search that has seen the same history.
        """
        return Continued(pairs, tuple(self._verdicts.undecided))

    @property
    def continuations(self) -> int:
        """Number of times that it was continued."""
        return self._continuations.count

    def pairs_for(self, event: Continued) -> tuple[int, int]:
        """Returns how many test pairs that are at hand a continuation would use, and how many more
        it needs.
        """
        return self._continuations.pairs_for(event, self._verdicts.parts(event.hypotheses))

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
                self._on_retried(event, records)
                continue
            if isinstance(event, Continued):
                self._on_continued(event, records)
                continue
            self._next_task = max(self._next_task, event.task + 1)
            match event:
                case Screened() | Attributed():
                    self._on_prepared(event, records)
                case Fitted():
                    self._on_fitted(event, records)
                case Measured():
                    self._on_measured(event, records)
                case Lost() | Failed():
                    self._on_unfinished(event, records)
        return records

    def snapshot(self) -> Snapshot:
        """Returns the current state in numbers."""
        halving, scheduler, verdicts = self._fits.halving, self._registry.scheduler, self._verdicts
        return Snapshot(
            stage=self._stage,
            alive=verdicts.alive_without_controls,
            accepted=verdicts.count("accept"),
            rejected=verdicts.count("reject"),
            undecided=verdicts.count("undecided"),
            failed=verdicts.count("failed"),
            pairs=self._pairs_seen,
            at_most=self._registry.at_most + len(self._fits) * self.preparation.test_pairs,
            queued=scheduler.queued + halving.queued + self.preparation.queued,
            out=scheduler.out + halving.out + self.preparation.out,
            conflicts=self._conflicts,
            fitting=halving.running,
            training=halving.training,
            controls=verdicts.alive - verdicts.alive_without_controls,
            estimates=self._estimates.open,
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
        waiting = self._fits.tests + self._selection.waiting + self._continuations.waiting
        assert self._verdicts.alive == self._registry.tests + waiting
        nothing = self._registry.closed and not self._fits and not self._continuations.waiting
        assert self.done == (self._generations.over and nothing)
        self._fits.halving.validate()

    # --- preparation

    def _on_prepared(self, event: Screened | Attributed, records: list[Record]) -> None:
        was_done = self.preparation.done
        records += self.preparation.tell(event)
        if was_done or not self.preparation.done:
            return
        if self._continuations.waiting:
            self._go_on(records)
        else:
            self._begin(records)

    def _begin(self, records: list[Record]) -> None:
        """Fixes what depends on fit pairs, and asks for the first generation."""
        if self.preparation.weighs:
            effects = self.preparation.effects
            self._judge.weigh(weights(self._proposer.family(effects), effects))
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
                records += self._selection.records()
                return
            self._enter(generation, records)

    def _enter(self, generation: Generation, records: list[Record]) -> None:
        """Adds each new hypothesis once; those with a fitted subspace wait for their fit."""
        new = {h.id: h for h in generation.hypotheses if h.id not in self.verdicts}.values()
        entering = by_intervention(self._judge.enter(new))
        for hypothesis in new:
            records.append(Proposed(hypothesis, generation.by, generation.number))
            self._verdicts.enter(hypothesis)
        self._fits.add([found for found in entering if found[0].is_fitted])
        for intervention, tests in entering:
            if (trial := self._registry.test_of(intervention, tests[0].part)) is not None:
                self._reopen(trial, tests, records)
            elif not intervention.is_fitted:
                self._open(intervention, tests, records)

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
                self._open(finished.intervention, finished.tests, records)
                continue
            for test in finished.tests:
                self._decide(None, test, "failed", finished.failure, records)

    def _open(
        self, intervention: Intervention, tests: list[HypothesisTest], records: list[Record]
    ) -> None:
        part = tests[0].part
        blocks = self.screening.test_blocks(part)
        trial = Trial(intervention, "test", blocks, tests, part, keeps=self._continued)
        self._registry.open(trial)
        if trial.exhausted:
            self._end(trial, "undecided", NO_PAIRS_LEFT, records)

    def _on_measured(self, event: Measured, records: list[Record]) -> None:
        part = self.screening.part_of(event.split, event.block)
        trial = self._registry.trial((event.split, event.intervention, part))
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
        if trial.split == "holdout":
            records += self._estimates.count(trial)
            return
        while (counted := trial.next_counted()) is not None:
            records.append(counted)
            self._registry.counted(counted.observation)
            pairs = [self._pairs[p] for p in counted.observation.pairs]
            for test in trial.tests:
                test.count(counted.observation, pairs)
            for test in tuple(trial.tests):
                self._look(trial, test, trial.counted, records)
            if trial.exhausted and not trial.closed:
                self._end(trial, "undecided", None, records)

    def _reopen(self, trial: Trial, tests: list[HypothesisTest], records: list[Record]) -> None:
        """Adds hypotheses to an existing trial and counts what it has measured for them since they
        left it.

        This happens when a control of one variable is, in a later generation, a control of another
        too; and when hypotheses go on that ended undecided.
        """
        for test in tests:
            self._registry.reopen(trial, test)
        for test in tests:
            for seen in trial.observations[test.blocks : trial.counted]:
                if test in trial.tests:
                    test.count(seen, [self._pairs[p] for p in seen.pairs])
                    self._look(trial, test, test.blocks, records)
            if test in trial.tests and trial.exhausted:
                self._decide(trial, test, "undecided", None, records)

    def _look(self, trial: Trial, test: HypothesisTest, blocks: int, records: list[Record]) -> None:
        """Decides a hypothesis if its evidence after so many blocks is enough."""
        verdict = self._judge.verdict(test, blocks == len(trial.blocks))
        if verdict is not None:
            self._decide(trial, test, *verdict, records)

    def _end(
        self,
        trial: Trial,
        verdict: VerdictName,
        reason: str | None,
        records: list[Record],
    ) -> None:
        """Ends a trial: its open hypotheses get the verdict, or their readings fail."""
        for test in tuple(trial.tests):
            if trial.split == "test":
                self._decide(trial, test, verdict, reason, records)
            else:
                records += self._estimates.fail(test, trial)

    def _decide(
        self,
        trial: Trial | None,
        test: HypothesisTest,
        verdict: VerdictName,
        reason: str | None,
        records: list[Record],
    ) -> None:
        """Ends a test: with its verdict, or in wait for what all tests together accept."""
        if trial is not None:
            trial.waits |= verdict in ("undecided", "failed")
            self._registry.drop(trial, test)
        if verdict != "undecided" or not self._selection.takes(trial, test, reason):
            self._record(trial, test, verdict, reason, records)
        if self._selection.waiting == self._verdicts.alive:
            for w, accepted in self._selection.settle():
                name: VerdictName = "accept" if accepted else "undecided"
                self._record(w.trial, w.test, name, None if accepted else w.reason, records)
        if not self._verdicts.alive:
            self._propose(records)

    def _record(
        self,
        trial: Trial | None,
        test: HypothesisTest,
        verdict: VerdictName,
        reason: str | None,
        records: list[Record],
    ) -> None:
        fit = None if trial is None else trial.intervention.fit
        decided = self._judge.decided(test, verdict, reason, fit)
        records.append(decided)
        self._verdicts.decide(decided, test, trial)
        self._selection.add(test, verdict)
        if verdict == "accept" and trial is not None:
            self._generations.accepted(test.hypothesis)
            seeds = self._fits.seeds(trial.intervention)
            records += self._estimates.start(test, trial.intervention, seeds)

    # --- losses and failures

    def _on_unfinished(self, event: Lost | Failed, records: list[Record]) -> None:
        """Takes a lost or failed task: queues it again, and quarantines an intervention that fails
        too often.
        """
        was_done = self.preparation.done
        self.preparation.requeue(event)
        if self.preparation.done and not was_done:
            self._begin(records)
        attempt = failed_attempt(event)
        if attempt is not None:
            part = self.screening.part_of(event.split, *attempt.blocks[:1])
            trial = self._registry.count_failure(event.split, attempt, part)
            if trial is not None:
                self._end(trial, "failed", attempt.reason, records)
        self._registry.requeue(event)
        halving = self._fits.halving
        records += halving.on_lost(event) if isinstance(event, Lost) else halving.on_failed(event)
        self._open_fitted(records)

    def _on_retried(self, event: Retried, records: list[Record]) -> None:
        """Opens failed hypotheses again: they are measured on after their last counted block, or
        fit anew.
        """
        assert not event.is_empty, "nothing is tried again"
        failures = self._verdicts.withdraw(event.hypotheses, "failed")
        self._fits.retry(by_intervention(f.test for f in failures if f.trial is None))
        for name in event.estimates:
            for trial, test in self._estimates.retry(name):
                self._registry.retry(trial, test)
        if event.hypotheses:
            self._generations.again()
        for failure in failures:
            if failure.trial is not None:
                self._reopen(failure.trial, [failure.test], records)

    # --- continuation

    def _on_continued(self, event: Continued, records: list[Record]) -> None:
        """Withdraws undecided verdicts, and asks for the further pairs."""
        assert self._continued, "a search that goes on is made for it"
        assert self.done, "an unfinished search goes on as it is"
        parts = self._verdicts.parts(event.hypotheses)
        stopped = self._verdicts.withdraw(event.hypotheses, "undecided")
        self._selection.withdraw(event.hypotheses)
        records += self._continuations.start(event, stopped, parts)
        if self.preparation.done:
            self._go_on(records)

    def _go_on(self, records: list[Record]) -> None:
        """Tests the hypotheses on that waited for further pairs."""
        self._generations.again()
        for stopped in self._continuations.without_further_pairs():
            self._record(stopped.trial, stopped.test, "undecided", NO_FURTHER_PAIR, records)
        for trial, tests in self._continuations.go_on():
            self._reopen(trial, tests, records)
        self._propose(records)
