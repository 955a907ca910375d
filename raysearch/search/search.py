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
from raysearch.core.population import SAMPLER, Population
from raysearch.core.records import (
    Conflicted,
    Decided,
    Estimated,
    Proposed,
    Record,
    Snapshot,
    Stage,
)
from raysearch.proposers.base import AlphaSpending, AttributionPlan, Proposer
from raysearch.proposers.generations import Generation, Generations
from raysearch.proposers.weights import weights
from raysearch.search.continuations import Continuations
from raysearch.search.criteria import DecisionRule
from raysearch.search.failed_attempts import failed_attempt
from raysearch.search.fit_results import WaitingForFits, by_intervention
from raysearch.search.holdout import HoldoutEstimates
from raysearch.search.judge import Judge
from raysearch.search.leases import STEPS, Leases
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.preparation import Preparation
from raysearch.search.screening import ScreeningPlan
from raysearch.search.trial_counting import Decisions
from raysearch.search.trial_registry import TrialRegistry
from raysearch.search.verdicts import Ending
from raysearch.stats.anytime_test import AnytimeTest


class Search:
    """A search over the hypotheses that `proposer` proposes.

    Args:
        test: the test for independent draws; for a fixed population, each variable's change pairs
            set its size.
        population: what the verdicts are about.
        pairs: expected answers by pair index, in the order of measuring.
        rows: size of a task without a lease, in pairs x interventions.
        fit: how subspaces are fit; None if the proposer proposes none that are.
        controls: names of the controls that are tested for every accepted hypothesis.
        rule: which pairs decide, and when evidence is looked at.
        attribution: the effects that are computed before the first proposal.
        declared: as in `AlphaSpending`.
        continued: whether it may be told that undecided hypotheses go on.
        lease_steps: as in `leases.STEPS`.
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
        lease_steps: int = STEPS,
    ) -> None:
        self._proposer = proposer
        self._generations = Generations(proposer, controls, fit is not None and fit.warm_start)
        self.preparation = Preparation(
            pairs, plan, test, population, fit is not None, rule, attribution
        )
        self.screening = self.preparation.screening
        self._judge = Judge(self.preparation, AlphaSpending(proposer, declared), rule)
        leases = Leases(self._judge, rows, rule.kinds == "unfiltered", lease_steps)
        self._registry = TrialRegistry(rows, leases)
        self._fits = WaitingForFits(fit or FitKeys(), test.threshold / 2)
        self._estimates = HoldoutEstimates(
            self._registry, self.preparation, pairs, test, rule.holdout_width
        )
        self._decisions = Decisions(
            pairs,
            self.preparation,
            self._registry,
            self._judge,
            self._estimates,
            self._fits,
            self._generations,
            rule.fdr,
            keeps=continued,
        )
        self._verdicts = self._decisions.verdicts
        self._continued = continued
        self._continuations = Continuations(
            rule, self._judge, self.preparation, self._registry, self._decisions
        )
        self._next_task = 0
        self._pairs_seen = 0
        self._conflicts = 0

    @property
    def done(self) -> bool:
        """Says whether every proposed hypothesis has its verdict, every accepted one its estimate,
        and nothing more will be proposed."""
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
        return self._continuations.pairs_for(event)

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
            if not isinstance(event, Retried | Continued):
                self._next_task = max(self._next_task, event.task + 1)
            records += self._take(event)
            if self.preparation.done and not self._verdicts.alive and not self._generations.over:
                records += self._propose()
        return records

    def _take(self, event: JournalledEvent) -> list[Record]:
        match event:
            case Screened() | Attributed():
                return self._on_prepared(event)
            case Fitted():
                return self._on_fitted(event)
            case Measured():
                return self._on_measured(event)
            case Lost() | Failed():
                return self._on_unfinished(event)
            case Retried():
                return self._on_retried(event)
            case Continued():
                return self._on_continued(event)

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
        waiting = self._fits.tests + self._decisions.selection.waiting + self._continuations.waiting
        assert self._verdicts.alive == self._registry.tests + waiting
        nothing = self._registry.closed and not self._fits and not self._continuations.waiting
        assert self.done == (self._generations.over and nothing)
        self._fits.halving.validate()

    # --- preparation

    def _on_prepared(self, event: Screened | Attributed) -> list[Record]:
        was_done = self.preparation.done
        records = self.preparation.tell(event)
        if self.preparation.done and not was_done:
            records += self._on_all_prepared()
        return records

    def _on_all_prepared(self) -> list[Record]:
        """Fixes what depends on fit pairs; or goes on, if that was done before."""
        if self._continuations.waiting:
            return self._go_on()
        if self.preparation.weighs:
            effects = self.preparation.effects
            self._judge.weigh(weights(self._proposer.family(effects), effects))
        self._fits.start(self.screening.blocks("fit"))
        return []

    # --- proposals and trials

    def _propose(self) -> list[Record]:
        """Asks for generations until one has a new hypothesis, or there are no more."""
        records: list[Record] = []
        while not self._verdicts.alive:
            generation = self._generations.next(
                self.verdicts, self._fits.size_of, self.preparation.effects
            )
            if generation is None:
                return [*records, *self._decisions.selection.records()]
            records += self._enter(generation)
        return records

    def _enter(self, generation: Generation) -> list[Record]:
        """Adds each new hypothesis once; those with a fitted subspace wait for their fit."""
        new = {h.id: h for h in generation.hypotheses if h.id not in self.verdicts}.values()
        entering = by_intervention(self._judge.enter(new))
        records: list[Record] = []
        for hypothesis in new:
            records.append(Proposed(hypothesis, generation.by, generation.number))
            self._verdicts.enter(hypothesis)
        self._fits.add([found for found in entering if found[0].is_fitted])
        for intervention, tests in entering:
            if (trial := self._registry.test_of(intervention, tests[0].part)) is not None:
                records += self._decisions.reopen(trial, tests)
            elif not intervention.is_fitted:
                records += self._decisions.open(intervention, tests)
        return records

    def _on_fitted(self, event: Fitted) -> list[Record]:
        records, contradicts = self._fits.halving.tell(event)
        if contradicts:
            self._conflicts += 1
            records.append(Conflicted(event))
        return records + self._open_fitted()

    def _open_fitted(self) -> list[Record]:
        """Opens trials for the interventions whose training has ended, with what was fit."""
        records: list[Record] = []
        for finished in self._fits.take_finished():
            if finished.failure is None:
                records += self._decisions.open(finished.intervention, finished.tests)
                continue
            for test in finished.tests:
                records += self._decisions.decide(Ending(test, None, "failed", finished.failure))
        return records

    def _on_measured(self, event: Measured) -> list[Record]:
        part = self.screening.part_of(event.split, event.block)
        trial = self._registry.trial((event.split, event.intervention, part))
        assert trial is not None, (event.key, "was never asked for")
        records: list[Record] = []
        status = trial.take(event)
        if status == "first":
            self._pairs_seen += len(event.pairs)
        elif status == "conflict":
            self._conflicts += 1
            records.append(Conflicted(event))
        records += self._decisions.count(trial)
        self._registry.settle(trial, event)
        return records

    # --- losses and failures

    def _on_unfinished(self, event: Lost | Failed) -> list[Record]:
        """Takes a lost or failed task: queues it again, and quarantines an intervention that fails
        too often.
        """
        records: list[Record] = []
        was_done = self.preparation.done
        self.preparation.requeue(event)
        if self.preparation.done and not was_done:
            records += self._on_all_prepared()
        attempt = failed_attempt(event)
        if attempt is not None:
            part = self.screening.part_of(event.split, *attempt.blocks[:1])
            trial = self._registry.count_failure(event.split, attempt, part)
            if trial is not None:
                records += self._decisions.end(trial, "failed", attempt.reason)
        self._registry.requeue(event)
        halving = self._fits.halving
        records += halving.on_lost(event) if isinstance(event, Lost) else halving.on_failed(event)
        return records + self._open_fitted()

    def _on_retried(self, event: Retried) -> list[Record]:
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
        records: list[Record] = []
        for failure in failures:
            if failure.trial is not None:
                records += self._decisions.reopen(failure.trial, [failure.test])
        return records

    # --- continuation

    def _on_continued(self, event: Continued) -> list[Record]:
        assert self._continued, "a search that goes on is made for it"
        assert self.done, "an unfinished search goes on as it is"
        records = self._continuations.start(event)
        if self.preparation.done:
            records += self._go_on()
        return records

    def _go_on(self) -> list[Record]:
        self._generations.again()
        return self._continuations.go_on()
